// Package backend holds the connections to Redis nodes that an event loop
// owns.
//
// A [Pipeline] carries the requests of many sessions in order (shared) or of
// one (pinned). It keeps the bytes of a request until the reply has come, so
// that what was lost with a connection can be sent again: by right if it never
// left this process whole, because Redis cannot run a partial request; by
// choice if it is a read.
//
// Connections are made by a goroutine of their own, which resolves, dials,
// authenticates and asks ROLE with ordinary blocking calls, and are handed to
// the loop once Redis has shown that it has the role they are for.
package backend
