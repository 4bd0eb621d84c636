package causal

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/syncer/repl"
)

// Pace of the samples.
const (
	// Busy is the least time between two samples of a node.
	Busy = time.Millisecond
	// Lazy is the time between two samples of a master while something is
	// written and nobody reads it.
	Lazy = 10 * time.Millisecond
	// Idle is the time between two samples of a replica that is in step, and of
	// a master while nothing is written.
	Idle = 100 * time.Millisecond
	// recheckAfter is how often a master is asked for its replication id.
	recheckAfter = time.Second
	// unsureEvery is the least time between two samples of a replica that lags
	// behind nobody: its link is down, or its history is not the master's.
	unsureEvery = 10 * time.Millisecond
	// retryAfter is the rest after a failed connection.
	retryAfter = 100 * time.Millisecond
)

// Config configures a [Sampler].
type Config struct {
	// Dial connects to a node and authenticates.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Timeout bounds one question; a node that takes longer is asked again on a
	// new connection.
	Timeout func() time.Duration
	// OnSample, if set, is called after each sample, by the goroutine of its
	// node. It must not block.
	OnSample func()
	// Acked, if set, tells how many bytes the requests of all writes had that
	// have been acknowledged so far. Any goroutine calls it.
	Acked func() uint64
	// OnLost, if set, is called when a master turns out to lack what one before
	// it had; by the master's sampling goroutine.
	OnLost func(Lost)
	Logger *zap.Logger
}

// Sampler asks nodes for their offsets, each on a connection of its own.
type Sampler struct {
	cfg    Config
	fences *Fences

	// epoch counts the histories: it rises with each connection to a master.
	// What a replica applied is comparable within one epoch. Written under mu.
	epoch atomic.Uint64

	// mu is held where samples are recorded too: no answer to a question that a
	// task has put is taken once Update has ended the task.
	mu      sync.Mutex
	ended   uint64                     // Config.Acked as the master before was let go of; guarded by mu
	changed bool                       // ended is to be used; guarded by mu
	last    position                   // of the master's history in this epoch; guarded by mu
	tasks   map[*topology.Node]*task   // guarded by mu
	applied atomic.Pointer[[]*Applied] // by Node.Index; grown under mu
	wg      sync.WaitGroup
	ctx     context.Context
}

// task is the goroutine that samples one node.
type task struct {
	master bool
	cancel context.CancelFunc
}

// NewSampler returns a sampler that asks nobody until Update.
func NewSampler(ctx context.Context, f *Fences, cfg Config) *Sampler {
	if cfg.OnSample == nil {
		cfg.OnSample = func() {}
	}
	if cfg.Acked == nil {
		cfg.Acked = func() uint64 { return 0 }
	}
	if cfg.OnLost == nil {
		cfg.OnLost = func(Lost) {}
	}
	s := &Sampler{cfg: cfg, fences: f, ctx: ctx, tasks: make(map[*topology.Node]*task)}
	s.applied.Store(new([]*Applied))
	return s
}

// Update takes a new view: the nodes in it are sampled from now on, others no
// more. Nobody may have written to a new master yet, nor get replies of the old
// one any more. It must be called by one goroutine at a time and does not block.
func (s *Sampler) Update(v *topology.View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	want := make(map[*topology.Node]bool, len(v.Readable)+1) // value: as master
	for _, n := range v.Readable {
		want[n] = false
	}
	if v.Master != nil {
		want[v.Master] = true
	}
	for n, t := range s.tasks {
		if master, ok := want[n]; !ok || master != t.master {
			t.cancel()
			delete(s.tasks, n)
			s.slot(n).store(repl.UnknownOffset, 0, 0)
		}
	}
	for n, master := range want {
		if s.tasks[n] != nil {
			continue
		}
		if master { // its predecessor acknowledges no more, and it has not begun to
			s.ended, s.changed = s.cfg.Acked(), true
		}
		ctx, cancel := context.WithCancel(s.ctx)
		s.tasks[n] = &task{master, cancel}
		a := s.slot(n)
		s.wg.Go(func() {
			defer cancel()
			s.run(ctx, n, master, a)
		})
	}
}

// Wait waits for all goroutines; the context must be done.
func (s *Sampler) Wait() { s.wg.Wait() }

// slot returns the record of a node; under mu.
func (s *Sampler) slot(n *topology.Node) *Applied {
	list := *s.applied.Load()
	if n.Index < len(list) {
		return list[n.Index]
	}
	grown := append([]*Applied(nil), list...)
	for len(grown) <= n.Index {
		a := &Applied{kick: make(chan struct{}, 1)}
		a.store(repl.UnknownOffset, 0, 0)
		grown = append(grown, a)
	}
	s.applied.Store(&grown)
	return grown[n.Index]
}

// Epoch returns the number of the history that is current. It must be asked
// before [Fences.Need]: what that returns is a number in this history, or in a
// later one.
func (s *Sampler) Epoch() uint64 { return s.epoch.Load() }

// HasApplied reports whether the replica n, asked after the time since (of
// [Clock]), had applied need, a number in the history of epoch. It is false
// once that history is not current any more. Any goroutine may call it; it does
// not block.
func (s *Sampler) HasApplied(n *topology.Node, need repl.Offset, epoch uint64, since int64) bool {
	list := *s.applied.Load()
	if n.Index >= len(list) {
		return false
	}
	o, in, asked, ok := list[n.Index].load()
	// The current epoch last: then need was not taken from a later one.
	return ok && o >= need && in == epoch && asked > since && s.epoch.Load() == epoch
}

// Kick has n asked soon. Any goroutine may call it; it does not block.
func (s *Sampler) Kick(n *topology.Node) {
	if list := *s.applied.Load(); n.Index < len(list) {
		list[n.Index].wake()
	}
}

// start is the origin of Clock.
var start = time.Now()

// Clock returns nanoseconds of the process's monotonic clock.
func Clock() int64 { return int64(time.Since(start)) }

// run samples one node until ctx is done, connecting again where needed.
func (s *Sampler) run(ctx context.Context, n *topology.Node, master bool, a *Applied) {
	p := pace{time.NewTimer(0)}
	defer p.timer.Stop()
	for ctx.Err() == nil {
		err := s.session(ctx, n, master, a, p)
		s.publish(ctx, a, repl.UnknownOffset, 0, 0)
		if ctx.Err() != nil {
			return
		}
		s.cfg.Logger.Debug("sampling of node interrupted", zap.String("node", n.Addr), zap.Error(err))
		p.wait(ctx, nil, retryAfter)
	}
}

// session samples over one connection.
func (s *Sampler) session(ctx context.Context, n *topology.Node, master bool, a *Applied, p pace) error {
	nc, err := s.cfg.Dial(ctx, n.Addr)
	if err != nil {
		return err
	}
	defer func() { _ = nc.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = nc.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	c := &asker{conn: nc, timeout: s.cfg.Timeout}
	if master {
		return s.sampleMaster(ctx, c, n.Addr, p)
	}
	return s.sampleReplica(ctx, c, a, p)
}

// sampleMaster samples while something is written, and now and then.
func (s *Sampler) sampleMaster(ctx context.Context, c *asker, addr string, p pace) error {
	acked := s.cfg.Acked()
	h, err := c.lineage(addr)
	if err != nil {
		return err
	}
	if !s.begin(ctx, h, acked) {
		return ctx.Err()
	}
	id := h.id
	checked := time.Now()
	for ctx.Err() == nil {
		begin := time.Now()
		if begin.Sub(checked) >= recheckAfter {
			// A master without replicas takes a new id as its backlog expires.
			now, err := c.replID()
			if err != nil {
				return err
			}
			if now != id {
				return fmt.Errorf("%w: %s has become %s", errHistory, id, now)
			}
			checked = begin
		}
		g := s.fences.next()
		acked := s.cfg.Acked()
		o, err := c.masterOffset()
		if err != nil {
			return err
		}
		if !s.record(ctx, g, o, acked) {
			return ctx.Err()
		}
		s.kickReplicas()
		s.cfg.OnSample()
		p.wait(ctx, s.fences.wake, Idle)
		p.wait(ctx, s.fences.urgent, Lazy-time.Since(begin))
		p.wait(ctx, nil, Busy-time.Since(begin))
	}
	return ctx.Err()
}

// begin begins an epoch with the history h: whatever was acknowledged before
// is covered by its first sample, and no older number is compared with those of
// this master. What of the history before is not in it is lost.
func (s *Sampler) begin(ctx context.Context, h lineage, acked uint64) bool {
	s.mu.Lock()
	if ctx.Err() != nil {
		s.mu.Unlock()
		return false
	}
	if s.changed {
		acked, s.changed = s.ended, false
	}
	lost, some := s.last.loss(h, acked)
	if h.id != s.last.id { // else the last sample still is the best that is known
		s.last = position{lineage: h, at: h.offset, settled: h.offset, acked: acked}
	}
	s.fences.restart()
	s.epoch.Add(1)
	s.mu.Unlock()
	if some {
		s.cfg.OnLost(lost)
	}
	return true
}

// record takes the master's answer to a question that was put in generation g,
// when acked bytes of writes had been acknowledged.
func (s *Sampler) record(ctx context.Context, g Generation, o repl.Offset, acked uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		return false
	}
	if acked != s.last.acked {
		s.last.settled = o
	}
	s.last.at, s.last.acked = o, acked
	s.fences.set(g, o)
	return true
}

func (s *Sampler) kickReplicas() {
	for _, a := range *s.applied.Load() {
		a.wake()
	}
}

// errHistory says that a node's replication id is not what it has to be.
var errHistory = errors.New("replication id differs")

// pace waits between samples, of which there are a thousand in a second: it
// has one timer for all of them.
type pace struct{ timer *time.Timer }

// wait returns after d, at once on a wake, or when ctx is done.
func (p pace) wait(ctx context.Context, wake <-chan struct{}, d time.Duration) {
	if d <= 0 {
		return
	}
	p.timer.Reset(d) // drops what it has fired before
	select {
	case <-wake:
	case <-p.timer.C:
	case <-ctx.Done():
	}
}
