package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/localredis"
)

func TestMain(m *testing.M) {
	if l := os.Getenv(loadEnv); l != "" {
		if err := runLoad(l); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	// A toxic does not end before what it holds, for a link that was cut, is due.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2/toxics.(*ToxicStub).Run"),
		goleak.IgnoreAnyFunction("github.com/Shopify/toxiproxy/v2.(*ToxicLink).write"))
}

// cluster is a master with replicas and a proxy in front of them.
type cluster struct {
	master   *localredis.Server
	replicas []*localredis.Server
	srv      *proxy.Server
	addr     string
	links    []string // ports by which the replicas reach the master, where they are delayed
}

// newCluster starts n replicas and a proxy that reads from all of them.
func newCluster(t testing.TB, n int, set func(*proxy.Options), args ...string) *cluster {
	t.Helper()
	c := &cluster{master: startRedis(t, localredis.Options{Args: args})}
	for range n {
		c.replicas = append(c.replicas, startRedis(t, localredis.Options{ReplicaOf: c.master, Args: args}))
	}
	if !strings.Contains(strings.Join(args, " "), "requirepass") {
		for _, r := range c.replicas { // so that the first look at them is enough
			awaitInfo(t, r, "master_link_status:up")
		}
	}
	c.front(t, set)
	return c
}

// front starts the proxy and waits until it reads from all replicas.
func (c *cluster) front(t testing.TB, set func(*proxy.Options)) {
	t.Helper()
	ctx := context.Background()
	n := len(c.replicas)
	o := proxy.Options{
		Master:    c.master.Addr(),
		Listeners: []proxy.Listener{{Network: "tcp", Address: "127.0.0.1:0"}},
		// A busy machine must not look like a dead node.
		HealthTimeout: 5 * time.Second,
		Logger:        zaptest.NewLogger(t, zaptest.Level(zap.DebugLevel)),
	}
	if set != nil {
		set(&o)
	}
	var err error
	if c.srv, err = proxy.New(o); err != nil {
		t.Fatal(err)
	}
	if err := c.srv.Start(ctx); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		done, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		_ = c.srv.Close(done)
	})
	c.addr = c.srv.Addrs()[0].String()
	c.await(t, fmt.Sprintf("%d replicas that get reads", n), func(s proxy.Status) bool { return s.Ready && readable(s) == n })
}

func startRedis(t testing.TB, o localredis.Options) *localredis.Server {
	t.Helper()
	s, err := localredis.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func readable(s proxy.Status) (n int) {
	for _, node := range s.Nodes {
		if node.Reads {
			n++
		}
	}
	return n
}

// await polls the status, which is all that a user can see, until ok.
func (c *cluster) await(t testing.TB, what string, ok func(proxy.Status) bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok(c.srv.Status()) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s; status: %+v", what, c.srv.Status())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// sync waits until every replica that gets reads has what the master has now.
func (c *cluster) sync(t testing.TB) {
	t.Helper()
	info, err := localredis.Do(c.master.Addr(), "INFO", "replication")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "master_repl_offset:")
	line, _, _ := strings.Cut(rest, "\r")
	offset, err := strconv.ParseInt(line, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	c.await(t, "replicas in step", func(s proxy.Status) bool {
		for _, n := range s.Nodes[1:] {
			if n.Reads && n.Offset < offset {
				return false
			}
		}
		return true
	})
}

// warm reads until replicas have answered on r's connection.
func (c *cluster) warm(t testing.TB, r *raw) {
	t.Helper()
	c.sync(t)
	for deadline := time.Now().Add(10 * time.Second); ; {
		sum := func() (n int) {
			for _, s := range c.replicas {
				n += calls(t, s, "get")
			}
			return n
		}
		before := sum()
		for range 20 {
			r.cmd("GET", "warm")
			if _, err := r.reply(); err != nil {
				t.Fatal(err)
			}
		}
		if sum() == before+20 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("reads never reached the replicas")
		}
	}
}

// client returns a go-redis client of the proxy.
func (c *cluster) client(t testing.TB, set func(*redis.Options)) *redis.Client {
	o := &redis.Options{Addr: c.addr, MaxRetries: -1}
	if set != nil {
		set(o)
	}
	r := redis.NewClient(o)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// calls returns how often a server has run a command.
func calls(t testing.TB, s *localredis.Server, name string) int {
	t.Helper()
	info, err := localredis.Do(s.Addr(), "INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(info, "cmdstat_"+name+":calls=")
	if !ok {
		return 0
	}
	n, _, _ := strings.Cut(rest, ",")
	v, err := strconv.Atoi(n)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// raw is a connection that speaks RESP by hand.
type raw struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func dialRaw(t testing.TB, addr string) *raw {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{t, c, bufio.NewReaderSize(c, 1<<20)}
}

func (r *raw) send(text string) {
	r.t.Helper()
	if _, err := io.WriteString(r.Conn, text); err != nil {
		r.t.Fatalf("send %.60q: %v", text, err)
	}
}

func (r *raw) cmd(args ...string) { r.t.Helper(); r.send(string(resp.AppendCommand(nil, args...))) }

// reply reads one complete reply.
func (r *raw) reply() (string, error) {
	for want := 1; ; {
		b, err := r.r.Peek(want)
		if err != nil {
			return string(b), err
		}
		if n := r.r.Buffered(); n > len(b) {
			b, _ = r.r.Peek(n)
		}
		n, need, err := resp.ScanReply(b)
		if err != nil {
			return string(b), err
		}
		if n > 0 {
			s := string(b[:n])
			_, _ = r.r.Discard(n)
			return s, nil
		}
		want = max(int(need), len(b)+1)
	}
}

func (r *raw) expect(want string) {
	r.t.Helper()
	got, err := r.reply()
	if err != nil || got != want {
		r.t.Fatalf("reply %.200q, %v; want %.200q", got, err, want)
	}
}

func (r *raw) do(want string, args ...string) { r.t.Helper(); r.cmd(args...); r.expect(want) }

// closedAfter reads a last line and expects the end of the connection.
func (r *raw) closedAfter(line string) {
	r.t.Helper()
	b, err := io.ReadAll(r.r)
	if err != nil || string(b) != line {
		r.t.Fatalf("last words %q, %v; want %q and an orderly end", b, err, line)
	}
}

// awaitReply asks a server until it answers as wanted.
func awaitReply(t testing.TB, addr, want string, args ...string) {
	t.Helper()
	r := dialRaw(t, addr)
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		r.cmd(args...)
		got, err := r.reply()
		if err == nil && got == want {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%v is answered with %q, %v; want %q", args, got, err, want)
		}
	}
}
