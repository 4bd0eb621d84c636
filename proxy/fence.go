package proxy

import (
	"slices"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
	"github.com/sluice-io/sluice/syncer/repl"
)

// maxPinnedBuckets bounds what a pinned session notes of its writes; beyond it
// stands for all keys.
const maxPinnedBuckets = 1024

// keysOf returns the arguments of a command that are keys; known is false where
// there may be others.
func (w *worker) keysOf(cmd *command.Command, args resp.Args) (keys []int, known bool) {
	if cmd == nil {
		return nil, false
	}
	if oneKey(cmd) && args.Len() > 1 {
		w.keys = append(w.keys[:0], 1)
		return w.keys, true
	}
	w.keys, known = cmd.AppendKeys(w.keys[:0], args)
	return w.keys, known
}

// oneKey reports whether the first argument is the only key, in every use of
// the command.
func oneKey(cmd *command.Command) bool {
	return cmd.FirstKey == 1 && cmd.LastKey == 1 && len(cmd.KeySpecs) <= 1 && !cmd.Flags.Has(command.MovableKeys)
}

// written appends the buckets of what a command may write to dst. It must be
// followed by Begin.
func (w *worker) written(dst []causal.Bucket, it *item, args resp.Args) []causal.Bucket {
	switch {
	case w.fences == nil:
		return dst
	case it.cmd != nil && it.kind != route.Script && it.cmd.Flags&command.Write == 0:
		return dst // administration, publishing
	}
	keys, known := w.keysOf(it.cmd, args)
	if !known || len(keys) == 0 { // FLUSHALL, a script that names no key, an unknown command
		return append(dst, causal.Global)
	}
	for _, k := range keys {
		dst = append(dst, w.fences.Key(args.At(k)))
	}
	return dst
}

// beginWrite notes that r, which gets one more command, is about to be sent.
func (w *worker) beginWrite(r *request, it *item, args resp.Args) {
	n := len(r.buckets)
	r.buckets = w.written(r.buckets, it, args)
	for _, b := range r.buckets[n:] {
		w.fences.Begin(b)
	}
}

// endWrites notes that all writes of r have been answered, or will not be sent
// again.
func (w *worker) endWrites(r *request) {
	for _, b := range r.buckets {
		w.fences.End(b)
	}
	r.buckets = r.buckets[:0]
}

// doubtWrites notes that the connection which carried r is gone. What may have
// run may also run yet: Redis takes from a connection's buffer what has
// arrived, though the connection has ended. It has done so when a connection
// that was begun later has been answered; until then reads stay on the master.
func (w *worker) doubtWrites(r *request) {
	w.doubt(r.buckets)
	for _, b := range r.buckets { // r itself may be sent again
		w.fences.Begin(b)
	}
}

// doubt is the bucket of a write that may have run, or may yet, and the loop
// time at which its connection was lost.
type doubt struct {
	bucket causal.Bucket
	at     int64
}

func (w *worker) doubt(lost []causal.Bucket) {
	for _, b := range lost {
		w.doubted = append(w.doubted, doubt{b, w.loop.Now()})
	}
}

// connected is called with each new connection.
func (w *worker) connected(p *backend.Pipeline) {
	if p.Master && p.Node == w.view.Master {
		w.masterLost = 0 // the next loss is waited for anew
	}
	if w.fences != nil && !p.Master {
		w.sampler.Kick(p.Node) // only a sample taken from now on counts for it
	}
	if !p.Master || p.Node != w.view.Master {
		return
	}
	w.doubted = slices.DeleteFunc(w.doubted, func(d doubt) bool {
		if p.DialedAt <= d.at {
			return false
		}
		w.fences.End(d.bucket)
		return true
	})
}

// need returns what a replica must have applied to answer a read. reason says
// why only the master may, if ok is false.
func (w *worker) need(it *item, args resp.Args) (need repl.Offset, reason route.Reason, ok bool) {
	keys, known := w.keysOf(it.cmd, args)
	if !known || len(keys) == 0 {
		return 0, route.ReasonKeysUnknown, false
	}
	w.epoch = w.sampler.Epoch()
	need, ok = w.fences.Need(causal.Global)
	for i := 0; ok && i < len(keys); i++ {
		var o repl.Offset
		o, ok = w.fences.Need(w.fences.Key(args.At(keys[i])))
		need = max(need, o)
	}
	return need, route.ReasonFenceFresh, ok
}

// applied reports whether the replica of p may answer the read that need was
// asked for last, and needs this offset.
func (w *worker) applied(p *backend.Pipeline, need repl.Offset) bool {
	if p.State() != backend.Ready {
		p.Open()
		return false
	}
	if w.sampler.HasApplied(p.Node, need, w.epoch, p.ReadySince) {
		return true
	}
	w.sampler.Kick(p.Node)
	return false
}

// fenced returns the connection for a read under causal consistency.
func (s *session) fenced(it *item, args resp.Args) (*backend.Pipeline, route.Reason) {
	w := s.w
	need, reason, ok := w.need(it, args)
	if !ok {
		return s.lanes.masterReads(), reason
	}
	p := s.lanes.replica(s.policy)
	if p != nil && p.Master {
		return p, route.ReasonNearest
	}
	if p = s.replicaPast(p, need); p != nil {
		return p, w.readReason(p)
	}
	if !s.replicaReady() {
		return s.lanes.masterReads(), route.ReasonNoReplica
	}
	return s.lanes.masterReads(), route.ReasonFenceBehind
}

// replicaPast returns a connection to a replica that has applied need: p if it
// has, else one of our zone before others; nil where none is known to.
func (s *session) replicaPast(p *backend.Pipeline, need repl.Offset) *backend.Pipeline {
	w := s.w
	if p != nil && w.applied(p, need) {
		return p
	}
	for _, nodes := range [...][]*topology.Node{w.near.own, w.view.Readable} {
		for _, n := range nodes {
			if q := s.lanes.reads(n, false); q != nil && q != p && w.applied(q, need) {
				return q
			}
		}
	}
	return nil
}

// fits reports whether a read may join a run that goes to p.
func (s *session) fits(p *backend.Pipeline, it *item, args resp.Args) bool {
	if s.linear {
		return s.covered(it) || p.Master && s.w.run.r.index == 0
	}
	need, _, ok := s.w.need(it, args)
	if p.Master {
		return !ok
	}
	return ok && s.w.applied(p, need)
}

// admits reports whether p may answer all the commands in raw, which are reads,
// the rest of r, and are being sent again.
func (s *session) admits(p *backend.Pipeline, r *request, raw []byte) bool {
	switch {
	case p.Master:
		return true
	case s.linear:
		need, ok := s.w.needOf(r.index)
		return ok && r.index != 0 && s.w.applied(p, need)
	case !s.causal:
		return true
	}
	for len(raw) > 0 {
		n, _, spans, err := resp.ScanRequest(raw, &resp.DefaultLimits, s.w.again[:0])
		if err != nil || n == 0 {
			return false
		}
		s.w.again = spans
		args := resp.Args{Buf: raw[:n], Spans: spans}
		it := item{}
		it.cmd, it.kind = s.w.table.Lookup(args)
		if need, _, ok := s.w.need(&it, args); !ok || !s.w.applied(p, need) {
			return false
		}
		raw = raw[n:]
	}
	return true
}

// beginPinned notes what r may write, which is about to be sent on the session's
// own connection. Once a MULTI has been sent it is not r's reply that tells that
// it has been written, so it counts as in flight until the session is out of
// the transaction and nothing is in flight.
func (s *session) beginPinned(r *request, it *item, args resp.Args) {
	p, w := &s.pinning, s.w
	p.queues = p.queues || it.kind == route.Multi
	if w.fences == nil {
		return
	}
	if !p.queues {
		w.beginWrite(r, it, args)
		return
	}
	n := len(p.buckets)
	p.buckets = w.written(p.buckets, it, args)
	if len(p.buckets) > maxPinnedBuckets && n > 0 && p.buckets[n-1] == causal.Global {
		p.buckets = p.buckets[:n] // covered by what is noted already
		return
	}
	if len(p.buckets) > maxPinnedBuckets {
		p.buckets = append(p.buckets[:n], causal.Global)
	}
	for _, b := range p.buckets[n:] {
		w.fences.Begin(b)
	}
}

// endPinned notes that everything on the session's own connection has been
// answered and no transaction is open, or that the connection is gone.
func (s *session) endPinned(lost bool) {
	if lost {
		s.w.doubt(s.pinning.buckets)
	} else {
		for _, b := range s.pinning.buckets {
			s.w.fences.End(b)
		}
		s.w.acked.Add(s.pinning.queued)
	}
	s.pinning.buckets, s.pinning.queues, s.pinning.queued = s.pinning.buckets[:0], false, 0
}

// uploadBucket returns the bucket of what a command may write whose arguments
// have not all arrived; ok is false where it writes nothing.
func (w *worker) uploadBucket(it *item, args resp.Args) (b causal.Bucket, ok bool) {
	switch {
	case w.fences == nil, it.cmd != nil && it.kind != route.Script && it.cmd.Flags&command.Write == 0:
		return 0, false
	case it.cmd != nil && oneKey(it.cmd) && args.Len() > 1:
		return w.fences.Key(args.At(1)), true
	}
	return causal.Global, true
}

// beginUploaded notes that the last part of r, an upload, is about to be sent.
func (s *session) beginUploaded(r *request, b causal.Bucket) {
	to := &r.buckets
	if s.pinning.queues {
		to = &s.pinning.buckets
	}
	*to = append(*to, b)
	s.w.fences.Begin(b)
}

// replicaReady reports whether the connection to any replica stands. While the
// first ones are being made it is not the fences that keep reads from them.
func (s *session) replicaReady() bool {
	for _, n := range s.w.view.Readable {
		if p := s.lanes.reads(n, false); p != nil && p.State() == backend.Ready {
			return true
		}
	}
	return false
}
