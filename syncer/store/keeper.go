package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// flushEvery is the pace of FsyncEverySec, and of writing the last index record
// where fsync is left to the operating system.
const flushEvery = time.Second

// retainEvery is how often retention looks at ages.
const retainEvery = time.Minute

// keeper is the store's goroutine: fsync, retries, retention.
type keeper struct {
	s *Store

	dirty    chan struct{}   // capacity 1: something was committed
	sick     chan struct{}   // capacity 1: the state became degraded
	retainIt chan struct{}   // capacity 1: retention may have something to do
	syncs    chan chan error // Sync
	stop     chan struct{}   // closed by Close
	done     chan struct{}   // closed when run has returned
}

func newKeeper(s *Store) *keeper {
	return &keeper{
		s: s, dirty: make(chan struct{}, 1), sick: make(chan struct{}, 1), retainIt: make(chan struct{}, 1),
		syncs: make(chan chan error), stop: make(chan struct{}), done: make(chan struct{}),
	}
}

// poke tells ch's reader once; it never blocks.
func poke(ch chan<- struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (k *keeper) kick()   { poke(k.dirty) }
func (k *keeper) retain() { poke(k.retainIt) }

// run works until stop is closed.
func (k *keeper) run() {
	defer close(k.done)
	var due, retry <-chan time.Time
	age := time.NewTicker(retainEvery)
	defer age.Stop()
	for {
		select {
		case <-k.dirty:
			if k.s.opt.Fsync == FsyncAlways {
				_ = k.s.syncHead() // the state tells
			} else if due == nil {
				due = time.After(flushEvery)
			}
		case <-due:
			due = nil
			if k.s.opt.Fsync == FsyncNo {
				_ = k.s.flushHead() // the state tells
			} else {
				_ = k.s.syncHead() // the state tells
			}
		case reply := <-k.syncs:
			reply <- k.s.syncHead()
		case <-k.sick:
			if retry == nil {
				retry = time.After(k.s.opt.RetryEvery)
			}
		case <-retry:
			retry = nil
			k.s.recover()
		case <-k.retainIt:
			k.s.enforceRetention(time.Now())
		case now := <-age.C:
			k.s.enforceRetention(now)
		case <-k.stop:
			return
		}
	}
}

// sync asks the keeper to fsync and waits for it.
func (k *keeper) sync() error {
	reply := make(chan error, 1)
	select {
	case k.syncs <- reply:
		return <-reply
	case <-k.done:
		return ErrClosed
	}
}

// flushHead writes the last commit's record. Full segments are fsynced whatever
// the policy, so that they can be closed.
func (s *Store) flushHead() error {
	g := s.head.Load()
	if g == nil || s.health.check() != nil {
		return nil
	}
	w := g.w
	w.mu.Lock()
	w.kicked = false
	w.record()
	err, full := w.flush(), len(w.done) > 0
	w.mu.Unlock()
	if err == nil && full {
		err = w.sync()
	}
	return err
}

// syncHead makes durable what is committed. Only the keeper calls it.
func (s *Store) syncHead() error {
	if err := s.health.check(); err != nil {
		return err
	}
	g := s.head.Load()
	if g == nil {
		return nil
	}
	return g.w.sync()
}

// sync fsyncs what was written and then raises the fsynced offset.
func (w *logWriter) sync() error {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	w.mu.Lock()
	w.kicked = false
	if w.finished {
		w.mu.Unlock()
		return nil
	}
	w.record()
	if err := w.flush(); err != nil {
		w.mu.Unlock()
		return err
	}
	done, active, target, newFile := w.done, w.active, w.mark.Offset, w.newFile
	w.mu.Unlock()
	if target == w.g.fsynced.load() && len(done) == 0 && !newFile {
		return nil
	}
	begin := time.Now()
	for _, f := range done {
		if err := w.syncFiles(f); err != nil {
			return err
		}
	}
	if active.seg != nil {
		if err := w.syncFiles(&active); err != nil {
			return err
		}
	}
	if newFile {
		if err := w.s.fs.SyncDir(w.g.dir); err != nil {
			return w.fsyncFailed(w.g.dir, err)
		}
	}
	w.s.metrics.fsync.Observe(time.Since(begin).Seconds())
	w.g.fsynced.advance(target)
	var err error
	for _, f := range done {
		err = errors.Join(err, f.close())
	}
	w.mu.Lock()
	w.done = w.done[len(done):]
	// Segments that came since have entries of their own to be fsynced.
	w.newFile = w.newFile && w.active.seg != active.seg
	w.mu.Unlock()
	if err != nil {
		return w.s.health.BecomeDegraded("close", w.g.dir, err)
	}
	if newFile { // so that a segment that goes missing is missed
		return w.g.saveCatalog(nil)
	}
	return nil
}

// syncFiles fsyncs a segment: data first, so that the index rarely knows of
// bytes that are not there.
func (w *logWriter) syncFiles(f *openFiles) error {
	if f.long {
		if err := f.data.Truncate(f.seg.size()); err != nil {
			return w.s.health.BecomeDegraded("truncate", f.seg.dataPath(), err)
		}
		f.long = false
	}
	if err := f.data.Sync(); err != nil {
		return w.fsyncFailed(f.seg.dataPath(), err)
	}
	if err := f.idx.Sync(); err != nil {
		return w.fsyncFailed(f.seg.indexPath(), err)
	}
	return nil
}

// fsyncFailed notes that the kernel may have dropped what was written: another
// fsync that succeeds would prove nothing.
func (w *logWriter) fsyncFailed(file string, err error) error {
	w.mu.Lock()
	w.suspect = true
	w.mu.Unlock()
	return w.s.health.BecomeDegraded("fsync", file, err)
}

// recover tries to leave a degraded state: a trial file, what a failed fsync
// put in doubt, the records that wait, and an fsync.
func (s *Store) recover() {
	if st := s.health.State(); !st.Degraded() || st == StateUnsafe {
		return
	}
	probe := filepath.Join(s.dir, probeFile)
	err := writeFileSync(s.fs, probe, make([]byte, probeBytes))
	if rerr := removeIfThere(s.fs, probe); err == nil {
		err = rerr
	}
	if err != nil {
		_ = s.health.BecomeDegraded("write", probe, err)
		return
	}
	if g := s.head.Load(); g != nil {
		if err := g.w.rewrite(); err != nil {
			return
		}
		if err := g.w.sync(); err != nil {
			return
		}
		if _, err := s.finishSwitch(); err != nil {
			return
		}
	}
	s.health.BecomeWritable()
}

// probeBytes is the size of the trial file: a disk with less room is still full.
const probeBytes = 1 << 20

// rewrite writes again what was written since the last good fsync, after one
// that failed. On Linux the pages are then marked clean although they are not on
// disk, but their content can still be read; the checksums tell whether it is
// what was written.
func (w *logWriter) rewrite() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.suspect {
		return nil
	}
	if err := w.flush(); err != nil {
		return err
	}
	files := w.done[:len(w.done):len(w.done)]
	if w.active.seg != nil {
		files = append(files, &w.active)
	}
	for _, f := range files {
		end, known := f.seg.last(), f.seg.last()
		if f.seg == w.active.seg {
			end, known = w.appended, w.recorded
		}
		if err := w.rewriteSegment(f, known, end); err != nil {
			return w.s.health.BecomeDegraded("rewrite", f.seg.dataPath(), err)
		}
	}
	w.suspect = false
	return nil
}

// rewriteSegment verifies a segment up to the commit known by its index, and
// what was appended after it, and writes both files again.
func (w *logWriter) rewriteSegment(f *openFiles, known, end repl.Offset) error {
	fi, err := f.idx.Stat()
	if err != nil {
		return err
	}
	raw, err := readUpTo(f.idx, 0, fi.Size())
	if err != nil {
		return err
	}
	x, err := parseIndex(raw)
	if err != nil {
		return fmt.Errorf("%w: %w", errLostWrites, err)
	}
	res, err := scanSegment(w.g.dir, f.data, x)
	if err != nil {
		return err
	}
	if res.damage != nil || res.mark.Offset != known {
		return fmt.Errorf("%w: good up to offset %d of %d", errLostWrites, res.mark.Offset, known)
	}
	if err := w.checkTail(f, end); err != nil {
		return err
	}
	if _, err := f.idx.WriteAt(raw, 0); err != nil {
		return err
	}
	return writeAgain(f.data, 0, int64(end-f.seg.first+1))
}

// writeAgain reads the bytes from to to of a file and writes them where they are,
// so that the next fsync has to bring them to the disk.
func writeAgain(f File, from, to int64) error {
	buf := make([]byte, min(1<<20, max(to-from, 0)))
	for at := from; at < to; {
		n, err := f.ReadAt(buf[:min(int64(len(buf)), to-at)], at)
		if n == 0 && err != nil {
			return err
		}
		if _, err := f.WriteAt(buf[:n], at); err != nil {
			return err
		}
		at += int64(n)
	}
	return nil
}

// checkTail compares the bytes of the active segment after the last commit with
// the sums kept in memory.
func (w *logWriter) checkTail(f *openFiles, end repl.Offset) error {
	if f.seg != w.active.seg {
		return nil
	}
	at := w.rel(w.mark.Offset) / BlockBytes * BlockBytes
	stop := w.rel(end)
	for _, want := range append(w.fullSums[:len(w.fullSums):len(w.fullSums)], w.tailSum) {
		b, err := readUpTo(f.data, at, min(BlockBytes, stop-at))
		if err != nil {
			return err
		}
		if got := checksum(b); got != want {
			return fmt.Errorf("%w: block at byte %d has CRC32C %08x, wrote %08x", errLostWrites, at, got, want)
		}
		at += BlockBytes
	}
	return nil
}

// finish closes the files after the last sync of this log.
func (w *logWriter) finish() error {
	w.syncMu.Lock()
	defer w.syncMu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	var err error
	for _, f := range w.done {
		err = errors.Join(err, f.close())
	}
	if w.active.seg != nil {
		err = errors.Join(err, w.active.close())
	}
	w.done, w.active, w.finished = nil, openFiles{}, true
	return err
}

// makeDir makes the store's directory if it is not there.
func makeDir(fs FS, dir string) error {
	if _, err := fs.ReadDir(dir); err == nil || !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := fs.Mkdir(dir, dirMode); err != nil {
		return err
	}
	return fs.SyncDir(filepath.Dir(dir))
}
