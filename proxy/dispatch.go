package proxy

import (
	"bytes"
	"slices"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// serve handles item i of the batch, and maybe some that follow it, and
// returns how many; 0 where the item must come again once the session's stall
// is over.
func (s *session) serve(data []byte, i int, mixed bool) int {
	w := s.w
	it := &w.batch[i]
	raw := data[it.off : it.off+it.n]
	args := resp.Args{Buf: raw, Spans: w.spans[it.first:it.after]}
	if w.extendRun(s, it, args) {
		return 1
	}
	w.endRun()
	if it.inline {
		var ok bool
		if raw, args, ok = s.normalize(raw); !ok {
			return 1
		}
		it.cmd, it.kind = w.table.Lookup(args) // now without quotes
	}
	if !s.authed && !openToAll(it.kind) {
		s.reply(resp.AppendError(nil, "NOAUTH Authentication required."))
		return 1
	}
	if s.doom != doomNone && s.serveDoomed(args, it) {
		return 1
	}
	var done bool
	switch {
	case s.pin != nil:
		done = s.servePinned(raw, args, it)
	case it.kind >= route.Denied:
		done = s.serveLocal(raw, args, it, mixed)
	case it.kind == route.Multi:
		if n := s.sendTransaction(data, i); n > 0 {
			return n
		}
		done = s.stall == stallNone && s.pinFor(raw, args, it)
	case it.kind == route.Kill:
		done = s.kill(raw, it)
	case it.kind >= route.Blocking:
		done = s.pinFor(raw, args, it)
	default:
		done = s.forward(raw, args, it, mixed)
	}
	if !done {
		return 0
	}
	return 1
}

// openToAll reports whether a client may send it before it has authenticated
// (CMD_NO_AUTH).
func openToAll(k route.Kind) bool {
	return k == route.Auth || k == route.Hello || k == route.Quit || k == route.Reset
}

// normalize makes an array of an inline request, so that it can stand in a
// pipeline with any other.
func (s *session) normalize(line []byte) ([]byte, resp.Args, bool) {
	w := s.w
	var err error
	w.norm, err = resp.NormalizeInline(w.norm[:0], line)
	if err != nil {
		s.protocolError(err)
		return nil, resp.Args{}, false
	}
	first := len(w.spans)
	_, _, w.spans, err = resp.ScanRequest(w.norm, &resp.DefaultLimits, w.spans)
	if err != nil {
		s.protocolError(err)
		return nil, resp.Args{}, false
	}
	return w.norm, resp.Args{Buf: w.norm, Spans: w.spans[first:]}, true
}

// forward sends a request that needs no connection of its own.
func (s *session) forward(raw []byte, args resp.Args, it *item, mixed bool) bool {
	w := s.w
	target, reason := route.Decide(it.kind, route.Session{
		OnWrite: s.onWrite, Elsewhere: s.elsewhere, Mixed: mixed, Policy: s.policy,
	}, len(w.view.Readable))
	if target == route.Hold {
		s.stall = stallReads
		return false
	}
	var p *backend.Pipeline
	fenced, indexed := target == route.Replica && s.causal, target == route.Replica && s.linear
	switch {
	case fenced:
		p, reason = s.fenced(it, args)
	case indexed:
		var wait bool
		if p, reason, wait = s.indexed(it); wait {
			return false
		}
	default:
		p = s.pipeline(target, w.scripted, &reason)
	}
	if p == nil && s.hold() {
		return false // this request comes again
	}
	r := w.newRequest(s)
	r.cmd, r.kind = it.cmd, it.kind
	r.Class = classOf(it.kind)
	r.mute = s.muted()
	if indexed && s.covered(it) {
		r.index = s.index.gen
	}
	s.push(r)
	if p == nil {
		r.fail(noMasterText(r))
		return true
	}
	if target == route.MasterWrite {
		s.place(r, onWrite)
	} else {
		s.place(r, elsewhere)
	}
	if r.Class != backend.Read {
		s.noteWrite(it.kind)
		w.beginWrite(r, it, args)
	}
	if it.kind == route.Other {
		s.noteScript(it, args)
	}
	w.stats.routed[reason]++
	w.run = run{r: r, p: p, raw: raw, end: it.off + it.n, reason: reason, fenced: fenced || indexed}
	if it.inline {
		w.run.end = -1 // raw is no part of the session's data
	}
	return true
}

// run is the request that is being put together: commands of one kind that
// follow each other in a session's data go to the node as one request, which
// costs one copy and one place in each queue, not one for each command.
type run struct {
	r      *request // nil where there is none
	p      *backend.Pipeline
	raw    []byte // a part of the session's data
	end    int    // where it ends in there
	reason route.Reason
	fenced bool // its node was chosen by the fences, or by the read index
}

// extendRun adds a command to the run if it is of the same kind and follows
// directly.
func (w *worker) extendRun(s *session, it *item, args resp.Args) bool {
	run := &w.run
	r := run.r
	if r == nil || it.kind != r.kind || it.off != run.end || it.inline || it.kind != route.Read && it.kind != route.Write || r.mute != (s.silent == replyOff) {
		return false
	}
	if it.kind == route.Write {
		w.beginWrite(r, it, args)
	} else if run.fenced && !s.fits(run.p, it, args) {
		return false
	}
	run.raw = run.raw[:len(run.raw)+it.n]
	run.end += it.n
	r.commands++
	r.Left++
	s.inFlight++
	if r.where == onWrite {
		s.onWrite++
	} else {
		s.elsewhere++
	}
	w.stats.routed[run.reason]++
	return true
}

// endRun sends the run, if there is one.
func (w *worker) endRun() {
	if r := w.run.r; r != nil {
		w.run.r = nil
		w.run.p.Send(&r.Request, w.run.raw)
	}
}

// pipeline returns the connection for a target, nil where none can be had.
func (s *session) pipeline(t route.Target, script bool, reason *route.Reason) *backend.Pipeline {
	switch t {
	case route.MasterWrite:
		return s.writes(script)
	case route.Replica:
		if p := s.lanes.replica(s.policy); p != nil {
			*reason = s.w.readReason(p)
			return p
		}
		*reason = route.ReasonNoReplica
	}
	return s.lanes.masterReads()
}

// writes returns the connection that carries the session's writes: while some
// are unanswered the one that they are on, so that they stay in their order.
// Scripts begin on one of their own, so that behind a script that does not end
// only those wait who run scripts, and the others get the node's -BUSY. nil:
// there is no master, or it cannot be reached now.
func (s *session) writes(script bool) *backend.Pipeline {
	if s.onWrite == 0 {
		s.scripting = script
	}
	if s.scripting {
		return s.lanes.scripts()
	}
	return s.lanes.write()
}

// retryCodes are the error replies after which another node may answer a read.
// None of them means that the command has run.
var retryCodes = [][]byte{
	[]byte("LOADING"), []byte("MASTERDOWN"), []byte("BUSY"), []byte("NOSCRIPT"),
	[]byte("NOPERM"), []byte("NOAUTH"), []byte("WRONGPASS"), []byte("READONLY"),
}

// refused handles an error reply. It returns true where the request goes on
// elsewhere and the client is not to see it.
func (s *session) refused(r *request, reply []byte) bool {
	if r.Class == backend.Read {
		return s.retry(r, reply)
	}
	if s.reload(r, reply) {
		return true
	}
	if !demoted(r, reply) {
		return false
	}
	// It was the master, and nothing was run: the new one gets it.
	s.w.srv.topo.ReportReadonly(r.Via.Node)
	if r.atomic || r.kind == route.Other || !r.keep(r.rest(r.Raw())) {
		return false
	}
	r.abandon()
	r.Via.Retire(errDemoted) // what is in flight behind r is answered: maybe likewise
	return true
}

// demoted reports whether reply says that nothing of r was run since the node is
// a replica. A script can answer with any code, after whatever it has written:
// there only Redis's own words count.
func demoted(r *request, reply []byte) bool {
	if r.kind == route.Script {
		return bytes.HasPrefix(reply, []byte("-READONLY You can't write against a read only"))
	}
	return bytes.HasPrefix(reply, []byte("-READONLY "))
}

// abandon has an orphan take the rest of r's replies, if any are to come. r must
// be at the head of its connection, or have been answered.
func (r *request) abandon() {
	if r.Left > 0 {
		o := r.s.w.newRequest(r.s)
		o.orphan = true
		r.Via.Replace(&r.Request, &o.Request)
	}
}

// premature holds back a read that has been answered while a request of its
// session that stands before it is held: it would not show what that writes.
func (s *session) premature(r *request) bool {
	if r.Class != backend.Read || r.where != onWrite || len(s.w.held) == 0 || !r.behindHeld() || !r.keep(r.rest(r.Raw())) {
		return false
	}
	r.abandon()
	return true
}

// behindHeld reports whether a request before r in its session is held.
func (r *request) behindHeld() bool {
	for q := r.s.head; q != nil && q != r; q = q.next {
		if len(q.held) > 0 {
			return true
		}
	}
	return false
}

// retry sends a read to the master after a replica has refused it. Whatever
// else the replica is going to say to the same request is not waited for.
func (s *session) retry(r *request, reply []byte) bool {
	if r.Via.Master || !slices.ContainsFunc(retryCodes, func(c []byte) bool { return bytes.Equal(c, resp.ErrorCode(reply)) }) {
		return false
	}
	p := s.lanes.masterReads()
	raw := r.Raw()
	if p == nil && !r.keep(r.rest(raw)) {
		return false
	}
	if code := refusalOf(string(resp.ErrorCode(reply))); code != notRefused {
		r.refusedBy, r.refusal = r.Via.Node, code
	}
	r.abandon()
	if p != nil {
		r.sendRest(p, raw)
	}
	return true
}

// again goes on with a read whose connection has died, or was taken from it. One
// from the connection that carries writes goes back there with what it stood
// between: elsewhere it could overtake a write that is held, or be overtaken.
func (s *session) again(r *request, raw []byte, detached bool) bool {
	if r.where == onWrite && !detached && r.keep(r.rest(raw)) {
		return true
	}
	return s.resend(r, raw)
}

// resend sends a read whose connection died to another node.
func (s *session) resend(r *request, raw []byte) bool {
	var p *backend.Pipeline
	if r.kind == route.Read && s.policy != route.OnlyMaster && r.where != onWrite {
		s.lanes.chosen = nil
		if p = s.lanes.replica(s.policy); p != nil && !s.admits(p, r, r.rest(raw)) {
			p = nil
		}
	}
	if p == nil { // also what was behind a write of its session: only the master has that
		p = s.lanes.masterReads()
	}
	if p == nil {
		return false
	}
	r.sendRest(p, raw)
	return true
}
