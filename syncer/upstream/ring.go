package upstream

import (
	"context"
	"sync"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

const (
	// maxRead bounds one read from the socket, so that what it brought can be
	// written while the next one comes.
	maxRead = 1 << 20
	// spillBytes of a command or transaction that is not over are kept in memory
	// before they are written; most are over by then, and are written at once.
	spillBytes = 1 << 20
)

// ring is the memory between the socket and the disk. The reader fills it and
// never waits; the writer empties it.
//
//	        start            commit      start+used
//	buf …     |  committed     |  the rest  |   free …
//	        released
type ring struct {
	wake chan struct{} // capacity 1: there is something new for the writer
	room chan struct{} // capacity 1: the writer has freed some

	mu       sync.Mutex
	buf      []byte
	start    int         // index of the first byte in use
	used     int         // bytes in use
	released repl.Offset // of the last byte that was released
	commit   store.Mark  // last commit point received
	closed   bool        // the reader has ended
}

func newRing(size int) *ring {
	return &ring{buf: make([]byte, size), wake: make(chan struct{}, 1), room: make(chan struct{}, 1)}
}

// reset empties the ring for a stream that goes on behind m. Neither reader nor
// writer may be at work.
func (r *ring) reset(m store.Mark) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start, r.used, r.released, r.commit, r.closed = 0, 0, m.Offset, m, false
	select {
	case <-r.wake:
	default:
	}
}

// space returns free memory to read into, nil if there is none. Only the reader
// may call.
func (r *ring) space() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.used == 0 {
		r.start = 0 // pages that were never needed are never touched
	}
	if r.used == len(r.buf) {
		return nil
	}
	from := (r.start + r.used) % len(r.buf)
	to := len(r.buf)
	if from < r.start {
		to = r.start
	}
	return r.buf[from:min(to, from+maxRead)]
}

// roomWait is how long a full ring may stay full in the middle of a command that
// is longer than half of it.
const roomWait = 5 * time.Second

// awaitSpace is space, but waits a moment for room. Only the reader may call.
func (r *ring) awaitSpace(done <-chan struct{}) []byte {
	t := time.NewTimer(roomWait)
	defer t.Stop()
	for {
		if p := r.space(); p != nil {
			return p
		}
		select {
		case <-r.room:
		case <-t.C:
			return nil
		case <-done:
			return nil
		}
	}
}

// publish gives n bytes of what space returned to the writer, and the last
// commit point up to there.
func (r *ring) publish(n int, commit store.Mark) {
	r.mu.Lock()
	r.used += n
	r.commit = commit
	r.mu.Unlock()
	r.poke()
}

// close says that nothing more will be published.
func (r *ring) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.poke()
}

func (r *ring) poke() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// next waits for bytes to be written. m is set if they end at a commit point.
// ok is false when the reader has ended and all that it committed was released.
func (r *ring) next(ctx context.Context) (p []byte, m *store.Mark, ok bool, err error) {
	for {
		p, m, closed := r.take()
		if p != nil {
			return p, m, true, nil
		}
		if closed {
			return nil, nil, false, nil
		}
		select {
		case <-r.wake:
		case <-ctx.Done():
			return nil, nil, false, context.Cause(ctx)
		}
	}
}

func (r *ring) take() (p []byte, m *store.Mark, closed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := int(r.commit.Offset - r.released)
	mark := n > 0
	if !mark {
		if r.used < min(spillBytes, len(r.buf)/2) || r.closed {
			return nil, nil, r.closed
		}
		n = r.used
	}
	end := r.start + n
	if end > len(r.buf) {
		end, mark = len(r.buf), false
	}
	p = r.buf[r.start:end]
	if mark {
		c := r.commit
		m = &c
	}
	return p, m, false
}

// release frees the first n bytes. Only the writer may call.
func (r *ring) release(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.start = (r.start + n) % len(r.buf)
	r.used -= n
	r.released += repl.Offset(n)
	select {
	case r.room <- struct{}{}:
	default:
	}
}

// len returns how many bytes are in use.
func (r *ring) len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.used
}
