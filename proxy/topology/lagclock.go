package topology

import (
	"sort"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

const (
	lagClockSize    = 8192                  // samples kept, 16 bytes each
	minLagSpacing   = 10 * time.Millisecond // see LagClock
	minLagClockSpan = time.Minute
)

// LagClock remembers when the master was first seen at which offset and tells
// from that for how long a replica has been behind. It keeps a fixed number of
// samples, at most two per spacing, whatever the pace of Observe. Its answers
// are lower bounds: less than one spacing too short within its span, and cut
// off at the oldest sample beyond it.
//
// It is not safe for concurrent use.
type LagClock struct {
	spacing time.Duration
	base    time.Time   // of the first sample; the others count from it
	ring    []lagSample // offsets and times ascending from head
	head, n int
	newest  lagSample // the highest offset seen; goes to the ring when a later one does not replace it
	known   bool      // newest is set
}

type lagSample struct {
	offset repl.Offset
	at     time.Duration // since base
}

// NewLagClock makes a clock that can tell lags of up to span, and of a minute
// at least.
func NewLagClock(span time.Duration) *LagClock {
	c := &LagClock{ring: make([]lagSample, lagClockSize)}
	c.SetSpan(span)
	return c
}

// SetSpan changes the span; a longer one is reached as time passes.
func (c *LagClock) SetSpan(span time.Duration) {
	c.spacing = max(minLagSpacing, 2*max(span, minLagClockSpan)/lagClockSize)
}

// Reset forgets all samples: another master, or another history.
func (c *LagClock) Reset() { c.head, c.n, c.known = 0, 0, false }

// Observe takes note that the master was at offset at the time at. Times must
// not run backwards; an offset that does starts the clock anew.
func (c *LagClock) Observe(offset repl.Offset, at time.Time) {
	if !offset.IsKnown() || (c.known && offset == c.newest.offset) {
		return // of an offset the first sighting counts
	}
	if c.known && offset < c.newest.offset {
		c.Reset()
	}
	if !c.known {
		c.base = at
	}
	s := lagSample{offset, at.Sub(c.base)}
	// The sample in between is dropped only if this one comes within a spacing
	// of the last one kept: dropped or not, no time is lost but a spacing.
	if c.known && (c.n == 0 || s.at-c.at(c.n-1).at >= c.spacing) {
		c.push(c.newest)
	}
	c.newest, c.known = s, true
}

// Offset returns the master's last offset, unknown if there was none.
func (c *LagClock) Offset() repl.Offset {
	if !c.known {
		return repl.UnknownOffset
	}
	return c.newest.offset
}

// Lag returns for how long, at the time now, a replica at offset has been
// behind: 0 when it is not. ok is false while the master's offset is unknown.
func (c *LagClock) Lag(offset repl.Offset, now time.Time) (lag time.Duration, ok bool) {
	if !c.known {
		return 0, false
	}
	if offset >= c.newest.offset {
		return 0, true
	}
	first := c.newest
	if i := sort.Search(c.n, func(i int) bool { return c.at(i).offset > offset }); i < c.n {
		first = c.at(i)
	}
	return max(0, now.Sub(c.base)-first.at), true
}

// at returns the i-th oldest sample of the ring.
func (c *LagClock) at(i int) lagSample { return c.ring[(c.head+i)%len(c.ring)] }

func (c *LagClock) push(s lagSample) {
	if c.n < len(c.ring) {
		c.ring[(c.head+c.n)%len(c.ring)] = s
		c.n++
		return
	}
	c.ring[c.head] = s
	c.head = (c.head + 1) % len(c.ring)
}
