package main

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/resp/localredis/tlstest"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// TestServeReloadCertificates replaces the certificate on disk, as a renewal
// does: SIGHUP is enough, clients stay, and a broken file changes nothing.
func TestServeReloadCertificates(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	ca := tlstest.NewCA(t, "authority")
	first, second := ca.Issue(t, "first"), ca.Issue(t, "second")
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
	install(first)
	file := filepath.Join(dir, "sluice.yml")
	text := "master: " + master.Addr() + "\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json}\n" +
		"listeners: [{address: \"127.0.0.1:0\", tls: {cert_file: " + cert + ", key_file: " + key + "}}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start("serve", "--config", file)
	addr := strings.TrimPrefix(awaitListening(t, p).Listeners[0], "tcp ")
	dial := func() (*tls.Conn, string) {
		t.Helper()
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(testTimeout))
		return c, c.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	c, name := dial()
	if name != "first" {
		t.Fatalf("met with the certificate of %q", name)
	}
	line := bufio.NewReader(c)
	do := func(cmd, want string) {
		t.Helper()
		_, _ = io.WriteString(c, cmd+"\r\n")
		if got, err := line.ReadString('\n'); err != nil || got != want+"\r\n" {
			t.Fatalf("%s: %q, %v", cmd, got, err)
		}
	}
	do("MULTI", "+OK")
	install(second)
	p.signals <- syscall.SIGHUP
	if said := p.stderr.waitFor(t, "certificates have been read again"); !strings.Contains(said, "CN=second") {
		t.Errorf("said: %s", said)
	}
	if _, name := dial(); name != "second" {
		t.Errorf("met with the certificate of %q after the reload", name)
	}
	if err := os.WriteFile(key, []byte("half a fi"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.signals <- syscall.SIGHUP
	if said := p.stderr.waitFor(t, "the old configuration stays in force"); !strings.Contains(said, key) {
		t.Errorf("said: %s", said)
	}
	if _, name := dial(); name != "second" {
		t.Errorf("met with the certificate of %q after a bad reload", name)
	}
	do("SET k v", "+QUEUED")
	do("EXEC", "*1")
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// TestServeReloadRelayTLS moves the authority's file: what a reload says to have
// applied holds for the relay, too.
func TestServeReloadRelayTLS(t *testing.T) {
	ca := tlstest.NewCA(t, "authority")
	cert := ca.Issue(t, "server")
	n, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	port := strconv.Itoa(n)
	master := startRedis(t, localredis.Options{Args: cert.RedisArgs(ca, port)})
	dir := t.TempDir()
	b, err := os.ReadFile(ca.File)
	if err != nil {
		t.Fatal(err)
	}
	text := "master: 127.0.0.1:" + port + "\nlisteners: []\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json}\nrelay: {dir: " + t.TempDir() + "}\n" +
		"upstream: {tls: {enabled: true, cert_file: " + cert.CertFile + ", key_file: " + cert.KeyFile + ", ca_file: "
	file := filepath.Join(dir, "sluice.yml")
	write := func(authority string) {
		t.Helper()
		err := os.WriteFile(filepath.Join(dir, authority), b, 0o600)
		if err == nil {
			err = os.WriteFile(file, []byte(text+filepath.Join(dir, authority)+"}}\n"), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	p := start("serve", "--config", file)
	l := awaitListening(t, p)
	link := func() upstream.Status { return relayStatus(t, l.Admin).Relay.Link }
	within(t, "the link is up", func() bool { return link().State == "connected" })
	write("new")
	if err := os.Remove(filepath.Join(dir, "old")); err != nil {
		t.Fatal(err)
	}
	p.signals <- syscall.SIGHUP
	p.stderr.waitFor(t, "reload: applied")
	since := link().Since
	if got, err := localredis.Do(master.Addr(), "CLIENT", "KILL", "TYPE", "replica"); err != nil || got == ":0" {
		t.Fatal(got, err)
	}
	within(t, "the link is up again", func() bool { s := link(); return s.State == "connected" && s.Since.After(since) })
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// TestServeReloadApplies changes what can change while it runs: limits, denied
// commands, users. Who is connected stays, and what is bad changes nothing.
func TestServeReloadApplies(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	file := filepath.Join(t.TempDir(), "sluice.yml")
	base := "master: " + master.Addr() + "\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json}\nlisteners: [{address: \"127.0.0.1:0\"}]\n"
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(base+text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("auth: static\nusers: [{name: a, password: one}]\n")
	p := start("serve", "--config", file)
	addr := strings.TrimPrefix(awaitListening(t, p).Listeners[0], "tcp ")
	dial := func() func(cmd string) string {
		t.Helper()
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		_ = c.SetDeadline(time.Now().Add(testTimeout))
		line := bufio.NewReader(c)
		return func(cmd string) string {
			_, _ = io.WriteString(c, cmd+"\r\n")
			got, _ := line.ReadString('\n')
			return strings.TrimRight(got, "\r\n")
		}
	}
	expect := func(do func(string) string, cmd, want string) {
		t.Helper()
		if got := do(cmd); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", cmd, got, want)
		}
	}
	first := dial()
	expect(first, "AUTH a one", "+OK")
	expect(first, "SET k v", "+OK")
	write("auth: static\nusers: [{name: a, password: two}]\ndenied_commands: [set]\nlimits: {max_clients: 2}\nmax_lag: 1s\nloops: 1\n")
	p.signals <- syscall.SIGHUP
	p.stderr.waitFor(t, `"keys":["loops"]`)
	if said := p.stderr.waitFor(t, "reload: applied"); !strings.Contains(said, `"max_lag"`) || !strings.Contains(said, `"users"`) || !strings.Contains(said, `"limits.max_clients"`) || !strings.Contains(said, `"denied_commands"`) || strings.Contains(said, "two") {
		t.Errorf("said: %s", said)
	}
	second := dial()
	expect(second, "AUTH a one", "-WRONGPASS")
	expect(second, "AUTH a two", "+OK")
	expect(second, "SET k v", "-SLUICE_DENIED")
	expect(first, "SET k v", "-SLUICE_DENIED")
	expect(first, "GET k", "$1")
	if got := dial()(""); got != "-ERR max number of clients reached" {
		t.Errorf("a third client gets %q", got)
	}
	write("auth: static\nusers: []\n")
	p.signals <- syscall.SIGHUP
	p.stderr.waitFor(t, "the old configuration stays in force")
	expect(second, "SET k v", "-SLUICE_DENIED")
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}
