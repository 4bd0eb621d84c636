package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/resp/localredis/tlstest"
	"github.com/sluice-io/sluice/syncer/psync"
)

// A replica of the master syncs in full from the relay, at no cost to the master,
// and goes back by partial resync.
func TestResync(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startRedis(t, localredis.Options{ReplicaOf: master})
	p, l := startServe(t, "--master", master.Addr(), "--relay-dir", t.TempDir(), "--relay-listen", "127.0.0.1:0")
	relay := l.Relay
	within(t, "a base is stored", func() bool { return relayStatus(t, l.Admin).Relay.Ready })
	do := func(s *localredis.Server, words ...string) string {
		t.Helper()
		v, err := localredis.Do(s.Addr(), words...)
		if err != nil || strings.HasPrefix(v, "-") {
			t.Fatalf("%v: %q, %v", words, v, err)
		}
		return v
	}
	full := func() string {
		_, v, _ := strings.Cut(do(master, "INFO", "stats"), "\r\nsync_full:")
		v, _, _ = strings.Cut(v, "\r\n")
		return v
	}
	do(master, "SET", "k", "v")
	within(t, "the replica is up", func() bool { return strings.Contains(do(replica, "INFO", "replication"), "master_link_status:up") })
	before := full()

	c := start("resync", replica.Addr(), "--relay", relay, "--back")
	if code := c.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s%s", code, c.stdout, c.stderr)
	}
	for _, want := range []string{" leaves " + master.Addr(), "is in sync with " + relay, "goes back to " + master.Addr(), "is in sync with " + master.Addr()} {
		if !strings.Contains(c.stdout.String(), want) {
			t.Errorf("it does not say %q:\n%s", want, c.stdout)
		}
	}
	if got := full(); got != before {
		t.Errorf("sync_full of the master went from %s to %s", before, got)
	}
	text := scrape(t, l.Admin)
	if want := `sluice_relay_downstream_full_syncs_total{reason="full resync requested"} 1`; !strings.Contains(text, want) {
		t.Error("the relay gave no full resync")
	}
	if got := do(replica, "GET", "k"); got != "v" {
		t.Errorf("the replica has %q", got)
	}
	// With --partial the relay goes on where the replica is.
	c = start("resync", replica.Addr(), "--relay", relay, "--partial")
	if code := c.wait(t); code != exitOK {
		t.Fatalf("--partial: exit code %d: %s", code, c.stderr)
	}
	if !strings.Contains(scrape(t, l.Admin), "sluice_relay_downstream_partial_syncs_total 1\n") {
		t.Error("--partial: the relay gave no partial resync")
	}
	// In full, of a replica that is at the relay and in sync already.
	c = start("resync", replica.Addr(), "--relay", relay)
	if code := c.wait(t); code != exitOK {
		t.Fatalf("at the relay: exit code %d: %s", code, c.stderr)
	}
	if want := `sluice_relay_downstream_full_syncs_total{reason="full resync requested"} 2`; !strings.Contains(scrape(t, l.Admin), want) {
		t.Error("at the relay: no full resync was given")
	}
	for _, bad := range []struct {
		args []string
		code int
		text string
	}{
		{[]string{master.Addr(), "--relay", relay}, exitRuntime, "is a master"},
		{[]string{replica.Addr(), "--relay", master.Addr()}, exitRuntime, "is no Sluice relay"},
		{[]string{relay, "--relay", relay}, exitRuntime, "is a relay itself"},
		{[]string{replica.Addr(), "--relay", relay, "--back"}, exitRuntime, "at the relay already"},
		{[]string{"nowhere", "--relay", relay}, exitUsage, "must be HOST:PORT"},
		{[]string{replica.Addr()}, exitUsage, "--relay"},
	} {
		c := start(append([]string{"resync"}, bad.args...)...)
		if code := c.wait(t); code != bad.code || !strings.Contains(c.stderr.String(), bad.text) {
			t.Errorf("%v: exit code %d: %s", bad.args, code, c.stderr)
		}
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// node plays a server by hand: it answers each command with the next reply that is
// left for it, the last one for ever, and closes where that is empty.
func node(t *testing.T, replies map[string][]string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = ln.Close(); <-done })
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_ = c.SetDeadline(time.Now().Add(testTimeout))
			if args, err := psync.NewRequestReader(c).Next(); err == nil {
				name := string(args.At(0))
				if all := replies[name]; len(all) > 0 {
					_, _ = io.WriteString(c, all[0])
					replies[name] = all[min(1, len(all)-1):]
				}
			}
			_ = c.Close()
		}
	}()
	return ln.Addr().String()
}

func bulk(lines ...string) string {
	text := strings.Join(lines, "\r\n")
	return fmt.Sprintf("$%d\r\n%s\r\n", len(text), text)
}

// A node that does not answer for a while, as one that frees its old data, is
// waited for.
func TestResyncOfABusyNode(t *testing.T) {
	relay := node(t, map[string][]string{"INFO": {bulk("role:slave", "sluice_relay:1", "slave_repl_offset:7")}})
	host, port, _ := net.SplitHostPort(relay)
	busy := node(t, map[string][]string{
		"INFO": {
			bulk("role:slave", "master_host:nowhere", "master_port:1"), "", "",
			bulk("role:slave", "master_host:"+host, "master_port:"+port, "master_link_status:up", "slave_repl_offset:7"),
		},
		"REPLICAOF": {"+OK\r\n"},
	})
	c := start("resync", busy, "--relay", relay, "--partial")
	if code := c.wait(t); code != exitOK || !strings.Contains(c.stdout.String(), "no answer: ") || !strings.Contains(c.stdout.String(), "is in sync") {
		t.Errorf("exit code %d: %s%s", code, c.stdout, c.stderr)
	}
}

// A relay that knows the node by another address gives it no full resync; that is
// no success.
func TestResyncOfAnotherAddress(t *testing.T) {
	relay := node(t, map[string][]string{
		"INFO": {bulk("role:slave", "sluice_relay:1", "slave_repl_offset:7")}, "SLUICE": {"+OK\r\n", ":1\r\n"},
	})
	host, port, _ := net.SplitHostPort(relay)
	there := node(t, map[string][]string{
		"INFO":      {bulk("role:slave", "master_host:"+host, "master_port:"+port, "master_link_status:up", "slave_repl_offset:7")},
		"CONFIG":    {"*0\r\n"},
		"REPLICAOF": {"+OK\r\n"},
	})
	var out bytes.Buffer
	r := &resync{
		resyncCmd: &resyncCmd{Node: there, Relay: relay}, env: &env{stdout: &out}, markWait: 300 * time.Millisecond,
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := r.run(ctx); err == nil || !strings.Contains(err.Error(), "another address than "+there) {
		t.Errorf("%v\n%s", err, out.String())
	}
}

// With --config the node and the relay are asked with TLS and the password that
// Sluice uses itself.
func TestResyncTLS(t *testing.T) {
	ca := tlstest.NewCA(t, "authority")
	cert := ca.Issue(t, "server")
	ports := make([]string, 3) // of master and replica with TLS, and of the relay
	for i := range ports {
		port, err := localredis.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		ports[i] = strconv.Itoa(port)
	}
	args := func(port string, more ...string) []string {
		return append(append(cert.RedisArgs(ca, port), "--tls-replication", "yes"), more...)
	}
	master := startRedis(t, localredis.Options{Args: args(ports[0])})
	replica := startRedis(t, localredis.Options{Args: args(ports[1], "--masterauth", "pw", "--replicaof", "127.0.0.1 "+ports[0])})
	for _, s := range []*localredis.Server{master, replica} { // last, as it is asked without until then
		if got, err := localredis.Do(s.Addr(), "CONFIG", "SET", "requirepass", "pw"); err != nil || got != "+OK" {
			t.Fatal(got, err)
		}
	}
	node, relay := "127.0.0.1:"+ports[1], "127.0.0.1:"+ports[2]
	pair := "cert_file: " + cert.CertFile + ", key_file: " + cert.KeyFile + ", ca_file: " + ca.File
	file := writeConfig(t, "master: 127.0.0.1:"+ports[0]+"\nlisteners: []\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json}\n"+
		"upstream: {password: pw, tls: {enabled: true, "+pair+"}}\n"+
		"relay: {dir: "+t.TempDir()+", listen: \""+relay+"\", replicas: {tls: {"+pair+"}}}\n")
	p := start("serve", "--config", file)
	l := awaitListening(t, p)
	within(t, "a base is stored", func() bool { return relayStatus(t, l.Admin).Relay.Ready })
	c := start("resync", node, "--relay", relay, "--config", file)
	if code := c.wait(t); code != exitOK || !strings.Contains(c.stdout.String(), "is in sync with "+relay) {
		t.Fatalf("exit code %d: %s%s", code, c.stdout, c.stderr)
	}
	if want := `sluice_relay_downstream_full_syncs_total{reason="full resync requested"} 1`; !strings.Contains(scrape(t, l.Admin), want) {
		t.Error("the relay gave no full resync")
	}
	if c := start("resync", node, "--relay", relay, "--timeout", "30s"); c.wait(t) != exitRuntime {
		t.Errorf("without --config: %s%s", c.stdout, c.stderr)
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}
