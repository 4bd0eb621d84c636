package proxy_test

import (
	"bufio"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
)

// TestReloadListeners opens a listener, closes another, and has a third read
// elsewhere; who is connected stays.
func TestReloadListeners(t *testing.T) {
	var opt proxy.Options
	socket := filepath.Join(t.TempDir(), "s")
	c := newCluster(t, 1, func(o *proxy.Options) {
		o.Listeners = append(o.Listeners, proxy.Listener{Network: "unix", Address: socket})
		opt = *o
	})
	r, gone := dialRaw(t, c.addr), dialUnix(t, socket)
	r.do("+OK\r\n", "SET", "k", "v")
	c.warm(t, r)
	for _, s := range []*raw{r, gone} {
		s.do("+OK\r\n", "MULTI") // a state that would be lost with the connection
	}

	opt.Listeners = []proxy.Listener{opt.Listeners[0], {Network: "unix", Address: socket + "2", Mode: 0o600}}
	opt.Listeners[0].Consistency = proxy.ConsistencyMaster
	if err := c.srv.Reload(opt); err != nil {
		t.Fatal(err)
	}
	if got := c.srv.Status().Listeners; len(got) != 2 || got[0] != "tcp "+c.addr || got[1] != "unix "+socket+"2" {
		t.Errorf("listeners %q", got)
	}
	for _, s := range []*raw{r, gone} {
		s.do("+QUEUED\r\n", "INCR", "n")
		s.cmd("EXEC")
		if got, err := s.reply(); err != nil || !strings.HasPrefix(got, "*1\r\n") {
			t.Errorf("EXEC: %q, %v", got, err)
		}
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			break
		}
		_ = conn.Close()
		if time.Now().After(deadline) {
			t.Fatal("the listener that is no more accepts clients")
		}
	}
	dialUnix(t, socket+"2").do("+OK\r\n", "SET", "k", "v")
	before := calls(t, c.replicas[0], "strlen")
	for range 20 {
		r.do(":1\r\n", "STRLEN", "k")
	}
	if n := calls(t, c.replicas[0], "strlen"); n != before {
		t.Errorf("a replica has answered %d reads of a listener that reads from the master now", n-before)
	}
	// And back.
	opt.Listeners = []proxy.Listener{{Network: "tcp", Address: "127.0.0.1:0"}}
	if err := c.srv.Reload(opt); err != nil {
		t.Fatal(err)
	}
	c.warm(t, r)
}

// TestReloadThatCannotBe changes nothing.
func TestReloadThatCannotBe(t *testing.T) {
	var opt proxy.Options
	c := newCluster(t, 0, func(o *proxy.Options) {
		o.Listeners[0].Consistency = proxy.ConsistencyEventual
		opt = *o
	})
	r := dialRaw(t, c.addr)
	socket := filepath.Join(t.TempDir(), "s")
	for _, test := range []struct {
		want      string
		listeners []proxy.Listener
	}{
		{"address already in use", []proxy.Listener{{Network: "unix", Address: socket, Consistency: proxy.ConsistencyMaster}, {Network: "tcp", Address: c.master.Addr(), Consistency: proxy.ConsistencyMaster}}},
		{"consistency causal or linearizable, where no listener had it at the start, needs a restart", []proxy.Listener{{Network: "tcp", Address: "127.0.0.1:0", Consistency: proxy.ConsistencyCausal}}},
	} {
		bad := opt
		bad.Listeners, bad.MaxClients = test.listeners, 1
		if err := c.srv.Reload(bad); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v, want %q", err, test.want)
		}
		if conn, err := net.Dial("unix", socket); err == nil {
			_ = conn.Close()
			t.Error("a listener was opened")
		}
		r.do("$1\r\nx\r\n", "ECHO", "x")
		dialRaw(t, c.addr).do("$1\r\nx\r\n", "ECHO", "x") // and more than one client
	}
}

func dialUnix(t testing.TB, path string) *raw {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(60 * time.Second))
	return &raw{t, conn, bufio.NewReader(conn)}
}
