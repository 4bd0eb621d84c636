package resp

import "bytes"

// word is a part of an inline request as it stands there.
type word struct {
	start, end int  // empty only at the end of the line
	quoted     bool // holds quotes: must be unquoted
}

// isSpace is isspace(3) in the C locale.
func isSpace(c byte) bool { return c == ' ' || c >= '\t' && c <= '\r' }

// endsWord tells whether c ends a word that is not quoted. Not all that isspace
// names does: vertical tab and form feed separate words only where a word could
// begin (sdssplitargs).
func endsWord(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// nextWord finds the first word of line at or after pos by the rules of Redis's
// sdssplitargs.
func nextWord(line []byte, pos int) (word, error) {
	for pos < len(line) && isSpace(line[pos]) {
		pos++
	}
	w := word{start: pos, end: pos}
	for ; w.end < len(line); w.end++ {
		c := line[w.end]
		if endsWord(c) {
			return w, nil
		}
		if c == '"' || c == '\'' { // ends the word, even if it began without a quote
			w.quoted = true
			w.end = quoteEnd(line, w.end)
			if w.end < 0 || w.end < len(line) && !isSpace(line[w.end]) {
				return word{}, ErrUnbalancedQuotes
			}
			return w, nil
		}
	}
	return w, nil
}

// quoteEnd returns the position after the quote that closes the one at pos, or
// -1. Between single quotes a backslash escapes nothing but a single quote.
func quoteEnd(line []byte, pos int) int {
	quote := line[pos]
	for pos++; pos < len(line); pos++ {
		switch c := line[pos]; {
		case c == quote:
			return pos + 1
		case c == '\\' && pos+1 < len(line) && (quote == '"' || line[pos+1] == '\''):
			pos++
		}
	}
	return -1
}

// appendUnquoted appends what the word raw, found by nextWord and quoted, means.
func appendUnquoted(dst, raw []byte) []byte {
	i := 0
	for raw[i] != '"' && raw[i] != '\'' {
		i++
	}
	dst = append(dst, raw[:i]...)
	quote, body := raw[i], raw[i+1:len(raw)-1]
	for len(body) > 0 {
		c, n := body[0], 1
		switch {
		case c != '\\' || len(body) == 1:
		case quote == '"':
			c, n = unescape(body)
		case body[1] == '\'':
			c, n = '\'', 2
		}
		dst = append(dst, c)
		body = body[n:]
	}
	return dst
}

// unescape decodes the escape sequence at the start of b, which is at least two
// bytes long, and returns its length.
func unescape(b []byte) (c byte, n int) {
	switch b[1] {
	case 'x':
		if len(b) >= 4 {
			hi, ok1 := hexDigit(b[2])
			lo, ok2 := hexDigit(b[3])
			if ok1 && ok2 {
				return hi<<4 | lo, 4
			}
		}
	case 'n':
		return '\n', 2
	case 'r':
		return '\r', 2
	case 't':
		return '\t', 2
	case 'b':
		return '\b', 2
	case 'a':
		return '\a', 2
	}
	return b[1], 2
}

func hexDigit(c byte) (v byte, ok bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// trimLine cuts line where Redis does: before its LF, a CR in front of that, or
// a NUL.
func trimLine(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
		if n > 1 && line[n-2] == '\r' {
			line = line[:n-2]
		}
	}
	if i := bytes.IndexByte(line, 0); i >= 0 {
		line = line[:i]
	}
	return line
}

// SplitInline splits a line into words as Redis's sdssplitargs does: words are
// separated by white space, "…" may hold \xHH, \n, \r, \t, \b, \a and escaped
// characters, '…' may hold \', and a closing quote ends its word. The line's end
// may be there or not. A word without quotes is a part of line, not a copy.
// The error is [ErrUnbalancedQuotes].
func SplitInline(line []byte) ([][]byte, error) {
	line = trimLine(line)
	var words [][]byte
	for pos := 0; ; {
		w, err := nextWord(line, pos)
		if err != nil {
			return nil, err
		}
		if w.start == w.end {
			return words, nil
		}
		raw := line[w.start:w.end:w.end]
		if w.quoted {
			raw = appendUnquoted(make([]byte, 0, len(raw)), raw)
		}
		words = append(words, raw)
		pos = w.end
	}
}

// NormalizeInline appends to dst the inline request line as an array of bulk
// strings, so that it can stand in a pipeline with any other. The line's end
// may be there or not. A line without words appends nothing: Redis ignores it.
// The error is [ErrUnbalancedQuotes], and dst is then returned as it was.
func NormalizeInline(dst, line []byte) ([]byte, error) {
	line = trimLine(line)
	count := 0
	for pos := 0; ; count++ {
		w, err := nextWord(line, pos)
		if err != nil {
			return dst, err
		}
		if w.start == w.end {
			break
		}
		pos = w.end
	}
	if count == 0 {
		return dst, nil
	}
	dst = AppendArrayHeader(dst, count)
	for pos := 0; ; {
		w, _ := nextWord(line, pos) // no error the first time, none now
		if w.start == w.end {
			return dst, nil
		}
		raw := line[w.start:w.end]
		if w.quoted {
			raw = appendUnquoted(nil, raw)
		}
		dst = AppendBulk(dst, raw)
		pos = w.end
	}
}
