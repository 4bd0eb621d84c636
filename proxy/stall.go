package proxy

import (
	"errors"
	"math"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/topology"
)

// A replica that is stopped, or whose machine is, keeps its connections and
// answers nothing. Its observer takes HealthTimeout to say so; the reads in
// flight need not wait for that, since another node can answer them.
const (
	// stallAfter is for how long a replica may owe an answer at least.
	stallAfter = 150 * time.Millisecond
	// stallFactor is how much slower it may be than the slowest reply of late:
	// on a busy machine everything takes its time.
	stallFactor = 4
	// stallEvery is how often connections with reads in flight are looked at.
	stallEvery = 20 * time.Millisecond
)

// errStalled ends a connection to a replica that does not answer.
var errStalled = errors.New("replica owes answers for too long while other nodes answer")

// stallWatch looks for replicas that owe answers, as long as any has reads in
// flight. It is the worker's.
type stallWatch struct {
	timer *eventloop.Timer
	armed bool
	last  int64            // loop time of the last look
	slow  int64            // the slowest reply of a replica of late, in nanoseconds; decays
	found []*topology.Node // scratch
}

// arm begins to look, if it has ended.
func (w *worker) arm() {
	if !w.stalls.armed {
		w.stalls.armed, w.stalls.last = true, w.loop.Now()
		w.stalls.timer.Reset(stallEvery)
	}
}

// patience is for how long, in nanoseconds, a replica may owe an answer now.
func (sw *stallWatch) patience(most time.Duration) int64 {
	return min(max(int64(stallAfter), stallFactor*sw.slow), max(int64(stallAfter), int64(most)))
}

// lookForStalls takes the reads from replicas that owe answers.
func (w *worker) lookForStalls() {
	sw := &w.stalls
	now := w.loop.Now()
	// A loop that did not run has not heard the answers either.
	late := now-sw.last > 3*int64(stallEvery)
	sw.last = now
	sw.slow -= sw.slow / 32
	sw.found = sw.found[:0]
	busy := false
	patience := sw.patience(w.opt.HealthTimeout)
	w.eachReplica(func(p *backend.Pipeline) {
		r, since := p.Owes()
		if r == nil {
			return
		}
		busy = true
		if !late && now-since >= patience && !slices.Contains(sw.found, p.Node) && !moved(r) && w.stalled(p.Node, since, now-patience) {
			sw.found = append(sw.found, p.Node)
		}
	})
	for _, n := range sw.found {
		w.leave(n)
	}
	if sw.armed = busy; busy {
		sw.timer.Reset(stallEvery)
	}
}

// eachReplica calls fn with each shared connection to a replica.
func (w *worker) eachReplica(fn func(*backend.Pipeline)) {
	for _, ln := range w.lanes {
		for i := range ln.byNode {
			if p := ln.byNode[i].reads; p != nil && !p.Master {
				fn(p)
			}
		}
	}
}

// moved reports whether a request was taken from another replica for the same
// reason: it may be slow itself, and must not go from node to node.
func moved(r *backend.Request) bool {
	q, ok := r.Sink.(*request)
	return ok && q.moved
}

// stalled reports whether n, which has owed an answer since that loop time,
// has given none to its observer either, of a question put after due, while
// another node has answered something that was asked after since.
func (w *worker) stalled(n *topology.Node, since, due int64) bool {
	ago := time.Now().UnixNano() - w.loop.Now() // a loop's time on the wall clock
	asked := func(n *topology.Node) int64 {
		if t := n.SampledAt(); !t.IsZero() {
			return t.UnixNano() - ago
		}
		return math.MinInt64
	}
	if asked(n) >= due {
		return false
	}
	for _, st := range w.view.States {
		if st.Node != n && st.Up && asked(st.Node) > since {
			return true
		}
	}
	other := false
	w.eachReplica(func(p *backend.Pipeline) { other = other || p.Node != n && p.Answers > since })
	return other
}

// leave ends the connections to n that carry reads; they go to other nodes. n
// is read again when a new connection to it has been answered.
func (w *worker) leave(n *topology.Node) {
	w.srv.log.Warn("replica does not answer while other nodes do; its reads go elsewhere until it does", zap.String("node", n.Addr))
	w.stats.stalled(n)
	for _, ln := range w.lanes {
		ln.chosen = nil
	}
	w.eachReplica(func(p *backend.Pipeline) {
		if p.Node == n && p.State() < backend.Resting && p.State() != backend.Idle {
			p = spared(p)
			p.Fail(errStalled)
		}
	})
}

// spared returns the connection that is to be ended where p owes an answer: p,
// or, where a client has been given a part of the answer that no other node can
// go on with, the one that takes its place. A replica that copies a large value
// says nothing for a while.
func spared(p *backend.Pipeline) *backend.Pipeline {
	head, _ := p.Owes()
	if head == nil {
		return p
	}
	if r := head.Sink.(*request); r.partial && !r.orphan && !r.s.closed && r.s.detach(r) {
		return r.s.lanes.node(p.Node).reads
	}
	return p
}
