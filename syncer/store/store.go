package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Store is an open directory of generations. See the package's documentation
// for which goroutine may call what.
type Store struct {
	dir      string
	fs       FS
	opt      Options
	readOnly bool
	lock     io.Closer // nil if readOnly
	health   *health
	keeper   *keeper
	metrics  *metrics
	repairs  []string

	head    atomic.Pointer[Generation] // written to; nil in a new store
	current atomic.Pointer[Generation] // has the newest base; nil before the first

	metaMu sync.Mutex // for changes of the manifest; held across their I/O

	mu       sync.RWMutex // for what follows; never held across I/O
	man      *manifest    // as last written; never changed in place
	gens     []*Generation
	switched chan struct{} // closed and replaced when current changes
}

func newStore(dir string, o Options, readOnly bool) *Store {
	s := &Store{dir: dir, fs: o.FS, opt: o, readOnly: readOnly, switched: make(chan struct{})}
	s.keeper = newKeeper(s)
	s.health = newHealth(dir, o.Logger, func() { poke(s.keeper.sick) })
	return s
}

// Dir returns the directory.
func (s *Store) Dir() string { return s.dir }

// State returns the store's condition.
func (s *Store) State() State { return s.health.State() }

// Err returns why nothing can be written: a [DegradedError], [ErrReadOnly] or
// [ErrClosed]; nil if it can.
func (s *Store) Err() error { return s.health.check() }

// WaitWritable waits until the store is not degraded. Whoever got a
// [DegradedError] tries again after it.
func (s *Store) WaitWritable(ctx context.Context) error { return s.health.waitWritable(ctx) }

// StateChanged returns a channel that is closed when the state becomes another.
// Call State after it, so that no change is missed.
func (s *Store) StateChanged() <-chan struct{} { return s.health.changed() }

// Repairs tells in words what a crash had left and Open has put in order. In a
// store of OpenReadOnly it is what of the log was left out; a process that is
// just writing there may look the same.
func (s *Store) Repairs() []string { return slices.Clone(s.repairs) }

// Current returns the generation to serve: the newest with a complete base, nil
// before there is one.
func (s *Store) Current() *Generation { return s.current.Load() }

// Head returns the generation that is written to, nil in a new store. Until its
// first base is complete, it is not the current one.
func (s *Store) Head() *Generation { return s.head.Load() }

// Generations returns what is stored, newest first.
func (s *Store) Generations() []*Generation {
	s.mu.RLock()
	defer s.mu.RUnlock()
	gens := slices.Clone(s.gens)
	slices.Reverse(gens)
	return gens
}

// CurrentChanged returns a channel that is closed when another generation
// becomes current. Call Current after it, so that no change is missed.
func (s *Store) CurrentChanged() <-chan struct{} {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.switched
}

// writing returns the head's writer if the store is writable.
func (s *Store) writing() (*logWriter, error) {
	if err := s.health.check(); err != nil {
		return nil, err
	}
	g := s.head.Load()
	if g == nil {
		return nil, ErrNoGeneration
	}
	return g.w, nil
}

// Append writes stream bytes to the head's log, after those appended before. It
// either takes all of p or none: after a [DegradedError] the same bytes are to
// be appended again. It does not wait for fsync. Only the writer may call.
//
// Nothing is to be seen of the bytes until Commit covers them. It is cheapest to
// append up to a commit point, commit, and then append what follows.
func (s *Store) Append(p []byte) error {
	w, err := s.writing()
	if err != nil || len(p) == 0 {
		return err
	}
	return w.append(p)
}

// Commit says that m is a commit point: m.Offset is not before the last and not
// beyond what was appended. Readers get the bytes up to it at once, and they
// will be durable as the fsync policy says. A time before that of the last
// commit is replaced by that. Only the writer may call.
//
// After a [DegradedError] the commit may have been made or not; committing again
// is right in both cases.
func (s *Store) Commit(m Mark) error {
	w, err := s.writing()
	if err != nil {
		return err
	}
	return w.commit(m)
}

// TruncateToCommit drops what was appended after the last commit and returns
// that commit: where a new link to the master resumes. Only the writer may call.
func (s *Store) TruncateToCommit() (Mark, error) {
	g := s.head.Load()
	switch {
	case s.readOnly:
		return Mark{}, ErrReadOnly
	case g == nil:
		return Mark{}, ErrNoGeneration
	}
	return g.w.truncate(), nil
}

// Sync makes durable what is committed and waits for it. Any goroutine may call.
func (s *Store) Sync() error {
	if s.readOnly {
		return ErrReadOnly
	}
	return s.keeper.sync()
}

// ChangeReplID notes durably, in the head's ancestry, that the master goes on
// under another id (+CONTINUE id) from the last commit. The log up to there is
// made durable first. Only the writer may call.
func (s *Store) ChangeReplID(id repl.ReplID) error {
	w, err := s.writing()
	if err != nil {
		return err
	}
	h, err := w.g.History().Append(id, w.g.Committed())
	if err != nil {
		return fmt.Errorf("change replid of generation %d: %w", w.g.id, err)
	}
	if h.Equal(w.g.History()) {
		return nil
	}
	if err := s.Sync(); err != nil {
		return err
	}
	if err := w.g.saveCatalog(func(c *catalog) { c.History = h }); err != nil {
		return err
	}
	w.g.mu.Lock()
	close(w.g.renamed)
	w.g.renamed = make(chan struct{})
	w.g.mu.Unlock()
	return nil
}

// NewGeneration begins a generation at pos, where a full resync or the first
// attach puts us, with the ids that it is known by. It becomes the head; the
// generation that is current stays so until the new one has a complete base.
// Uncommitted bytes are dropped, and so is a head that never got a base. Only
// the writer may call.
func (s *Store) NewGeneration(pos repl.Pos, h repl.History) (*Generation, error) {
	if err := s.health.check(); err != nil {
		return nil, err
	}
	if h.Current() != pos.ReplID || h.IsZero() || !pos.Offset.IsKnown() {
		return nil, fmt.Errorf("begin generation at %s: history is %s", pos, h)
	}
	old := s.head.Load()
	if old != nil {
		err := old.w.trim()
		if err == nil {
			err = s.Sync()
		}
		if err == nil {
			err = old.saveCatalog(nil)
		}
		if err != nil {
			return nil, err
		}
	}
	g, err := s.createGeneration(pos, h, old)
	if err != nil {
		return nil, err
	}
	if old == nil {
		return g, nil
	}
	if old != s.current.Load() {
		old.end()
		s.keeper.retain()
	}
	if err := old.w.finish(); err != nil {
		return nil, fmt.Errorf("close generation %d: %w", old.id, err)
	}
	return g, nil
}

// createGeneration makes directory and catalog and puts it into the manifest.
func (s *Store) createGeneration(pos repl.Pos, h repl.History, old *Generation) (*Generation, error) {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	s.mu.RLock()
	m := s.man.clone()
	s.mu.RUnlock()
	e := manifestEntry{ID: 1, Created: time.Now().UTC().Round(0)}
	if n := len(m.Generations); n > 0 {
		e.ID = m.Generations[n-1].ID + 1
	}
	g := newGeneration(s, e.ID)
	g.cat = catalog{ID: e.ID, Created: e.Created, History: h, LogFirst: pos.Offset + 1, Fsynced: pos.Offset}
	g.start(Mark{Offset: pos.Offset, DB: -1})
	if err := s.fs.Mkdir(g.dir, dirMode); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, s.health.BecomeDegraded("mkdir", g.dir, err)
	}
	if err := g.saveCatalog(nil); err != nil {
		return nil, err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return nil, s.health.BecomeDegraded("fsync", s.dir, err)
	}
	m.Generations = append(m.Generations, e)
	m.Head = e.ID
	if old != nil && old.id != m.Current {
		m.entry(old.id).Deleting = true
	}
	if err := s.saveManifest(m); err != nil {
		return nil, err
	}
	s.mu.Lock()
	s.gens = append(s.gens, g)
	s.mu.Unlock()
	s.head.Store(g)
	return g, nil
}

// start makes g one that is written to, from the commit m on.
func (g *Generation) start(m Mark) {
	g.committed.advance(m.Offset)
	g.fsynced.advance(m.Offset)
	g.w = &logWriter{s: g.s, g: g, mark: m, recorded: m.Offset, recTime: m.nano(), appended: m.Offset}
}

// saveManifest writes m and takes it over. metaMu is held.
func (s *Store) saveManifest(m *manifest) error {
	if err := writeMeta(s.fs, s.dir, manifestFile, m); err != nil {
		return s.health.BecomeDegraded("write", filepath.Join(s.dir, manifestFile), err)
	}
	s.mu.Lock()
	s.man = m
	s.mu.Unlock()
	return nil
}

// becomeCurrent lets g, which has a complete base, take the place of the current
// generation.
func (s *Store) becomeCurrent(g *Generation) error {
	s.metaMu.Lock()
	defer s.metaMu.Unlock()
	s.mu.RLock()
	m := s.man.clone()
	s.mu.RUnlock()
	if m.Current == g.id {
		return nil
	}
	if m.Head != g.id {
		return ErrGenerationOver
	}
	if e := m.entry(m.Current); e != nil {
		e.Retired = time.Now().UTC().Round(0)
	}
	m.Current = g.id
	if err := s.saveManifest(m); err != nil {
		return err
	}
	old := s.current.Swap(g)
	s.mu.Lock()
	close(s.switched)
	s.switched = make(chan struct{})
	s.mu.Unlock()
	if old != nil {
		old.end()
	}
	return nil
}

// LastCommit returns the last commit of the head: where the link resumes.
func (s *Store) LastCommit() (Mark, error) {
	g := s.head.Load()
	switch {
	case g == nil:
		return Mark{}, ErrNoGeneration
	case g.w == nil:
		return g.CommitBefore(g.Committed())
	}
	g.w.mu.Lock()
	defer g.w.mu.Unlock()
	return g.w.mark, nil
}

// Close drops what is not committed, makes the rest durable, and waits for the
// keeper. Readers get [ErrClosed] where they would wait. The error tells what
// is not durable. A second call does nothing.
func (s *Store) Close() error {
	if !s.health.BecomeClosed() {
		return nil
	}
	for _, g := range s.Generations() {
		g.end()
	}
	if s.metrics != nil {
		s.metrics.unregister()
	}
	if s.readOnly {
		return nil
	}
	close(s.keeper.stop)
	<-s.keeper.done
	var err error
	if g := s.head.Load(); g != nil {
		if err = g.w.rewrite(); err == nil {
			err = g.w.trim()
		}
		if err == nil {
			err = g.w.sync()
		}
		if err == nil {
			err = g.saveCatalog(nil)
		}
		err = errors.Join(err, g.w.finish())
	}
	if err = errors.Join(err, s.lock.Close()); err != nil {
		return fmt.Errorf("close store %s: %w", s.dir, err)
	}
	return nil
}
