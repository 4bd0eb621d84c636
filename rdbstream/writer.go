package rdbstream

import (
	"encoding/binary"
	"errors"
	"io"
)

// Handler is told of the records that pass through a [Writer]. An error of its
// own ends the writing and is returned by Write as it is.
type Handler interface {
	// Record is called when a record begins. What r points to is valid until
	// the next call.
	Record(r *Record) error
	// Payload is called with the next bytes of the record's payload, which are
	// valid during the call. May be called any number of times.
	Payload(p []byte) error
	// End is called when the payload is over; all fields of r are known. It is
	// not called for kinds without payload.
	End(r *Record) error
}

// Writer scans a file that is written to it in pieces of any size, for instance
// beside the disk by an io.MultiWriter. Its memory is bounded: some bytes and
// the names of one record. Not to be used by two goroutines at a time.
type Writer struct {
	// AllowUnknown accepts files whose version, types or opcodes are not known:
	// from there on, only the end of the file and its checksum are checked, and
	// Unknown says why. For who stores files and need not understand them.
	AllowUnknown bool

	h       Handler
	m       machine
	hold    []byte // a token that the last piece cut, at most maxToken
	crc     uint64
	unknown error
	tail    opaque
	done    bool
	err     error
}

var _ io.WriteCloser = (*Writer)(nil)

// holdRoom is how much of a piece is looked at together with a token that the
// last one cut: enough to complete it.
const holdRoom = 2 * maxToken

// NewWriter returns a Writer that tells h of the records; nil if nobody needs
// to know.
func NewWriter(h Handler) *Writer { return &Writer{h: h, hold: make([]byte, 0, maxToken+holdRoom)} }

// Info returns what the file has said about itself so far.
func (w *Writer) Info() Info { return w.m.info }

// Unknown says what was not understood, nil if everything was. See
// AllowUnknown.
func (w *Writer) Unknown() error { return w.unknown }

// Done reports whether the whole file has passed and is in order. It is always
// false where something was not understood: then only Close can tell.
func (w *Writer) Done() bool { return w.done && w.err == nil }

// Write scans p. Errors are [*Error], or the handler's, and final; the bytes
// that were in order before one are counted.
func (w *Writer) Write(p []byte) (n int, err error) {
	if w.err != nil {
		return 0, w.err
	}
	n, err = w.resume(p)
	if err == nil && w.unknown == nil && n < len(p) {
		var used int
		used, err = w.scan(p[n:])
		n += used
	}
	switch {
	case err != nil:
		w.err = err
		return n, err
	case w.unknown != nil:
		w.tail.write(p[n:])
	default:
		w.hold = append(w.hold, p[n:]...)
	}
	return len(p), nil
}

// resume scans the token that the last piece cut, with what follows of it in p,
// and returns how much of p that was.
func (w *Writer) resume(p []byte) (n int, err error) {
	held := len(w.hold)
	if held == 0 {
		return 0, nil
	}
	joined := append(w.hold, p[:min(len(p), holdRoom)]...)
	used, err := w.scan(joined)
	w.hold = joined[:0]
	if used >= held {
		return used - held, err
	}
	if w.unknown != nil { // at a byte of the last piece
		w.tail.write(joined[used:held])
		return 0, err
	}
	// p is short: had it completed the token, more than what was held would
	// have been used.
	w.hold = append(w.hold, joined[used:]...)
	return len(p), err
}

// scan consumes what it can of p. It stops early at what is unknown, if that is
// allowed.
func (w *Writer) scan(p []byte) (n int, err error) {
	summed := 0 // p[:summed] is in crc
	for {
		if w.done {
			if n < len(p) {
				return n, w.m.trailing()
			}
			return n, nil
		}
		inPayload := w.m.inPayload
		used, ev, err := w.m.step(p[n:])
		chunk := p[n : n+used]
		n += used
		if err != nil {
			if w.AllowUnknown && errors.Is(err, ErrUnsupported) {
				w.crc = Checksum(w.crc, p[summed:n])
				w.unknown = err
				w.tail = opaque{crc: w.crc, off: w.m.off + int64(used)}
				return n, nil
			}
			return n, err
		}
		if w.h != nil {
			if err := w.tell(ev, inPayload, chunk); err != nil {
				return n, err
			}
		}
		switch ev {
		case evChecksum:
			w.crc = Checksum(w.crc, p[summed:n])
			summed = n
		case evEOF:
			if err := w.m.compare(w.crc); err != nil {
				return n, err
			}
			w.done = true
		case evMore:
			if w.m.phase < phaseChecksum {
				w.crc = Checksum(w.crc, p[summed:n])
			}
			return n, nil
		}
	}
}

// tell tells the handler of an event.
func (w *Writer) tell(ev event, inPayload bool, chunk []byte) error {
	if inPayload && len(chunk) > 0 {
		if err := w.h.Payload(chunk); err != nil {
			return err
		}
	}
	switch ev {
	case evRecord:
		return w.h.Record(&w.m.rec)
	case evEnd:
		return w.h.End(&w.m.rec)
	}
	return nil
}

// Close returns nil if exactly one whole file has been written, else an
// [*Error].
func (w *Writer) Close() error {
	switch {
	case w.err != nil:
	case w.unknown != nil:
		w.m.info.Size = w.tail.off + int64(w.tail.n)
		w.m.crc = binary.LittleEndian.Uint64(w.tail.last[:])
		w.m.off = w.m.info.Size
		if w.tail.n < checksumLen || w.tail.before != opcodeEOF {
			w.err = &Error{Offset: w.m.off, Doing: "looking for EOF before the checksum", Err: ErrTruncated}
		} else {
			w.err = w.m.compare(w.tail.crc)
		}
	case !w.done:
		w.err = w.m.fail(len(w.hold), ErrTruncated)
	}
	return w.err
}

// opaque follows what is not understood: the last eight bytes are the checksum
// and do not count, the byte before must be EOF.
type opaque struct {
	crc    uint64
	off    int64 // how many bytes have left last
	before byte  // the last of them
	last   [checksumLen]byte
	n      int // how many bytes of last there are
}

func (o *opaque) write(p []byte) {
	if len(p) >= checksumLen {
		o.pass(o.last[:o.n])
		o.pass(p[:len(p)-checksumLen])
		o.n = copy(o.last[:], p[len(p)-checksumLen:])
		return
	}
	over := max(0, o.n+len(p)-checksumLen)
	o.pass(o.last[:over])
	o.n = copy(o.last[:], o.last[over:o.n])
	o.n += copy(o.last[o.n:], p)
}

func (o *opaque) pass(p []byte) {
	if len(p) > 0 {
		o.crc = Checksum(o.crc, p)
		o.off += int64(len(p))
		o.before = p[len(p)-1]
	}
}
