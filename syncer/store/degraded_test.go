package store

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/syncer/repl"
)

// A disk that takes no writes is a state, told once, in which nothing that was
// committed is lost, and which ends by itself when the disk is back.
func TestDegradedAndBack(t *testing.T) {
	for _, tc := range []struct {
		name        string
		hurt, mend  func(fs *memFS)
		state       State
		cause       error
		onSync      bool // noticed by an fsync and not by a write
		hintsAtWhat string
	}{
		{"disk full", func(fs *memFS) { fs.capacity = fs.used() + 1000 }, func(fs *memFS) { fs.capacity = 0 },
			StateDiskFull, syscall.ENOSPC, false, "free space"},
		{"disk read-only", func(fs *memFS) { fs.readOnly = true }, func(fs *memFS) { fs.readOnly = false },
			StateDiskReadOnly, syscall.EROFS, false, "mount it writable"},
		{"fsync fails", func(fs *memFS) { fs.syncErr = syscall.EIO }, func(fs *memFS) { fs.syncErr = nil },
			StateDiskFailing, syscall.EIO, true, "check the disk"},
		{"fsync finds the disk full", func(fs *memFS) { fs.syncErr = syscall.ENOSPC }, func(fs *memFS) { fs.syncErr = nil },
			StateDiskFull, syscall.ENOSPC, true, "free space"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fs := newMemFS()
				core, logs := observer.New(zap.InfoLevel)
				s := mustOpen(t, fs, Options{SegmentBytes: 100_000, Fsync: FsyncNo, Logger: zap.New(core), RetainAge: Unlimited})
				g := begin(t, s, idA, 0)
				feed(t, s, 90_000, 0, at(1))
				must(t, s.Sync())
				feed(t, s, 95_000, 0, at(2))
				must(t, s.Append(stream(95_000, 101_000))) // and bytes that no commit covers
				change(fs, tc.hurt)

				var err error
				if tc.onSync {
					err = s.Sync()
				} else {
					err = s.Append(stream(101_000, 110_000))
				}
				var de *DegradedError
				if !errors.As(err, &de) || !errors.Is(err, ErrDegraded) || !errors.Is(err, tc.cause) || de.State != tc.state || s.State() != tc.state {
					t.Fatalf("%v, state %s, want %s by %v", err, s.State(), tc.state, tc.cause)
				}
				if !strings.Contains(err.Error(), tc.hintsAtWhat) {
					t.Errorf("error %q has no hint", err)
				}
				for name, err := range map[string]error{
					"Append": s.Append([]byte("x")), "Commit": s.Commit(Mark{Offset: 96_000}), "Sync": s.Sync(),
					"BeginBase":    second(s.BeginBase(BaseMeta{Pos: repl.Pos{ReplID: idA, Offset: 95_000}})),
					"ChangeReplID": s.ChangeReplID(idB), "NewGeneration": second(s.NewGeneration(repl.Pos{ReplID: idB}, history(idB))),
				} {
					if !errors.Is(err, ErrDegraded) {
						t.Errorf("%s: %v, want ErrDegraded", name, err)
					}
				}
				if g.Fsynced() != 90_000 {
					t.Errorf("durable up to %d is claimed", g.Fsynced())
				}
				must(t, checkLog(g)) // what is committed is served
				time.Sleep(10 * DefaultRetryEvery)
				if s.State() != tc.state {
					t.Errorf("state is %s while nothing has changed", s.State())
				}
				change(fs, tc.mend)
				must(t, s.WaitWritable(within(t)))
				if tc.onSync && g.Fsynced() != 95_000 {
					t.Errorf("writable, but durable up to %d only", g.Fsynced())
				}
				must(t, s.Append(stream(101_000, 110_000))) // the same bytes again
				must(t, s.Commit(Mark{Offset: 110_000, Time: at(3)}))
				feed(t, s, 150_000, 0, at(4))
				must(t, checkLog(g))
				var texts []string
				for _, e := range logs.All() {
					texts = append(texts, e.Message)
				}
				if got := strings.Join(texts, "; "); got != "store cannot write; store writes again" {
					t.Errorf("log says: %s", got)
				}
				must(t, s.Close())
				s = mustOpen(t, fs.afterCrash(survivals(nil)[1]), Options{RetainAge: Unlimited}) // only what is durable
				if s.Head().Committed() != 150_000 {
					t.Errorf("log ends at %d, closed at 150000", s.Head().Committed())
				}
				must(t, checkLog(s.Head()))
				must(t, s.Close())
			})
		})
	}
}

func change(fs *memFS, f func(*memFS)) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	f(fs)
}

// Where the kernel has thrown away what a failed fsync should have written, the
// store does not go on as if it were there; opening again cuts it off.
func TestLostWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		s := mustOpen(t, fs, Options{Fsync: FsyncNo})
		begin(t, s, idA, 0)
		feed(t, s, 1000, 0, at(1))
		must(t, s.Sync())
		feed(t, s, 9000, 0, at(2))
		change(fs, func(fs *memFS) { fs.syncErr, fs.loseSync = syscall.EIO, true })
		if err := s.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Sync: %v", err)
		}
		change(fs, func(fs *memFS) { fs.syncErr, fs.loseSync = nil, false })
		if err := s.WaitWritable(within(t)); !errors.Is(err, errLostWrites) || s.State() != StateUnsafe {
			t.Fatalf("WaitWritable: %v, state %s", err, s.State())
		}
		if err := s.Append([]byte("x")); !errors.Is(err, ErrDegraded) {
			t.Errorf("Append: %v", err)
		}
		if err := s.Close(); !errors.Is(err, errLostWrites) {
			t.Errorf("Close: %v", err)
		}
		s = mustOpen(t, fs, Options{})
		if s.Head().Committed() != 1000 {
			t.Errorf("log ends at %d, want 1000", s.Head().Committed())
		}
		must(t, checkLog(s.Head()))
		must(t, s.Close())
	})
}

// The same for bytes that no commit covers: no record vouches for them, and yet
// they must not be committed later.
func TestLostTail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		s := mustOpen(t, fs, Options{Fsync: FsyncNo})
		g := begin(t, s, idA, 0)
		feed(t, s, 1000, 0, at(1))
		must(t, s.Append(stream(1000, 200_000)))
		change(fs, func(fs *memFS) { fs.syncErr = syscall.EIO })
		if err := s.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("Sync: %v", err)
		}
		fs.edit(g.dir+"/"+segmentFile(1), func(b []byte) []byte { b[100_000] ^= 1; return b })
		change(fs, func(fs *memFS) { fs.syncErr = nil })
		if err := s.WaitWritable(within(t)); !errors.Is(err, errLostWrites) {
			t.Errorf("WaitWritable: %v, state %s", err, s.State())
		}
		if err := s.Close(); !errors.Is(err, errLostWrites) {
			t.Errorf("Close: %v", err)
		}
	})
}

// The process is killed after an fsync has failed: what the next one finds in the
// page cache need not be on the disk, and no fsync would bring it there.
func TestOpenAfterFailedFsync(t *testing.T) {
	fs := newMemFS()
	s := mustOpen(t, fs, Options{Fsync: FsyncNo, SegmentBytes: 100_000, RetryEvery: time.Hour})
	begin(t, s, idA, 0)
	feed(t, s, 1000, 0, at(1))
	must(t, s.Sync())
	for _, off := range []repl.Offset{90_000, 120_000, 130_000} { // into a second segment
		feed(t, s, off, 0, at(2))
	}
	change(fs, func(fs *memFS) { fs.syncErr = syscall.EIO })
	if err := s.Sync(); !errors.Is(err, syscall.EIO) {
		t.Fatalf("Sync: %v", err)
	}
	s = mustOpen(t, fs.afterKill(), Options{})
	if g := s.Head(); g.Committed() != 130_000 || g.Fsynced() != 130_000 {
		t.Fatalf("log ends at %d, durable up to %d, want 130000", g.Committed(), g.Fsynced())
	}
	now, ok := s.fs.(*memFS)
	if !ok {
		t.Fatal("the store has another file system")
	}
	s = mustOpen(t, now.afterCrash(survivals(nil)[1]), Options{}) // only what is durable
	if g := s.Head(); g.Committed() != 130_000 {
		t.Errorf("log ends at %d, was said to be durable up to 130000", g.Committed())
	}
	must(t, checkLog(s.Head()))
	must(t, s.Close())
}

// A base that does not fit on the disk leaves the old one in service, and gives
// its space back.
func TestBaseOnFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		s := mustOpen(t, fs, Options{})
		g := begin(t, s, idA, 0)
		old := addBase(t, s, idA, 0, 1000)
		feed(t, s, 500, 0, at(0))
		change(fs, func(fs *memFS) { fs.capacity = fs.used() + 2<<20 })
		b, err := s.BeginBase(BaseMeta{Pos: repl.Pos{ReplID: idA, Offset: 500}})
		must(t, err)
		if _, err := b.Write(make([]byte, 3<<20)); !errors.Is(err, syscall.ENOSPC) {
			t.Fatalf("Write: %v", err)
		}
		if _, err := b.Commit(); !errors.Is(err, ErrDegraded) {
			t.Errorf("Commit after a failed Write: %v", err)
		}
		must(t, b.Abort())
		must(t, s.WaitWritable(within(t)))
		if got := g.Bases(); len(got) != 1 {
			t.Errorf("bases are %v", got)
		}
		must(t, checkBaseContent(g, old))
		feed(t, s, 600, 0, at(0))
		must(t, s.Close())
	})
}

// A cancelled wait ends, and Close ends the others.
func TestWaitWritableEnds(t *testing.T) {
	fs := newMemFS()
	s := mustOpen(t, fs, Options{RetryEvery: time.Hour})
	begin(t, s, idA, 0)
	change(fs, func(fs *memFS) { fs.readOnly = true })
	if err := s.Append([]byte("x")); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if err := s.WaitWritable(ctx); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	got := make(chan error)
	go func() { got <- s.WaitWritable(context.Background()) }()
	if err := s.Close(); err == nil {
		t.Error("Close of a store on a read-only disk says that all is durable")
	}
	if err := <-got; !errors.Is(err, ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// An fsync that hangs holds up neither the writer nor readers.
func TestAppendDoesNotWaitForFsync(t *testing.T) {
	gate := make(chan struct{})
	fs := &stallFS{FS: newMemFS(), gate: gate}
	s := mustOpen(t, fs, Options{Fsync: FsyncAlways, SegmentBytes: 100_000})
	g := begin(t, s, idA, 0)
	fs.stall.Store(true)
	for off := repl.Offset(50_000); off <= 1_000_000; off += 50_000 { // over many segments
		feed(t, s, off, 0, at(0))
	}
	must(t, checkLog(g))
	if g.Fsynced() != 0 {
		t.Errorf("durable up to %d while fsync hangs", g.Fsynced())
	}
	close(gate)
	must(t, g.WaitFsynced(within(t), 1_000_000))
	must(t, s.Close())
}
