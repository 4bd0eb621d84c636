package causal

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Applied is how far a replica was when it was last asked. It is written under
// the sampler's mu and read without.
type Applied struct {
	version atomic.Uint64 // odd while the next three are being replaced
	offset  atomic.Int64  // -1 unknown
	epoch   atomic.Uint64 // in which offset holds
	asked   atomic.Int64  // when the question was put, on Clock
	kick    chan struct{} // capacity 1: the master has moved
}

func (a *Applied) store(o repl.Offset, epoch uint64, asked int64) {
	a.version.Add(1)
	a.offset.Store(int64(o))
	a.epoch.Store(epoch)
	a.asked.Store(asked)
	a.version.Add(1)
}

// load returns what was stored last; ok is false while it is being replaced.
func (a *Applied) load() (o repl.Offset, epoch uint64, asked int64, ok bool) {
	v := a.version.Load()
	o, epoch, asked = repl.Offset(a.offset.Load()), a.epoch.Load(), a.asked.Load()
	return o, epoch, asked, v%2 == 0 && v == a.version.Load()
}

func (a *Applied) wake() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// sampleReplica samples at the busy pace until the replica is in step with the
// master, then at the idle one until the master moves.
func (s *Sampler) sampleReplica(ctx context.Context, c *asker, a *Applied, p pace) error {
	var f follower
	for ctx.Err() == nil {
		begin := time.Now()
		asked := Clock()
		epoch, id := s.history()
		full := f.unsure || f.epoch != epoch || begin.Sub(f.checked) >= recheckAfter
		r, err := c.replica(full)
		if err != nil {
			return err
		}
		if !full && (r.link != linkUp || string(r.master) != f.master) {
			f.unsure = true // its history may be another one now
			continue
		}
		if full {
			f.check(&r, id)
			f.epoch, f.checked = epoch, begin
		} else {
			f.held = r.offset
		}
		s.publish(ctx, a, f.held, epoch, asked)
		s.cfg.OnSample()
		switch {
		case f.unsure:
			p.wait(ctx, a.kick, Idle)
			p.wait(ctx, nil, unsureEvery-time.Since(begin))
		case s.inStep(f.held):
			p.wait(ctx, a.kick, Idle)
			fallthrough
		default:
			p.wait(ctx, nil, Busy-time.Since(begin))
		}
	}
	return ctx.Err()
}

// history returns the current epoch and the replication id of its master.
func (s *Sampler) history() (epoch uint64, id repl.ReplID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.epoch.Load(), s.last.id
}

// publish takes what a replica has told of itself in epoch, 0 for none.
func (s *Sampler) publish(ctx context.Context, a *Applied, o repl.Offset, epoch uint64, asked int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() == nil && (epoch == 0 || epoch == s.epoch.Load()) {
		a.store(o, epoch, asked)
	}
}

// follower is what a replica is known to be, from one connection to it.
type follower struct {
	epoch   uint64      // in which its history was last compared
	checked time.Time   // when
	id      repl.ReplID // it was this one
	master  string      // of this master
	held    repl.Offset // what its data holds; unknown at first, and in any other history than the master's
	unsure  bool        // it is not in step with a master whose history it shares: compare each time
}

// check takes a full report, to be compared with the master's history.
func (f *follower) check(r *report, master repl.ReplID) {
	if r.replID != f.id {
		f.id, f.held = r.replID, repl.UnknownOffset // what was held is a number in the other history
	}
	f.master = string(r.master)
	switch {
	case master.IsZero() || r.replID != master, r.link == linkSync:
		f.held = repl.UnknownOffset
	case r.link == linkUp:
		f.held = r.offset
	case r.kept < f.held:
		// The link is down, and what has been applied stays applied; but it would
		// not resume from there: a full sync has begun and failed meanwhile, and
		// what it serves now is what that left, maybe nothing.
		f.held = repl.UnknownOffset
	}
	f.unsure = r.link != linkUp || !f.held.IsKnown()
}

// inStep reports whether a replica that has applied o has all that was sampled
// of the master.
func (s *Sampler) inStep(o repl.Offset) bool {
	sampled, ok := s.fences.Offset(s.fences.Sampled())
	return !ok || o >= sampled
}
