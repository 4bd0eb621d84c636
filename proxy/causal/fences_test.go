package causal

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/syncer/repl"
)

// world is what the fences are about, with everything known: a master whose
// offset rises with each write, and what was acknowledged.
type world struct {
	f      *Fences
	offset repl.Offset // of the master that is sampled

	inFlight map[Bucket][]repl.Offset // where the writes that are not answered end; 0: it has not run
	acked    map[Bucket]repl.Offset   // end of the last answered write, in this history
	old      map[Bucket]bool          // answered in an earlier history, and not covered by a sample since

	asked  Generation  // question under way, 0 for none
	answer repl.Offset // what the master said, 0 before it has run

	indexes []index
}

// index is a linearizable read that waits.
type index struct {
	gen  Generation
	need repl.Offset // the master's offset as it arrived; -1: in an earlier history
}

func newWorld() *world {
	return &world{
		f: NewFences(), offset: 1,
		inFlight: make(map[Bucket][]repl.Offset), acked: make(map[Bucket]repl.Offset), old: make(map[Bucket]bool),
	}
}

var someBucket = rapid.SampledFrom([]Bucket{0, 1, 2, Global})

func (w *world) actions() map[string]func(*rapid.T) {
	return map[string]func(*rapid.T){
		"send a write": func(t *rapid.T) {
			b := someBucket.Draw(t, "bucket")
			w.f.Begin(b)
			w.inFlight[b] = append(w.inFlight[b], 0)
		},
		"run a write": func(t *rapid.T) {
			b := someBucket.Draw(t, "bucket")
			for i, end := range w.inFlight[b] {
				if end == 0 {
					w.offset += repl.Offset(rapid.IntRange(1, 50).Draw(t, "bytes"))
					w.inFlight[b][i] = w.offset
					return
				}
			}
			t.Skip("none to run")
		},
		"answer a write": func(t *rapid.T) {
			b := someBucket.Draw(t, "bucket")
			for i, end := range w.inFlight[b] {
				if end != 0 {
					w.inFlight[b] = append(w.inFlight[b][:i], w.inFlight[b][i+1:]...)
					w.f.End(b)
					w.acked[b] = max(w.acked[b], end)
					return
				}
			}
			t.Skip("none has run")
		},
		"give up a write that was not sent": func(t *rapid.T) {
			b := someBucket.Draw(t, "bucket")
			for i, end := range w.inFlight[b] {
				if end == 0 {
					w.inFlight[b] = append(w.inFlight[b][:i], w.inFlight[b][i+1:]...)
					w.f.Cancel(b)
					return
				}
			}
			t.Skip("none")
		},
		"another client writes": func(t *rapid.T) { w.offset += repl.Offset(rapid.IntRange(1, 50).Draw(t, "bytes")) },
		"a read takes an index": func(*rapid.T) { w.indexes = append(w.indexes, index{w.f.Current(), w.offset}) },
		"ask":                   func(*rapid.T) { w.asked, w.answer = w.f.next(), 0 },
		"ask many times in vain": func(t *rapid.T) {
			for range rapid.IntRange(1, 2*history).Draw(t, "times") {
				w.asked, w.answer = w.f.next(), 0
			}
		},
		"the master runs the question": func(t *rapid.T) {
			if w.asked == 0 || w.answer != 0 {
				t.Skip("none")
			}
			w.answer = w.offset
		},
		"the answer arrives": func(t *rapid.T) {
			if w.answer == 0 {
				t.Skip("none")
			}
			w.f.set(w.asked, w.answer)
			w.asked, w.answer = 0, 0
			clear(w.old)
		},
		"another master": func(t *rapid.T) {
			w.f.restart()
			w.asked, w.answer = 0, 0
			w.offset = repl.Offset(rapid.IntRange(1, 1000).Draw(t, "its offset"))
			for b := range w.acked {
				w.old[b] = true
			}
			clear(w.acked)
			for _, ends := range w.inFlight { // what ran, ran there; its answer may yet come
				for i := range ends {
					ends[i] = min(ends[i], 1)
				}
			}
			for i := range w.indexes {
				w.indexes[i].need = repl.UnknownOffset
			}
		},
		"": w.check,
	}
}

// check is what must hold at any time.
func (w *world) check(t *rapid.T) {
	for _, b := range []Bucket{0, 1, 2, Global} {
		need, ok := w.f.Need(b)
		switch {
		case !ok:
		case len(w.inFlight[b]) > 0:
			t.Fatalf("bucket %d: a replica may answer while a write is in flight", b)
		case w.old[b]:
			t.Fatalf("bucket %d: a replica may answer though the new master has not been sampled", b)
		case need < w.acked[b]:
			t.Fatalf("bucket %d: offset %d is enough, %d was acknowledged", b, need, w.acked[b])
		case need > w.offset:
			t.Fatalf("bucket %d: offset %d is wanted, the master has %d", b, need, w.offset)
		}
	}
	for _, x := range w.indexes {
		if need, ok := w.f.Offset(x.gen); ok && need < x.need {
			t.Fatalf("index %d: offset %d is enough, the master had %d as the read arrived", x.gen, need, x.need)
		}
	}
}

// TestFencesProperties runs writes, reads, samples and changes of master in any
// order, with questions that run later than they were asked, and answers that
// arrive later than they were given, or never.
func TestFencesProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		t.Repeat(w.actions())
		// Once all is quiet a sample opens every bucket again.
		for b, ends := range w.inFlight {
			for range ends {
				w.f.End(b)
			}
			w.inFlight[b] = nil
		}
		w.f.set(w.f.next(), w.offset)
		for _, b := range []Bucket{0, 1, 2, Global} {
			if need, ok := w.f.Need(b); !ok || need > w.offset {
				t.Fatalf("bucket %d stays on the master: %d, %t", b, need, ok)
			}
		}
		for _, x := range w.indexes {
			if _, ok := w.f.Offset(x.gen); !ok {
				t.Fatalf("index %d is never answered", x.gen)
			}
		}
	})
}

// TestFencesOfManyLoops has writers, readers and a sampler at the same fences
// at once; what a read may rely on was acknowledged before it began.
func TestFencesOfManyLoops(t *testing.T) {
	const writers, each = 4, 3000
	f := NewFences()
	var master, done atomic.Int64
	var acked [writers]atomic.Int64
	var wg sync.WaitGroup
	for i := range writers {
		b := Bucket(i)
		wg.Go(func() {
			defer done.Add(1)
			for n := range each {
				f.Begin(b)
				end := master.Add(1)
				f.End(b)
				acked[i].Store(end)
				for n%10 == 0 { // a pause, in which the bucket opens
					if _, ok := f.Need(b); ok {
						break
					}
					runtime.Gosched()
				}
			}
		})
	}
	wg.Go(func() {
		for done.Load() < writers {
			g := f.next()
			f.set(g, repl.Offset(master.Load()))
		}
		f.set(f.next(), repl.Offset(master.Load()))
	})
	opened := 0
	for i := 0; done.Load() < writers; i++ {
		b := i % writers
		before, arrived, g := acked[b].Load(), master.Load(), f.Current()
		if need, ok := f.Need(Bucket(b)); ok {
			opened++
			if int64(need) < before {
				t.Fatalf("bucket %d: offset %d is enough, %d was acknowledged", b, need, before)
			}
		}
		if need, ok := f.Offset(g); ok && int64(need) < arrived {
			t.Fatalf("index %d: offset %d is enough, the master had %d", g, need, arrived)
		}
	}
	wg.Wait()
	if opened == 0 {
		t.Error("no read found a bucket open: nothing has been shown")
	}
}
