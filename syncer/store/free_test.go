package store

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/sluice-io/sluice/syncer/repl"
)

// nearlyFull has little room left.
type nearlyFull struct {
	*memFS
	free uint64
}

func (f *nearlyFull) Free(string) (uint64, error) { return f.free, nil }

// A base that would fill the disk is refused before its first byte, and the log
// goes on.
func TestNoRoomForBase(t *testing.T) {
	fs := &nearlyFull{memFS: newMemFS(), free: 1999}
	s := mustOpen(t, fs, Options{})
	begin(t, s, idA, 0)
	m := BaseMeta{Pos: repl.Pos{ReplID: idA}, Size: 1000}
	if _, err := s.BeginBase(m); !errors.Is(err, ErrNoRoom) || s.State() != StateWritable {
		t.Errorf("%v, store is %s", err, s.State())
	}
	feed(t, s, 500, 0, at(1))
	fs.free = 2000
	b, err := s.BeginBase(m)
	must(t, err)
	must(t, b.Abort())
	must(t, s.Close())
}

func TestFree(t *testing.T) {
	dir := t.TempDir()
	if n, err := (OSFS{}).Free(dir); err != nil || n == 0 {
		t.Errorf("Free(%s) = %d, %v", dir, n, err)
	}
	if n, err := (OSFS{}).Free(filepath.Join(dir, "gone")); err == nil {
		t.Errorf("Free of a directory that is not there is %d", n)
	}
}
