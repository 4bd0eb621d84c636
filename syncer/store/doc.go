// Package store keeps what a relay captures from its master: snapshots (bases)
// and the replication stream that follows them (the log), in one directory,
// checksummed, and durable as the fsync policy says.
//
// A directory holds generations, one per history of the master: a full resync
// begins a new one, and the old one stays readable for its retention. In a
// generation
//
//	base-<offset>.rdb   is a snapshot as the master or a replica sent it,
//	log-<offset>.seg    holds raw bytes of the stream; the name tells the
//	                    offset of its first byte,
//	log-<offset>.idx    has the checksums of the segment's blocks and its
//	                    commit points with time and selected database,
//	catalog             names the bases, the ancestry and how far the log goes.
//
// DESIGN.md draws the formats, the states and what a crash can leave behind.
//
// One goroutine, the writer, appends: [Store.Append], [Store.Commit],
// [Store.TruncateToCommit], [Store.NewGeneration] and [Store.ChangeReplID].
// Everything else may be called by any goroutine. A goroutine of the store's
// own, the keeper, fsyncs, retries after a disk error and enforces retention;
// Append and Commit never wait for it.
//
// Offsets are Redis's: the offset of a byte is its number in the history,
// counted from 1, and a position is the offset of the last byte included
// ([repl.Pos]). So the log that continues a position p begins with the byte
// p+1, and the segment's name says p+1.
package store
