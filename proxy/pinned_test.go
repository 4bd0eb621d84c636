package proxy_test

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/localredis"
)

// Tests of what a pinned connection may leave behind, for its session and for
// the one that gets it next.

func TestExecWithoutMultiLeavesTheKeysWatched(t *testing.T) {
	c := newCluster(t, 0, nil)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	r.do("+OK\r\n", "WATCH", "k")
	r.do("-ERR EXEC without MULTI\r\n", "EXEC")
	other.do("+OK\r\n", "SET", "k", "theirs")
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "SET", "k", "mine")
	r.do("*-1\r\n", "EXEC")
	r.do("$6\r\ntheirs\r\n", "GET", "k")
}

func TestAuthOnAPinnedConnectionIsNotLentToOthers(t *testing.T) {
	c := newCluster(t, 0, nil)
	admin := dialRaw(t, c.master.Addr())
	for _, user := range []string{"alice", "bob"} {
		admin.do("+OK\r\n", "ACL", "SETUSER", user, "on", ">pw", "~*", "+@all")
	}
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "AUTH", "alice", "pw")
	r.do("+OK\r\n", "WATCH", "k")
	r.do("+OK\r\n", "AUTH", "bob", "pw")
	r.do("+OK\r\n", "UNWATCH")
	r.do("$3\r\nbob\r\n", "ACL", "WHOAMI") // as without a proxy
	next := dialRaw(t, c.addr)
	next.do("+OK\r\n", "AUTH", "alice", "pw")
	next.do("+OK\r\n", "WATCH", "k") // takes a connection of the pool
	next.do("$5\r\nalice\r\n", "ACL", "WHOAMI")
}

func TestRefusedSubscribeGetsOneReply(t *testing.T) {
	c := newCluster(t, 0, nil)
	dialRaw(t, c.master.Addr()).do("+OK\r\n", "ACL", "SETUSER", "default", "resetchannels", "&mine")
	r := dialRaw(t, c.addr)
	r.send("SUBSCRIBE a b c\r\nSET k v\r\nGET k\r\nSUBSCRIBE mine\r\n")
	r.expect("-NOPERM this user has no permissions to access one of the channels used as arguments\r\n")
	r.expect("+OK\r\n")
	r.expect("$1\r\nv\r\n")
	r.expect("*3\r\n$9\r\nsubscribe\r\n$4\r\nmine\r\n:1\r\n")
}

func TestScriptDebugTouchesNoSharedConnection(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) { o.Loops = 1 })
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	r.do("+OK\r\n", "SCRIPT", "DEBUG", "YES")
	other.do(":1\r\n", "EVAL", "return 1", "0") // a debugging session would answer otherwise
}

// More sessions give back their connection than are kept; each is pinned anew
// in the same moment.
func TestPinsBeyondThePoolEndNoSession(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) { o.Loops = 1 })
	var all []*raw
	for range 40 {
		r := dialRaw(t, c.addr)
		r.do("+OK\r\n", "WATCH", "k")
		all = append(all, r)
	}
	for round := range 3 {
		for _, r := range all {
			r.send("UNWATCH\r\nCLIENT GETNAME\r\nWATCH k\r\nPING\r\n")
		}
		for i, r := range all {
			for _, want := range []string{"+OK\r\n", "$-1\r\n", "+OK\r\n", "+PONG\r\n"} {
				if got, err := r.reply(); err != nil || got != want {
					t.Fatalf("round %d, client %d: %q, %v; want %q", round, i, got, err, want)
				}
			}
		}
	}
}

// A RESET behind a write on a pinned connection must not leave the key's
// writes counted as in flight: its reads would stay on the master for ever.
func TestResetEndsTheWritesOfAPinnedSession(t *testing.T) {
	c := newCluster(t, 1, nil)
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "WATCH", "other")
	r.send("SET k v\r\nRESET\r\n")
	r.expect("+OK\r\n")
	r.expect("+RESET\r\n")
	for deadline := time.Now().Add(10 * time.Second); calls(t, c.replicas[0], "get") == 0; {
		r.do("$1\r\nv\r\n", "GET", "k")
		if time.Now().After(deadline) {
			t.Fatal("no read of the key ever reaches the replica")
		}
	}
}

func TestAbandonedLoginLeavesNoConnection(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) {
		o.Loops, o.OutputHighWater, o.ConnectTimeout, o.HealthTimeout = 1, 64<<20, time.Minute, time.Minute
	})
	good := dialRaw(t, c.addr)
	good.do("+OK\r\n", "SET", "k", "v")
	before := connections(t, c.master)
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	r := dialRaw(t, c.addr)
	pad := resp.AppendCommand(nil, "ECHO", strings.Repeat("x", 500_000))
	for range 20 { // more than the kernel takes, so that the proxy notices that the client is gone as it writes
		r.send(string(pad))
	}
	r.cmd("AUTH", "default", "x")
	for range 300 { // rounds of the loop, far more than it needs to read all that
		good.do("$1\r\nx\r\n", "ECHO", "x")
	}
	_ = r.Conn.(*net.TCPConn).SetLinger(0)
	_ = r.Close()
	c.await(t, "the client's end", func(s proxy.Status) bool { return s.Clients == 1 })
	_ = c.master.Signal(contSignal)
	// The server has accepted the login's connection before the first that asks.
	deadline := time.Now().Add(10 * time.Second)
	for left := connections(t, c.master); !isSubset(left, before); left = connections(t, c.master) {
		if time.Now().After(deadline) {
			t.Fatalf("connections before %v, after %v", before, left)
		}
	}
	good.do("+OK\r\n", "SET", "k", "v")
}

// connections returns the addresses of a server's clients without the one that
// asks. Other short-lived ones may be among them until the server has noticed
// that they are gone.
func connections(t testing.TB, s *localredis.Server) map[string]bool {
	t.Helper()
	list, err := localredis.Do(s.Addr(), "CLIENT", "LIST")
	if err != nil {
		t.Fatal(err)
	}
	addrs := map[string]bool{}
	for line := range strings.Lines(list) {
		if !strings.Contains(line, " cmd=client|list ") {
			addrs[strings.Fields(line)[1]] = true
		}
	}
	return addrs
}

func isSubset(sub, of map[string]bool) bool {
	for addr := range sub {
		if !of[addr] {
			return false
		}
	}
	return true
}

// A user that may not SELECT keeps the database of the session, and no other.
func TestLoginKeepsTheDatabase(t *testing.T) {
	c := newCluster(t, 1, nil)
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "ACL", "SETUSER", "bob", "on", ">123", "+set", "+get", "~x*")
	r.do("+OK\r\n", "SELECT", "9")
	r.do("+OK\r\n", "AUTH", "bob", "123")
	r.do("+OK\r\n", "SET", "x", "nine")
	r.do("-NOPERM this user has no permissions to run the 'select' command\r\n", "SELECT", "8")
	r.do("$4\r\nnine\r\n", "GET", "x")
	r.do("+RESET\r\n", "RESET")
	r.do("$-1\r\n", "GET", "x")
	r.do("+OK\r\n", "SELECT", "9")
	r.do("$4\r\nnine\r\n", "GET", "x")
}

// Who kills connections at the master, as Sentinel and CLIENT KILL do, kills the
// observer's too. That is no failure of the master, and who was spared goes on.
func TestOnlyKilledConnectionsEnd(t *testing.T) {
	c := newCluster(t, 1, nil)
	listens, writes := dialRaw(t, c.addr), dialRaw(t, c.addr)
	listens.do("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	writes.do("+OK\r\n", "SET", "k", "v")
	before := c.srv.Status().Epoch
	redisDo(t, c.master, "CLIENT", "KILL", "TYPE", "normal")
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		list, err := localredis.Do(c.master.Addr(), "CLIENT", "LIST")
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("no observer is among the master's clients: %s, %v", list, err)
		}
		if strings.Contains(list, "name=sluice-observer") {
			break
		}
	}
	writes.do("+OK\r\n", "SET", "k", "w")
	writes.do(":1\r\n", "PUBLISH", "a", "1")
	listens.expect("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n1\r\n")
	if after := c.srv.Status().Epoch; after != before {
		t.Errorf("epoch %d has become %d", before, after)
	}
}

// The connection for a large request is set up for its session once, and is not
// given back between that and the request.
func TestLargeRequestOfANamedClient(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) { o.Loops = 1 })
	monitor, r := dialRaw(t, c.master.Addr()), dialRaw(t, c.addr)
	monitor.do("+OK\r\n", "MONITOR")
	r.do("+OK\r\n", "CLIENT", "SETNAME", "me")
	r.do("+OK\r\n", "SET", "k", strings.Repeat("v", 2<<20))
	r.do(":2097152\r\n", "STRLEN", "k")
	for set := 0; ; {
		line, err := monitor.r.ReadString('\n')
		switch {
		case err != nil:
			t.Fatal(err)
		case strings.Contains(line, `"SETNAME" "me"`):
			set++
		case strings.Contains(line, `"STRLEN"`):
			if set != 1 {
				t.Errorf("the name was set on %d connections, want 1", set)
			}
			return
		}
	}
}
