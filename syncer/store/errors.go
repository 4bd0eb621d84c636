package store

import (
	"errors"
	"fmt"
	"path/filepath"
)

// What callers test for with errors.Is.
var (
	// ErrLocked: another process writes to the directory.
	ErrLocked = errors.New("another process writes to this store; stop it, or choose another directory")
	// ErrClosed: the store is closed.
	ErrClosed = errors.New("store is closed")
	// ErrReadOnly: the store was opened by OpenReadOnly.
	ErrReadOnly = errors.New("store is open for reading only")
	// ErrDegraded: the disk is full, read-only or fails; see DegradedError.
	ErrDegraded = errors.New("store cannot write")
	// ErrOffsetGone: the bytes asked for are no longer stored.
	ErrOffsetGone = errors.New("offset is no longer stored")
	// ErrOffsetAhead: the bytes asked for are not stored yet.
	ErrOffsetAhead = errors.New("offset is ahead of the store")
	// ErrNoGeneration: nothing was ever stored; NewGeneration comes first.
	ErrNoGeneration = errors.New("store has no generation yet")
	// ErrGenerationOver: another generation has taken the place of this one.
	ErrGenerationOver = errors.New("generation is over")
	// ErrForeignBase: the snapshot's position is not in the generation's history.
	ErrForeignBase = errors.New("base is not of this history")
	// ErrBaseExists: there is, or is being written, a base at the same offset.
	ErrBaseExists = errors.New("a base at this offset exists")
	// ErrBaseGone: retention has removed the base.
	ErrBaseGone = errors.New("base is no longer stored")
	// ErrNoRoom: the base would not fit on the disk, and would take the log's room
	// before that shows.
	ErrNoRoom = errors.New("the disk has no room for it: free space, or keep less (retention)")
	// ErrBaseSize: the base has not the size that was announced.
	ErrBaseSize = errors.New("base has not the announced size")
)

// CorruptionError says that a file is not what was written. The store does not
// serve it and does not repair it: bytes that had been durable are missing or
// changed.
type CorruptionError struct {
	Dir    string `json:"dir"`    // of the store, or the generation in it
	File   string `json:"file"`   // in Dir
	Offset int64  `json:"offset"` // in the file, in bytes, where the damage begins or is noticed
	Reason string `json:"reason"`
}

// Error names directory, file and offset, and what can be done.
func (e *CorruptionError) Error() string {
	return fmt.Sprintf("%s is corrupt at byte %d: %s. Nothing was changed. `sluice store verify` lists all damage; "+
		"restore the file from a copy, or move the directory away and start with a full resync",
		filepath.Join(e.Dir, e.File), e.Offset, e.Reason)
}

// DegradedError is what writers get while the disk takes no writes. It is
// [ErrDegraded], and its cause is in the chain.
type DegradedError struct {
	State State  // StateDiskFull, StateDiskReadOnly, StateDiskFailing or StateUnsafe
	Op    string // what failed: "write", "fsync" …
	File  string // path of the file that it failed on
	Err   error  // the cause, such as syscall.ENOSPC
}

// Error says what failed and what to do.
func (e *DegradedError) Error() string {
	return fmt.Sprintf("%s %s: %v; %s", e.Op, e.File, e.Err, e.State.hint())
}

// Unwrap returns [ErrDegraded] and the cause.
func (e *DegradedError) Unwrap() []error { return []error{ErrDegraded, e.Err} }
