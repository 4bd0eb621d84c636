package proxy

import (
	"math/rand/v2"
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
)

// lanes are the shared connections of one loop for one identity, to every
// node. Sessions with that identity hold a pointer to them.
type lanes struct {
	w        *worker
	id       backend.Identity
	sessions int               // that hold this
	byNode   []nodeLanes       // by Node.Index
	lastUsed int64             // loop time at which the last session left
	chosen   *backend.Pipeline // the replica that serves reads now
	chosenAt int64             // loop time of the choice
	verified bool              // a node has accepted the identity
}

// nodeLanes are the connections to one node. A master has two: writes keep off
// the connection for reads, since CLIENT PAUSE WRITE, which FAILOVER uses,
// blocks a connection whole.
type nodeLanes struct {
	write *backend.Pipeline
	reads *backend.Pipeline
}

func (w *worker) lanesFor(id backend.Identity) *lanes {
	ln := w.lanes[id]
	if ln == nil {
		ln = &lanes{w: w, id: id, lastUsed: w.loop.Now()}
		w.lanes[id] = ln
		ln.open()
	}
	return ln
}

// open connects to the nodes before the first request needs them: a read is
// not sent to a replica before the connection stands.
func (ln *lanes) open() {
	if p := ln.write(); p != nil {
		p.Open()
	}
	for _, n := range ln.w.view.Readable {
		if p := ln.reads(n, false); p != nil {
			p.Open()
		}
	}
}

func (ln *lanes) node(n *topology.Node) *nodeLanes {
	for len(ln.byNode) <= n.Index {
		ln.byNode = append(ln.byNode, nodeLanes{})
	}
	return &ln.byNode[n.Index]
}

// write returns the connection to the master for writes, nil where there is
// no master or it cannot be reached now.
func (ln *lanes) write() *backend.Pipeline {
	m := ln.w.view.Master
	if m == nil {
		return nil
	}
	nl := ln.node(m)
	if nl.write == nil || nl.write.State() == backend.Closed {
		nl.write = ln.w.newPipeline(m, ln.id, true)
	}
	if !nl.write.Usable() {
		return nil
	}
	if nl.write.State() == backend.Ready {
		ln.w.masterLost = 0
	}
	return nl.write
}

// masterReads returns the connection to the master for reads, or nil.
func (ln *lanes) masterReads() *backend.Pipeline {
	m := ln.w.view.Master
	if m == nil {
		return nil
	}
	return ln.reads(m, true)
}

func (ln *lanes) reads(n *topology.Node, master bool) *backend.Pipeline {
	nl := ln.node(n)
	if p := nl.reads; p == nil || p.Master != master || p.State() == backend.Closed {
		if p != nil {
			p.Close(backend.ErrRelease)
		}
		nl.reads = ln.w.newPipeline(n, ln.id, master)
	}
	if !nl.reads.Usable() {
		return nil
	}
	return nl.reads
}

// choiceFor is how long, in nanoseconds, a choice among the replicas stands.
// Requests that arrive together then travel together: it halves the system
// calls of proxy and Redis, and it is far too short to unbalance
// anything.
const choiceFor = int64(250 * time.Microsecond)

// replica returns the connection to the replica that serves reads now: of two
// random ones that with fewer requests in flight. Under nearest the master
// takes part. nil: none can be reached.
func (ln *lanes) replica(policy route.Policy) *backend.Pipeline {
	now := ln.w.loop.Now()
	if ln.chosen != nil && now-ln.chosenAt < choiceFor && ln.chosen.Usable() {
		return ln.chosen
	}
	p := ln.choose(ln.w.view.Readable)
	if policy == route.Nearest {
		if m := ln.masterReads(); m != nil && (p == nil || m.InFlight() < p.InFlight()) {
			return m
		}
	}
	ln.chosen, ln.chosenAt = p, now
	return p
}

func (ln *lanes) choose(nodes []*topology.Node) *backend.Pipeline {
	switch len(nodes) {
	case 0:
		return nil
	case 1:
		return ln.reads(nodes[0], false)
	}
	i := rand.IntN(len(nodes))
	j := rand.IntN(len(nodes) - 1)
	if j >= i {
		j++
	}
	a, b := ln.reads(nodes[i], false), ln.reads(nodes[j], false)
	switch {
	case a != nil && (b == nil || a.InFlight() <= b.InFlight()):
		return a
	case b != nil:
		return b
	}
	for _, n := range nodes { // two are resting: any other will do
		if p := ln.reads(n, false); p != nil {
			return p
		}
	}
	return nil
}

// apply closes the connections that a new view has made useless: to nodes that
// are gone or down, and to a master that is one no more. What was in flight
// there is Lost, so that reads go on at other nodes at once.
func (ln *lanes) apply(v *topology.View) {
	up := make(map[*topology.Node]bool, len(v.States))
	for _, st := range v.States {
		up[st.Node] = st.Up
	}
	for i := range ln.byNode {
		nl := &ln.byNode[i]
		if p := nl.write; p != nil && p.Node != v.Master {
			p.Close(backend.ErrNodeDown)
			nl.write = nil
		}
		if p := nl.reads; p != nil && !up[p.Node] {
			p.Close(backend.ErrNodeDown)
			nl.reads = nil
		}
	}
	ln.chosen = nil
}

func (ln *lanes) close(cause error) {
	for _, nl := range ln.byNode {
		if nl.write != nil {
			nl.write.Close(cause)
		}
		if nl.reads != nil {
			nl.reads.Close(cause)
		}
	}
}
