package repl

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// zeroReplID is the master_replid2 of a server that has none
// (clearReplicationId2).
var zeroReplID = ReplID(strings.Repeat("0", ReplIDLen))

// ErrReplIDReused is returned by [History.Append] for an id that is an ancestor
// already. Redis draws ids at random, so the two histories cannot be one.
var ErrReplIDReused = errors.New("replication id is an ancestor of this history")

// Ancestor is a former id of a history.
type Ancestor struct {
	ReplID ReplID `json:"replid"`
	// End is the offset of the last byte that the history known by this id has
	// in common with ours. Redis's second_repl_offset is End+1.
	End Offset `json:"end"`
}

// History is the ancestry of a replication stream: the ids that it has been
// known by, each up to its end, and the current one. Redis remembers one
// former id (master_replid2); a History remembers all, so that a replica that
// slept through any number of failovers can go on.
//
//	ancestor A ────────────┐ End 100
//	                       └─ ancestor B ─────┐ End 250
//	                                          └─ current C ─────
//
// The current id is good for the bytes before it came to be, too: Redis takes
// it for every offset in its backlog. Ends never decrease from the oldest
// ancestor to the newest. A History is immutable; Append and Forget return a
// new one. The zero value is no history.
type History struct {
	current   ReplID
	ancestors []Ancestor // oldest first
}

// NewHistory returns the history with a current id and ancestors, oldest first.
func NewHistory(current ReplID, ancestors ...Ancestor) (History, error) {
	h := History{current: current, ancestors: slices.Clone(ancestors)}
	if err := h.validate(); err != nil {
		return History{}, err
	}
	return h, nil
}

func (h History) validate() error {
	if _, err := ParseReplID(string(h.current)); err != nil {
		return fmt.Errorf("check history: %w", err)
	}
	seen := map[ReplID]bool{h.current: true}
	var last Offset
	for _, a := range h.ancestors {
		if _, err := ParseReplID(string(a.ReplID)); err != nil {
			return fmt.Errorf("check history of %s: %w", h.current, err)
		}
		if seen[a.ReplID] {
			return fmt.Errorf("check history of %s: ancestor %s: %w", h.current, a.ReplID, ErrReplIDReused)
		}
		if a.End < last {
			return fmt.Errorf("check history of %s: ancestor %s ends at %d, before the one in front of it (%d)",
				h.current, a.ReplID, a.End, last)
		}
		seen[a.ReplID] = true
		last = a.End
	}
	return nil
}

// IsZero reports whether h is no history.
func (h History) IsZero() bool { return h.current.IsZero() }

// Current returns the id that the history goes by now.
func (h History) Current() ReplID { return h.current }

// Ancestors returns the former ids, oldest first.
func (h History) Ancestors() []Ancestor { return slices.Clone(h.ancestors) }

// Second returns what INFO shows as master_replid2 and second_repl_offset: the
// newest former id and the highest offset that PSYNC may ask for by it; forty
// zeros and -1 where there is none.
func (h History) Second() (ReplID, Offset) {
	if len(h.ancestors) == 0 {
		return zeroReplID, UnknownOffset
	}
	a := h.ancestors[len(h.ancestors)-1]
	return a.ReplID, a.End + 1
}

// Append returns the history after +CONTINUE id at position end: the offset of
// the last byte that we had and committed to when we asked, which by that
// answer is in both histories (slaveTryPartialResynchronization). The id in
// use so far becomes an ancestor that ends there.
//
// An answer without an id, or with the current one, changes nothing. Of older
// ancestors that end beyond end (a log that lost its tail after they were
// written down) only what is up to end is known to be in id's history, so they
// are shortened. The error is that of a malformed id or [ErrReplIDReused];
// what follows is then not a continuation of h.
func (h History) Append(id ReplID, end Offset) (History, error) {
	if id.IsZero() || id == h.current {
		return h, nil
	}
	next := History{current: id, ancestors: slices.Grow(slices.Clone(h.ancestors), 1)}
	for i := range next.ancestors {
		next.ancestors[i].End = min(next.ancestors[i].End, end)
	}
	next.ancestors = append(next.ancestors, Ancestor{ReplID: h.current, End: end})
	if err := next.validate(); err != nil {
		return h, fmt.Errorf("continue history %s as %s: %w", h.current, id, err)
	}
	return next, nil
}

// Forget returns the history without the ancestors that are of no more use
// when first is the offset of the first byte still stored: nobody who has only
// what they reach to can go on from there.
func (h History) Forget(first Offset) History {
	i := 0
	for i < len(h.ancestors) && h.ancestors[i].End < first-1 {
		i++
	}
	return History{current: h.current, ancestors: slices.Clone(h.ancestors[i:])}
}

// Contains reports whether p is a place in this history. The current id has no
// end here: whether we have got as far is for [History.Accepts].
func (h History) Contains(p Pos) bool {
	if p.IsZero() {
		return false
	}
	if p.ReplID == h.current {
		return true
	}
	end, ok := h.end(p.ReplID)
	return ok && p.Offset <= end
}

// end returns where the ancestor id ends.
func (h History) end(id ReplID) (Offset, bool) {
	for _, a := range h.ancestors {
		if a.ReplID == id {
			return a.End, true
		}
	}
	return 0, false
}

// Verdict says whether a partial resync is possible, and if not, why.
type Verdict uint8

const (
	// Accepted says that the bytes from w.Next on are here, or that w.Next is
	// the very next one.
	Accepted Verdict = iota
	// FullRequested says that the replica asked for a full resync.
	FullRequested
	// UnknownReplID says that the id is neither the current one nor an ancestor.
	UnknownReplID
	// Diverged says that the id is an ancestor, but the replica has bytes of it
	// that are not in our history.
	Diverged
	// Ahead says that the replica has more of this history than we; it can go
	// on once we have caught up.
	Ahead
	// TooOld says that the bytes that follow are no longer stored.
	TooOld
)

// String returns the verdict in words.
func (v Verdict) String() string {
	return [...]string{"accepted", "full resync requested", "unknown replid", "diverged", "ahead of us", "too old"}[v]
}

// Accepts says whether one that asks for w can go on from a log that holds the
// bytes first to last of this history; last is first-1 if it holds none. These
// are the rules of masterTryPartialResynchronization, for any number of former
// ids: w is accepted iff
//
//	first <= w.Next <= last+1, and for a former id also w.Next <= End+1
//
// For a snapshot the question is the same: one taken at position p can be
// continued from the log iff p.Want() is accepted.
func (h History) Accepts(w Want, first, last Offset) Verdict {
	if w.IsZero() {
		return FullRequested
	}
	if w.ReplID != h.current {
		end, ok := h.end(w.ReplID)
		if !ok {
			return UnknownReplID
		}
		if !continues(w.Next, end) {
			return Diverged
		}
	}
	switch {
	case w.Next < first:
		return TooOld
	case !continues(w.Next, last):
		return Ahead
	}
	return Accepted
}

// continues reports whether next <= last+1, without overflow.
func continues(next, last Offset) bool { return next <= last || next-1 == last }

// Equal reports whether two histories have the same ids with the same ends.
func (h History) Equal(o History) bool {
	return h.current == o.current && slices.Equal(h.ancestors, o.ancestors)
}

// String returns the ids with their ends, oldest first, the current one last.
func (h History) String() string {
	var b strings.Builder
	for _, a := range h.ancestors {
		fmt.Fprintf(&b, "%s..%d ", a.ReplID, a.End)
	}
	b.WriteString(string(h.current))
	return b.String()
}

// historyJSON is the form of a History in the store's metadata.
type historyJSON struct {
	ReplID    ReplID     `json:"replid"`
	Ancestors []Ancestor `json:"ancestors,omitempty"`
}

// MarshalJSON writes {"replid": …, "ancestors": [{"replid": …, "end": …}, …]},
// ancestors oldest first, and null for the zero value.
func (h History) MarshalJSON() ([]byte, error) {
	if h.IsZero() {
		return []byte("null"), nil
	}
	return json.Marshal(historyJSON{ReplID: h.current, Ancestors: h.ancestors})
}

// UnmarshalJSON reads what MarshalJSON wrote and checks it.
func (h *History) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		*h = History{}
		return nil
	}
	var j historyJSON
	if err := json.Unmarshal(data, &j); err != nil {
		return fmt.Errorf("parse history: %w", err)
	}
	parsed, err := NewHistory(j.ReplID, j.Ancestors...)
	if err != nil {
		return err
	}
	*h = parsed
	return nil
}
