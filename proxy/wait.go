package proxy

import (
	"errors"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// WAIT and WAITAOF wait for the replication offset that Redis has noted for
// their connection. A session's writes have gone on a shared connection, and
// WAIT must not: it would hold up all who share it. So it goes on one of the
// session's own, on which the offset of now is noted before: that covers all
// that the session has written. See DESIGN.md, "WAIT".

// textWaitRefused answers WAIT where the offset cannot be noted: Redis would
// answer as if nothing had been written.
const textWaitRefused = "NOPERM WAIT cannot wait for what this client has written before: neither its user nor sluice's own may " +
	"SPUBLISH to " + backend.OffsetChannel + ". Give one of them +spublish and &" + backend.OffsetChannel

// offsetNote is how far the note is on a pinned connection.
type offsetNote uint8

const (
	offsetOpen    offsetNote = iota // not noted since the connection is the session's
	offsetAsked                     // the node has been asked to
	offsetNoted                     // WAIT covers what was written on other connections
	offsetRefused                   // the user may not do what it takes
)

// prepareWait sees to it that WAIT waits for what the session has written on
// other connections. It returns true where the request is dealt with: it has
// been answered, or, if ok is false, it has to come again.
func (s *session) prepareWait() (dealt, ok bool) {
	if s.waitRefused == "" && !s.catchUp() {
		return true, false
	}
	s.pinning.ahead = false
	if s.waitRefused == "" {
		return false, true
	}
	s.w.srv.waitLog.warn("a client's WAIT is refused: nobody may publish what it takes to note the replication offset",
		zap.String("client", s.from()), zap.String("user", s.id.User), zap.String("channel", backend.OffsetChannel))
	text := s.waitRefused
	s.waitRefused = "" // the next one may fare better
	s.replyError(text)
	if s.pin != nil && s.inFlight == 0 {
		s.unpinIfFree()
	}
	return true, true
}

// catchUp notes the offset, unless that is not needed. It returns false where
// the session has to wait first.
func (s *session) catchUp() bool {
	p := &s.pinning
	switch {
	case !s.wrote, p.offset == offsetNoted:
		return true
	case s.inFlight > 0:
		p.ahead, s.stall = true, stallDrained
		return false
	case p.inMulti, s.id.Proto == 2 && p.subs.any():
		return true // in MULTI it waits for nothing, and a subscriber is refused
	case p.offset == offsetRefused, s.lanes.noOffset:
		return s.catchUpAnew()
	}
	words := [][]byte{[]byte("PING")}
	if s.w.srv.publishesOffset() {
		words = backend.NoteOffset()
	}
	s.sendInner(words...).effect = effectOffset
	p.offset, p.ahead = offsetAsked, true
	s.stall = stallDrained
	return false
}

// publishesOffset reports whether the master notes the offset only with
// commands that it passes on to replicas. Redis before 7.2 does with any.
func (s *Server) publishesOffset() bool {
	v := s.serverVersion()
	return v == unknownVersion || versionAtLeast(v, 7, 2)
}

// offsetReplied takes what the node says to the note.
func (s *session) offsetReplied(reply []byte) {
	s.pinning.offset = offsetNoted
	if reply[0] == '-' {
		s.pinning.offset = offsetRefused
		s.lanes.noOffset = string(resp.ErrorCode(reply)) == "NOPERM" // not to be asked, and logged there, each time
	}
}

// catchUpAnew is catchUp for a user who may not publish: on another connection,
// in whose handshake our own user does, before the client's logs in.
func (s *session) catchUpAnew() bool {
	p := &s.pinning
	p.ahead = false
	if !s.id.Authenticated() || !p.free() || s.w.view.Master == nil || s.w.paused {
		p.offset, s.waitRefused = offsetOpen, textWaitRefused
		return true
	}
	s.dropPin()
	id := s.id
	id.NoteOffset = s.w.srv.publishesOffset()
	fresh := s.w.newPipeline(s.w.view.Master, id, true)
	fresh.WhenReady(func(error) {
		if s.closed {
			fresh.Close(backend.ErrRelease)
		}
	})
	s.await(fresh, func(err error) {
		if err == nil {
			s.takePin(fresh)
			s.pinning.offset, s.pinning.ahead = offsetNoted, true
			return
		}
		fresh.Close(backend.ErrRelease)
		s.waitRefused = setupError(err)
		var re *backend.ReplyError
		if errors.As(err, &re) && re.Command == backend.OffsetCommand {
			s.waitRefused = textWaitRefused
		}
	})
	return false
}

// noteWrite remembers that the session has sent what may write: a WAIT that
// follows is to wait for it.
func (s *session) noteWrite(k route.Kind) { s.wrote = s.wrote || classOf(k) != backend.Read }
