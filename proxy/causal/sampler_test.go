package causal

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/repl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is a sampler of real servers.
type rig struct {
	testing.TB
	fences  *Fences
	sampler *Sampler
	hold    *hold
	nodes   map[string]*topology.Node
}

// hold lets answers through, or holds them back once they have arrived.
type hold struct {
	mu   sync.Mutex
	cond *sync.Cond
	addr string // of the node whose answers are held back
	held int    // how many are

	closed int // connections
}

func (c *heldConn) Close() error {
	c.hold.mu.Lock()
	c.hold.closed++
	c.hold.mu.Unlock()
	return c.Conn.Close()
}

// ends counts the connections that tasks have ended.
func (h *hold) ends() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// heldConn is a connection whose answers are subject to a hold. Deadlines do
// not end the wait: it stands for a goroutine that is not scheduled.
type heldConn struct {
	net.Conn
	addr string
	hold *hold
}

func (c *heldConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	h := c.hold
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.held++; h.addr == c.addr; {
		h.cond.Broadcast()
		h.cond.Wait()
	}
	h.held--
	return n, err
}

// back holds the answers of s back and returns once one is.
func (h *hold) back(s *localredis.Server) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addr = s.Addr()
	for h.held == 0 {
		h.cond.Wait()
	}
}

func (h *hold) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addr = ""
	h.cond.Broadcast()
}

func newRig(t testing.TB) *rig {
	r := &rig{TB: t, fences: NewFences(), hold: new(hold), nodes: make(map[string]*topology.Node)}
	r.hold.cond = sync.NewCond(&r.hold.mu)
	ctx, cancel := context.WithCancel(context.Background())
	r.sampler = NewSampler(ctx, r.fences, Config{
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			var d net.Dialer
			c, err := d.DialContext(ctx, "tcp", addr)
			return &heldConn{c, addr, r.hold}, err
		},
		Timeout: func() time.Duration { return time.Second },
		Logger:  zap.NewNop(),
	})
	t.Cleanup(func() {
		cancel()
		r.hold.release()
		r.sampler.Wait()
	})
	return r
}

func (r *rig) start(o localredis.Options) *localredis.Server {
	r.Helper()
	s, err := localredis.Start(context.Background(), o)
	if err != nil {
		r.Fatal(err)
	}
	r.Cleanup(s.Stop)
	return s
}

// pair starts a master and a replica and has them sampled.
func (r *rig) pair(args ...string) (m, s *localredis.Server) {
	r.Helper()
	m = r.start(localredis.Options{Args: args})
	s = r.start(localredis.Options{ReplicaOf: m})
	r.view(m, s)
	r.do(m, "SET", "k", "v")
	r.write()
	r.until("the replica in step", func() bool { return r.has(s) })
	return m, s
}

func (r *rig) node(s *localredis.Server) *topology.Node {
	n := r.nodes[s.Addr()]
	if n == nil {
		n = &topology.Node{Index: len(r.nodes), Addr: s.Addr()}
		r.nodes[s.Addr()] = n
	}
	return n
}

func (r *rig) view(master *localredis.Server, replicas ...*localredis.Server) {
	v := &topology.View{}
	if master != nil {
		v.Master = r.node(master)
	}
	for _, s := range replicas {
		v.Readable = append(v.Readable, r.node(s))
	}
	r.sampler.Update(v)
}

// write notes a write that has been acknowledged.
func (r *rig) write() { r.fences.Begin(0); r.fences.End(0) }

// has reports whether a read of what write wrote may go to s.
func (r *rig) has(s *localredis.Server) bool {
	epoch := r.sampler.Epoch()
	need, ok := r.fences.Need(0)
	return ok && r.sampler.HasApplied(r.node(s), need, epoch, 0)
}

func (r *rig) do(s *localredis.Server, words ...string) string {
	r.Helper()
	got, err := localredis.Do(s.Addr(), words...)
	if err != nil || strings.HasPrefix(got, "-") {
		r.Fatalf("%v: %q, %v", words, got, err)
	}
	return got
}

func (r *rig) until(what string, ok func() bool) {
	r.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			for addr, n := range r.nodes {
				r.sampler.mu.Lock()
				o, e, asked, _ := r.sampler.slot(n).load()
				r.sampler.mu.Unlock()
				info, _ := localredis.Do(addr, "INFO", "replication")
				r.Logf("%s: offset %d in epoch %d of %d, asked %v ago\n%s", addr, o, e, r.sampler.Epoch(), time.Duration(Clock()-asked), info)
			}
			r.Fatalf("waited in vain for %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestHasApplied(t *testing.T) {
	s := NewSampler(context.Background(), NewFences(), Config{})
	n := &topology.Node{}
	if s.HasApplied(n, 0, 0, -1) {
		t.Error("a node that was never asked")
	}
	s.epoch.Store(3)
	s.slot(n).store(100, 3, 50)
	for _, c := range []struct {
		need       repl.Offset
		epoch, now uint64
		since      int64
		want       bool
		what       string
	}{
		{100, 3, 3, 49, true, "all of it"},
		{101, 3, 3, 49, false, "not so far"},
		{100, 3, 3, 50, false, "asked before the connection stood"},
		{100, 3, 4, 49, false, "the history has changed since need was found"},
		{100, 4, 4, 49, false, "the replica told it in the old history"},
		{100, 2, 3, 49, false, "need is of an older history"},
	} {
		s.epoch.Store(c.now)
		if got := s.HasApplied(n, c.need, c.epoch, c.since); got != c.want {
			t.Errorf("%+v: %t", c, got)
		}
	}
}

func TestReplicaIsEligibleOnceItHasApplied(t *testing.T) {
	r := newRig(t)
	m, s := r.pair()
	for range 20 {
		if err := s.Signal(stopSignal); err != nil {
			t.Fatal(err)
		}
		r.do(m, "INCR", "n")
		r.write()
		if r.has(s) {
			t.Fatal("eligible though nothing has been sampled since the write")
		}
		g := r.fences.Current()
		r.until("a sample", func() bool { return r.fences.Sampled() >= g })
		if r.has(s) {
			t.Fatal("eligible though it has not applied the write")
		}
		if err := s.Signal(contSignal); err != nil {
			t.Fatal(err)
		}
		r.until("the replica's return", func() bool { return r.has(s) })
	}
}

// TestMasterRestarts: the numbers of the old history say nothing in the new one.
func TestMasterRestarts(t *testing.T) {
	r := newRig(t)
	m, s := r.pair()
	epoch := r.sampler.Epoch()
	need, _ := r.fences.Need(0)
	m.Kill()
	if !r.has(s) {
		t.Error("without its master the replica has not what it had")
	}
	if err := m.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.until("the new history", func() bool { return r.sampler.Epoch() > epoch })
	if r.sampler.HasApplied(r.node(s), need, epoch, 0) {
		t.Error("an offset of the old history is compared with the new one")
	}
	r.write()
	r.until("the replica's return", func() bool { return r.has(s) })
	if got := r.do(s, "DBSIZE"); got != ":0" {
		t.Errorf("eligible again with %s keys, the master has none", got)
	}
}

// TestMasterChangesItsHistory without losing its connections, as it does when
// its backlog expires.
func TestMasterChangesItsHistory(t *testing.T) {
	r := newRig(t)
	m, s := r.pair("--enable-debug-command", "local")
	epoch := r.sampler.Epoch()
	r.do(m, "DEBUG", "CHANGE-REPL-ID")
	r.until("the new history", func() bool { return r.sampler.Epoch() > epoch })
	r.write()
	g := r.fences.Current()
	r.until("a sample", func() bool { return r.fences.Sampled() >= g })
	if r.has(s) {
		t.Error("eligible, though its history is not the master's")
	}
	r.do(s, "CLIENT", "KILL", "TYPE", "master") // it learns of it as it connects again
	r.until("the replica's return", func() bool { return r.has(s) })
}

func TestReplicaMovesToAnotherMaster(t *testing.T) {
	r := newRig(t)
	_, s := r.pair()
	other := r.start(localredis.Options{})
	r.hold.back(s) // all of it happens between two samples
	r.do(s, "REPLICAOF", "127.0.0.1", portOf(other))
	r.until("the other history", func() bool { return strings.Contains(r.do(s, "INFO", "replication"), "master_link_status:up") })
	r.do(other, "SET", "pad", strings.Repeat("x", 4096)) // its offset is far above what is needed
	r.until("the other's writes", func() bool { return r.do(s, "EXISTS", "pad") == ":1" })
	r.hold.release()
	g := r.fences.Current()
	r.until("further samples", func() bool { r.write(); return r.fences.Sampled() > g+5 })
	r.never(s, "eligible, though it follows another master")
}

// never watches s for longer than its samples can be apart.
func (r *rig) never(s *localredis.Server, what string) {
	r.Helper()
	r.until("the end of what was sampled before", func() bool { return !r.has(s) })
	for end := time.Now().Add(3 * Idle); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if r.has(s) {
			r.Fatal(what)
		}
	}
}

func TestLinkDownKeepsWhatWasApplied(t *testing.T) {
	r := newRig(t)
	m, s := r.pair()
	r.do(s, "REPLICAOF", "127.0.0.1", "1") // nobody is there
	for end := time.Now().Add(5 * Idle); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if !r.has(s) {
			t.Fatal("what was applied is not there any more")
		}
	}
	asked := Clock()
	need, _ := r.fences.Need(0)
	r.until("a new sample", func() bool { return r.sampler.HasApplied(r.node(s), need, r.sampler.Epoch(), asked) })
	r.do(m, "SET", "k", "w")
	r.write()
	r.never(s, "eligible without the newest write")
	r.do(s, "REPLICAOF", "127.0.0.1", portOf(m))
	r.until("the replica's return", func() bool { return r.has(s) })
}

// TestFailedFullSync: a full sync that fails after the old data was dropped
// leaves a replica that serves nothing, with its link down.
func TestFailedFullSync(t *testing.T) {
	r := newRig(t)
	m, s := r.pair("--repl-backlog-size", "16384")
	r.hold.back(s) // all of it happens between two samples
	rdb := filepath.Join(s.Dir(), "dump.rdb")
	if err := os.RemoveAll(rdb); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(rdb, "in the way"), 0o700); err != nil {
		t.Fatal(err)
	}
	r.do(s, "REPLICAOF", "127.0.0.1", "1")
	r.do(m, "SET", "pad", strings.Repeat("x", 40_000)) // no partial resync is possible
	r.do(s, "REPLICAOF", "127.0.0.1", portOf(m))
	r.until("the loss of the old data", func() bool { return r.do(s, "DBSIZE") == ":0" })
	r.do(s, "REPLICAOF", "127.0.0.1", "1") // it does not try again
	r.hold.release()
	r.never(s, "eligible, though it has lost its data")
}

// TestAnswersAfterUpdateAreNotTaken: a task that has been ended may have an
// answer in its hands.
func TestAnswersAfterUpdateAreNotTaken(t *testing.T) {
	r := newRig(t)
	m, s := r.pair()
	ended := r.hold.ends()
	r.write()
	r.hold.back(m)
	sampled := r.fences.Sampled()
	r.view(nil, s)
	r.hold.release()
	r.until("the end of the master's task", func() bool { return r.hold.ends() == ended+1 })
	if got := r.fences.Sampled(); got != sampled {
		t.Errorf("generation %d was sampled by a task that had been ended at %d", got, sampled)
	}

	r.hold.back(s)
	r.view(nil)
	r.hold.release()
	r.until("the end of the replica's task", func() bool { return r.hold.ends() == ended+2 })
	if o, _, _, _ := r.slotOf(s).load(); o != repl.UnknownOffset {
		t.Errorf("offset %d was taken from a task that had been ended", o)
	}
}

func (r *rig) slotOf(s *localredis.Server) *Applied {
	r.sampler.mu.Lock()
	defer r.sampler.mu.Unlock()
	return r.sampler.slot(r.node(s))
}

func portOf(s *localredis.Server) string {
	_, port, _ := strings.Cut(s.Addr(), ":")
	return port
}
