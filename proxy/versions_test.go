package proxy_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// eachVersion runs a test in front of the installed Redis, and of all that
// localredis.ServersEnv names.
func eachVersion(t *testing.T, fn func(t *testing.T, binary string, v localredis.Version)) {
	for _, binary := range localredis.TestServers() {
		v, err := localredis.VersionOf(binary)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(v.String(), func(t *testing.T) { fn(t, binary, v) })
	}
}

// clusterOf is newCluster with servers of another version.
func clusterOf(t testing.TB, binary string, n int, set func(*proxy.Options)) *cluster {
	t.Helper()
	c := &cluster{master: startRedis(t, localredis.Options{Binary: binary})}
	for range n {
		c.replicas = append(c.replicas, startRedis(t, localredis.Options{Binary: binary, ReplicaOf: c.master}))
	}
	for _, r := range c.replicas {
		awaitInfo(t, r, "master_link_status:up")
	}
	c.front(t, set)
	return c
}

// pidOf returns the process of a server itself, which a wrapper may have begun.
func pidOf(t testing.TB, s *localredis.Server) int {
	t.Helper()
	info, err := localredis.Do(s.Addr(), "INFO", "server")
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	_, rest, _ := strings.Cut(info, "process_id:")
	if _, err := fmt.Sscan(rest, &pid); err != nil {
		t.Fatalf("INFO names no process: %v", err)
	}
	return pid
}

func signal(t testing.TB, pid int, sig syscall.Signal) {
	t.Helper()
	p, err := os.FindProcess(pid)
	if err == nil {
		err = p.Signal(sig)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWaitFollowsTheWrites stops the only replica: a WAIT that looked at
// another connection than the session's writes would count it all the same,
// with every Redis in its own way.
func TestWaitFollowsTheWrites(t *testing.T) {
	eachVersion(t, func(t *testing.T, binary string, v localredis.Version) {
		c := clusterOf(t, binary, 1, nil)
		admin := dialRaw(t, c.master.Addr())
		// May publish to no channel, as every user that is made since Redis 7.
		admin.do("+OK\r\n", "ACL", "SETUSER", "app", "on", ">pw", "~*", "+@all", "resetchannels")
		pid := pidOf(t, c.replicas[0])
		round := 0
		for _, test := range []struct {
			name string
			db   int
			do   [][2]string // before the write
			then [][2]string // behind it
		}{
			{name: "plain"},
			{name: "with a name", do: [][2]string{{"CLIENT SETNAME me", "+OK\r\n"}}},
			{name: "database", db: 2, do: [][2]string{{"SELECT 2", "+OK\r\n"}}},
			{name: "watching", then: [][2]string{{"WATCH other", "+OK\r\n"}}},
			{name: "after a transaction", then: [][2]string{{"MULTI", "+OK\r\n"}, {"EXEC", "*0\r\n"}}},
			{name: "user without channels", do: [][2]string{{"AUTH app pw", "+OK\r\n"}}},
			{name: "once more", do: [][2]string{{"AUTH app pw", "+OK\r\n"}, {"CLIENT SETNAME me", "+OK\r\n"}}},
		} {
			t.Run(test.name, func(t *testing.T) {
				round++
				r, value := dialRaw(t, c.addr), fmt.Sprint("v", round)
				for _, cmd := range test.do {
					r.do(cmd[1], strings.Fields(cmd[0])...)
				}
				r.do(":0\r\n", "DEL", "waited") // a replica that has it all is counted at once
				r.do(":1\r\n", "WAIT", "1", "20000")
				signal(t, pid, syscall.SIGSTOP)
				t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
				r.do("+OK\r\n", "SET", "waited", value)
				for _, cmd := range test.then {
					r.do(cmd[1], strings.Fields(cmd[0])...)
				}
				r.do(":0\r\n", "WAIT", "1", "100")
				if v.AtLeast(7, 2) {
					r.do("*2\r\n:0\r\n:0\r\n", "WAITAOF", "0", "1", "100")
				}
				signal(t, pid, syscall.SIGCONT)
				r.do(":1\r\n", "WAIT", "1", "20000")
				at := dialRaw(t, c.replicas[0].Addr())
				at.do("+OK\r\n", "SELECT", strconv.Itoa(test.db))
				at.do(fmt.Sprintf("$%d\r\n%s\r\n", len(value), value), "GET", "waited")
				r.do(":1\r\n", "DEL", "waited")
			})
		}
	})
}

// TestWaitWithoutThePermission: where nobody may note the offset, WAIT is
// refused and says what is missing; it does not count what it cannot know.
func TestWaitWithoutThePermission(t *testing.T) {
	eachVersion(t, func(t *testing.T, binary string, v localredis.Version) {
		c := clusterOf(t, binary, 1, nil)
		awaitVersion(t, c.addr, c.master.Addr())
		r := dialRaw(t, c.addr)
		r.do("+OK\r\n", "SET", "k", "v")
		dialRaw(t, c.master.Addr()).do("+OK\r\n", "ACL", "SETUSER", "default", "resetchannels")
		if !v.AtLeast(7, 2) { // where any command notes it
			r.do(":1\r\n", "WAIT", "1", "20000")
			return
		}
		for range 2 {
			r.cmd("WAIT", "1", "20000")
			if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-NOPERM WAIT cannot wait") || !strings.Contains(got, "&__sluice__:wait") {
				t.Fatalf("WAIT: %q, %v", got, err)
			}
		}
		r.do("$1\r\nv\r\n", "GET", "k")
		dialRaw(t, c.master.Addr()).do("+OK\r\n", "ACL", "SETUSER", "default", "&__sluice__:wait")
		again := dialRaw(t, c.addr) // the first is remembered to be refused
		again.do("+OK\r\n", "SELECT", "3")
		again.do("+OK\r\n", "SET", "k", "v")
		again.do(":1\r\n", "WAIT", "1", "20000")
	})
}

// TestVersions plays what clients do in front of every version: random sessions,
// compared with those of a bare server, and by hand what these leave out.
func TestVersions(t *testing.T) {
	if len(localredis.TestServers()) == 1 {
		t.Skipf("%s names no servers of other versions: see deploy/servers.sh", localredis.ServersEnv)
	}
	eachVersion(t, func(t *testing.T, binary string, v localredis.Version) {
		t.Run("sessions", func(t *testing.T) {
			g := newSessionRig(t, binary)
			for seed := range uint64(40) {
				if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { g.play(t, randomSession(seed)) }) {
					return
				}
			}
			t.Logf("%d commands", g.commands)
		})
		c := clusterOf(t, binary, 1, func(o *proxy.Options) { o.Listeners[0].Consistency = proxy.ConsistencyCausal })
		awaitVersion(t, c.addr, c.master.Addr())
		t.Run("greeting", func(t *testing.T) { c.sameGreeting(t, v) })
		t.Run("commands", func(t *testing.T) { c.everyKind(t) })
		t.Run("failover", func(t *testing.T) {
			r := dialRaw(t, c.addr)
			r.do("+OK\r\n", "SET", "kept", "v")
			c.switchTo(t, c.replicas[0])
			r.do("$1\r\nv\r\n", "GET", "kept")
			r.do("+OK\r\n", "SET", "kept", "w")
			r.do("$1\r\nw\r\n", "GET", "kept")
			c.await(t, "the old master's return", func(s proxy.Status) bool { return readable(s) == 1 })
		})
	})
}

// sameGreeting sends what client libraries send as they connect, and wants the
// words of the server itself.
func (c *cluster) sameGreeting(t *testing.T, v localredis.Version) {
	bare, r := dialRaw(t, c.master.Addr()), dialRaw(t, c.addr)
	for _, cmd := range []string{
		"HELLO", "HELLO 3", "HELLO", "HELLO 2", "CLIENT SETINFO LIB-NAME some", "CLIENT setinfo lib-ver 1.0", "CLIENT SETINFO LIB-NAME",
		"CLIENT SETINFO NOPE x", "CLIENT CAPA redirect", "CLIENT CAPA", "CLIENT NO-TOUCH on", "CLIENT NO-EVICT off",
		"CLIENT MAINT_NOTIFICATIONS ON moving-endpoint-type internal-ip", "CLIENT SETNAME me", "CLIENT GETNAME", "CLIENT NOPE", "RESET", "CLIENT GETNAME",
	} {
		words := strings.Fields(cmd)
		bare.cmd(words...)
		r.cmd(words...)
		want, err := bare.reply()
		if err != nil {
			t.Fatal(err)
		}
		if got, err := r.reply(); err != nil || string(alike([]byte(got))) != string(alike([]byte(want))) {
			t.Errorf("%s: %q, %v; %s says %q", cmd, got, err, v, want)
		}
	}
	before := calls(t, c.replicas[0], "get")
	c.warm(t, r) // none of it has tied the session to the master
	if calls(t, c.replicas[0], "get") == before {
		t.Error("no read has reached the replica")
	}
}

// everyKind has one of each kind of command, in RESP2 and RESP3.
func (c *cluster) everyKind(t *testing.T) {
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	r.do("+OK\r\n", "SET", "k", "v")
	r.do("$1\r\nv\r\n", "GET", "k")
	// Transactions, in pieces, whole, and failed.
	r.do("+OK\r\n", "WATCH", "k")
	other.do("+OK\r\n", "SET", "k", "theirs")
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "SET", "k", "mine")
	r.do("*-1\r\n", "EXEC")
	r.send("MULTI\r\nSET k whole\r\nGET k\r\nEXEC\r\n")
	for _, want := range []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n$5\r\nwhole\r\n"} {
		r.expect(want)
	}
	// Blocking.
	r.cmd("BLMPOP", "0", "1", "list", "LEFT")
	awaitInfo(t, c.master, "blocked_clients:1")
	other.do(":1\r\n", "RPUSH", "list", "x")
	r.expect("*2\r\n$4\r\nlist\r\n*1\r\n$1\r\nx\r\n")
	// Scripts and functions.
	r.do("$40\r\ne0e1f9fabfc9d4800c877a703b823ac0578ff8db\r\n", "SCRIPT", "LOAD", "return 1")
	other.do(":1\r\n", "EVALSHA", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "0")
	r.do("$5\r\nwhole\r\n", "EVAL_RO", "return redis.call('GET', KEYS[1])", "1", "k")
	r.do("$3\r\nlib\r\n", "FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function{function_name='f', callback=function(keys) return redis.call('GET', keys[1]) end, flags={'no-writes'}}")
	other.do("$5\r\nwhole\r\n", "FCALL_RO", "f", "1", "k")
	// Pub/sub, to RESP2 and RESP3, patterns and shards.
	sub := dialRaw(t, c.addr)
	sub.do("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	sub.do("*3\r\n$10\r\nssubscribe\r\n$1\r\ns\r\n:1\r\n", "SSUBSCRIBE", "s")
	pushed := dialRaw(t, c.addr)
	pushed.cmd("HELLO", "3")
	if got, err := pushed.reply(); err != nil || got[0] != '%' {
		t.Fatalf("HELLO 3: %q, %v", got, err)
	}
	pushed.do(">3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:1\r\n", "PSUBSCRIBE", "a*")
	pushed.do("$5\r\nwhole\r\n", "GET", "k")
	other.do(":2\r\n", "PUBLISH", "a", "m")
	other.do(":1\r\n", "SPUBLISH", "s", "n")
	sub.expect("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nm\r\n")
	sub.expect("*3\r\n$8\r\nsmessage\r\n$1\r\ns\r\n$1\r\nn\r\n")
	pushed.expect(">4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$1\r\nm\r\n")
}
