package proxy

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/eventloop"
)

// greetFor bounds what comes before the first request of a client: the PROXY
// protocol header and the TLS handshake together.
const greetFor = 10 * time.Second

// greets reports whether a client of the listener has to be greeted before it
// gets a session.
func (b *boundListener) greets() bool { return b.tls.Load() != nil || b.trust.Load() != nil }

// greet reads a new client's PROXY protocol header and makes the TLS handshake
// with it, which costs up to milliseconds of CPU and several round trips, in a
// goroutine of its own; the loops do not notice. There are at most max_clients
// of them, each for at most greetFor.
func (s *Server) greet(ctx context.Context, b *boundListener, sock eventloop.Socket, num uint64) {
	ctx, cancel := context.WithTimeoutCause(ctx, greetFor, context.DeadlineExceeded)
	defer cancel()
	c, err := sock.Conn()
	if err != nil {
		s.clientGone()
		s.log.Warn("a client could not be accepted", zap.Error(err))
		return
	}
	c, from, ok := s.welcome(ctx, b, c)
	if !ok {
		_ = c.Close()
		s.clientGone()
		return
	}
	if sock, err = eventloop.Take(c); err != nil {
		s.clientGone()
		s.log.Warn("a client could not be accepted", zap.Error(err))
		return
	}
	w := s.idlest()
	if !w.loop.Post(func() { w.adopt(b, sock, num, from) }) {
		s.clientGone()
		sock.Close()
	}
}

// welcome returns c as it is to be used, or closed, and who the client is where
// the peer has told. A failure is counted and logged, unless the server is being
// closed.
func (s *Server) welcome(ctx context.Context, b *boundListener, c net.Conn) (_ net.Conn, from string, ok bool) {
	peer := c.RemoteAddr().String()
	if b.Network == "unix" {
		peer = "unix"
	}
	closing := func() bool { return ctx.Err() != nil && context.Cause(ctx) != context.DeadlineExceeded } //nolint:errorlint // that very one
	if t := b.trust.Load(); t != nil {
		var err error
		if from, err = t.readHeader(ctx, c); err != nil {
			if !closing() {
				s.clientHeaderFailed(b, peer, err)
			}
			return c, "", false
		}
		if from != "" {
			peer = from
		}
	}
	cfg := b.tls.Load()
	if cfg == nil {
		return c, from, true
	}
	c, err := shakeHands(ctx, c, cfg)
	if err != nil && !closing() {
		s.clientTLSFailed(b, peer, handshakeFault(err), err)
	}
	return c, from, err == nil
}

// shakeHands returns c with TLS over it; on an error c as it is to be closed.
func shakeHands(ctx context.Context, c net.Conn, cfg *tls.Config) (net.Conn, error) {
	t := eventloop.ServerTLS(c, cfg)
	if err := t.HandshakeContext(ctx); err != nil {
		return c, fmt.Errorf("TLS handshake: %w", err)
	}
	return t, nil
}

// clientTLSFailed counts and logs a client's TLS connection that has failed.
func (s *Server) clientTLSFailed(b *boundListener, from string, f tlsFault, err error) {
	s.clientTLS[f].Add(1)
	fields := []zap.Field{
		zap.String("listener", b.Address), zap.String("client", from), zap.Stringer("reason", f), zap.Error(err),
	}
	if h := f.hint(); h != "" {
		fields = append(fields, zap.String("hint", h))
	}
	s.greetLog.warn("TLS with a client failed", fields...)
}

// nodeError is told of every connection to a node that failed, and counts
// those that failed because of TLS.
func (s *Server) nodeError(addr string, err error) {
	f, ok := tlsFaultOf(err)
	if !ok && strings.Contains(err.Error(), "TLS handshake") {
		f, ok = handshakeFault(err), true
	}
	if !ok {
		return
	}
	s.nodeTLS[f].Add(1)
	s.nodeTLSLog.warn("TLS with a node failed",
		zap.String("node", addr), zap.Stringer("reason", f), zap.String("hint", f.hint()), zap.Error(err))
}

// sealWhole makes TLS records as large as they may be: the first ones are small
// else, and cost more than they gain on the short answers of Redis.
func sealWhole(cfg *tls.Config) *tls.Config {
	cfg = cfg.Clone()
	cfg.DynamicRecordSizingDisabled = true
	return cfg
}
