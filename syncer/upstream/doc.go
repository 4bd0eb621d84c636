// Package upstream is the link to the master: it attaches as one replica,
// captures the replication stream into a store, and has a base taken where the
// store needs one, without making the master fork as long as a replica can give
// it. syncer/DESIGN.md draws the states and the goroutines.
//
// A [Link] is the writer of its store. It is made by [New], which does no I/O,
// runs from [Link.Start] to [Link.Close], and never gives up in between: what
// fails is tried again, and [Link.Status] and the metrics say why.
//
// The rules it lives by (facts: Redis's replication.c):
//
//   - The goroutine that reads the socket puts bytes into memory and waits for
//     nothing else. When that memory is full, the link is dropped by us and
//     resumed from the last commit once the disk has caught up. A master that
//     is not read from would drop it too, but only after its output buffer has
//     grown by client-output-buffer-limit.
//   - What is committed, and acknowledged, ends at a command or a transaction.
//   - A full resync is asked for only where nothing else is left: INFO tells
//     beforehand what PSYNC would be answered.
package upstream
