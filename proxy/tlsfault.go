package proxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
)

// tlsFault says why a TLS connection failed: the label reason of
// sluice_proxy_tls_errors_total.
type tlsFault uint8

const (
	tlsPlaintext   tlsFault = iota // the peer does not speak TLS
	tlsMissing                     // a client without a certificate where one is required
	tlsExpired                     // the peer's certificate has expired, or is not valid yet
	tlsUntrusted                   // the peer's certificate is of an unknown authority
	tlsName                        // the node's certificate is for another name
	tlsCertificate                 // the peer's certificate is wrong in another way
	tlsRefused                     // the peer has ended it by an alert: it does not like our certificate, or has got none
	tlsProtocol                    // no common version or cipher, or malformed records
	tlsTimeout                     // the handshake took too long
	tlsGone                        // the peer left during the handshake
	tlsOther
	numTLSFaults
)

// String is the value of the label reason.
func (f tlsFault) String() string {
	return [...]string{
		"plaintext", "certificate_missing", "certificate_expired", "certificate_untrusted", "certificate_name",
		"certificate_invalid", "refused_by_peer", "protocol", "timeout", "disconnected", "other",
	}[f]
}

// hint tells an operator what to do, where the error alone does not.
func (f tlsFault) hint() string {
	switch f {
	case tlsPlaintext:
		return "the peer speaks plain text where TLS is expected: use TLS on both sides (rediss://, redis-cli --tls) or a port without it"
	case tlsMissing:
		return "the listener requires a client certificate (client_auth: required): give the client one"
	case tlsExpired:
		return "the peer's certificate is out of its time: renew it, or check the clocks"
	case tlsUntrusted:
		return "the peer's certificate is not of an authority in ca_file"
	case tlsName:
		return "the certificate is not for the address that sluice connects to: set upstream.tls.server_name, or issue it for that name"
	case tlsRefused:
		return "the peer does not accept our certificate, or demands one: compare ca_file there with cert_file here"
	case tlsTimeout:
		return "the peer has not answered the handshake: it may be down, or speak plain text"
	default:
		return ""
	}
}

// tlsFaultOf classifies an error of a TLS connection. ok is false where TLS has
// nothing to do with it.
func tlsFaultOf(err error) (f tlsFault, ok bool) {
	var record tls.RecordHeaderError
	var invalid x509.CertificateInvalidError
	var authority x509.UnknownAuthorityError
	var name x509.HostnameError
	var verify *tls.CertificateVerificationError
	var alert *net.OpError
	switch {
	case errors.As(err, &record):
		return tlsPlaintext, true
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return tlsExpired, true
	case errors.As(err, &authority):
		return tlsUntrusted, true
	case errors.As(err, &name):
		return tlsName, true
	case errors.As(err, &verify), errors.As(err, &invalid):
		return tlsCertificate, true
	case errors.As(err, &alert) && alert.Op == "remote error":
		return tlsRefused, true
	case strings.Contains(err.Error(), "didn't provide a certificate"): // crypto/tls has no value for it
		return tlsMissing, true
	case strings.Contains(err.Error(), "tls: "):
		return tlsProtocol, true
	}
	return tlsOther, false
}

// handshakeFault is tlsFaultOf for what ended a client's handshake.
func handshakeFault(err error) tlsFault {
	if f, ok := tlsFaultOf(err); ok {
		return f
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return tlsTimeout
	case isGone(err):
		return tlsGone
	}
	return tlsOther
}

// isGone reports whether err says that the peer has left.
func isGone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// tlsCounts count faults. Any goroutine may add.
type tlsCounts [numTLSFaults]atomic.Uint64
