package resp

// skimPhase says what a RequestSkimmer expects next.
type skimPhase uint8

const (
	skimFirst  skimPhase = iota // the first byte of a request
	skimCount                   // the line that holds the number of arguments
	skimLength                  // the line that holds the length of an argument
	skimBody                    // the bytes of an argument and CR LF
	skimInline                  // the line of an inline request
)

// String returns the phase's name.
func (p skimPhase) String() string {
	return [...]string{"first", "count", "length", "body", "inline"}[p]
}

// RequestSkimmer follows one request of any size as its bytes pass by, without
// keeping them, and agrees with [ScanRequest] on where it ends and whether it
// is malformed. The zero value expects a request's first byte, and so does one
// that has reported done. Not to be used by two goroutines at a time, nor after
// an error, unless it was Reset.
type RequestSkimmer struct {
	phase skimPhase
	left  int64 // arguments still to come, the present one included
	body  int64 // in skimBody: bytes still to come, CR LF included
	line  headerLine
	quote quoteState // in skimInline
}

// Reset makes s expect a request's first byte.
func (s *RequestSkimmer) Reset() { *s = RequestSkimmer{} }

// Skim consumes the next bytes of the request, n of buf. If done, the request
// ended with them and the rest of buf is of the next one; else n is len(buf).
// err is a [ProtocolError].
func (s *RequestSkimmer) Skim(buf []byte, lim *Limits) (n int, done bool, err error) {
	for n < len(buf) {
		var used int
		switch s.phase {
		case skimFirst:
			s.phase = skimInline
			if buf[n] == '*' {
				s.phase = skimCount
			}
		case skimInline:
			used, done, err = s.skimInline(buf[n:], lim)
		case skimCount:
			used, done, err = s.skimCount(buf[n:], lim)
		case skimLength:
			used, err = s.skimLength(buf[n:], lim)
		case skimBody:
			used = int(min(s.body, int64(len(buf)-n)))
			if s.body -= int64(used); s.body == 0 {
				s.phase = skimLength
				s.left--
				done = s.left == 0
			}
		}
		n += used
		if err != nil {
			return n, false, err
		}
		if done {
			s.Reset()
			return n, true, nil
		}
	}
	return n, false, nil
}

func (s *RequestSkimmer) skimCount(b []byte, lim *Limits) (n int, done bool, err error) {
	n, complete, err := s.line.skim(b, lim, ErrTooBigMultibulkCount)
	if !complete || err != nil {
		return n, false, err
	}
	if s.left, err = lim.multibulkLength(s.line.text()[1:]); err != nil {
		return n, false, err
	}
	s.line = headerLine{}
	s.phase = skimLength
	return n, s.left <= 0, nil
}

func (s *RequestSkimmer) skimLength(b []byte, lim *Limits) (n int, err error) {
	var size int64
	if s.line.empty() { // usually the whole line is there
		if size, n = smallBulkHeader(b); n > len(b) || size > lim.MaxBulkBytes {
			n = 0
		}
	}
	if n == 0 {
		var complete bool
		n, complete, err = s.line.skim(b, lim, ErrTooBigBulkCount)
		if !complete || err != nil {
			return n, err
		}
		if size, err = lim.bulkLength(s.line.text()); err != nil {
			return n, err
		}
		s.line = headerLine{}
	}
	s.phase = skimBody
	s.body = size + 2
	return n, nil
}

func (s *RequestSkimmer) skimInline(b []byte, lim *Limits) (n int, done bool, err error) {
	for n < len(b) {
		c := b[n]
		n++
		if c == '\n' && !s.line.nul {
			if !s.quote.balanced() {
				return n, false, ErrUnbalancedQuotes
			}
			return n, true, nil
		}
		if s.line.length++; s.line.length > lim.MaxInlineBytes {
			return n, false, ErrTooBigInline
		}
		s.line.nul = s.line.nul || c == 0
		s.quote = s.quote.next(c)
	}
	return n, false, nil
}

// headerLine collects a line that holds a length, up to the byte after its CR.
// See headerEnd.
type headerLine struct {
	length int  // bytes before CR
	cr     bool // CR was there: one more byte ends the line
	nul    bool // a NUL was there: Redis's strchr sees no CR behind it
	// head are the first bytes. No valid line is longer: '$' and a long long.
	// What a longer one is refused for does not depend on the rest.
	head [maxLongLongLen + 2]byte
}

func (l *headerLine) empty() bool { return l.length == 0 && !l.cr }

// text returns what stands before CR, cut to what can be kept: still too long
// to be a number if it was cut.
func (l *headerLine) text() []byte { return l.head[:min(l.length, len(l.head))] }

func (l *headerLine) skim(b []byte, lim *Limits, tooBig ProtocolError) (n int, complete bool, err error) {
	for n < len(b) {
		c := b[n]
		n++
		if l.cr {
			return n, true, nil
		}
		if c == '\r' && !l.nul {
			l.cr = true
			continue
		}
		l.nul = l.nul || c == 0
		if l.length < len(l.head) {
			l.head[l.length] = c
		}
		if l.length++; l.length > lim.MaxInlineBytes {
			return n, false, tooBig
		}
	}
	return n, false, nil
}

// quoteState follows the quotes of an inline request byte by byte, by the rules
// of nextWord.
type quoteState uint8

const (
	quoteNone         quoteState = iota // outside
	quoteDouble                         // after "
	quoteDoubleEscape                   // after a backslash behind "
	quoteSingle                         // after '
	quoteSingleEscape                   // after a backslash behind '
	quoteClosed                         // after a closing quote: white space must follow
	quoteBroken                         // it did not: the line is refused when it ends
)

// String returns the state's name.
func (q quoteState) String() string {
	return [...]string{"none", "double", "double escape", "single", "single escape", "closed", "broken"}[q]
}

func (q quoteState) balanced() bool { return q == quoteNone || q == quoteClosed }

func (q quoteState) next(c byte) quoteState {
	switch q {
	case quoteNone:
		switch c {
		case '"':
			return quoteDouble
		case '\'':
			return quoteSingle
		}
	case quoteDouble:
		switch c {
		case '"':
			return quoteClosed
		case '\\':
			return quoteDoubleEscape
		}
	case quoteDoubleEscape:
		return quoteDouble // \xHH too: its digits are like any other byte
	case quoteSingle:
		switch c {
		case '\'':
			return quoteClosed
		case '\\':
			return quoteSingleEscape
		}
	case quoteSingleEscape: // the backslash escaped a quote or was one byte of many
		switch c {
		case '\\':
			return quoteSingleEscape
		default:
			return quoteSingle
		}
	case quoteClosed:
		if isSpace(c) {
			return quoteNone
		}
		return quoteBroken
	}
	return q
}
