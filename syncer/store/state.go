package store

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
)

// State is the condition of a store. DESIGN.md draws the transitions.
type State uint8

// The states.
const (
	// StateWritable: everything works.
	StateWritable State = iota
	// StateDiskFull: no space or quota; the keeper tries again.
	StateDiskFull
	// StateDiskReadOnly: the file system became read-only; the keeper tries again.
	StateDiskReadOnly
	// StateDiskFailing: any other I/O error; the keeper tries again.
	StateDiskFailing
	// StateUnsafe: after a failed fsync the bytes read back were not those
	// written. Only closing and opening again, which cuts the log to what is
	// good, leads out of it.
	StateUnsafe
	// StateReadOnly: opened by OpenReadOnly.
	StateReadOnly
	// StateClosed: Close was called.
	StateClosed

	numStates
)

// String returns the state in words.
func (s State) String() string {
	return [...]string{"writable", "disk full", "disk read-only", "disk failing", "unsafe", "read-only", "closed"}[s]
}

// Degraded reports whether the disk takes no writes.
func (s State) Degraded() bool { return s >= StateDiskFull && s <= StateUnsafe }

func (s State) hint() string {
	switch s {
	case StateDiskFull:
		return "the disk is full: free space, or keep less (retention); writing resumes by itself"
	case StateDiskReadOnly:
		return "the file system is read-only: mount it writable; writing resumes by itself"
	case StateUnsafe:
		return "written data was lost in memory: check the disk and restart"
	default:
		return "check the disk; writing resumes by itself once it works"
	}
}

// degradedBy returns the state that an I/O error leads to.
func degradedBy(err error) State {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return StateDiskFull
	case errors.Is(err, syscall.EROFS):
		return StateDiskReadOnly
	case errors.Is(err, errLostWrites):
		return StateUnsafe
	default:
		return StateDiskFailing
	}
}

// errLostWrites: what is read back after a failed fsync is not what was written.
var errLostWrites = errors.New("data written before the failed fsync cannot be read back")

// health is the state machine. Any goroutine may call.
type health struct {
	log *zap.Logger
	dir string

	state atomic.Uint32 // State; written under mu
	mu    sync.Mutex
	err   error         // why nothing can be written; nil when StateWritable
	turn  chan struct{} // closed and replaced at each transition

	failures atomic.Uint64 // operations that failed

	worsened func() // called when a degraded state begins; must not block
}

func newHealth(dir string, log *zap.Logger, worsened func()) *health {
	return &health{dir: dir, log: log, turn: make(chan struct{}), worsened: worsened}
}

// State returns the state now.
func (h *health) State() State { return State(h.state.Load()) }

// check returns nil if writes may be tried.
func (h *health) check() error {
	if h.State() == StateWritable {
		return nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

func (h *health) move(to State, err error) {
	h.state.Store(uint32(to))
	h.err = err
	close(h.turn)
	h.turn = make(chan struct{})
}

// BecomeDegraded notes that op on file failed with err and returns the error
// for the caller. Only a change is logged. StateUnsafe and StateClosed stay.
func (h *health) BecomeDegraded(op, file string, err error) error {
	de := &DegradedError{State: degradedBy(err), Op: op, File: file, Err: err}
	h.mu.Lock()
	from := h.State()
	h.failures.Add(1)
	if from == StateClosed { // Close has to tell what failed
		h.mu.Unlock()
		return de
	}
	if from == StateUnsafe {
		err := h.err
		h.mu.Unlock()
		return err
	}
	if from != de.State {
		h.move(de.State, de)
	}
	h.mu.Unlock()
	if from != de.State {
		h.log.Error("store cannot write", zap.String("dir", h.dir), zap.Stringer("state", de.State), zap.Error(de))
	}
	h.worsened()
	return de
}

// BecomeWritable notes that writes work (again).
func (h *health) BecomeWritable() {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch from := h.State(); from {
	case StateDiskFull, StateDiskReadOnly, StateDiskFailing:
		h.move(StateWritable, nil)
		h.log.Info("store writes again", zap.String("dir", h.dir), zap.Stringer("after", from))
	}
}

// BecomeReadOnly is the first and only transition of a store for readers.
func (h *health) BecomeReadOnly() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.move(StateReadOnly, ErrReadOnly)
}

// BecomeClosed is the last transition. It reports whether it was the first call.
func (h *health) BecomeClosed() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.State() == StateClosed {
		return false
	}
	h.move(StateClosed, ErrClosed)
	return true
}

// changed returns a channel that is closed by the next transition.
func (h *health) changed() <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.turn
}

// waitWritable waits until the state is StateWritable.
func (h *health) waitWritable(ctx context.Context) error {
	for {
		h.mu.Lock()
		state, err, turn := h.State(), h.err, h.turn
		h.mu.Unlock()
		switch state {
		case StateWritable:
			return nil
		case StateDiskFull, StateDiskReadOnly, StateDiskFailing:
		default:
			return err
		}
		select {
		case <-turn:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
