package topology

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Static is the topology that hangs on a configured master, or on one that
// Sentinel names: its replicas are found by INFO and added to the configured
// ones, and whoever becomes master among them is followed.
type Static struct {
	cfg     Config
	dial    dialFunc
	view    atomic.Pointer[View]
	started atomic.Bool
	wake    chan struct{} // a subscriber is waiting; capacity 1

	mu          sync.Mutex
	subscribers []*subscriber // guarded by mu

	// Owned by Run.
	tracker   *tracker
	observers map[*member]*observer
	observed  chan observation // from all observers
	table     tableFetch
	lostAt    time.Time // when the master was lost; zero while there is one

	sentinelStates atomic.Pointer[[]SentinelState]

	// Owned by Run, and empty without Sentinel.
	sentinels sentinels
	watchers  map[string]*sentinelWatcher
	reported  chan *sentinelReport // from all watchers
}

type subscriber struct {
	fn     func(*View)
	seen   *View // the last one given to fn; owned by Run
	ceased atomic.Bool
}

// NewStatic makes a topology of the nodes that c names. It does no I/O.
func NewStatic(c Config) *Static {
	c.setDefaults()
	s := &Static{
		cfg:       c,
		dial:      dialTCP,
		wake:      make(chan struct{}, 1),
		observers: make(map[*member]*observer),
		observed:  make(chan observation),
		sentinels: sentinels{reports: make(map[string]*sentinelReport)},
		watchers:  make(map[string]*sentinelWatcher),
		reported:  make(chan *sentinelReport),
	}
	if c.OnConn != nil {
		s.dial = func(ctx context.Context, addr string) (net.Conn, error) {
			sock, err := dialTCP(ctx, addr)
			if err != nil {
				return nil, err
			}
			return c.OnConn(addr, sock), nil
		}
	}
	s.table.done = make(chan tableResult, 1)
	s.tracker = newTracker(&s.cfg)
	s.view.Store(s.tracker.view)
	return s
}

// View returns the current picture, never nil. Before Run it shows the
// configured nodes, not asked yet. Any goroutine may call it; it never blocks.
func (s *Static) View() *View { return s.view.Load() }

// SetLimits replaces the limits of the configuration; each holds from the next
// question to a node, or answer of one. Any goroutine may call it.
func (s *Static) SetLimits(l Limits) { s.cfg.live.Store(&l) }

// Subscribe has fn called with the current View and then with each new one, in
// order and without a gap, by Run's goroutine: fn must not block, and calls
// begin when Run runs. No call begins after cancel has returned, though one
// may still be under way. Any goroutine may call both.
func (s *Static) Subscribe(fn func(*View)) (cancel func()) {
	sub := &subscriber{fn: fn}
	s.mu.Lock()
	s.subscribers = append(s.subscribers, sub)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return func() {
		sub.ceased.Store(true)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.subscribers = slices.DeleteFunc(s.subscribers, func(x *subscriber) bool { return x == sub })
	}
}

// ReportFailure hints that a connection to n died: n is asked at once. Any
// goroutine may call it; it never blocks. A node that is down already is tried
// at the pace of its observer's backoff all the same.
func (s *Static) ReportFailure(n *Node) { n.askNow() }

// ReportReadonly hints that n answered a write with -READONLY: it and all the
// others are asked at once who is master. Any goroutine may call it; it never
// blocks.
func (s *Static) ReportReadonly(n *Node) {
	n.askNow()
	for _, other := range s.View().Nodes {
		other.askNow()
	}
}

// Run observes the nodes until ctx is done, then waits for all that it started
// and returns nil. An error says that the configuration is not usable, or that
// Run was called before.
func (s *Static) Run(ctx context.Context) error {
	if err := s.cfg.validate(); err != nil {
		return err
	}
	if !s.started.CompareAndSwap(false, true) {
		return errors.New("run topology: already run")
	}
	ctx, cancel := context.WithCancel(ctx)
	defer s.stopAll()
	defer cancel()
	expire := time.NewTicker(s.cfg.DiscoverEvery)
	defer expire.Stop()
	for _, addr := range s.cfg.Sentinel.Addrs {
		s.watchSentinel(ctx, addr)
	}
	for {
		s.startObservers(ctx)
		s.publish(s.tracker.refresh())
		s.fetchTable(ctx)
		select {
		case o := <-s.observed:
			for _, m := range s.tracker.observe(o) {
				m.node.askNow()
			}
			s.hurry(o)
		case r := <-s.reported:
			s.heard(ctx, r)
		case now := <-expire.C:
			s.drop(s.tracker.expire(now))
		case r := <-s.table.done:
			s.tableFetched(r)
		case <-s.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

// hurryFor is how long after the loss of a master the nodes are asked at the
// full pace of their observers.
const hurryFor = 30 * time.Second

// hurry has a node that answers asked again at once while there is no master:
// any of them may be promoted, and writes wait.
func (s *Static) hurry(o observation) {
	t := s.tracker
	switch {
	case t.master == nil, t.master.serves():
		s.lostAt = time.Time{}
		return
	case s.lostAt.IsZero():
		s.lostAt = o.at
	}
	if m := t.byAddr[o.addr]; m != nil && o.err == nil && o.at.Sub(s.lostAt) < hurryFor {
		m.node.askNow()
	}
}

// startObservers gives each member that has none an observer.
func (s *Static) startObservers(ctx context.Context) {
	for _, m := range s.tracker.members {
		if s.observers[m] != nil {
			continue
		}
		ctx, cancel := context.WithCancel(ctx)
		o := &observer{
			cfg: &s.cfg, dial: s.dial, addr: m.node.Addr, askNow: m.node.ask, sink: s.observed,
			cancel: cancel, done: make(chan struct{}),
		}
		s.observers[m] = o
		go o.run(ctx)
		s.cfg.Logger.Info("node known", zap.String("node", m.node.Addr), zap.Bool("configured", m.named))
	}
}

// drop stops the observers of members that are no more.
func (s *Static) drop(members []*member) {
	for _, m := range members {
		s.observers[m].stop()
		delete(s.observers, m)
		s.cfg.Logger.Info("node forgotten: down, and in no INFO any more",
			zap.String("node", m.node.Addr), zap.Duration("after", s.cfg.ForgetAfter))
	}
}

func (s *Static) stopAll() {
	for _, o := range s.observers {
		o.cancel()
	}
	for _, w := range s.watchers {
		w.cancel()
	}
	for _, o := range s.observers {
		<-o.done
	}
	for _, w := range s.watchers {
		<-w.done
	}
	if s.table.running {
		<-s.table.done
	}
}

// publish shows v to everybody who has not seen it.
func (s *Static) publish(v *View) {
	if old := s.view.Load(); old != v {
		s.logChanges(old, v)
		s.view.Store(v)
	}
	s.mu.Lock()
	subs := slices.Clone(s.subscribers)
	s.mu.Unlock()
	for _, sub := range subs {
		if sub.seen != v && !sub.ceased.Load() {
			sub.seen = v
			sub.fn(v)
		}
	}
}

// logChanges says what became different, each thing once.
func (s *Static) logChanges(old, v *View) {
	log := s.cfg.Logger
	before := make(map[*Node]NodeState, len(old.States))
	for _, st := range old.States {
		before[st.Node] = st
	}
	for _, st := range v.States {
		was, node := before[st.Node], zap.String("node", st.Node.Addr)
		switch {
		case st.why == was.why && st.Up == was.Up:
		case st.why == whyDown:
			log.Warn("node down", node, zap.Stringer("role", st.Role), zap.Error(s.tracker.byAddr[st.Node.Addr].cause))
		case was.why == whyDown && st.Up:
			log.Info("node recovered", node, zap.Stringer("role", st.Role), zap.String("no_reads_because", st.Reason))
		case st.why == whyRefused:
			log.Error("node refuses to be observed and gets no reads; its user needs +ping +role +info",
				node, zap.String("reply", s.tracker.byAddr[st.Node.Addr].refusal))
		case st.Reads:
			log.Info("replica gets reads", node)
		case st.Reason != "":
			log.Info("node gets no reads", node, zap.Stringer("role", st.Role), zap.String("because", st.Reason))
		}
	}
	switch {
	case old.Master == v.Master:
	case v.Master == nil:
		log.Warn("master lost", zap.String("node", old.Master.Addr), zap.Uint64("epoch", v.Epoch))
	default:
		log.Info("master found", zap.String("node", v.Master.Addr), zap.Uint64("epoch", v.Epoch))
	}
}
