package repl

import (
	"fmt"
	"strconv"
	"strings"
)

// noReplID is what Redis writes where there is no replication id: "PSYNC ? -1".
const noReplID = "?"

// Pos is a place in a history: everything up to and including the byte at
// Offset. It is what a replica has, what it acknowledges, and what
// +FULLRESYNC announces of the snapshot that follows. The zero value is no
// position.
type Pos struct {
	ReplID ReplID
	Offset Offset // of the last byte included; 0 where there is none yet
}

// ParsePos parses what [Pos.String] writes.
func ParsePos(s string) (Pos, error) {
	id, off, ok := strings.Cut(s, ":")
	if !ok {
		return Pos{}, fmt.Errorf("parse position %q: want REPLID:OFFSET", s)
	}
	if id == noReplID && off == "-1" {
		return Pos{}, nil
	}
	replid, err := ParseReplID(id)
	if err != nil {
		return Pos{}, fmt.Errorf("parse position %q: %w", s, err)
	}
	offset, err := ParseOffset(off)
	if err != nil {
		return Pos{}, fmt.Errorf("parse position %q: %w", s, err)
	}
	if !offset.IsKnown() {
		return Pos{}, fmt.Errorf("parse position %q: offset is negative", s)
	}
	return Pos{ReplID: replid, Offset: offset}, nil
}

// IsZero reports whether p is no position.
func (p Pos) IsZero() bool { return p.ReplID.IsZero() }

// String returns REPLID:OFFSET, as Redis's log does, and ?:-1 for the zero
// value.
func (p Pos) String() string {
	if p.IsZero() {
		return noReplID + ":-1"
	}
	return string(p.ReplID) + ":" + strconv.FormatInt(int64(p.Offset), 10)
}

// Want returns what one that has p asks for: the byte after it.
func (p Pos) Want() Want {
	if p.IsZero() {
		return Want{}
	}
	return Want{ReplID: p.ReplID, Next: p.Offset + 1}
}

// MarshalText writes [Pos.String], for metadata in JSON.
func (p Pos) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Pos) UnmarshalText(text []byte) error {
	parsed, err := ParsePos(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// Want is what PSYNC asks for: the first byte of a history that the replica
// lacks. The zero value asks for a full resync (PSYNC ? -1).
type Want struct {
	ReplID ReplID
	Next   Offset // of the first byte wanted: that of the last one had, plus 1
}

// IsZero reports whether w asks for a full resync.
func (w Want) IsZero() bool { return w.ReplID.IsZero() }

// Have returns the position of one that asks for w.
func (w Want) Have() Pos {
	if w.IsZero() {
		return Pos{}
	}
	return Pos{ReplID: w.ReplID, Offset: w.Next - 1}
}

// Args returns the two arguments of PSYNC.
func (w Want) Args() (id, next string) {
	if w.IsZero() {
		return noReplID, "-1"
	}
	return string(w.ReplID), strconv.FormatInt(int64(w.Next), 10)
}

// String returns the two arguments of PSYNC.
func (w Want) String() string {
	id, next := w.Args()
	return id + " " + next
}
