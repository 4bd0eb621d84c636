package proxy

import (
	"testing"
	"time"
)

func TestShareRisesWithAge(t *testing.T) {
	for _, c := range []struct {
		age  time.Duration
		want float64
	}{{0, 0.1}, {slowStart / 3, 0.4}, {slowStart / 3 * 2, 0.7}, {slowStart, 1}, {time.Hour, 1}} {
		if got := shareAt(c.age); got < c.want-0.001 || got > c.want+0.001 {
			t.Errorf("after %v the share is %.3f, want %.1f", c.age, got, c.want)
		}
	}
}

func TestNewConnectionsYield(t *testing.T) {
	const n = 1000
	for _, c := range []struct{ x, y, want float64 }{{1, 1, 0}, {0.1, 0.1, 0}, {1, 0.1, 0}, {0.1, 1, 0.9}, {0.4, 0.8, 0.5}} {
		yielded := 0.0
		for i := range n {
			if yields(c.x, c.y, float64(i)/n) {
				yielded++
			}
		}
		if got := yielded / n; got < c.want-0.01 || got > c.want+0.01 {
			t.Errorf("%v next to %v leaves %.2f of its reads to it, want %.1f", c.x, c.y, got, c.want)
		}
	}
}

func TestPatienceAdapts(t *testing.T) {
	for _, c := range []struct{ slow, most, want time.Duration }{
		{0, time.Second, stallAfter},
		{10 * time.Millisecond, time.Second, stallAfter},
		{100 * time.Millisecond, time.Second, 400 * time.Millisecond},
		{time.Minute, time.Second, time.Second},
		{time.Minute, 10 * time.Millisecond, stallAfter},
	} {
		sw := stallWatch{slow: int64(c.slow)}
		if got := time.Duration(sw.patience(c.most)); got != c.want {
			t.Errorf("with replies that took %v and a health timeout of %v: %v, want %v", c.slow, c.most, got, c.want)
		}
	}
}
