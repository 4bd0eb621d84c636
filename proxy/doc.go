// Package proxy serves Redis clients: it sends their writes to the master and
// their reads to replicas.
//
// A [Server] has listeners, event loops and a view of the nodes. Each loop is a
// worker that owns its clients' sessions and its own connections to every node,
// so that nothing on the path of a command is shared. DESIGN.md shows the
// states of a session and of a connection, and what keeps replies in order.
package proxy
