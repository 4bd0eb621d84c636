package proxy_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp/localredis"
)

// newSentinelCluster is newCluster under three sentinels that are agreed and
// able to fail over, with a proxy that knows nothing but them.
func newSentinelCluster(t testing.TB, replicas int, set func(*proxy.Options)) (c *cluster, sentinels []*localredis.Server) {
	t.Helper()
	c = &cluster{master: startRedis(t, localredis.Options{})}
	for range replicas {
		c.replicas = append(c.replicas, startRedis(t, localredis.Options{ReplicaOf: c.master}))
	}
	for _, r := range c.replicas {
		awaitInfo(t, r, "master_link_status:up")
	}
	o := topology.SentinelConfig{Name: "mymaster"}
	for range 3 {
		s, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
			Name: o.Name, Master: c.master, Quorum: 2,
			DownAfter: time.Minute, FailoverTimeout: 5 * time.Second, // see downAfter
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		sentinels = append(sentinels, s)
		o.Addrs = append(o.Addrs, s.Addr())
	}
	for _, s := range sentinels { // without a majority that knows itself there is no failover
		awaitInfo(t, s, fmt.Sprintf("slaves=%d,sentinels=3", replicas))
	}
	c.front(t, func(p *proxy.Options) {
		p.Master, p.Sentinel = "", o
		if set != nil {
			set(p)
		}
	})
	return c, sentinels
}

// promotedAt polls the servers until one says that it is master.
func promotedAt(t testing.TB, servers []*localredis.Server) (*localredis.Server, time.Time) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		for _, s := range servers {
			// An array of three for a master, of five for a replica.
			if line, err := localredis.Do(s.Addr(), "ROLE"); err == nil && line == "*3" {
				return s, time.Now()
			}
		}
	}
	t.Fatal("no replica was promoted")
	return nil, time.Time{}
}

// TestSentinelFailoverUnderLoad kills the master under three sentinels and
// 50 writers. No writer sees anything but what is truly uncertain,
// and the new master is written to as soon as it is one.
func TestSentinelFailoverUnderLoad(t *testing.T) {
	reg := prometheus.NewRegistry()
	c, sentinels := newSentinelCluster(t, 2, func(o *proxy.Options) {
		o.Registerer = reg
		o.FailoverHold = time.Minute // a slow machine's sentinels take their time
	})
	const writers = 50
	l := startLoad(t, c, writers, 0)
	awaitCount(t, &l.writes, 2000)
	killed := time.Now()
	c.master.Kill()
	c.await(t, "the loss of the master", func(s proxy.Status) bool { return !s.Ready })
	l.firstAck.Store(0)
	downAfter(t, sentinels, 500*time.Millisecond)
	promoted, at := promotedAt(t, c.replicas)
	downAfter(t, sentinels, time.Minute)
	c.await(t, "the new master", masterIs(promoted))
	awaitCount(t, &l.writes, l.writes.Load()+1000)
	first := time.Unix(0, l.firstAck.Load())
	t.Logf("promoted %v after the kill; the first write %v after the promotion", at.Sub(killed), first.Sub(at))
	if d := first.Sub(at); d > 15*time.Second { // 300 ms on a machine that is not busy
		t.Errorf("the first write came %v after the promotion", d)
	}
	for i := range l.acked { // each writer has written to it
		v := l.acked[i].Load()
		c.await(t, "each writer", func(proxy.Status) bool { return l.acked[i].Load() != v })
	}
	l.end(t)
	if n := l.uncertain.Load(); n > writers {
		t.Errorf("%d uncertain writes of %d writers, at most one each was in flight", n, writers)
	}
	checkLosses(t, reg, l)
	if n := metricSum(t, reg, "sluice_failovers_total"); n != 1 {
		t.Errorf("%d failovers, want 1", n)
	}
	if st := c.srv.Status(); len(st.Sentinels) != 3 || strings.Contains(st.Sentinels[0].Error, "mymaster") {
		t.Errorf("sentinels: %+v", st.Sentinels)
	}
}

// TestSentinelTLS finds the master by a sentinel that is reached by TLS with
// client certificates.
func TestSentinelTLS(t *testing.T) {
	p := newPKI(t)
	port := freePort(t)
	master := startRedis(t, localredis.Options{})
	var lines []string
	for args := p.server.RedisArgs(p.ca, port); len(args) > 0; args = args[2:] {
		lines = append(lines, strings.TrimPrefix(args[0], "--")+" "+args[1])
	}
	s, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
		Name: "mymaster", Master: master, Quorum: 1, DownAfter: time.Minute, FailoverTimeout: time.Minute, Config: lines,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	reg := prometheus.NewRegistry()
	c := &cluster{master: master}
	c.front(t, func(o *proxy.Options) {
		o.Master, o.Registerer = "", reg
		o.Sentinel = topology.SentinelConfig{Name: "mymaster", Addrs: []string{"127.0.0.1:" + port}, TLS: p.dialer}
	})
	dialRaw(t, c.addr).do("+OK\r\n", "SET", "k", "v")
	awaitMetric(t, reg, 1, "sluice_sentinel_up", "127.0.0.1:"+port)
}
