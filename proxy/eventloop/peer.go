package eventloop

import (
	"net/netip"

	"golang.org/x/sys/unix"
)

// Peer returns the address of the other end, "unix" for a unix socket, "" where
// it is gone. It makes a system call.
func (c *Conn) Peer() string {
	if c.fd < 0 {
		return ""
	}
	sa, err := unix.Getpeername(c.fd)
	if err != nil {
		return ""
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)).String()
	default:
		return "unix"
	}
}
