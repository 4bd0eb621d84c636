package proxy

import (
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/resp"
)

// holdEvery is how often held sessions look for a master. A new view makes
// them look at once; this is for a connection that rests after a failure.
const holdEvery = 10 * time.Millisecond

// hold stalls the session until there is a master again, and reports whether
// that is still worth waiting for: a failover takes seconds, and who writes
// meanwhile need not notice. From the loss of the master on it is waited for
// the failover hold in all, not for each request.
func (s *session) hold() bool {
	w := s.w
	if w.draining {
		return false
	}
	now := w.loop.Now()
	if w.masterLost == 0 && !w.paused {
		w.masterLost = now
	}
	if now-w.masterLost >= int64(w.opt.FailoverHold) && !w.paused { // a planned failover has its own limit
		return false
	}
	switch s.stall {
	case stallNone, stallReads, stallDrained, stallIndex: // with an index too nothing may overtake what is held
		s.stall = stallMaster
	case stallMaster, stallAnswer, stallEnd:
	}
	if len(w.held) == 0 {
		w.holdTimer.Reset(holdEvery)
	}
	w.held[s] = struct{}{}
	s.update()
	return true
}

// keep holds back the commands of r that have no reply yet; raw is copied.
func (r *request) keep(raw []byte) bool {
	if !r.s.hold() {
		return false
	}
	r.s.settle(r)
	r.held = append(r.held[:0], raw...)
	r.before = r.answered
	return true
}

// releaseHeld lets held sessions go on where there is a master again, and
// those that have waited too long with an error.
func (w *worker) releaseHeld() {
	if w.paused && !w.draining {
		return // resume will
	}
	over := w.draining || w.masterLost != 0 && w.loop.Now()-w.masterLost >= int64(w.opt.FailoverHold)
	for s := range w.held {
		if s.closed {
			delete(w.held, s)
			continue
		}
		p := s.lanes.write()
		if p == nil && !over {
			continue
		}
		delete(w.held, s)
		s.release(p)
	}
	if len(w.held) > 0 {
		w.holdTimer.Reset(holdEvery)
	}
}

// release sends what was held, in its order, on p, or fails it if p is nil.
// Requests that have not been taken from the client's data come after it.
func (s *session) release(p *backend.Pipeline) {
	s.scripting = false
	for _, r := range s.heldRequests() { // one that fails may be handed out with those behind it
		raw := r.held
		r.held = nil
		r.Left = r.commands - r.answered
		if p == nil {
			r.fail(noMasterText(r))
			continue
		}
		s.place(r, onWrite)
		p.Send(&r.Request, raw)
	}
	if s.stall == stallMaster {
		s.stall = stallNone
	}
	s.finish()
	s.update()
}

// heldRequests returns the requests of the session that are held, in order.
func (s *session) heldRequests() (list []*request) {
	for r := s.head; r != nil; r = r.next {
		if len(r.held) > 0 {
			list = append(list, r)
		}
	}
	return list
}

// noMasterText words the error of a request that no node has seen.
func noMasterText(r *request) string {
	if r.s.w.draining {
		return textDraining
	}
	if r.Class == backend.Read {
		return textNoNode
	}
	return textNoMaster
}

// loseSent answers the commands of r that may have run with what is known of
// them, and holds back the others. It is for requests that are not atomic.
func (r *request) loseSent(l backend.Loss) {
	end := 0
	for i := r.before; i < r.commands; i++ {
		n, _, _, err := resp.ScanRequest(l.Raw[end:], &resp.DefaultLimits, r.s.w.spans[:0])
		if err != nil || n == 0 {
			break // cannot be: the bytes were scanned before
		}
		if i >= r.answered {
			if end+n > l.Sent {
				break
			}
			r.keepError(lostError(r, true, l.Cause))
			r.answered++
		}
		end += n
	}
	r.Left = r.commands - r.answered
	switch {
	case r.Left == 0:
		r.s.complete(r)
	case !r.keep(l.Raw[end:]):
		r.fail(noMasterText(r))
	}
}
