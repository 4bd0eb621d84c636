package resp

import (
	"bytes"
	"math"
)

// maxLongLongLen is the length of "-9223372036854775808". A longer text is not
// a number to Redis (LONG_STR_SIZE in string2ll).
const maxLongLongLen = 20

// ParseLongLong parses a decimal number as strictly as Redis's string2ll: no
// plus sign, no spaces, no leading zeros, no "-0", nothing beyond 64 bits.
func ParseLongLong(b []byte) (n int64, ok bool) {
	if len(b) == 1 && b[0] == '0' {
		return 0, true
	}
	if len(b) == 0 || len(b) > maxLongLongLen {
		return 0, false
	}
	neg := b[0] == '-'
	if neg {
		b = b[1:]
	}
	if len(b) == 0 || len(b) >= maxLongLongLen || b[0] < '1' || b[0] > '9' {
		return 0, false
	}
	var u uint64 // 19 digits cannot overflow it
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		u = u*10 + uint64(c-'0')
	}
	switch {
	case !neg && u <= math.MaxInt64:
		return int64(u), true
	case neg && u <= math.MaxInt64+1:
		return -int64(u), true
	}
	return 0, false
}

// ParseInt returns the number in a complete reply that is an integer or a
// string that holds one: ":12\r\n", "$2\r\n12\r\n", "+12\r\n".
func ParseInt(reply []byte) (n int64, ok bool) {
	if len(reply) == 0 {
		return 0, false
	}
	line, rest, ok := bytes.Cut(reply, crlf)
	if !ok || len(line) == 0 {
		return 0, false
	}
	switch line[0] {
	case ':', '+':
		return ParseLongLong(line[1:])
	case '$':
		body, found := bytes.CutSuffix(rest, crlf)
		if size, ok := ParseLongLong(line[1:]); !ok || !found || size != int64(len(body)) {
			return 0, false
		}
		return ParseLongLong(body)
	}
	return 0, false
}

// ErrorCode returns the code of an error reply, the word before the first
// space: READONLY of "-READONLY You can't write…" or of RESP3's "!21\r\nREAD…".
// It returns nil when reply is not an error. The code is a part of reply.
func ErrorCode(reply []byte) []byte {
	if len(reply) == 0 {
		return nil
	}
	text := reply[1:]
	switch reply[0] {
	case '-':
	case '!':
		_, rest, ok := bytes.Cut(text, crlf)
		if !ok {
			return nil
		}
		text = rest
	default:
		return nil
	}
	for i, c := range text {
		if c == ' ' || c == '\r' || c == '\n' {
			return text[:i:i]
		}
	}
	return text
}
