package proxy

import (
	"errors"
	"fmt"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// doom is what is left of a transaction whose connection to the master was
// lost: the session goes on, but what was begun there must not run by halves.
type doom uint8

const (
	doomNone    doom = iota
	doomWatched      // keys were watched: the next transaction ends as if one of them had been changed
	doomQueued       // and MULTI has come: commands are taken and not run, EXEC answers nil
	doomAborted      // MULTI had come: commands get an error, EXEC fails
)

const (
	textAborted = "EXECABORT Transaction discarded because of previous errors: the connection to the master " +
		"was lost before EXEC was sent, so nothing of it has run. Send it again"
	textInAborted = "SLUICE_NOMASTER the connection to the master was lost in the middle of this transaction; " +
		"nothing of it has run, and EXEC will fail. Send it again"
	textBeforeExec = "SLUICE_UNCERTAIN the connection to the master was lost in the middle of this transaction; " +
		"the reply of its EXEC tells whether it may have run"
	textNested      = "ERR MULTI calls can not be nested"
	textWatchInside = "ERR WATCH inside MULTI is not allowed"
)

// serveDoomed answers what concerns a transaction that is lost. It returns
// false for a request that is served as any other.
func (s *session) serveDoomed(args resp.Args, it *item) bool {
	k := it.kind
	if it.cmd == nil || !it.arityOK() {
		if s.doom == doomWatched {
			return false
		}
		k = route.Other
	}
	if k == route.Reset {
		s.doom = doomNone
		return false
	}
	if s.doom == doomWatched {
		switch k {
		case route.Multi:
			s.doom = doomQueued
		case route.Unwatch:
			s.doom = doomNone
		case route.Watch:
		default:
			return false
		}
		s.replyOK()
		return true
	}
	switch k {
	case route.Exec:
		aborted := s.doom == doomAborted
		s.doom = doomNone
		if aborted {
			s.replyError(textAborted)
		} else {
			s.reply(resp.AppendNullArray(nil, s.id.Proto))
		}
	case route.Discard:
		s.doom = doomNone
		s.replyOK()
	case route.Quit:
		s.replyOK()
		s.end()
	case route.Multi:
		s.replyError(textNested)
	case route.Watch:
		s.replyError(textWatchInside)
	default:
		s.queueDoomed(args, it)
	}
	return true
}

// queueDoomed answers a command inside of a transaction that is lost.
func (s *session) queueDoomed(args resp.Args, it *item) {
	switch {
	case s.doom == doomAborted:
		s.replyError(textInAborted)
		return
	case it.cmd == nil:
		s.replyError(fmt.Sprintf("ERR unknown command '%.128s'", args.At(0)))
	case it.kind == route.Denied:
		s.replyDenied(it.cmd.Name)
	case !it.arityOK():
		s.replyError(fmt.Sprintf("ERR wrong number of arguments for '%s' command", it.cmd.Name))
	default:
		s.reply([]byte("+QUEUED\r\n"))
		return
	}
	s.doom = doomAborted
}

// lostPinned answers r, which was in flight on the session's own connection
// when that was lost, and follows the session's state as if the node had
// answered: a MULTI that it may not have seen begins a transaction too, or what
// the client sends behind it would run without.
func (s *session) lostPinned(r *request, l backend.Loss) {
	p := &s.pinning
	if !p.lost {
		p.lost = true
		s.endPinned(true)
	}
	if r.kind == route.Blocking || r.kind == route.Wait {
		p.blocking--
	}
	// Whether these have changed a state that only the node knows cannot be told.
	p.sticky = p.sticky || r.effect >= effectReset || r.uploaded > 0 || s.upload != nil
	var re *backend.ReplyError
	switch {
	case errors.As(l.Cause, &re): // the node refuses our connection: NOAUTH, WRONGPASS
		p.sticky = true
		r.fail(re.Line)
	case r.inner:
		r.settleLost("")
	case r.kind == route.Multi && !p.inMulti:
		p.inMulti = true
		r.settleLost("+OK\r\n")
	case r.kind == route.Multi:
		r.fail(textNested)
	case r.kind == route.Discard && p.inMulti: // it can at most have done that
		p.inMulti, p.watching = false, false
		r.settleLost("+OK\r\n")
	case r.kind == route.Watch && !p.inMulti: // a key that may be watched counts as changed
		p.watching = true
		r.settleLost("+OK\r\n")
	case r.kind == route.Unwatch && !p.inMulti:
		p.watching = false
		r.settleLost("+OK\r\n")
	case r.kind == route.Exec && p.inMulti:
		p.inMulti, p.watching = false, false
		if l.Whole {
			r.fail(lostError(r, true, l.Cause))
		} else {
			r.fail(textAborted)
		}
	case !p.inMulti:
		r.fail(lostError(r, l.Whole, l.Cause))
	case r.beforeExec():
		r.fail(textBeforeExec)
	default:
		r.fail(textInAborted)
	}
}

// beforeExec reports whether an EXEC of r's session has been sent behind r.
func (r *request) beforeExec() bool {
	for n := r.next; n != nil; n = n.next {
		if n.kind == route.Exec {
			return true
		}
	}
	return false
}

// settleLost completes a request that has no reply with one of ours.
func (r *request) settleLost(reply string) {
	r.reply = append(r.reply, reply...)
	r.s.kept += len(reply)
	r.Left = 0
	r.s.complete(r)
}

// Gone implements backend.Tunnel. A transaction is doomed, and the session goes
// on; where the node knew any other state of it that is now lost, the client
// must begin anew, as it would without a proxy.
func (s *session) Gone(error) {
	if s.closed || s.pin == nil {
		return
	}
	s.endPinned(true)
	s.endMonitor()
	p := s.pinning
	ends := s.stall == stallEnd || s.stall == stallAnswer || s.upload != nil || p.sticky || p.subs.any()
	s.pin, s.pinning = nil, pinState{}
	if !ends {
		switch {
		case p.inMulti:
			s.doom = doomAborted
		case p.watching:
			s.doom = doomWatched
		}
		if s.stall == stallDrained || s.stall == stallReads {
			s.stall = stallNone
		}
		s.finish()
		s.update()
		return
	}
	if s.stall != stallEnd {
		s.w.stats.closedLost++
	}
	if s.stall == stallAnswer { // no connection could be made, and nothing was sent
		s.replyError(textNoMaster)
	}
	s.end()
	s.update()
}
