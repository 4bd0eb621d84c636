package rdbstream

import (
	"encoding/binary"
	"math"
	"strconv"
)

// maxToken is the longest stretch that is looked at as a whole, in bytes: an
// opcode of a module and the head of a compressed string, 9+1+9+9. Whoever has
// that many bytes of what follows is never asked for more before some of them
// are consumed.
const maxToken = 28

// A length (rdbLoadLenByRef in Redis's rdb.c):
//
//	00xxxxxx                       6 bits
//	01xxxxxx xxxxxxxx             14 bits
//	10000000 and 4 bytes          32 bits, big endian
//	10000001 and 8 bytes          64 bits, big endian
//	11xxxxxx                      no length, but how a string is encoded
const (
	lenKind14    = 1
	lenKindSpec  = 3
	lenByte32    = 0x80
	lenByte64    = 0x81
	encInt8      = 0xC0
	encInt16     = 0xC1
	encInt32     = 0xC2
	encLZF       = 0xC3
	incomplete   = 0 // of a token: more bytes are needed
	maxBodyBytes = math.MaxInt64
)

// length reads a length at the beginning of p. n is how many bytes it takes, 0
// if more are needed.
func length(p []byte) (v uint64, n int, err error) {
	if len(p) == 0 {
		return 0, incomplete, nil
	}
	b := p[0]
	switch b >> 6 {
	case 0:
		return uint64(b), 1, nil
	case lenKind14:
		if len(p) < 2 {
			return 0, incomplete, nil
		}
		return uint64(b&0x3F)<<8 | uint64(p[1]), 2, nil
	case lenKindSpec:
		return 0, incomplete, corruptf("byte 0x%02x is no length", b)
	}
	switch b {
	case lenByte32:
		if len(p) < 5 {
			return 0, incomplete, nil
		}
		return uint64(binary.BigEndian.Uint32(p[1:])), 5, nil
	case lenByte64:
		if len(p) < 9 {
			return 0, incomplete, nil
		}
		return binary.BigEndian.Uint64(p[1:]), 9, nil
	}
	return 0, incomplete, corruptf("byte 0x%02x is no length", b)
}

// stringHead is what stands before the bytes of a string.
type stringHead struct {
	enc  byte   // encInt8, encInt16, encInt32, encLZF, or 0: the bytes as they are
	body uint64 // how many bytes follow
	size uint64 // how long the string is; not known of an integer
}

// readStringHead reads the head of a string at the beginning of p. n is how
// many bytes it takes, 0 if more are needed.
func readStringHead(p []byte) (h stringHead, n int, err error) {
	if len(p) == 0 {
		return h, incomplete, nil
	}
	switch p[0] {
	case encInt8, encInt16, encInt32:
		return stringHead{enc: p[0], body: 1 << (p[0] - encInt8)}, 1, nil
	case encLZF:
		body, n1, err := length(p[1:])
		if n1 == incomplete {
			return h, incomplete, err
		}
		size, n2, err := length(p[1+n1:])
		if n2 == incomplete {
			return h, incomplete, err
		}
		if body > maxBodyBytes/maxLZFRatio || size > body*maxLZFRatio {
			return h, incomplete, corruptf("%d bytes of LZF cannot hold %d", body, size)
		}
		return stringHead{enc: encLZF, body: body, size: size}, 1 + n1 + n2, nil
	}
	if p[0]>>6 == lenKindSpec {
		return h, incomplete, corruptf("unknown string encoding 0x%02x", p[0])
	}
	v, n, err := length(p)
	if v > maxBodyBytes {
		return h, incomplete, corruptf("a string of %d bytes", v)
	}
	return stringHead{body: v, size: v}, n, err
}

// decode appends to dst the string whose head is h and whose bytes are body.
func (h stringHead) decode(dst, body []byte) ([]byte, error) {
	switch h.enc {
	case encInt8:
		return strconv.AppendInt(dst, int64(int8(body[0])), 10), nil
	case encInt16:
		return strconv.AppendInt(dst, int64(int16(binary.LittleEndian.Uint16(body))), 10), nil
	case encInt32:
		return strconv.AppendInt(dst, int64(int32(binary.LittleEndian.Uint32(body))), 10), nil
	case encLZF:
		return decompressLZF(dst, body, h.size)
	}
	return append(dst, body...), nil
}
