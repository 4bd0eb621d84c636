package resp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

const (
	// MaxReplyLineBytes is the longest simple string, error, integer, double,
	// big number, boolean or null in a reply, in bytes without type and line end.
	MaxReplyLineBytes = 1 << 20
	// maxReplyLength bounds the lengths in a reply and the number of values
	// still to come, so that their sums cannot overflow.
	maxReplyLength = 1 << 60
	// maxStreamDepth is how deep aggregates of unknown length ("*?") may nest.
	// No server sends one yet. Others may nest without limit.
	maxStreamDepth = 32
	// minReplyBytes is the length of the shortest value, "_\r\n", and of what
	// ends a streamed aggregate, ".\r\n".
	minReplyBytes = 3
	// maxReplyHeader is the length of the longest line that holds a length.
	maxReplyHeader = 1 + maxLongLongLen + 2
)

// Frequent beginnings of replies and requests, as the eight bytes that a
// little-endian load of a buffer's start gives, and masks for what is to be
// compared: one load and one comparison instead of one for each byte.
const (
	maskOK    = 0xff_ff_ff_ff_ff
	replyOK   = '+' | 'O'<<8 | 'K'<<16 | '\r'<<24 | '\n'<<32
	maskBulk2 = 0xff_ff_00_00_ff
	bulk2     = '$' | '\r'<<24 | '\n'<<32 // "$nn\r\n"
	crlf16    = '\r' | '\n'<<8
)

// ErrMalformedReply is what is wrong with the bytes of an upstream that do not
// follow the protocol. Errors of [ScanReply] and [ReplyScanner] wrap it. The
// connection is of no more use.
var ErrMalformedReply = errors.New("malformed reply")

var (
	errReplyLine     = fmt.Errorf("%w: line longer than 1 MiB", ErrMalformedReply)
	errReplyLength   = fmt.Errorf("%w: invalid length", ErrMalformedReply)
	errReplyOverflow = fmt.Errorf("%w: length out of range", ErrMalformedReply)
	errReplyBulkEnd  = fmt.Errorf("%w: no line end after a bulk string", ErrMalformedReply)
	errReplyStream   = fmt.Errorf("%w: chunk or end of a stream out of place", ErrMalformedReply)
	errReplyDepth    = fmt.Errorf("%w: streamed aggregates nested too deep", ErrMalformedReply)
)

// ScanReply finds the first complete reply in buf, pushes and attributes
// included. It does not keep or change buf.
//
// If n > 0 the reply is n bytes long. If n == 0 and err is nil it is incomplete
// and will have at least need bytes, need > len(buf). A reply that is large or
// of many values should then be followed by a [ReplyScanner], since ScanReply
// always begins at the start. Errors wrap [ErrMalformedReply].
func ScanReply(buf []byte) (n int, need int64, err error) {
	if len(buf) >= 8 { // the two most frequent forms: worth sparing them a call
		x := binary.LittleEndian.Uint64(buf)
		if x&maskBulk2 == bulk2 { // "$nn\r\n"
			d1, d2 := uint(byte(x>>8)-'0'), uint(byte(x>>16)-'0')
			end := 5 + d1*10 + d2
			if d1-1 < 9 && d2 <= 9 && end+1 < uint(len(buf)) && binary.LittleEndian.Uint16(buf[end:end+2]) == crlf16 {
				return int(end + 2), 0, nil
			}
		} else if x&maskOK == replyOK {
			return len("+OK\r\n"), 0, nil
		}
	}
	if n = smallValue(buf); n > 0 {
		return n, 0, nil
	}
	return scanReply(buf)
}

// smallValue is the fast path: the length of the value at the start of b if it
// is a complete and well-formed one of the most frequent forms, else 0.
func smallValue(b []byte) int {
	if len(b) < 6 || b[0] != '$' {
		return shortLine(b)
	}
	d := uint(b[1] - '0')
	if d > 9 {
		return shortLine(b)
	}
	var end uint // of the string, before its CR LF
	switch {
	case b[2] == '\r' && b[3] == '\n':
		end = 4 + d
	case d == 0:
		return 0
	case b[3] == '\r' && b[4] == '\n':
		d2 := uint(b[2] - '0')
		if d2 > 9 {
			return 0
		}
		end = 5 + d*10 + d2
	case b[4] == '\r' && b[5] == '\n':
		d2, d3 := uint(b[2]-'0'), uint(b[3]-'0')
		if d2 > 9 || d3 > 9 {
			return 0
		}
		end = 6 + d*100 + d2*10 + d3
	default:
		d2, d3, d4 := uint(b[2]-'0'), uint(b[3]-'0'), uint(b[4]-'0')
		if d2 > 9 || d3 > 9 || d4 > 9 || b[5] != '\r' || len(b) < 7 || b[6] != '\n' {
			return 0
		}
		end = 7 + d*1000 + d2*100 + d3*10 + d4
	}
	if end+1 >= uint(len(b)) || b[end] != '\r' || b[end+1] != '\n' {
		return 0
	}
	return int(end + 2)
}

// shortLine is smallValue for integers and short simple strings, and for the
// null of RESP2.
func shortLine(b []byte) int {
	if len(b) < 4 {
		return 0
	}
	switch b[0] {
	case ':', '+':
		for i, c := range b[:min(len(b)-1, 24)] {
			if c == '\r' {
				if b[i+1] == '\n' {
					return i + 2
				}
				return 0
			}
		}
	case '$':
		if b[1] == '-' && b[2] == '1' && b[3] == '\r' && len(b) > 4 && b[4] == '\n' {
			return 5
		}
	}
	return 0
}

// scanReply is ScanReply for all that smallValue does not know.
func scanReply(b []byte) (n int, need int64, err error) {
	s := nesting{pending: 1}
	pos := 0
	for {
		if s.plain() {
			pos += s.skipSmall(b[pos:])
			if s.done() {
				return pos, 0, nil
			}
		}
		head, body, err := s.token(b[pos:])
		if err != nil {
			return 0, 0, err
		}
		if head == 0 {
			return 0, max(addSaturated(int64(pos), s.rest()), int64(len(b))+1), nil
		}
		pos += head
		if body > 0 {
			if err := checkBulkEnd(b[pos:], body); err != nil {
				return 0, 0, err
			}
			if body > int64(len(b)-pos) {
				return 0, addSaturated(int64(pos)+body, s.rest()), nil
			}
			pos += int(body)
		}
		if s.done() {
			return pos, 0, nil
		}
	}
}

// checkBulkEnd looks at as much as is there of the CR LF that ends body.
func checkBulkEnd(b []byte, body int64) error {
	if body-2 < int64(len(b)) && b[body-2] != '\r' || body-1 < int64(len(b)) && b[body-1] != '\n' {
		return errReplyBulkEnd
	}
	return nil
}

// nesting counts what is still to come of a reply. Since an aggregate is over
// when all its values are, the sizes of nested ones can be added up, and no
// stack is needed however deep they nest. Only streamed ones, whose number of
// values is unknown, need a place each.
type nesting struct {
	// pending is the number of values still to come at this level: of the
	// reply, or of an aggregate inside the innermost streamed one.
	pending int64
	// chunked: inside a streamed string; only chunks may follow.
	chunked bool
	depth   int                   // number of streamed aggregates that are open
	outer   [maxStreamDepth]int64 // pending outside of each of them
}

// done tells whether nothing more is to come.
func (s *nesting) done() bool { return s.pending == 0 && s.depth == 0 && !s.chunked }

// plain tells whether values of a known number are next.
func (s *nesting) plain() bool { return s.pending > 0 && !s.chunked }

// rest returns the least number of bytes that are still to come.
func (s *nesting) rest() int64 {
	values := s.pending + int64(s.depth)
	for _, p := range s.outer[:s.depth] {
		values = addSaturated(values, p)
	}
	if values > math.MaxInt64/minReplyBytes {
		return math.MaxInt64
	}
	if values *= minReplyBytes; s.chunked {
		values = addSaturated(values, int64(len(";0\r\n")))
	}
	return values
}

func addSaturated(a, b int64) int64 {
	if a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

// skipSmall takes the small values at the start of b, as long as pending, and
// returns their length.
func (s *nesting) skipSmall(b []byte) (n int) {
	for s.pending > 0 {
		m := smallValue(b[n:])
		if m == 0 {
			break
		}
		n += m
		s.pending--
	}
	return n
}

// value counts a value that is an aggregate of children values, or 0 for none.
func (s *nesting) value(children int64) error {
	if s.pending > 0 { // else it is one of the unknown number of a stream
		s.pending--
	}
	if s.pending += children; s.pending > maxReplyLength {
		return errReplyOverflow
	}
	return nil
}

// token takes the header at the start of b, which for a simple value is all of
// it. It returns the header's length and that of the bytes that follow before
// the next header, CR LF included. head == 0: the header is incomplete.
func (s *nesting) token(b []byte) (head int, body int64, err error) {
	if len(b) == 0 {
		return 0, 0, nil
	}
	if s.chunked != (b[0] == ';') {
		return 0, 0, errReplyStream
	}
	switch b[0] {
	case '+', '-', ':', ',', '(', '#', '_':
		if head, err = lineEnd(b); head > 0 {
			err = s.value(0)
		}
		return head, 0, err
	case '$', '!', '=', ';':
		return s.bulk(b)
	case '*', '~', '%', '>', '|':
		head, err = s.aggregate(b)
		return head, 0, err
	case '.':
		head, err = s.endStream(b)
		return head, 0, err
	}
	return 0, 0, fmt.Errorf("%w: unknown type %q", ErrMalformedReply, b[0])
}

// lineEnd returns the length of the line at the start of b, 0 if its end is not
// there. A CR or LF alone does not end it (modules do not replace them).
func lineEnd(b []byte) (int, error) {
	limit := min(len(b), 1+MaxReplyLineBytes+2)
	for i := 1; ; {
		cr := bytes.IndexByte(b[i:limit], '\r')
		if cr < 0 || i+cr+1 >= limit {
			break
		}
		if i += cr + 1; b[i] == '\n' {
			return i + 1, nil
		}
	}
	if limit == 1+MaxReplyLineBytes+2 {
		return 0, errReplyLine
	}
	return 0, nil
}

func (s *nesting) bulk(b []byte) (head int, body int64, err error) {
	n, head, err := replyLength(b)
	if head == 0 || err != nil {
		return 0, 0, err
	}
	kind := b[0]
	switch {
	case n >= 0 && kind == ';':
		if n == 0 { // the last chunk has no body
			s.chunked = false
			return head, 0, nil
		}
		return head, n + 2, nil
	case n >= 0:
		return head, n + 2, s.value(0)
	case kind != '$':
		return 0, 0, errReplyLength
	case n == lengthUnknown:
		s.chunked = true
	}
	return head, 0, s.value(0)
}

func (s *nesting) aggregate(b []byte) (head int, err error) {
	n, head, err := replyLength(b)
	if head == 0 || err != nil {
		return 0, err
	}
	kind := b[0]
	switch {
	case n == lengthNull && kind == '*':
		return head, s.value(0)
	case n == lengthUnknown && (kind == '*' || kind == '~' || kind == '%'):
		return head, s.beginStream()
	case n < 0:
		return 0, errReplyLength
	case kind == '%':
		return head, s.value(2 * n)
	case kind == '|': // its pairs and the value that they belong to
		return head, s.value(2*n + 1)
	default:
		return head, s.value(n)
	}
}

func (s *nesting) beginStream() error {
	if s.depth == maxStreamDepth {
		return errReplyDepth
	}
	if err := s.value(0); err != nil {
		return err
	}
	s.outer[s.depth] = s.pending
	s.depth++
	s.pending = 0
	return nil
}

func (s *nesting) endStream(b []byte) (head int, err error) {
	if s.depth == 0 || s.pending > 0 {
		return 0, errReplyStream
	}
	const end = ".\r\n"
	if n := min(len(b), len(end)); string(b[:n]) != end[:n] {
		return 0, errReplyStream
	} else if n < len(end) {
		return 0, nil
	}
	s.depth--
	s.pending = s.outer[s.depth]
	return len(end), nil
}

// Lengths that are none.
const (
	lengthNull    = -1 // "-1"
	lengthUnknown = -2 // "?"
)

// replyLength reads the line at the start of b that holds a length: its type,
// a number without leading zeros, -1 or ?, and CR LF. head == 0: incomplete.
// It refuses a wrong byte as soon as it is there.
func replyLength(b []byte) (n int64, head int, err error) {
	i := 1
	switch {
	case len(b) < 2:
		return 0, 0, nil
	case b[1] == '?':
		n, i = lengthUnknown, 2
	case b[1] == '-':
		if len(b) < 3 {
			return 0, 0, nil
		}
		if b[2] != '1' {
			return 0, 0, errReplyLength
		}
		n, i = lengthNull, 3
	default:
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			if i > 1 && n == 0 {
				return 0, 0, errReplyLength
			}
			if n > (maxReplyLength-9)/10 {
				return 0, 0, errReplyOverflow
			}
			n = n*10 + int64(b[i]-'0')
		}
		if i == 1 {
			return 0, 0, errReplyLength
		}
	}
	switch {
	case i < len(b) && b[i] != '\r', i+1 < len(b) && b[i+1] != '\n':
		return 0, 0, errReplyLength
	case i+1 >= len(b):
		return 0, 0, nil
	}
	return n, i + 2, nil
}
