package proxy

import (
	"errors"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
)

// maxTries is how often a read is sent before its last failure is the answer.
const maxTries = 4

// place is the kind of connection that a request is on; the order of a
// session's requests depends on it.
type place uint8

const (
	nowhere   place = iota // answered, or the proxy's own
	onWrite                // the shared connection to the master that carries writes
	elsewhere              // any other
)

// request is one command of a session, or several in a row that one node
// serves, from its arrival until its reply has been handed to the client's
// connection. It belongs to the worker of its session and is used again.
type request struct {
	backend.Request
	s    *session
	next *request // of the session, in the order of arrival
	at   uint64   // its position in the client's stream

	cmd       *command.Command // the first one's; nil for an unknown one
	kind      route.Kind
	effect    effect            // what the reply changes in the session
	arg       int               // of the effect
	commands  int               // how many they are
	answered  int               // complete values that have come
	before    int               // answered when it was sent the last time
	size      int               // bytes of the reply so far
	held      []byte            // commands that wait for a master
	reply     []byte            // what came before it was this request's turn
	whole     int               // how many bytes of reply are complete values
	buckets   []causal.Bucket   // of what it writes
	index     causal.Generation // of a linearizable read, 0 for none
	where     place             // it is counted in the session there
	uploaded  int               // bytes that were streamed
	refusedBy *topology.Node    // a replica that has refused it, until the master has answered
	refusal   refusalCode
	part      int       // bytes so far of a value that comes in parts
	detached  *detached // the connection that it is on, if that is the session's own
	tries     uint8
	moved     bool // taken from a replica that did not answer
	done      bool // the reply is complete
	inside    bool // a part of a value has come, and not its end
	partial   bool // the client has been given such a part
	atomic    bool // a transaction: all of it runs or nothing
	mute      bool // the client does not want the reply (CLIENT REPLY)
	swap      bool // reply holds what the client gets in place of the node's reply
	inner     bool // ours, not the client's: the reply is dropped
	orphan    bool // in no session's list
}

// Reply implements backend.Sink.
func (r *request) Reply(_ *backend.Request, data []byte, values int) {
	s, last := r.s, r.Left == 0
	if s.closed || r.orphan {
		if last {
			s.w.free(r)
		}
		return
	}
	if r.refusedBy != nil && r.Via.Master {
		s.judgeRefusal(r, data)
	}
	if !r.inside && s.pin == nil && (data[0] == '-' && s.refused(r, data) || s.premature(r)) {
		return
	}
	if data[0] != '-' || r.inside {
		s.acknowledged(r, data, values, last)
	}
	if last {
		s.w.endWrites(r) // before the client can see the reply; not before what runs elsewhere now has run
	}
	r.size += len(data)
	r.answered += values
	r.inside = values == 0
	if last {
		s.followed(r, data)
	}
	switch {
	case r.swap, r.inner, r.mute:
	case s.head == r:
		r.partial = r.inside
		s.write(data)
	default:
		r.reply = append(r.reply, data...)
		if !r.inside {
			r.whole = len(r.reply)
		}
		s.kept += len(data)
		if s.kept > s.w.opt.OutputHardLimit {
			s.conn.Close(errReplyLimit)
		}
	}
	if r.part += len(data); !r.inside {
		r.part = 0
	}
	if r.inside || r.detached != nil {
		s.holdBack(r)
	}
	if last {
		s.sized(r.size / r.commands)
		if took := s.w.loop.Now() - r.SentAt; r.kind != route.Blocking {
			s.w.stats.observe(took, uint64(r.commands))
			if !r.Via.Master && r.detached == nil {
				s.w.stalls.slow = max(s.w.stalls.slow, took)
			}
		}
		s.complete(r)
	}
}

// Lost implements backend.Sink.
func (r *request) Lost(_ *backend.Request, l backend.Loss) {
	s := r.s
	if len(r.buckets) > 0 && (l.Whole || l.Sent > 0) {
		s.w.doubtWrites(r)
	}
	if s.closed || r.orphan {
		s.w.free(r)
		return
	}
	if r.partial {
		// The client holds half a value; only the end of the connection can
		// tell it so.
		s.settle(r)
		r.Via = nil // no pipeline has it: OnClose ends its writes
		s.conn.Close(errHalfReply)
		return
	}
	if r.inside { // what has come of a value comes again, or not at all
		s.kept -= len(r.reply) - r.whole
		r.reply, r.inside = r.reply[:r.whole], false
	}
	r.part = 0
	r.moved = r.moved || errors.Is(l.Cause, errStalled)
	if s.pin != nil {
		s.lostPinned(r, l)
		return
	}
	detached := errors.Is(l.Cause, errDetached) // that is no failure, and ends with what was before it there
	if l.Whole && !detached {
		r.tries++
	}
	if r.Class == backend.Read && r.tries < maxTries && s.again(r, l.Raw, detached) {
		return
	}
	var re *backend.ReplyError
	switch {
	case errors.As(l.Cause, &re): // the node refuses our connection: NOAUTH, WRONGPASS
		r.fail(re.Line)
	case l.Raw == nil:
		r.fail(lostError(r, l.Whole, l.Cause))
	case r.Class == backend.Read && r.tries >= maxTries: // it may be what ends the connections
		r.fail(textNoNode)
	case r.Class == backend.Read || r.atomic && !l.Whole && r.answered == 0:
		if !r.keep(r.rest(l.Raw)) {
			r.fail(noMasterText(r))
		}
	case r.atomic:
		r.fail(lostError(r, l.Whole, l.Cause))
	default:
		r.loseSent(l)
	}
}

// keepError adds an error of ours to the reply.
func (r *request) keepError(text string) {
	r.s.w.stats.failed(text)
	n := len(r.reply)
	r.reply = resp.AppendError(r.reply, text)
	r.whole = len(r.reply)
	r.s.kept += len(r.reply) - n
}

// fail completes the request with an error of ours for each value that its
// reply still lacks.
func (r *request) fail(text string) {
	for range r.Left {
		if !r.swap { // else it has its reply
			r.keepError(text)
		}
	}
	r.Left = 0
	r.s.complete(r)
}

// rest returns the bytes of the commands that have no reply yet.
func (r *request) rest(raw []byte) []byte {
	for range r.answered - r.before {
		n, _, _, _ := resp.ScanRequest(raw, &resp.DefaultLimits, r.s.w.spans[:0])
		raw = raw[n:]
	}
	return raw
}

// sendRest sends the commands that have no reply yet, on another connection.
func (r *request) sendRest(p *backend.Pipeline, raw []byte) {
	raw = r.rest(raw)
	r.before = r.answered
	r.Left = r.commands - r.answered
	r.s.place(r, elsewhere)
	r.s.w.stats.routed[route.ReasonRetry] += uint64(r.Left)
	p.Send(&r.Request, raw)
}

// newRequest takes a request from the worker's store.
func (w *worker) newRequest(s *session) *request {
	r := w.unused
	if r == nil {
		r = new(request)
		r.Sink = r
	} else {
		w.unused = r.next
		w.nUnused--
		r.next = nil
	}
	r.s = s
	r.commands, r.Left = 1, 1
	return r
}

// What a worker keeps for reuse: requests, and of each so many bytes of reply
// and buckets. A burst must not stay in memory for ever.
const (
	maxUnused      = 8192
	maxKeptReply   = 4 << 10
	maxKeptBuckets = 64
)

// free gives a request back.
func (w *worker) free(r *request) {
	w.endWrites(r) // of one that got no reply: its connection was lost, or nobody waits for it
	if w.nUnused >= maxUnused {
		return // to the garbage collector
	}
	reply, buckets := r.reply[:0], r.buckets[:0]
	if cap(reply) > maxKeptReply {
		reply = nil
	}
	if cap(buckets) > maxKeptBuckets {
		buckets = nil
	}
	*r = request{reply: reply, buckets: buckets, next: w.unused}
	r.Sink = r
	w.unused = r
	w.nUnused++
}

// classOf gives the class for retries and metrics.
func classOf(k route.Kind) backend.Class {
	switch k {
	case route.Read, route.MasterRead:
		return backend.Read
	case route.Write, route.Script, route.Blocking:
		return backend.Write
	default:
		return backend.Other
	}
}
