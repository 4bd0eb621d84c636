package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// tailOf runs tail to its end.
func tailOf(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	p := start(append([]string{"tail"}, args...)...)
	code = p.wait(t)
	return p.stdout.String(), p.stderr.String(), code
}

// fields drops time and offset of each line.
func fields(out string) string {
	return regexp.MustCompile(`(?m)^20\d\d-\S+ \S+  \d+  `).ReplaceAllString(out, "")
}

// capture runs serve with a relay alone into dir until a base is stored.
func capture(t *testing.T, master *localredis.Server, dir string) (p *inProcess, adminAddr string) {
	t.Helper()
	p = start("serve", "--config", writeConfig(t, "listeners: []\nadmin: {listen: \"127.0.0.1:0\"}\nlog: {format: json}\n"), "--master", master.Addr(), "--relay-dir", dir)
	var l listening
	if err := json.Unmarshal([]byte(p.stderr.waitFor(t, "sluice is listening")), &l); err != nil {
		t.Fatal(err)
	}
	within(t, "a base is stored", func() bool { return relayStatus(t, l.Admin).Ready })
	return p, l.Admin
}

// What a master was told is shown as it comes, from a store that a running serve
// writes to, and again from any offset and time; a full resync is followed.
func TestTail(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	master := startRedis(t, localredis.Options{})
	dir := t.TempDir()
	serve, adminAddr := capture(t, master, dir)
	follow := start("tail", "--follow", "--from", "0", dir)
	client := redis.NewClient(&redis.Options{Addr: master.Addr(), DB: 3})
	defer func() { _ = client.Close() }()
	do := func(args ...any) {
		t.Helper()
		if err := client.Do(ctx, args...).Err(); err != nil {
			t.Fatal(err)
		}
	}
	do("SET", "user:1", "a\x00\"")
	follow.stdout.waitFor(t, `3  "SET" "user:1" "a\x00\""`)
	between := time.Now() // later than the commit of user:1 in the index, since it was shown
	if _, err := client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		p.Incr(ctx, "user:2")
		p.LPush(ctx, "list", "x")
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	follow.stdout.waitFor(t, `3  "EXEC"`)
	line := follow.stdout.waitFor(t, `3  "MULTI"`)
	offset := regexp.MustCompile(`  (\d+)  3  "MULTI"`).FindStringSubmatch(line)[1]
	const tx = "3  \"MULTI\"\n3    \"incr\" \"user:2\"\n3    \"lpush\" \"list\" \"x\"\n3  \"EXEC\"\n"
	const set = "3  \"SELECT\" \"3\"\n3  \"SET\" \"user:1\" \"a\\x00\\\"\"\n"
	for _, tc := range []struct {
		args []string
		want string
	}{
		{nil, set + tx},
		{[]string{"--from", offset}, tx},
		{[]string{"--from", between.Format(time.RFC3339Nano)}, tx},
		{[]string{"--from", "1h"}, set + tx},
		{[]string{"--match", "user:*", "--db", "3"}, "3  \"SET\" \"user:1\" \"a\\x00\\\"\"\n3  \"MULTI\"\n3    \"incr\" \"user:2\"\n3  \"EXEC\"\n"},
		{[]string{"--db", "0"}, ""},
		{[]string{"--max-arg", "1", "--match", "list"}, "3  \"M\"...(4 more bytes)\n3    \"l\"...(4 more bytes) \"l\"...(3 more bytes) \"x\"\n3  \"E\"...(3 more bytes)\n"},
	} {
		out, stderr, code := tailOf(t, append(tc.args, dir)...)
		got := regexp.MustCompile(`(?m)^.*"PING"\n`).ReplaceAllString(fields(out), "") // the master's, each 10 s
		if code != exitOK || got != tc.want {
			t.Errorf("%v: exit code %d, %s\n%s\nwant\n%s", tc.args, code, stderr, got, tc.want)
		}
	}
	out, _, _ := tailOf(t, "--json", "--match", "user:2", dir)
	for l := range strings.Lines(out) {
		if !json.Valid([]byte(l)) {
			t.Errorf("no JSON: %s", l)
		}
	}
	if strings.Count(out, "\n") != 3 {
		t.Errorf("JSON: %s", out)
	}
	// The master comes back empty: another generation, which --follow goes over to.
	master.Kill()
	if err := master.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	do("SET", "new", "life") // into the base, or after it
	within(t, "another generation is served", func() bool { return relayStatus(t, adminAddr).Relay.Store.Current == 2 })
	do("SET", "after", "it")
	follow.stdout.waitFor(t, `"SET" "after" "it"`)
	follow.stderr.waitFor(t, "generation 1 is over; generation 2 begins with offset")
	if out, _, _ := tailOf(t, "--generation", "1", dir); !strings.Contains(out, `"user:1"`) {
		t.Errorf("the old generation has\n%s", out)
	}
	for _, p := range []*inProcess{follow, serve} {
		p.signals <- syscall.SIGTERM
		if code := p.wait(t); code != exitOK {
			t.Errorf("exit code %d: %s", code, p.stderr)
		}
	}
}

func TestTailErrors(t *testing.T) {
	dir := t.TempDir()
	fillStore(t, dir) // of zeros: checksums hold, and yet there are no commands
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"--from tomorrow " + dir, exitUsage, "--from tomorrow: must be an offset, a time"},
		{"--db=-1 " + dir, exitUsage, "must not be negative"},
		{"--from 5000 " + dir, exitRuntime, "offset 5000 is not stored yet: the log has 1 to 1000; --follow waits"},
		{"--generation 1 --from 7 " + dir, exitRuntime, "offset 7 is no longer stored: the log has 101 to 5100"},
		{"--generation 9 " + dir, exitRuntime, "there is no generation 9"},
		{dir, exitRuntime, "replication stream broken at offset 1"},
		{"/nonexistent", exitRuntime, "/nonexistent"},
	} {
		if _, stderr, code := tailOf(t, strings.Fields(tc.args)...); code != tc.code || !strings.Contains(stderr, tc.want) {
			t.Errorf("tail %s: exit code %d, %q, want %d, %q", tc.args, code, stderr, tc.code, tc.want)
		}
	}
}

// A flipped bit is told with file and offset, and what is damaged is not shown;
// a log that a crash has cut short is shown up to there, and that is said.
func TestTailOfDamagedLog(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	master := startRedis(t, localredis.Options{})
	dir := t.TempDir()
	serve, adminAddr := capture(t, master, dir)
	client := redis.NewClient(&redis.Options{Addr: master.Addr()})
	defer func() { _ = client.Close() }()
	for i := range 100 {
		if err := client.Set(ctx, fmt.Sprintf("key:%d", i), strings.Repeat("v", 2000), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	within(t, "all is stored", func() bool { return relayStatus(t, adminAddr).Relay.Store.LogBytes > 200_000 })
	serve.signals <- syscall.SIGTERM
	if code := serve.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, serve.stderr)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "gen-*", "log-*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	whole, err := os.ReadFile(segments[0])
	if err != nil {
		t.Fatal(err)
	}
	damaged := append([]byte(nil), whole...)
	damaged[150_000] ^= 1
	for name, tc := range map[string]struct {
		data []byte
		want string
	}{
		"flipped": {damaged, "is corrupt at byte 131072: "}, // its block of 64 KB
		"torn":    {whole[:100_000], "is corrupt at byte 100000: "},
	} {
		if err := os.WriteFile(segments[0], tc.data, 0o600); err != nil {
			t.Fatal(err)
		}
		out, stderr, code := tailOf(t, dir)
		if code != exitRuntime || !strings.Contains(stderr, segments[0]+" "+tc.want) || strings.Contains(out, "key:90") {
			t.Errorf("%s: exit code %d, %s\n%.300s", name, code, stderr, out)
		}
	}
}

// What a crash has torn off beyond what was durable is said, and the rest shown.
func TestTailOfTornLog(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(dir, store.Options{Fsync: store.FsyncNo, RetainAge: store.Unlimited})
	if err != nil {
		t.Fatal(err)
	}
	h, err := repl.NewHistory(storeID1)
	if err == nil {
		_, err = s.NewGeneration(repl.Pos{ReplID: storeID1}, h)
	}
	const ping = "*1\r\n$4\r\nPING\r\n"
	for i := 1; i <= 2 && err == nil; i++ { // each is longer than the 4 KB after which a commit is indexed
		if err = s.Append([]byte(strings.Repeat(ping, 1000))); err == nil {
			err = s.Commit(store.Mark{Offset: repl.Offset(i * 1000 * len(ping)), Time: time.Now()})
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	torn := t.TempDir() // as a crash now would leave it, and less
	if err := os.CopyFS(torn, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(torn, "gen-*", "log-*.seg"))
	if err != nil || len(segments) != 1 {
		t.Fatal(segments, err)
	}
	if err := os.Truncate(segments[0], int64(1500*len(ping))); err != nil {
		t.Fatal(err)
	}
	out, stderr, code := tailOf(t, torn)
	if code != exitOK || strings.Count(out, "PING") != 1000 {
		t.Errorf("exit code %d, %d commands: %s", code, strings.Count(out, "PING"), stderr)
	}
	for _, want := range []string{"log cut after offset 14000", filepath.Base(segments[0]), "byte 21000", "left behind by a crash"} {
		if !strings.Contains(stderr, want) {
			t.Errorf("it lacks %q: %s", want, stderr)
		}
	}
}
