package proxy_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
)

// linear is a cluster whose only replica hears of writes a second late, behind a
// linearizable listener. Its observers keep quiet: ROLE at the master is
// asked by the sampler alone.
func linear(t testing.TB, wait time.Duration, reg *prometheus.Registry) *cluster {
	return newDelayedCluster(t, []delay{{time.Second, 0}}, func(o *proxy.Options) {
		o.Listeners[0].Consistency = proxy.ConsistencyLinearizable
		o.IndexWait = wait
		if reg != nil {
			o.Registerer = reg
		}
	})
}

// routed returns how many commands were routed for a reason.
func routed(t testing.TB, reg *prometheus.Registry, reason string) float64 {
	t.Helper()
	return allRouted(t, reg)[reason]
}

// awaitRoutes reads until a read has been routed for a reason.
func awaitRoutes(t testing.TB, r *raw, reg *prometheus.Registry, reason string) {
	t.Helper()
	before := routed(t, reg, reason)
	for deadline := time.Now().Add(20 * time.Second); routed(t, reg, reason) == before; {
		if time.Now().After(deadline) {
			t.Fatalf("no read was routed as %s", reason)
		}
		r.cmd("GET", "warm")
		if _, err := r.reply(); err != nil {
			t.Fatal(err)
		}
	}
}

// sampled waits until the master has been asked for its ROLE a few times: what
// was sent to the proxy before has arrived there.
func (c *cluster) sampled(t testing.TB) {
	t.Helper()
	for before := calls(t, c.master, "role"); calls(t, c.master, "role") < before+4; {
		time.Sleep(time.Millisecond)
	}
}

// TestIndexCoversOnlyWhatHadArrived: a read that arrives while its session
// waits with another must not be answered under that one's index.
func TestIndexCoversOnlyWhatHadArrived(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := linear(t, 20*time.Second, reg)
	r := dialRaw(t, c.addr)
	awaitRoutes(t, r, reg, "replica")
	redisDo(t, c.master, "SET", "x", "1")
	r.cmd("GET", "x")
	c.sampled(t) // the index is taken; its read waits for the replica for a second
	redisDo(t, c.master, "SET", "k", "new")
	r.cmd("GET", "k")
	r.expect("$1\r\n1\r\n")
	r.expect("$3\r\nnew\r\n")
	if late := routed(t, reg, "index_late"); late > 0 {
		t.Errorf("%v reads went to the master, so this test has shown nothing", late)
	}
}

func TestIndexedReadsGoToTheMasterInTime(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := linear(t, 20*time.Millisecond, reg)
	r := dialRaw(t, c.addr)
	awaitRoutes(t, r, reg, "replica")
	gets := calls(t, c.master, "get")
	redisDo(t, c.master, "SET", "k", "v")
	r.do("$1\r\nv\r\n", "GET", "k") // a second before the replica has it
	if got := calls(t, c.master, "get"); got != gets+1 {
		t.Errorf("the master answered %d reads, want 1", got-gets)
	}
	if routed(t, reg, "index_late") == 0 {
		t.Error("not counted as index_late")
	}
}

// TestIndexedReadsWaitForAMaster: without a master there is no index.
func TestIndexedReadsWaitForAMaster(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 1, func(o *proxy.Options) {
		o.Listeners[0].Consistency = proxy.ConsistencyLinearizable
		o.FailoverHold = 20 * time.Second
		o.Registerer = reg
	})
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SET", "k", "v")
	awaitRoutes(t, r, reg, "replica")
	redisDo(t, c.master, "SAVE")
	c.master.Kill()
	r.cmd("GET", "k")
	c.await(t, "the loss of the master", func(s proxy.Status) bool { return !s.Ready })
	r.cmd("GET", "k")
	if err := c.master.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.expect("$1\r\nv\r\n")
	r.expect("$1\r\nv\r\n")
}

func TestIndexedReadsFailWithoutAMaster(t *testing.T) {
	c := newCluster(t, 1, func(o *proxy.Options) {
		o.Listeners[0].Consistency = proxy.ConsistencyLinearizable
		o.FailoverHold = 50 * time.Millisecond
	})
	c.master.Kill()
	c.await(t, "the loss of the master", func(s proxy.Status) bool { return !s.Ready })
	r := dialRaw(t, c.addr)
	r.cmd("GET", "k")
	if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-SLUICE_NOREPLICA ") {
		t.Errorf("GET: %q, %v", got, err)
	}
}

// TestDrainAnswersIndexedReads: a client that waits for its index is not cut
// off by a shutdown.
func TestDrainAnswersIndexedReads(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := linear(t, 20*time.Second, reg)
	r := dialRaw(t, c.addr)
	awaitRoutes(t, r, reg, "replica")
	redisDo(t, c.master, "SET", "k", "v")
	r.cmd("GET", "k")
	c.sampled(t)
	closed := make(chan error, 1)
	go func() { closed <- c.srv.Close(context.Background()) }()
	r.closedAfter("$1\r\nv\r\n")
	if err := <-closed; err != nil {
		t.Error(err)
	}
}
