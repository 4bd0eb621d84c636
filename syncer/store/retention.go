package store

import (
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// retained is what a decision about retention in one generation depends on.
type retained struct {
	segments []retainedSegment // oldest first; the last is being written to
	bases    []Base            // oldest first
	pinned   repl.Offset       // bytes after it are needed
	maxBytes int64             // below 0: no limit
	maxAge   time.Duration     // below 0: no limit
	now      time.Time
}

type retainedSegment struct {
	last repl.Offset
	size int64 // in bytes
	time time.Time
}

// plan returns how many of the oldest segments and bases are to go. The log
// after the oldest base that stays is kept. Without a base everything is: the
// one to come may continue any of it.
func (r *retained) plan() (segments, bases int) {
	var total int64
	for _, seg := range r.segments {
		total += seg.size
	}
	expired := func(t time.Time) bool { return r.maxAge >= 0 && ageOf(t, r.now) > r.maxAge }
	for len(r.bases)-bases > 0 {
		over := r.maxBytes >= 0 && total > r.maxBytes
		last := segments >= len(r.segments)-1 // the one that is written to stays
		floor := min(r.bases[bases].Offset, r.pinned)
		if !last {
			if seg := r.segments[segments]; seg.last <= floor && (over || expired(seg.time)) {
				total -= seg.size
				segments++
				continue
			}
		}
		if len(r.bases)-bases < 2 {
			break
		}
		next := r.bases[bases+1]
		frees := !last && r.segments[segments].last <= min(next.Offset, r.pinned)
		if (!over || !frees) && !expired(next.Time) {
			break
		}
		bases++
	}
	return segments, bases
}

// enforceRetention removes what is beyond the limits. Only the keeper calls it.
// Errors show in the state.
func (s *Store) enforceRetention(now time.Time) {
	if s.health.check() != nil {
		return
	}
	s.retireGenerations(now)
	if s.removeDeleted() != nil {
		return
	}
	for _, g := range s.Generations() {
		if g == s.current.Load() || g == s.head.Load() {
			_ = g.enforceRetention(now)
		}
	}
}

// retireGenerations marks old generations for removal.
func (s *Store) retireGenerations(now time.Time) {
	if s.opt.RetainGenerations < 0 {
		return
	}
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	s.mu.RLock()
	m, gens := s.man.clone(), s.gens
	s.mu.RUnlock()
	var gone []*Generation
	for _, g := range gens {
		e := m.entry(g.id)
		if e == nil || e.Deleting || e.Retired.IsZero() || ageOf(e.Retired, now) <= s.opt.RetainGenerations {
			continue
		}
		g.mu.Lock()
		if len(g.pins) == 0 {
			e.Deleting = true
			gone = append(gone, g)
		}
		g.mu.Unlock()
	}
	if len(gone) == 0 || s.saveManifest(m) != nil {
		return
	}
	for _, g := range gone {
		g.end()
	}
}

// enforceRetention removes segments and bases: first from the catalog, so that
// what is missing afterwards is not missed, then the files.
func (g *Generation) enforceRetention(now time.Time) error {
	g.metaMu.Lock()
	defer g.metaMu.Unlock()
	g.mu.Lock()
	r := retained{
		bases: g.cat.Bases, pinned: math.MaxInt64,
		maxBytes: g.s.opt.RetainLogBytes, maxAge: g.s.opt.RetainAge, now: now,
	}
	for _, seg := range g.segments {
		r.segments = append(r.segments, retainedSegment{seg.last(), seg.size(), markOf(0, 0, seg.time.Load()).Time})
	}
	for p := range g.pins {
		r.pinned = min(r.pinned, p.off)
	}
	nseg, nbase := r.plan()
	if nseg == 0 && nbase == 0 {
		g.mu.Unlock()
		return nil
	}
	// From here on nobody gets a pin or a reader on what goes. The files stay
	// until the catalog is written; if that fails, all is as before.
	before, segments := g.cat, g.segments
	if nseg > 0 {
		g.cat.LogFirst = segments[nseg].first
		g.segments = slices.Clone(segments[nseg:])
	}
	g.cat.Bases = slices.Clone(g.cat.Bases[nbase:])
	g.mu.Unlock()
	if err := g.saveCatalogLocked(nil); err != nil {
		g.mu.Lock()
		g.cat.LogFirst, g.cat.Bases = before.LogFirst, before.Bases
		g.segments = append(segments[:nseg:nseg], g.segments...)
		g.mu.Unlock()
		return err
	}
	g.mu.Lock()
	for _, b := range before.Bases[:nbase] {
		delete(g.intact, b.Offset)
	}
	g.mu.Unlock()
	var names []string
	for _, seg := range segments[:nseg] {
		names = append(names, segmentFile(seg.first), indexFile(seg.first))
	}
	for _, b := range before.Bases[:nbase] {
		names = append(names, baseFile(b.Offset))
	}
	for _, name := range names {
		if err := removeIfThere(g.s.fs, filepath.Join(g.dir, name)); err != nil {
			return g.s.health.BecomeDegraded("remove", filepath.Join(g.dir, name), err)
		}
	}
	return nil
}
