// Package relaytest has what the tests of the relay share: real servers, a load
// that tells when something is missing or comes twice, and the judge.
package relaytest

import (
	"context"
	"errors"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
)

// Timeout bounds every wait of the tests; none should come near it.
const Timeout = 60 * time.Second

// StartRedis starts a server that forks without delay and may be asked for its
// digest, until the test ends.
func StartRedis(t testing.TB, o localredis.Options) *localredis.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	o.Args = append([]string{"--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "256mb"}, o.Args...)
	s, err := localredis.Start(ctx, o)
	if errors.Is(err, localredis.ErrNoBinary) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// DeadLoop returns settings of a master and of a replica with which a stock
// replica never comes online under a few megabytes of writes per second: it loads
// each key for a millisecond, and its output buffer holds 4 MiB. DeadLoopKeys is
// how many keys there are to be.
func DeadLoop() (master, replica []string) {
	return []string{"--repl-backlog-size", "1mb", "--client-output-buffer-limit", "replica", "4mb", "4mb", "0"},
		[]string{"--key-load-delay", "1000", "--loading-process-events-interval-bytes", "1024"}
}

// DeadLoopKeys are for [DeadLoop].
const DeadLoopKeys = 3000

// Do sends a command and returns its reply; an error reply fails the test.
func Do(t testing.TB, s *localredis.Server, words ...string) string {
	t.Helper()
	v, err := localredis.Do(s.Addr(), words...)
	if err != nil || strings.HasPrefix(v, "-") {
		t.Fatalf("%s: %q, %v", words, v, err)
	}
	return v
}

// Digest returns DEBUG DIGEST, which takes Redis seconds per gigabyte.
func Digest(t testing.TB, s *localredis.Server) string {
	t.Helper()
	v, err := localredis.DoWithin(5*time.Minute, s.Addr(), "DEBUG", "DIGEST")
	if err != nil || strings.HasPrefix(v, "-") {
		t.Fatalf("DEBUG DIGEST of %s: %q, %v", s.Addr(), v, err)
	}
	return v
}

// Info returns a field of INFO.
func Info(t testing.TB, s *localredis.Server, key string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + key + `:([^\r\n]*)`).FindStringSubmatch(Do(t, s, "INFO", "all"))
	if m == nil {
		t.Fatalf("INFO has no %s", key)
	}
	return m[1]
}

// Number returns a field of INFO that is a number.
func Number(t testing.TB, s *localredis.Server, key string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(Info(t, s, key), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Await polls what no channel tells: the state of another process.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(Timeout)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", Timeout, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// StartReplica starts a replica and waits until it is online.
func StartReplica(t testing.TB, master *localredis.Server, args ...string) *localredis.Server {
	t.Helper()
	r := StartRedis(t, localredis.Options{Binary: master.Binary(), ReplicaOf: master, Args: args})
	Await(t, "replica up", func() bool { return Info(t, r, "master_link_status") == "up" })
	Await(t, "replica online at the master", func() bool { return strings.Contains(Do(t, master, "INFO", "replication"), "state=online") })
	return r
}
