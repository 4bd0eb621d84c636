package proxy

import (
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// streamRequest is the size in bytes above which a request is passed on as it
// arrives, on a connection of its own.
const streamRequest = 1 << 20

// lingerFor is how long a client may take to fetch its last replies.
const lingerFor = 10 * time.Second

// stall says what a session waits for before it goes on with its requests.
type stall uint8

const (
	stallNone    stall = iota
	stallDrained       // every request in flight has been answered
	stallReads         // every request in flight elsewhere than on the write connection has been answered
	stallMaster        // a master is there again
	stallIndex         // the master's offset has been sampled since the reads arrived, see index.go
	stallAnswer        // a callback: a login, a connection that is being made
	stallEnd           // nothing more: the connection is about to be closed
)

// session is one client connection; see DESIGN.md for its states. It belongs
// to its worker.
type session struct {
	w    *worker
	conn *eventloop.Conn
	readRules
	rules *readRules // of the listener, as they were taken
	num   uint64     // Redis's client id, as far as the proxy has one
	id    backend.Identity
	lanes *lanes

	head, tail *request // without a complete reply, or waiting for their turn
	inFlight   int      // requests in the list
	onWrite    int      // of them unanswered on the write connection
	scripting  bool     // that connection is the one for scripts
	elsewhere  int      // of them unanswered on other connections
	window     int      // how many may be in flight, see setWindow
	replySize  int      // moving average of the replies' sizes in bytes
	throttled  bool     // the client's connection is paused
	kept       int      // bytes of replies that wait for their turn
	need       int64    // bytes that the request which is arriving has at least

	pos     uint64    // position in the client's stream of the data that is being handled
	at      uint64    // position of the request that is being served
	arrived uint64    // position after the last byte that has been received
	index   readIndex // of linearizable reads

	stall   stall
	closed  bool
	eof     bool  // the client has finished sending
	starved bool  // all that was received has been handled
	endAt   int64 // loop time at which nothing was left but output to be written; 0 before

	listener    *boundListener
	access      *access
	addr        string // of the client, where something in between has told it
	born        int64  // loop time
	authed      bool
	name        []byte // CLIENT SETNAME
	noEvict     bool   // CLIENT NO-EVICT
	noTouch     bool   // CLIENT NO-TOUCH
	silent      replyMode
	pin         *backend.Pipeline
	pinning     pinState
	wrote       bool     // it has sent what may write
	waitRefused string   // why the WAIT that comes cannot be sent
	monitor     *monitor // what is left out of its MONITOR; nil where it has none
	doom        doom
	upload      *upload     // a request being streamed
	detached    []*detached // connections that carry large replies to it alone
}

func (w *worker) newSession(b *boundListener, num uint64) *session {
	s := &session{w: w, num: num, starved: true, listener: b, access: b.access.Load(), born: w.loop.Now()}
	s.authed, s.id = s.access.open(), s.access.fresh()
	s.takeRules()
	s.conn = w.loop.NewConn(s)
	s.conn.HighWater = w.opt.OutputHighWater
	s.conn.HardLimit = w.opt.OutputHardLimit
	s.setIdentity(s.id)
	w.sessions[s] = struct{}{}
	return s
}

func (s *session) setIdentity(id backend.Identity) {
	if s.lanes != nil {
		if s.id == id {
			return
		}
		s.leaveLanes()
	}
	s.id = id
	s.lanes = s.w.lanesFor(id)
	s.lanes.sessions++
}

func (s *session) leaveLanes() {
	s.lanes.sessions--
	s.lanes.lastUsed = s.w.loop.Now()
	s.lanes = nil
}

// OnData implements eventloop.Handler: requests have arrived.
func (s *session) OnData(_ *eventloop.Conn, data []byte) int {
	used := 0
	s.arrived = s.pos + uint64(len(data))
	s.setWindow()
	for s.stall == stallNone {
		if s.upload != nil {
			n := s.upload.feed(data[used:])
			used += n
			s.pos += uint64(n)
			if s.upload != nil {
				break
			}
			continue
		}
		if int64(len(data)-used) < s.need || used == len(data) {
			break
		}
		room := s.window - s.inFlight
		if room <= 0 || s.conn.Congested() || len(s.detached) > 0 || s.asked() >= maxAsked {
			s.starved = false
			s.update()
			return used
		}
		n, more := s.handle(data[used:], room)
		used += n
		s.pos += uint64(n)
		if !more {
			break
		}
	}
	s.starved = s.stall == stallNone
	if s.eof {
		s.finish() // what came last may have been answered on the spot
	}
	s.update()
	return used
}

// Bounds of a session's window.
const (
	firstWindow = 128     // requests, as long as the size of a reply is not known
	minWindow   = 8       // requests
	windowBytes = 4 << 20 // of replies that a window may bring
)

// maxAsked is how many bytes of requests a session may have in flight before it
// is no longer read.
const maxAsked = 16 << 20

// asked returns how many bytes of requests have come since the one that is to be
// answered next: all that are kept in case they have to be sent again.
func (s *session) asked() int64 {
	if s.head == nil || s.upload != nil { // which is not kept
		return 0
	}
	return int64(s.pos - s.head.at)
}

// takeRules takes the rules for reads that the listener has now. Nothing may be
// in flight.
func (s *session) takeRules() {
	s.rules = s.listener.reads.Load()
	s.readRules = *s.rules
}

// setWindow bounds the requests in flight by the bytes they may bring: a client
// that asks for a thousand large values at once would else keep a node from
// serving anybody, and bring them all here.
func (s *session) setWindow() {
	s.window = firstWindow
	if s.replySize > 0 {
		s.window = max(minWindow, windowBytes/s.replySize)
	}
	s.window = min(s.window, s.w.opt.MaxInFlight)
}

// sized takes the size of a reply into the average.
func (s *session) sized(n int) {
	if s.replySize == 0 {
		s.replySize = n
		return
	}
	s.replySize += (n - s.replySize) / 8
}

// limits are those of a client that has, or has not, authenticated.
func (s *session) limits() *resp.Limits {
	if s.authed {
		return &resp.DefaultLimits
	}
	return &resp.UnauthenticatedLimits
}

// handle parses up to room requests of data and serves them. more says that it
// is worth calling again with the rest.
func (s *session) handle(data []byte, room int) (used int, more bool) {
	w := s.w
	if s.head == nil && s.rules != s.listener.reads.Load() {
		s.takeRules()
	}
	w.batch, w.spans = w.batch[:0], w.spans[:0]
	lim := s.limits()
	pos, mixed, reads := 0, false, false
	w.scripted = false
	var perr error
	s.need = 0
	for len(w.batch) < room && pos < len(data) {
		first := len(w.spans)
		n, need, spans, err := resp.ScanRequest(data[pos:], lim, w.spans)
		w.spans = spans
		if err != nil {
			perr = err
			break
		}
		if n == 0 {
			s.need = need
			break
		}
		if len(spans) > first {
			it := item{off: pos, n: n, first: first, after: len(spans), inline: data[pos] != '*'}
			it.cmd, it.kind = w.lookup(resp.Args{Buf: data[pos : pos+n], Spans: spans[first:]})
			mixed = mixed || !it.kind.ReadOnly()
			reads = reads || it.kind == route.Read
			w.scripted = w.scripted || it.kind == route.Script
			w.batch = append(w.batch, it)
		}
		pos += n
		if !s.authed && len(w.batch) > 0 {
			break // the limits change with the login
		}
	}
	if used, all := s.serveBatch(data, mixed && reads); !all {
		s.need = 0
		return used, false
	}
	if perr != nil {
		s.protocolError(perr)
		return len(data), false
	}
	if s.need > streamRequest {
		s.need = 0 // where it has to wait first: go on with what is here, not with more
		return pos, s.beginUpload(data[pos:])
	}
	return pos, s.need == 0 && pos < len(data)
}

// serveBatch serves the worker's batch. all is false where the session has to
// wait; then data from used on must come again.
func (s *session) serveBatch(data []byte, mixed bool) (used int, all bool) {
	w := s.w
	defer w.endRun()
	for i := 0; i < len(w.batch); {
		s.at = s.pos + uint64(w.batch[i].off)
		n := s.serve(data, i, mixed)
		if n == 0 { // again, after the stall
			return w.batch[i].off, false
		}
		i += n
		if s.stall != stallNone || s.closed {
			return w.batch[i-1].off + w.batch[i-1].n, false
		}
	}
	return 0, true
}

// protocolError answers malformed input as Redis does and ends the session.
func (s *session) protocolError(err error) {
	s.w.stats.protocolErrors++
	s.reply(resp.AppendError(nil, "ERR "+err.Error()))
	s.end()
}

// end closes the connection once everything in flight is answered and sent.
func (s *session) end() {
	if s.stall == stallEnd {
		return
	}
	s.stall = stallEnd
	s.finish()
}

// finish closes the connection if it has nothing left to do.
func (s *session) finish() {
	if s.head != nil || s.closed {
		return
	}
	if s.stall == stallEnd || s.eof && s.starved {
		if s.endAt == 0 {
			s.endAt = s.w.loop.Now()
		}
		s.stall = stallEnd // what is left of the input is not looked at again
		s.conn.CloseAfterFlush()
	}
}

// update pauses or resumes the client's connection.
func (s *session) update() {
	if s.closed {
		return
	}
	if s.w.draining && s.stall == stallNone && s.pin == nil && s.upload == nil {
		s.end() // it was stalled as the drain began
	}
	s.throttled = s.stall != stallNone || s.inFlight >= s.window || s.conn.Congested() || len(s.detached) > 0 || s.asked() >= maxAsked || s.upload != nil && s.upload.congested()
	if s.throttled {
		s.conn.Pause()
		return
	}
	s.conn.Resume()
}

// push appends r to the session's list.
func (s *session) push(r *request) {
	if s.tail == nil {
		s.head = r
	} else {
		s.tail.next = r
	}
	s.tail = r
	r.at = s.at
	s.inFlight += r.commands
}

// complete marks r as answered and hands out the replies whose turn has come.
func (s *session) complete(r *request) {
	r.done = true
	s.settle(r)
	if s.head == r {
		s.advance()
	}
	if s.stall == stallReads && s.elsewhere == 0 {
		s.stall = stallNone
		s.update()
	}
}

// place notes on which kind of connection r is now.
func (s *session) place(r *request, where place) {
	s.settle(r)
	switch r.where = where; where {
	case onWrite:
		s.onWrite += r.commands
	case elsewhere:
		s.elsewhere += r.commands
	}
}

// settle notes that r is on no connection any more.
func (s *session) settle(r *request) {
	switch r.where {
	case onWrite:
		s.onWrite -= r.commands
	case elsewhere:
		s.elsewhere -= r.commands
	}
	r.where = nowhere
	if r.detached != nil {
		r.undetach()
	}
}

// advance hands out complete replies from the head of the list on.
func (s *session) advance() {
	for r := s.head; r != nil; r = s.head {
		if len(r.reply) > 0 { // whole, or what has come of it so far
			if !r.swap {
				s.kept -= len(r.reply)
			}
			if !r.mute && !r.inner {
				s.write(r.reply)
				r.partial = r.inside
			}
			r.reply, r.whole = r.reply[:0], 0
		}
		if !r.done {
			s.resumeDetached()
			return
		}
		s.head = r.next
		if s.head == nil {
			s.tail = nil
		}
		before, asked := s.inFlight, int64(s.pos-r.at)
		s.inFlight -= r.commands
		s.w.free(r)
		if half := s.window / 2; s.throttled && (before > half && s.inFlight <= half || asked > maxAsked/2 && s.asked() <= maxAsked/2) {
			s.update()
		}
	}
	s.drained()
}

// drained goes on after the last request in flight has been answered.
func (s *session) drained() {
	if s.pin != nil && !s.pinning.lost {
		if !s.pinning.inMulti {
			s.endPinned(false)
		}
		s.unpinIfFree()
	}
	if s.stall == stallDrained || s.stall == stallReads {
		s.stall = stallNone
	}
	s.finish()
	s.update()
}

// reply answers a request by the proxy itself, in its turn.
func (s *session) reply(data []byte) { s.answer(data, route.ReasonLocal) }

// answer is reply for another reason.
func (s *session) answer(data []byte, why route.Reason) {
	s.w.endRun()
	s.w.stats.routed[why]++
	mute := s.muted()
	if s.head == nil {
		if !mute {
			s.conn.Write(data)
		}
		return
	}
	r := s.w.newRequest(s)
	r.mute = mute
	r.reply = append(r.reply, data...)
	s.kept += len(data)
	s.push(r)
	r.done = true
}

// OnEOF implements eventloop.Handler.
func (s *session) OnEOF(c *eventloop.Conn) {
	if s.pin != nil && s.pinning.blocking > 0 || s.upload != nil {
		c.Close(eventloop.ErrClosedHere) // as Redis: nothing may be popped for nobody
		return
	}
	s.eof = true
	s.finish()
}

// OnDrain implements eventloop.Handler.
func (s *session) OnDrain(*eventloop.Conn) {
	if s.pin != nil {
		s.pin.Resume()
	}
	s.resumeDetached()
	s.update()
}

// OnClose implements eventloop.Handler.
func (s *session) OnClose(_ *eventloop.Conn, err error) {
	s.closed = true
	w := s.w
	delete(w.sessions, s)
	delete(w.held, s)
	w.stats.closed(err)
	if f, ok := tlsFaultOf(err); ok && s.conn.TLSState() != nil {
		w.srv.clientTLS[f].Add(1)
	}
	w.srv.clientGone()
	if s.pin != nil {
		s.endPinned(true)
		s.pin.Close(backend.ErrRelease)
		s.pin = nil
	}
	s.endMonitor()
	s.closeDetached()
	s.leaveLanes()
	for r := s.head; r != nil; {
		next := r.next
		r.next = nil
		if r.done || r.Via == nil || len(r.held) > 0 {
			w.free(r) // no pipeline has it
		}
		r = next
	}
	s.head, s.tail = nil, nil
}

// from returns the client's address, for the log.
func (s *session) from() string {
	if s.addr != "" {
		return s.addr
	}
	return s.conn.Peer()
}

// sweep closes a session that has been idle, or lingers, for too long.
func (s *session) sweep(now int64) {
	switch {
	case s.closed:
	case s.endAt != 0 && now-s.endAt > int64(lingerFor):
		s.conn.Close(errLinger)
	case !s.authed && s.w.opt.AuthTimeout > 0 && now-s.born > int64(s.w.opt.AuthTimeout):
		s.conn.Close(errAuthTimeout)
	case s.w.opt.IdleTimeout > 0 && s.head == nil && s.stall == stallNone && !s.pinning.waits() && now-s.conn.LastRead > int64(s.w.opt.IdleTimeout):
		s.conn.Close(errIdle)
	}
}

// drain ends the session at the next moment at which nothing is in flight.
func (s *session) drain() {
	if s.pin != nil && (s.pinning.waits() || s.head == nil && !s.pinning.inMulti) {
		s.conn.Close(eventloop.ErrClosed)
		return
	}
	if s.stall == stallNone {
		s.end()
		s.update()
	}
}
