package proxy

import (
	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
)

// acknowledged counts the bytes of writes whose reply, no error, is about to be
// shown. When a master is lost they tell how much was acknowledged since its
// offset was sampled last. They are the requests' bytes; what Redis puts into
// its stream may be more or less (a script's effects, a SET that became
// SET PXAT), hence an estimate.
//
// What a transaction queues counts when EXEC is answered, for only then it has
// run.
func (s *session) acknowledged(r *request, data []byte, values int, last bool) {
	n := 0
	switch {
	case s.pin != nil && s.pinning.queues:
		if last && r.Class == backend.Write {
			s.pinning.queued += uint64(r.bytes())
		}
		if !last || r.kind != route.Exec {
			return
		}
		n = int(s.pinning.queued)
		s.pinning.queued = 0
	case r.Class != backend.Write:
		return
	case r.atomic, r.uploaded > 0:
		if !last {
			return
		}
		n = r.bytes()
	default:
		n = r.bytes() * values / max(1, r.commands-r.before)
	}
	if n > 0 {
		s.w.acked.Add(uint64(n))
	}
}

// bytes returns how long the request was when it was sent the last time.
func (r *request) bytes() int { return r.Size() + r.uploaded }

// acked sums over all loops. Any goroutine may call it once Start has returned
// from making them.
func (s *Server) acked() (n uint64) {
	for _, w := range s.workers {
		n += w.acked.Load()
	}
	return n
}
