package eventloop

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// acceptBatch is how many connections one report of a listener accepts.
const acceptBatch = 64

// acceptPause is how long a listener rests when the process is out of
// descriptors: level-triggered, it would be reported without end.
const acceptPause = 100 * time.Millisecond

// Listener is a bound socket. It is served by a loop after Serve.
type Listener struct {
	addr    net.Addr
	fd      int
	network string
	unlink  string // path of a unix socket, removed on Close
	conn    *Conn
}

// Listen binds network ("tcp" or "unix") and address. A unix socket that
// nobody listens on any more is replaced. Any goroutine may call it.
func Listen(ctx context.Context, network, address string) (*Listener, error) {
	if network == "unix" {
		if err := removeStale(address); err != nil {
			return nil, err
		}
	}
	var lc net.ListenConfig
	nl, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = nl.Close() }() // ours is a duplicate
	l := &Listener{addr: nl.Addr(), network: network}
	if ul, ok := nl.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false)
		l.unlink = address
	}
	l.fd, err = duplicate(nl)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", address, err)
	}
	return l, nil
}

// removeStale removes a unix socket whose server is gone.
func removeStale(path string) error {
	fi, err := os.Stat(path)
	if err != nil || fi.Mode()&os.ModeSocket == 0 {
		return nil // Listen says what is wrong with anything else
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return fmt.Errorf("listen unix %s: %w", path, syscall.EADDRINUSE)
	}
	if errors.Is(err, syscall.ECONNREFUSED) {
		return os.Remove(path)
	}
	return nil
}

// duplicate takes the descriptor out of a connection or listener of package
// net: the original can be closed, and the runtime's poller does not know the
// copy. The copy shares the non-blocking mode.
func duplicate(v any) (int, error) {
	sc, ok := v.(syscall.Conn)
	if !ok {
		return -1, fmt.Errorf("no descriptor in %T", v)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, derr := -1, error(nil)
	if err := raw.Control(func(s uintptr) { fd, derr = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); err != nil {
		return -1, err
	}
	return fd, os.NewSyscallError("fcntl", derr)
}

// Addr returns the bound address.
func (ln *Listener) Addr() net.Addr { return ln.addr }

// Network returns "tcp" or "unix".
func (ln *Listener) Network() string { return ln.network }

// Serve accepts connections on the loop's goroutine, which must be the
// caller's, and hands each to fn, which then owns it.
func (l *Loop) Serve(ln *Listener, fn func(Socket)) error {
	a := &acceptor{loop: l, ln: ln, fn: fn}
	c := l.NewConn(a)
	c.acceptor = a
	if err := l.Attach(c, Socket{fd: ln.fd}); err != nil {
		return err
	}
	ln.conn = c
	return nil
}

// Close stops accepting. On a listener that is served it must be called on the
// loop's goroutine.
func (ln *Listener) Close() {
	if ln.conn != nil {
		ln.conn.Close(ErrClosedHere)
	} else {
		_ = unix.Close(ln.fd)
	}
	if ln.unlink != "" {
		_ = os.Remove(ln.unlink)
		ln.unlink = ""
	}
}

// acceptor is what a listener's Conn does in place of reading.
type acceptor struct {
	loop *Loop
	ln   *Listener
	fn   func(Socket)
}

func (a *acceptor) accept(c *Conn) {
	for range acceptBatch {
		fd, _, err := accept(c.fd)
		switch {
		case err == nil:
			if a.ln.network == "tcp" {
				_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
				_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
			}
			a.fn(Socket{fd: fd})
		case errors.Is(err, syscall.EAGAIN):
			return
		case errors.Is(err, syscall.EINTR), errors.Is(err, syscall.ECONNABORTED):
		default: // EMFILE, ENFILE, ENOBUFS: rest, the queue of the kernel holds the clients
			c.Pause()
			a.loop.After(acceptPause, c.Resume)
			return
		}
	}
}

// The Handler methods are never reached but OnClose: a listener has no data.

// OnData is part of Handler.
func (a *acceptor) OnData(_ *Conn, data []byte) int { return len(data) }

// OnEOF is part of Handler.
func (a *acceptor) OnEOF(*Conn) {}

// OnDrain is part of Handler.
func (a *acceptor) OnDrain(*Conn) {}

// OnClose is part of Handler.
func (a *acceptor) OnClose(*Conn, error) {}
