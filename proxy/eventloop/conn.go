package eventloop

import (
	"errors"
	"io"
	"syscall"
)

// Errors that OnClose receives beside those of the system calls.
var (
	// ErrClosed says that the loop was stopped.
	ErrClosed = errors.New("event loop closed")
	// ErrOutputLimit says that the output of the connection grew past its limit.
	ErrOutputLimit = errors.New("output buffer limit exceeded")
	// ErrClosedHere says that this side closed the connection in good order.
	ErrClosedHere = errors.New("connection closed by this side")
)

// Handler receives what happens to a [Conn]. All its methods are called by the
// loop's goroutine.
type Handler interface {
	// OnData is called with all bytes that are not consumed yet, old ones
	// first, and returns how many it consumed; the rest is kept and comes
	// again with more behind it. data is valid during the call only.
	OnData(c *Conn, data []byte) int
	// OnEOF is called when the peer has finished sending (half-close). The
	// connection can still be written; the handler closes it when it is done.
	OnEOF(c *Conn)
	// OnDrain is called when output that had reached the high-water mark has
	// fallen under half of it.
	OnDrain(c *Conn)
	// OnClose is called once, at the end of the iteration in which the
	// connection was closed, by whatever side.
	OnClose(c *Conn, err error)
}

// Conn is a connection of a [Loop]. Its methods may be called only on the
// loop's goroutine.
type Conn struct {
	loop *Loop
	h    Handler
	in   []byte // bytes that the handler has not consumed yet
	out  queue

	// HighWater is the number of bytes waiting to be written from which
	// [Conn.Congested] is true; HardLimit the number that closes the
	// connection. 0 means no limit.
	HighWater, HardLimit int
	// Retain keeps written output until [Conn.Release].
	Retain bool

	// LastRead is the loop's time (see [Loop.Now]) at the last byte received.
	LastRead int64

	tls        *TLS      // nil for a plain connection
	acceptor   *acceptor // set on a listener: readable means accept
	fd         int       // -1 before Attach and after the close
	slot       int       // index in loop.conns
	closeErr   error
	dirty      bool // in loop.dirty
	closed     bool
	aborted    bool // the socket is to be reset
	paused     bool // the handler wants no data
	resumed    bool // in loop.resumed
	parked     bool // hung up while paused: out of the kernel's event queue
	reading    bool // read interest is armed
	writing    bool // write interest is armed
	eof        bool
	flushClose bool // close once all output is written
	congested  bool
}

// Loop returns the loop that owns c.
func (c *Conn) Loop() *Loop { return c.loop }

// Closed reports whether c was closed. Nothing is delivered or sent after it.
func (c *Conn) Closed() bool { return c.closed }

// Pending returns the number of bytes not yet written.
func (c *Conn) Pending() int { return c.out.pending() }

// Written returns the stream position after the last byte that the kernel took.
func (c *Conn) Written() uint64 { return c.out.written }

// Appended returns the stream position after the last byte of output.
func (c *Conn) Appended() uint64 { return c.out.appended }

// Congested reports whether output has reached HighWater and OnDrain is due.
func (c *Conn) Congested() bool { return c.congested }

// Buffered returns the number of received bytes that wait to be consumed.
func (c *Conn) Buffered() int { return len(c.in) }

// Write queues p; it is sent at the end of the iteration. A closed connection
// drops it.
func (c *Conn) Write(p []byte) {
	for !c.closed && len(p) > 0 {
		n := len(p)
		if t := c.out.tail; t != nil {
			if free := cap(t.buf) - len(t.buf); free > 0 {
				n = min(n, free) // fill the tail before a new chunk is taken
			}
		}
		if n > largeChunk {
			n = largeChunk
		}
		c.loop.append(&c.out, p[:n])
		p = p[n:]
		c.touch()
	}
}

// WriteWhole queues p in one piece and returns the chunk and the offset in it,
// for a connection that retains its output. c must not be closed.
func (c *Conn) WriteWhole(p []byte) (*Chunk, int) {
	k, off := c.loop.append(&c.out, p)
	c.touch()
	return k, off
}

// Flush writes what is queued now, not at the end of the iteration: worth its
// system call where the peer can begin to work on much of it.
func (c *Conn) Flush() {
	if c.fd >= 0 && !c.closed && !c.writing {
		c.send()
	}
}

// touch marks c for the flush and applies the limits.
func (c *Conn) touch() {
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
	n := c.out.pending()
	if c.HardLimit > 0 && n > c.HardLimit {
		c.Close(ErrOutputLimit)
		return
	}
	if c.HighWater > 0 && n >= c.HighWater {
		c.congested = true
	}
}

// Release allows written output before pos to be dropped.
func (c *Conn) Release(pos uint64) { c.loop.release(&c.out, pos) }

// Pause stops delivery of data. The kernel's buffer fills and the peer is held
// back by TCP.
func (c *Conn) Pause() { c.paused = true }

// Resume ends a Pause. Bytes that wait are delivered in this iteration.
func (c *Conn) Resume() {
	if !c.paused || c.closed {
		return
	}
	c.paused = false
	if !c.reading && !c.eof && c.fd >= 0 {
		c.reading = true
		c.loop.interest(c)
	}
	c.Wake()
}

// Wake delivers the bytes that wait again, later in this iteration, though
// none have been added: the handler can now take what it left.
func (c *Conn) Wake() {
	if !c.resumed && !c.closed {
		c.resumed = true
		c.loop.resumed = append(c.loop.resumed, c)
	}
}

// Close ends the connection; OnClose follows at the end of the iteration.
// Output that the kernel has not taken is dropped. err must not be nil.
func (c *Conn) Close(err error) {
	if c.closed {
		return
	}
	c.closed = true
	c.closeErr = err
	c.loop.closing = append(c.loop.closing, c)
}

// Abort is Close that also throws away what the kernel has taken and the peer
// has not acknowledged: after an orderly close it would go on to be sent, and
// could arrive minutes later, when a partition is over. What the peer has
// received and not read is lost too, as TCP's reset does.
func (c *Conn) Abort(err error) {
	c.aborted = true
	c.Close(err)
}

// CloseAfterFlush closes the connection once its output is written. Nothing
// more is delivered to the handler.
func (c *Conn) CloseAfterFlush() {
	c.paused = true
	c.flushClose = true
	if c.unsent() == 0 {
		c.Close(ErrClosedHere)
	}
}

// readable takes what the socket holds, up to one scratch buffer.
func (c *Conn) readable() {
	if c.closed || c.eof {
		return
	}
	if c.paused { // only now is the system call to disarm worth it
		c.reading = false
		c.loop.interest(c)
		return
	}
	if c.acceptor != nil {
		c.acceptor.accept(c)
		return
	}
	buf, k := c.space()
	if c.tls != nil {
		c.readTLS(buf, k, true)
		return
	}
	n, err := sysRead(c.fd, buf[k:])
	switch {
	case n > 0:
		c.LastRead = c.loop.now
		c.deliver(buf[:k+n])
	case err == syscall.EAGAIN || err == syscall.EINTR:
	case err != 0:
		c.Close(err)
	default:
		c.eof = true
		c.reading = false
		c.loop.interest(c)
		c.h.OnEOF(c)
	}
}

// space returns where to read to: a buffer that holds in its first k bytes what
// the handler has left, and has room for half a scratch buffer behind them.
func (c *Conn) space() (buf []byte, k int) {
	l := c.loop
	buf, k = l.scratch, len(c.in)
	if k <= len(buf)/2 {
		copy(buf, c.in)
		return buf, k
	}
	if cap(c.in)-k < len(buf)/2 {
		grown := append(l.pool.get(2*cap(c.in)), c.in...)
		l.pool.put(c.in)
		c.in = grown
	}
	return c.in[:cap(c.in)], k
}

// deliver hands data to the handler and keeps what it left. data is either in
// the scratch buffer or in c.in's own memory.
func (c *Conn) deliver(data []byte) {
	n := c.h.OnData(c, data)
	l := c.loop
	rest := data[n:]
	switch {
	case len(rest) == 0 || c.closed:
		if c.in != nil {
			l.pool.put(c.in)
			c.in = nil
		}
	case cap(c.in) >= len(rest):
		c.in = c.in[:len(rest)]
		if n > 0 || &c.in[0] != &rest[0] {
			copy(c.in, rest)
		}
	default:
		l.pool.put(c.in)
		c.in = append(l.pool.get(len(rest)), rest...)
	}
}

// redeliver is deliver without a read, after Resume or Wake.
func (c *Conn) redeliver() {
	c.resumed = false
	if c.closed || c.paused {
		return
	}
	if len(c.in) > 0 {
		c.deliver(c.in)
	}
	if c.tls != nil && c.tls.t.more && !c.closed && !c.paused && !c.eof {
		buf, k := c.space()
		c.readTLS(buf, k, false)
	}
}

// flush ends c's turn in the loop's flush.
func (c *Conn) flush() {
	c.dirty = false
	if c.closed || c.fd < 0 {
		return
	}
	if c.send() {
		c.flushed()
	}
}

// send writes what is queued, as far as the kernel takes it. It returns false
// where the connection has failed.
func (c *Conn) send() bool {
	if c.tls != nil {
		return c.sendTLS()
	}
	for c.out.pending() > 0 {
		n, err := c.writeSome()
		if n > 0 {
			c.out.advance(n)
			if !c.Retain {
				c.loop.release(&c.out, c.out.written)
			}
			continue
		}
		if err == syscall.EINTR {
			continue
		}
		if err != syscall.EAGAIN {
			c.Close(err)
			return false
		}
		if !c.writing {
			c.writing = true
			c.loop.interest(c)
		}
		break
	}
	return true
}

// flushed does what becomes possible as output shrinks.
func (c *Conn) flushed() {
	n := c.unsent()
	if n == 0 {
		if c.writing {
			c.writing = false
			c.loop.interest(c)
		}
		if c.flushClose {
			c.Close(ErrClosedHere)
			return
		}
	}
	if c.congested && n < c.HighWater/2 {
		c.congested = false
		c.h.OnDrain(c)
	}
}

// writeSome makes one system call.
func (c *Conn) writeSome() (int, syscall.Errno) {
	k := c.out.next
	if k.sent == len(k.buf) && k.next != nil {
		k = k.next
	}
	if k.next == nil {
		return sysWrite(c.fd, k.buf[k.sent:])
	}
	return c.loop.writev(c.fd, k)
}

// hangup handles a report that both directions have ended, on a connection
// that is not being read.
func (c *Conn) hangup() {
	switch {
	case c.eof:
		c.Close(io.EOF) // nothing can be received or sent any more
	case c.paused:
		// What the peer sent before it left is still to be served, but a
		// hang-up cannot be masked: take the socket out until Resume.
		c.loop.poll.remove(c.fd)
		c.parked, c.reading, c.writing = true, false, false
	default:
		c.readable()
	}
}
