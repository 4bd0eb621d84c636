package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"
)

// File is an open file. [*os.File] is one.
type File interface {
	io.ReaderAt
	io.WriterAt
	// Stat tells the size.
	Stat() (os.FileInfo, error)
	// Truncate cuts or extends the file to size bytes.
	Truncate(size int64) error
	// Sync makes the content durable.
	Sync() error
	Close() error
}

var _ File = (*os.File)(nil)

// FS is what a [Store] needs of a file system. Tests put one in front that
// fails, stalls or crashes. Any goroutine may call.
type FS interface {
	// OpenFile opens as [os.OpenFile] does.
	OpenFile(name string, flag int, perm os.FileMode) (File, error)
	// Mkdir makes one directory.
	Mkdir(name string, perm os.FileMode) error
	// ReadDir returns the names in a directory, sorted.
	ReadDir(name string) ([]string, error)
	// Size returns the size of a file in bytes.
	Size(name string) (int64, error)
	// Rename replaces to by from, atomically.
	Rename(from, to string) error
	// Remove removes a file or an empty directory.
	Remove(name string) error
	// SyncDir makes the entries of a directory durable.
	SyncDir(name string) error
	// Lock takes an exclusive lock that ends with Close or with the process. It
	// fails with [ErrLocked] where another holds it.
	Lock(name string) (io.Closer, error)
}

// OSFS is the operating system's file system.
type OSFS struct{}

var _ FS = OSFS{}

// OpenFile implements [FS]. The File is an [*os.File].
func (OSFS) OpenFile(name string, flag int, perm os.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// Mkdir implements [FS].
func (OSFS) Mkdir(name string, perm os.FileMode) error { return os.Mkdir(name, perm) }

// ReadDir implements [FS].
func (OSFS) ReadDir(name string) ([]string, error) {
	d, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	slices.Sort(names)
	return names, errors.Join(err, d.Close())
}

// Size implements [FS].
func (OSFS) Size(name string) (int64, error) {
	fi, err := os.Stat(name)
	if err != nil {
		return 0, err
	}
	return fi.Size(), nil
}

// Rename implements [FS].
func (OSFS) Rename(from, to string) error { return os.Rename(from, to) }

// Remove implements [FS].
func (OSFS) Remove(name string) error { return os.Remove(name) }

// SyncDir implements [FS].
func (OSFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock implements [FS] by flock(2).
func (OSFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err == nil {
		return f, nil
	}
	_ = f.Close()
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, ErrLocked
	}
	return nil, fmt.Errorf("flock %s: %w", name, err)
}

const (
	fileMode = 0o640
	dirMode  = 0o750
)

// readFile returns the content of a file that must not be larger than limit bytes.
func readFile(fs FS, name string, limit int64) (data []byte, err error) {
	f, err := fs.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if fi.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, at most %d make sense", name, fi.Size(), limit)
	}
	return readUpTo(f, 0, fi.Size())
}

// readUpTo reads n bytes at off, or what there is of them.
func readUpTo(f io.ReaderAt, off, n int64) ([]byte, error) {
	data := make([]byte, n)
	have, err := f.ReadAt(data, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return data[:have], err
}

// removeIfThere removes name; that it is gone already is no error.
func removeIfThere(fs FS, name string) error {
	if err := fs.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
