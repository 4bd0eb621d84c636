// Package eventloop multiplexes many non-blocking sockets on one goroutine.
//
// A [Loop] owns its connections. Everything that happens to a [Conn] happens
// on the goroutine that runs [Loop.Run]; other goroutines reach it by
// [Loop.Post] alone. So there are no locks and no channels on the path of a
// byte, and a handler may keep its state in plain fields.
//
// One iteration: wait; read every ready socket once into the loop's scratch
// buffer and hand the bytes to its [Handler]; run what was posted, the timers
// and the resumed connections; then write every connection that was written
// to, once. A connection owns memory only while bytes are left over, so an
// idle one costs its structs and nothing else.
//
// A connection may carry TLS, see [ServerTLS], [ClientTLS] and [Take].
//
// Linux uses epoll, macOS and the BSDs kqueue, both level-triggered.
package eventloop
