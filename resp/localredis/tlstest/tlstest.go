// Package tlstest makes certificates for tests: authorities, and certificates
// that they issue, as files and in memory. Nothing of it outlives the test.
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CA is an authority.
type CA struct {
	File string // its certificate, PEM
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Cert is a certificate with its key, for 127.0.0.1 and localhost, good for
// servers and clients.
type Cert struct {
	CertFile, KeyFile string // PEM
	tls.Certificate
}

// NewCA makes an authority.
func NewCA(t testing.TB, name string) *CA {
	t.Helper()
	ca := &CA{key: newKey(t)}
	tmpl := template(t, name, time.Now().Add(time.Hour))
	tmpl.IsCA, tmpl.BasicConstraintsValid = true, true
	tmpl.KeyUsage = x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, ca.key.Public(), ca.key)
	check(t, err)
	ca.cert, err = x509.ParseCertificate(der)
	check(t, err)
	ca.File = filepath.Join(t.TempDir(), "ca.crt")
	writePEM(t, ca.File, "CERTIFICATE", der)
	return ca
}

// Pool returns a pool with the authority alone.
func (ca *CA) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(ca.cert)
	return p
}

// Issue makes a certificate for name that is good for an hour.
func (ca *CA) Issue(t testing.TB, name string) *Cert {
	t.Helper()
	return ca.IssueUntil(t, name, time.Now().Add(time.Hour))
}

// IssueUntil makes a certificate for name that is good until notAfter, which
// may have passed.
func (ca *CA) IssueUntil(t testing.TB, name string, notAfter time.Time) *Cert {
	t.Helper()
	key := newKey(t)
	tmpl := template(t, name, notAfter)
	tmpl.KeyUsage = x509.KeyUsageDigitalSignature
	tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	tmpl.IPAddresses, tmpl.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost", name}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.cert, key.Public(), ca.key)
	check(t, err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	check(t, err)
	dir := t.TempDir()
	c := &Cert{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	writePEM(t, c.CertFile, "CERTIFICATE", der)
	writePEM(t, c.KeyFile, "PRIVATE KEY", keyDER)
	c.Certificate, err = tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	check(t, err)
	return c
}

// RedisArgs are the arguments by which a redis-server listens with TLS on port
// and demands a client certificate of ca.
func (c *Cert) RedisArgs(ca *CA, port string) []string {
	return []string{
		"--tls-port", port, "--tls-cert-file", c.CertFile, "--tls-key-file", c.KeyFile,
		"--tls-ca-cert-file", ca.File, "--tls-auth-clients", "yes",
	}
}

func template(t testing.TB, name string, notAfter time.Time) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	check(t, err)
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     notAfter,
	}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

func writePEM(t testing.TB, file, kind string, der []byte) {
	check(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
