// Package psync is the wire format of Redis replication, in both directions:
// what a replica says and hears when it attaches to a master, the framing of
// the snapshot, and where commands and transactions end in the stream that
// follows. DESIGN.md draws all of it. The package decides nothing: it does not
// dial, keeps no state beyond a connection, and starts no goroutines.
//
// As a replica (syncer/upstream):
//
//	[Handshake].Run     PING, AUTH, REPLCONF … and their replies
//	[AppendPSync], [ReadAnswer]
//	                    PSYNC, and +FULLRESYNC, +CONTINUE or an error
//	[ReadPayloadHeader], [PayloadReader]
//	                    the snapshot: $<length> or $EOF:<mark>
//	[StreamScanner]     the stream: commit points, SELECT, GETACK
//	[AppendAck]         REPLCONF ACK
//
// As a master (syncer/downstream):
//
//	[RequestReader], [ParseRequest]
//	                    what a replica sends, before and after it is online
//	[Announced]         what it has told by REPLCONF
//	[AppendFullResync], [AppendContinue], [PayloadHeader].Append, Reply…
//	                    the answers
//
// Functions that read take a *bufio.Reader (see [NewReader]), because a master
// sends the snapshot right behind its answer and the stream right behind the
// snapshot: each takes exactly what is its own and leaves the rest. Timeouts
// are those of the connection underneath: give it a Read that moves the
// deadline on, and keepalive newlines count as the signs of life they are.
//
// Values may be used by one goroutine at a time; functions by any.
package psync
