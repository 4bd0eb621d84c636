package upstream

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/sluice-io/sluice/syncer/psync"
)

// peer is a connection to a master or a replica. Each read and write may take
// as long as the timeout, so that a master's keepalives count as the signs of
// life they are.
type peer struct {
	addr    string
	conn    net.Conn
	r       *bufio.Reader // of Read
	timeout time.Duration
	relay   bool // as its INFO says
	unhook  func() bool
}

// Read reads from the socket; r is the buffer in front of it.
func (p *peer) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	return p.conn.Read(b)
}

// Write writes to the socket.
func (p *peer) Write(b []byte) (int, error) {
	if err := p.conn.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	return p.conn.Write(b)
}

// close closes the socket; what is reading from it fails.
func (p *peer) close() {
	p.unhook()
	_ = p.conn.Close()
}

// dial opens a connection that is closed when ctx ends.
func (l *Link) dial(ctx context.Context, addr string) (*peer, error) {
	limited, cancel := context.WithTimeout(ctx, l.opt.ConnectTimeout)
	defer cancel()
	conn, err := l.opt.Dial(limited, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", addr, err)
	}
	if l.opt.TLS != nil {
		cfg := l.opt.TLS
		if cfg.ServerName == "" {
			cfg = cfg.Clone()
			cfg.ServerName, _, _ = net.SplitHostPort(addr) // New and parseReplica made sure of it
		}
		sock := conn
		stop := context.AfterFunc(limited, func() { _ = sock.Close() })
		t := tls.Client(sock, cfg)
		err := t.HandshakeContext(limited)
		stop()
		if err != nil {
			_ = sock.Close()
			return nil, fmt.Errorf("connect %s by TLS: %w", addr, err)
		}
		conn = t
	}
	p := &peer{addr: addr, conn: conn, timeout: l.opt.Timeout}
	p.r = psync.NewReader(p)
	p.unhook = context.AfterFunc(ctx, func() { _ = conn.Close() })
	return p, nil
}

// greet performs the handshake, for the stream or for a snapshot alone.
func (l *Link) greet(p *peer, rdbOnly bool) error {
	h := psync.Handshake{
		Username: l.opt.User, Password: l.opt.Password,
		Capa: psync.CapaEOF | psync.CapaPSYNC2, Version: announcedVersion, RDBOnly: rdbOnly,
	}
	if !rdbOnly {
		h.ListeningPort, h.IPAddress = l.opt.ListeningPort, l.opt.IPAddress
	}
	if err := h.Run(p, p.r); err != nil {
		return fmt.Errorf("handshake with %s: %w", p.addr, err)
	}
	return nil
}
