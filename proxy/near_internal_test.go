package proxy

import (
	"testing"
	"time"
)

func TestAsNear(t *testing.T) {
	const us, ms = time.Microsecond, time.Millisecond
	for _, c := range []struct {
		d, best time.Duration
		want    bool
	}{
		{0, 0, true}, {0, ms, true}, // not known yet
		{100 * us, 100 * us, true}, {300 * us, 100 * us, true}, // one room, or one machine
		{900 * us, 100 * us, false}, // another zone
		{20 * ms, 12 * ms, true}, {80 * ms, 12 * ms, false},
	} {
		if got := asNear(c.d, c.best); got != c.want {
			t.Errorf("%v next to %v: %t", c.d, c.best, got)
		}
	}
}
