package topology

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
)

// maxSentinels bounds how many sentinels are asked: those that are configured,
// and others that they name.
const maxSentinels = 16

// sentinelEvents are the events after which a sentinel has something new to say.
var sentinelEvents = []string{
	"+switch-master", "+promoted-slave", "+config-update-from", "+failover-end", "+slave", "+sentinel",
	"+sdown", "-sdown", "+odown", "-odown", "+reboot",
}

// sentinelWatcher asks one sentinel: one goroutine, and one more that listens
// to its events. An event only wakes it; what is true now it asks. So an event
// that was lost costs no more than the time to the next round.
type sentinelWatcher struct {
	cfg  *Config
	conn Config // how to connect to a sentinel
	dial dialFunc
	addr string
	sink chan<- *sentinelReport

	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned
}

func newSentinelWatcher(cfg *Config, dial dialFunc, addr string, sink chan<- *sentinelReport) *sentinelWatcher {
	return &sentinelWatcher{
		cfg: cfg, dial: dial, addr: addr, sink: sink, done: make(chan struct{}),
		conn: Config{
			User: cfg.Sentinel.User, Password: cfg.Sentinel.Password, TLS: cfg.Sentinel.TLS, OnError: cfg.OnError,
			ConnectTimeout: cfg.ConnectTimeout, live: cfg.live,
		},
	}
}

// stop ends the watcher and waits for it.
func (w *sentinelWatcher) stop() {
	w.cancel()
	<-w.done
}

// run asks until ctx is done, connecting again after a backoff where needed.
func (w *sentinelWatcher) run(ctx context.Context) {
	defer close(w.done)
	backoff := minBackoff
	for {
		answered, err := w.session(ctx)
		if ctx.Err() != nil {
			return
		}
		if answered {
			backoff = minBackoff
		}
		if !w.report(ctx, &sentinelReport{addr: w.addr, err: err}) || !wait(ctx, jitter(backoff)) {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// session connects and asks round after round until something fails.
func (w *sentinelWatcher) session(ctx context.Context) (answered bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	c, err := connect(ctx, &w.conn, w.dial, w.addr)
	if err != nil {
		cancel(nil)
		return false, err
	}
	defer c.close()
	wake := make(chan struct{}, 1)
	listened := make(chan struct{})
	go func() {
		defer close(listened)
		cancel(w.listen(ctx, wake))
	}()
	defer func() {
		cancel(nil)
		<-listened
	}()
	for {
		began := time.Now()
		r, err := w.round(ctx, c)
		if err != nil {
			return answered, err
		}
		answered = answered || r.err == nil
		if !w.report(ctx, r) || !wait(ctx, minRoundGap-time.Since(began)) {
			return answered, context.Cause(ctx)
		}
		select {
		case <-wake:
		case <-time.After(w.cfg.DiscoverEvery - time.Since(began)):
		case <-ctx.Done():
			return answered, context.Cause(ctx)
		}
	}
}

// round asks once. A report with an error is that of a sentinel that answers,
// but not what was asked.
func (w *sentinelWatcher) round(ctx context.Context, c *connection) (*sentinelReport, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.limits().HealthTimeout)
	defer cancel()
	name := w.cfg.Sentinel.Name
	replies, err := c.ask(ctx, []any{"SENTINEL", "MASTER", name},
		[]any{"SENTINEL", "GET-MASTER-ADDR-BY-NAME", name},
		[]any{"SENTINEL", "REPLICAS", name}, []any{"SENTINEL", "SENTINELS", name})
	if err != nil {
		return nil, fmt.Errorf("ask sentinel: %w", err)
	}
	r := &sentinelReport{addr: w.addr}
	if err := parseSentinel(r, name, replies); err != nil {
		return &sentinelReport{addr: w.addr, err: err}, nil
	}
	return r, nil
}

// listen subscribes to the events and wakes for each, until ctx is done or the
// connection is lost.
func (w *sentinelWatcher) listen(ctx context.Context, wake chan<- struct{}) error {
	limited, cancel := context.WithTimeout(ctx, w.conn.limits().ConnectTimeout)
	defer cancel()
	sock, err := w.dial(limited, w.addr)
	if err != nil {
		return err
	}
	stream, err := secure(limited, &w.conn, sock, w.addr)
	if err != nil {
		return err
	}
	c := newConnection(ctx, &w.conn, sock, stream, w.addr)
	defer c.close()
	sub := c.client.Subscribe(limited, sentinelEvents...)
	defer func() { _ = sub.Close() }()
	for {
		// No deadline: the rounds on the other connection notice a sentinel that
		// hangs, and this one's socket is closed with ctx.
		if _, err := sub.Receive(ctx); err != nil {
			return fmt.Errorf("listen to sentinel: %w", err)
		}
		select {
		case wake <- struct{}{}:
		default:
		}
	}
}

func (w *sentinelWatcher) report(ctx context.Context, r *sentinelReport) bool {
	select {
	case w.sink <- r:
		return true
	case <-ctx.Done():
		return false
	}
}

// Sentinels tells which sentinels are known and whether they answer; none where
// the topology does not go by Sentinel. Any goroutine may call it.
func (s *Static) Sentinels() []SentinelState {
	if p := s.sentinelStates.Load(); p != nil {
		return *p
	}
	return nil
}

// watchSentinel gives a sentinel that has none a watcher, up to the bound.
func (s *Static) watchSentinel(ctx context.Context, addr string) {
	if s.watchers[addr] != nil || len(s.watchers) >= maxSentinels {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	w := newSentinelWatcher(&s.cfg, s.dial, addr, s.reported)
	w.cancel = cancel
	s.watchers[addr] = w
	go w.run(ctx)
}

// watchOthers takes in the sentinels that another one knows. Where there are as
// many as may be, one that it reaches takes the place of one that does not answer
// us: their addresses change where they run in containers.
func (s *Static) watchOthers(ctx context.Context, others []otherSentinel) {
	for _, o := range others {
		if s.watchers[o.addr] == nil && len(s.watchers) >= maxSentinels && !o.down {
			if gone := s.sentinels.displaced(s.cfg.Sentinel.Addrs); gone != "" {
				s.dropSentinel(gone)
				s.cfg.Logger.Info("sentinel forgotten: it does not answer, and another one takes its place",
					zap.String("sentinel", gone), zap.String("other", o.addr))
			}
		}
		s.watchSentinel(ctx, o.addr)
	}
}

// dropSentinel stops a watcher and forgets what it has reported.
func (s *Static) dropSentinel(addr string) {
	s.watchers[addr].stop()
	delete(s.watchers, addr)
	delete(s.sentinels.reports, addr)
}

// heard takes a report of a sentinel.
func (s *Static) heard(ctx context.Context, r *sentinelReport) {
	was := s.sentinels.reports[r.addr]
	s.sentinels.reports[r.addr] = r
	s.watchOthers(ctx, r.others)
	old := s.sentinels.hint
	h := mergeReports(s.sentinels.reports, len(s.watchers), old, time.Now())
	s.sentinels.hint = h
	log, at := s.cfg.Logger, zap.String("sentinel", r.addr)
	switch {
	case r.err != nil && (was == nil || was.err == nil):
		log.Warn("sentinel does not answer, or not what is asked; the others go on, and ROLE decides all the same",
			at, zap.Error(r.err))
	case r.err == nil && was != nil && was.err != nil:
		log.Info("sentinel answers again", at)
	}
	if h.master != old.master {
		log.Info("sentinels name the master", zap.String("node", h.master), zap.Uint64("config_epoch", h.epoch), at)
	}
	for _, m := range s.tracker.obey(h, time.Now()) {
		m.node.askNow()
	}
	known := make([]string, 0, len(s.watchers))
	for addr := range s.watchers {
		known = append(known, addr)
	}
	states := s.sentinels.states(known)
	if p := s.sentinelStates.Load(); p == nil || !slices.EqualFunc(*p, states, func(a, b SentinelState) bool {
		return a.Addr == b.Addr && a.Up == b.Up && (a.Err == nil) == (b.Err == nil)
	}) {
		s.sentinelStates.Store(&states)
	}
}
