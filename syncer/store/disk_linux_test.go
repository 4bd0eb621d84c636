package store

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// A real file system that is full: all that was committed before stays, and
// writing goes on when there is room again.
func TestRealDiskFull(t *testing.T) {
	mnt := t.TempDir()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	if err := syscall.Mount("tmpfs", mnt, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("cannot mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { must(t, syscall.Unmount(mnt, syscall.MNT_DETACH)) })
	o := Options{SegmentBytes: 1 << 20, Fsync: FsyncAlways, RetryEvery: 10 * time.Millisecond}
	dir := filepath.Join(mnt, "store")
	s := mustOpenDir(t, dir, OSFS{}, o)
	g := begin(t, s, idA, 0)
	ballast := filepath.Join(mnt, "ballast")
	must(t, os.WriteFile(ballast, make([]byte, 3<<20), 0o600))
	var err error
	const piece = 100_000
	for err == nil {
		from := g.Committed()
		if from > 100*piece {
			t.Fatal("the disk is never full")
		}
		if err = s.Append(stream(from, from+piece)); err == nil {
			err = s.Commit(Mark{Offset: from + piece, Time: time.Now()})
		}
	}
	var de *DegradedError
	if !errors.As(err, &de) || de.State != StateDiskFull || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the full disk gives %v", err)
	}
	must(t, checkLog(g))
	full := g.Committed()
	must(t, os.Remove(ballast))
	must(t, s.WaitWritable(within(t)))
	if g.Fsynced() != full {
		t.Errorf("durable up to %d after recovery, want %d", g.Fsynced(), full)
	}
	m, err := s.TruncateToCommit()
	must(t, err)
	feed(t, s, m.Offset+repl.Offset(piece), 0, time.Now())
	must(t, s.Close())
	s = mustOpenDir(t, dir, OSFS{}, o)
	if len(s.Repairs()) > 0 || s.Head().Committed() != full+piece {
		t.Errorf("log ends at %d, want %d; repairs: %q", s.Head().Committed(), full+piece, s.Repairs())
	}
	must(t, checkLog(s.Head()))
	must(t, s.Close())
}
