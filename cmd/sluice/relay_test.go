package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/resp/localredis"
)

// relayStatus asks for /api/status.
func relayStatus(t *testing.T, addr string) *admin.Status {
	t.Helper()
	_, st, err := fetchStatus(context.Background(), &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testTimeout}, addr)
	if err != nil {
		t.Fatal(err)
	}
	if st.Relay == nil {
		t.Fatal("the status shows no relay")
	}
	return st
}

// What is written through the proxy is in the relay's store, which a second
// process may look into but not write to.
func TestServeRelayBesideProxy(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	dir := t.TempDir()
	p, l := startServe(t, "--master", master.Addr(), "--relay-dir", dir)
	client := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(l.Listeners[0], "tcp ")})
	within(t, "a base is stored, and a write after it", func() bool {
		st := relayStatus(t, l.Admin)
		if !st.Relay.Ready || client.Set(context.Background(), "hello", "ahri", 0).Err() != nil {
			return false
		}
		return st.Relay.Store.LogBytes > 0
	})
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if code := get(t, "http://"+l.Admin+"/readyz"); code != http.StatusOK {
		t.Errorf("/readyz: %d", code)
	}
	s := start("status", "--admin", l.Admin)
	if code := s.wait(t); code != exitOK {
		t.Errorf("status: exit code %d: %s", code, s.stderr)
	}
	for _, want := range []string{"ready yes epoch", "relay ready yes", "link connected master " + master.Addr(), "store writable " + dir, "base "} {
		if !strings.Contains(strings.Join(strings.Fields(s.stdout.String()), " "), want) {
			t.Errorf("status lacks %q:\n%s", want, s.stdout)
		}
	}
	for _, args := range [][]string{{"store", "ls", dir}, {"store", "verify", dir}, {"inspect", dir}} {
		if c := start(args...); c.wait(t) != exitOK {
			t.Errorf("%s while it is written to: %s", args, c.stderr)
		}
	}
	second := start("serve", "--master", master.Addr(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--relay-dir", dir)
	if code := second.wait(t); code != exitRuntime || !strings.Contains(second.stderr.String(), "another process writes to this store") {
		t.Errorf("a second one: exit code %d: %s", code, second.stderr)
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if c := start("store", "verify", dir); c.wait(t) != exitOK {
		t.Errorf("store verify at the end: %s", c.stderr)
	}
}

// With no listeners there is a relay and no proxy; it is ready when a base is
// stored.
func TestServeRelayAlone(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	p := start("serve", "--config", writeConfig(t, "master: "+master.Addr()+"\nlisteners: []\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json}\nrelay: {dir: "+t.TempDir()+"}\n"))
	var l listening
	if err := json.Unmarshal([]byte(p.stderr.waitFor(t, "sluice is listening")), &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Listeners) != 0 {
		t.Errorf("it listens on %q", l.Listeners)
	}
	within(t, "/readyz is 200", func() bool { return get(t, "http://"+l.Admin+"/readyz") == http.StatusOK })
	if st := relayStatus(t, l.Admin); st.Relay.Store.Base == nil || !st.Ready || len(st.Nodes) != 0 {
		t.Errorf("%+v", st)
	}
	s := start("status", "--admin", l.Admin)
	if code := s.wait(t); code != exitOK || strings.Contains(s.stdout.String(), "READS") || !strings.HasPrefix(s.stdout.String(), "relay ready yes") {
		t.Errorf("status: exit code %d:\n%s", code, s.stdout)
	}
	p.signals <- syscall.SIGHUP
	p.stderr.waitFor(t, "nothing has changed")
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// Where the proxy finds another master, the relay goes over to it.
func TestServeRelayFollowsTheProxysMaster(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startRedis(t, localredis.Options{ReplicaOf: master})
	p, l := startServe(t, "--master", master.Addr(), "--relay-dir", t.TempDir())
	within(t, "a base is stored, and the replica is known and in sync", func() bool {
		st := relayStatus(t, l.Admin)
		return st.Relay.Ready && st.Relay.Link.Master == master.Addr() && len(st.Nodes) == 2 && st.Nodes[1].Reads
	})
	if got, err := localredis.Do(replica.Addr(), "REPLICAOF", "NO", "ONE"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	master.Kill()
	within(t, "the relay is at the new master, in the same generation", func() bool {
		st := relayStatus(t, l.Admin)
		return st.Relay.Link.Master == replica.Addr() && st.Relay.Link.State == "connected" && len(st.Relay.Store.History.Ancestors()) == 1
	})
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// With Sentinel the relay has no master of its own to begin with: the proxy tells
// it the sentinels' one, and the next.
func TestServeRelayFollowsTheSentinels(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startRedis(t, localredis.Options{ReplicaOf: master})
	sentinel, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
		Name: "mymaster", Master: master, Quorum: 1, DownAfter: testTimeout, FailoverTimeout: testTimeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sentinel.Stop)
	p, l := startServe(t, "--sentinel", "mymaster@"+sentinel.Addr(), "--relay-dir", t.TempDir())
	within(t, "a base is stored, and the replica is known and in sync", func() bool {
		st := relayStatus(t, l.Admin)
		return st.Relay.Ready && st.Relay.Link.Master == master.Addr() && len(st.Nodes) == 2 && st.Nodes[1].Reads
	})
	within(t, "the sentinel begins a failover", func() bool {
		got, err := localredis.Do(sentinel.Addr(), "SENTINEL", "FAILOVER", "mymaster")
		return err == nil && got == "+OK"
	})
	within(t, "the relay is at the new master", func() bool {
		st := relayStatus(t, l.Admin)
		return st.Relay.Link.Master == replica.Addr() && st.Relay.Link.State == "connected"
	})
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

// A replica behind the relay is found by the proxy and read from; the relay, which
// the master lists as a replica, never is.
func TestServeReplicaBehindRelay(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	relay := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	p, l := startServe(t, "--master", master.Addr(), "--relay-dir", t.TempDir(), "--relay-listen", relay)
	behind := startRedis(t, localredis.Options{Args: []string{"--replicaof", "127.0.0.1", strconv.Itoa(port)}})
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(l.Listeners[0], "tcp ")})
	defer func() { _ = client.Close() }()
	var st *admin.Status
	within(t, "the replica behind the relay is read from", func() bool {
		st = relayStatus(t, l.Admin)
		for _, n := range st.Nodes {
			if n.Address == behind.Addr() && n.Reads {
				return true
			}
		}
		return false
	})
	within(t, "it has answered reads of what was written before", func() bool {
		want := strconv.FormatInt(time.Now().UnixNano(), 10)
		if err := client.Set(ctx, "k", want, 0).Err(); err != nil {
			t.Fatal(err)
		}
		if got, err := client.Get(ctx, "k").Result(); err != nil || got != want {
			t.Fatalf("read %q, %v, want %q", got, err, want)
		}
		v, err := localredis.Do(behind.Addr(), "INFO", "commandstats")
		return err == nil && strings.Contains(v, "cmdstat_get:")
	})
	within(t, "it is online at the relay", func() bool {
		st = relayStatus(t, l.Admin)
		d := st.Relay.Downstream
		return d != nil && len(d.Replicas) == 1 && d.Replicas[0].Address == behind.Addr() && d.Replicas[0].State == "online"
	})
	for _, n := range st.Nodes {
		if n.Address == relay && (n.Reads || n.Commands > 0) {
			t.Errorf("the relay is read from: %+v", n)
		}
	}
	if text := scrape(t, l.Admin); strings.Contains(text, `sluice_node_reads{node="`+relay) || !strings.Contains(text, `sluice_node_reads{node="`+behind.Addr()) {
		t.Error("sluice_node_reads is of the replica, not of the relay")
	}
	s := start("status", "--admin", l.Admin)
	if code := s.wait(t); code != exitOK || !strings.Contains(strings.Join(strings.Fields(s.stdout.String()), " "), behind.Addr()+" online ") {
		t.Errorf("status: exit code %d:\n%s", code, s.stdout)
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}
