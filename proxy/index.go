package proxy

import (
	"sync/atomic"
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/syncer/repl"
)

// readIndex is what a session under linearizable consistency knows of the reads
// that it waits with: a generation that was current after they had arrived, so
// that its sample shows at least all that was acknowledged, by anybody, before.
type readIndex struct {
	gen     causal.Generation
	upTo    uint64 // position in the client's stream: the reads before it had arrived
	expires int64  // loop time at which the master is taken in place of a replica
}

// indexQueue holds the sessions of one loop that wait with reads for a sample,
// in the order in which they began to: neither their generations nor their
// times go down.
type indexQueue struct {
	list  []*session
	first int // of list; what lies before it is done with
	timer *eventloop.Timer

	// For the sampler's goroutines, which have the loop look at the queue.
	waiting atomic.Bool // somebody is in it
	told    atomic.Bool // the loop will look
	look    func()
}

// sampled is called by the sampler after each sample, of whatever node.
func (w *worker) sampled() {
	q := &w.indexed
	if q.waiting.Load() && q.told.CompareAndSwap(false, true) {
		w.loop.Post(q.look)
	}
}

// awaitIndex has the session wait for a sample that is asked for from now on,
// with the reads that have arrived.
func (s *session) awaitIndex() {
	w := s.w
	s.index = readIndex{
		gen:     w.fences.Current(),
		upTo:    s.arrived,
		expires: w.loop.Now() + int64(w.opt.IndexWait),
	}
	s.stall = stallIndex
	q := &w.indexed
	if len(q.list) == 0 {
		q.timer.Reset(w.opt.IndexWait)
	}
	q.list = append(q.list, s)
	q.waiting.Store(true)
	w.fences.Urge() // only now: the sample that it brings finds the loop waiting
}

// needOf returns what a replica must have applied to answer reads of index g;
// ok is false while that is not known.
func (w *worker) needOf(g causal.Generation) (need repl.Offset, ok bool) {
	w.epoch = w.sampler.Epoch()
	return w.fences.Offset(g)
}

// indexed returns the connection for a read under linearizable consistency.
// wait says that the read has to come again once the session's stall is over.
func (s *session) indexed(it *item) (p *backend.Pipeline, reason route.Reason, wait bool) {
	w := s.w
	if w.view.Master == nil || w.paused {
		return nil, route.ReasonNoReplica, false // held, as a read of the master
	}
	first := s.lanes.replica(s.policy)
	switch {
	case first != nil && first.Master: // an index at best shows what it has
		return first, route.ReasonNearest, false
	case !s.lanes.anyReady():
		return s.lanes.masterReads(), route.ReasonNoReplica, false
	case !s.covered(it):
		s.awaitIndex()
		return nil, 0, true
	}
	need, ok := w.needOf(s.index.gen)
	if ok {
		if p = s.replicaPast(first, need); p != nil {
			return p, w.readReason(p), false
		}
	}
	return s.lanes.masterReads(), route.ReasonIndexLate, false
}

// covered reports whether a command had arrived when the index was taken.
func (s *session) covered(it *item) bool { return s.pos+uint64(it.off+it.n) <= s.index.upTo }

// anyReady reports whether a replica's connection stands. One that does not is
// opened.
func (ln *lanes) anyReady() (ok bool) {
	for _, n := range ln.w.view.Readable {
		if p := ln.reads(n, false); p != nil {
			p.Open()
			ok = ok || p.State() == backend.Ready
		}
	}
	return ok
}

// goOn reports whether a waiting session need not wait any longer.
func (s *session) goOn(now int64) bool {
	if s.closed || s.stall != stallIndex || now >= s.index.expires || !s.lanes.anyReady() {
		return true
	}
	need, ok := s.w.needOf(s.index.gen)
	return ok && s.replicaPast(nil, need) != nil
}

// lookAtIndexed lets the sessions go on whose index has been sampled and is
// held by a replica, and those that have waited for long enough. Who came
// later needs no less, so the first that must wait ends the search.
func (w *worker) lookAtIndexed() {
	q := &w.indexed
	q.told.Store(false)
	now := w.loop.Now()
	for q.first < len(q.list) && q.list[q.first].goOn(now) {
		s := q.list[q.first]
		q.list[q.first] = nil
		q.first++
		if s.stall == stallIndex && !s.closed {
			s.stall, s.throttled = stallNone, false
			s.conn.Resume() // and not update, which in a drain would end it before these reads
		}
	}
	if q.first == len(q.list) {
		q.list, q.first = q.list[:0], 0
		q.waiting.Store(false)
		return
	}
	if q.first > len(q.list)/2 { // a queue that never runs empty must not grow for ever
		n := copy(q.list, q.list[q.first:])
		clear(q.list[n:])
		q.list, q.first = q.list[:n], 0
	}
	q.timer.Reset(time.Duration(q.list[q.first].index.expires - now))
}
