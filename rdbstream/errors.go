package rdbstream

import (
	"errors"
	"fmt"
	"io"
)

// What can be wrong with a file. Every [Error] wraps one of these, or the error
// of the reader.
var (
	// ErrNotRDB says that the first bytes are not those of an RDB file.
	ErrNotRDB = errors.New("not an RDB file")
	// ErrTruncated says that the file ends before its end. It wraps
	// io.ErrUnexpectedEOF.
	ErrTruncated = fmt.Errorf("the file is cut short: %w", io.ErrUnexpectedEOF)
	// ErrCorrupt says that the bytes cannot be those of an RDB file.
	ErrCorrupt = errors.New("corrupt")
	// ErrChecksum says that the CRC64 at the end is not that of the bytes before.
	ErrChecksum = errors.New("wrong checksum")
	// ErrTrailing says that bytes follow the end.
	ErrTrailing = errors.New("bytes after the end of the file")
	// ErrUnsupported says that the file has a version, an opcode or a type whose
	// structure is not known here, so that where it ends cannot be found.
	ErrUnsupported = errors.New("unsupported")
)

// Error says where reading a file failed and what was being read.
type Error struct {
	Offset int64  // in bytes from the beginning of the file
	Doing  string // "reading a length", of which key
	Err    error
}

// Error returns a sentence with all three.
func (e *Error) Error() string {
	return fmt.Sprintf("rdb offset %d: %s: %v", e.Offset, e.Doing, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func corruptf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}

func unsupportedf(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrUnsupported}, args...)...)
}

func errChecksum(want, got uint64) error {
	return fmt.Errorf("%w: the file says %016x, its bytes give %016x", ErrChecksum, want, got)
}
