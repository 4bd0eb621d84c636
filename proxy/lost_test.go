package proxy_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
)

// checkLosses compares the metrics with what the writers of l saw: nothing that
// was acknowledged and is gone may be missing there, and what is called certain
// must be: acknowledged, or at least executed.
func checkLosses(t testing.TB, reg *prometheus.Registry, l *load) {
	t.Helper()
	certain := metricSum(t, reg, "sluice_lost_writes_bytes_total")
	uncertain := metricSum(t, reg, "sluice_lost_writes_uncertain_bytes_total")
	size := int64(len(resp.AppendCommand(nil, "INCR", "counter0")))
	lost := l.lost.Load() * size
	t.Logf("lost by the metrics: %d bytes for certain, up to %d more; by the writers' record: %d writes, %d bytes",
		certain, uncertain, l.lost.Load(), lost)
	if certain+uncertain < lost {
		t.Errorf("%d bytes of acknowledged writes are gone, %d are counted", lost, certain+uncertain)
	}
	const others = 2000 // bytes of PING, the sentinels' PUBLISH and the like in the stream
	if most := lost + l.uncertain.Load()*size + others; certain > most {
		t.Errorf("%d bytes are called lost, more than the %d that can have been", certain, most)
	}
}

// TestLostWritesAreCounted loses what a slow replication link still had under
// way when the master died, in each mode of consistency.
func TestLostWritesAreCounted(t *testing.T) {
	for _, mode := range []proxy.Consistency{proxy.ConsistencyCausal, proxy.ConsistencyEventual} {
		t.Run(string(mode), func(t *testing.T) {
			reg := prometheus.NewRegistry()
			c := newDelayedCluster(t, []delay{{latency: 300 * time.Millisecond}}, func(o *proxy.Options) {
				o.Listeners[0].Consistency = mode
				o.Registerer = reg
			})
			l := startLoad(t, c, 10, 0)
			awaitCount(t, &l.writes, 1000)
			before := time.Now()
			for time.Since(before) < 400*time.Millisecond { // until some have arrived, and some are under way
				awaitCount(t, &l.writes, l.writes.Load()+10)
			}
			c.master.Kill()
			redisDo(t, c.replicas[0], "REPLICAOF", "NO", "ONE")
			c.await(t, "the new master", masterIs(c.replicas[0]))
			for i := range l.acked { // each writer has written to it
				at := l.acked[i].Load()
				c.await(t, fmt.Sprint("writer ", i), func(proxy.Status) bool { return l.acked[i].Load() != at })
			}
			l.end(t)
			if l.lost.Load() == 0 {
				t.Fatal("nothing was lost: the test proves nothing")
			}
			checkLosses(t, reg, l)
			if n := metricSum(t, reg, "sluice_failovers_total"); n != 1 {
				t.Errorf("%d failovers, want 1", n)
			}
		})
	}
}
