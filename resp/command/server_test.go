package command_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp/command"
	"github.com/sluice-io/sluice/resp/localredis"
)

// eachServer runs f against the installed redis-server and those of
// [localredis.ServersEnv].
func eachServer(t *testing.T, f func(t *testing.T, rdb *redis.Client)) {
	for _, binary := range localredis.TestServers() {
		t.Run(filepath.Base(binary), func(t *testing.T) {
			f(t, start(t, 3, localredis.Options{Binary: binary}))
		})
	}
}

// start starts a server and returns a client that speaks the given RESP version.
func start(t *testing.T, protocol int, o localredis.Options) *redis.Client {
	t.Helper()
	s, err := localredis.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return client(t, s.Addr(), protocol)
}

func client(t *testing.T, addr string, protocol int) *redis.Client {
	t.Helper()
	rdb := redis.NewClient(&redis.Options{Addr: addr, Protocol: protocol})
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// live returns the table of the server's own COMMAND.
func live(t *testing.T, rdb *redis.Client) *command.Table {
	t.Helper()
	reply, err := rdb.Do(context.Background(), "COMMAND").Result()
	if err != nil {
		t.Fatal(err)
	}
	table, err := command.Parse(reply)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// version returns redis_version of INFO.
func version(t *testing.T, rdb *redis.Client) string {
	t.Helper()
	info, err := rdb.Info(context.Background(), "server").Result()
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(info, "redis_version:")
	v, _, _ := strings.Cut(rest, "\r\n")
	return v
}
