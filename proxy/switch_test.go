package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// switchTo hands the master's role to s, which is one of the replicas.
func (c *cluster) switchTo(t testing.TB, s *localredis.Server) {
	t.Helper()
	r := proxy.SwitchRequest{Timeout: 20 * time.Second, Progress: func(text string) { t.Log(text) }}
	if s != nil {
		r.To = s.Addr()
	}
	if err := c.srv.Failover(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	if s != nil {
		c.await(t, "the new master", masterIs(s))
	}
}

// TestPlannedFailover switches there and back under 50 writers and 50 readers,
// transactions among them, and no client sees an error of any kind.
func TestPlannedFailover(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 2, func(o *proxy.Options) { o.Registerer = reg })
	l := startLoad(t, c, 50, 50)
	awaitCount(t, &l.writes, 1000)
	servers := []*localredis.Server{c.replicas[0], c.master}
	for _, to := range servers {
		c.await(t, "replicas that get reads", func(s proxy.Status) bool { return readable(s) == 2 })
		c.switchTo(t, to)
		awaitCount(t, &l.writes, l.writes.Load()+1000)
		awaitCount(t, &l.reads, l.reads.Load()+1000)
	}
	l.end(t)
	if n := l.uncertain.Load(); n != 0 {
		t.Errorf("%d writes are uncertain", n)
	}
	checkLosses(t, reg, l)
	if l.lost.Load() != 0 || metricSum(t, reg, "sluice_lost_writes_bytes_total") != 0 {
		t.Error("a planned failover lost writes")
	}
	t.Logf("longest stall of one writer: %v", time.Duration(l.longest.Load()))
}

// TestTwentyFailovers hands the role back and forth between two servers, twenty
// times in a row, with a third that follows one of them all the time, while each reader checks that what it reads never goes back.
func TestTwentyFailovers(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 2, func(o *proxy.Options) { o.Registerer = reg })
	servers := []*localredis.Server{c.master, c.replicas[0]}
	l := startLoad(t, c, 10, 20)
	awaitCount(t, &l.writes, 200)
	const rounds = 20
	for i := range rounds {
		c.await(t, "replicas that get reads", func(s proxy.Status) bool { return readable(s) == 2 })
		c.switchTo(t, servers[(i+1)%len(servers)])
		awaitCount(t, &l.writes, l.writes.Load()+50)
		awaitCount(t, &l.reads, l.reads.Load()+50)
	}
	l.end(t)
	if n := l.uncertain.Load() + l.lost.Load(); n != 0 {
		t.Errorf("%d writes are uncertain or lost", n)
	}
	if n := metricSum(t, reg, "sluice_failovers_total"); n != rounds {
		t.Errorf("%d failovers, want %d", n, rounds)
	}
	checkLosses(t, reg, l)
}

// TestPlannedFailoverBySentinel asks Sentinel to switch: it waits for nothing
// and kills connections, but nothing is in flight.
func TestPlannedFailoverBySentinel(t *testing.T) {
	c, _ := newSentinelCluster(t, 2, nil)
	if err := c.srv.Failover(t.Context(), proxy.SwitchRequest{To: c.replicas[0].Addr()}); err == nil || !strings.Contains(err.Error(), "sentinels choose") {
		t.Errorf("--to with Sentinel: %v", err)
	}
	l := startLoad(t, c, 50, 50)
	awaitCount(t, &l.writes, 1000)
	c.switchTo(t, nil)
	c.await(t, "another master", func(s proxy.Status) bool { return s.Ready && s.Nodes[0].Address != c.master.Addr() })
	awaitCount(t, &l.writes, l.writes.Load()+1000)
	awaitCount(t, &l.reads, l.reads.Load()+1000)
	l.end(t)
	if n := l.uncertain.Load() + l.lost.Load(); n != 0 {
		t.Errorf("%d writes are uncertain or lost", n)
	}
}

// TestPlannedFailoverThatCannotBe leaves everything as it was: a transaction
// that stays open, a target that is none, a replica that does not catch up.
func TestPlannedFailoverThatCannotBe(t *testing.T) {
	c := newCluster(t, 1, nil)
	try := func(to, want string) {
		t.Helper()
		err := c.srv.Failover(context.Background(), proxy.SwitchRequest{To: to, Timeout: 3 * time.Second})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("err = %v, want one with %q", err, want)
		}
		c.await(t, "the old master", masterIs(c.master))
		dialRaw(t, c.addr).do("+OK\r\n", "SET", "k", "v")
	}
	try("127.0.0.1:1", "is no replica of")

	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "SET", "in", "multi")
	try("", "open MULTI")
	r.cmd("EXEC")
	r.expect("*1\r\n+OK\r\n")

	if err := c.replicas[0].Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	err := c.srv.Failover(context.Background(), proxy.SwitchRequest{To: c.replicas[0].Addr(), Timeout: 500 * time.Millisecond})
	if err == nil {
		t.Error("a frozen replica took over")
	}
	t.Log(err)
	dialRaw(t, c.addr).do("+OK\r\n", "SET", "k", "v")
	if err := c.replicas[0].Signal(contSignal); err != nil {
		t.Fatal(err)
	}
	c.await(t, "the replica's return", func(s proxy.Status) bool { return readable(s) == 1 })
	c.switchTo(t, c.replicas[0])
}
