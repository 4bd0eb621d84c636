package proxy

import (
	"github.com/sluice-io/sluice/proxy/backend"
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
	noOffset bool              // its user may not note the offset for WAIT
}

// nodeLanes are the connections to one node. A master has two: writes keep off
// the connection for reads, since CLIENT PAUSE WRITE, which FAILOVER uses,
// blocks a connection whole.
type nodeLanes struct {
	write   *backend.Pipeline
	reads   *backend.Pipeline
	scripts *backend.Pipeline // writes of sessions that run scripts, see session.writes
	control *backend.Pipeline // for SCRIPT KILL and FUNCTION KILL
	// refusedUntil is the loop time until which reads of this identity keep away
	// from a replica that refuses what the master allows.
	refusedUntil int64
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

// keepReady makes the lanes of clients that need not log in before the first of
// them comes, so that its reads go to replicas at once, and keeps them.
func (w *worker) keepReady() {
	if w.draining {
		return
	}
	for _, b := range w.srv.bound() {
		if a := b.access.Load(); a.open() {
			w.lanesFor(a.fresh()).lastUsed = w.loop.Now()
		}
	}
}

// open connects to the nodes before the first request needs them: a read is
// not sent to a replica before the connection stands.
func (ln *lanes) open() {
	if p := ln.write(); p != nil {
		p.Open()
	}
	if ln.id.Authenticated() { // a password that is changed later ends no connection that stands
		if p := ln.masterReads(); p != nil {
			p.Open()
		}
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
	if m == nil || ln.w.paused {
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

// scripts returns the connection to the master for scripts, or nil.
func (ln *lanes) scripts() *backend.Pipeline {
	m := ln.w.view.Master
	if m == nil || ln.w.paused {
		return nil
	}
	nl := ln.node(m)
	if nl.scripts == nil || nl.scripts.State() == backend.Closed {
		nl.scripts = ln.w.newPipeline(m, ln.id, true)
	}
	if !nl.scripts.Usable() {
		return nil
	}
	return nl.scripts
}

// control returns the connection to the master for what ends a script, or nil.
func (ln *lanes) control() *backend.Pipeline {
	m := ln.w.view.Master
	if m == nil || ln.w.paused {
		return nil
	}
	nl := ln.node(m)
	if nl.control == nil || nl.control.State() == backend.Closed {
		id := ln.id
		id.DB, id.Control = 0, true
		nl.control = ln.w.newPipeline(m, id, true)
	}
	if !nl.control.Usable() {
		return nil
	}
	return nl.control
}

// masterReads returns the connection to the master for reads, or nil.
func (ln *lanes) masterReads() *backend.Pipeline {
	m := ln.w.view.Master
	if m == nil || ln.w.paused {
		return nil
	}
	return ln.reads(m, true)
}

func (ln *lanes) reads(n *topology.Node, master bool) *backend.Pipeline {
	nl := ln.node(n)
	if !master && nl.refusedUntil > ln.w.loop.Now() {
		return nil
	}
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
		if p := nl.scripts; p != nil && p.Node != v.Master {
			p.Close(backend.ErrNodeDown)
			nl.scripts = nil
		}
		if p := nl.control; p != nil && p.Node != v.Master {
			p.Close(backend.ErrNodeDown)
			nl.control = nil
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
		for _, p := range []*backend.Pipeline{nl.write, nl.reads, nl.scripts, nl.control} {
			if p != nil {
				p.Close(cause)
			}
		}
	}
}
