package proxy

import (
	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// maxNameBytes is how much of a request is awaited for its name: a longer name
// is no command's.
const maxNameBytes = 16 << 10

// upload is a request above streamRequest bytes. It is passed on as it arrives,
// on a pinned connection, so that neither its size nor its client's pace
// concerns any other session.
type upload struct {
	s      *session
	r      *request
	skim   resp.RequestSkimmer
	bucket causal.Bucket // of what it may write
	writes bool
}

// beginUpload starts to stream the request whose beginning is head. It returns
// false where the session has to wait first.
func (s *session) beginUpload(head []byte) bool {
	args := resp.PartialArgs(head, s.limits(), nil)
	it := item{}
	if args.Len() > 0 {
		it.cmd, it.kind = s.w.table.Lookup(args)
	}
	if args.Len() < 2 && len(head) < maxNameBytes {
		s.need = int64(len(head)) + 1 // it may be denied: its name and its subcommand must be known
		return false
	}
	if it.kind == route.Denied {
		s.replyDenied(it.cmd.Name)
		s.end() // its body is not worth receiving
		return false
	}
	if !s.authed {
		s.replyError("NOAUTH Authentication required.")
		s.end()
		return false
	}
	if s.doom >= doomQueued { // it would run by itself
		s.replyError(textInAborted)
		s.end()
		return false
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
		s.end()
		return false
	}
	s.pinning.ahead = true // so that it stays while what is kept for it is told the node
	if s.pin.State() != backend.Ready {
		s.awaitPin()
		return false
	}
	if s.inFlight > 0 { // it is being told
		s.stall = stallDrained
		return false
	}
	s.pinning.ahead = false
	r := s.w.newRequest(s)
	r.cmd, r.kind, r.Class = it.cmd, it.kind, classOf(it.kind)
	if it.kind == route.Watch {
		r.effect = effectWatch
	}
	if r.Class == backend.Read {
		r.Class = backend.Other // its bytes are not kept: it cannot be sent again
	}
	if it.kind == route.Blocking || it.kind == route.Wait {
		s.pinning.blocking++
	}
	r.mute = s.muted()
	s.push(r)
	s.place(r, elsewhere)
	s.w.stats.routed[route.ReasonPinned]++
	s.noteWrite(it.kind)
	s.upload = &upload{s: s, r: r}
	s.upload.bucket, s.upload.writes = s.w.uploadBucket(&it, args)
	s.pin.BeginStream(&r.Request, func() { s.update() })
	return true
}

// feed passes on a part of the request and returns how much it took.
func (u *upload) feed(data []byte) int {
	s := u.s
	if s.pin == nil || u.congested() || len(data) == 0 {
		s.update()
		return 0
	}
	n, done, err := u.skim.Skim(data, &resp.DefaultLimits)
	if err != nil {
		s.upload = nil
		u.r.inner = true // no reply of its own comes, ever: the node holds a part of it
		s.protocolError(err)
		s.pin.Close(backend.ErrRelease)
		return len(data)
	}
	if done && u.writes { // before its last byte it cannot run, however long that takes
		s.beginUploaded(u.r, u.bucket)
	}
	u.r.uploaded += n
	s.pin.Stream(data[:n], done)
	if done {
		s.upload = nil
	}
	return n
}

// congested reports whether the node takes the request slower than it comes.
func (u *upload) congested() bool { return u.s.pin != nil && u.s.pin.Congested() }
