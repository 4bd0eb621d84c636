package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/repl"
)

// readOnlyTries is how often OpenReadOnly looks again when what it finds does
// not fit together, because the writing process changed it meanwhile.
const readOnlyTries = 5

// Open opens the store in dir for writing, and makes the directory if it is not
// there. It checks metadata, sizes, and the log as far as a crash may have hurt
// it; see DESIGN.md. What a crash leaves is put in order ([Store.Repairs] and the
// log tell), other damage is a [CorruptionError], and then nothing is changed.
// [ErrLocked] if another process has it open.
func Open(dir string, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	if err := makeDir(o.FS, dir); err != nil {
		return nil, fmt.Errorf("make store: %w", err)
	}
	lock, err := o.FS.Lock(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("lock store %s: %w", dir, err)
	}
	s := newStore(dir, o, false)
	s.lock = lock
	err = s.load()
	if err == nil {
		s.metrics, err = newMetrics(s)
	}
	if err != nil {
		if g := s.head.Load(); g != nil && g.w != nil {
			err = errors.Join(err, g.w.finish())
		}
		return nil, fmt.Errorf("open store %s: %w", dir, errors.Join(err, lock.Close()))
	}
	for _, r := range s.repairs {
		o.Logger.Warn("store repaired after a crash", zap.String("dir", dir), zap.String("what", r))
	}
	go s.keeper.run()
	s.keeper.retain()
	return s, nil
}

// OpenReadOnly opens the store in dir for reading, also while another process
// writes to it. It takes no lock and changes nothing. A directory without a
// store is an error.
func OpenReadOnly(dir string, o Options) (*Store, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	var err error
	for range readOnlyTries {
		s := newStore(dir, o, true)
		s.health.BecomeReadOnly()
		if err = s.load(); err != nil {
			continue
		}
		if len(s.gens) == 0 {
			err = fmt.Errorf("read %s: %w", filepath.Join(dir, manifestFile), os.ErrNotExist)
			break
		}
		if s.metrics, err = newMetrics(s); err != nil {
			break
		}
		return s, nil
	}
	return nil, fmt.Errorf("open store %s: %w", dir, err)
}

// load reads everything into a new store and repairs it if it is to be written.
// Repairs come last, so that corruption leaves all as it is.
func (s *Store) load() error {
	m, strays, err := readManifest(s.fs, s.dir)
	if err != nil {
		return err
	}
	s.man = m
	var found []*logRecovery
	for _, e := range m.Generations {
		if e.Deleting {
			continue
		}
		g := newGeneration(s, e.ID)
		r, err := g.examine()
		if err != nil {
			return err
		}
		s.gens = append(s.gens, g)
		found = append(found, r)
	}
	if !s.readOnly {
		// What was read may be the work of a process that was killed before it
		// made it durable.
		if err := s.fs.SyncDir(s.dir); err != nil {
			return err
		}
		if err := s.removeStrays(strays); err != nil {
			return err
		}
	}
	for i, g := range s.gens {
		if err := g.install(found[i], g.id == m.Head); err != nil {
			return err
		}
		if g.id == m.Head {
			s.head.Store(g)
		}
		if g.id == m.Current {
			s.current.Store(g)
		}
		if g.id != m.Head && g.id != m.Current {
			g.end()
		}
	}
	done, err := s.finishSwitch()
	if done && err == nil {
		s.repairs = append(s.repairs, fmt.Sprintf("generation %d has a complete base: made current", s.head.Load().id))
	}
	return err
}

// finishSwitch makes the head current if it has got a base and a crash or an
// error came between. It reports whether that was so.
func (s *Store) finishSwitch() (bool, error) {
	g := s.head.Load()
	if g == nil || g == s.current.Load() || len(g.Bases()) == 0 {
		return false, nil
	}
	if s.readOnly {
		s.current.Store(g)
		return true, nil
	}
	return true, s.becomeCurrent(g)
}

// readManifest returns the manifest, an empty one for a new store, and the names
// of what a crash left in the directory.
func readManifest(fs FS, dir string) (*manifest, []string, error) {
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, nil, err
	}
	m := &manifest{}
	err = readMeta(fs, dir, manifestFile, m)
	missing := errors.Is(err, os.ErrNotExist)
	if err != nil && !missing {
		return nil, nil, err
	}
	var strays []string
	dirs := map[uint64]bool{}
	for _, name := range names {
		if isTemporary(name) {
			strays = append(strays, name)
		}
		id, ok := parseHexName(name, "gen-", "")
		if !ok {
			continue
		}
		dirs[id] = true
		if m.entry(id) != nil {
			continue
		}
		inside, err := fs.ReadDir(filepath.Join(dir, name))
		if err != nil {
			return nil, nil, err
		}
		if i := slices.IndexFunc(inside, isStored); i >= 0 {
			why := fmt.Sprintf("%s holds %s, but generation %d is not listed", name, inside[i], id)
			if missing {
				why = fmt.Sprintf("file is missing, but %s holds %s", name, inside[i])
			}
			return nil, nil, &CorruptionError{Dir: dir, File: manifestFile, Reason: why}
		}
		strays = append(strays, name) // NewGeneration had not come to listing it
	}
	for _, e := range m.Generations {
		if !e.Deleting && !dirs[e.ID] {
			return nil, nil, &CorruptionError{Dir: dir, File: generationDir(e.ID), Reason: "directory is missing"}
		}
	}
	return m, strays, nil
}

// isStored reports whether a file in a generation holds stream or snapshot.
func isStored(name string) bool {
	for _, form := range [][2]string{{"log-", ".seg"}, {"log-", ".idx"}, {"base-", ".rdb"}} {
		if _, ok := parseHexName(name, form[0], form[1]); ok {
			return true
		}
	}
	return false
}

// examine reads what there is of a generation and finds out what is good.
func (g *Generation) examine() (*logRecovery, error) {
	fs := g.s.fs
	if err := readCatalog(fs, g.dir, g.id, &g.cat); err != nil {
		return nil, err
	}
	names, err := fs.ReadDir(g.dir)
	if err != nil {
		return nil, err
	}
	var damage []*CorruptionError
	cat := g.cat
	r := &logRecovery{fs: fs, dir: g.dir, cat: &cat}
	if g.s.readOnly {
		r.damage = func(c *CorruptionError) { damage = append(damage, c) }
	}
	if err := r.run(names); err != nil {
		return nil, err
	}
	for _, b := range cat.Bases {
		c, err := checkBaseSize(fs, g.dir, b, max(r.mark.Offset, r.known))
		if err == nil && c != nil {
			err = r.fail(c)
		}
		if err != nil {
			return nil, err
		}
	}
	if len(damage) > 0 {
		if err := g.reexamine(r, damage); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		n, ok := parseHexName(name, "base-", ".rdb")
		if ok && !cat.lists(repl.Offset(n)) || isTemporary(name) {
			r.remove = append(r.remove, name)
		}
	}
	return r, nil
}

// reexamine tells damage from what the writing process has removed while its
// files were examined.
func (g *Generation) reexamine(r *logRecovery, damage []*CorruptionError) error {
	var now catalog
	if err := readCatalog(g.s.fs, g.dir, g.id, &now); err != nil {
		return err
	}
	for _, c := range damage {
		if !outdated(c, &now) {
			return c
		}
	}
	g.cat.LogFirst = now.LogFirst
	g.cat.Bases = slices.DeleteFunc(slices.Clone(g.cat.Bases), func(b Base) bool { return !now.lists(b.Offset) })
	r.segments = slices.DeleteFunc(r.segments, func(seg *segment) bool { return seg.first < now.LogFirst })
	if r.mark.Offset < now.LogFirst-1 {
		return fmt.Errorf("read %s: the log is removed faster than it can be examined", g.dir)
	}
	return nil
}

// outdated reports whether damage is to a file that, by the catalog as it is
// now, is no longer part of the generation.
func outdated(c *CorruptionError, now *catalog) bool {
	for _, form := range [][2]string{{"log-", ".seg"}, {"log-", ".idx"}} {
		if n, ok := parseHexName(c.File, form[0], form[1]); ok {
			return repl.Offset(n) < now.LogFirst
		}
	}
	n, ok := parseHexName(c.File, "base-", ".rdb")
	return ok && !now.lists(repl.Offset(n))
}

// readCatalog reads the catalog of the generation with this id. A missing file
// is corruption.
func readCatalog(fs FS, dir string, id uint64, c *catalog) error {
	err := readMeta(fs, dir, catalogFile, c)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return &CorruptionError{Dir: dir, File: catalogFile, Reason: "file is missing"}
	case err == nil && c.ID != id:
		return &CorruptionError{Dir: dir, File: catalogFile, Reason: fmt.Sprintf("it is that of generation %d", c.ID)}
	}
	return err
}

// checkBaseSize looks at a base without reading it. The log ends at last.
func checkBaseSize(fs FS, dir string, b Base, last repl.Offset) (*CorruptionError, error) {
	bad := func(at int64, format string, args ...any) *CorruptionError {
		return &CorruptionError{Dir: dir, File: baseFile(b.Offset), Offset: at, Reason: fmt.Sprintf(format, args...)}
	}
	size, err := fs.Size(filepath.Join(dir, baseFile(b.Offset)))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return bad(0, "file is missing"), nil
	case err != nil:
		return nil, err
	case size != b.Size:
		return bad(min(size, b.Size), "file has %d bytes, the catalog says %d", size, b.Size), nil
	case b.Offset > last:
		return bad(0, "the log that it belongs to ends before it, at offset %d", last), nil
	}
	return nil, nil
}

// removeStrays removes what a crash left in the store's directory, and the
// generations that were being removed.
func (s *Store) removeStrays(strays []string) error {
	for _, name := range strays {
		s.repairs = append(s.repairs, "removed "+name)
		path := filepath.Join(s.dir, name)
		if _, ok := parseHexName(name, "gen-", ""); ok {
			if err := removeDir(s.fs, path); err != nil {
				return err
			}
		} else if err := removeIfThere(s.fs, path); err != nil {
			return err
		}
	}
	return s.removeDeleted()
}

// removeDir removes a directory with the files in it.
func removeDir(fs FS, dir string) error {
	names, err := fs.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := removeIfThere(fs, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return removeIfThere(fs, dir)
}

// install takes over what examine found.
func (g *Generation) install(r *logRecovery, head bool) error {
	g.segments = r.segments
	if g.s.readOnly {
		g.committed.advance(r.mark.Offset)
		g.fsynced.advance(min(r.known, r.mark.Offset))
		g.noteRepairs(r.notes)
		return nil
	}
	last, err := r.repair()
	if err != nil {
		return err
	}
	for _, name := range r.remove {
		r.notes = append(r.notes, "removed "+name)
	}
	g.noteRepairs(r.notes)
	g.start(r.mark)
	w := g.w
	if last != nil {
		w.active, w.markSum, w.written = *last, r.sum, last.seg.size()
		w.idxSize, w.seed = r.scans[last.seg].indexLength, r.scans[last.seg].seed
		w.cutToMark()
	}
	if r.mark.Offset > g.cat.Fsynced {
		if err := g.saveCatalog(nil); err != nil {
			return errors.Join(err, w.finish())
		}
	}
	if !head {
		g.w = nil
		return w.finish()
	}
	return nil
}

func (g *Generation) noteRepairs(notes []string) {
	for _, note := range notes {
		g.s.repairs = append(g.s.repairs, generationDir(g.id)+": "+note)
	}
}

// removeDeleted finishes the removal of generations that are marked for it:
// their files first, so that the manifest knows of them until they are gone.
func (s *Store) removeDeleted() error {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	s.mu.RLock()
	m := s.man.clone()
	s.mu.RUnlock()
	var left []manifestEntry
	for _, e := range m.Generations {
		if !e.Deleting {
			left = append(left, e)
			continue
		}
		dir := filepath.Join(s.dir, generationDir(e.ID))
		if err := removeDir(s.fs, dir); err != nil {
			return s.health.BecomeDegraded("remove", dir, err)
		}
	}
	if len(left) == len(m.Generations) {
		return nil
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return s.health.BecomeDegraded("fsync", s.dir, err)
	}
	m.Generations = left
	if err := s.saveManifest(m); err != nil {
		return err
	}
	s.mu.Lock()
	s.gens = slices.DeleteFunc(slices.Clone(s.gens), func(g *Generation) bool { return m.entry(g.id) == nil })
	s.mu.Unlock()
	return nil
}

// ageOf returns how long ago t was, 0 for no time.
func ageOf(t, now time.Time) time.Duration {
	if t.IsZero() {
		return 0
	}
	return max(now.Sub(t), 0)
}
