package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"
)

// TestClients runs small programs of real client libraries, unchanged, against
// the proxy: each does what applications do and compares what it gets.
func TestClients(t *testing.T) {
	l := startLab(t, "--replicas", "1")
	host, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, deb string
		try       []string // a command that succeeds where the library is there
		command   []string
	}{
		{"redis-py", "python3-redis", []string{"/usr/bin/python3", "-c", "import redis"}, []string{"/usr/bin/python3", "client.py"}},
		{"phpredis", "php-redis", []string{"php", "-r", `exit(class_exists("Redis") ? 0 : 1);`}, []string{"php", "client.php"}},
		{"redis-rb", "ruby-redis", []string{"/usr/bin/ruby", "-e", "require 'redis'"}, []string{"/usr/bin/ruby", "client.rb"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if out, err := exec.Command(c.try[0], c.try[1:]...).CombinedOutput(); err != nil {
				notHere(t, c.deb, fmt.Errorf("%w: %s", err, out))
			}
			runClient(t, append(c.command, host, port)...)
		})
	}
	t.Run("hiredis", func(t *testing.T) {
		bin := filepath.Join(t.TempDir(), "client")
		build := exec.Command("cc", "-Wall", "-o", bin, "testdata/clients/client.c", "-lhiredis")
		if out, err := build.CombinedOutput(); err != nil {
			notHere(t, "gcc and libhiredis-dev", fmt.Errorf("%w: %s", err, out))
		}
		runClient(t, bin, host, port)
	})
	t.Run("redis-cli --pipe", func(t *testing.T) { testPipe(t, host, port) })
	t.Run("go-redis", func(t *testing.T) { testGoRedisProgram(t, l.addr) })
	if n := l.replicaCalls(t, "get"); n == 0 {
		t.Error("no GET of all these was answered by the replica")
	}
}

// notHere skips a test whose client is not installed, but for continuous
// integration, where it must be.
func notHere(t *testing.T, deb string, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is missing, deploy/test.sh should have installed it: %v", deb, err)
	}
	t.Skipf("this check was not made, install %s for it: %v", deb, err)
}

// runClient runs a program that ends with the line "ok".
func runClient(t *testing.T, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Dir = "testdata/clients"
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasSuffix(string(out), "ok\n") {
		t.Errorf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// testPipe loads a hundred thousand keys as the documentation of mass insertion
// tells.
func testPipe(t *testing.T, host, port string) {
	const n = 100_000
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, "*3\r\n$3\r\nSET\r\n$%d\r\npipe:%d\r\n$1\r\nx\r\n", len(fmt.Sprint(i))+5, i)
	}
	cmd := exec.Command(program(t, "redis-cli"), "-h", host, "-p", port, "--pipe")
	cmd.Stdin = strings.NewReader(in.String())
	out, err := cmd.CombinedOutput()
	if want := fmt.Sprintf("errors: 0, replies: %d", n); err != nil || !strings.Contains(string(out), want) {
		t.Errorf("%v, want %q in\n%s", err, want, out)
	}
}

// testGoRedisProgram uses what go-redis does beyond single commands: its pool,
// transactions, optimistic locking, subscriptions and scripts.
func testGoRedisProgram(t *testing.T, addr string) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	for _, proto := range []int{2, 3} {
		t.Run(fmt.Sprint("RESP", proto), func(t *testing.T) {
			c := redis.NewClient(&redis.Options{Addr: addr, Protocol: proto, PoolSize: 8, ClientName: "app"})
			defer func() { _ = c.Close() }()
			c.FlushDB(ctx)
			goRedisPool(t, ctx, c)
			goRedisTransactions(t, ctx, c)
			goRedisMessages(t, ctx, c)
		})
	}
}

// goRedisPool has more goroutines than connections, each of which reads what it
// wrote, over whichever connection it gets.
func goRedisPool(t *testing.T, ctx context.Context, c *redis.Client) {
	t.Helper()
	var wg sync.WaitGroup
	for g := range 32 {
		wg.Go(func() {
			for i := range 50 {
				key, want := fmt.Sprint("go:", g), fmt.Sprint(i)
				if err := c.Set(ctx, key, want, 0).Err(); err != nil {
					t.Error(err)
				}
				if got, err := c.Get(ctx, key).Result(); err != nil || got != want {
					t.Errorf("GET %s behind SET %s: %q, %v", key, want, got, err)
				}
			}
		})
	}
	wg.Wait()
	script := redis.NewScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
	for want := 5; want <= 15; want += 5 {
		if got, err := script.Run(ctx, c, []string{"go:s"}, 5).Int(); err != nil || got != want {
			t.Errorf("script: %d, %v, want %d", got, err, want)
		}
		if want == 10 {
			c.ScriptFlush(ctx)
		}
	}
}

func goRedisTransactions(t *testing.T, ctx context.Context, c *redis.Client) {
	t.Helper()
	var sum *redis.IntCmd
	if _, err := c.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Set(ctx, "go:n", 40, 0)
		sum = p.IncrBy(ctx, "go:n", 2)
		return nil
	}); err != nil || sum.Val() != 42 {
		t.Errorf("TxPipelined: %d, %v", sum.Val(), err)
	}
	tries := 0
	increment := func(tx *redis.Tx) error {
		n, err := tx.Get(ctx, "go:n").Int()
		if err != nil {
			return err
		}
		if tries++; tries == 1 { // somebody else is faster
			c.Incr(ctx, "go:n")
		}
		_, err = tx.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.Set(ctx, "go:n", n+1, 0)
			return nil
		})
		return err
	}
	if err := c.Watch(ctx, increment, "go:n"); !errors.Is(err, redis.TxFailedErr) {
		t.Errorf("EXEC behind a changed key: %v", err)
	}
	if err := c.Watch(ctx, increment, "go:n"); err != nil {
		t.Error(err)
	}
	if n, err := c.Get(ctx, "go:n").Int(); err != nil || n != 44 {
		t.Errorf("after both: %d, %v, want 44", n, err)
	}
}

func goRedisMessages(t *testing.T, ctx context.Context, c *redis.Client) {
	t.Helper()
	sub := c.Subscribe(ctx, "go:a")
	defer func() { _ = sub.Close() }()
	for _, more := range []func() error{
		func() error { return nil },
		func() error { return sub.PSubscribe(ctx, "go:p*") },
	} {
		if err := more(); err != nil {
			t.Fatal(err)
		}
		if _, err := sub.Receive(ctx); err != nil { // the confirmation
			t.Fatal(err)
		}
	}
	for _, m := range [][2]string{{"go:a", "one"}, {"go:pat", "two"}, {"go:a", "three"}} {
		if n, err := c.Publish(ctx, m[0], m[1]).Result(); err != nil || n != 1 {
			t.Errorf("PUBLISH %s reached %d, %v", m[0], n, err)
		}
		got, err := sub.ReceiveMessage(ctx)
		if err != nil || got.Channel != m[0] || got.Payload != m[1] {
			t.Errorf("message %v, %v, want %v", got, err, m)
		}
	}
	popped := make(chan error, 1)
	go func() {
		got, err := c.BLPop(ctx, testTimeout, "go:q").Result()
		if err == nil && got[1] != "x" {
			err = fmt.Errorf("popped %v", got)
		}
		popped <- err
	}()
	c.RPush(ctx, "go:q", "x")
	if err := <-popped; err != nil {
		t.Error(err)
	}
}
