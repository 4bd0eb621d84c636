package rdbstream_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp/localredis"
)

// server is a binary to test against.
type server struct {
	localredis.Version
	binary string
}

// eachServer runs f for the installed redis-server and those of
// [localredis.ServersEnv].
func eachServer(t *testing.T, f func(t *testing.T, s server)) {
	t.Helper()
	binaries := localredis.TestServers()
	if len(binaries) == 1 {
		t.Logf("only the installed redis-server: %s names no others", localredis.ServersEnv)
	}
	for _, binary := range binaries {
		v, err := localredis.VersionOf(binary)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(v.String(), func(t *testing.T) { f(t, server{v, binary}) })
	}
}

// start starts a server that allows DEBUG.
func (s server) start(t *testing.T, args ...string) (*localredis.Server, *redis.Client) {
	t.Helper()
	o := localredis.Options{Binary: s.binary, Args: args}
	if s.AtLeast(7, 0) {
		o.Args = append([]string{"--enable-debug-command", "yes"}, args...)
	}
	return launch(t, o)
}

func launch(t *testing.T, o localredis.Options) (*localredis.Server, *redis.Client) {
	t.Helper()
	p, err := localredis.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	return p, client(t, p, 0)
}

// client returns a client of one connection to a database.
func client(t *testing.T, p *localredis.Server, db int) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: p.Addr(), DB: db, PoolSize: 1, Protocol: 2, DisableIdentity: true})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// do runs a command of words separated by spaces.
func do(t *testing.T, rdb *redis.Client, words string) any {
	t.Helper()
	return doArgs(t, rdb, anys(strings.Fields(words))...)
}

func doArgs(t *testing.T, rdb *redis.Client, args ...any) any {
	t.Helper()
	reply, err := rdb.Do(context.Background(), args...).Result()
	if err != nil {
		t.Fatalf("%.100v: %v", args, err)
	}
	return reply
}

func anys(words []string) []any {
	all := make([]any, len(words))
	for i, w := range words {
		all[i] = w
	}
	return all
}

// until asks until the answer has text in it: of what happens in a server on its
// own there is no other sign.
func until(t *testing.T, rdb *redis.Client, words, text string) {
	t.Helper()
	deadline := time.After(60 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(do(t, rdb, words).(string), text) {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s never says %s", words, text)
		}
	}
}

// save makes the server write its file, and reads it.
func save(t *testing.T, p *localredis.Server, rdb *redis.Client) []byte {
	t.Helper()
	do(t, rdb, "SAVE")
	b, err := os.ReadFile(filepath.Join(p.Dir(), "dump.rdb"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}
