package proxy_test

import (
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// clientOf returns the id of the connection to s that runs, or ran last, a command.
func clientOf(t testing.TB, s *localredis.Server, cmd string) string {
	t.Helper()
	list, err := localredis.Do(s.Addr(), "CLIENT", "LIST")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)id=(\d+) .* cmd=` + cmd + ` `).FindStringSubmatch(list)
	if m == nil {
		t.Fatalf("nobody runs %s: %s", cmd, list)
	}
	return m[1]
}

// The connection of a script that names no keys is lost in the middle of its
// reply. What it may have written is in doubt for a moment, not for ever: then
// replicas are read again.
func TestHalfAReplyLeavesNoWriteInFlight(t *testing.T) {
	c := newCluster(t, 1, oneLoop)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	c.warm(t, other)
	r.cmd("EVAL", "return string.rep('x', 16*1024*1024)", "0")
	head := "$16777216\r\nxxxx"
	got := make([]byte, len(head))
	if _, err := io.ReadFull(r.r, got); err != nil || string(got) != head {
		t.Fatalf("the reply begins with %q, %v", got, err)
	}
	redisDo(t, c.master, "CLIENT", "KILL", "ID", clientOf(t, c.master, "eval"))
	if n, _ := io.Copy(io.Discard, r.r); n >= 16<<20 {
		t.Fatal("the reply came whole: the test tests nothing")
	}
	c.warm(t, other)
}

// Of what a session has in flight as the master dies, each is answered: also
// what stands behind a reply that was ready before.
func TestEachHeldRequestFails(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) {
		oneLoop(o)
		o.FailoverHold = time.Second
		o.HealthTimeout, o.ConnectTimeout = 30*time.Second, 30*time.Second
	})
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	r.cmd("HELLO", "3") // its connections are not made yet: what is sent waits there
	if _, err := r.reply(); err != nil {
		t.Fatal(err)
	}
	r.send("SET a 1\r\nECHO x\r\nSET b 2\r\nECHO y\r\nECHO z\r\nSET c 3\r\n")
	other.do("$3\r\nyou\r\n", "ECHO", "you") // the loop has seen that
	c.master.Kill()
	for range 2 {
		wantError(t, r, "SLUICE_NOMASTER")
		if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "$1\r\n") {
			t.Fatalf("ECHO is answered with %q, %v", got, err)
		}
	}
	r.expect("$1\r\nz\r\n")
	wantError(t, r, "SLUICE_NOMASTER")
}

// A master has become a replica. What it refuses to write runs on the new master,
// and a read behind it in the same pipeline shows it.
func TestReadStaysBehindAHeldWrite(t *testing.T) {
	c := newCluster(t, 1, func(o *proxy.Options) {
		oneLoop(o)
		o.ObserveEvery = 2 * time.Second // so that it is the refusal that tells
	})
	r := dialRaw(t, c.addr)
	for i := range 5 {
		r.do("+OK\r\n", "SET", "k", fmt.Sprint("old", i))
		c.sync(t)
		m, n := c.master, c.replicas[0]
		redisDo(t, n, "REPLICAOF", "NO", "ONE")
		redisDo(t, m, "REPLICAOF", "127.0.0.1", fmt.Sprint(n.Port()))
		r.send(fmt.Sprintf("SET k new%d\r\nGET k\r\nSET k newer%d\r\n", i, i))
		r.expect("+OK\r\n")
		r.expect(fmt.Sprintf("$4\r\nnew%d\r\n", i))
		r.expect("+OK\r\n")
		c.master, c.replicas[0] = n, m
		awaitInfo(t, m, "master_link_status:up")
		c.await(t, "the new master and its replica", func(s proxy.Status) bool { return masterIs(n)(s) && readable(s) == 1 })
	}
}

// A read whose reply no connection survives is given up, and does not take one
// connection after the other with it for ever.
func TestReadThatEndsConnectionsIsGivenUp(t *testing.T) {
	c := newCluster(t, 1, oneLoop)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	r.cmd("CLIENT", "REPLY", "OFF")                                                      // else it would be closed with half a reply
	r.cmd("EVAL_RO", "return redis.error_reply(string.rep('x', 2*1024*1024))", "1", "k") // longer than a line may be
	r.do("+OK\r\n", "CLIENT", "REPLY", "ON")
	runs := func() int { return calls(t, c.master, "eval_ro") + calls(t, c.replicas[0], "eval_ro") }
	if n := runs(); n != 4 {
		t.Errorf("it was sent %d times, want 4", n)
	}
	other.do("+OK\r\n", "SET", "k", "v")
	r.do("$1\r\nv\r\n", "GET", "k")
}
