package rdbstream_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp/localredis"
)

// serversEnv names further servers to test against, as PATH does: binaries of
// redis-server or valkey-server.
const serversEnv = "SLUICE_TEST_SERVERS"

// server is a binary to test against.
type server struct {
	binary string
	valkey bool
	major  int
	minor  int
}

// atLeast tells whether it is a Redis of that version; a Valkey counts as 7.2.
func (s server) atLeast(major, minor int) bool {
	if s.valkey {
		return major < 7 || major == 7 && minor <= 2
	}
	return s.major > major || s.major == major && s.minor >= minor
}

var versionPattern = regexp.MustCompile(`(Redis|Valkey) server v=(\d+)\.(\d+)`)

// eachServer runs f for the installed redis-server and those of serversEnv.
func eachServer(t *testing.T, f func(t *testing.T, s server)) {
	t.Helper()
	others := filepath.SplitList(os.Getenv(serversEnv))
	if len(others) == 0 {
		t.Logf("only the installed redis-server: %s names no others", serversEnv)
	}
	for _, binary := range append([]string{localredis.DefaultBinary}, others...) {
		out, err := exec.Command(binary, "--version").CombinedOutput()
		m := versionPattern.FindStringSubmatch(string(out))
		if m == nil {
			t.Fatalf("%s --version: %q, %v", binary, out, err)
		}
		s := server{binary: binary, valkey: m[1] == "Valkey"}
		s.major, _ = strconv.Atoi(m[2])
		s.minor, _ = strconv.Atoi(m[3])
		t.Run(strings.ToLower(m[1])+"-"+m[2]+"."+m[3], func(t *testing.T) { f(t, s) })
	}
}

// start starts a server that allows DEBUG.
func (s server) start(t *testing.T, args ...string) (*localredis.Server, *redis.Client) {
	t.Helper()
	o := localredis.Options{Binary: s.binary, Args: args}
	if s.atLeast(7, 0) {
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
	deadline := time.After(15 * time.Second)
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
