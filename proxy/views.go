package proxy

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-io/sluice/proxy/topology"
)

// viewGate hands the views of the topology to the loops so that no two of them
// ever use two masters at a time: before one writes to a new master each has let
// go of the old one. Else a loop that is late could read, as from the master,
// what a write that another loop has seen acknowledged has long replaced; and
// what the old master had acknowledged could not be told when it is compared
// with the new one.
type viewGate struct {
	mu      sync.Mutex
	master  *topology.Node // the last that the loops were given
	pending *topology.View // the newest, while they let go of it; nil otherwise
	lostAt  time.Time      // when the loops were left without a master; zero while they have one
}

// spread takes a new view. It is called by the topology's goroutine.
func (s *Server) spread(v *topology.View) {
	s.journal.Observe(v, time.Now())
	g := &s.gate
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.pending != nil:
		g.pending = v
		return
	case v.Master == nil, v.Master == g.master, g.master == nil:
		s.hand(v)
		return
	}
	g.pending = v
	s.losses.failovers.Add(1)
	without := *v
	without.Master = nil
	var left atomic.Int64
	left.Store(int64(len(s.workers)))
	let := func() {
		if left.Add(-1) == 0 {
			g.mu.Lock()
			defer g.mu.Unlock()
			v := g.pending
			g.pending = nil
			s.hand(v)
		}
	}
	for _, w := range s.workers {
		if !w.loop.Post(func() { w.setView(&without); let() }) {
			return // the loops are ending
		}
	}
}

// hand gives a view to all; under gate.mu.
func (s *Server) hand(v *topology.View) {
	g := &s.gate
	switch {
	case v.Master == nil && g.master != nil && g.lostAt.IsZero():
		g.lostAt = time.Now()
	case v.Master != nil && !g.lostAt.IsZero():
		s.losses.held(time.Since(g.lostAt))
		g.lostAt = time.Time{}
	}
	if v.Master != nil {
		g.master = v.Master
	}
	sampled := v
	if s.fences == nil {
		only := *v
		only.Readable = nil
		sampled = &only
	}
	s.sampler.Update(sampled)
	for _, w := range s.workers {
		w.loop.Post(func() { w.setView(v) })
	}
}
