package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// PollEvery is how often a reader of a store that another process writes looks
// for more.
const PollEvery = 100 * time.Millisecond

// Reader reads the log of a generation from any offset on. Every byte it gives
// is committed, and checked against the index once per process. It is for one
// goroutine at a time; Close ends it.
type Reader struct {
	g    *Generation
	pos  repl.Offset // of the last byte given
	seg  *segment    // acquired, or nil
	file File
}

var _ io.ReadCloser = (*Reader)(nil)

// NewReader returns a reader whose first byte is the one after from.
// [ErrOffsetGone] and [ErrOffsetAhead] tell that it is not there. Retention may
// overtake a reader; a [Pin] keeps it from doing so.
func (g *Generation) NewReader(from repl.Offset) (*Reader, error) {
	switch {
	case from+1 < g.First():
		return nil, ErrOffsetGone
	case from > g.Committed():
		return nil, ErrOffsetAhead
	}
	return &Reader{g: g, pos: from}, nil
}

// Offset returns the offset of the last byte given.
func (r *Reader) Offset() repl.Offset { return r.pos }

// Seek lets the reader go on after offset from; errors as NewReader.
func (r *Reader) Seek(from repl.Offset) error {
	n, err := r.g.NewReader(from)
	if err != nil {
		return err
	}
	r.pos = n.pos
	return nil
}

// Range is a part of a file that holds bytes of the log. With [OSFS], File is
// an [*os.File], for sendfile. It is valid until the reader's next call.
type Range struct {
	File   File
	Offset int64 // in the file, in bytes
	Length int64 // in bytes, above 0
}

// Next returns the next up to limit bytes as a part of a file, at most to the
// end of a segment, and moves on. At the last committed byte it returns io.EOF,
// which means "not yet": Wait waits for more.
func (r *Reader) Next(limit int64) (Range, error) {
	if r.pos >= r.g.Committed() {
		return Range{}, io.EOF
	}
	if r.seg == nil || r.pos+1 < r.seg.first || r.pos >= r.seg.last() {
		if err := r.open(); err != nil {
			return Range{}, err
		}
	}
	to := min(r.seg.last(), r.g.Committed(), r.pos+repl.Offset(max(limit, 1)))
	if err := r.seg.check(r.file, r.pos, to); err != nil {
		if isGone(err) {
			err = ErrOffsetGone
		}
		return Range{}, err
	}
	rg := Range{File: r.file, Offset: int64(r.pos - r.seg.first + 1), Length: int64(to - r.pos)}
	r.pos = to
	return rg, nil
}

// open acquires the segment that holds the next byte.
func (r *Reader) open() error {
	if err := r.Close(); err != nil {
		return err
	}
	seg, err := r.g.segmentAt(r.pos + 1)
	if err != nil {
		return err
	}
	if seg == nil {
		return fmt.Errorf("read offset %d of generation %d: no segment has it", r.pos+1, r.g.id)
	}
	f, err := seg.acquire()
	if isGone(err) {
		return ErrOffsetGone // retention was quicker
	}
	if err != nil {
		return err
	}
	r.seg, r.file = seg, f
	return nil
}

// Read implements [io.Reader]. io.EOF at the last committed byte means "not yet".
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	at := r.pos
	rg, err := r.Next(int64(len(p)))
	if err != nil {
		return 0, err
	}
	n, err := rg.File.ReadAt(p[:rg.Length], rg.Offset)
	r.pos = at + repl.Offset(n)
	if int64(n) == rg.Length {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = r.seg.corrupt(segmentFile(r.seg.first), rg.Offset+int64(n), "file ends early")
	}
	return n, err
}

// Wait returns nil as soon as there is more to read. See WaitCommitted for the
// errors; [ErrGenerationOver] means that everything of it has been read.
func (r *Reader) Wait(ctx context.Context) error { return r.g.WaitCommitted(ctx, r.pos+1) }

// Close releases the file. It may be called more than once.
func (r *Reader) Close() error {
	if r.seg == nil {
		return nil
	}
	seg := r.seg
	r.seg, r.file = nil, nil
	return seg.release()
}

// pollCommitted waits for another process to commit.
func (g *Generation) pollCommitted(ctx context.Context, off repl.Offset) error {
	tick := time.NewTicker(PollEvery)
	defer tick.Stop()
	for {
		if err := g.refresh(); err != nil {
			return err
		}
		if g.Committed() >= off {
			return nil
		}
		if over, err := g.superseded(); err != nil {
			return err
		} else if over {
			return ErrGenerationOver
		}
		select {
		case <-tick.C:
		case <-g.over:
			return g.overErr()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// refresh looks for commits that another process made since.
func (g *Generation) refresh() error {
	g.metaMu.Lock()
	defer g.metaMu.Unlock()
	for {
		g.mu.RLock()
		var seg *segment
		if n := len(g.segments); n > 0 {
			seg = g.segments[n-1]
		}
		g.mu.RUnlock()
		if seg != nil {
			x, err := seg.readIndex()
			if isGone(err) {
				return ErrOffsetGone
			}
			if err != nil {
				return err
			}
			if _, m := x.lastCommit(); m.Offset > seg.last() {
				seg.time.Store(m.nano())
				seg.end.Store(int64(m.Offset))
				g.committed.advance(m.Offset)
			}
		}
		next := newSegment(g.s.fs, g.dir, g.Committed()+1, false)
		x, err := next.readIndex()
		var ce *CorruptionError
		if isGone(err) || errors.As(err, &ce) { // not there, or its header is being written
			return nil
		}
		if err != nil {
			return err
		}
		if n, _ := x.lastCommit(); n == 0 {
			return nil
		}
		g.addSegment(next)
	}
}

// superseded reports whether the writing process has another current generation.
func (g *Generation) superseded() (bool, error) {
	var m manifest
	if err := readMeta(g.s.fs, g.s.dir, manifestFile, &m); err != nil {
		return false, err
	}
	return m.Current > g.id, nil
}
