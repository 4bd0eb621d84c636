package proxy

import (
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
)

// near knows which nodes are near. It is the worker's.
type near struct {
	zone  string            // ours, "" for none
	zones map[string]string // of nodes, by address
	own   []*topology.Node  // the replicas of our zone that may be read now

	nearest   []*topology.Node // that may be read and are about as far as the nearest, the master too
	nearestAt int64            // loop time at which they were found; 0 must be found anew
}

// nearestFor is how long, in nanoseconds, it stands who is nearest.
const nearestFor = int64(100 * time.Millisecond)

// local reports whether a node is in our zone, or zones do not matter.
func (a *near) local(n *topology.Node) bool { return a.zone == "" || a.zones[n.Addr] == a.zone }

// setView takes a new picture of the nodes.
func (a *near) setView(v *topology.View) {
	a.own, a.nearestAt = nil, 0
	for _, n := range v.Readable {
		if a.local(n) {
			a.own = append(a.own, n)
		}
	}
}

// candidates returns the nodes that reads should go to now. There may be none:
// then any replica will do.
func (a *near) candidates(v *topology.View, policy route.Policy, now int64) []*topology.Node {
	if policy != route.Nearest {
		return a.own
	}
	if a.nearestAt == 0 || now-a.nearestAt >= nearestFor {
		a.find(v)
		a.nearestAt = max(1, now)
	}
	return a.nearest
}

// find finds the nearest nodes: of our zone, if any is there, those whose round
// trip is about the shortest. One whose round trip is not known yet takes part.
// They are several on purpose: if all went to the very nearest, all would move
// on together as it gets slow.
func (a *near) find(v *topology.View) {
	a.nearest = append(a.nearest[:0], a.own...)
	if v.Master != nil && a.local(v.Master) {
		a.nearest = append(a.nearest, v.Master)
	}
	if len(a.nearest) == 0 {
		a.nearest = append(a.nearest, v.Readable...)
		if v.Master != nil {
			a.nearest = append(a.nearest, v.Master)
		}
	}
	var best time.Duration
	for _, n := range a.nearest {
		if d := n.RoundTrip(); d > 0 && (best == 0 || d < best) {
			best = d
		}
	}
	kept := a.nearest[:0]
	for _, n := range a.nearest {
		if asNear(n.RoundTrip(), best) {
			kept = append(kept, n)
		}
	}
	a.nearest = kept
}

// asNear reports whether a round trip of d is about as short as best: not much
// more than what chance and load make of it within one room.
func asNear(d, best time.Duration) bool { return d <= 2*best+200*time.Microsecond }

// readReason says why a read goes to p, which was chosen for it.
func (w *worker) readReason(p *backend.Pipeline) route.Reason {
	switch {
	case p.Master:
		return route.ReasonNearest
	case !w.near.local(p.Node):
		return route.ReasonOtherZone
	}
	return route.ReasonReplica
}
