package psync

import (
	"strconv"

	"github.com/sluice-io/sluice/syncer/repl"
)

// What a master says to a replica, byte for byte. A line that was begun must
// be complete within 5 s and fit 256 bytes (repl_syncio_timeout,
// receiveSynchronousResponse). Once the replica is online nothing is ever
// replied to it.
const (
	ReplyOK   = "+OK\r\n"
	ReplyPong = "+PONG\r\n"
	// KeepAlive is sent every second while a replica waits for +FULLRESYNC or
	// for its payload, and never at another time.
	KeepAlive = "\n"
	// ReplyNoMasterLink and ReplyLoading are the two errors to PSYNC upon which
	// a replica keeps its position and tries again. After any other it falls
	// back to SYNC, and up to 6.2 forgets what it had.
	ReplyNoMasterLink = "-NOMASTERLINK Can't SYNC while not connected with my master\r\n"
	ReplyLoading      = "-LOADING Redis is loading the dataset in memory\r\n"
)

// AppendFullResync appends +FULLRESYNC for a snapshot taken at pos. Payload
// header, payload and the stream from the byte after pos follow.
func AppendFullResync(dst []byte, pos repl.Pos) []byte {
	dst = append(dst, "+FULLRESYNC "...)
	dst = append(append(dst, pos.ReplID...), ' ')
	dst = strconv.AppendInt(dst, int64(pos.Offset), 10)
	return append(dst, '\r', '\n')
}

// AppendContinue appends +CONTINUE, with the id that the history goes by now
// if the replica has announced that it understands one (CapaPSYNC2). The
// stream from the byte asked for follows. A replica that does not understand
// ids must not be let continue under a new one: it would never learn of it.
func AppendContinue(dst []byte, id repl.ReplID, capa Capa) []byte {
	dst = append(dst, "+CONTINUE"...)
	if capa&CapaPSYNC2 != 0 {
		dst = append(append(dst, ' '), id...)
	}
	return append(dst, '\r', '\n')
}
