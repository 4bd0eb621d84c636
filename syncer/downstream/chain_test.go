package downstream

import (
	"strings"
	"testing"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// A relay behind a relay, a stock replica behind a stock replica behind that one,
// and a failover of the master at the other end: the same data everywhere, and
// the master serves one replica.
func TestChain(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	candidate := relaytest.StartReplica(t, master)
	first := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	full, forks := relaytest.Number(t, master, "sync_full"), relaytest.Number(t, master, "total_forks")
	dir := t.TempDir()
	second := startRig(t, dir, first.addr(), rigOptions{})
	if got := second.link.Status().Master; got != first.addr() {
		t.Fatalf("the second relay is at %s", got)
	}
	a := startBehind(t, second.port())
	b := startBehind(t, a.Port())
	second.awaitOnline(t, 1)
	round(t, relaytest.NewLoad(t, master), 1)
	sameData(t, master, a, b)
	if f, k := relaytest.Number(t, master, "sync_full"), relaytest.Number(t, master, "total_forks"); f != full || k != forks {
		t.Errorf("the master did %d full resyncs and %d forks", f-full, k-forks)
	}
	catchUp(t, master, candidate)
	promote(t, master, candidate)
	first.link.SetMaster(candidate.Addr())
	round(t, relaytest.NewLoad(t, candidate), 1)
	relaytest.Await(t, "new id at the end of the chain", func() bool {
		return relaytest.Info(t, b, "master_replid") == relaytest.Info(t, candidate, "master_replid")
	})
	sameData(t, candidate, a, b)
	// The second comes back after a restart, and goes on.
	listen := second.addr()
	second.stop(t)
	round(t, relaytest.NewLoad(t, candidate), 1)
	second = startRig(t, dir, first.addr(), rigOptions{Options: Options{Listen: listen}})
	sameData(t, candidate, a, b)
	// A third one gets the first's base, which is of the old id.
	third := startRig(t, t.TempDir(), first.addr(), rigOptions{})
	c := startBehind(t, third.port())
	third.awaitOnline(t, 1)
	sameData(t, candidate, a, b, c)
	if n := len(second.st.Generations()); n != 1 {
		t.Errorf("the second relay has %d generations", n)
	}
	if f := first.fulls(); f != 2 {
		t.Errorf("the first relay gave %d full resyncs, want one to each relay", f)
	}
}

// The log has grown past the base: a new one comes from a replica behind us, and
// the master does nothing for it.
func TestBaseFromDownstream(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 1)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{up: upstream.Options{BaseRefreshMin: 1 << 20}, st: store.Options{SegmentBytes: 1 << 20}})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	full, forks := relaytest.Number(t, master, "sync_full"), relaytest.Number(t, master, "total_forks")
	begin := r.st.Current().Bases()[0]
	for r.st.Head().Committed() < begin.Offset+3<<20 {
		round(t, load, 1)
	}
	relaytest.Await(t, "a base from downstream", func() bool {
		b := r.st.Current().Bases()[0]
		return b.Offset > begin.Offset && strings.Contains(b.Source, behind.Addr())
	})
	fresh := startBehind(t, r.port())
	r.awaitOnline(t, 2)
	round(t, load, 1)
	sameData(t, master, behind, fresh)
	if f, k := relaytest.Number(t, master, "sync_full"), relaytest.Number(t, master, "total_forks"); f != full || k != forks {
		t.Errorf("the master did %d full resyncs and %d forks", f-full, k-forks)
	}
}
