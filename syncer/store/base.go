package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// syncBaseEvery is how many bytes of a base are written between two fsyncs, so
// that the last one is short and the log's are not held up.
const syncBaseEvery = 64 << 20

// BaseMeta describes a snapshot that is about to be received.
type BaseMeta struct {
	Pos    repl.Pos // that the giver announced
	DB     int      // selected at Pos (repl-stream-db), -1 if unknown; see SetDB
	Size   int64    // in bytes, 0 if unknown
	Source string   // who gives it, for people
}

// BaseSink takes a snapshot. It is for one goroutine, which need not be the
// writer. Until Commit has returned, nothing of it is to be seen, and a crash
// leaves the bases as they were.
type BaseSink struct {
	g        *Generation
	meta     BaseMeta
	path     string // of the temporary file
	f        File
	size     int64
	sum      uint32
	unsynced int64
	err      error // of a write or fsync: the file is not what was written
	renamed  bool  // the file has its name, the catalog does not list it
	done     bool
}

var _ io.Writer = (*BaseSink)(nil)

// BeginBase begins to receive a snapshot into the head. Its position may be
// ahead of the log, which then has to catch up before Commit. Errors:
// [ErrForeignBase], [ErrOffsetGone] if the log begins after it, [ErrBaseExists],
// [ErrNoRoom], [DegradedError]. Any goroutine may call.
func (s *Store) BeginBase(m BaseMeta) (*BaseSink, error) {
	w, err := s.writing()
	if err != nil {
		return nil, err
	}
	g := w.g
	if m.DB < -1 || m.Size < 0 {
		return nil, fmt.Errorf("begin base at %s: db %d, size %d", m.Pos, m.DB, m.Size)
	}
	b := &BaseSink{g: g, meta: m, path: filepath.Join(g.dir, baseFile(m.Pos.Offset)+tmpSuffix)}
	if err := b.fits(); err != nil && !errors.Is(err, ErrOffsetAhead) {
		return nil, fmt.Errorf("begin base at %s: %w", m.Pos, err)
	}
	if err := s.RoomFor(m.Size); err != nil {
		return nil, fmt.Errorf("begin base at %s: %w", m.Pos, err)
	}
	g.mu.Lock()
	_, exists := g.sinks[m.Pos.Offset]
	exists = exists || g.cat.lists(m.Pos.Offset)
	if !exists {
		g.sinks[m.Pos.Offset] = struct{}{}
	}
	g.mu.Unlock()
	if exists {
		return nil, fmt.Errorf("begin base at %s: %w", m.Pos, ErrBaseExists)
	}
	if b.f, err = s.fs.OpenFile(b.path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, fileMode); err != nil {
		b.forget()
		return nil, s.health.BecomeDegraded("create", b.path, err)
	}
	return b, nil
}

// RoomFor returns [ErrNoRoom] if a base of so many bytes would fill the disk. It is
// nil for a size that is not known (0), and where the file system does not tell.
func (s *Store) RoomFor(size int64) error {
	f, ok := s.fs.(freeSpace)
	if !ok || size <= 0 {
		return nil
	}
	free, err := f.Free(s.dir)
	if err != nil {
		return nil // writing will tell
	}
	if need := size + min(size, logReserve); free < uint64(need) {
		return fmt.Errorf("a base of %d bytes: %w. %d bytes are free in %s, and the log needs some of them", size, ErrNoRoom, free, s.dir)
	}
	return nil
}

// logReserve is how much a large base leaves for the log, in bytes.
const logReserve = 64 << 20

// fits tells whether the snapshot belongs to the log as it is now.
func (b *BaseSink) fits() error {
	g := b.g
	switch pos := b.meta.Pos; {
	case !g.History().Contains(pos) || !pos.Offset.IsKnown():
		return ErrForeignBase
	case pos.Offset+1 < g.First():
		return ErrOffsetGone
	case pos.Offset > g.Committed():
		return ErrOffsetAhead
	}
	return nil
}

func (b *BaseSink) forget() {
	b.g.mu.Lock()
	delete(b.g.sinks, b.meta.Pos.Offset)
	b.g.mu.Unlock()
	b.done = true
}

// SetDB sets the database selected at the snapshot's position, which its
// repl-stream-db field tells.
func (b *BaseSink) SetDB(db int) { b.meta.DB = db }

// Size returns how many bytes were written.
func (b *BaseSink) Size() int64 { return b.size }

// Write implements [io.Writer]. After an error the sink can only be aborted.
func (b *BaseSink) Write(p []byte) (int, error) {
	if b.done {
		return 0, ErrClosed
	}
	if b.err != nil {
		return 0, b.err
	}
	n, err := b.f.WriteAt(p, b.size)
	b.sum = crc32.Update(b.sum, castagnoli, p[:n])
	b.size += int64(n)
	b.unsynced += int64(n)
	if err != nil {
		return n, b.failed("write", err)
	}
	if b.unsynced >= syncBaseEvery {
		if err := b.sync(); err != nil {
			return n, err
		}
	}
	return n, nil
}

func (b *BaseSink) failed(op string, err error) error {
	b.err = b.g.s.health.BecomeDegraded(op, b.path, err)
	return b.err
}

func (b *BaseSink) sync() error {
	if b.err != nil {
		return b.err
	}
	if err := b.f.Sync(); err != nil {
		return b.failed("fsync", err)
	}
	b.unsynced = 0
	return nil
}

// Commit makes the base durable, and the newest of its generation; the first of
// a generation makes it the current one. The log up to the base's position is
// made durable before.
//
// [ErrOffsetAhead]: the log is not as far yet; wait for it (WaitCommitted) and
// call again. After a [DegradedError] from the log, too, it may be called again.
// Any other error is final: [ErrBaseSize], [ErrForeignBase], [ErrOffsetGone],
// [ErrGenerationOver]. Then Abort.
func (b *BaseSink) Commit() (Base, error) {
	base, err := b.commit()
	if err != nil {
		return Base{}, fmt.Errorf("commit base at %s: %w", b.meta.Pos, err)
	}
	return base, nil
}

func (b *BaseSink) commit() (Base, error) {
	g, s := b.g, b.g.s
	switch {
	case b.done:
		return Base{}, ErrClosed
	case b.meta.Size > 0 && b.size != b.meta.Size:
		return Base{}, fmt.Errorf("%d bytes of %d: %w", b.size, b.meta.Size, ErrBaseSize)
	case s.head.Load() != g:
		return Base{}, ErrGenerationOver
	}
	if err := s.health.check(); err != nil {
		return Base{}, err
	}
	if err := b.fits(); err != nil {
		return Base{}, err
	}
	if err := b.sync(); err != nil {
		return Base{}, err
	}
	if g.Fsynced() < b.meta.Pos.Offset {
		if err := s.Sync(); err != nil {
			return Base{}, err
		}
	}
	base := Base{
		ReplID: b.meta.Pos.ReplID, Offset: b.meta.Pos.Offset, DB: b.meta.DB,
		Size: b.size, CRC32C: b.sum, Source: b.meta.Source, Time: time.Now().UTC().Round(0),
	}
	if err := b.publish(base); err != nil {
		return Base{}, err
	}
	err := b.f.Close()
	b.forget()
	if err == nil {
		err = s.becomeCurrent(g)
	}
	s.keeper.retain()
	return base, err
}

// publish gives the file its name and enters it into the catalog.
func (b *BaseSink) publish(base Base) error {
	g, s := b.g, b.g.s
	g.metaMu.Lock()
	defer g.metaMu.Unlock()
	if err := b.fits(); err != nil { // retention may have been at work
		return err
	}
	if !b.renamed {
		if err := s.fs.Rename(b.path, filepath.Join(g.dir, baseFile(base.Offset))); err != nil {
			return s.health.BecomeDegraded("rename", b.path, err)
		}
		b.renamed = true
	}
	if err := s.fs.SyncDir(g.dir); err != nil {
		return s.health.BecomeDegraded("fsync", g.dir, err)
	}
	err := g.saveCatalogLocked(func(c *catalog) {
		i, _ := slices.BinarySearchFunc(c.Bases, base.Offset, func(o Base, off repl.Offset) int { return cmp.Compare(o.Offset, off) })
		c.Bases = slices.Insert(c.Bases, i, base)
	})
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.intact[base.Offset] = true
	g.mu.Unlock()
	return nil
}

// Abort removes what was received. After Commit, and a second time, it does
// nothing, so that it can be deferred.
func (b *BaseSink) Abort() error {
	if b.done {
		return nil
	}
	b.forget()
	if err := errors.Join(b.f.Close(), removeIfThere(b.g.s.fs, b.path)); err != nil {
		return fmt.Errorf("abort base at %s: %w", b.meta.Pos, err)
	}
	return nil
}

// BaseReader reads a stored snapshot. It is for one goroutine at a time.
type BaseReader struct {
	Base
	f   File
	pos int64
	pin *Pin
}

var _ io.ReadCloser = (*BaseReader)(nil)

// OpenBase opens a base of this generation. Unless this process has written it
// or opened it before, all of it is read first and compared with its checksum.
// Until Close the log after it stays, too; to go on from there, Pin it before.
// [ErrBaseGone] if retention has removed it. Any goroutine may call.
func (g *Generation) OpenBase(ctx context.Context, b Base) (_ *BaseReader, err error) {
	pin, err := g.Pin(b.Offset)
	if errors.Is(err, ErrOffsetGone) {
		err = ErrBaseGone
	}
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			pin.Release()
		}
	}()
	g.mu.RLock()
	listed := slices.ContainsFunc(g.cat.Bases, func(o Base) bool {
		return o.Pos() == b.Pos() && o.Size == b.Size && o.CRC32C == b.CRC32C
	})
	intact := g.intact[b.Offset]
	g.mu.RUnlock()
	if !listed {
		return nil, ErrBaseGone
	}
	f, err := g.s.fs.OpenFile(filepath.Join(g.dir, baseFile(b.Offset)), os.O_RDONLY, 0)
	if isGone(err) {
		return nil, ErrBaseGone
	}
	if err != nil {
		return nil, fmt.Errorf("open base at %s: %w", b.Pos(), err)
	}
	if !intact {
		if err := checkBase(ctx, g.dir, f, b, nil); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		g.mu.Lock()
		g.intact[b.Offset] = true
		g.mu.Unlock()
	}
	return &BaseReader{Base: b, f: f, pin: pin}, nil
}

// File returns the open file, with [OSFS] an [*os.File], for sendfile of Size
// bytes.
func (r *BaseReader) File() File { return r.f }

// Read implements [io.Reader].
func (r *BaseReader) Read(p []byte) (int, error) {
	n, err := r.f.ReadAt(p[:min(int64(len(p)), r.Size-r.pos)], r.pos)
	r.pos += int64(n)
	if err == nil && n == 0 && len(p) > 0 {
		err = io.EOF
	}
	return n, err
}

// Close closes the file and lets retention have the log after the base.
func (r *BaseReader) Close() error {
	r.pin.Release()
	return r.f.Close()
}

// checkBase reads a base and compares it with its checksum. read, if not nil, is
// told of the bytes read.
func checkBase(ctx context.Context, dir string, f File, b Base, read func(n int)) error {
	bad := func(at int64, format string, args ...any) error {
		return &CorruptionError{Dir: dir, File: baseFile(b.Offset), Offset: at, Reason: fmt.Sprintf(format, args...)}
	}
	buf := make([]byte, 1<<20)
	var sum uint32
	for at := int64(0); at < b.Size; {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		n, err := f.ReadAt(buf[:min(int64(len(buf)), b.Size-at)], at)
		if n == 0 {
			if errors.Is(err, io.EOF) {
				return bad(at, "file ends early; the catalog says %d bytes", b.Size)
			}
			return fmt.Errorf("read %s: %w", filepath.Join(dir, baseFile(b.Offset)), err)
		}
		sum = crc32.Update(sum, castagnoli, buf[:n])
		at += int64(n)
		if read != nil {
			read(n)
		}
	}
	if sum != b.CRC32C {
		return bad(0, "file has CRC32C %08x, the catalog says %08x", sum, b.CRC32C)
	}
	return nil
}
