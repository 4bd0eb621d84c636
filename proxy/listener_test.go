package proxy_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
)

// TestUnixSocketMode gives each socket the permissions that were asked for.
func TestUnixSocketMode(t *testing.T) {
	dir := t.TempDir()
	newCluster(t, 0, func(o *proxy.Options) {
		o.Listeners = append(o.Listeners,
			proxy.Listener{Network: "unix", Address: filepath.Join(dir, "a"), Mode: 0o700},
			proxy.Listener{Network: "unix", Address: filepath.Join(dir, "b"), Mode: 0o777})
	})
	for name, want := range map[string]os.FileMode{"a": 0o700, "b": 0o777} {
		fi, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if fi.Mode().Perm() != want {
			t.Errorf("%s has %v, want %v", name, fi.Mode().Perm(), want)
		}
	}
}

// TestListenersDiffer: one listener is causal and another reads from the master
// only, at the same time; the nodes' own counters say where reads went.
func TestListenersDiffer(t *testing.T) {
	c := newCluster(t, 1, func(o *proxy.Options) {
		o.Listeners[0].Consistency = proxy.ConsistencyCausal
		o.Listeners = append(o.Listeners, proxy.Listener{Network: "tcp", Address: "127.0.0.1:0", Consistency: proxy.ConsistencyMaster})
	})
	causal, master := dialRaw(t, c.addr), dialRaw(t, c.srv.Addrs()[1].String())
	causal.do("+OK\r\n", "SET", "k", "v")
	c.warm(t, causal)
	before := calls(t, c.replicas[0], "get")
	const reads = 50
	for range reads { // different commands, so that the counters tell the listeners apart
		master.do("$1\r\nv\r\n", "GET", "k")
		causal.do(":1\r\n", "STRLEN", "k")
	}
	if n := calls(t, c.replicas[0], "get") - before; n != 0 {
		t.Errorf("the replica has answered %d reads of the listener that reads from the master", n)
	}
	if n := calls(t, c.master, "get"); n < reads {
		t.Errorf("the master has answered %d reads, want the %d of its listener", n, reads)
	}
	if n := calls(t, c.replicas[0], "strlen"); n < reads/2 { // a busy machine may delay some
		t.Errorf("the replica has answered %d of the %d reads of the causal listener", n, reads)
	}
}

// TestMaxClients: one client too many gets Redis's own words and is counted;
// when another has left there is room.
func TestMaxClients(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 0, func(o *proxy.Options) { o.MaxClients, o.Registerer = 2, reg })
	first, second := dialRaw(t, c.addr), dialRaw(t, c.addr)
	first.do("$1\r\nx\r\n", "ECHO", "x")
	second.do("$1\r\nx\r\n", "ECHO", "x")
	for range 3 {
		dialRaw(t, c.addr).closedAfter("-ERR max number of clients reached\r\n")
	}
	awaitMetric(t, reg, 3, "sluice_proxy_connections_refused_total")
	if n := metric(t, reg, "sluice_proxy_clients"); n != 2 {
		t.Errorf("%v clients, want 2", n)
	}
	first.do("$1\r\nx\r\n", "ECHO", "x") // who was there is not disturbed
	_ = second.Close()
	for deadline := time.Now().Add(20 * time.Second); metric(t, reg, "sluice_proxy_clients") > 1; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a client that has left is still counted")
		}
	}
	dialRaw(t, c.addr).do("$1\r\nx\r\n", "ECHO", "x")
}

// TestIdleTimeout: who says nothing is closed and counted; who waits for an
// answer is not idle.
func TestIdleTimeout(t *testing.T) {
	reg := prometheus.NewRegistry()
	const idle = time.Second
	c := newCluster(t, 0, func(o *proxy.Options) { o.IdleTimeout, o.Registerer = idle, reg })
	silent, blocked := dialRaw(t, c.addr), dialRaw(t, c.addr)
	blocked.cmd("BLPOP", "list", "0")
	start := time.Now()
	silent.do("$1\r\nx\r\n", "ECHO", "x")
	silent.closedAfter("")
	if d := time.Since(start); d < idle {
		t.Errorf("closed after %s, want %s at least", d, idle)
	}
	awaitMetric(t, reg, 1, "sluice_proxy_clients_dropped_total", "idle")
	dialRaw(t, c.addr).do(":1\r\n", "RPUSH", "list", "v")
	blocked.expect("*2\r\n$4\r\nlist\r\n$1\r\nv\r\n")
}
