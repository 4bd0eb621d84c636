package causal

import (
	"hash/maphash"
	"sync/atomic"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Buckets is the number of buckets that keys are hashed to. Two keys in one
// bucket share a fence, which costs a read on the master now and then and is
// never wrong.
const Buckets = 1 << 16

// Global is the bucket of writes whose keys are not known; every read looks at
// it too.
const Global Bucket = Buckets

// history is how many generations the offsets are kept of. An older fence is
// taken for the oldest that is kept, which asks for more than needed.
const history = 1 << 16

// Bucket names a bucket: the hash of a key, or Global.
type Bucket uint32

// Generation numbers the samples of the master's offset, from 1.
type Generation uint64

// bucket is the state of the keys with one hash.
type bucket struct {
	inFlight atomic.Int64  // writes sent and not answered
	fence    atomic.Uint64 // generation whose sample covers the last answered write
}

// Fences are shared by all event loops and the sampler. All methods may be
// called by any goroutine; none blocks or allocates.
type Fences struct {
	seed    maphash.Seed
	buckets [Buckets + 1]bucket

	gen     atomic.Uint64 // the generation that writes are acknowledged in now
	sampled atomic.Uint64 // newest generation with an offset; 0 none
	floor   atomic.Uint64 // fences below count as this
	offsets [history]atomic.Int64

	dirty  atomic.Bool
	wake   chan struct{} // capacity 1: something was written
	urged  atomic.Bool
	urgent chan struct{} // capacity 1: a read waits for a sample, or had to go to the master without one
}

// NewFences returns fences under which every read goes to the master until the
// first sample.
func NewFences() *Fences {
	f := &Fences{seed: maphash.MakeSeed(), wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
	f.gen.Store(1)
	f.floor.Store(1)
	return f
}

// Key returns the bucket of a key. The database is not looked at: MOVE and COPY
// reach from one into another.
func (f *Fences) Key(key []byte) Bucket {
	return Bucket(maphash.Bytes(f.seed, key) % Buckets)
}

// Begin is called before a write is sent.
func (f *Fences) Begin(b Bucket) { f.buckets[b].inFlight.Add(1) }

// End is called for each Begin after the reply has come and before the client
// can see it.
func (f *Fences) End(b Bucket) {
	k := &f.buckets[b]
	for g := f.gen.Load(); ; {
		old := k.fence.Load()
		if old >= g || k.fence.CompareAndSwap(old, g) {
			break
		}
	}
	k.inFlight.Add(-1) // only now: a reader sees the write in flight or its fence
	f.MarkDirty()
}

// Cancel is called in place of End for a write that has certainly not run.
func (f *Fences) Cancel(b Bucket) { f.buckets[b].inFlight.Add(-1) }

// MarkDirty asks for a sample of the current generation, in its time.
func (f *Fences) MarkDirty() {
	if f.dirty.Load() || f.dirty.Swap(true) {
		return
	}
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// Urge asks for a sample of the current generation soon: somebody reads what
// depends on it.
func (f *Fences) Urge() {
	if !f.urged.Load() && !f.urged.Swap(true) {
		select {
		case f.urgent <- struct{}{}:
		default:
		}
	}
	f.MarkDirty()
}

// Current returns the generation that is current now: a sample of it is taken
// after this call began.
func (f *Fences) Current() Generation { return Generation(f.gen.Load()) }

// Sampled returns the newest generation that has been sampled.
func (f *Fences) Sampled() Generation { return Generation(f.sampled.Load()) }

// Need returns the offset that a replica must have applied before it may
// answer a read of the keys in b. ok is false where only the master may: a
// write is in flight, or the last one is too fresh to have been sampled, which
// is urged then.
func (f *Fences) Need(b Bucket) (need repl.Offset, ok bool) {
	k := &f.buckets[b]
	if k.inFlight.Load() != 0 {
		return 0, false
	}
	if need, ok = f.Offset(Generation(k.fence.Load())); !ok {
		f.Urge()
	}
	return need, ok
}

// Offset returns the master's offset at the sample of g, or of the oldest
// generation that is kept. ok is false while there is no such sample.
func (f *Fences) Offset(g Generation) (o repl.Offset, ok bool) {
	v := max(uint64(g), f.floor.Load())
	newest := f.sampled.Load()
	if v > newest {
		return 0, false
	}
	if newest-v >= history-1 {
		v = newest - history + 2 // the slot behind may be written at this moment
	}
	return repl.Offset(f.offsets[v%history].Load()), true
}

// next begins a sample: it ends the current generation and returns it. The
// question must be put to the master after this call.
func (f *Fences) next() Generation {
	f.urged.Store(false)
	f.dirty.Store(false)
	return Generation(f.gen.Add(1) - 1)
}

// set records the answer.
func (f *Fences) set(g Generation, o repl.Offset) {
	// Generations whose question got no answer are covered by this one too.
	for v := f.sampled.Load() + 1; v <= uint64(g); v++ {
		if uint64(g)-v < history {
			f.offsets[v%history].Store(int64(o))
		}
	}
	f.sampled.Store(uint64(g))
}

// restart makes every fence wait for a sample that is taken from now on: the
// history of the offsets has ended, or may have.
func (f *Fences) restart() { f.floor.Store(f.gen.Add(1)) }
