package proxy

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
)

// choiceFor is how long, in nanoseconds, a choice among the replicas stands.
// Requests that arrive together then travel together: it halves the system
// calls of proxy and Redis. It does not unbalance them: where commands take
// long, few are sent within it, and the next choice looks at those in flight.
// (Against 250 us it saves Redis a tenth of its CPU time for a GET. Longer saves
// more, as the replicas are then busy in turn; but they are to share the work of
// one loop, too.)
const choiceFor = int64(time.Millisecond)

// slowStart is how long it takes until a replica whose connection is new has
// its whole share: its caches are cold, and it may be about to fail again.
const slowStart = 5 * time.Second

// minShare is the part of its share that a new connection begins with.
const minShare = 0.1

// replica returns the connection to the replica that serves reads now: of two
// random ones that with fewer requests in flight, of the own zone if one there
// can be read. Under nearest the master takes part. nil: none can be reached.
func (ln *lanes) replica(policy route.Policy) *backend.Pipeline {
	ln.w.arm()
	now := ln.w.loop.Now()
	if ln.chosen != nil && now-ln.chosenAt < choiceFor && ln.chosen.Usable() {
		return ln.chosen
	}
	p := ln.choose(ln.w.near.candidates(ln.w.view, policy, now))
	if p == nil {
		p = ln.choose(ln.w.view.Readable)
	}
	if p == nil || !p.Master { // a master is no choice for who reads under another policy
		ln.chosen, ln.chosenAt = p, now
	}
	return p
}

// choose takes two random nodes, or any other where they cannot be read.
func (ln *lanes) choose(nodes []*topology.Node) *backend.Pipeline {
	switch len(nodes) {
	case 0:
		return nil
	case 1:
		return ln.readable(nodes[0])
	}
	i := rand.IntN(len(nodes))
	j := rand.IntN(len(nodes) - 1)
	if j >= i {
		j++
	}
	if p := better(ln.readable(nodes[i]), ln.readable(nodes[j])); p != nil {
		return p
	}
	for _, n := range nodes {
		if p := ln.readable(n); p != nil {
			return p
		}
	}
	return nil
}

// readable returns the connection to a node for reads, nil where they would
// wait for a node that has failed. Such a connection is made all the same.
func (ln *lanes) readable(n *topology.Node) *backend.Pipeline {
	if n == ln.w.view.Master {
		return ln.masterReads()
	}
	p := ln.reads(n, false)
	if p == nil || p.State() == backend.Ready || !p.Failed() {
		return p
	}
	p.Open()
	return nil
}

// better returns that of two connections which should have the next read. One
// that is new leaves a part of its reads to one that stands for longer.
func better(a, b *backend.Pipeline) *backend.Pipeline {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	now, roll := causal.Clock(), rand.Float64()
	x, y := share(a, now), share(b, now)
	switch {
	case yields(x, y, roll):
		return b
	case yields(y, x, roll):
		return a
	case a.InFlight() <= b.InFlight():
		return a
	}
	return b
}

// share returns which part of its share a connection is given.
func share(p *backend.Pipeline, now int64) float64 {
	if p.State() != backend.Ready {
		return minShare
	}
	return shareAt(time.Duration(now - p.ReadySince))
}

// shareAt rises from minShare to 1 with the age of a connection.
func shareAt(age time.Duration) float64 {
	return min(1, minShare+(1-minShare)*float64(age)/float64(slowStart))
}

// yields reports whether one that has the share x leaves a read to one that has
// y; roll is a random number below 1.
func yields(x, y, roll float64) bool { return x < y && roll >= x/y }
