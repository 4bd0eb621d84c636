package eventloop

import "math/bits"

const (
	minClass = 10 // smallest pooled buffer: 1 KiB
	maxClass = 21 // largest pooled buffer: 2 MiB
	// maxPooled bounds the bytes that one loop keeps for reuse per size class.
	maxPooled = 4 << 20
)

// pool keeps buffers in classes of powers of two. It belongs to one loop.
type pool struct {
	free [maxClass + 1][][]byte
}

// class returns the size class that holds n bytes.
func class(n int) int { return max(minClass, bits.Len(uint(n-1))) }

// get returns an empty buffer with room for at least n bytes.
func (p *pool) get(n int) []byte {
	c := class(n)
	if c > maxClass {
		return make([]byte, 0, n)
	}
	if l := p.free[c]; len(l) > 0 {
		b := l[len(l)-1]
		p.free[c] = l[:len(l)-1]
		return b
	}
	return make([]byte, 0, 1<<c)
}

// put gives a buffer of get back. The caller must not use it again.
func (p *pool) put(b []byte) {
	n := cap(b)
	if n == 0 {
		return
	}
	c := class(n)
	if c > maxClass || n != 1<<c || len(p.free[c])<<c >= maxPooled {
		return // to the garbage collector
	}
	p.free[c] = append(p.free[c], b[:0])
}
