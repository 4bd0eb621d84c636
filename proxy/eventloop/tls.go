package eventloop

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// sealBatch is how many bytes of output are sealed for one write.
const sealBatch = 56 << 10

// maxSealed bounds, in bytes, the sealed output that the kernel does not take:
// a batch with its overhead, and what a peer can make TLS itself answer.
const maxSealed = 256 << 10

// TLS is one side of a TLS connection that can be handed to a loop. Until
// [Take] it is an ordinary blocking net.Conn, on which the handshake is made;
// afterwards it belongs to the loop's Conn, and whoever made it must not use
// it again.
type TLS struct {
	*tls.Conn
	t *transport
}

// ServerTLS is the server's side of TLS over c.
func ServerTLS(c net.Conn, cfg *tls.Config) *TLS {
	t := &transport{sock: c}
	return &TLS{tls.Server(t, cfg), t}
}

// ClientTLS is the client's side of TLS over c. Without a ServerName in cfg the
// certificate must be for the host of addr (HOST:PORT).
func ClientTLS(c net.Conn, cfg *tls.Config, addr string) *TLS {
	if cfg.ServerName == "" {
		if host, _, err := net.SplitHostPort(addr); err == nil {
			cfg = cfg.Clone()
			cfg.ServerName = host
		}
	}
	t := &transport{sock: c}
	return &TLS{tls.Client(t, cfg), t}
}

// errWouldBlock is what crypto/tls gets where the socket has nothing. It keeps
// what it has of a record and can be asked again: it takes only errors for
// final that are not temporary (Conn.readRecordOrCCS).
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

// Error implements error.
func (wouldBlock) Error() string { return "nothing to read now" }

// Timeout implements net.Error.
func (wouldBlock) Timeout() bool { return true }

// Temporary implements net.Error.
func (wouldBlock) Temporary() bool { return true }

// transport is what crypto/tls reads from and writes to: a blocking connection
// during the handshake, then the non-blocking socket of a Conn. From then on
// it belongs to the goroutine of the loop.
type transport struct {
	sock net.Conn // nil once the loop has the socket
	conn *Conn

	drained bool   // the socket is not to be asked again now
	more    bool   // crypto/tls may hold bytes, or an end, that were not delivered
	out     []byte // sealed, from sent on not yet taken by the kernel
	sent    int
	sealed  int // bytes of the Conn's output in out that do not count as written yet
}

// Read implements net.Conn.
func (t *transport) Read(p []byte) (int, error) {
	if t.sock != nil {
		return t.sock.Read(p)
	}
	for !t.drained {
		n, err := sysRead(t.conn.fd, p)
		switch {
		case n > 0:
			t.drained = n < len(p) // more would be reported
			return n, nil
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			t.drained = true
		case err != 0:
			return 0, err
		default:
			return 0, io.EOF
		}
	}
	return 0, errWouldBlock
}

// Write implements net.Conn. On a loop it only collects: send makes the system
// call, one for all records of a batch.
func (t *transport) Write(p []byte) (int, error) {
	if t.sock != nil {
		return t.sock.Write(p)
	}
	if len(t.out)+len(p) > cap(t.out) {
		pool := &t.conn.loop.pool
		grown := append(pool.get(len(t.out)+len(p)), t.out...)
		pool.put(t.out)
		t.out = grown
	}
	t.out = append(t.out, p...)
	return len(p), nil
}

// Close implements net.Conn. The socket of a loop is the loop's to close.
func (t *transport) Close() error {
	if t.sock != nil {
		return t.sock.Close()
	}
	return nil
}

// LocalAddr implements net.Conn.
func (t *transport) LocalAddr() net.Addr { return t.sock.LocalAddr() }

// RemoteAddr implements net.Conn.
func (t *transport) RemoteAddr() net.Addr { return t.sock.RemoteAddr() }

// SetDeadline implements net.Conn; on a loop nothing blocks.
func (t *transport) SetDeadline(d time.Time) error {
	if t.sock != nil {
		return t.sock.SetDeadline(d)
	}
	return nil
}

// SetReadDeadline implements net.Conn.
func (t *transport) SetReadDeadline(d time.Time) error {
	if t.sock != nil {
		return t.sock.SetReadDeadline(d)
	}
	return nil
}

// SetWriteDeadline implements net.Conn.
func (t *transport) SetWriteDeadline(d time.Time) error {
	if t.sock != nil {
		return t.sock.SetWriteDeadline(d)
	}
	return nil
}

// attach hands the socket over to c.
func (s *TLS) attach(c *Conn) {
	t := s.t
	t.sock, t.conn = nil, c
	t.drained, t.more = true, true // the handshake may have read further
	c.tls = s
	c.Wake()
}

// TLSState returns what was agreed on in the handshake, nil without TLS.
func (c *Conn) TLSState() *tls.ConnectionState {
	if c.tls == nil {
		return nil
	}
	st := c.tls.ConnectionState()
	return &st
}

// fill reads into p until it is full or the socket has no more.
func (s *TLS) fill(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = s.Read(p[n:])
		n += k
	}
	return n, err
}

// readTLS is the part of readable that reads, of the socket only if fresh: buf
// holds what is left of before in its first k bytes.
func (c *Conn) readTLS(buf []byte, k int, fresh bool) {
	t := c.tls.t
	t.drained = !fresh
	n, err := c.tls.fill(buf[k:])
	t.more = err != errWouldBlock //nolint:errorlint // passed through as it is
	if n > 0 {
		c.LastRead = c.loop.now
		c.deliver(buf[:k+n])
	}
	if len(t.out) > 0 && !c.closed { // an answer of TLS itself
		c.touch()
		if len(t.out)-t.sent > maxSealed {
			c.Close(ErrOutputLimit)
		}
	}
	switch {
	case c.closed || !t.more:
	case err == nil || n > 0: // what crypto/tls holds beyond comes in a delivery of its own
		c.Wake()
	case errors.Is(err, io.EOF):
		c.eof = true
		c.reading = false
		c.loop.interest(c)
		c.h.OnEOF(c)
	default:
		c.Close(fmt.Errorf("read: %w", err))
	}
}

// sendTLS is send for a connection with TLS.
func (c *Conn) sendTLS() bool {
	t := c.tls.t
	for {
		if len(t.out) == 0 {
			if c.out.pending() == 0 {
				return true
			}
			if err := c.seal(); err != nil {
				c.Close(fmt.Errorf("write: %w", err))
				return false
			}
		}
		n, err := sysWrite(c.fd, t.out[t.sent:])
		switch {
		case n > 0:
			// Which records the kernel has taken is not looked at: as soon as one
			// may have left, all that is in out counts as written.
			c.out.advance(t.sealed)
			t.sealed = 0
			if !c.Retain {
				c.loop.release(&c.out, c.out.written)
			}
			if t.sent += n; t.sent == len(t.out) {
				t.drop()
			}
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			if !c.writing {
				c.writing = true
				c.loop.interest(c)
			}
			return true
		default:
			c.Close(err)
			return false
		}
	}
}

// seal encrypts the next batch of the output, which stays where it is.
func (c *Conn) seal() error {
	t := c.tls.t
	for k := c.out.next; k != nil && t.sealed < sealBatch; k = k.next {
		p := k.buf[k.sent:]
		if len(p) == 0 {
			continue
		}
		p = p[:min(len(p), sealBatch-t.sealed)]
		if _, err := c.tls.Write(p); err != nil {
			return err
		}
		t.sealed += len(p)
	}
	return nil
}

// drop gives the buffer of sealed bytes back.
func (t *transport) drop() {
	t.conn.loop.pool.put(t.out)
	t.out, t.sent = nil, 0
}

// unsent returns how many bytes the kernel has not taken.
func (c *Conn) unsent() int {
	n := c.out.pending()
	if c.tls != nil {
		n += len(c.tls.t.out) - c.tls.t.sent
	}
	return n
}

// bye tells the peer that the connection ends in good order, if all output has
// been sent: a stream that was cut off must not look like this. What TLS itself
// had to say, an alert, is sent too, as far as the socket takes it at once.
func (c *Conn) bye() {
	t := c.tls.t
	if c.out.pending() == 0 {
		_ = c.tls.CloseWrite()
	}
	if t.sealed == 0 && len(t.out) > t.sent {
		_, _ = sysWrite(c.fd, t.out[t.sent:])
	}
	t.drop()
}

var _ net.Conn = (*TLS)(nil)
