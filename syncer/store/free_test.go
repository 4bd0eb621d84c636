package store

import (
	"path/filepath"
	"testing"
)

func TestFree(t *testing.T) {
	dir := t.TempDir()
	if n, err := (OSFS{}).Free(dir); err != nil || n == 0 {
		t.Errorf("Free(%s) = %d, %v", dir, n, err)
	}
	if n, err := (OSFS{}).Free(filepath.Join(dir, "gone")); err == nil {
		t.Errorf("Free of a directory that is not there is %d", n)
	}
}
