package resp

import "bytes"

// scanPhase says in the midst of what a ReplyScanner is.
type scanPhase uint8

const (
	scanStart  scanPhase = iota // nothing: the next byte begins a reply
	scanHeader                  // a line that holds a length, or is about to begin one
	scanLine                    // a simple value
	scanBody                    // the bytes of a string and CR LF
)

// String returns the phase's name.
func (p scanPhase) String() string {
	return [...]string{"start", "header", "line", "body"}[p]
}

// ReplyScanner follows a reply of any size as its bytes pass by, in a few
// hundred bytes of memory, and agrees with [ScanReply] on where it ends and
// whether it is malformed. The zero value expects the first byte of a reply, and
// so does one that has reported done. Not to be used by two goroutines at a
// time, nor after an error, unless it was Reset.
type ReplyScanner struct {
	nest   nesting
	phase  scanPhase
	body   int64                // in scanBody: bytes still to come, CR LF included
	line   int                  // in scanLine: bytes that have passed, the type excluded
	cr     bool                 // in scanLine: the last of them was CR
	nhead  int                  // in scanHeader: bytes of a line that have passed
	header [maxReplyHeader]byte // in scanHeader: these bytes
}

// Reset makes s expect the first byte of a reply.
func (s *ReplyScanner) Reset() { *s = ReplyScanner{} }

// Idle tells whether no byte of a reply has passed since the last one was done.
func (s *ReplyScanner) Idle() bool { return s.phase == scanStart }

// Scan consumes the next bytes of the reply, n of buf. If done, the reply ended
// with them and the rest of buf is of the next one; else n is len(buf). Errors
// wrap [ErrMalformedReply].
func (s *ReplyScanner) Scan(buf []byte) (n int, done bool, err error) {
	for n < len(buf) {
		var used int
		switch s.phase {
		case scanStart:
			if used = smallValue(buf[n:]); used > 0 {
				return n + used, true, nil
			}
			s.nest.pending = 1
			s.phase = scanHeader
		case scanHeader:
			used, err = s.scanHeader(buf[n:])
		case scanLine:
			used, err = s.scanLine(buf[n:])
		case scanBody:
			used, err = s.scanBody(buf[n:])
		}
		n += used
		if err != nil {
			return n, false, err
		}
		if s.phase == scanHeader && s.nhead == 0 && s.nest.done() {
			s.phase = scanStart
			return n, true, nil
		}
	}
	return n, false, nil
}

// scanHeader takes values that are there as a whole, and the beginning of one
// that is not.
func (s *ReplyScanner) scanHeader(b []byte) (n int, err error) {
	if s.nhead == 0 {
		if s.nest.plain() {
			if n = s.nest.skipSmall(b); n > 0 {
				return n, nil
			}
		}
		head, body, err := s.nest.token(b)
		if head > 0 || err != nil {
			s.begin(body)
			return head, err
		}
		if isLineType(b[0]) {
			s.phase = scanLine
			s.line = 0
			s.cr = false
			return 1, nil
		}
		s.nhead = copy(s.header[:], b)
		return s.nhead, nil
	}
	for n < len(b) {
		s.header[s.nhead] = b[n] // cannot overflow: the token would have been refused before
		s.nhead++
		n++
		head, body, err := s.nest.token(s.header[:s.nhead])
		if err != nil {
			return n, err
		}
		if head > 0 {
			s.nhead = 0
			s.begin(body)
			return n, nil
		}
	}
	return n, nil
}

// begin waits for a string's body, if there is one.
func (s *ReplyScanner) begin(body int64) {
	if body > 0 {
		s.phase = scanBody
		s.body = body
	}
}

func isLineType(c byte) bool {
	switch c {
	case '+', '-', ':', ',', '(', '#', '_':
		return true
	}
	return false
}

// scanLine takes bytes of a simple value up to its end. See lineEnd.
func (s *ReplyScanner) scanLine(b []byte) (n int, err error) {
	for n < len(b) {
		if s.cr && b[n] == '\n' {
			s.phase = scanHeader
			return n + 1, s.nest.value(0)
		}
		step := bytes.IndexByte(b[n:], '\r') + 1
		if s.cr = step > 0; !s.cr {
			step = len(b) - n
		}
		n += step
		if s.line += step; s.line >= MaxReplyLineBytes+2 {
			return n, errReplyLine
		}
	}
	return n, nil
}

// scanBody takes bytes of a string and the CR LF behind it.
func (s *ReplyScanner) scanBody(b []byte) (n int, err error) {
	if s.body >= 2 {
		err = checkBulkEnd(b, s.body)
	} else if b[0] != '\n' {
		err = errReplyBulkEnd
	}
	n = int(min(s.body, int64(len(b))))
	if s.body -= int64(n); s.body == 0 {
		s.phase = scanHeader
	}
	return n, err
}
