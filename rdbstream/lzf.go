package rdbstream

// maxLZFRatio is how much longer than its compressed form a string can be: an
// instruction of three bytes yields at most 264 (LibLZF).
const maxLZFRatio = 88

// decompressLZF appends to dst what src holds, which must be size bytes.
//
// An instruction's first byte c below 32 is followed by c+1 bytes as they are.
// Else its upper three bits are a length l, 7 standing for 7 plus the next
// byte, and the lower five with the next byte a distance d: l+2 bytes are
// repeated from d+1 bytes before.
func decompressLZF(dst, src []byte, size uint64) ([]byte, error) {
	base := len(dst)
	for len(src) > 0 {
		c := int(src[0])
		src = src[1:]
		if c < 32 {
			if len(src) <= c {
				return dst, corruptf("an LZF literal runs past its end")
			}
			dst = append(dst, src[:c+1]...)
			src = src[c+1:]
		} else {
			n := c >> 5
			if n == 7 && len(src) > 0 {
				n += int(src[0])
				src = src[1:]
			}
			if len(src) == 0 {
				return dst, corruptf("an LZF reference is cut short")
			}
			from := len(dst) - (c&31)<<8 - int(src[0]) - 1
			src = src[1:]
			if from < base {
				return dst, corruptf("an LZF reference points before the string")
			}
			for i := range n + 2 { // byte by byte, since it may overlap what it makes
				dst = append(dst, dst[from+i])
			}
		}
		if uint64(len(dst)-base) > size {
			return dst, corruptf("an LZF string is longer than the %d bytes it says", size)
		}
	}
	if uint64(len(dst)-base) != size {
		return dst, corruptf("an LZF string is %d bytes, not the %d it says", len(dst)-base, size)
	}
	return dst, nil
}
