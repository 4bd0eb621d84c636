package command

import (
	"encoding/binary"
	"math/bits"
)

// nameIndex finds commands by name, in any case, without allocation: an
// open-addressing table keyed by the lower-cased name. A name of up to 16 bytes
// is held as two words (its first and last eight bytes, which may overlap), so
// that the common lookup is two loads, one multiplication and one comparison.
type nameIndex struct {
	slots []nameSlot // a power of two, at most half full
	shift uint
	max   int // length of the longest name
}

type nameSlot struct {
	head, tail uint64
	n          int // length of the name, which is the last part of cmd.Name
	cmd        *Command
}

// newNameIndex builds an index; names must be lower case and not empty.
func newNameIndex(names []string, cmds []*Command) *nameIndex {
	size := 4
	for size < 2*len(names) {
		size *= 2
	}
	x := &nameIndex{
		slots: make([]nameSlot, size),
		shift: uint(64 - bits.TrailingZeros(uint(size))),
	}
	for i, name := range names {
		x.max = max(x.max, len(name))
		head, tail := nameWords([]byte(name))
		at := x.home(head, tail, len(name))
		for x.slots[at].cmd != nil {
			at = (at + 1) & uint(len(x.slots)-1)
		}
		x.slots[at] = nameSlot{head, tail, len(name), cmds[i]}
	}
	return x
}

// lookup returns the command of that name, nil if there is none.
func (x *nameIndex) lookup(name []byte) *Command {
	if len(name) == 0 || len(name) > x.max {
		return nil // before reading a name that a client made a megabyte long
	}
	head, tail := nameWords(name)
	mask := uint(len(x.slots) - 1)
	for at := x.home(head, tail, len(name)); ; at++ {
		s := &x.slots[at&mask]
		if s.head == head && s.tail == tail && s.n == len(name) {
			if len(name) <= 16 || s.sameMiddle(name) {
				return s.cmd
			}
		}
		if s.cmd == nil {
			return nil
		}
	}
}

func (x *nameIndex) home(head, tail uint64, n int) uint {
	// Odd constants near 2^64/phi and 2^64/e: the high bits of the product mix well.
	h := (head ^ bits.RotateLeft64(tail, 29) ^ uint64(n)) * 0x9e3779b97f4a7c15
	return uint(h >> x.shift)
}

// nameWords returns the lower-cased first and last eight bytes of a name that
// is not empty; with its length they determine a name of up to 16 bytes.
func nameWords(name []byte) (head, tail uint64) {
	switch n := len(name); {
	case n >= 8:
		head = binary.LittleEndian.Uint64(name)
		tail = lower8(binary.LittleEndian.Uint64(name[n-8:]))
	case n >= 4:
		head = uint64(binary.LittleEndian.Uint32(name)) |
			uint64(binary.LittleEndian.Uint32(name[n-4:]))<<32
	default:
		head = uint64(name[0]) | uint64(name[n/2])<<8 | uint64(name[n-1])<<16
	}
	return lower8(head), tail
}

// lower8 lower-cases the ASCII letters among eight bytes and leaves all others
// alone: a plain OR of 0x20 would take a carriage return for a hyphen.
func lower8(w uint64) uint64 {
	const ones = 0x0101010101010101
	low7 := w & (0x7f * ones)
	atLeastA := low7 + (0x80-'A')*ones
	aboveZ := low7 + (0x7f-'Z')*ones
	upper := (atLeastA ^ aboveZ) & ^w & (0x80 * ones)
	return w | upper>>2
}

// sameMiddle compares what head and tail do not hold of a name of over 16 bytes.
func (s *nameSlot) sameMiddle(name []byte) bool {
	lower := s.cmd.Name[len(s.cmd.Name)-s.n:]
	for i := 8; i < s.n-8; i++ {
		c := name[i]
		if 'A' <= c && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}
