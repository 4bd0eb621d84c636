package proxy

import (
	"errors"
	"slices"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/topology"
)

// From how many bytes on a value takes its connection away from the lanes.
const (
	detachSlow = 1 << 20 // where its client does not take it as fast as it comes
	detachAny  = 4 << 20 // where it does: who is behind it waits for as long as it takes
)

// errDetached moves a request from a connection that a large reply has taken.
var errDetached = errors.New("a large reply has taken the connection")

// detached is a connection that has been taken from the lanes, since a large
// reply is on its way on it. It is the session's until the last of its
// requests there is answered: reading of it pauses while the client takes no
// more, so that the reply waits in the node and not here. It is its pipeline's
// tunnel.
type detached struct {
	s    *session
	p    *backend.Pipeline
	left int // requests of s on it
}

// holdBack sees to it that r, of whose reply a part has come, brings no more than
// its client takes.
func (s *session) holdBack(r *request) {
	slow := s.conn.Congested() || s.head != r && s.kept >= s.w.opt.OutputHighWater
	if r.detached == nil {
		large := r.part >= detachAny || slow && (r.part >= detachSlow || s.conn.Pending()+s.kept >= windowBytes)
		if !large || !s.detach(r) {
			return
		}
	}
	if slow {
		r.Via.Pause() // until OnDrain, or advance
	}
}

// detach takes the connection of r, which is at its head, from the lanes, which
// get another. What stands behind r there is sent again elsewhere, but for what
// this session gets after r anyway. It returns false where that cannot be: where
// others' writes stand behind r, which must not be sent twice.
func (s *session) detach(r *request) bool {
	p, ln := r.Via, s.lanes
	if s.pin != nil { // paused itself, see write
		return false
	}
	last := r
	for b := range p.Behind() {
		if q := b.Sink.(*request); s.keepsOrder(q, last) {
			last = q
		} else if q.Class != backend.Read {
			return false
		}
	}
	if !ln.replace(p) {
		return false
	}
	s.w.stats.detached++
	d := &detached{s: s, p: p, left: 1}
	r.detached = d
	s.detached = append(s.detached, d)
	p.SetTunnel(d)
	last = r
	p.Displace(errDetached, func(b *backend.Request) *backend.Request {
		q := b.Sink.(*request)
		if s.keepsOrder(q, last) {
			q.detached = d
			d.left++
			last = q
			return nil
		}
		o := s.w.newRequest(q.s)
		o.orphan = true
		return &o.Request
	})
	s.update()
	return true
}

// keepsOrder reports whether q, which is behind last on a connection, is so in
// this session too. Else last could have to wait here for a reply that it keeps
// from coming.
func (s *session) keepsOrder(q, last *request) bool {
	return q.s == s && !q.orphan && q.follows(last)
}

// replace puts a new connection into the place of p. It returns false where p is
// none that others use.
func (ln *lanes) replace(p *backend.Pipeline) bool {
	nl := ln.node(p.Node)
	for _, lane := range []**backend.Pipeline{&nl.reads, &nl.write, &nl.scripts} {
		if *lane == p {
			*lane = ln.w.newPipeline(p.Node, ln.id, p.Master)
			(*lane).Open()
			if ln.chosen == p {
				ln.chosen = nil
			}
			return true
		}
	}
	return false
}

// follows reports whether r comes after before in the session's list.
func (r *request) follows(before *request) bool {
	for before = before.next; before != nil && before != r; before = before.next {
	}
	return before == r
}

// undetach notes that r is not on a detached connection any more.
func (r *request) undetach() {
	d := r.detached
	r.detached = nil
	if d.left--; d.left == 0 {
		d.end()
	}
}

// end closes the connection. Whatever still comes on it nobody waits for.
func (d *detached) end() {
	d.forget()
	d.p.Close(backend.ErrRelease)
	d.s.update()
}

func (d *detached) forget() {
	s := d.s
	s.detached = slices.DeleteFunc(s.detached, func(o *detached) bool { return o == d })
}

// resumeDetached reads on where the reply comes whose turn it is.
func (s *session) resumeDetached() {
	if r := s.head; r != nil && r.detached != nil && !s.conn.Congested() {
		r.Via.Resume()
	}
}

// closeDetached closes the session's detached connections.
func (s *session) closeDetached() {
	for _, d := range s.detached {
		d.p.Close(backend.ErrRelease)
	}
	s.detached = nil
}

// applyDetached closes the connections that a new view has made useless, as
// [lanes.apply] does; but not one to a former master where all that is still to
// come is the rest of one value, which is as true as it was.
func (s *session) applyDetached(v *topology.View) {
	for _, d := range s.detached {
		up := slices.ContainsFunc(v.States, func(st topology.NodeState) bool { return st.Node == d.p.Node && st.Up })
		if !up || d.p.Master && d.p.Node != v.Master && !d.settled() {
			d.p.Close(backend.ErrNodeDown)
		}
	}
}

// settled reports whether the node has run all that the session still waits for
// there, and no write: only the rest of a value is to come.
func (d *detached) settled() bool {
	r, _ := d.p.Owes()
	if r == nil {
		return true
	}
	q := r.Sink.(*request)
	return d.left == 1 && q.detached == d && r.Left == 1 && q.inside && r.Class == backend.Read
}

// Push implements backend.Tunnel: nothing is subscribed to on a connection that
// was shared.
func (d *detached) Push(value []byte, _ *backend.Request) bool { return value[0] == '>' }

// Pushed implements backend.Tunnel.
func (d *detached) Pushed([]byte) {}

// Gone implements backend.Tunnel. Its requests have been told.
func (d *detached) Gone(error) {
	d.forget()
	if !d.s.closed {
		d.s.update()
	}
}

var _ backend.Tunnel = (*detached)(nil)
