package eventloop

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// scratchSize is the read buffer that all connections of a loop share, in
// bytes. One read takes at most so much, which also bounds how long one busy
// connection keeps the others waiting.
const scratchSize = 128 << 10

// Loop serves connections on the goroutine that calls Run. Except for Post,
// Stop, Conns and NewLoop its methods may be called only there.
type Loop struct {
	poll    poller
	conns   []*Conn // by slot; nil where free
	slots   []int   // free slots
	scratch []byte
	pool    pool
	chunks  *Chunk // unused ones
	nchunks int
	iov     vectors

	dirty, closing, resumed []*Conn
	timers                  timerHeap
	start                   time.Time
	now                     int64
	iteration               uint64
	stopping                bool

	count   atomic.Int64 // connections, those on their way included
	awake   atomic.Bool  // a wake is under way, or Run has not begun to wait
	mu      sync.Mutex
	posted  []func() // guarded by mu
	stopped bool     // guarded by mu: Post is refused
	running []func() // the batch of posted that runs now
}

// NewLoop opens the kernel's event queue.
func NewLoop() (*Loop, error) {
	l := &Loop{scratch: make([]byte, scratchSize), start: time.Now()}
	if err := l.poll.open(); err != nil {
		return nil, fmt.Errorf("open event queue: %w", err)
	}
	return l, nil
}

// Now returns the time of this iteration in nanoseconds since the loop was
// made, from the monotonic clock: it was taken after what is handled had come.
func (l *Loop) Now() int64 { return l.now }

// Iteration counts the iterations.
func (l *Loop) Iteration() uint64 { return l.iteration }

// Conns returns the number of connections, for balancing. Any goroutine may
// call it.
func (l *Loop) Conns() int64 { return l.count.Load() }

// Post runs fn on the loop's goroutine, in the order of the calls. Any
// goroutine may call it. It returns false, and fn never runs, once the loop
// has stopped.
func (l *Loop) Post(fn func()) bool {
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, fn)
	l.mu.Unlock()
	if l.awake.CompareAndSwap(false, true) {
		l.poll.wake()
	}
	return true
}

// Stop ends Run after the current iteration: every connection is closed with
// ErrClosed. Any goroutine may call it; it does not wait.
func (l *Loop) Stop() { l.Post(func() { l.stopping = true }) }

// Run serves until Stop. It returns an error only where the kernel's event
// queue fails. A busy loop hardly ever gives its processor of Go's scheduler
// away: GOMAXPROCS must be above the number of loops, or all other goroutines
// come late, by up to 10 ms.
func (l *Loop) Run() error {
	defer l.shutdown()
	for !l.stopping {
		l.iteration++
		l.now = int64(time.Since(l.start))
		n, err := l.poll.wait(l.timeout())
		if err != nil {
			return fmt.Errorf("wait for events: %w", err)
		}
		l.now = int64(time.Since(l.start)) // what is received now was not there before the wait
		l.poll.each(n, l.handle)
		l.now = int64(time.Since(l.start))
		l.runPosted()
		l.runTimers()
		l.finish()
	}
	return nil
}

func (l *Loop) handle(ev event) {
	c := l.conns[ev.slot]
	if c == nil || c.closed {
		return
	}
	if ev.write {
		c.flush()
	}
	if ev.read {
		c.readable()
	} else if ev.hangup {
		c.hangup()
	}
}

// finish ends an iteration: what was resumed is delivered, what was closed is
// closed, what was written is flushed; each may cause more of the others.
func (l *Loop) finish() {
	for len(l.resumed)+len(l.closing)+len(l.dirty) > 0 {
		for i := 0; i < len(l.resumed); i++ {
			l.resumed[i].redeliver()
		}
		l.resumed = l.resumed[:0]
		for i := 0; i < len(l.closing); i++ {
			l.destroy(l.closing[i])
		}
		l.closing = l.closing[:0]
		for i := 0; i < len(l.dirty); i++ {
			l.dirty[i].flush()
		}
		l.dirty = l.dirty[:0]
	}
}

func (l *Loop) runPosted() {
	if !l.awake.Load() {
		return
	}
	l.awake.Store(false) // before the swap: a later Post wakes again
	l.mu.Lock()
	l.posted, l.running = l.running[:0], l.posted
	l.mu.Unlock()
	for i, fn := range l.running {
		fn()
		l.running[i] = nil
	}
}

// NewConn returns a connection that has no socket yet: it can be written to,
// and Attach gives it the socket.
func (l *Loop) NewConn(h Handler) *Conn {
	return &Conn{loop: l, h: h, fd: -1, slot: -1, LastRead: l.now}
}

// Attach gives c its socket and starts to serve it. On an error the caller
// still owns the socket.
func (l *Loop) Attach(c *Conn, s Socket) error {
	slot := len(l.conns)
	if n := len(l.slots); n > 0 {
		slot = l.slots[n-1]
		l.slots = l.slots[:n-1]
	} else {
		l.conns = append(l.conns, nil)
	}
	if err := l.poll.add(s.fd, slot, true, false); err != nil {
		l.slots = append(l.slots, slot)
		return err
	}
	c.fd, c.slot, c.reading = s.fd, slot, true
	c.LastRead = l.now
	l.conns[slot] = c
	l.count.Add(1)
	if s.tls != nil {
		s.tls.attach(c)
	}
	if c.out.pending() > 0 && !c.dirty {
		c.dirty = true
		l.dirty = append(l.dirty, c)
	}
	return nil
}

// interest tells the kernel what c waits for.
func (l *Loop) interest(c *Conn) {
	set := l.poll.modify
	if c.parked {
		if !c.reading {
			return
		}
		c.parked = false
		set = l.poll.add
	}
	if err := set(c.fd, c.slot, c.reading, c.writing); err != nil {
		c.Close(err)
	}
}

// destroy closes the socket and tells the handler. It runs after the events of
// an iteration, so that no event can meet a descriptor or slot used again.
func (l *Loop) destroy(c *Conn) {
	if c.fd >= 0 {
		if c.tls != nil {
			c.bye()
		}
		l.poll.remove(c.fd)
		if c.aborted { // a unix socket has no such option and needs none
			_ = unix.SetsockoptLinger(c.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		}
		_ = unix.Close(c.fd)
		l.conns[c.slot] = nil
		l.slots = append(l.slots, c.slot)
		c.fd = -1
		l.count.Add(-1)
	}
	c.h.OnClose(c, c.closeErr) // may still look at retained output
	l.pool.put(c.in)
	c.in = nil
	for k := c.out.head; k != nil; {
		next := k.next
		l.freeChunk(k)
		k = next
	}
	c.out = queue{appended: c.out.appended, written: c.out.appended}
}

// shutdown closes everything and runs what was posted meanwhile.
func (l *Loop) shutdown() {
	l.mu.Lock()
	l.stopped = true
	late := l.posted
	l.posted = nil
	l.mu.Unlock()
	for _, fn := range late {
		fn()
	}
	for _, c := range l.conns {
		if c != nil {
			c.Close(ErrClosed)
		}
	}
	l.finish()
	l.poll.close()
}
