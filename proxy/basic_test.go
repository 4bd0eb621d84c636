package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

func TestWritesOnTheMasterReadsOnReplicas(t *testing.T) {
	c := newCluster(t, 2, nil)
	r := c.client(t, nil) // HELLO 3 and the rest of go-redis's connect chatter
	ctx := context.Background()
	if err := r.Set(ctx, "hello", "ahri", 0).Err(); err != nil {
		t.Fatal(err)
	}
	c.warm(t, dialRaw(t, c.addr))
	before := calls(t, c.master, "get")
	for range 50 {
		if v, err := r.Get(ctx, "hello").Result(); err != nil || v != "ahri" {
			t.Fatalf("GET: %q, %v", v, err)
		}
	}
	if n := calls(t, c.master, "set"); n != 1 {
		t.Errorf("the master has run %d SETs, want 1", n)
	}
	if n := calls(t, c.master, "get"); n != before {
		t.Errorf("the master has run %d more GETs, want 0", n-before)
	}
	a, b := calls(t, c.replicas[0], "get"), calls(t, c.replicas[1], "get")
	if a+b < 50 || a == 0 || b == 0 {
		t.Errorf("the replicas have run %d and %d GETs, want 50 on both together", a, b)
	}
}

// TestFirstReadsAreOnReplicas: the loops have their connections to replicas
// before there is a client.
func TestFirstReadsAreOnReplicas(t *testing.T) {
	const loops = 3
	c := newCluster(t, 2, func(o *proxy.Options) { o.Loops = loops })
	for _, s := range c.replicas {
		until := func(what string, ok func() bool) {
			for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("%s: waited in vain for %s", s.Addr(), what)
				}
			}
		}
		until("a connection of each loop and the sampler's", func() bool { return standing(t, s) > loops })
		asked := calls(t, s, "role")
		until("a sample taken since", func() bool { return calls(t, s, "role") >= asked+3 }) // one may have been on its way, one is the observer's
	}
	for range 2 * loops { // some on each loop
		dialRaw(t, c.addr).do("$-1\r\n", "GET", "k")
	}
	if n := calls(t, c.master, "get"); n != 0 {
		t.Errorf("the master has run %d of the first GETs, want 0", n)
	}
}

// standing counts the connections to a node that have had no command but ROLE,
// the last of a handshake: the loops' and the sampler's. The observer has a name.
func standing(t *testing.T, s *localredis.Server) (n int) {
	t.Helper()
	list, err := localredis.Do(s.Addr(), "CLIENT", "LIST")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(list) {
		if strings.Contains(line, " name= ") && strings.Contains(line, " cmd=role ") {
			n++
		}
	}
	return n
}

func TestInlineAndVirtualCommands(t *testing.T) {
	c := newCluster(t, 1, nil)
	r := dialRaw(t, c.addr)
	r.send("PING\r\n")
	r.expect("+PONG\r\n")
	r.send("\r\nset k \"a\\x41 b\"\r\n")
	r.expect("+OK\r\n")
	r.do("$4\r\naA b\r\n", "EVAL", "return redis.call('get','k')", "1", "k")
	r.do("$-1\r\n", "CLIENT", "GETNAME")
	r.do("+OK\r\n", "CLIENT", "SETNAME", "me")
	r.do("$2\r\nme\r\n", "CLIENT", "GETNAME")
	r.do("-ERR Client names cannot contain spaces, newlines or special characters.\r\n", "CLIENT", "SETNAME", "a b")
	r.do("-ERR unknown subcommand 'MAINT_NOTIFICATIONS'. Try CLIENT HELP.\r\n", "CLIENT", "MAINT_NOTIFICATIONS", "ON")
	r.do("-NOPROTO unsupported protocol version\r\n", "HELLO", "4")
	r.do("$2\r\nhi\r\n", "ECHO", "hi")
	r.do("-ERR wrong number of arguments for 'get' command\r\n", "GET")
	r.do("-ERR unknown command 'NOPE', with args beginning with: 'x' \r\n", "NOPE", "x")
	r.send("CLIENT REPLY SKIP\r\nSET k v\r\nGET k\r\nCLIENT REPLY OFF\r\nSET k w\r\nCLIENT REPLY ON\r\nGET k\r\n") // one pipeline: all on the master
	r.expect("$1\r\nv\r\n")
	r.expect("+OK\r\n")
	r.expect("$1\r\nw\r\n")
	r.do("+RESET\r\n", "RESET")
	r.do("$-1\r\n", "CLIENT", "GETNAME")
	r.cmd("QUIT")
	r.closedAfter("+OK\r\n")
}

func TestSelectKeepsDatabasesApart(t *testing.T) {
	c := newCluster(t, 1, nil)
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SET", "k", "zero")
	r.do("+OK\r\n", "SELECT", "3")
	r.do("+OK\r\n", "SET", "k", "three")
	c.sync(t)
	r.do("$5\r\nthree\r\n", "GET", "k")
	r.do("-ERR DB index is out of range\r\n", "SELECT", "16")
	r.do("-ERR DB index is out of range\r\n", "SELECT", "-1")
	r.do("-ERR value is not an integer or out of range\r\n", "SELECT", "x")
	r.do("$5\r\nthree\r\n", "GET", "k")
	r.do("+OK\r\n", "SELECT", "0")
	r.do("$4\r\nzero\r\n", "GET", "k")
}

func TestDeniedCommandsReachNoNode(t *testing.T) {
	c := newCluster(t, 0, nil)
	r := dialRaw(t, c.addr)
	for _, line := range []string{"SHUTDOWN NOSAVE", "REPLICAOF NO ONE", "\"shutdown\" nosave", "DEBUG SLEEP 0", "CLUSTER RESET"} {
		r.send(line + "\r\n")
		got, err := r.reply()
		if err != nil || !strings.HasPrefix(got, "-SLUICE_DENIED ") {
			t.Fatalf("%s: %q, %v", line, got, err)
		}
	}
	// Refused inside a transaction, it must keep the rest from running too.
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "SET", "k", "v")
	r.cmd("SHUTDOWN")
	if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-SLUICE_DENIED ") {
		t.Fatalf("SHUTDOWN in MULTI: %q, %v", got, err)
	}
	r.do("-EXECABORT Transaction discarded because of previous errors.\r\n", "EXEC")
	r.do("$-1\r\n", "GET", "k")
}

func TestPinnedCommands(t *testing.T) {
	c := newCluster(t, 1, nil)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	r.do("+OK\r\n", "WATCH", "k")
	r.do("$-1\r\n", "GET", "k")
	other.do("+OK\r\n", "SET", "k", "theirs")
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "SET", "k", "mine")
	r.do("*-1\r\n", "EXEC")
	r.do("-ERR EXEC without MULTI\r\n", "EXEC")
	// In one piece it rides the shared connection.
	r.send("MULTI\r\nSET k whole\r\nEXEC\r\n")
	for _, want := range []string{"+OK\r\n", "+QUEUED\r\n", "*1\r\n+OK\r\n"} {
		r.expect(want)
	}
	r.send("*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*1\r\n$4\r\nEXEC\r\n*2\r\n$3\r\nGET\r\n$1\r\nk\r\n")
	for _, want := range []string{"+OK\r\n", "+QUEUED\r\n", "+QUEUED\r\n", "*2\r\n+OK\r\n$1\r\nw\r\n", "$1\r\nw\r\n"} {
		r.expect(want)
	}

	// WAIT counts the replicas that have what this session wrote, though it wrote
	// on another connection.
	r.do("+OK\r\n", "SET", "waited", "for")
	r.do(":1\r\n", "WAIT", "1", "5000")
	if got, err := localredis.Do(c.replicas[0].Addr(), "GET", "waited"); err != nil || got != "for" {
		t.Fatalf("after WAIT the replica has %q, %v", got, err)
	}
	r.do(":1\r\n", "WAIT", "2", "50") // there is one only

	// A blocking command waits without holding up anyone.
	r.cmd("BLPOP", "list", "0")
	other.do(":1\r\n", "RPUSH", "list", "x")
	r.expect("*2\r\n$4\r\nlist\r\n$1\r\nx\r\n")

	// Pub/sub in RESP2, and back.
	r.do("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	other.do(":1\r\n", "PUBLISH", "a", "m1")
	r.expect("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nm1\r\n")
	r.cmd("SUBSCRIBE", "b", "c")
	r.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nb\r\n:2\r\n")
	r.expect("*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:3\r\n")
	r.do("*2\r\n$4\r\npong\r\n$0\r\n\r\n", "PING")
	r.cmd("UNSUBSCRIBE")
	for range 3 {
		if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "*3\r\n$11\r\nunsubscribe\r\n") {
			t.Fatalf("UNSUBSCRIBE: %q, %v", got, err)
		}
	}
	c.sync(t)
	r.do("$1\r\nw\r\n", "GET", "k")
}

func TestBlockedClientThatLeavesPopsNothing(t *testing.T) {
	c := newCluster(t, 0, nil)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	r.cmd("BLPOP", "list", "0")
	awaitInfo(t, c.master, "blocked_clients:1")
	_ = r.Close()
	awaitInfo(t, c.master, "blocked_clients:0")
	other.do(":1\r\n", "RPUSH", "list", "x")
	other.do("$1\r\nx\r\n", "LPOP", "list")
}

// awaitInfo polls INFO of a server for a line.
func awaitInfo(t testing.TB, s *localredis.Server, line string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		info, err := localredis.Do(s.Addr(), "INFO")
		if err == nil && strings.Contains(info, line) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("INFO never showed %s", line)
		}
	}
}

func TestBadClientsAreBoundedAndOthersDoNotNotice(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 1, func(o *proxy.Options) { o.OutputHardLimit, o.Registerer = 8<<20, reg })
	good := dialRaw(t, c.addr)
	good.do("+OK\r\n", "SET", "big", strings.Repeat("x", 1<<20))
	good.do("+OK\r\n", "SET", "k", "v")
	c.sync(t)

	half := dialRaw(t, c.addr)
	half.send("*2\r\n$3\r\nGET\r\n$1000\r\nab")

	deaf := dialRaw(t, c.addr) // asks for 2 GB and reads nothing
	go func() {
		for range 2000 {
			if _, err := io.WriteString(deaf.Conn, "GET big\r\n"); err != nil {
				return
			}
		}
	}()
	malformed := []struct{ sent, want string }{
		{"*1000000000\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
		{"*1\r\n$-5\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
		{"*1\r\n!x\r\n", "-ERR Protocol error: expected '$', got '!'\r\n"},
		{"set \"a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"},
		{strings.Repeat("y", 70<<10), "-ERR Protocol error: too big inline request\r\n"},
	}
	for _, bad := range malformed {
		r := dialRaw(t, c.addr)
		r.send(bad.sent)
		if got, err := r.reply(); err != nil || got != bad.want {
			t.Errorf("%.20q is answered with %q, %v; want %q", bad.sent, got, err, bad.want)
		}
		if b, _ := io.ReadAll(r.r); len(b) > 0 {
			t.Errorf("%.20q: %d more bytes before the end", bad.sent, len(b))
		}
	}
	if n := metricSum(t, reg, "sluice_proxy_protocol_errors_total"); n != int64(len(malformed)) {
		t.Errorf("%d protocol errors are counted of %d", n, len(malformed))
	}
	for range 200 {
		good.do("$1\r\nv\r\n", "GET", "k")
	}
	// The deaf client is held back or closed; either way it holds no more than its limit.
	half.send(strings.Repeat("b", 998) + "\r\n")
	half.expect("$-1\r\n")
}

func TestReplicaKilledUnderLoadCostsNoRead(t *testing.T) {
	c := newCluster(t, 2, nil)
	ctx := context.Background()
	r := c.client(t, func(o *redis.Options) { o.PoolSize = 20 })
	for i := range 100 {
		if err := r.Set(ctx, fmt.Sprint("k", i), i, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	c.sync(t)
	var reads, failed atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for n := i; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				reads.Add(1)
				if v, err := r.Get(ctx, fmt.Sprint("k", n%100)).Int(); err != nil || v != n%100 {
					failed.Add(1)
					t.Errorf("GET k%d: %d, %v", n%100, v, err)
					return
				}
			}
		})
	}
	awaitCount(t, &reads, 2000)
	c.replicas[0].Kill()
	c.await(t, "one replica left", func(s proxy.Status) bool { return readable(s) == 1 })
	awaitCount(t, &reads, reads.Load()+2000)
	c.replicas[1].Kill()
	c.await(t, "no replica left", func(s proxy.Status) bool { return readable(s) == 0 })
	awaitCount(t, &reads, reads.Load()+2000)
	if err := c.replicas[0].Restart(ctx); err != nil {
		t.Fatal(err)
	}
	c.await(t, "one replica back", func(s proxy.Status) bool { return readable(s) == 1 })
	awaitCount(t, &reads, reads.Load()+2000)
	close(stop)
	wg.Wait()
	t.Logf("%d reads, %d failed", reads.Load(), failed.Load())
}

// awaitCount waits until a counter that others drive has reached n.
func awaitCount(t testing.TB, v *atomic.Int64, n int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); v.Load() < n; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("counter stands at %d, wanted %d", v.Load(), n)
		}
	}
}

func TestMasterKilledReadsGoOnWritesSayWhy(t *testing.T) {
	c := newCluster(t, 1, func(o *proxy.Options) { o.FailoverHold = 200 * time.Millisecond })
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SET", "k", "v")
	c.warm(t, r)
	c.master.Kill()
	for range 100 {
		r.do("$1\r\nv\r\n", "GET", "k")
	}
	c.await(t, "the master's loss", func(s proxy.Status) bool { return !s.Ready })
	r.cmd("SET", "k", "w")
	if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-SLUICE_NOMASTER ") {
		t.Fatalf("SET without a master: %q, %v", got, err)
	}
	if err := c.master.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	c.await(t, "the master's return", func(s proxy.Status) bool { return s.Ready })
	r.do("+OK\r\n", "SET", "k", "x")
}

func TestUnansweredWriteIsCalledUncertain(t *testing.T) {
	c := newCluster(t, 0, nil)
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SET", "k", "v")
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	r.cmd("SET", "k", "w")
	c.await(t, "the master's loss", func(s proxy.Status) bool { return !s.Ready })
	if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-SLUICE_UNCERTAIN set ") {
		t.Fatalf("SET sent to a master that hangs: %q, %v", got, err)
	}
	_ = c.master.Signal(contSignal)
	c.await(t, "the master's return", func(s proxy.Status) bool { return s.Ready })
}

func TestPipelineKeepsOrderAcrossNodes(t *testing.T) {
	c := newCluster(t, 2, nil)
	r := dialRaw(t, c.addr)
	var sb strings.Builder
	for i := range 20_000 {
		switch i % 5 {
		case 0:
			fmt.Fprintf(&sb, "SET k %d\r\n", i)
		case 1:
			sb.WriteString("GET k\r\n")
		default:
			fmt.Fprintf(&sb, "ECHO %d\r\n", i)
		}
	}
	go func() { _, _ = io.WriteString(r.Conn, sb.String()) }()
	last := 0
	for i := range 20_000 {
		got, err := r.reply()
		if err != nil {
			t.Fatal(err)
		}
		want := fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(i)), i)
		switch i % 5 {
		case 0:
			want, last = "+OK\r\n", i
		case 1:
			want = fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(last)), last)
		}
		if got != want {
			t.Fatalf("reply %d is %q, want %q", i, got, want)
		}
	}
}

func TestLargeValuesStreamThrough(t *testing.T) {
	c := newCluster(t, 1, nil)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	const size = 40 << 20
	go r.cmd("SET", "big", strings.Repeat("z", size))
	for range 200 { // while it is on its way
		other.do("+OK\r\n", "SET", "small", "v")
	}
	r.expect("+OK\r\n")
	r.do(fmt.Sprintf(":%d\r\n", size), "EVAL", "return redis.call('strlen','big')", "1", "big")
	c.sync(t)
	r.cmd("GET", "big")
	got, err := r.reply2(size)
	if err != nil || got != size {
		t.Fatalf("GET returned %d bytes, %v", got, err)
	}
	r.do("$1\r\nv\r\n", "GET", "small")
}

// reply2 reads a bulk string and returns its length.
func (r *raw) reply2(want int) (int, error) {
	line, err := r.r.ReadString('\n')
	if err != nil || line != fmt.Sprintf("$%d\r\n", want) {
		return 0, errors.Join(err, errors.New(line))
	}
	n, err := io.CopyN(io.Discard, r.r, int64(want)+2)
	return int(n) - 2, err
}

func TestAuthPassesThroughAndNothingIsLent(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 1, func(o *proxy.Options) { o.Password, o.Registerer = "secret", reg },
		"--requirepass", "secret", "--masterauth", "secret")
	admin := dialRaw(t, c.master.Addr())
	admin.do("+OK\r\n", "AUTH", "secret")
	admin.do("+OK\r\n", "ACL", "SETUSER", "bob", "on", ">pw", "~b*", "+@all") // on the master only
	r := dialRaw(t, c.addr)
	r.do("-NOAUTH Authentication required.\r\n", "GET", "k")
	r.do("-NOAUTH Authentication required.\r\n", "PING")
	r.do("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "nope")
	r.do("-NOAUTH Authentication required.\r\n", "GET", "k")
	r.do("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "AUTH", "nobody", "secret")
	r.do("-WRONGPASS invalid username-password pair or user is disabled.\r\n", "HELLO", "3", "AUTH", "default", "nope")
	if n := metricSum(t, reg, "sluice_proxy_auth_failures_total"); n != 3 {
		t.Errorf("%d logins are counted as failed of 3", n)
	}
	r.do("+OK\r\n", "AUTH", "secret")
	r.do("+OK\r\n", "SET", "k", "v")
	r.do("+OK\r\n", "AUTH", "bob", "pw")
	r.do("-NOPERM this user has no permissions to access one of the keys used as arguments\r\n", "SET", "k", "w")
	r.do("+OK\r\n", "SET", "b1", "w")
	r.do("$1\r\nw\r\n", "GET", "b1") // the replica does not know bob
	big := dialRaw(t, c.addr)
	big.send("*11\r\n")
	big.closedAfter("-ERR Protocol error: unauthenticated multibulk length\r\n")
}
