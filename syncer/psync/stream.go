package psync

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
)

// UnknownDB is the selected database where it is not known: after an attach
// without a snapshot, until the first SELECT.
const UnknownDB = -1

// HeadBytes is how much of a command is kept that did not arrive in one piece.
// All commands that have a meaning for replication are shorter.
const HeadBytes = 64

// streamLimits are those of Redis for what its master sends: none on the
// length of an argument, INT_MAX arguments (processMultibulkBuffer). What is
// beyond a pebibyte is no argument but a broken stream.
var streamLimits = resp.Limits{
	MaxBulkBytes:   1 << 50,
	MaxElements:    math.MaxInt32,
	MaxInlineBytes: resp.DefaultMaxInlineBytes,
}

// ErrInline says that there was something else than a command where one had to
// begin. To Redis, too, it means that the stream is broken
// (processInlineBuffer).
var ErrInline = errors.New("not a command")

// StreamError is what is wrong with a replication stream. The position cannot
// be trusted from Offset on.
type StreamError struct {
	Offset repl.Offset // of the first byte of the command that is malformed
	Err    error       // ErrInline or a resp.ProtocolError
}

// Error names the offset and what is wrong.
func (e *StreamError) Error() string {
	return fmt.Sprintf("replication stream broken at offset %d: %v", e.Offset, e.Err)
}

// Unwrap returns what is wrong.
func (e *StreamError) Unwrap() error { return e.Err }

// StreamKind is what a command of the stream means for replication.
type StreamKind uint8

const (
	// KindCommand is any other command.
	KindCommand StreamKind = iota
	// KindPing is PING, which an idle master sends every
	// repl-ping-replica-period (10 s).
	KindPing
	// KindGetAck is REPLCONF GETACK: an [Ack] is wanted at once. Redis answers
	// with what it had processed before this command; any later offset is as
	// good.
	KindGetAck
	// KindSelect is SELECT.
	KindSelect
	// KindMulti is MULTI: a transaction begins.
	KindMulti
	// KindExec is EXEC: the transaction ends.
	KindExec
	// KindDiscard is DISCARD, which no Redis replicates but all would obey.
	KindDiscard
	// KindFiller is bytes that count and do nothing: an empty line, an empty
	// array.
	KindFiller
)

// String returns the kind's name.
func (k StreamKind) String() string {
	return [...]string{"command", "ping", "getack", "select", "multi", "exec", "discard", "filler"}[k]
}

// StreamCommand is one command of the stream.
type StreamCommand struct {
	Kind  StreamKind
	First repl.Offset // of its first byte
	Last  repl.Offset // of its last byte
	// DB is the database that it runs in, for SELECT the one selected.
	DB int
	// Commit: the stream may be cut behind it.
	Commit bool
	// Head is its first bytes: all of them if it lay in one piece in the
	// scanner's input or is not longer than HeadBytes, else HeadBytes. Valid
	// until the scanner is called again and as long as its input.
	Head []byte
}

// Whole reports whether Head is the whole command.
func (c *StreamCommand) Whole() bool { return int64(len(c.Head)) == int64(c.Last-c.First)+1 }

// StreamScanner follows the commands of a replication stream as its bytes pass
// by, whatever their size, and keeps no more than HeadBytes of them. Its rules
// are those of a Redis replica (commandProcessed): a commit point is the end
// of a command outside MULTI, or of EXEC. Only there may the stream be cut,
// acknowledged, or given to somebody else.
//
// An empty line in the stream counts in the offset, is no commit point, and is
// committed by the command that follows, in Redis as well as here: no stock
// master sends one to a replica that is online, and if one is sent, everybody
// downstream counts it. That is why nothing must ever be written into a stream
// that is passed on.
type StreamScanner struct {
	first    repl.Offset // of the first byte of the present command
	size     int64       // bytes of it so far
	inline   bool        // it is an empty line whose LF is missing
	head     [HeadBytes]byte
	skim     resp.RequestSkimmer
	spans    [9]resp.Span // as many as a header of one digit can announce
	db       int
	multi    bool
	commit   repl.Offset
	commitDB int
	err      error
}

// NewStreamScanner returns a scanner for the bytes after offset last, where db
// is selected. It must be a commit point.
func NewStreamScanner(last repl.Offset, db int) *StreamScanner {
	return &StreamScanner{first: last + 1, commit: last, db: db, commitDB: db}
}

// Offset returns the offset of the last byte scanned, perhaps in the middle of
// a command.
func (s *StreamScanner) Offset() repl.Offset { return s.first + repl.Offset(s.size) - 1 }

// Commit returns the last commit point and the database selected there.
func (s *StreamScanner) Commit() (last repl.Offset, db int) { return s.commit, s.commitDB }

// DB returns the database that the next command runs in.
func (s *StreamScanner) DB() int { return s.db }

// InTransaction reports whether a MULTI has yet to find its EXEC.
func (s *StreamScanner) InTransaction() bool { return s.multi }

// SetDB tells which database was selected where the scanner began, for one who
// learns it later: the repl-stream-db of a snapshot taken there. It has no
// effect once a SELECT was seen.
func (s *StreamScanner) SetDB(db int) {
	if s.db == UnknownDB {
		s.db = db
	}
	if s.commitDB == UnknownDB {
		s.commitDB = db
	}
}

// Skim scans all of p. The error is a *[StreamError], and stays.
func (s *StreamScanner) Skim(p []byte) error {
	for len(p) > 0 {
		_, n, _, err := s.Next(p)
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// Next scans p up to the end of the first command in it: n bytes. If ok, c is
// that command; else it goes on behind p, and n is len(p). The error is a
// *[StreamError], and stays.
func (s *StreamScanner) Next(p []byte) (c StreamCommand, n int, ok bool, err error) {
	if s.err != nil {
		return c, 0, false, s.err
	}
	if len(p) == 0 {
		return c, 0, false, nil
	}
	begun := s.size > 0
	if !begun && p[0] != '*' || s.inline {
		n, ok, err = s.emptyLine(p)
	} else if n, ok = s.shortcut(p); !ok {
		n, ok, err = s.skim.Skim(p, &streamLimits)
	}
	if err != nil {
		s.err = &StreamError{Offset: s.first, Err: err}
		return c, 0, false, s.err
	}
	head := p[:n]
	if begun || !ok { // not in one piece
		if s.size < HeadBytes {
			copy(s.head[s.size:], head)
		}
		head = s.head[:min(s.size+int64(n), HeadBytes)]
	}
	s.size += int64(n)
	if !ok {
		return c, n, false, nil
	}
	c = StreamCommand{Kind: KindCommand, First: s.first, Last: s.Offset(), Head: head}
	if s.size <= HeadBytes {
		var db int
		c.Kind, db = classify(head)
		s.turn(c.Kind, db)
	}
	c.DB = s.db
	if c.Commit = !s.multi && c.Kind != KindFiller; c.Commit {
		s.commit, s.commitDB = c.Last, s.db
	}
	s.first, s.size, s.inline = c.Last+1, 0, false
	return c, n, true, nil
}

// shortcut takes the usual command, of a few arguments and in one piece, three
// times as fast as the skimmer.
func (s *StreamScanner) shortcut(p []byte) (n int, ok bool) {
	if s.size > 0 || len(p) < 4 || p[2] != '\r' {
		return 0, false
	}
	n, _, _, err := resp.ScanRequest(p, &streamLimits, s.spans[:0])
	return n, n > 0 && err == nil // else the skimmer says what is wrong
}

// emptyLine takes the LF or CR LF at the start of p, whose CR may have been in
// an earlier piece.
func (s *StreamScanner) emptyLine(p []byte) (n int, done bool, err error) {
	if !s.inline && p[0] == '\r' {
		s.inline = true
		n++
	}
	if n == len(p) {
		return n, false, nil
	}
	if p[n] != '\n' {
		return 0, false, ErrInline
	}
	return n + 1, true, nil
}

// turn changes the state as a command of that kind does.
func (s *StreamScanner) turn(kind StreamKind, db int) {
	switch kind {
	case KindSelect:
		s.db = db
	case KindMulti:
		s.multi = true
	case KindExec:
		s.multi = false
	case KindDiscard:
		if s.multi { // a SELECT in it never ran
			s.multi, s.db = false, s.commitDB
		}
	case KindCommand, KindPing, KindGetAck, KindFiller:
	}
}

// classify tells what a whole command of at most HeadBytes is, and for SELECT
// the database.
func classify(b []byte) (kind StreamKind, db int) {
	// "*1\r\n$4\r\nPING\r\n" is the shortest. A number in a request has no
	// leading zeros, so there is one way to write each of them.
	if b[0] != '*' || b[1] < '1' {
		return KindFiller, 0
	}
	const nameAt = len("*1\r\n$4\r\n")
	if len(b) < nameAt+4 || b[2] != '\r' || b[6] != '\r' {
		return KindCommand, 0
	}
	switch [2]byte{b[1], b[5]} { // arguments and length of the name
	case [2]byte{'1', '4'}, [2]byte{'1', '5'}, [2]byte{'1', '7'}, [2]byte{'2', '6'}, [2]byte{'3', '8'}:
	default:
		return KindCommand, 0
	}
	var args [3]resp.Span
	n, _, spans, err := resp.ScanRequest(b, &streamLimits, args[:0])
	if err != nil || n != len(b) {
		return KindCommand, 0 // cannot be: it was scanned before
	}
	a := resp.Args{Buf: b, Spans: spans}
	switch name := a.At(0); a.Len() {
	case 1:
		switch {
		case fold(name, "MULTI"):
			return KindMulti, 0
		case fold(name, "EXEC"):
			return KindExec, 0
		case fold(name, "DISCARD"):
			return KindDiscard, 0
		case fold(name, "PING"):
			return KindPing, 0
		}
	case 2:
		if fold(name, "SELECT") {
			// What is no database is an error to Redis, and changes nothing.
			if db, ok := resp.ParseLongLong(a.At(1)); ok && db >= 0 && db <= math.MaxInt32 {
				return KindSelect, int(db)
			}
		}
	case 3:
		if fold(name, "REPLCONF") && fold(a.At(1), "GETACK") {
			return KindGetAck, 0
		}
	}
	return KindCommand, 0
}

// fold compares a command's name with one in upper case.
func fold(b []byte, name string) bool {
	return len(b) == len(name) && bytes.EqualFold(b, []byte(name))
}
