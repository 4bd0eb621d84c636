// Package proxyproto reads the header of the PROXY protocol, version 2, by which
// a load balancer tells whom it speaks for
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt, section 2.2).
package proxyproto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
)

// MaxSize is how long what follows the first 16 bytes may be, in bytes. The
// longest address takes 216; the rest is for TLVs, as of a client certificate.
const MaxSize = 4096

const fixedSize = 16 // signature, version and command, family, length

// signature begins every header. No request of Redis or TLS begins with it.
var signature = []byte("\r\n\r\n\x00\r\nQUIT\n")

// What a header can lack.
var (
	ErrMissing   = errors.New("the connection does not begin with a PROXY protocol header")
	ErrVersion1  = errors.New("the PROXY protocol header is of version 1, not 2")
	ErrMalformed = errors.New("malformed PROXY protocol header")
	ErrTooLarge  = errors.New("PROXY protocol header too large")
)

// Read reads one header from r and not a byte more. It returns the address of
// the client that the peer speaks for: IP:PORT, or the path of a unix socket
// ("unix" where it has none), and "" where the peer speaks for itself (LOCAL, as
// in a health check) or does not say. An error is one of the above, or r's.
func Read(r io.Reader) (from string, err error) {
	var head [fixedSize]byte
	if err := readFixed(r, &head); err != nil {
		return "", err
	}
	size := binary.BigEndian.Uint16(head[14:])
	if size > MaxSize {
		return "", fmt.Errorf("%w: %d bytes announced, %d allowed", ErrTooLarge, size, MaxSize)
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return "", err
	}
	return parse(head[12], head[13], body)
}

// readFixed fails as soon as what has come cannot be a header: whoever sends
// something else, and waits for an answer, is not to wait.
func readFixed(r io.Reader, head *[fixedSize]byte) error {
	for n := 0; n < len(head); {
		k, err := r.Read(head[n:])
		n += k
		sig := head[:min(n, len(signature))]
		switch {
		case bytes.HasPrefix(signature, sig):
		case bytes.HasPrefix(sig, []byte("PROXY ")):
			return ErrVersion1
		case !bytes.HasPrefix([]byte("PROXY "), sig):
			return ErrMissing
		}
		if err != nil && n < len(head) {
			if n > 0 && err == io.EOF {
				return io.ErrUnexpectedEOF
			}
			return err
		}
	}
	return nil
}

// Commands and families.
const (
	cmdLocal  = 0x20 // with the version in the upper half
	cmdProxy  = 0x21
	inet      = 1
	inet6     = 2
	unix      = 3
	stream    = 1
	maxProto  = 2 // DGRAM
	unixPath  = 108
	inetSize  = 2*4 + 2*2
	inet6Size = 2*16 + 2*2
)

// parse judges the 13th and 14th byte and what follows the 16th.
func parse(command, family byte, body []byte) (from string, err error) {
	switch command {
	case cmdLocal:
		return "", nil // whatever family and address say
	case cmdProxy:
	default:
		return "", fmt.Errorf("%w: version and command are %#02x", ErrMalformed, command)
	}
	fam, proto := family>>4, family&0xf
	if fam > unix || proto > maxProto {
		return "", fmt.Errorf("%w: family and protocol are %#02x", ErrMalformed, family)
	}
	if fam == 0 || proto != stream {
		return "", nil // the address is to be ignored
	}
	size := [...]int{inet: inetSize, inet6: inet6Size, unix: 2 * unixPath}[fam]
	if len(body) < size {
		return "", fmt.Errorf("%w: %d bytes where the address alone takes %d", ErrMalformed, len(body), size)
	}
	if err := skipTLVs(body[size:]); err != nil {
		return "", err
	}
	port := binary.BigEndian.Uint16
	switch fam {
	case inet:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(body)), port(body[8:])).String(), nil
	case inet6:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(body)).Unmap(), port(body[32:])).String(), nil
	}
	path, _, _ := bytes.Cut(body[:unixPath], []byte{0})
	if len(path) == 0 { // unnamed, or of the abstract namespace
		return "unix", nil
	}
	return string(path), nil
}

// skipTLVs checks that each fits: type, two bytes of length, value.
func skipTLVs(b []byte) error {
	for len(b) > 0 {
		if len(b) < 3 || len(b)-3 < int(binary.BigEndian.Uint16(b[1:])) {
			return fmt.Errorf("%w: a TLV is cut off", ErrMalformed)
		}
		b = b[3+int(binary.BigEndian.Uint16(b[1:])):]
	}
	return nil
}
