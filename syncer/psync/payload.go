package psync

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/sluice-io/sluice/resp"
)

// MarkLen is the length in bytes of the mark that ends a payload of unknown
// size (CONFIG_RUN_ID_SIZE).
const MarkLen = 40

// ErrPayloadHeader says that what came where a payload had to begin is no
// payload header.
var ErrPayloadHeader = errors.New("malformed payload header")

// PayloadHeader is the line in front of a snapshot:
//
//	$<size>        its size is known: a file; the stream follows at once
//	$EOF:<mark>    written as it is made; it ends where the mark stands, and the
//	               stream begins only when the replica has sent an ACK. One that
//	               comes before the master has seen its child exit is in vain:
//	               go on sending one every second
type PayloadHeader struct {
	// Mark is the MarkLen bytes behind a payload of unknown size; empty for one
	// of a known size.
	Mark string
	// Size of the payload in bytes. Without a meaning if there is a mark.
	Size int64
}

// Marked reports whether the payload ends by a mark.
func (h PayloadHeader) Marked() bool { return h.Mark != "" }

// NewPayloadMark returns a header with a new random mark
// (rdbSaveRioWithEOFMark).
func NewPayloadMark() PayloadHeader {
	var b [MarkLen / 2]byte
	_, _ = rand.Read(b[:]) // never fails
	return PayloadHeader{Mark: hex.EncodeToString(b[:])}
}

// Append appends the header's line. Behind a marked payload h.Mark must be
// sent, and nothing else until the replica's first ACK: a replica that writes
// the payload to disk looks for the mark only at the end of what each read(2)
// gave it.
func (h PayloadHeader) Append(dst []byte) []byte {
	if h.Marked() {
		return append(append(append(dst, "$EOF:"...), h.Mark...), '\r', '\n')
	}
	dst = append(dst, '$')
	return append(fmt.Append(dst, h.Size), '\r', '\n')
}

// ReadPayloadHeader reads the header of a payload, past the newlines that a
// master sends while it waits for its fork or its disk. If the master gave up
// instead, the error wraps a [Retry] or a [Refused]; it wraps
// [ErrPayloadHeader] if it sent something else, and else what reading failed
// with.
func ReadPayloadHeader(r *bufio.Reader) (PayloadHeader, error) {
	line, err := readReply(r)
	if err != nil {
		return PayloadHeader{}, fmt.Errorf("read payload header: %w", err)
	}
	return ParsePayloadHeader(line)
}

// ParsePayloadHeader parses a header's line without its end. See
// [ReadPayloadHeader] for the errors.
func ParsePayloadHeader(line string) (PayloadHeader, error) {
	if len(line) > 0 && line[0] == '-' {
		return PayloadHeader{}, fmt.Errorf("full resync aborted: %w", parseError(line))
	}
	const marked = "$EOF:"
	if len(line) == len(marked)+MarkLen && line[:len(marked)] == marked {
		return PayloadHeader{Mark: line[len(marked):]}, nil
	}
	if len(line) > 1 && line[0] == '$' {
		if n, ok := resp.ParseLongLong([]byte(line[1:])); ok && n >= 0 {
			return PayloadHeader{Size: n}, nil
		}
	}
	return PayloadHeader{}, fmt.Errorf("%w: %q", ErrPayloadHeader, line)
}

// PayloadReader reads one payload and ends, by io.EOF, exactly behind it: what
// follows, the mark not included, is left in the buffered reader. It keeps
// nothing itself; of a marked payload it holds back at most the last
// MarkLen-1 bytes that have arrived, which may be the beginning of the mark.
type PayloadReader struct {
	r      *bufio.Reader
	header PayloadHeader
	n      int64
	// known is the number of bytes in r's buffer of which it is certain that
	// they are payload. If ended, the mark follows them.
	known int
	ended bool
	err   error // returned from now on
}

// NewPayloadReader returns a reader of the payload that h announced. The
// buffer of r must hold MarkLen bytes; with a [ReaderSize] one the search for
// the mark costs next to nothing.
func NewPayloadReader(r *bufio.Reader, h PayloadHeader) *PayloadReader {
	return &PayloadReader{r: r, header: h}
}

// N returns the number of payload bytes read so far; after io.EOF, the
// payload's size.
func (p *PayloadReader) N() int64 { return p.n }

// Read reads payload. The error is io.EOF behind its last byte,
// io.ErrUnexpectedEOF if the connection ended before, or what reading failed
// with. Errors stay.
func (p *PayloadReader) Read(dst []byte) (n int, err error) {
	if p.err != nil {
		return 0, p.err
	}
	if len(dst) == 0 {
		return 0, nil
	}
	if p.header.Marked() {
		n, err = p.readMarked(dst)
	} else {
		n, err = p.readSized(dst)
	}
	p.n += int64(n)
	p.err = err
	return n, err
}

func (p *PayloadReader) readSized(dst []byte) (int, error) {
	left := p.header.Size - p.n
	if left <= 0 {
		return 0, io.EOF
	}
	n, err := p.r.Read(dst[:min(int64(len(dst)), left)])
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (p *PayloadReader) readMarked(dst []byte) (int, error) {
	if p.known == 0 {
		if !p.ended {
			if err := p.search(); err != nil {
				return 0, err
			}
		}
		if p.known == 0 { // only where the mark is next
			_, err := p.r.Discard(MarkLen)
			if err == nil {
				err = io.EOF
			}
			return 0, err
		}
	}
	n, err := p.r.Read(dst[:min(len(dst), p.known)])
	p.known -= n
	return n, err
}

// search waits until there is more than the beginning of a mark in the buffer
// and looks for the mark in it.
func (p *PayloadReader) search() error {
	if _, err := p.r.Peek(MarkLen); err == io.EOF {
		return io.ErrUnexpectedEOF
	} else if err != nil {
		return fmt.Errorf("read payload: %w", err)
	}
	b, _ := p.r.Peek(p.r.Buffered())
	if i := bytes.Index(b, []byte(p.header.Mark)); i >= 0 {
		p.known, p.ended = i, true
		return nil
	}
	p.known = len(b) - (MarkLen - 1)
	return nil
}
