package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/localredis"
)

// A script that runs for ever is to be ended through the proxy, by a session
// that shares every connection with the one that began it, and until then a
// PING tells what is wrong.
func TestRunawayScriptIsSeenAndKilled(t *testing.T) {
	c := newCluster(t, 1, oneLoop, "--busy-reply-threshold", "10")
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SELECT", "9")
	r.do("+OK\r\n", "SET", "k", "v")
	for _, tc := range []struct{ run, kill []string }{
		{[]string{"EVAL", "while true do end", "0"}, []string{"SCRIPT", "KILL"}},
		{[]string{"EVAL_RO", "while true do end", "0"}, []string{"SCRIPT", "KILL"}},
		{[]string{"FCALL", "spin", "0"}, []string{"FUNCTION", "KILL"}},
		{[]string{"EVAL", "while true do end", "0"}, []string{"SCRIPT", "KILL"}},
	} {
		runs, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
		runs.do("+OK\r\n", "SELECT", "9")
		other.do("+OK\r\n", "SELECT", "9")
		runs.do("$4\r\nspin\r\n", "FUNCTION", "LOAD", "REPLACE", "#!lua name=spin\nredis.register_function('spin', function() while true do end end)")
		runs.cmd(tc.run...)
		if tc.run[0] != "EVAL_RO" { // that stands where PING goes, too
			awaitPing(t, other, "-BUSY ")
			other.cmd("SET", "k", "v")
			if line, err := other.reply(); err != nil || !strings.HasPrefix(line, "-BUSY ") {
				t.Errorf("SET beside %v was answered with %q, %v", tc.run, line, err)
			}
		} else {
			awaitReply(t, c.master.Addr(), "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n", "PING")
		}
		other.do("+OK\r\n", tc.kill...)
		if line, err := runs.reply(); err != nil || !strings.HasPrefix(line, "-ERR Error running script") && !strings.HasPrefix(line, "-ERR Script killed") {
			t.Errorf("%v was answered with %q, %v", tc.run, line, err)
		}
		awaitPing(t, other, "+PONG")
	}
	r.do("-NOTBUSY No scripts in execution right now.\r\n", "SCRIPT", "KILL")
}

// awaitPing sends PING until its answer begins so.
func awaitPing(t *testing.T, r *raw, want string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		r.cmd("PING")
		line, err := r.reply()
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("PING is answered with %q, never with %s", line, want)
		}
	}
}

// What a subcommand is does not depend on which one of its container came
// before.
func TestSubcommandsAreToldApart(t *testing.T) {
	c := newCluster(t, 1, oneLoop)
	r := dialRaw(t, c.addr)
	r.do("$3\r\n1-1\r\n", "XADD", "s", "1-1", "f", "v")
	c.sync(t)
	c.warm(t, r)
	idle := func() { // in seconds of Redis's clock, one of which may just end
		t.Helper()
		r.cmd("OBJECT", "IDLETIME", "s")
		if got, err := r.reply(); err != nil || !strings.HasPrefix(got, ":") {
			t.Fatalf("IDLETIME is answered with %q, %v", got, err)
		}
	}
	idle()
	r.do("$6\r\nstream\r\n", "OBJECT", "ENCODING", "s")
	idle()
	if n := calls(t, c.replicas[0], "object|idletime"); n != 0 {
		t.Errorf("%d of what only the master can answer went to the replica", n)
	}
	if calls(t, c.replicas[0], "object|encoding") != 1 {
		t.Error("OBJECT ENCODING did not go to the replica: the test tests nothing")
	}
}

// SCRIPT LOAD outlives the master; SCRIPT FLUSH does not come undone.
func TestLoadedScriptSurvivesTheMaster(t *testing.T) {
	c := newCluster(t, 1, nil)
	r := dialRaw(t, c.addr)
	awaitVersion(t, c.addr, c.master.Addr()) // the master is known by then
	const body, sha = "return ARGV[1]", "098e0f0d1448c0a81dafe820f66d460eb09263da"
	r.do("$40\r\n"+sha+"\r\n", "SCRIPT", "LOAD", body)
	r.do("$1\r\nx\r\n", "EVALSHA", sha, "0", "x")
	if got, err := localredis.Do(c.master.Addr(), "SCRIPT", "FLUSH"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	r.do("-NOSCRIPT No matching script. Please use EVAL.\r\n", "EVALSHA", sha, "0", "x") // somebody's wish
	r.do("$40\r\n"+sha+"\r\n", "SCRIPT", "LOAD", body)
	c.sync(t)
	c.master.Kill()
	if got, err := localredis.Do(c.replicas[0].Addr(), "REPLICAOF", "NO", "ONE"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	r.do("$1\r\ny\r\n", "EVALSHA", strings.ToUpper(sha), "0", "y")
	r.do("$1\r\nz\r\n", "EVALSHA", sha, "0", "z")
	if calls(t, c.replicas[0], "eval") != 1 {
		t.Error("the new master was not given the script by EVAL once")
	}
	r.do("+OK\r\n", "SCRIPT", "FLUSH")
	r.do("-NOSCRIPT No matching script. Please use EVAL.\r\n", "EVALSHA", sha, "0", "x")
}

// CLIENT NO-EVICT ties a session to no connection, and is known to each that it
// gets.
func TestClientFlagsAreReplayed(t *testing.T) {
	c := newCluster(t, 1, oneLoop)
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "CLIENT", "NO-EVICT", "ON")
	r.do("+OK\r\n", "SET", "k", "v")
	c.sync(t)
	c.warm(t, r)
	if calls(t, c.replicas[0], "get") == 0 {
		t.Error("a session with NO-EVICT has no reads from replicas")
	}
	r.do("-ERR syntax error\r\n", "CLIENT", "NO-EVICT", "MAYBE")
	r.send("BLPOP nothing 0\r\n")
	awaitInfo(t, c.master, "blocked_clients:1")
	list, err := localredis.Do(c.master.Addr(), "CLIENT", "LIST")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if strings.Contains(line, "cmd=blpop") && !strings.Contains(line, "flags=be") && !strings.Contains(line, "flags=eb") {
			t.Errorf("the blocked connection may be evicted: %s", line)
		}
	}
}

// A script that has written and then answers as a replica would has run: it must
// not run again.
func TestScriptsOwnReadonlyErrorIsItsAnswer(t *testing.T) {
	c := newCluster(t, 0, oneLoop)
	r := dialRaw(t, c.addr)
	r.cmd("EVAL", "redis.call('INCR', KEYS[1]) return redis.error_reply('READONLY so I say')", "1", "n")
	wantError(t, r, "READONLY")
	r.do("$1\r\n1\r\n", "GET", "n")
}

// Also a script that comes with writes, with reads or in a transaction keeps
// nobody from writing who runs none.
func TestRunawayScriptAmongOthers(t *testing.T) {
	c := newCluster(t, 0, oneLoop, "--busy-reply-threshold", "10")
	other := dialRaw(t, c.addr)
	for _, run := range []string{
		"SET a 1\r\nEVAL 'while true do end' 0\r\n",
		"GET a\r\nSET a 1\r\nEVAL 'while true do end' 0\r\nGET a\r\n",
		"MULTI\r\nEVAL 'while true do end' 0\r\nEXEC\r\n",
	} {
		r := dialRaw(t, c.addr)
		var array []byte
		for line := range strings.Lines(run) { // an inline command is no part of a transaction in one piece
			var err error
			if array, err = resp.NormalizeInline(array, []byte(line)); err != nil {
				t.Fatal(err)
			}
		}
		r.send(string(array))
		awaitReply(t, c.master.Addr(), "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n", "PING")
		other.cmd("SET", "k", "v")
		_ = other.SetReadDeadline(time.Now().Add(10 * time.Second))
		if line, err := other.reply(); err != nil || !strings.HasPrefix(line, "-BUSY ") {
			t.Errorf("SET beside %q was answered with %q, %v", run, line, err)
		}
		other.do("+OK\r\n", "SCRIPT", "KILL")
		awaitPing(t, other, "+PONG")
		_ = r.Close()
	}
}

// Several ask a new master for a script at once, before it has been given it.
func TestLoadedScriptIsThereForAll(t *testing.T) {
	c := newCluster(t, 1, oneLoop)
	first, second, third := dialRaw(t, c.addr), dialRaw(t, c.addr), dialRaw(t, c.addr)
	awaitVersion(t, c.addr, c.master.Addr()) // the master is known by then
	const body, sha = "return ARGV[1]", "098e0f0d1448c0a81dafe820f66d460eb09263da"
	first.do("$40\r\n"+sha+"\r\n", "SCRIPT", "LOAD", body)
	c.sync(t)
	c.master.Kill()
	redisDo(t, c.replicas[0], "REPLICAOF", "NO", "ONE")
	c.await(t, "the new master", masterIs(c.replicas[0]))
	redisDo(t, c.replicas[0], "CLIENT", "PAUSE", "60000", "WRITE") // so that all have asked
	for _, r := range []*raw{first, second, third} {
		r.cmd("EVALSHA", sha, "0", "x")
	}
	c.await(t, "the first to be held", func(proxy.Status) bool {
		list, err := localredis.Do(c.replicas[0].Addr(), "CLIENT", "LIST")
		return err == nil && strings.Contains(list, " cmd=evalsha ")
	})
	dialRaw(t, c.addr).do("$1\r\nx\r\n", "ECHO", "x") // the loop has sent them
	redisDo(t, c.replicas[0], "CLIENT", "UNPAUSE")
	for _, r := range []*raw{first, second, third} {
		r.expect("$1\r\nx\r\n")
	}
}
