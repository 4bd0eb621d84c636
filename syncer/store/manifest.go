package store

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// manifest is the content of the file of that name: which generations there are.
type manifest struct {
	// Current is served: the newest that has got a complete base. 0 for none.
	Current uint64 `json:"current"`
	// Head is written to; until its first base is complete it is not Current.
	Head        uint64          `json:"head"`
	Generations []manifestEntry `json:"generations"` // oldest first
}

// manifestEntry is one generation.
type manifestEntry struct {
	ID      uint64    `json:"id"` // rises by one with each generation, from 1
	Created time.Time `json:"created"`
	Retired time.Time `json:"retired,omitzero"` // when the next one took its place
	// Deleting: its files are being removed; Open finishes that.
	Deleting bool `json:"deleting,omitempty"`
}

func (m *manifest) validate() error {
	var last uint64
	live := map[uint64]bool{0: true}
	for _, e := range m.Generations {
		if e.ID <= last {
			return fmt.Errorf("generation %d is listed after %d", e.ID, last)
		}
		last = e.ID
		live[e.ID] = !e.Deleting
	}
	switch {
	case !live[m.Current]:
		return fmt.Errorf("current generation %d is not listed", m.Current)
	case !live[m.Head] || m.Head < m.Current:
		return fmt.Errorf("head generation %d is not listed at or after the current one, %d", m.Head, m.Current)
	}
	return nil
}

// clone returns a copy that can be changed.
func (m *manifest) clone() *manifest {
	c := *m
	c.Generations = append([]manifestEntry(nil), m.Generations...)
	return &c
}

// entry returns the entry of a generation, nil if there is none.
func (m *manifest) entry(id uint64) *manifestEntry {
	for i := range m.Generations {
		if m.Generations[i].ID == id {
			return &m.Generations[i]
		}
	}
	return nil
}

// Base describes a stored snapshot.
type Base struct {
	ReplID repl.ReplID `json:"replid"` // that the giver announced
	Offset repl.Offset `json:"offset"` // of the last byte of the stream that it includes
	DB     int         `json:"db"`     // selected at Offset (repl-stream-db), -1 if unknown
	Size   int64       `json:"size"`   // in bytes
	CRC32C uint32      `json:"crc32c"` // of the whole file
	Source string      `json:"source"` // who gave it, for people: "replica HOST:PORT"
	Time   time.Time   `json:"time"`   // when it was complete here
}

// Pos returns the position of the snapshot.
func (b Base) Pos() repl.Pos { return repl.Pos{ReplID: b.ReplID, Offset: b.Offset} }

// catalog is the content of the file of that name in a generation's directory.
type catalog struct {
	ID      uint64       `json:"id"`
	Created time.Time    `json:"created"`
	History repl.History `json:"history"`
	// LogFirst is the offset of the first byte of the log. Segments before it
	// are leftovers of retention.
	LogFirst repl.Offset `json:"log_first"`
	// Fsynced is an offset up to which the log was durable when the catalog was
	// written. What is missing of that is damage and not the work of a crash.
	Fsynced repl.Offset `json:"fsynced"`
	Bases   []Base      `json:"bases"` // oldest first
}

// lists reports whether there is a base at off.
func (c *catalog) lists(off repl.Offset) bool {
	return slices.ContainsFunc(c.Bases, func(b Base) bool { return b.Offset == off })
}

func (c *catalog) validate() error {
	switch {
	case c.History.IsZero():
		return fmt.Errorf("history is missing")
	case c.LogFirst < 1:
		return fmt.Errorf("log_first %d is below 1", c.LogFirst)
	case c.Fsynced < c.LogFirst-1:
		return fmt.Errorf("fsynced %d is before the log, which begins at %d", c.Fsynced, c.LogFirst)
	}
	last := repl.Offset(-1)
	for _, b := range c.Bases {
		if _, err := repl.ParseReplID(string(b.ReplID)); err != nil {
			return fmt.Errorf("base at %d: %w", b.Offset, err)
		}
		if b.Offset <= last || b.Size < 0 || b.DB < -1 {
			return fmt.Errorf("base at offset %d after %d, size %d, db %d", b.Offset, last, b.Size, b.DB)
		}
		last = b.Offset
	}
	return nil
}
