package eventloop

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// Socket is a non-blocking descriptor, and its TLS if it has any, on the way to
// a loop. Whoever holds it owns it.
type Socket struct {
	fd  int
	tls *TLS
}

// Take turns a connection of package net, or a [TLS] over one whose handshake
// is done, into a socket for [Loop.Attach] and closes the original. Any
// goroutine may call it.
func Take(c net.Conn) (Socket, error) {
	s := Socket{fd: -1}
	if t, ok := c.(*TLS); ok {
		s.tls, c = t, t.t.sock
	}
	var err error
	s.fd, err = duplicate(c)
	_ = c.Close()
	return s, err
}

// Conn is the way back: it turns a socket that has no TLS into a connection of
// package net. The socket is used up, on an error too.
func (s Socket) Conn() (net.Conn, error) {
	f := os.NewFile(uintptr(s.fd), "socket")
	defer func() { _ = f.Close() }() // FileConn makes a duplicate
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("take socket: %w", err)
	}
	return c, nil
}

// Close closes a socket that found no loop.
func (s Socket) Close() {
	if s.fd >= 0 {
		_ = unix.Close(s.fd)
	}
}

// Refuse sends a last line to a client that is not served, as far as the
// socket takes it at once, and closes it.
func (s Socket) Refuse(line string) {
	_, _ = sysWrite(s.fd, []byte(line))
	_ = unix.Close(s.fd)
}
