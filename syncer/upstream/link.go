package upstream

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// maxHops is how many replicas of replicas are followed to find the master.
const maxHops = 4

// Link is the link to the master. It is the writer of its store; its methods may
// be called by any goroutine, Start and Close by one.
type Link struct {
	st   *store.Store
	opt  Options
	log  *zap.Logger
	m    *machine
	ring *ring

	bases    *baser
	replicas Replicas // those behind us; nil: none are served
	counters counters
	metrics  *metrics

	ctx      context.Context
	cancel   context.CancelCauseFunc
	wg       sync.WaitGroup
	received atomic.Int64 // offset of the last byte in memory
	reached  atomic.Int64 // offset that the master had reached when the link attached, -1 if it would not tell
	acked    atomic.Int64

	startOver bool // the head cannot go on; only the run goroutine and its writer use it

	mu     sync.Mutex
	master string                  // as configured
	found  string                  // where following master led to; empty: master
	drop   context.CancelCauseFunc // of the session under way; nil: none
	poked  chan struct{}           // capacity 1: ends a pause
}

// New returns a link that keeps st up to date with a master. It does no I/O. The
// store must stay open until Close has returned.
func New(st *store.Store, o Options) (*Link, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	l := &Link{
		st: st, opt: o, log: o.Logger.Named("relay"), master: o.Master,
		ring: newRing(o.BufferBytes), poked: make(chan struct{}, 1),
	}
	l.m = newMachine(l.log, o.Journal)
	l.bases = newBaser(l)
	l.ctx, l.cancel = context.WithCancelCause(context.Background())
	l.metrics = newMetrics(l)
	if g := st.Head(); g != nil {
		l.received.Store(int64(g.Committed()))
	}
	if o.Registerer != nil {
		if err := o.Registerer.Register(l.metrics); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// note remembers what happened for people.
func (l *Link) note(kind journal.Kind, text string) {
	l.opt.Journal.Add(time.Now(), kind, l.target(), text)
}

// SetReplicas says who the replicas behind the relay are: for [AckDownstream], and
// because they can give bases. It must be called before Start.
func (l *Link) SetReplicas(r Replicas) { l.replicas = r }

// RefreshBase has a new base taken as soon as somebody can give one, for instance
// because the newest one was found damaged.
func (l *Link) RefreshBase() {
	l.bases.wanted.Store(true)
	l.bases.kick()
}

// Start begins. It does not wait for the master; see [Link.Wait].
func (l *Link) Start() {
	l.wg.Go(l.run)
	l.wg.Go(l.bases.run)
}

// Close ends the link, writes to the store what was committed in memory, and
// waits for both. A second call does nothing.
func (l *Link) Close() {
	l.cancel(ErrClosed)
	l.wg.Wait()
	if l.opt.Registerer != nil {
		l.opt.Registerer.Unregister(l.metrics)
	}
}

// SetMaster goes over to another master, HOST:PORT, for instance after a
// failover: the link is dropped and resumed there.
func (l *Link) SetMaster(addr string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if addr == l.master {
		return
	}
	l.log.Info("another master was set", zap.String("from", l.master), zap.String("to", addr))
	l.master, l.found = addr, ""
	if l.drop != nil {
		l.drop(errRepointed)
	}
	select {
	case l.poked <- struct{}{}:
	default:
	}
}

// Wait waits until the link is in state s. The error is the context's cause.
func (l *Link) Wait(ctx context.Context, s LinkState) error {
	for {
		state, _, _, _, changed := l.m.get()
		if state == s {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Status is what there is to know about a link.
type Status struct {
	State  string    `json:"state"`
	Since  time.Time `json:"since"`
	Master string    `json:"master"`          // HOST:PORT that it is with, or was last
	Error  string    `json:"error,omitempty"` // why it is down

	Received  repl.Offset `json:"received"`  // of the last byte in memory
	Reached   repl.Offset `json:"reached"`   // that the master is known to have reached: what is received, or more that is on its way
	Committed repl.Offset `json:"committed"` // of the last commit in the store; -1 in an empty one
	Fsynced   repl.Offset `json:"fsynced"`   // durable up to it; -1 in an empty store
	Acked     repl.Offset `json:"acked"`     // as last told to the master
	Buffered  int         `json:"buffered"`  // bytes in memory that are not in the store yet

	BaseError string `json:"base_error,omitempty"` // why the last attempt to take a base failed
}

// State returns the state now.
func (l *Link) State() LinkState {
	s, _, _, _, _ := l.m.get()
	return s
}

// Status returns what there is to know now.
func (l *Link) Status() Status {
	state, since, master, lastErr, _ := l.m.get()
	s := Status{
		State: state.String(), Since: since, Master: master, Error: lastErr,
		Received: repl.Offset(l.received.Load()), Reached: repl.Offset(max(l.reached.Load(), l.received.Load())), Acked: repl.Offset(l.acked.Load()), Buffered: l.ring.len(),
		Committed: repl.UnknownOffset, Fsynced: repl.UnknownOffset, BaseError: l.bases.lastError(),
	}
	if g := l.st.Head(); g != nil {
		s.Committed, s.Fsynced = g.Committed(), g.Fsynced()
	}
	return s
}

// target returns who to connect to.
func (l *Link) target() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found != "" {
		return l.found
	}
	return l.master
}

// run keeps the link up until the link is closed.
func (l *Link) run() {
	defer l.m.BecomeIdle()
	pause, hops := l.opt.BackoffMin, 0
	l.awaitMaster()
	for l.ctx.Err() == nil {
		up, err := l.attempt()
		if l.ctx.Err() != nil {
			return
		}
		var follow followError
		switch {
		case errors.As(err, &follow) && hops < maxHops:
			hops++
			l.setFound(follow.from, follow.to)
			continue
		case errors.Is(err, errRepointed):
			pause, hops = l.opt.BackoffMin, 0
			continue
		}
		l.setFound(l.target(), "") // whoever is the master now, the configured node may know
		hops = 0
		if up >= l.opt.BackoffMax {
			pause = l.opt.BackoffMin
		}
		l.sleep(pause)
		pause = min(2*pause, l.opt.BackoffMax)
	}
}

// awaitMaster waits until SetMaster was called, where no master is configured.
func (l *Link) awaitMaster() {
	if l.target() == "" {
		l.log.Info("waiting to be told who the master is")
	}
	for l.target() == "" && l.ctx.Err() == nil {
		select {
		case <-l.poked:
		case <-l.ctx.Done():
		}
	}
}

// setFound notes where following led to, unless another master was set.
func (l *Link) setFound(from, to string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if from == l.master || from == l.found {
		l.found = to
	}
}

// sleep pauses, with jitter so that relays do not all come at once, until the
// time is over, another master is set, or the link is closed.
func (l *Link) sleep(d time.Duration) {
	t := time.NewTimer(d/2 + rand.N(d/2+1))
	defer t.Stop()
	select {
	case <-t.C:
	case <-l.poked:
	case <-l.ctx.Done():
	}
}

// attempt connects, attaches and streams. It returns for how long the stream
// came, and why it ended; the state is StateBackoff then.
func (l *Link) attempt() (up time.Duration, err error) {
	ctx, cancel := context.WithCancelCause(l.ctx)
	defer cancel(nil)
	l.mu.Lock()
	l.drop = cancel
	l.mu.Unlock()
	select {
	case <-l.poked: // target is read below
	default:
	}
	defer func() {
		l.mu.Lock()
		l.drop = nil
		l.mu.Unlock()
		if cause := context.Cause(ctx); cause != nil && !errors.Is(err, ErrBufferFull) {
			err = cause // it closed the connection; what failed then says less
		}
		if l.State() != StateBackoff {
			l.m.BecomeBackoff(err)
		}
	}()
	master := l.target()
	l.m.BecomeConnect(master)
	l.counters.attempts.Add(1)
	p, err := l.dial(ctx, master)
	if err != nil {
		return 0, err
	}
	defer p.close()
	l.m.BecomeHandshake()
	if err := l.greet(p, false); err != nil {
		return 0, err
	}
	l.m.BecomeAttach()
	at, err := l.attach(ctx, p)
	if err != nil {
		return 0, err
	}
	l.m.BecomeConnected(at.start.Offset)
	begin := time.Now()
	err = l.stream(ctx, p, at)
	return time.Since(begin), err
}
