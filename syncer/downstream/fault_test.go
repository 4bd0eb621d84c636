package downstream

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// catchUp waits until a server has what the master has said so far.
func catchUp(t testing.TB, master, s *localredis.Server) {
	t.Helper()
	off := relaytest.Number(t, master, "master_repl_offset")
	relaytest.Await(t, fmt.Sprintf("%s at %d", s.Addr(), off), func() bool { return relaytest.Number(t, s, "master_repl_offset") >= off })
}

// promote makes a replica the master; the old one is killed.
func promote(t testing.TB, old, next *localredis.Server) {
	t.Helper()
	old.Kill()
	relaytest.Do(t, next, "REPLICAOF", "NO", "ONE")
}

// A stored base is damaged: it is served to nobody, and said, and a new one is
// taken. The log goes on being served.
func TestFault11BitFlip(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 2)
	dir := t.TempDir()
	r := startRig(t, dir, master.Addr(), rigOptions{})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	round(t, load, 2)
	r.awaitOffset(t, master)
	listen := r.addr()
	r.stop(t)
	flip(t, dir, "base-*.rdb")
	r = newRig(t, dir, master.Addr(), rigOptions{Options: Options{Listen: listen}})
	r.link.Start()
	r.awaitOnline(t, 1) // by partial resync: the log is whole
	fresh := startBehind(t, r.port())
	relaytest.Await(t, "the damage is found", func() bool { return r.counters.corrupt.Load() > 0 && r.counters.notReady.Load() > 0 })
	round(t, load, 1) // a new base is at another offset
	r.awaitOnline(t, 2)
	sameData(t, master, behind, fresh)
}

// flip changes a bit in the middle of the only file with such a name.
func flip(t *testing.T, dir, pattern string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "gen-*", pattern))
	if err != nil || len(names) != 1 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	b, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	if err := os.WriteFile(names[0], b, 0o640); err != nil {
		t.Fatal(err)
	}
}

// A replica that is stopped is dropped and costs the master nothing; it comes
// back by partial resync.
func TestFault12DownstreamStopped(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 1)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{Options: Options{Timeout: 4 * time.Second}})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	if err := behind.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	load.Start()
	relaytest.Await(t, "dropped", func() bool { return r.counters.drops[reasonTimeout].Load() > 0 })
	load.Stop()
	if n := relaytest.Number(t, master, "mem_clients_slaves"); n > 1<<20 {
		t.Errorf("the master holds %d bytes for its replicas", n)
	}
	if err := behind.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	r.awaitOnline(t, 1)
	sameData(t, master, behind)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 1 || p == 0 {
		t.Errorf("%d full and %d partial resyncs, want one and some", f, p)
	}
}

// A replica that was away for longer than any backlog, with log of many segments
// in between, goes on where it was.
func TestFault13DownstreamGoneForHours(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{Args: []string{"--repl-backlog-size", "16384"}})
	load := relaytest.NewLoad(t, master)
	round(t, load, 1)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{st: store.Options{SegmentBytes: 1 << 20}})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	relaytest.Do(t, behind, "REPLICAOF", "127.0.0.1", "1")
	begin := r.st.Head().Committed()
	for r.st.Head().Committed() < begin+8<<20 {
		round(t, load, 1)
	}
	replicaOf(t, behind, r.port())
	sameData(t, master, behind)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 1 || p != 1 {
		t.Errorf("%d full and %d partial resyncs, want one of each", f, p)
	}
}

// The log after the base is longer than a replica may be behind: who is given that
// base is not dropped for it, or nobody could ever join. Who holds log from before
// a newer base is.
func TestDroppedForTheLogItHolds(t *testing.T) {
	r := newRig(t, t.TempDir(), "127.0.0.1:1", rigOptions{Options: Options{MaxLagBytes: 1000}})
	pos := repl.Pos{ReplID: repl.ReplID(strings.Repeat("a", repl.ReplIDLen)), Offset: 100}
	h, err := repl.NewHistory(pos.ReplID)
	if err != nil {
		t.Fatal(err)
	}
	g, err := r.st.NewGeneration(pos, h)
	if err != nil {
		t.Fatal(err)
	}
	addBase := func(off repl.Offset) {
		t.Helper()
		b, err := r.st.BeginBase(store.BaseMeta{Pos: repl.Pos{ReplID: pos.ReplID, Offset: off}, DB: -1})
		if err == nil {
			_, err = b.Write([]byte("REDIS0010\xff12345678"))
		}
		if err == nil {
			_, err = b.Commit()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	addBase(pos.Offset)
	if err := r.st.Append(make([]byte, 5000)); err != nil {
		t.Fatal(err)
	}
	if err := r.st.Commit(store.Mark{Offset: pos.Offset + 5000}); err != nil {
		t.Fatal(err)
	}
	c := dialRig(t, r)
	c.send("PSYNC ? -1\r\n")
	if got := c.line(); !strings.HasPrefix(got, "+FULLRESYNC ") {
		t.Fatal(got)
	}
	relaytest.Await(t, "the base was sent", func() bool { return r.state(t) == StateLoading.String() })
	if err := r.list()[0].judge(g, g, time.Now()); err != nil {
		t.Errorf("with the newest base: %v", err)
	}
	addBase(pos.Offset + 3000)
	relaytest.Await(t, "dropped", func() bool { return r.counters.drops[reasonLag].Load() == 1 })
}

// Twenty join: the master notices nothing.
func TestFault14TwentyJoin(t *testing.T) {
	n := 20
	if testing.Short() {
		n = 5
	}
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 3)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	full, forks := relaytest.Number(t, master, "sync_full"), relaytest.Number(t, master, "total_forks")
	replicas := make([]*localredis.Server, n)
	for i := range replicas {
		replicas[i] = startBehind(t, r.port())
	}
	r.awaitOnline(t, n)
	round(t, load, 1)
	sameData(t, master, replicas...)
	if f, k := relaytest.Number(t, master, "sync_full"), relaytest.Number(t, master, "total_forks"); f != full || k != forks {
		t.Errorf("the master did %d full resyncs and %d forks", f-full, k-forks)
	}
}

// failover is a master, a candidate, a relay and a replica behind it.
func failover(t *testing.T, o rigOptions) (master, candidate, behind *localredis.Server, r *rig) {
	master = relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	candidate = relaytest.StartReplica(t, master)
	r = startRig(t, t.TempDir(), master.Addr(), o)
	behind = startBehind(t, r.port())
	r.awaitOnline(t, 1)
	return master, candidate, behind, r
}

// The relay is not ahead of the promoted replica: +CONTINUE under the new id, for
// it and for those behind it.
func TestFault15FailoverRelayBehind(t *testing.T) {
	master, candidate, behind, r := failover(t, rigOptions{})
	catchUp(t, master, candidate)
	promote(t, master, candidate)
	r.link.SetMaster(candidate.Addr())
	round(t, relaytest.NewLoad(t, candidate), 1)
	relaytest.Await(t, "new id behind the relay", func() bool {
		return relaytest.Info(t, behind, "master_replid") == relaytest.Info(t, candidate, "master_replid")
	})
	sameData(t, candidate, behind)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 1 || p != 1 || len(r.st.Generations()) != 1 {
		t.Errorf("%d full and %d partial resyncs, %d generations", f, p, len(r.st.Generations()))
	}
	if n := r.counters.drops[reasonReplID].Load(); n != 1 {
		t.Errorf("dropped %d times because of the new id", n)
	}
}

// The relay, and who is behind it, have what the promoted replica never had: that
// is not in the new history, so that all sync anew, and the old generation is
// served until then.
func TestFault16FailoverRelayAhead(t *testing.T) {
	master, candidate, behind, r := failover(t, rigOptions{})
	relaytest.Do(t, candidate, "REPLICAOF", "NO", "ONE")
	relaytest.Do(t, candidate, "SET", "only", "here")
	relaytest.Do(t, master, "SET", "lost", "write")
	catchUp(t, master, behind)
	master.Kill()
	r.link.SetMaster(candidate.Addr())
	relaytest.Await(t, "a new generation is current", func() bool { return r.st.Current().ID() == 2 })
	relaytest.Await(t, "the replica has another history", func() bool {
		return relaytest.Info(t, behind, "master_replid") == relaytest.Info(t, candidate, "master_replid")
	})
	sameData(t, candidate, behind)
	if n := r.counters.full[repl.UnknownReplID.String()].Load(); n != 1 {
		t.Errorf("%d full resyncs because of an unknown id", n)
	}
	if n := r.counters.drops[reasonGeneration].Load(); n != 1 {
		t.Errorf("dropped %d times because of the new generation", n)
	}
	if relaytest.Do(t, behind, "EXISTS", "lost") != ":0" {
		t.Error("the replica kept what the new master never had")
	}
}

// Two failovers while a replica is away: stock remembers one id, we all.
func TestFault17TwoFailoversWhileAway(t *testing.T) {
	master, second, behind, r := failover(t, rigOptions{})
	third := relaytest.StartReplica(t, master)
	relaytest.Do(t, behind, "REPLICAOF", "127.0.0.1", "1")
	replicaOf(t, third, second.Port())
	relaytest.Await(t, "third up", func() bool { return relaytest.Info(t, third, "master_link_status") == "up" })
	round(t, relaytest.NewLoad(t, master), 1)
	catchUp(t, master, second)
	promote(t, master, second)
	r.link.SetMaster(second.Addr())
	round(t, relaytest.NewLoad(t, second), 1)
	r.awaitOffset(t, second)
	catchUp(t, second, third)
	promote(t, second, third)
	r.link.SetMaster(third.Addr())
	round(t, relaytest.NewLoad(t, third), 1)
	r.awaitOffset(t, third)
	if n := len(r.st.Head().History().Ancestors()); n != 2 {
		t.Fatalf("%d ancestors", n)
	}
	replicaOf(t, behind, r.port())
	sameData(t, third, behind)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 1 || p != 1 {
		t.Errorf("%d full and %d partial resyncs, want one of each", f, p)
	}
}

// The old master comes back with writes that nobody else has: by PSYNC it may not
// go on.
func TestFault18OldMasterDiverged(t *testing.T) {
	master, candidate, behind, r := failover(t, rigOptions{})
	catchUp(t, master, candidate)
	relaytest.Do(t, candidate, "REPLICAOF", "NO", "ONE")
	r.link.SetMaster(candidate.Addr())
	relaytest.Await(t, "the relay has changed over", func() bool { return len(r.st.Head().History().Ancestors()) == 1 })
	relaytest.Do(t, master, "SET", "diverged", "yes")
	round(t, relaytest.NewLoad(t, candidate), 1)
	replicaOf(t, master, r.port())
	sameData(t, candidate, behind, master)
	if relaytest.Do(t, master, "EXISTS", "diverged") != ":0" {
		t.Error("the old master kept what nobody else has")
	}
	if n := r.counters.full[repl.Diverged.String()].Load(); n != 1 {
		t.Errorf("%d full resyncs because of the divergence", n)
	}
}

// Nothing is written for longer than the timeouts: what keeps the links alive are
// the master's own pings, and no offset drifts.
func TestFault20Idle(t *testing.T) {
	t.Parallel() // it waits most of the time
	master := relaytest.StartRedis(t, localredis.Options{Args: []string{"--repl-timeout", "4", "--repl-ping-replica-period", "1"}})
	round(t, relaytest.NewLoad(t, master), 1)
	o := rigOptions{Options: Options{Timeout: 4 * time.Second}, up: upstream.Options{Timeout: 4 * time.Second}}
	r := startRig(t, t.TempDir(), master.Addr(), o)
	behind := startBehind(t, r.port(), "--repl-timeout", "4")
	r.awaitOnline(t, 1)
	begin := relaytest.Number(t, master, "master_repl_offset")
	// Ten pings of the master: more than two timeouts. On a machine that is too busy
	// for a moment one may strike all the same, but not two.
	const ping = int64(len("*1\r\n$4\r\nPING\r\n"))
	relaytest.Await(t, "ten pings", func() bool { return relaytest.Number(t, master, "master_repl_offset") >= begin+10*ping })
	sameData(t, master, behind)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 1 || p > 1 {
		t.Errorf("%d full and %d partial resyncs", f, p)
	}
	b := int64(r.st.Head().Committed())
	if m := relaytest.Number(t, master, "master_repl_offset"); b > m || (m-b)%ping != 0 {
		t.Errorf("offset %d here, %d at the master: they differ by more than pings", b, m)
	}
}

// The master is away for several timeouts of the replicas: they hear nothing,
// come back each time by partial resync, and nothing else.
func TestFault21UpstreamDead(t *testing.T) {
	t.Parallel() // it waits most of the time
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 1)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	behind := startBehind(t, r.port(), "--repl-timeout", "3")
	r.awaitOnline(t, 1)
	catchUp(t, master, behind)
	if err := master.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	off := relaytest.Number(t, behind, "master_repl_offset")
	relaytest.Await(t, "three timeouts of the replica", func() bool { return r.counters.partial.Load() >= 3 })
	if got := relaytest.Number(t, behind, "master_repl_offset"); got != off {
		t.Errorf("offset moved from %d to %d while the master was away", off, got)
	}
	if err := master.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	round(t, load, 1)
	sameData(t, master, behind)
	if n := r.fulls(); n != 1 {
		t.Errorf("%d full resyncs", n)
	}
	if n := relaytest.Number(t, master, "sync_full"); n > 1 {
		t.Errorf("the master did %d full resyncs", n)
	}
}

// FAILOVER picks us, or somebody wants to promote us: we refuse, and the master
// goes on as it was.
func TestFault26FailoverToRelay(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{
		Options: Options{Listen: fmt.Sprintf("127.0.0.1:%d", port)}, up: upstream.Options{ListeningPort: port}})
	relaytest.Await(t, "online at the master", func() bool { return strings.Contains(relaytest.Do(t, master, "INFO", "replication"), "state=online") })
	relaytest.Do(t, master, "FAILOVER")
	relaytest.Await(t, "the master has given up", func() bool { return relaytest.Info(t, master, "master_failover_state") == "no-failover" })
	if role := relaytest.Info(t, master, "role"); role != "master" {
		t.Fatalf("the master is a %s", role)
	}
	relaytest.Do(t, master, "SET", "goes", "on")
	r.awaitOffset(t, master)
	for _, cmd := range [][]string{{"SLAVEOF", "NO", "ONE"}, {"REPLICAOF", "no", "one"}} {
		if got, err := localredis.Do(r.addr(), cmd...); err != nil || !strings.HasPrefix(got, "-ERR") || !strings.Contains(got, "cannot become a master") {
			t.Errorf("%v: %q, %v", cmd, got, err)
		}
	}
	if got, err := localredis.Do(r.addr(), "PSYNC", strings.Repeat("a", 40), "1", "FAILOVER"); err != nil || !strings.HasPrefix(got, "-ERR") {
		t.Errorf("PSYNC FAILOVER: %q, %v", got, err)
	}
}

// aheadOfStore is a replica of a master that has more than the store in dir, which
// nobody has open.
func aheadOfStore(t *testing.T) (master, ahead *localredis.Server, dir string) {
	t.Helper()
	master, dir = relaytest.StartRedis(t, localredis.Options{}), t.TempDir()
	load := relaytest.NewLoad(t, master)
	round(t, load, 1)
	r := startRig(t, dir, master.Addr(), rigOptions{})
	ahead = relaytest.StartReplica(t, master)
	r.stop(t)
	round(t, load, 2)
	catchUp(t, master, ahead)
	return master, ahead, dir
}

// A replica that has more than we is held until we have it, too.
func TestFault27ReplicaAhead(t *testing.T) {
	master, ahead, dir := aheadOfStore(t)
	r := newRig(t, dir, master.Addr(), rigOptions{}) // the link is still down
	full := relaytest.Number(t, master, "sync_full")
	replicaOf(t, ahead, r.port())
	relaytest.Await(t, "the replica is held", func() bool { return r.state(t) == "wait" })
	r.link.Start()
	r.awaitOnline(t, 1)
	sameData(t, master, ahead)
	if f, p, h := r.fulls(), r.counters.partial.Load(), r.counters.held.Load(); f != 0 || p != 1 || h != 1 {
		t.Errorf("%d full, %d partial resyncs, held %d times", f, p, h)
	}
	if n := relaytest.Number(t, master, "sync_full"); n != full {
		t.Errorf("the master did %d full resyncs", n-full)
	}
}

// One that stays ahead while the link is down is told to come again, and keeps
// what it has.
func TestFault27ReplicaAheadForLong(t *testing.T) {
	master, ahead, dir := aheadOfStore(t)
	r := newRig(t, dir, master.Addr(), rigOptions{Options: Options{HoldAhead: 10 * time.Millisecond}})
	replicaOf(t, ahead, r.port())
	relaytest.Await(t, "turned away twice", func() bool { return r.counters.notReady.Load() >= 2 })
	r.link.Start()
	r.awaitOnline(t, 1)
	sameData(t, master, ahead)
	if f := r.fulls(); f != 0 {
		t.Errorf("%d full resyncs", f)
	}
}

// gatedConn holds back what comes behind +CONTINUE until it is let go: a link that
// has much to catch up with.
type gatedConn struct {
	net.Conn
	open   <-chan struct{}
	closed chan struct{}
	once   sync.Once
	behind bool   // +CONTINUE was read
	rest   []byte // what came with it
}

func (c *gatedConn) Read(p []byte) (int, error) {
	if !c.behind {
		n, err := c.Conn.Read(p)
		if i := bytes.Index(p[:n], []byte("+CONTINUE")); i >= 0 {
			end := i + bytes.IndexByte(p[i:n], '\n') + 1
			c.behind, c.rest, n = true, bytes.Clone(p[end:n]), end
		}
		return n, err
	}
	select {
	case <-c.open:
	case <-c.closed:
		return 0, net.ErrClosed
	}
	if len(c.rest) > 0 {
		n := copy(p, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *gatedConn) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.Conn.Close()
}

// One that has what is still on its way to us is told to come again, however long
// that takes: it is not ahead of the master.
func TestFault27ReplicaAheadOfASlowLink(t *testing.T) {
	master, ahead, dir := aheadOfStore(t)
	open := make(chan struct{})
	r := newRig(t, dir, master.Addr(), rigOptions{Options: Options{HoldAhead: 10 * time.Millisecond}, up: upstream.Options{
		Dial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, addr)
			return &gatedConn{Conn: c, open: open, closed: make(chan struct{})}, err
		},
	}})
	r.link.Start()
	relaytest.Await(t, "link is up", func() bool { return r.link.State() == upstream.StateConnected })
	replicaOf(t, ahead, r.port())
	relaytest.Await(t, "an answer", func() bool { return r.counters.notReady.Load() > 0 || r.fulls() > 0 })
	close(open)
	r.awaitOnline(t, 1)
	sameData(t, master, ahead)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 0 || p != 1 {
		t.Errorf("%d full and %d partial resyncs", f, p)
	}
}

// A base that the replica cannot load: it is told of in the log, and does not
// take the base again and again.
func TestFault30BaseNewerThanReplica(t *testing.T) {
	t.Run("loaded when all has come", func(t *testing.T) { testNewerBase(t, 0, "disabled") })
	// More than fits into the sockets: it goes while we send.
	t.Run("loaded as it comes", func(t *testing.T) { testNewerBase(t, 64<<20, "swapdb") })
	if v := rdbVersion(&served{magic: []byte("REDIS9999")}); v != "9999" {
		t.Error(v)
	}
	if v := rdbVersion(&served{magic: []byte("VALKEY080")}); v != "80" {
		t.Error(v)
	}
}

func testNewerBase(t *testing.T, size int, load string) {
	dir := t.TempDir()
	st, err := store.Open(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	pos := repl.Pos{ReplID: repl.ReplID(strings.Repeat("a", repl.ReplIDLen)), Offset: 100}
	h, err := repl.NewHistory(pos.ReplID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.NewGeneration(pos, h); err != nil {
		t.Fatal(err)
	}
	base, err := st.BeginBase(store.BaseMeta{Pos: pos, DB: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := base.Write(append([]byte("REDIS9999\xff"), bytes.Repeat([]byte{0}, 8+size)...)); err != nil {
		t.Fatal(err)
	}
	if _, err := base.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	r := newRig(t, dir, "127.0.0.1:1", rigOptions{})
	behind := startBehind(t, r.port(), "--repl-diskless-load", load)
	relaytest.Await(t, "the replica fails twice", func() bool { return r.fulls() >= 2 })
	relaytest.Await(t, "the replica has to wait", func() bool { return r.peers.mustWait(behind.Addr(), time.Now()) > 0 })
	if n := r.fulls(); n > 4 {
		t.Errorf("%d full resyncs before it had to wait", n)
	}
}
