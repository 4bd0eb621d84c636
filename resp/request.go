package resp

import (
	"bytes"
	"errors"
	"math"
)

const (
	// minArgBytes is the length of the shortest argument: "$0\r\n\r\n".
	minArgBytes = 6
	// minArrayBytes is the length of the shortest array request: "*0\r\n".
	minArrayBytes = 4
	// maxSpanEnd is the largest offset that a Span can hold.
	maxSpanEnd = math.MaxUint32
)

// ErrRequestTooLong is returned by [ScanRequest] for a request that does not
// end within the 4 GiB that a [Span] can address. A caller that streams large
// requests through a [RequestSkimmer] never meets it.
var ErrRequestTooLong = errors.New("request is longer than 4 GiB")

// ScanRequest finds the first request in buf and appends its arguments to
// spans, as offsets from the start of buf. It does not keep or change buf.
//
// If n > 0 the request is complete and n bytes long. A complete request may
// have no arguments (an empty line, "*0\r\n", "*-1\r\n"): Redis ignores it.
//
// If n == 0 and err is nil the request is incomplete: it will have at least
// need bytes, need > len(buf), and scanning again before is in vain. Where the
// bytes that are missing are not what a request should go on with, the error
// is found only after need bytes.
//
// If buf[0] is not '*' the request is inline. Its spans are right in number,
// but one that was quoted is as it stands, with its quotes and escapes: to pass
// an inline request on, make an array of it by [NormalizeInline].
//
// err is a [ProtocolError], or [ErrRequestTooLong]. In every case out is spans
// or what it has grown to.
func ScanRequest(buf []byte, lim *Limits, spans []Span) (n int, need int64, out []Span, err error) {
	// The usual request, of a few arguments with lengths of one or two digits,
	// without a call. Whatever is different is left to scanRequest.
	if len(buf) >= minArrayBytes && buf[0] == '*' && buf[2] == '\r' && buf[1]-'1' < 9 && lim.MaxBulkBytes > 99 {
		count := int(buf[1] - '0')
		if count <= lim.MaxElements && count <= cap(spans)-len(spans) {
			out = spans[:len(spans)+count]
			if n = scanShortArgs(buf, out[len(spans):]); n > 0 {
				return n, 0, out, nil
			}
		}
	}
	return scanRequest(buf, lim, spans)
}

// scanShortArgs fills args with the arguments of the request buf, whose header
// is four bytes long, and returns the request's length. It returns 0 if one of
// them is incomplete, malformed, or longer than 99 bytes.
func scanShortArgs(buf []byte, args []Span) int {
	pos := uint(minArrayBytes)
	for i := range args {
		if pos >= uint(len(buf)) {
			return 0
		}
		b := buf[pos:]
		if len(b) < minArgBytes || b[0] != '$' {
			return 0
		}
		size, head := uint(b[1]-'0'), uint(4)
		if size > 9 {
			return 0
		}
		if b[2] != '\r' {
			d := uint(b[2] - '0')
			if b[3] != '\r' || size == 0 || d > 9 {
				return 0
			}
			size, head = size*10+d, 5
		}
		args[i] = Span{Off: uint32(pos + head), Len: uint32(size)}
		pos += head + size + 2 // Redis does not look at what stands for CR LF
	}
	if pos > uint(len(buf)) {
		return 0
	}
	return int(pos)
}

// scanRequest is ScanRequest for every request.
func scanRequest(buf []byte, lim *Limits, spans []Span) (n int, need int64, out []Span, err error) {
	if len(buf) == 0 {
		return 0, 1, spans, nil // an empty line
	}
	if buf[0] != '*' {
		return scanInline(buf, lim, spans)
	}
	whole := int64(len(buf))
	if end := int64(maxSpanEnd); whole > end {
		buf = buf[:end]
	}
	var left int64 // arguments still to come
	var pos int
	if len(buf) >= minArrayBytes && buf[2] == '\r' && buf[1]-'1' < 9 && int(buf[1]-'0') <= lim.MaxElements {
		left, pos = int64(buf[1]-'0'), 4
	} else if left, pos, err = scanMultibulkHeader(buf, lim); err != nil {
		return 0, 0, spans, err
	} else if pos == 0 {
		return 0, max(minArrayBytes, whole+1), spans, nil
	}
	out = spans
	for ; left > 0; left-- {
		b := buf[pos:]
		size, head := smallBulkHeader(b)
		if head == 0 || size > lim.MaxBulkBytes {
			if size, head, err = scanBulkHeader(b, lim); err != nil {
				return 0, 0, out[:len(spans)], err
			}
			if head == 0 {
				need = int64(pos) + left*minArgBytes
				if len(b) > 0 && b[0] != '$' {
					need = 0 // will be refused as soon as there is a CR
				}
				return incomplete(whole, need, out[:len(spans)])
			}
		}
		end := int64(pos+head) + size + 2 // Redis does not look at what stands for CR LF
		if end > int64(len(buf)) {
			return incomplete(whole, end+(left-1)*minArgBytes, out[:len(spans)])
		}
		out = append(out, Span{Off: uint32(pos + head), Len: uint32(size)})
		pos = int(end)
	}
	return pos, 0, out, nil
}

// incomplete is what ScanRequest returns when it ran out of the buffer's whole
// bytes and at least need are needed.
func incomplete(whole, need int64, spans []Span) (int, int64, []Span, error) {
	if whole > maxSpanEnd {
		return 0, 0, spans, ErrRequestTooLong
	}
	return 0, max(need, whole+1), spans, nil
}

// smallBulkHeader is the fast path for a length of up to four digits. It gives
// the argument's size and the header's length in bytes, or head == 0 for
// whatever it does not know.
func smallBulkHeader(b []byte) (size int64, head int) {
	if len(b) < minArgBytes || b[0] != '$' {
		return 0, 0
	}
	d := b[1] - '0'
	if d > 9 {
		return 0, 0
	}
	if b[2] == '\r' {
		return int64(d), 4
	}
	size = int64(d)
	if d = b[2] - '0'; d > 9 || size == 0 {
		return 0, 0
	}
	size = size*10 + int64(d)
	if b[3] == '\r' {
		return size, 5
	}
	if d = b[3] - '0'; d > 9 {
		return 0, 0
	}
	size = size*10 + int64(d)
	if b[4] == '\r' {
		return size, 6
	}
	if d = b[4] - '0'; d > 9 || b[5] != '\r' {
		return 0, 0
	}
	return size*10 + int64(d), 7
}

// scanMultibulkHeader reads "*<count>\r\n". head == 0: incomplete.
func scanMultibulkHeader(b []byte, lim *Limits) (count int64, head int, err error) {
	cr, err := headerEnd(b, lim, ErrTooBigMultibulkCount)
	if cr < 0 || err != nil {
		return 0, 0, err
	}
	if count, err = lim.multibulkLength(b[1:cr]); err != nil {
		return 0, 0, err
	}
	return count, cr + 2, nil
}

// scanBulkHeader reads "$<length>\r\n". head == 0: incomplete.
func scanBulkHeader(b []byte, lim *Limits) (size int64, head int, err error) {
	cr, err := headerEnd(b, lim, ErrTooBigBulkCount)
	if cr < 0 || err != nil {
		return 0, 0, err
	}
	if size, err = lim.bulkLength(b[:cr]); err != nil {
		return 0, 0, err
	}
	return size, cr + 2, nil
}

// headerEnd returns where the CR is that ends the header at the start of b, if
// it and the byte after it are there, else -1. As Redis, whose strchr stops at
// it, it does not look beyond a NUL, and takes any byte for LF.
func headerEnd(b []byte, lim *Limits, tooBig ProtocolError) (int, error) {
	for i, c := range b {
		if i > lim.MaxInlineBytes {
			break
		}
		if c == '\r' {
			if i+1 == len(b) {
				return -1, nil
			}
			return i, nil
		}
		if c == 0 {
			break
		}
	}
	if len(b) > lim.MaxInlineBytes {
		return -1, tooBig
	}
	return -1, nil
}

// scanInline is ScanRequest for a request that does not begin with '*'
// (processInlineBuffer).
func scanInline(buf []byte, lim *Limits, spans []Span) (n int, need int64, out []Span, err error) {
	window := buf
	if len(window) > lim.MaxInlineBytes {
		window = window[:lim.MaxInlineBytes+1]
	}
	lf := bytes.IndexByte(window, '\n')
	if lf >= 0 {
		window = window[:lf]
	}
	// strchr stops at a NUL: no line end is found behind one, ever.
	nul := bytes.IndexByte(window, 0) >= 0
	switch {
	case lf >= 0 && !nul:
	case len(buf) > lim.MaxInlineBytes:
		return 0, 0, spans, ErrTooBigInline
	case nul:
		return 0, int64(lim.MaxInlineBytes) + 1, spans, nil
	default:
		return 0, int64(len(buf)) + 1, spans, nil
	}
	out = spans
	for pos := 0; ; {
		w, err := nextWord(window, pos)
		if err != nil {
			return 0, 0, out[:len(spans)], err
		}
		if w.end == w.start {
			return lf + 1, 0, out, nil
		}
		out = append(out, Span{Off: uint32(w.start), Len: uint32(w.end - w.start)})
		pos = w.end
	}
}
