package topology

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/syncer/repl"
)

func TestLagClock(t *testing.T) {
	t0 := time.Unix(1000, 0)
	at := func(ms int) time.Time { return t0.Add(time.Duration(ms) * time.Millisecond) }
	c := NewLagClock(0)
	if _, ok := c.Lag(5, t0); ok || c.Offset() != repl.UnknownOffset {
		t.Error("a new clock knows something")
	}
	c.Observe(repl.UnknownOffset, at(0)) // not a position
	c.Observe(100, at(0))
	c.Observe(100, at(500))
	c.Observe(200, at(1000))
	c.Observe(300, at(1005))
	c.Observe(400, at(6000)) // 300 was first seen at 1005 and has to stay known
	for _, test := range []struct {
		offset repl.Offset
		want   time.Duration
	}{
		{400, 0}, {500, 0},
		{399, 1000 * time.Millisecond}, {300, 1000 * time.Millisecond},
		{299, 5995 * time.Millisecond}, {200, 5995 * time.Millisecond},
		{100, 6000 * time.Millisecond},
		{99, 7000 * time.Millisecond}, {0, 7000 * time.Millisecond}, // the oldest sample: a lower bound
	} {
		if got, ok := c.Lag(test.offset, at(7000)); !ok || got != test.want {
			t.Errorf("Lag(%d) = %v, %t, want %v", test.offset, got, ok, test.want)
		}
	}
	c.Observe(50, at(8000)) // a master that lost its past
	if got, _ := c.Lag(40, at(9000)); got != time.Second || c.Offset() != 50 {
		t.Errorf("after a step back: Lag %v, Offset %d", got, c.Offset())
	}
}

// TestLagClockAtFullPace: a busy master sampled each millisecond for two minutes.
func TestLagClockAtFullPace(t *testing.T) {
	t0 := time.Unix(1000, 0)
	c := NewLagClock(0)
	const n = 120_000
	for i := range n {
		c.Observe(repl.Offset(i), t0.Add(time.Duration(i)*time.Millisecond))
	}
	now := t0.Add((n - 1) * time.Millisecond)
	for _, behind := range []int{1, 9, 100, 1000, 10_000, 59_000} {
		got, _ := c.Lag(repl.Offset(n-1-behind), now)
		truth := time.Duration(behind-1) * time.Millisecond // since the next offset was seen
		if got > truth || got < truth-c.spacing {
			t.Errorf("%d ms behind: Lag %v, want at most %v less than %v", behind, got, c.spacing, truth)
		}
	}
	if got, _ := c.Lag(0, now); got < time.Minute {
		t.Errorf("further behind than the ring reaches: Lag %v, want a minute at least", got)
	}
	if len(c.ring) != lagClockSize {
		t.Errorf("the ring has grown to %d", len(c.ring))
	}
	if allocs := testing.AllocsPerRun(100, func() {
		c.Observe(c.Offset()+1, now)
		c.Lag(5, now)
	}); allocs != 0 {
		t.Errorf("%v allocations per sample", allocs)
	}
}

// TestLagClockAgainstAllSamples compares with a clock that forgets nothing.
func TestLagClockAgainstAllSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := NewLagClock(0)
		type sample struct {
			offset repl.Offset
			at     time.Time
		}
		var all []sample
		now, offset := time.Unix(1000, 0), repl.Offset(0)
		for range rapid.IntRange(1, 300).Draw(t, "samples") {
			now = now.Add(time.Duration(rapid.IntRange(0, 40).Draw(t, "ms")) * time.Millisecond)
			offset += repl.Offset(rapid.IntRange(0, 3).Draw(t, "bytes"))
			c.Observe(offset, now)
			all = append(all, sample{offset, now})
		}
		asked := repl.Offset(rapid.IntRange(0, int(offset)).Draw(t, "replica"))
		var want time.Duration
		for _, s := range all {
			if s.offset > asked {
				want = now.Sub(s.at)
				break
			}
		}
		got, ok := c.Lag(asked, now)
		if !ok || got > want || got < want-c.spacing || (got == 0) != (want == 0) && want > c.spacing {
			t.Fatalf("Lag(%d) = %v, %t, want up to %v less than %v", asked, got, ok, c.spacing, want)
		}
	})
}
