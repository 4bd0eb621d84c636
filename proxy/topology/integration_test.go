package topology

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest"
	zaplog "go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/resp/localredis"
)

// patience bounds every wait; no test that passes comes near it.
const patience = 15 * time.Second

func startRedis(t *testing.T, o localredis.Options) *localredis.Server {
	t.Helper()
	s, err := localredis.Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func do(t *testing.T, s *localredis.Server, words ...string) string {
	t.Helper()
	reply, err := localredis.Do(s.Addr(), words...)
	if err != nil || strings.HasPrefix(reply, "-") {
		t.Fatalf("%s on %s: %q, %v", words, s.Addr(), reply, err)
	}
	return reply
}

// harness is a running Static and the Views that it published.
type harness struct {
	*Static
	t     *testing.T
	mu    sync.Mutex
	views []*View
	fresh chan struct{} // closed and replaced with each View
	logs  *zaplog.ObservedLogs
}

func run(t *testing.T, c Config) *harness {
	t.Helper()
	core, logs := zaplog.New(zapcore.InfoLevel)
	c.Logger = zaptest.NewLogger(t, zaptest.WrapOptions(zap.WrapCore(func(base zapcore.Core) zapcore.Core {
		return zapcore.NewTee(base, core)
	})))
	if c.ObserveEvery == 0 {
		c.ObserveEvery = 20 * time.Millisecond
	}
	if c.DiscoverEvery == 0 {
		c.DiscoverEvery = 200 * time.Millisecond
	}
	h := &harness{Static: NewStatic(c), t: t, fresh: make(chan struct{}), logs: logs}
	cancelSub := h.Subscribe(func(v *View) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.views = append(h.views, v)
		close(h.fresh)
		h.fresh = make(chan struct{})
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		began := time.Now()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if d := time.Since(began); d > 20*time.Second {
			t.Errorf("Run took %v to end", d)
		}
		cancelSub()
		h.mu.Lock()
		defer h.mu.Unlock()
		for i, v := range h.views {
			if want := h.views[0].Epoch + uint64(i); v.Epoch != want {
				t.Errorf("view %d has epoch %d, want %d: some View was skipped or repeated", i, v.Epoch, want)
			}
		}
	})
	return h
}

// until waits for the first View, from now on, that ok accepts.
func (h *harness) until(what string, ok func(*View) bool) *View {
	h.t.Helper()
	deadline := time.After(patience)
	for {
		h.mu.Lock()
		fresh := h.fresh
		h.mu.Unlock()
		if v := h.View(); ok(v) {
			return v
		}
		select {
		case <-fresh:
		case <-deadline:
			h.t.Fatalf("no View with %s; the last one: %s", what, show(h.View()))
		}
	}
}

// saw reports whether ok accepts any View so far.
func (h *harness) saw(ok func(*View) bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.views, ok)
}

// firstReadable returns the epoch of the first View with a node to read from.
func (h *harness) firstReadable() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range h.views {
		if len(v.Readable) > 0 {
			return v.Epoch
		}
	}
	return 0
}

// sampled waits until ok accepts the values that change without a new View.
func (h *harness) sampled(what string, ok func() bool) {
	h.t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			h.t.Fatalf("not seen: %s; %s", what, show(h.View()))
		}
	}
}

// shape waits for a View with this master and these readable replicas.
func (h *harness) shape(master *localredis.Server, readable ...*localredis.Server) *View {
	h.t.Helper()
	var want []string
	for _, s := range readable {
		want = append(want, s.Addr())
	}
	slices.Sort(want)
	return h.until(fmt.Sprintf("master %v, readable %v", addrOf(master), want), func(v *View) bool {
		var have []string
		for _, n := range v.Readable {
			have = append(have, n.Addr)
		}
		return (v.Master == nil) == (master == nil) && (master == nil || v.Master.Addr == master.Addr()) && slices.Equal(have, want)
	})
}

func addrOf(s *localredis.Server) string {
	if s == nil {
		return "none"
	}
	return s.Addr()
}

func (h *harness) node(v *View, addr string) NodeState {
	h.t.Helper()
	for _, s := range v.States {
		if s.Node.Addr == addr {
			return s
		}
	}
	h.t.Fatalf("node %s is not in %s", addr, show(v))
	return NodeState{}
}

func show(v *View) string {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d", v.Epoch)
	for _, s := range v.States {
		fmt.Fprintf(&b, "; %s %v up=%t reads=%t %q offset=%d", s.Node.Addr, s.Role, s.Up, s.Reads, s.Reason, s.Node.Offset())
	}
	return b.String()
}

func TestReplicasAreFoundAndFollowed(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r1 := startRedis(t, localredis.Options{ReplicaOf: m})
	r2 := startRedis(t, localredis.Options{ReplicaOf: m})
	// A busy machine must not look like a dead node.
	h := run(t, Config{Master: m.Addr(), ObserveEvery: 50 * time.Millisecond, HealthTimeout: 3 * time.Second})
	v := h.shape(m, r1, r2)
	if v.Nodes[0] != v.Master {
		t.Errorf("the master is not first in %s", show(v))
	}
	if n := v.Readable[0]; !n.Up() || n.Role() != RoleReplica || n.ReplID() != v.Master.ReplID() || n.SampledAt().IsZero() {
		t.Errorf("facts of %s: up=%t %v replid=%q sampled=%v", n.Addr, n.Up(), n.Role(), n.ReplID(), n.SampledAt())
	}
	if !strings.Contains(do(t, r1, "CLIENT", "LIST"), "name=sluice-observer") {
		t.Error("CLIENT LIST does not name the observer")
	}

	// Killed: out at the next sample at the latest.
	began := time.Now()
	node1 := h.node(v, r1.Addr()).Node
	r1.Kill()
	v = h.shape(m, r2)
	t.Logf("out after %v", time.Since(began))
	if s := h.node(v, r1.Addr()); s.Up || s.Reason != "down" || s.Node.Offset().IsKnown() {
		t.Errorf("killed replica: %s", show(v))
	}
	if err := r1.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	v = h.shape(m, r1, r2)
	if h.node(v, r1.Addr()).Node != node1 {
		t.Error("a replica that came back has another *Node")
	}

	// Stopped: it does not answer any more, which takes the deadline to tell.
	began = time.Now()
	if err := r2.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.shape(m, r1)
	t.Logf("out after %v", time.Since(began))
	if err := r2.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.shape(m, r1, r2)

	// One more, and one below it.
	r3 := startRedis(t, localredis.Options{ReplicaOf: m})
	h.shape(m, r1, r2, r3)
	r4 := startRedis(t, localredis.Options{ReplicaOf: r3})
	h.shape(m, r1, r2, r3, r4)

	for _, s := range []*localredis.Server{r1, r2} {
		for _, message := range []string{"node down", "node recovered"} {
			if n := h.logs.FilterMessage(message).FilterField(zap.String("node", s.Addr())).Len(); n != 1 {
				t.Errorf("%q was logged %d times for %s, want once", message, n, s.Addr())
			}
		}
	}
}

func TestMasterLostAndBack(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r := startRedis(t, localredis.Options{ReplicaOf: m})
	runs := make(chan MasterInfo, 10)
	h := run(t, Config{Master: m.Addr(), OnMaster: func(m MasterInfo) { runs <- m }})
	h.shape(m, r)
	info := <-runs
	if list, ok := info.Command.([]any); !ok || len(list) < 200 || info.Version == "" {
		t.Errorf("COMMAND gave %d entries, the version is %q", len(list), info.Version)
	}

	m.Kill()
	// The replica's link is down, but it is the best there is.
	v := h.shape(nil, r)
	if first := h.firstReadable(); h.saw(func(v *View) bool { return v.Epoch > first && len(v.Readable) == 0 }) {
		t.Error("for a while no node could be read")
	}
	if s := v.States[0]; s.Node.Addr != m.Addr() || s.Up {
		t.Errorf("the lost master is not first in %s", show(v))
	}
	h.sampled("the replica's link down", func() bool { return v.Readable[0].Up() && !v.Readable[0].Offset().IsKnown() })
	h.shape(nil, r)
	if err := m.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.shape(m, r)
	<-runs // a new run may know other commands
	if len(runs) != 0 {
		t.Errorf("%d more fetches of COMMAND than runs of a master", len(runs))
	}
}

// TestConnectionsThatAreKilled: the nodes are up, and nothing is lost but the
// connections; a master that is demoted by it is followed, though.
func TestConnectionsThatAreKilled(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r := startRedis(t, localredis.Options{ReplicaOf: m})
	h := run(t, Config{Master: m.Addr()})
	v := h.shape(m, r)
	for _, s := range []*localredis.Server{m, r} {
		node := h.node(v, s.Addr()).Node
		if n := do(t, s, "CLIENT", "KILL", "TYPE", "normal"); n == ":0\r\n" {
			t.Fatal("nothing was killed")
		}
		killed := time.Now()
		h.sampled(s.Addr()+" asked again", func() bool { return node.SampledAt().After(killed) })
	}
	if last := h.View(); last != v {
		t.Errorf("%s has become %s", show(v), show(last))
	}

	// As Sentinel does it with an old master.
	do(t, r, "REPLICAOF", "NO", "ONE")
	h.until("two masters", func(v *View) bool { return h.node(v, r.Addr()).Role == RoleMaster })
	do(t, m, "REPLICAOF", "127.0.0.1", strconv.Itoa(r.Port()))
	do(t, m, "CLIENT", "KILL", "TYPE", "normal")
	h.shape(r, m)
}

func TestManualFailover(t *testing.T) {
	for _, test := range []struct {
		name string
		kill bool // the old master is dead, not demoted
	}{{"old master demoted", false}, {"old master dead", true}} {
		t.Run(test.name, func(t *testing.T) {
			a := startRedis(t, localredis.Options{})
			b := startRedis(t, localredis.Options{ReplicaOf: a})
			c := startRedis(t, localredis.Options{ReplicaOf: a})
			h := run(t, Config{Master: a.Addr()})
			h.shape(a, b, c)
			if test.kill {
				a.Kill()
				h.shape(nil, b, c)
			}
			do(t, b, "REPLICAOF", "NO", "ONE")
			if !test.kill {
				// Two masters are visible: the current one keeps its office.
				v := h.until("b a master", func(v *View) bool { return h.node(v, b.Addr()).Role == RoleMaster })
				if v.Master == nil || v.Master.Addr != a.Addr() || h.node(v, b.Addr()).Reason != "not a replica of the master" {
					t.Errorf("with two masters: %s", show(v))
				}
				do(t, a, "REPLICAOF", "127.0.0.1", strconv.Itoa(b.Port()))
				h.ReportReadonly(v.Master)
			}
			do(t, c, "REPLICAOF", "127.0.0.1", strconv.Itoa(b.Port()))
			if test.kill {
				h.shape(b, c)
				return
			}
			h.shape(b, a, c)
		})
	}
}

func TestConfiguredAddressIsAReplica(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r := startRedis(t, localredis.Options{ReplicaOf: m})
	sub := startRedis(t, localredis.Options{ReplicaOf: r})
	h := run(t, Config{Master: sub.Addr()})
	h.shape(m, r, sub)
}

func TestSecondAddressOfOneServer(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r := startRedis(t, localredis.Options{ReplicaOf: m})
	byName := net.JoinHostPort("localhost", strconv.Itoa(r.Port()))
	h := run(t, Config{Master: m.Addr(), Replicas: []string{byName}})
	v := h.until("one readable replica", func(v *View) bool { return len(v.Readable) == 1 && len(v.Nodes) == 2 && v.Master != nil })
	if v.Readable[0].Addr != byName {
		t.Errorf("readable is %s, want the configured %s", v.Readable[0].Addr, byName)
	}
}

func TestReplicaOfAnotherMasterIsNotRead(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	other := startRedis(t, localredis.Options{})
	r := startRedis(t, localredis.Options{ReplicaOf: other})
	h := run(t, Config{Master: m.Addr(), Replicas: []string{r.Addr()}})
	h.until("the reason", func(v *View) bool {
		return v.Master != nil && h.node(v, r.Addr()).Reason == "not a replica of the master"
	})
	do(t, r, "REPLICAOF", "127.0.0.1", strconv.Itoa(m.Port()))
	h.shape(m, r)
}

func TestRefusals(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	secret := startRedis(t, localredis.Options{ReplicaOf: m, Args: []string{"--requirepass", "topsecret"}})
	mute := startRedis(t, localredis.Options{ReplicaOf: m})
	do(t, mute, "ACL", "SETUSER", "default", "-role")
	stale := startRedis(t, localredis.Options{ReplicaOf: m, Args: []string{"--replica-serve-stale-data", "no"}})
	h := run(t, Config{Master: m.Addr()})
	v := h.until("two nodes that refuse", func(v *View) bool {
		return len(v.Readable) == 1 && len(v.Nodes) == 4 && h.node(v, secret.Addr()).why == whyRefused && h.node(v, mute.Addr()).why == whyRefused
	})
	if got := h.node(v, secret.Addr()); !got.Up || !strings.HasPrefix(got.Reason, "refused: NOAUTH") {
		t.Errorf("with a password: %+v", got)
	}
	if got := h.node(v, mute.Addr()); !got.Up || !strings.HasPrefix(got.Reason, "refused: NOPERM") {
		t.Errorf("without +role: %+v", got)
	}
	m.Kill() // stale now answers -MASTERDOWN, so it cannot stand in
	v = h.until("MASTERDOWN", func(v *View) bool { return v.Master == nil && h.node(v, stale.Addr()).why == whyLink })
	if len(v.Readable) != 0 {
		t.Errorf("after the master's end: %s", show(v))
	}
}

func TestWrongPassword(t *testing.T) {
	m := startRedis(t, localredis.Options{Args: []string{"--requirepass", "right"}})
	h := run(t, Config{Master: m.Addr(), Password: "wrong"})
	v := h.until("an attempt", func(v *View) bool { return v.States[0].why != whyUntried })
	if v.Master != nil || v.States[0].Reason != "down" {
		t.Errorf("with a wrong password: %s", show(v))
	}
	logs := h.logs.FilterMessage("node down").All()
	if len(logs) != 1 || !strings.Contains(fmt.Sprint(logs[0].ContextMap()["error"]), "WRONGPASS") {
		t.Errorf("logged %v, want one line with WRONGPASS", logs)
	}
}

func TestLagIsSeenAndLimited(t *testing.T) {
	m := startRedis(t, localredis.Options{Args: []string{"--repl-ping-replica-period", "3600"}})
	l := newLink(t, m.Addr())
	r := startRedis(t, localredis.Options{})
	do(t, r, "REPLICAOF", "127.0.0.1", l.port())
	h := run(t, Config{Master: m.Addr(), MaxLagBytes: 2000, MaxLag: time.Minute})
	v := h.shape(m, r)
	n := v.Readable[0]
	h.sampled("no lag", func() bool { return n.LagBytes() == 0 && n.LagSeconds() == 0 })

	l.hold(true)
	do(t, m, "SET", "key", strings.Repeat("v", 1000))
	h.sampled("a lag within the limit", func() bool { return n.LagBytes() >= 1000 && n.LagSeconds() > 0.2 })
	if v := h.View(); len(v.Readable) != 1 {
		t.Errorf("half of the limit behind: %s", show(v))
	}
	do(t, m, "SET", "key", strings.Repeat("v", 1500))
	v = h.shape(m)
	if s := h.node(v, r.Addr()); !s.Up || s.why != whyLagBytes {
		t.Errorf("too far behind: %s", show(v))
	}
	if n.LagSeconds() < 0.2 {
		t.Errorf("lag %v s: the clock did not start at the first write", n.LagSeconds())
	}
	l.hold(false)
	h.shape(m, r)
	h.sampled("no lag again", func() bool { return n.LagBytes() == 0 && n.LagSeconds() == 0 })
}

func TestLagInTimeIsLimited(t *testing.T) {
	m := startRedis(t, localredis.Options{Args: []string{"--repl-ping-replica-period", "3600"}})
	l := newLink(t, m.Addr())
	r := startRedis(t, localredis.Options{})
	do(t, r, "REPLICAOF", "127.0.0.1", l.port())
	h := run(t, Config{Master: m.Addr(), MaxLag: 200 * time.Millisecond})
	h.shape(m, r)
	l.hold(true)
	do(t, m, "INCR", "key")
	v := h.shape(m)
	if s := h.node(v, r.Addr()); s.why != whyLagTime || s.Node.LagSeconds() <= 0.2 {
		t.Errorf("too long behind: %s", show(v))
	}
	l.hold(false)
	h.shape(m, r)
}

func TestLoadingAndSync(t *testing.T) {
	slow := []string{"--loading-process-events-interval-bytes", "1024", "--key-load-delay", "100", "--enable-debug-command", "local"}
	m := startRedis(t, localredis.Options{Args: slow})
	do(t, m, "DEBUG", "POPULATE", "5000", "key", "50")
	do(t, m, "SAVE")
	h := run(t, Config{Master: m.Addr(), DiscoverEvery: 20 * time.Millisecond})
	h.shape(m)
	r := startRedis(t, localredis.Options{ReplicaOf: m, Args: slow})
	h.shape(m, r)
	if !h.saw(func(v *View) bool { // while it receives, or while it loads what it received
		return slices.ContainsFunc(v.States, func(s NodeState) bool { return s.Up && (s.why == whySync || s.why == whyLoading) })
	}) {
		t.Error("the full synchronisation was not seen")
	}

	restarted := make(chan error, 1)
	m.Kill()
	go func() { restarted <- m.Restart(context.Background()) }()
	v := h.until("the master loading", func(v *View) bool { return v.States[0].Reason == "loading" })
	if v.Master != nil || !v.States[0].Up {
		t.Errorf("a master that loads: %s", show(v))
	}
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	h.shape(m, r)
}

func TestForgottenAndFoundAgain(t *testing.T) {
	m := startRedis(t, localredis.Options{})
	r := startRedis(t, localredis.Options{ReplicaOf: m})
	h := run(t, Config{Master: m.Addr(), ForgetAfter: 500 * time.Millisecond})
	node := h.shape(m, r).Readable[0]
	r.Kill()
	killed := time.Now()
	h.until("no replica", func(v *View) bool { return len(v.Nodes) == 1 })
	if took := time.Since(killed); took < 500*time.Millisecond {
		t.Errorf("forgotten after %v already", took)
	}
	if err := r.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if v := h.shape(m, r); v.Readable[0] != node {
		t.Error("the same address has another *Node")
	}
}

func TestRunRefusesWhatItCannotUse(t *testing.T) {
	for _, c := range []Config{{}, {Master: "::1:6379"}, {Master: "127.0.0.1:6379", Replicas: []string{"x"}}} {
		if err := NewStatic(c).Run(t.Context()); err == nil {
			t.Errorf("Run of %+v gave no error", c)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s := NewStatic(Config{Master: "127.0.0.1:1"})
	if v := s.View(); v == nil || len(v.Nodes) != 1 || v.Master != nil || v.States[0].Reason != "not asked yet" {
		t.Errorf("before Run: %+v", v)
	}
	if err := s.Run(ctx); err != nil {
		t.Errorf("Run that is cancelled: %v", err)
	}
	if err := s.Run(ctx); err == nil {
		t.Error("Run ran twice")
	}
}

// TestSetLimits: what was far behind is read under a higher limit, and is not
// under a lower one.
func TestSetLimits(t *testing.T) {
	m := startRedis(t, localredis.Options{Args: []string{"--repl-ping-replica-period", "3600"}})
	l := newLink(t, m.Addr())
	r := startRedis(t, localredis.Options{})
	do(t, r, "REPLICAOF", "127.0.0.1", l.port())
	h := run(t, Config{Master: m.Addr(), MaxLagBytes: 1 << 20, MaxLag: time.Hour})
	h.shape(m, r)
	l.hold(true)
	do(t, m, "SET", "key", strings.Repeat("v", 5000))
	n := h.View().Readable[0]
	h.sampled("a lag within the limit", func() bool { return n.LagBytes() >= 5000 })
	limits := Limits{HealthTimeout: time.Minute, ConnectTimeout: time.Minute, MaxLagBytes: 2000, MaxLag: time.Hour}
	h.SetLimits(limits)
	v := h.shape(m)
	if s := h.node(v, r.Addr()); s.why != whyLagBytes {
		t.Errorf("behind a lower limit: %s", show(v))
	}
	limits.MaxLagBytes = 1 << 20
	h.SetLimits(limits)
	h.shape(m, r)
	limits.MaxLag = time.Millisecond
	h.SetLimits(limits)
	v = h.shape(m)
	if s := h.node(v, r.Addr()); s.why != whyLagTime {
		t.Errorf("behind a shorter limit: %s", show(v))
	}
	l.hold(false)
	h.shape(m, r)
}
