package admin

import (
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
)

// counts is a status of a master with reads and a replica with lag.
func counts(reads, writes uint64, lag float64) *proxy.Status {
	st := &proxy.Status{Nodes: []proxy.NodeStatus{
		{Address: "m:1", Role: "master", Commands: writes, ByClass: proxy.ClassCounts{Write: writes}},
		{Address: "r:1", Role: "replica", Commands: reads, ByClass: proxy.ClassCounts{Read: reads}, LagBytes: int64(1000 * lag), LagSeconds: lag},
	}}
	st.Traffic.Routed = map[string]uint64{"replica": reads, "write": writes}
	st.Traffic.Latency = proxy.LatencyStatus{Bounds: []float64{0.001, 0.01}, Counts: []uint64{reads, writes, 0}}
	return st
}

func TestRecorder(t *testing.T) {
	var r recorder
	t0 := time.Unix(1000, 0)
	at := func(s float64) time.Time { return t0.Add(time.Duration(s * float64(time.Second))) }
	if c := r.columns(); r.lately() != nil || len(c.Times) != 0 || c.Nodes == nil {
		t.Errorf("an empty recorder tells of %+v", c)
	}
	r.observe(counts(100, 10, 0), at(0)) // what was before does not count
	r.observe(counts(150, 10, 7), at(1)) // in between: only the lag is noted
	r.observe(counts(300, 50, 2), at(2))
	l := r.lately()
	if l == nil || l.Read != 100 || l.Write != 20 || l.Seconds != 2 || l.RoutedSeconds != 2 || l.Routed["replica"] != 100 {
		t.Fatalf("the first step: %+v", l)
	}
	if n := l.Nodes[1]; n.Address != "r:1" || n.Read != 100 || n.LagSeconds != 7 || n.LagBytes != 7000 {
		t.Errorf("the replica: %+v, want the worst lag of the step", n)
	}
	// 200 of 240 commands took up to 1 ms, evenly; the others up to 10.
	if l.P50 != 0.0006 || l.P99 < 0.009 || l.P99 > 0.01 {
		t.Errorf("latency %v and %v", l.P50, l.P99)
	}

	r.observe(counts(200, 20, 0), at(4)) // a loop did not answer: counters that fall are no counters
	if got := r.lately(); got.Time != l.Time {
		t.Errorf("a point was made of falling counters: %+v", got)
	}
	r.observe(counts(500, 50, 0), at(6))
	if got := r.lately(); got.Read != 50 || got.Seconds != 4 {
		t.Errorf("after that: %v reads/s in %v s, want 50 in 4", got.Read, got.Seconds)
	}
	r.observe(counts(500, 50, -1), at(8))
	if got := r.lately(); got.P50 != unknown || got.Nodes[1].LagSeconds != unknown || got.Nodes[1].LagBytes > 0 {
		t.Errorf("without commands and lag: %+v", got)
	}
}

func TestRecorderIsBounded(t *testing.T) {
	var r recorder
	t0 := time.Unix(1000, 0)
	for i := range historyPoints + 100 {
		st := counts(uint64(10*i), uint64(i), 0)
		for len(st.Nodes) < 2*historyNodes {
			st.Nodes = append(st.Nodes, proxy.NodeStatus{Address: string(rune('a'+len(st.Nodes))) + ":1"})
		}
		r.observe(st, t0.Add(time.Duration(i)*historyStep))
	}
	c := r.columns()
	if len(c.Times) != historyPoints || len(c.Nodes) != historyNodes || len(c.Nodes[1].LagBytes) != historyPoints {
		t.Fatalf("%d points of %d nodes, want %d of %d", len(c.Times), len(c.Nodes), historyPoints, historyNodes)
	}
	for i := 1; i < len(c.Times); i++ {
		if c.Times[i]-c.Times[i-1] != historyStep.Milliseconds() {
			t.Fatalf("point %d comes %d ms after the one before it", i, c.Times[i]-c.Times[i-1])
		}
	}
	if l := r.lately(); l.RoutedSeconds != routedSpan.Seconds() || l.Routed["replica"] != 5 {
		t.Errorf("reasons over %v s: %v", l.RoutedSeconds, l.Routed)
	}
	if n := len(r.recent); n > int(routedSpan/historyStep)+2 {
		t.Errorf("%d looks are kept for the reasons", n)
	}
	if len(r.lag) > historyNodes {
		t.Errorf("the lag of %d nodes is kept", len(r.lag))
	}
}

func TestQuantile(t *testing.T) {
	bounds := []float64{1, 2, 4}
	for _, tc := range []struct {
		counts []uint64
		q      float64
		want   float64
	}{
		{[]uint64{0, 0, 0, 0}, 0.5, unknown},
		{[]uint64{10, 0, 0, 0}, 0.5, 0.5},
		{[]uint64{0, 10, 10, 0}, 0.5, 2},
		{[]uint64{0, 10, 10, 0}, 0.75, 3},
		{[]uint64{0, 0, 0, 5}, 0.5, 4}, // above the last bound
		{[]uint64{99, 0, 0, 1}, 0.99, 1},
	} {
		if got := quantile(bounds, tc.counts, tc.q); got != tc.want {
			t.Errorf("quantile(%v, %v) = %v, want %v", tc.counts, tc.q, got, tc.want)
		}
	}
}
