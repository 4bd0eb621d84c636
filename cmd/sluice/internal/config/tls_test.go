package config

import (
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/resp/localredis/tlstest"
)

func TestTLS(t *testing.T) {
	ca := tlstest.NewCA(t, "authority")
	cert := ca.Issue(t, "server")
	other := ca.Issue(t, "other")
	noPEM := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(noPEM, []byte("hello"), 0o600); err != nil {
		t.Fatal(err)
	}
	pair := "cert_file: " + cert.CertFile + ", key_file: " + cert.KeyFile
	for _, tc := range []struct {
		name, listener, upstream string
		err                      string // "": none
		want                     tls.ClientAuthType
	}{
		{name: "server only", listener: pair},
		{name: "client certificate", listener: pair + ", ca_file: " + ca.File, want: tls.RequireAndVerifyClientCert},
		{name: "optional", listener: pair + ", client_auth: optional, ca_file: " + ca.File, want: tls.VerifyClientCertIfGiven},
		{name: "no key", listener: "cert_file: x", err: "listeners[0].tls.key_file"},
		{name: "no certificate", listener: "ca_file: x", err: "listeners[0].tls.cert_file"},
		{name: "no authority", listener: pair + ", client_auth: required", err: "listeners[0].tls.ca_file: is missing"},
		{name: "contradiction", listener: pair + ", client_auth: none, ca_file: x", err: "listeners[0].tls.client_auth"},
		{name: "unknown demand", listener: pair + ", client_auth: maybe", err: `listeners[0].tls.client_auth: "maybe"`},
		{name: "no such file", listener: "cert_file: /nosuch, key_file: /nosuch", err: "listeners[0].tls: load certificate /nosuch"},
		{name: "another's key", listener: "cert_file: " + cert.CertFile + ", key_file: " + other.KeyFile, err: "private key does not match"},
		{name: "no PEM", listener: pair + ", ca_file: " + noPEM, err: "no certificate in PEM form"},
		{name: "upstream", listener: pair, upstream: "enabled: true, ca_file: " + ca.File + ", " + pair},
		{name: "upstream not enabled", listener: pair, upstream: "ca_file: x", err: "upstream.tls.enabled"},
		{name: "upstream half a pair", listener: pair, upstream: "enabled: true, cert_file: x", err: "upstream.tls.key_file"},
		{name: "upstream no file", listener: pair, upstream: "enabled: true, ca_file: /nosuch", err: "upstream.tls: load ca_file /nosuch"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c, err := Load(write(t, "master: h:1\nupstream: {tls: {"+tc.upstream+"}}\nlisteners: [{address: \":1\", tls: {"+tc.listener+"}}]\n"), Flags{})
			if err == nil {
				o, err2 := c.ProxyOptions(nil, nil)
				if err = err2; err == nil && tc.err == "" && o.Listeners[0].TLS.ClientAuth != tc.want {
					t.Errorf("client_auth is %v, want %v", o.Listeners[0].TLS.ClientAuth, tc.want)
				}
				if err == nil && (o.TLS != nil) != (tc.upstream != "") {
					t.Errorf("TLS to the nodes: %v", o.TLS)
				}
			}
			if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
				t.Errorf("err = %v, want %q", err, tc.err)
			}
		})
	}
}

// Renewed certificates hold for the next replica; broken files change nothing.
func TestReplicasTLSIsReadForEachConnection(t *testing.T) {
	ca := tlstest.NewCA(t, "authority")
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "crt"), filepath.Join(dir, "key")
	install := func(c *tlstest.Cert) {
		t.Helper()
		for to, from := range map[string]string{cert: c.CertFile, key: c.KeyFile} {
			b, err := os.ReadFile(from)
			if err == nil {
				err = os.WriteFile(to, b, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	install(ca.Issue(t, "first"))
	c, err := Load(write(t, "master: h:1\nrelay: {dir: x, listen: \":1\", replicas: {tls: {cert_file: "+cert+", key_file: "+key+"}}}\n"), Flags{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := c.RelayOptions(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	shown := func() string {
		t.Helper()
		near, far := net.Pipe()
		server := tls.Server(far, o.Downstream.TLS)
		done := make(chan error, 1)
		go func() { done <- server.Handshake() }()
		client := tls.Client(near, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		err := client.Handshake()
		_ = near.Close()
		_ = far.Close()
		if errServer := <-done; err != nil {
			t.Fatal(err, errServer)
		}
		return client.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "first" {
		t.Errorf("certificate of %q", got)
	}
	install(ca.Issue(t, "second"))
	if got := shown(); got != "second" {
		t.Errorf("after a renewal: certificate of %q", got)
	}
	if err := os.WriteFile(key, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := shown(); got != "second" {
		t.Errorf("with a broken key: certificate of %q", got)
	}
	if _, err := c.RelayOptions(nil, nil); err == nil {
		t.Error("a broken key is taken at the start")
	}
}
