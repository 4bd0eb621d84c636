// Package downstream serves stock replicas from a store: to them it is a master
// that never forks. It speaks the server's side of PSYNC, with the store's base
// and log where a master has a snapshot and a backlog. syncer/DESIGN.md draws
// the states and the goroutines.
//
// A [Server] is made by [New], which does no I/O, and runs from [Server.Start]
// to [Server.Close]. It must be closed before the store and the link that it was
// given.
//
// The rules it lives by (facts: Redis's replication.c):
//
//   - Once a replica is online it is sent the bytes of the stream and nothing
//     else: one more byte would shift every offset behind it (redis#5135). While
//     the master is away there is silence.
//   - It is sent committed bytes only: whole commands and transactions.
//   - The bytes behind a change of the replid are never sent to a replica that
//     has not been told of it: it is disconnected, comes back by its old id and
//     is told the new one.
//   - A base or log that is found damaged is not sent.
//
// Nothing is buffered for a replica: bases and log go from the page cache to the
// socket by sendfile. One that is slow costs no memory, only log that has to be
// kept for it, and that is bounded by Options.MaxLagBytes.
package downstream
