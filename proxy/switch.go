package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/backend"
)

// DefaultSwitchTimeout bounds a planned failover.
const DefaultSwitchTimeout = 10 * time.Second

// ErrSwitching says that a planned failover is under way already.
var ErrSwitching = errors.New("another planned failover is under way")

// SwitchRequest is a planned failover; see [Server.Failover].
type SwitchRequest struct {
	To       string            // HOST:PORT of the new master; "" for the replica that is furthest
	Timeout  time.Duration     // for all of it, and so for how long writes are held; 0 for DefaultSwitchTimeout
	Progress func(text string) // is told each step; nil for nobody
}

// Failover hands the master's role to a replica without an error at any client:
// it stops sending to the master, waits until all that is in flight there is
// answered, has Redis or Sentinel switch, and lets what was held go on at the
// new master, in its order. After an error, or when ctx is done, everything goes
// on at the old master, unless the error says otherwise. Any goroutine may call
// it; one failover runs at a time.
//
// Clients that depend on a connection of their own for longer than a transaction
// (a subscription, a blocking command, CLIENT TRACKING) are disconnected, as by
// any change of master.
func (s *Server) Failover(ctx context.Context, r SwitchRequest) error {
	if !s.switching.CompareAndSwap(false, true) {
		return ErrSwitching
	}
	defer s.switching.Store(false)
	if r.Timeout <= 0 {
		r.Timeout = DefaultSwitchTimeout
	}
	say := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		s.log.Info("planned failover: " + text)
		if r.Progress != nil {
			r.Progress(text)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, r.Timeout)
	defer cancel()
	sw, err := s.topo.PlanSwitch(ctx, r.To)
	if err != nil {
		return fmt.Errorf("plan the failover: %w", err)
	}
	to := sw.To
	if to == "" {
		to = "whom Sentinel chooses"
	}
	say("from %s to %s", sw.From, to)
	sw.Approach(ctx)
	say("writes are held from now on")
	began := time.Now()
	s.onWorkers(func(w *worker) { w.paused = true })
	defer func() {
		s.onWorkers((*worker).resume)
		s.losses.held(time.Since(began))
	}()
	if err := s.poll(ctx, (*worker).quiet); err != nil {
		return fmt.Errorf("wait for what is in flight at %s (a client with an open MULTI or WATCH, or a slow command?): %w; nothing was changed", sw.From, err)
	}
	say("nothing is in flight at %s after %v", sw.From, time.Since(began).Round(time.Millisecond))
	addr, err := sw.Run(ctx)
	if err != nil {
		return fmt.Errorf("switch: %w", err)
	}
	if err := s.poll(ctx, func(w *worker) bool { return w.view.Master != nil && w.view.Master.Addr == addr }); err != nil {
		s.log.Warn("planned failover: a loop is late to see the new master", zap.Error(err))
	}
	say("%s is master; writes were held for %v", addr, time.Since(began).Round(time.Millisecond))
	return nil
}

// onWorkers runs fn on each loop.
func (s *Server) onWorkers(fn func(*worker)) {
	for _, w := range s.workers {
		w.loop.Post(func() { fn(w) })
	}
}

// pollEvery is how often loops are asked whether something has come about.
const pollEvery = time.Millisecond

// poll waits until fn holds on every loop, all asked at about the same time.
func (s *Server) poll(ctx context.Context, fn func(*worker) bool) error {
	answers := make(chan bool, len(s.workers))
	for {
		asked, all := 0, true
		for _, w := range s.workers {
			if w.loop.Post(func() { answers <- fn(w) }) {
				asked++
			}
		}
		for range asked {
			select {
			case ok := <-answers:
				all = all && ok
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if all {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// quiet reports whether nothing is in flight at the master, and no transaction
// is open there.
func (w *worker) quiet() bool {
	busy := func(p *backend.Pipeline) bool { return p != nil && p.Master && p.InFlight() > 0 }
	for _, ln := range w.lanes {
		for i := range ln.byNode {
			nl := &ln.byNode[i]
			if busy(nl.write) || busy(nl.reads) || busy(nl.scripts) || busy(nl.control) {
				return false
			}
		}
	}
	for s := range w.sessions {
		if s.pin != nil && (s.inTransaction() || s.upload != nil || s.inFlight > 0 && s.pinning.blocking == 0) {
			return false
		}
		if slices.ContainsFunc(s.detached, func(d *detached) bool { return busy(d.p) && !d.settled() }) {
			return false
		}
	}
	return true
}

// inTransaction reports whether the session must go on for its transaction to
// end.
func (s *session) inTransaction() bool {
	return s.pinning.inMulti || s.pinning.watching || s.pinning.queues
}

// resume ends a planned failover on this loop.
func (w *worker) resume() {
	w.paused = false
	w.masterLost = 0
	w.releaseHeld()
}
