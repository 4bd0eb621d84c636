package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Generation is what is stored of one history of the master: bases, and the log
// that continues them. Its methods may be called by any goroutine.
type Generation struct {
	s   *Store
	id  uint64
	dir string
	w   *logWriter // nil where nothing is ever written: old generations, OpenReadOnly

	committed progress
	fsynced   progress
	over      chan struct{} // closed when another generation has taken its place

	metaMu sync.Mutex // for changes of the catalog; held across their I/O

	mu       sync.RWMutex // for what follows; never held across I/O
	cat      catalog      // as last written; its slices are never changed in place
	segments []*segment   // oldest first
	pins     map[*Pin]struct{}
	sinks    map[repl.Offset]struct{} // offsets of bases being written
	intact   map[repl.Offset]bool     // bases whose checksum was found right
	isOver   bool
	renamed  chan struct{} // closed and replaced when the history changes
}

func newGeneration(s *Store, id uint64) *Generation {
	return &Generation{
		s: s, id: id, dir: filepath.Join(s.dir, generationDir(id)), over: make(chan struct{}),
		pins: map[*Pin]struct{}{}, sinks: map[repl.Offset]struct{}{}, intact: map[repl.Offset]bool{},
		renamed: make(chan struct{}),
	}
}

// ID returns the generation's number; it rises by one with each.
func (g *Generation) ID() uint64 { return g.id }

// History returns the ids that the log is known by.
func (g *Generation) History() repl.History {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.cat.History
}

// Renamed returns a channel that is closed when the log goes on under another
// id. Call History after it, so that no change is missed. No byte that was
// written under the new id is to be seen before History tells of it.
func (g *Generation) Renamed() <-chan struct{} {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.renamed
}

// First returns the offset of the first byte of the log that is stored; if none
// is, of the first that will be.
func (g *Generation) First() repl.Offset {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.cat.LogFirst
}

// Committed returns the offset of the last commit. Readers get no byte after it.
func (g *Generation) Committed() repl.Offset { return g.committed.load() }

// Fsynced returns the offset up to which the log is durable.
func (g *Generation) Fsynced() repl.Offset { return g.fsynced.load() }

// Pos returns the position of the last commit.
func (g *Generation) Pos() repl.Pos {
	return repl.Pos{ReplID: g.History().Current(), Offset: g.Committed()}
}

// WaitCommitted waits until the log is committed up to off. It returns
// [ErrGenerationOver] once that can no longer happen, [ErrClosed], or the
// context's cause. In a store of OpenReadOnly it looks at the files every
// PollEvery, as another process cannot tell.
func (g *Generation) WaitCommitted(ctx context.Context, off repl.Offset) error {
	if g.s.readOnly {
		return g.pollCommitted(ctx, off)
	}
	return g.committed.wait(ctx, off, g.over, g.overErr)
}

// WaitFsynced waits until the log is durable up to off; see WaitCommitted. It
// fails with [ErrReadOnly] in a store of OpenReadOnly.
func (g *Generation) WaitFsynced(ctx context.Context, off repl.Offset) error {
	if g.s.readOnly {
		return ErrReadOnly
	}
	return g.fsynced.wait(ctx, off, g.over, g.overErr)
}

// Over returns a channel that is closed when another generation is current in
// this one's place, when this one is removed, or when the store is closed.
// What is stored can be read on until it is removed.
func (g *Generation) Over() <-chan struct{} { return g.over }

func (g *Generation) overErr() error {
	if g.s.health.State() == StateClosed {
		return ErrClosed
	}
	return ErrGenerationOver
}

// end closes over.
func (g *Generation) end() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isOver {
		g.isOver = true
		close(g.over)
	}
}

// Bases returns the complete bases, newest first.
func (g *Generation) Bases() []Base {
	g.mu.RLock()
	defer g.mu.RUnlock()
	bases := slices.Clone(g.cat.Bases)
	slices.Reverse(bases)
	return bases
}

// LogBytes returns the size of the committed log in bytes.
func (g *Generation) LogBytes() int64 {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return logBytes(g.segments)
}

func logBytes(segments []*segment) int64 {
	var n int64
	for _, seg := range segments {
		n += seg.size()
	}
	return n
}

func (g *Generation) addSegment(seg *segment) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.segments = append(g.segments, seg)
}

// segmentAt returns the segment that holds byte off, nil if none does yet.
func (g *Generation) segmentAt(off repl.Offset) (*segment, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if off < g.cat.LogFirst {
		return nil, ErrOffsetGone
	}
	i := sort.Search(len(g.segments), func(i int) bool { return g.segments[i].first > off }) - 1
	if i < 0 || g.segments[i].last() < off {
		return nil, nil
	}
	return g.segments[i], nil
}

// saveCatalog writes the catalog with a change (nil: only what is fsynced now)
// and takes it over. When it fails, memory is as before, and the file may be
// either.
func (g *Generation) saveCatalog(change func(*catalog)) error {
	g.metaMu.Lock()
	defer g.metaMu.Unlock()
	return g.saveCatalogLocked(change)
}

// saveCatalogLocked is saveCatalog for a caller that holds metaMu.
func (g *Generation) saveCatalogLocked(change func(*catalog)) error {
	g.mu.RLock()
	c := g.cat
	g.mu.RUnlock()
	c.Bases = slices.Clone(c.Bases)
	if change != nil {
		change(&c)
	}
	c.Fsynced = max(g.fsynced.load(), c.LogFirst-1)
	if err := writeMeta(g.s.fs, g.dir, catalogFile, &c); err != nil {
		return g.s.health.BecomeDegraded("write", filepath.Join(g.dir, catalogFile), err)
	}
	g.mu.Lock()
	g.cat = c
	g.mu.Unlock()
	return nil
}

// CommitBefore returns the last indexed commit point at or before off, at the
// earliest the begin of the log. Commit points are indexed every few kilobytes
// or milliseconds, so there may be others in between; what follows the mark is
// read to find them. [ErrOffsetGone] if off is before the log.
func (g *Generation) CommitBefore(off repl.Offset) (Mark, error) {
	if off < g.First()-1 {
		return Mark{}, ErrOffsetGone
	}
	return g.findMark(func(start Mark) bool { return start.Offset <= off })
}

// CommitAt returns the last indexed commit point that is not after t; the bytes
// that came after t all follow it. If the log begins later, it is the begin of
// the log.
func (g *Generation) CommitAt(t time.Time) (Mark, error) {
	return g.findMark(func(start Mark) bool { return !start.Time.After(t) })
}

// CommitsAfter returns indexed commit points after off, oldest first: those of
// the segment that holds the byte after off, and none where that byte is not
// stored yet. They tell when the bytes before them came. [ErrOffsetGone] if that
// byte is before the log.
func (g *Generation) CommitsAfter(off repl.Offset) ([]Mark, error) {
	seg, err := g.segmentAt(off + 1)
	if err != nil || seg == nil {
		return nil, err
	}
	x, err := seg.readIndex()
	if isGone(err) {
		return nil, ErrOffsetGone // retention was quicker
	}
	if err != nil {
		return nil, err
	}
	var marks []Mark
	for i := range x.records {
		if r := &x.records[i]; r.kind == recordCommit && r.offset > off && r.offset <= seg.last() {
			marks = append(marks, r.mark())
		}
	}
	return marks, nil
}

// findMark returns the last mark for which ok, which is true for a first part
// of them.
func (g *Generation) findMark(ok func(Mark) bool) (Mark, error) {
	g.mu.RLock()
	segments, first := g.segments, g.cat.LogFirst
	g.mu.RUnlock()
	for _, seg := range slices.Backward(segments) {
		if seg.first > first && !ok(Mark{Offset: seg.first - 1}) {
			continue // spares reading the index where the offset tells
		}
		x, err := seg.readIndex()
		if err != nil {
			return Mark{}, err
		}
		if start := x.header.start(); !ok(start) && seg.first > first {
			continue
		}
		best := x.header.start()
		for i := range x.records {
			if r := &x.records[i]; r.kind == recordCommit && r.offset <= seg.last() {
				if !ok(r.mark()) {
					break
				}
				best = r.mark()
			}
		}
		return best, nil
	}
	return Mark{Offset: first - 1, DB: -1}, nil
}

// Pin keeps retention from removing the bytes after an offset.
type Pin struct {
	g   *Generation
	off repl.Offset
}

// Pin holds all bytes after off, the offset of the last byte that is not needed
// any more. [ErrOffsetGone] if some are removed already.
func (g *Generation) Pin(off repl.Offset) (*Pin, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if off+1 < g.cat.LogFirst {
		return nil, ErrOffsetGone
	}
	p := &Pin{g: g, off: off}
	g.pins[p] = struct{}{}
	return p, nil
}

// Move releases the bytes up to off; it never goes back.
func (p *Pin) Move(off repl.Offset) {
	p.g.mu.Lock()
	defer p.g.mu.Unlock()
	p.off = max(p.off, off)
}

// Release ends the pin. It may be called more than once.
func (p *Pin) Release() {
	p.g.mu.Lock()
	delete(p.g.pins, p)
	p.g.mu.Unlock()
	p.g.s.keeper.retain()
}

// isGone reports whether an error says that a file is not there (any more).
func isGone(err error) bool { return errors.Is(err, os.ErrNotExist) }
