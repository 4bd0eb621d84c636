package store

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// freeSpace is an [FS] that knows how much may still be written.
type freeSpace interface {
	// Free returns the bytes that are left on the file system of a directory.
	Free(dir string) (uint64, error)
}

var _ freeSpace = OSFS{}

// Free returns the bytes that the file system of dir has left for a user
// without privileges.
func (OSFS) Free(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
