package downstream

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/resp/localredis/tlstest"
	"github.com/sluice-io/sluice/syncer/relaytest"
)

// ask sends inline commands and returns the first lines of their replies.
func (c *peerConn) ask(requests ...string) []string {
	c.t.Helper()
	c.send(strings.Join(requests, "\r\n") + "\r\n")
	replies := make([]string, len(requests))
	for i := range replies {
		replies[i] = c.reply()
	}
	return replies
}

// expect compares the beginnings of replies.
func (c *peerConn) expect(pairs ...string) {
	c.t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if got := c.ask(pairs[i])[0]; !strings.HasPrefix(got, pairs[i+1]) || pairs[i+1] == "" && got != "" {
			c.t.Errorf("%s: %q, want %q", pairs[i], got, pairs[i+1])
		}
	}
}

func TestCommands(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	c := dialRig(t, r)
	c.expect(
		"PING", "+PONG", "PING hi", "hi", "ECHO x", "x",
		"SELECT 0", "+OK", "SELECT x", "-ERR invalid DB index",
		"GET a", "-ERR unknown command 'get'", "SET a b", "-ERR unknown command",
		"ROLE x", "-ERR wrong number", "INFO server", "# Server",
		"COMMAND COUNT", ":", "COMMAND DOCS", "*0",
		"CLIENT SETNAME me", "+OK", "CLIENT GETNAME", "me", "CLIENT ID", ":1",
		"CLIENT LIST", "id=1 ", "CLIENT WHAT", "-ERR",
		"CONFIG REWRITE", "+OK", "CONFIG GET save", "*0", "CONFIG SET save x", "-ERR",
		"AUTH x", "-ERR AUTH <password> called without", "HELLO 3", "-NOPROTO",
		"EXEC", "-ERR EXEC without MULTI", "DISCARD", "-ERR DISCARD without",
		"MULTI", "+OK", "MULTI", "-ERR MULTI calls", "NOSUCH", "-ERR unknown", "EXEC", "-EXECABORT",
		"MULTI", "+OK", "PING", "+QUEUED", "DISCARD", "+OK",
		"SLUICE RESYNC x", "-ERR syntax error", "SLUICE WHAT 127.0.0.1:1", "-ERR syntax error", "SLUICE PENDING 127.0.0.1:1", ":0",
		"SLUICE RESYNC 127.0.0.1:1", "+OK", "SLUICE PENDING 127.0.0.1:1", ":1", "SLUICE PENDING 127.0.0.1:2", ":0",
		"FAILOVER", "-ERR FAILOVER is for the master", "SYNC", "-ERR SYNC is not possible",
		"SLAVEOF NO ONE", "-ERR a Sluice relay holds no data set",
		"REPLICAOF host 0", "-ERR Invalid master port",
		"REPLCONF capa eof nonsense", "-ERR syntax error", "REPLCONF what 1", "-ERR Unrecognized REPLCONF option: what",
		"PSYNC x", "-ERR wrong number", "PSYNC ? x", "-ERR value is not an integer",
	)
}

// Who sends requests and never reads costs no more memory than a few buffers,
// and is disconnected in the end.
func TestRepliesAreNotPiledUp(t *testing.T) {
	r := newRig(t, t.TempDir(), "127.0.0.1:1", rigOptions{Options: Options{Timeout: time.Second}})
	c := dialRig(t, r)
	// Long requests, so that what has arrived hardly ever ends where one does.
	request := fmt.Sprintf("*2\r\n$4\r\nPING\r\n$16001\r\n%16001d\r\n", 0)
	flood := bytes.Repeat([]byte(request), 16)
	if err := c.SetDeadline(time.Now().Add(relaytest.Timeout)); err != nil {
		t.Fatal(err)
	}
	for sent := 0; ; {
		n, err := c.Write(flood)
		if sent += n; err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("still connected after %d bytes", sent)
			}
			return
		}
		if sent > 64<<20 { // sockets take a few megabytes
			t.Fatalf("%d bytes of requests were taken, with nobody reading the replies", sent)
		}
	}
}

// What is published never gets into a replication stream.
func TestNoPSyncForSubscribers(t *testing.T) {
	r := newRig(t, t.TempDir(), "127.0.0.1:1", rigOptions{})
	c := dialRig(t, r)
	c.send("SUBSCRIBE x\r\n")
	for _, want := range []string{"*3", "subscribe", "x", ":1"} {
		if got := c.reply(); got != want {
			t.Fatalf("SUBSCRIBE: %q, want %q", got, want)
		}
	}
	c.expect("PSYNC ? -1", "-ERR PSYNC is not possible on a connection that has subscribed")
}

// INFO is what a stock replica of the same master tells, as far as it goes.
func TestInfoLikeAReplica(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	stock := relaytest.StartReplica(t, master)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	catchUp(t, master, stock)
	r.awaitOffset(t, master)
	fields := func(addr string) map[string]string {
		text, err := localredis.Do(addr, "INFO", "replication")
		if err != nil {
			t.Fatal(err)
		}
		m := map[string]string{}
		for line := range strings.SplitSeq(text, "\r\n") {
			if k, v, ok := strings.Cut(line, ":"); ok {
				m[k] = v
			}
		}
		return m
	}
	theirs, ours := fields(stock.Addr()), fields(r.addr())
	for k := range theirs {
		if _, ok := ours[k]; !ok {
			t.Errorf("INFO has no %s", k)
		}
	}
	for _, k := range []string{"role", "master_host", "master_port", "master_link_status", "master_replid", "slave_read_only", "master_sync_in_progress"} {
		if ours[k] != theirs[k] {
			t.Errorf("%s is %q, a stock replica says %q", k, ours[k], theirs[k])
		}
	}
	if ours["slave_priority"] != "0" || ours["replica_announced"] != "0" || ours["sluice_relay"] != "1" || ours["connected_slaves"] != "1" {
		t.Errorf("INFO is %v", ours)
	}
	if want := "ip=127.0.0.1,port=" + strings.TrimPrefix(behind.Addr(), "127.0.0.1:") + ",state=online,offset="; !strings.HasPrefix(ours["slave0"], want) {
		t.Errorf("slave0 is %q", ours["slave0"])
	}
	c := dialRig(t, r)
	for _, s := range []struct{ name, addr string }{{"stock", stock.Addr()}, {"relay", r.addr()}} {
		if got, err := localredis.Do(s.addr, "ROLE"); err != nil || got != "*5" {
			t.Errorf("ROLE of the %s: %q, %v", s.name, got, err)
		}
	}
	c.send("ROLE\r\n")
	if got := []string{c.reply(), c.reply(), c.reply(), c.reply(), c.reply()}; got[1] != "slave" || got[2] != "127.0.0.1" || got[4] != "connected" {
		t.Errorf("ROLE: %q", got)
	}
	// The field that a hash of INFO would have as its last, not to be cut.
	master.Kill()
	relaytest.Await(t, "link is seen down", func() bool { return fields(r.addr())["master_link_status"] == "down" })
	if _, ok := fields(r.addr())["master_link_down_since_seconds"]; !ok {
		t.Error("INFO does not tell since when the link is down")
	}
}

// Without the password nothing is told, and no more read than is needed for it.
func TestAuth(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{Options: Options{User: "repl", Password: "secret"}})
	c := dialRig(t, r)
	c.expect("PING", "-NOAUTH", "INFO", "-NOAUTH", "PSYNC ? -1", "-NOAUTH", "REPLCONF capa eof", "-NOAUTH",
		"HELLO 2", "-NOAUTH", "AUTH wrong", "-WRONGPASS", "AUTH other secret", "-WRONGPASS", "HELLO 2 AUTH repl no", "-WRONGPASS")
	c.expect("AUTH repl secret", "+OK", "PING", "+PONG")
	c = dialRig(t, r)
	c.expect("AUTH secret", "+OK")
	c = dialRig(t, r)
	c.expect("HELLO 2 AUTH default secret SETNAME n", "*14")
	c = dialRig(t, r)
	c.send("*1\r\n$20000\r\n")
	if got := c.line(); !strings.HasPrefix(got, "-ERR Protocol error: unauthenticated bulk length") {
		t.Errorf("a large argument before AUTH: %q", got)
	}
	old := startBehind(t, r.port(), "--masterauth", "secret")
	acl := startBehind(t, r.port(), "--masteruser", "repl", "--masterauth", "secret")
	r.awaitOnline(t, 2)
	sameData(t, master, old, acl)
}

// What a Sentinel sends when it has another master for us: one transaction.
func TestSentinelReconfigures(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	next := relaytest.StartReplica(t, master)
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	hello := dialRig(t, r)
	hello.send("SUBSCRIBE __sentinel__:hello\r\n")
	for _, want := range []string{"*3", "subscribe", "__sentinel__:hello", ":1"} {
		if got := hello.reply(); got != want {
			t.Fatalf("SUBSCRIBE: %q, want %q", got, want)
		}
	}
	hello.expect("INFO", "-ERR Can't execute 'info'")
	s := dialRig(t, r)
	s.expect("PUBLISH __sentinel__:hello 127.0.0.1,26379", ":1", "PUBLISH other x", ":0")
	for _, want := range []string{"*3", "message", "__sentinel__:hello", "127.0.0.1,26379"} {
		if got := hello.reply(); got != want {
			t.Fatalf("message: %q, want %q", got, want)
		}
	}
	other := dialRig(t, r)
	other.expect("PING", "+PONG")
	catchUp(t, master, next)
	master.Kill()
	relaytest.Do(t, next, "REPLICAOF", "NO", "ONE")
	host, port, _ := strings.Cut(next.Addr(), ":")
	got := s.ask("MULTI", "SLAVEOF "+host+" "+port, "CONFIG REWRITE", "CLIENT KILL TYPE normal", "CLIENT KILL TYPE pubsub", "EXEC")
	if want := "+OK +QUEUED +QUEUED +QUEUED +QUEUED *4"; strings.Join(got, " ") != want {
		t.Fatalf("transaction: %q", got)
	}
	if got := []string{s.reply(), s.reply(), s.reply(), s.reply()}; strings.Join(got, " ") != "+OK +OK :1 :1" {
		t.Errorf("EXEC: %q", got)
	}
	round(t, relaytest.NewLoad(t, next), 1)
	sameData(t, next, behind)
	if f := r.fulls(); f != 1 {
		t.Errorf("%d full resyncs", f)
	}
	host, port, _ = strings.Cut(behind.Addr(), ":")
	dialRig(t, r).expect("SLAVEOF "+host+" "+port, "-ERR "+behind.Addr()+" is a replica of this relay")
}

// By TLS, with client certificates: the same data, without sendfile.
func TestTLS(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 3)
	ca := tlstest.NewCA(t, "authority")
	cert := ca.Issue(t, "relay")
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{Options: Options{TLS: &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert.Certificate},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(),
	}}})
	args := append(cert.RedisArgs(ca, "0"), "--tls-replication", "yes")
	behind := startBehind(t, r.port(), args...)
	r.awaitOnline(t, 1)
	round(t, load, 3)
	sameData(t, master, behind)
	dialRig(t, r).send("PING\r\n")
	relaytest.Await(t, "a client without TLS is closed", func() bool { return r.Status().Clients == 0 })
	relaytest.Do(t, behind, "CLIENT", "KILL", "TYPE", "master")
	r.awaitOnline(t, 1)
	round(t, load, 1)
	sameData(t, master, behind)
	if f := r.fulls(); f != 1 {
		t.Errorf("%d full resyncs", f)
	}
}
