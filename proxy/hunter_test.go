package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/proxy"
)

// hunt is one run against one address.
type hunt struct {
	addr string // where it reads
	to   string // where it writes
	regs []*register
	stop chan struct{}
	wg   sync.WaitGroup

	reads, writes, stale, back, uncertain, failed atomic.Int64
	mu                                            sync.Mutex
	examples                                      []string
}

func newHunt(addr, to, prefix string, registers int) *hunt {
	h := &hunt{addr: addr, to: to, stop: make(chan struct{})}
	for i := range registers {
		h.regs = append(h.regs, &register{key: fmt.Sprintf("{%s}%d", prefix, i), shape: shape(i % int(shapes))})
	}
	return h
}

func (h *hunt) running() bool {
	select {
	case <-h.stop:
		return false
	default:
		return true
	}
}

func (h *hunt) note(count *atomic.Int64, format string, args ...any) {
	count.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.examples) < 10 {
		h.examples = append(h.examples, fmt.Sprintf(format, args...))
	}
}

// judge judges what a read returned.
func (h *hunt) judge(l glance, reply any) {
	g := l.g
	issued := g.issued.Load()
	v, err := g.version(reply, issued)
	if g.lost.Load() {
		return
	}
	h.reads.Add(1)
	switch {
	case err != nil:
		h.note(&h.failed, "read of %s: %v", g.key, err)
	case v > issued:
		h.note(&h.failed, "read of %s: version %d, issued are %d", g.key, v, issued)
	case v < l.acked:
		h.note(&h.stale, "stale: %s shows %d, %d was acknowledged", g.key, v, l.acked)
	case v < l.shown:
		h.note(&h.back, "went back: %s shows %d, %d was shown", g.key, v, l.shown)
	case reply == nil:
		raise(&g.shown, l.shown+l.shown&1) // of the versions it can stand for the oldest
	default:
		raise(&g.shown, v)
	}
}

// hunter is one goroutine: it writes on one connection and reads on others.
type hunter struct {
	*hunt
	rng  *rand.Rand
	w    *wire
	r    []*wire
	pool pools
}

// pools are ordinary clients.
type pools struct{ read, write *redis.Client }

func (h *hunt) start(hunters int, pool pools) error {
	for i := range hunters {
		one := &hunter{hunt: h, rng: rand.New(rand.NewPCG(uint64(i), 7)), pool: pool}
		var err error
		if one.w, err = dialWire(h.to); err != nil {
			return err
		}
		for range 3 {
			c, err := dialWire(h.addr)
			if err != nil {
				return err
			}
			one.r = append(one.r, c)
		}
		h.wg.Go(func() {
			defer one.close()
			if err := one.run(); err != nil {
				h.note(&h.failed, "connection lost: %v", err)
			}
		})
	}
	return nil
}

func (o *hunter) close() {
	_ = o.w.Close()
	for _, c := range o.r {
		_ = c.Close()
	}
}

// pick returns up to n registers, some much more often than others.
func (o *hunter) pick(n int, ok func(*register) bool) (list []*register) {
	for range n {
		k := o.rng.IntN(len(o.regs))
		if o.rng.IntN(3) == 0 {
			k %= 32
		}
		if g := o.regs[k]; ok(g) {
			list = append(list, g)
		}
	}
	return list
}

func (o *hunter) run() error {
	for o.running() {
		n := 1
		if o.rng.IntN(2) == 0 {
			n = 8
		}
		if o.rng.IntN(5) > 0 {
			if err := o.read(o.pick(n, func(g *register) bool { return !g.lost.Load() })); err != nil {
				return err
			}
			continue
		}
		list := o.pick(n, func(g *register) bool { return g.mu.TryLock() })
		err := o.write(list)
		for _, g := range list {
			g.mu.Unlock()
		}
		if err != nil {
			return err
		}
		if len(list) > 0 && o.rng.IntN(2) == 0 { // at once, on another connection
			if err := o.read(list[:1]); err != nil {
				return err
			}
		}
	}
	return nil
}

const evalOne = "return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))"

// write writes the next versions of registers that it holds the locks of.
func (o *hunter) write(list []*register) error {
	if len(list) == 0 {
		return nil
	}
	var cmds [][]string
	for _, g := range list {
		cmds = append(cmds, g.writeCommand(g.issued.Add(1)))
	}
	var replies []any
	var err error
	first := 0 // reply of the first write
	switch o.rng.IntN(5) {
	case 0: // a transaction in one piece
		replies, err = o.w.pipeline(append(append([][]string{{"MULTI"}}, cmds...), []string{"EXEC"})...)
		first = 1
	case 1: // one that arrives piece by piece
		for _, c := range append([][]string{{"MULTI"}}, cmds...) {
			if _, err = o.w.do(c...); err != nil {
				break
			}
		}
		if err == nil {
			var r any
			if r, err = o.w.do("EXEC"); err == nil {
				replies = r.([]any)
			}
		}
	case 2: // scripts that name their keys
		for i, c := range cmds {
			cmds[i] = append([]string{"EVAL", evalOne, "1", c[1], c[0]}, c[2:]...)
		}
		replies, err = o.w.pipeline(cmds...)
	case 3: // an ordinary client
		for _, c := range cmds {
			r, rerr := o.pool.write.Do(context.Background(), anys(c)...).Result()
			if rerr != nil && !errors.Is(rerr, redis.Nil) {
				r = replyError(rerr.Error())
			}
			replies = append(replies, r)
		}
	default:
		replies, err = o.w.pipeline(cmds...)
	}
	for i, g := range list {
		failure := err
		if e, bad := any(nil), false; err == nil {
			e = replies[first+i]
			if failure, bad = e.(replyError); !bad {
				failure = nil
			}
		}
		o.acknowledged(g, failure)
	}
	var e replyError
	if errors.As(err, &e) {
		return nil
	}
	return err
}

func anys(words []string) []any {
	list := make([]any, len(words))
	for i, w := range words {
		list[i] = w
	}
	return list
}

// acknowledged notes how the write of g's newest version ended.
func (o *hunter) acknowledged(g *register, err error) {
	v := g.issued.Load()
	if err == nil {
		raise(&g.acked, v)
		raise(&g.shown, v)
		o.writes.Add(1)
		return
	}
	g.lost.Store(true)
	if isUncertain(err) {
		o.uncertain.Add(1)
	} else {
		o.note(&o.failed, "write of %s: %v", g.key, err)
	}
}

// read reads registers at once, on a connection that writes nothing.
func (o *hunter) read(list []*register) error {
	if len(list) == 0 {
		return nil
	}
	var looks []glance
	var cmds [][]string
	mget := []string{"MGET"}
	for _, g := range list {
		looks = append(looks, g.glance())
		cmds = append(cmds, g.readCommand())
		if g.shape == asString || g.shape == asPresence {
			mget = append(mget, g.key)
		}
	}
	c := o.r[o.rng.IntN(len(o.r))]
	switch {
	case len(mget) > len(list):
		r, err := c.do(mget...)
		if err != nil {
			o.note(&o.failed, "MGET: %v", err)
			return nil
		}
		for i, v := range r.([]any) {
			o.judge(looks[i], v)
		}
	case len(list) == 1 && o.rng.IntN(4) == 0:
		r, err := o.pool.read.Do(context.Background(), anys(cmds[0])...).Result()
		if err != nil && !errors.Is(err, redis.Nil) {
			r = replyError(err.Error())
		}
		o.judge(looks[0], r)
	default:
		replies, err := c.pipeline(cmds...)
		if err != nil {
			return err
		}
		for i, v := range replies {
			o.judge(looks[i], v)
		}
	}
	return nil
}

// queues checks lists through blocking pops. It alone writes its list, so that
// every read must show exactly what it has done.
func (h *hunt) queues(key string) error {
	var c [3]*wire // pushes, pops, reads
	for i, addr := range []string{h.to, h.to, h.addr} {
		var err error
		if c[i], err = dialWire(addr); err != nil {
			return err
		}
	}
	length := func(want int64) error {
		n, err := c[2].do("LLEN", key)
		if h.reads.Add(1); err == nil && n != want {
			h.note(&h.stale, "stale: %s has %d elements, must have %d", key, n, want)
		}
		return err
	}
	round := func(v string) error {
		if err := c[1].post([]string{"BLPOP", key, "10"}); err != nil {
			return err
		}
		if _, err := c[0].do("RPUSH", key, v); err != nil {
			return err
		}
		if got, err := c[1].read(); err != nil || fmt.Sprint(got) != fmt.Sprint([]any{key, v}) {
			return fmt.Errorf("BLPOP: %v, %w", got, err)
		}
		if err := length(0); err != nil {
			return err
		}
		if _, err := c[0].do("RPUSH", key, v, v); err != nil {
			return err
		}
		if err := length(2); err != nil {
			return err
		}
		if _, err := c[1].do("BLPOP", key, "10"); err != nil {
			return err
		}
		if err := length(1); err != nil {
			return err
		}
		_, err := c[0].do("DEL", key)
		return errors.Join(err, length(0))
	}
	h.wg.Go(func() {
		for v := 0; h.running(); v++ {
			if err := round(strconv.Itoa(v)); err != nil {
				h.note(&h.failed, "queue %s: %v", key, err)
				break
			}
		}
		for _, w := range c {
			_ = w.Close()
		}
	})
	return nil
}

// until runs the hunt until enough is true.
func (h *hunt) until(t testing.TB, enough func() bool) {
	t.Helper()
	ordinary := func(addr string) *redis.Client {
		return redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, PoolSize: 20, ReadTimeout: 20 * time.Second, Protocol: 2})
	}
	pool := pools{ordinary(h.addr), ordinary(h.to)}
	defer func() { _, _ = pool.read.Close(), pool.write.Close() }()
	ctx := context.Background()
	for _, g := range h.regs {
		if g.shape == asExpiry { // there must be something to expire
			if err := pool.write.Set(ctx, g.key, "", 0).Err(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := h.start(16, pool); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		if err := h.queues("queue" + strconv.Itoa(i)); err != nil {
			t.Fatal(err)
		}
	}
	for deadline := time.Now().Add(10 * time.Minute); !enough() && h.failed.Load() < 10 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
	close(h.stop)
	h.wg.Wait()
}

// served returns the reads that replicas and master have answered.
func served(t testing.TB, reg *prometheus.Registry) (replicas, master float64) {
	t.Helper()
	all := metric(t, reg, "sluice_proxy_commands_total", "read")
	replicas = metric(t, reg, "sluice_proxy_commands_total", "read", "replica")
	return replicas, all - replicas
}

// foe is a cluster whose replicas lag and are hurt all the time, with a
// listener for each of the modes.
type foe struct {
	*cluster
	reg *prometheus.Registry
}

func newFoe(t testing.TB, modes ...proxy.Consistency) *foe {
	return newFoeOf(t, newDelayedCluster, modes...)
}

func newFoeOf(t testing.TB, start func(testing.TB, []delay, func(*proxy.Options)) *cluster, modes ...proxy.Consistency) *foe {
	f := &foe{reg: prometheus.NewRegistry()}
	f.cluster = start(t, []delay{{20 * time.Millisecond, 20 * time.Millisecond}, {10 * time.Millisecond, 0}}, func(o *proxy.Options) {
		o.Listeners = nil
		for _, m := range modes {
			o.Listeners = append(o.Listeners, proxy.Listener{Network: "tcp", Address: "127.0.0.1:0", Consistency: m})
		}
		o.IndexWait = 50 * time.Millisecond // the lag of these links, so that replicas have their share
		o.DiscoverEvery = 100 * time.Millisecond
		o.Registerer = f.reg
		o.Logger = nil
	})
	return f
}

// hunt reads at addr and writes at to until enough is true.
func (f *foe) hunt(t *testing.T, name, addr, to string, enough func(h *hunt, began time.Time) bool) *hunt {
	h := newHunt(addr, to, name, 2000)
	replicas, master := served(t, f.reg)
	began := time.Now()
	h.until(t, func() bool { return enough(h, began) })
	r, m := served(t, f.reg)
	r, m = r-replicas, m-master
	t.Logf("%s: %d reads in %.1f s (%.1f %% of them on replicas), %d writes, %d stale, %d went back, %d uncertain, %d failed",
		name, h.reads.Load(), time.Since(began).Seconds(), 100*r/(r+m), h.writes.Load(), h.stale.Load(), h.back.Load(), h.uncertain.Load(), h.failed.Load())
	if r == 0 {
		t.Errorf("%s: no read was answered by a replica", name)
	}
	return h
}

// longEnough ends the hunt of a mode that must hold: after two million judged
// reads with SLUICE_LONG=1, else after a few seconds.
func longEnough(h *hunt, began time.Time) bool {
	if os.Getenv("SLUICE_LONG") != "" {
		return h.reads.Load() >= 2_000_000
	}
	return time.Since(began) > 8*time.Second
}

// caught ends the hunt of a control.
func caught(h *hunt, began time.Time) bool {
	return h.stale.Load() >= 20 || time.Since(began) > 10*time.Second
}

// mustHold fails the test where a hunt found anything.
func (h *hunt) mustHold(t *testing.T) {
	t.Helper()
	if h.stale.Load() > 0 || h.back.Load() > 0 || h.failed.Load() > 0 {
		t.Errorf("found:\n%s", strings.Join(h.examples, "\n"))
	}
}

// mustFail fails the test where a control found nothing stale.
func (h *hunt) mustFail(t *testing.T) {
	t.Helper()
	if h.stale.Load() == 0 {
		t.Error("the control found nothing stale: this hunter proves nothing")
	}
	if h.failed.Load() > 0 {
		t.Errorf("failed:\n%s", strings.Join(h.examples, "\n"))
	}
}

// TestCausalReadsAreNeverStale hunts through a causal listener while replicas
// lag, freeze and resync, and then in the same way through an eventual one,
// which must find what there is to be found.
func TestCausalReadsAreNeverStale(t *testing.T) {
	c := newFoe(t, proxy.ConsistencyCausal, proxy.ConsistencyEventual)
	f := c.startFaults(t, 1)
	eventual := c.srv.Addrs()[1].String()
	c.hunt(t, "causal", c.addr, c.addr, longEnough).mustHold(t)
	c.hunt(t, "eventual", eventual, eventual, caught).mustFail(t)
	f.end(t)
}

// TestLinearizableReadsAreNeverStale is the same with writers that go to the
// master directly. The control is the causal listener, which knows nothing of
// them.
func TestLinearizableReadsAreNeverStale(t *testing.T) {
	c := newFoe(t, proxy.ConsistencyLinearizable, proxy.ConsistencyCausal)
	f := c.startFaults(t, 3)
	c.hunt(t, "linearizable", c.addr, c.master.Addr(), longEnough).mustHold(t)
	c.hunt(t, "causal", c.srv.Addrs()[1].String(), c.master.Addr(), caught).mustFail(t)
	f.end(t)
}
