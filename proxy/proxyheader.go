package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/proxyproto"
)

// headerFault says why a client was closed for its PROXY protocol header: the
// label reason of sluice_proxy_header_errors_total.
type headerFault uint8

const (
	headerUntrusted headerFault = iota // the peer is not of TrustedProxies
	headerMissing                      // the connection begins with something else
	headerVersion1
	headerMalformed
	headerTooLarge
	headerTimeout
	headerGone // the peer left before it was complete
	headerOther
	numHeaderFaults
)

// String is the value of the label reason.
func (f headerFault) String() string {
	return [...]string{
		"untrusted", "missing", "version_1", "malformed", "too_large", "timeout", "disconnected", "other",
	}[f]
}

// hint tells an operator what to do, where the error alone does not.
func (f headerFault) hint() string {
	switch f {
	case headerUntrusted:
		return "add the load balancer to the listener's trusted_proxies; clients of their own need a listener without proxy_protocol"
	case headerMissing, headerTimeout:
		return "have the load balancer send the PROXY protocol, version 2 (HAProxy: send-proxy-v2), or take proxy_protocol from the listener"
	case headerVersion1:
		return "have the load balancer send version 2 (HAProxy: send-proxy-v2)"
	default:
		return ""
	}
}

var errUntrusted = errors.New("the peer is not one of trusted_proxies")

func headerFaultOf(err error) headerFault {
	switch {
	case errors.Is(err, errUntrusted):
		return headerUntrusted
	case errors.Is(err, proxyproto.ErrMissing):
		return headerMissing
	case errors.Is(err, proxyproto.ErrVersion1):
		return headerVersion1
	case errors.Is(err, proxyproto.ErrMalformed):
		return headerMalformed
	case errors.Is(err, proxyproto.ErrTooLarge):
		return headerTooLarge
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded):
		return headerTimeout
	case isGone(err):
		return headerGone
	}
	return headerOther
}

// headerCounts count faults. Any goroutine may add.
type headerCounts [numHeaderFaults]atomic.Uint64

// trust says whose PROXY protocol headers are believed. It is never changed.
type trust struct {
	unix bool // the socket's permissions decide
	nets []netip.Prefix
}

// newTrust returns nil for a listener without the PROXY protocol.
func newTrust(l *Listener) *trust {
	if !l.ProxyProtocol {
		return nil
	}
	return &trust{unix: l.Network == "unix", nets: l.TrustedProxies}
}

func (t *trust) has(peer net.Addr) bool {
	if t.unix {
		return true
	}
	a, ok := peer.(*net.TCPAddr)
	if !ok {
		return false
	}
	ip := a.AddrPort().Addr().Unmap().WithZone("")
	for _, n := range t.nets {
		if n.Contains(ip) {
			return true
		}
	}
	return false
}

// checkTrust refuses what would believe nobody, or what cannot hold.
func (l *Listener) checkTrust(i int) error {
	switch {
	case !l.ProxyProtocol && len(l.TrustedProxies) > 0:
		return fmt.Errorf("check options: listener %d: trusted proxies without the PROXY protocol", i)
	case l.ProxyProtocol && l.Network == "tcp" && len(l.TrustedProxies) == 0:
		return fmt.Errorf("check options: listener %d: the PROXY protocol needs trusted proxies", i)
	case l.Network == "unix" && len(l.TrustedProxies) > 0:
		return fmt.Errorf("check options: listener %d: a unix socket has no trusted proxies: its permissions say who may connect", i)
	}
	return nil
}

// readHeader returns for whom the peer of c speaks, "" for itself. It leaves
// what follows the header in the socket and ends with ctx.
func (t *trust) readHeader(ctx context.Context, c net.Conn) (from string, err error) {
	if !t.has(c.RemoteAddr()) {
		return "", errUntrusted
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetReadDeadline(time.Unix(1, 0)) })
	from, err = proxyproto.Read(c)
	if !stop() { // it has begun, and may only now set the deadline
		return "", fmt.Errorf("read PROXY protocol header: %w", context.Cause(ctx))
	}
	return from, err
}

// clientHeaderFailed counts and logs a client that was closed for its header.
func (s *Server) clientHeaderFailed(b *boundListener, peer string, err error) {
	f := headerFaultOf(err)
	s.headerFaults[f].Add(1)
	fields := []zap.Field{
		zap.String("listener", b.Address), zap.String("peer", peer), zap.Stringer("reason", f), zap.Error(err),
	}
	if h := f.hint(); h != "" {
		fields = append(fields, zap.String("hint", h))
	}
	s.headerLog.warn("a client has no good PROXY protocol header", fields...)
}
