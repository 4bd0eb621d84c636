package topology

import (
	"context"
	"fmt"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
)

const sentinelName = "mymaster"

// startSentinels starts n sentinels of m and waits until they know each other
// and its replicas.
func startSentinels(t *testing.T, m *localredis.Server, n int, config ...string) []*localredis.Server {
	t.Helper()
	var list []*localredis.Server
	for range n {
		s, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
			Name: sentinelName, Master: m, Quorum: n/2 + 1, Config: config,
			DownAfter: 500 * time.Millisecond, FailoverTimeout: 5 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		list = append(list, s)
	}
	return list
}

// addrs are their addresses.
func addrs(list []*localredis.Server) (out []string) {
	for _, s := range list {
		out = append(out, s.Addr())
	}
	return out
}

// agree waits until all the sentinels that are up know each other, so that they
// can elect one that leads a failover.
func (h *harness) agree(up []*localredis.Server, replicas int) {
	h.t.Helper()
	h.sampled("sentinels that know each other and the replicas", func() bool {
		for _, s := range up {
			c, err := connect(h.t.Context(), &h.cfg, dialTCP, s.Addr())
			if err != nil {
				return false
			}
			replies, err := c.ask(h.t.Context(), []any{"SENTINEL", "MASTER", sentinelName})
			c.close()
			if err != nil {
				return false
			}
			f := fields(replies[0].value)
			if f["flags"] != "master" || f["num-slaves"] != itoa(replicas) || f["num-other-sentinels"] != itoa(len(up)-1) {
				return false
			}
		}
		return true
	})
}

func TestSentinelFailover(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r1 := startRedis(t, localredis.Options{ReplicaOf: m})
	r2 := startRedis(t, localredis.Options{ReplicaOf: m})
	list := startSentinels(t, m, 3)
	// One sentinel is enough to know: it names the others. One that is not
	// there does no harm.
	gone, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	h := run(t, Config{Sentinel: SentinelConfig{Name: sentinelName, Addrs: []string{"127.0.0.1:" + itoa(gone), list[0].Addr()}}})
	h.shape(m, r1, r2)
	h.agree(list, 2)
	h.sampled("all sentinels", func() bool {
		up := 0
		for _, s := range h.Sentinels() {
			if s.Up {
				up++
			}
		}
		return up == 3 && len(h.Sentinels()) == 4
	})

	m.Kill()
	h.until("a new master", func(v *View) bool { return v.Master != nil && v.Master.Addr != m.Addr() })
	// On a busy machine that one may look dead for half a second too, and
	// Sentinel replace it, even by the old master. There shall be one failover.
	for _, s := range list {
		do(t, s, "SENTINEL", "SET", sentinelName, "down-after-milliseconds", "60000")
	}
	h.agree(list, 2)
	var v *View
	h.sampled("the master that all sentinels name", func() bool {
		v = h.View()
		return v.Master != nil && h.named(list, v.Master.Addr)
	})
	other := r1
	if v.Master.Addr == r1.Addr() {
		other = r2
	}
	first := v.Master.Addr
	h.until("the other replica", func(v *View) bool { return len(v.Readable) == 1 && v.Readable[0].Addr == other.Addr() })

	// The old master comes back and says that it is master; for some seconds,
	// until Sentinel tells it otherwise, it is one. It must not be taken for ours.
	if err := m.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	h.foreign(m)
	h.until("the old master's return as a replica", func(v *View) bool { return len(v.Readable) == 2 })
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, later := range h.views[slices.Index(h.views, v):] {
		if later.Master != nil && later.Master.Addr != first {
			t.Errorf("%s was taken for the master after %s; the old one is %s", later.Master.Addr, first, m.Addr())
		}
	}
}

// named reports whether all the sentinels name addr as the master.
func (h *harness) named(list []*localredis.Server, addr string) bool {
	for _, s := range list {
		c, err := connect(h.t.Context(), &h.cfg, dialTCP, s.Addr())
		if err != nil {
			return false
		}
		replies, err := c.ask(h.t.Context(), []any{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", sentinelName})
		c.close()
		if err != nil {
			return false
		}
		pair, _ := replies[0].value.([]any)
		if len(pair) != 2 || net.JoinHostPort(fmt.Sprint(pair[0]), fmt.Sprint(pair[1])) != addr {
			return false
		}
	}
	return true
}

// foreign waits until s, which says that it is a master, has been asked some
// more times without being taken for ours, and then makes it a replica of the
// master, as Sentinel would some ten seconds later.
func (h *harness) foreign(s *localredis.Server) {
	h.t.Helper()
	v := h.until("another master that is not ours", func(v *View) bool {
		i := slices.IndexFunc(v.States, func(st NodeState) bool { return st.Node.Addr == s.Addr() })
		return i >= 0 && v.States[i].Up && v.States[i].Role == RoleMaster && v.Master != nil && v.Master.Addr != s.Addr()
	})
	n := h.node(v, s.Addr()).Node
	for range 3 {
		last := n.SampledAt()
		h.sampled("another sample of it", func() bool { return n.SampledAt().After(last) })
	}
	_, port, _ := net.SplitHostPort(v.Master.Addr)
	do(h.t, s, "REPLICAOF", "127.0.0.1", port)
}

// TestSentinelDeposesALivingMaster has Sentinel switch while the old master is
// alive and goes on saying that it is master.
func TestSentinelDeposesALivingMaster(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r := startRedis(t, localredis.Options{ReplicaOf: m})
	list := startSentinels(t, m, 1)
	h := run(t, Config{Sentinel: SentinelConfig{Name: sentinelName, Addrs: addrs(list)}})
	h.shape(m, r)
	h.agree(list, 1)
	do(t, list[0], "SENTINEL", "FAILOVER", sentinelName)
	v := h.until("the new master", func(v *View) bool { return v.Master != nil && v.Master.Addr == r.Addr() })
	h.foreign(m)
	h.shape(r, m)
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, later := range h.views[slices.Index(h.views, v):] {
		if later.Master != nil && later.Master.Addr == m.Addr() {
			t.Errorf("the deposed master is master again: %s", show(later))
		}
	}
}

// TestSentinelWithPassword logs in at the sentinel as a user of its own, and at
// the nodes with another password.
func TestSentinelWithPassword(t *testing.T) {
	m := startRedis(t, localredis.Options{Args: []string{"--requirepass", "nodes"}})
	list := startSentinels(t, m, 1, "sentinel auth-pass "+sentinelName+" nodes",
		"user default off", "user watcher on >sentinels +ping +sentinel +subscribe +client|setname &*")
	s := SentinelConfig{Name: sentinelName, Addrs: addrs(list), User: "watcher", Password: "sentinels"}
	h := run(t, Config{Password: "nodes", Sentinel: s})
	h.shape(m)

	s.Password = "nodes"
	wrong := run(t, Config{Password: "nodes", Sentinel: s})
	wrong.sampled("a refused login", func() bool {
		st := wrong.Sentinels()
		return len(st) == 1 && !st[0].Up && st[0].Err != nil
	})
	if v := wrong.View(); v.Master != nil {
		t.Errorf("master %s without a word of Sentinel", v.Master.Addr)
	}
}

func TestSentinelOfAnotherName(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	h := run(t, Config{Sentinel: SentinelConfig{Name: "other", Addrs: addrs(startSentinels(t, m, 1))}})
	h.sampled("a sentinel that does not know the name", func() bool {
		st := h.Sentinels()
		return len(st) == 1 && st[0].Err != nil
	})
	if n := h.logs.FilterMessageSnippet("sentinel does not answer").Len(); n != 1 {
		t.Errorf("said %d times, want once", n)
	}
}
