package rdbstream

import (
	"encoding/binary"
	"fmt"
)

// CheckIntset reports whether the payload of a set stored as an intset (intset.c:
// encoding, count, then count integers of encoding bytes) is as long as it says.
// A decoder that allocates what the count announces must not see another.
func CheckIntset(payload []byte) error {
	h, n, err := readStringHead(payload)
	if err != nil {
		return fmt.Errorf("check intset: %w", err)
	}
	b, err := h.decode(nil, payload[n:])
	if err != nil {
		return fmt.Errorf("check intset: %w", err)
	}
	if len(b) < 8 || uint64(len(b)-8) != uint64(binary.LittleEndian.Uint32(b))*uint64(binary.LittleEndian.Uint32(b[4:])) {
		return fmt.Errorf("check intset of %d bytes: %w: its count does not fit", len(b), ErrCorrupt)
	}
	return nil
}
