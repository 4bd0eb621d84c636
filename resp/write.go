package resp

import (
	"math"
	"strconv"
)

var crlf = []byte("\r\n")

// All Append functions append to dst and return it, as append does. Those that
// write something that RESP2 lacks take the client's protocol, 2 or 3, and
// write for 2 what Redis does.

func appendHeader(dst []byte, kind byte, n int64) []byte {
	dst = append(dst, kind)
	if uint64(n) < 10 {
		dst = append(dst, byte('0'+n))
	} else {
		dst = strconv.AppendInt(dst, n, 10)
	}
	return append(dst, '\r', '\n')
}

// AppendArrayHeader begins an array of n values, or a request of n arguments.
func AppendArrayHeader(dst []byte, n int) []byte { return appendHeader(dst, '*', int64(n)) }

// AppendMapHeader begins a map of n pairs, in RESP2 an array of 2n values.
func AppendMapHeader(dst []byte, n, proto int) []byte {
	if proto < 3 {
		return appendHeader(dst, '*', 2*int64(n))
	}
	return appendHeader(dst, '%', int64(n))
}

// AppendPushHeader begins a push message of n values, in RESP2 an array.
func AppendPushHeader(dst []byte, n, proto int) []byte {
	if proto < 3 {
		return appendHeader(dst, '*', int64(n))
	}
	return appendHeader(dst, '>', int64(n))
}

// AppendBulk appends a bulk string.
func AppendBulk(dst, b []byte) []byte {
	dst = appendHeader(dst, '$', int64(len(b)))
	dst = append(dst, b...)
	return append(dst, '\r', '\n')
}

// AppendBulkString appends a bulk string.
func AppendBulkString(dst []byte, s string) []byte {
	dst = appendHeader(dst, '$', int64(len(s)))
	dst = append(dst, s...)
	return append(dst, '\r', '\n')
}

// AppendSimple appends a simple string, "OK" for instance. Line ends in it
// become spaces.
func AppendSimple(dst []byte, s string) []byte { return appendLine(dst, '+', s) }

// AppendError appends an error. text begins with its code and has no '-':
// "ERR unknown command". Line ends in it become spaces.
func AppendError(dst []byte, text string) []byte { return appendLine(dst, '-', text) }

func appendLine(dst []byte, kind byte, s string) []byte {
	dst = append(dst, kind)
	start := len(dst)
	dst = append(dst, s...)
	for i := start; i < len(dst); i++ {
		if dst[i] == '\r' || dst[i] == '\n' {
			dst[i] = ' '
		}
	}
	return append(dst, '\r', '\n')
}

// AppendInt appends an integer.
func AppendInt(dst []byte, n int64) []byte { return appendHeader(dst, ':', n) }

// AppendNull appends a null, in RESP2 a null bulk string.
func AppendNull(dst []byte, proto int) []byte {
	if proto < 3 {
		return append(dst, "$-1\r\n"...)
	}
	return append(dst, "_\r\n"...)
}

// AppendNullArray appends the null that stands for an array (of an aborted EXEC,
// of BLPOP's timeout), in RESP3 the one null there is.
func AppendNullArray(dst []byte, proto int) []byte {
	if proto < 3 {
		return append(dst, "*-1\r\n"...)
	}
	return append(dst, "_\r\n"...)
}

// AppendDouble appends a double, in RESP2 a bulk string, in the shortest form
// that reads back as f.
func AppendDouble(dst []byte, f float64, proto int) []byte {
	var buf [32]byte
	text := appendFloat(buf[:0], f)
	if proto < 3 {
		return AppendBulk(dst, text)
	}
	dst = append(dst, ',')
	dst = append(dst, text...)
	return append(dst, '\r', '\n')
}

func appendFloat(dst []byte, f float64) []byte {
	switch a := math.Abs(f); {
	case math.IsNaN(f):
		return append(dst, "nan"...)
	case math.IsInf(f, 1):
		return append(dst, "inf"...)
	case math.IsInf(f, -1):
		return append(dst, "-inf"...)
	case a != 0 && (a < 1e-5 || a >= 1e17):
		return strconv.AppendFloat(dst, f, 'e', -1, 64)
	default:
		return strconv.AppendFloat(dst, f, 'f', -1, 64)
	}
}

// AppendBool appends a boolean, in RESP2 the integer 1 or 0.
func AppendBool(dst []byte, b bool, proto int) []byte {
	switch {
	case proto < 3 && b:
		return append(dst, ":1\r\n"...)
	case proto < 3:
		return append(dst, ":0\r\n"...)
	case b:
		return append(dst, "#t\r\n"...)
	default:
		return append(dst, "#f\r\n"...)
	}
}

// AppendCommand appends a request, its name among the arguments.
func AppendCommand(dst []byte, args ...string) []byte {
	dst = AppendArrayHeader(dst, len(args))
	for _, a := range args {
		dst = AppendBulkString(dst, a)
	}
	return dst
}

// AppendCommandBytes appends a request, its name among the arguments.
func AppendCommandBytes(dst []byte, args ...[]byte) []byte {
	dst = AppendArrayHeader(dst, len(args))
	for _, a := range args {
		dst = AppendBulk(dst, a)
	}
	return dst
}
