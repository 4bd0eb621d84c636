package proxy

import (
	"bytes"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// effect is what the reply of a request changes in its session. While a
// session is pinned its state is on the node, and the node's replies tell it.
type effect uint8

const (
	effectNone effect = iota
	effectMulti
	effectExec
	effectDiscard
	effectWatch
	effectUnwatch
	effectOffset // of ours: the offset for WAIT has been noted
	effectReset
	effectSubscribe // this and what follows takes effect later if it is queued
	effectSelect    // arg: the database
	effectHello     // arg: the RESP version, 0 unchanged
	effectSticky    // a state that only the node knows: AUTH, CLIENT, MONITOR
)

// helloOptions is added to the argument of effectHello where there is AUTH or
// SETNAME, which only the node can judge.
const helloOptions = 1 << 30

// pinState is what ties a session to its pinned connection.
type pinState struct {
	inMulti  bool
	watching bool
	sticky   bool            // until RESET or the end
	lost     bool            // the connection has ended: Gone follows
	blocking int             // blocking commands in flight
	queues   bool            // MULTI has been sent: what follows may be queued
	buckets  []causal.Bucket // of the writes that were sent since then
	queued   uint64          // bytes of those that were answered since then
	subs     subscriptions
	offset   offsetNote
	ahead    bool // the request that it was taken for is about to come
}

// waits reports whether the session may rightly be silent for ever.
func (p *pinState) waits() bool { return p.blocking > 0 || p.sticky || p.subs.any() }

// free reports whether nothing ties the session to the connection.
func (p *pinState) free() bool {
	return !p.inMulti && !p.watching && !p.sticky && !p.ahead && p.blocking == 0 && !p.subs.any()
}

// pinFor gives the session a connection of its own and sends the request on
// it. It returns false where the session has to wait first: what is in flight
// elsewhere must be answered before.
func (s *session) pinFor(raw []byte, args resp.Args, it *item) bool {
	if it.kind == route.Unwatch || it.kind == route.Exec || it.kind == route.Discard {
		return s.forward(raw, args, it, false) // no state on any connection: the node knows the answer
	}
	if s.inFlight > 0 {
		s.stall = stallDrained
		return false
	}
	if !s.acquirePin() {
		if s.hold() {
			return false
		}
		s.replyError(textNoMaster)
		return true
	}
	return s.servePinned(raw, args, it)
}

// sendInner sends a command of ours, whose reply is dropped, on the pinned
// connection.
func (s *session) sendInner(args ...[]byte) *request {
	r := s.w.newRequest(s)
	r.inner, r.Class = true, backend.Other
	s.push(r)
	s.place(r, elsewhere)
	s.pin.Send(&r.Request, resp.AppendCommandBytes(nil, args...))
	return r
}

// acquirePin makes sure that the session has a pinned connection.
func (s *session) acquirePin() bool {
	if s.pin != nil {
		return !s.w.paused // an upload that would begin
	}
	p := s.w.takePinned(s.id, s)
	if p == nil {
		return false
	}
	s.takePin(p)
	return true
}

// takePin makes p the session's own, with the state that has been kept for it.
func (s *session) takePin(p *backend.Pipeline) {
	p.SetTunnel(s)
	s.pin, s.pinning = p, pinState{}
	if len(s.name) > 0 {
		s.sendInner([]byte("CLIENT"), []byte("SETNAME"), s.name)
	}
	if s.noEvict {
		s.sendInner([]byte("CLIENT"), []byte("NO-EVICT"), []byte("ON"))
	}
	if s.noTouch {
		s.sendInner([]byte("CLIENT"), []byte("NO-TOUCH"), []byte("ON"))
	}
}

// awaitPin stalls the session until its pinned connection is made.
func (s *session) awaitPin() {
	s.stall = stallAnswer
	s.pin.WhenReady(func(err error) {
		if s.closed || s.stall != stallAnswer || err != nil { // on an error Gone follows
			return
		}
		s.stall = stallNone
		s.update()
	})
}

// servePinned sends a request on the session's own connection.
func (s *session) servePinned(raw []byte, args resp.Args, it *item) bool {
	if s.w.paused && !s.inTransaction() && it.kind != route.Quit && s.hold() {
		return false
	}
	if !s.pin.Usable() {
		s.stall = stallDrained // it has been closed: Gone follows
		return false
	}
	var ok bool
	if raw, ok = s.preparePinned(raw, args, it); raw == nil {
		return ok
	}
	s.noteWrite(it.kind)
	if it.kind == route.Client && (replyModeOf(args) != "" || isNaming(args)) {
		// What it does to the session depends on what comes before.
		if s.inFlight > 0 {
			s.stall = stallDrained
			return false
		}
		refused := s.id.Proto == 2 && s.pinning.subs.any()
		if !refused && replyModeOf(args) != "" {
			s.clientReply(args)
			return true
		}
		if !refused && !s.pinning.inMulti {
			s.noteClient(args)
		}
		s.pinning.sticky = s.pinning.sticky || s.pinning.inMulti
	}
	if it.kind == route.Reset && it.arityOK() && s.silent == replyOff {
		s.silent = replyOn // RESET is answered even after CLIENT REPLY OFF
	}
	r := s.w.newRequest(s)
	r.cmd, r.kind, r.Class = it.cmd, it.kind, classOf(it.kind)
	r.mute = s.muted()
	switch it.kind {
	case route.Denied:
		// Something must fail on the node too, or EXEC would run the rest.
		r.swap = true
		text := deniedText(it.cmd.Name)
		s.w.stats.failed(text)
		r.reply = resp.AppendError(r.reply, text)
		raw = resp.AppendCommand(nil, "sluice|denied")
	case route.Blocking, route.Wait:
		s.pinning.blocking++
	case route.Sticky, route.Auth:
		r.effect = effectSticky
		if it.cmd.Name == "monitor" {
			s.beginMonitor()
		}
	case route.Client:
		if !isNaming(args) {
			r.effect = effectSticky
		}
	case route.Subscribe, route.Unsubscribe:
		r.Left = 1 + s.pinning.subs.expect(args)
		r.effect, r.arg = effectSubscribe, args.Len()-1
	default:
		r.effect, r.arg = effectOf(it.kind, args)
	}
	s.beginPinned(r, it, args)
	if it.kind == route.Other {
		s.noteScript(it, args)
	}
	s.push(r)
	s.place(r, elsewhere)
	why := route.ReasonPinned
	if it.kind == route.Denied {
		why = route.ReasonDenied
	}
	s.w.stats.routed[why]++
	s.pin.Send(&r.Request, raw)
	if it.kind == route.Quit { // the node's to answer: it has then let go of what the connection held
		s.end()
	}
	return true
}

// preparePinned serves what comes before a WAIT or a login is sent. It returns
// the request to send, nil where there is none; ok is false where the request
// has to come again.
func (s *session) preparePinned(raw []byte, args resp.Args, it *item) (_ []byte, ok bool) {
	switch k := it.kind; {
	case k == route.Wait:
		if dealt, ok := s.prepareWait(); dealt {
			return nil, ok
		}
	case k != route.Auth && k != route.Hello && k != route.Reset:
	case s.access.mode != AuthPassthrough:
		if it.arityOK() {
			return s.authPinned(args)
		}
	case k != route.Reset && s.inFlight > 0 && !s.pinning.inMulti:
		s.stall = stallDrained // Redis may say nothing to a login that fails behind other replies, see backend.together
		return nil, false
	}
	return raw, true
}

// effectOf tells what a reply may change.
func effectOf(k route.Kind, args resp.Args) (effect, int) {
	switch k {
	case route.Multi:
		return effectMulti, 0
	case route.Exec:
		return effectExec, 0
	case route.Discard:
		return effectDiscard, 0
	case route.Watch:
		return effectWatch, 0
	case route.Unwatch:
		return effectUnwatch, 0
	case route.Reset:
		return effectReset, 0
	case route.Select, route.Hello:
		n := 0
		if args.Len() > 1 {
			n = atoi(args.At(1))
		}
		if k == route.Select {
			return effectSelect, n
		}
		if args.Len() > 2 {
			n |= helloOptions
		}
		return effectHello, n
	}
	return effectNone, 0
}

// followed keeps track of what a pinned connection's state is after the reply
// of r, of which data is the last part.
func (s *session) followed(r *request, data []byte) {
	if s.pin == nil {
		return
	}
	if r.kind == route.Blocking || r.kind == route.Wait {
		s.pinning.blocking--
	}
	if r.effect != effectNone {
		s.applyEffect(r, data)
	}
}

// applyEffect follows the state of the node's connection.
func (s *session) applyEffect(r *request, reply []byte) {
	ok := string(reply) == "+OK\r\n"
	p := &s.pinning
	if r.effect >= effectSubscribe && string(reply) == "+QUEUED\r\n" {
		p.sticky = true // what EXEC makes of it only the node knows
		return
	}
	switch r.effect {
	case effectMulti:
		p.inMulti = p.inMulti || ok
	case effectExec:
		// Any other error, EXEC without MULTI, leaves the keys watched.
		if reply[0] != '-' || bytes.HasPrefix(reply, []byte("-EXECABORT ")) {
			p.inMulti, p.watching = false, false
		}
	case effectDiscard:
		if ok {
			p.inMulti, p.watching = false, false
		}
	case effectWatch:
		p.watching = p.watching || ok
	case effectUnwatch:
		if ok {
			p.watching = false
		}
	case effectOffset:
		s.offsetReplied(reply)
	case effectSelect:
		if ok {
			id := s.id
			id.DB, id.SelectFirst = r.arg, false
			s.setIdentity(id)
		}
	case effectSticky:
		p.sticky = p.sticky || reply[0] != '-'
		if s.monitor != nil && r.cmd.Name == "monitor" && ok {
			s.monitor.began()
		}
	case effectHello:
		p.sticky = p.sticky || r.arg&helloOptions != 0
		if proto := r.arg &^ helloOptions; (reply[0] == '%' || reply[0] == '*') && proto != 0 {
			id := s.id
			id.Proto = proto
			s.setIdentity(id)
		}
	case effectReset:
		if string(reply) == "+RESET\r\n" {
			s.resetState()
			s.endMonitor()
			// What was sent behind it stays in flight.
			s.pinning = pinState{blocking: p.blocking, buckets: p.buckets, queues: p.queues, queued: p.queued}
		}
	}
}

// unpinIfFree lets go of the pinned connection once nothing ties the session
// to it. It is called when nothing is in flight.
func (s *session) unpinIfFree() {
	if !s.pinning.free() || s.upload != nil {
		return
	}
	p := s.pin
	s.endMonitor() // MONITOR has been refused
	s.pin = nil
	p.Resume()
	if len(s.name) > 0 || s.noEvict || s.noTouch || !p.Pristine() || p.Identity() != s.id {
		p.SetTunnel(nil)
		p.Close(backend.ErrRelease)
		return
	}
	s.w.givePinned(s.id, p)
}

// Push implements backend.Tunnel: is value something other than the reply of
// head?
func (s *session) Push(value []byte, h *backend.Request) bool {
	var head *request
	if h != nil {
		head = h.Sink.(*request)
	}
	if s.monitor != nil {
		if _, _, ok := monitorLine(value); ok {
			return true
		}
	}
	return s.pinning.subs.classify(value, s.id.Proto, head)
}

// Pushed implements backend.Tunnel.
func (s *session) Pushed(data []byte) {
	if !s.closed && (s.monitor == nil || !s.monitor.leavesOut(data)) {
		s.write(data)
	}
}

// write sends to the client. One that is too slow holds back the node where
// the connection is its own, so that Redis's limits for slow clients apply.
func (s *session) write(data []byte) {
	s.conn.Write(data)
	if s.pin != nil && s.conn.Congested() {
		s.pin.Pause()
	}
}

// sendTransaction sends a MULTI … EXEC that has arrived whole, in one piece on
// the shared connection: nothing can come between. It returns how many items
// it took, 0 where there is no such transaction.
func (s *session) sendTransaction(data []byte, i int) int {
	w := s.w
	j := i + 1
	for ; j < len(w.batch) && w.batch[j].kind != route.Exec; j++ {
		k := w.batch[j].kind
		if k > route.MasterRead || w.batch[j].cmd == nil || w.batch[j].inline {
			return 0
		}
	}
	if j == len(w.batch) || w.batch[i].inline || w.batch[j].inline {
		return 0
	}
	if s.silent == replySkip || !w.batch[i].arityOK() || !w.batch[j].arityOK() {
		return 0 // one of the replies is not wanted; or what was begun would not end here
	}
	if s.elsewhere > 0 {
		s.stall = stallReads
		return 0
	}
	p := s.writes(w.scripted)
	if p == nil && s.hold() {
		return 0
	}
	r := w.newRequest(s)
	r.cmd, r.kind, r.Class = w.batch[j].cmd, route.Write, backend.Write
	r.mute = s.muted()
	r.commands, r.Left, r.atomic = j-i+1, j-i+1, true
	s.push(r)
	if p == nil {
		r.fail(textNoMaster)
		return j - i + 1
	}
	w.stats.routed[route.ReasonWrite] += uint64(r.commands)
	s.place(r, onWrite)
	s.noteWrite(route.Write)
	for k := i + 1; k < j; k++ {
		it := &w.batch[k]
		w.beginWrite(r, it, resp.Args{Buf: data[it.off : it.off+it.n], Spans: w.spans[it.first:it.after]})
	}
	p.Send(&r.Request, data[w.batch[i].off:w.batch[j].off+w.batch[j].n])
	return j - i + 1
}

var _ backend.Tunnel = (*session)(nil)
var _ eventloop.Handler = (*session)(nil)
