package downstream

import (
	"context"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// Each way of loading looks differently at what comes; all get the same data,
// and the master gives one base and nothing else, whatever joins.
func TestFullResyncByEveryLoader(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 5)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	load.Start()
	full := relaytest.Number(t, master, "sync_full")
	var replicas []*localredis.Server
	for _, mode := range []string{"disabled", "swapdb", "on-empty-db"} {
		replicas = append(replicas, startBehind(t, r.port(), "--repl-diskless-load", mode))
	}
	r.awaitOnline(t, len(replicas))
	load.Stop()
	sameData(t, master, replicas...)
	if n := relaytest.Number(t, master, "sync_full"); n != full {
		t.Errorf("the master did %d full resyncs", n-full)
	}
	if n := r.fulls(); n != uint64(len(replicas)) {
		t.Errorf("%d full resyncs for %d replicas", n, len(replicas))
	}
	for _, s := range replicas {
		if id, want := relaytest.Info(t, s, "master_replid"), relaytest.Info(t, master, "master_replid"); id != want {
			t.Errorf("replica has replid %s, the master %s", id, want)
		}
	}
}

// The relay goes away and comes back: replicas go on where they were, and so do
// those that come from the master itself.
func TestPartialResync(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 2)
	dir := t.TempDir()
	direct := relaytest.StartReplica(t, master)
	r := startRig(t, dir, master.Addr(), rigOptions{})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	load.Start()
	replicaOf(t, direct, r.port())
	r.awaitOnline(t, 2)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 1 || p != 1 {
		t.Errorf("%d full and %d partial resyncs, want one of each", f, p)
	}
	listen := r.addr()
	r.stop(t)
	r = startRig(t, dir, master.Addr(), rigOptions{Options: Options{Listen: listen}})
	r.awaitOnline(t, 2)
	load.Stop()
	sameData(t, master, direct, behind)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 0 || p != 2 {
		t.Errorf("after a restart: %d full and %d partial resyncs, want 0 and 2", f, p)
	}
	// And back to the master, by partial resync, too.
	full := relaytest.Number(t, master, "sync_full")
	replicaOf(t, behind, master.Port())
	relaytest.Await(t, "replica up at the master", func() bool { return relaytest.Info(t, behind, "master_link_status") == "up" })
	round(t, load, 1)
	sameData(t, master, behind)
	if n := relaytest.Number(t, master, "sync_full"); n != full {
		t.Error("the replica's way back to the master cost a full resync")
	}
}

// Before there is a base, replicas are told to come again, and keep what they
// have.
func TestNotReady(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	r := newRig(t, t.TempDir(), master.Addr(), rigOptions{})
	c := dialRig(t, r)
	c.send("PSYNC ? -1\r\n")
	if got := c.line(); !strings.HasPrefix(got, "-NOMASTERLINK") {
		t.Errorf("PSYNC before the link is up: %q", got)
	}
	behind := startBehind(t, r.port())
	relaytest.Await(t, "replica is turned away", func() bool { return r.counters.notReady.Load() >= 2 })
	r.link.Start()
	r.awaitOnline(t, 1)
	sameData(t, master, behind)
}

// WAIT on the master counts the replicas behind the relay: the slowest of them
// tells.
func TestAckDownstream(t *testing.T) {
	t.Parallel() // it waits most of the time
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{up: upstream.Options{Ack: upstream.AckDownstream}})
	a, b := startBehind(t, r.port()), startBehind(t, r.port())
	r.awaitOnline(t, 2)
	c := relaytest.NewClient(t, master.Addr(), 0)
	ctx := context.Background()
	wait := func(limit time.Duration) int64 {
		t.Helper()
		conn := c.Conn()
		defer func() { _ = conn.Close() }()
		if err := conn.Incr(ctx, "counter").Err(); err != nil {
			t.Fatal(err)
		}
		n, err := conn.Wait(ctx, 1, limit).Result()
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := wait(relaytest.Timeout / 2); n != 1 {
		t.Fatalf("WAIT with both replicas: %d", n)
	}
	for _, s := range []*localredis.Server{a, b} {
		if got := relaytest.Do(t, s, "GET", "counter"); got == "" {
			t.Errorf("counter on %s after WAIT: %q", s.Addr(), got)
		}
	}
	if err := b.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// It would take a tick of the link to answer, if it did not look at b.
	if n := wait(2500 * time.Millisecond); n != 0 {
		t.Errorf("WAIT with one of them stopped: %d", n)
	}
	if err := b.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if n := wait(relaytest.Timeout / 2); n != 1 {
		t.Errorf("WAIT when it is back: %d", n)
	}
	a.Stop()
	b.Stop()
	relaytest.Await(t, "both are gone", func() bool { return len(r.Status().Replicas) == 0 })
	if n := wait(relaytest.Timeout / 2); n != 1 {
		t.Errorf("WAIT with none, for our own disk: %d", n)
	}
}
