package tail

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var id = repl.ReplID(strings.Repeat("a", repl.ReplIDLen))

// words returns a command as it is in the stream.
func words(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

var when = time.Date(2026, 3, 1, 12, 0, 0, 123e6, time.Local)

// fill returns a generation behind offset 100 with each piece a commit, one
// second apart.
func fill(t *testing.T, pieces ...string) *store.Generation {
	t.Helper()
	s, err := store.Open(t.TempDir(), store.Options{Fsync: store.FsyncNo, RetainAge: store.Unlimited})
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(err)
	t.Cleanup(func() { _ = s.Close() })
	h, err := repl.NewHistory(id)
	check(err)
	g, err := s.NewGeneration(repl.Pos{ReplID: id, Offset: 100}, h)
	check(err)
	off := repl.Offset(100)
	for i, p := range pieces {
		off += repl.Offset(len(p))
		check(s.Append([]byte(p)))
		check(s.Commit(store.Mark{Offset: off, DB: psync.UnknownDB, Time: when.Add(time.Duration(i) * time.Second)}))
	}
	check(s.Sync())
	return g
}

// all renders everything behind offset 100 that f chooses.
func all(t *testing.T, g *store.Generation, f *Filter, render func(*Command) []byte) string {
	t.Helper()
	r, err := NewReader(g, store.Mark{Offset: 100, DB: psync.UnknownDB})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	var b strings.Builder
	for {
		c, err := r.Next()
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Write(c, render, func(p []byte) { b.Write(p) })
	}
}

func asText(c *Command) []byte { return Text(nil, c, 10) }

func TestTextAndFilters(t *testing.T) {
	g := fill(t,
		words("SET", "early", "x"),
		words("SELECT", "3"),
		words("SET", "user:1", "a\"\\\r\n\x00\xff"),
		words("MULTI")+words("INCR", "user:2")+words("DEL", "x", "order:1")+words("EXEC"),
		words("MULTI")+words("INCR", "z")+words("EXEC"),
		words("PING"), words("REPLCONF", "GETACK", "*"), "\r\n"+words("FLUSHALL"),
		words("SELECT", "0"),
		words("SET", "user:3", "0123456789abc"),
		words("no.such", "user"),
	)
	const line = "2026-03-01 12:00:0"
	for _, tc := range []struct {
		name string
		f    Filter
		want []string
	}{
		{"all", Filter{DB: psync.UnknownDB}, []string{
			`0.123  101  -  "SET" "early" "x"`,
			`1.123  132  3  "SELECT" "3"`,
			`2.123  155  3  "SET" "user:1" "a\"\\\r\n\x00\xff"`,
			`3.123  193  3  "MULTI"`,
			`3.123  208  3    "INCR" "user:2"`,
			`3.123  234  3    "DEL" "x" "order:1"`,
			`3.123  267  3  "EXEC"`,
			`4.123  281  3  "MULTI"`,
			`4.123  296  3    "INCR" "z"`,
			`4.123  317  3  "EXEC"`,
			`5.123  331  3  "PING"`,
			`6.123  345  3  "REPLCONF" "GETACK" "*"`,
			`7.123  382  3  (empty)`,
			`7.123  384  3  "FLUSHALL"`,
			`8.123  402  0  "SELECT" "0"`,
			`9.123  425  0  "SET" "user:3" "0123456789"...(3 more bytes)`,
			`10.123`}},
		{"match", Filter{Match: "user:[1-2]", DB: psync.UnknownDB}, []string{
			`2.123  155  3  "SET" "user:1" "a\"\\\r\n\x00\xff"`,
			`3.123  193  3  "MULTI"`,
			`3.123  208  3    "INCR" "user:2"`,
			`3.123  267  3  "EXEC"`,
			`7.123  384  3  "FLUSHALL"`,
			`10.123`}},
		{"database", Filter{DB: 0}, []string{
			`0.123  101  -  "SET" "early" "x"`, // which it is cannot be told
			`9.123  425  0  "SET" "user:3" "0123456789"...(3 more bytes)`,
			`10.123`}},
		{"both", Filter{Match: "order*", DB: 3}, []string{
			`3.123  193  3  "MULTI"`,
			`3.123  234  3    "DEL" "x" "order:1"`,
			`3.123  267  3  "EXEC"`,
			`7.123  384  3  "FLUSHALL"`}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var want strings.Builder
			for _, l := range tc.want {
				if l == "10.123" {
					want.WriteString(`2026-03-01 12:00:10.123  470  0  "no.such" "user"` + "\n")
				} else {
					want.WriteString(line + l + "\n")
				}
			}
			if d := cmp.Diff(want.String(), all(t, g, &tc.f, asText)); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

func TestJSON(t *testing.T) {
	g := fill(t, words("SET", "k", "ünï"), words("SELECT", "2")+words("MULTI")+words("SET", "k", "\xff\x00")+words("EXEC"))
	out := all(t, g, &Filter{DB: psync.UnknownDB}, func(c *Command) []byte { return JSON(nil, c) })
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var first, set line
	if err := json.Unmarshal([]byte(lines[0]), &first); err != nil {
		t.Fatal(err)
	}
	if first.DB != nil || first.Offset != 101 || first.End != 100+repl.Offset(len(words("SET", "k", "ünï"))) || !first.Time.Equal(when) ||
		strings.Join(first.Args, " ") != "SET k ünï" {
		t.Errorf("%s", lines[0])
	}
	if err := json.Unmarshal([]byte(lines[3]), &set); err != nil {
		t.Fatal(err)
	}
	if *set.DB != 2 || !set.Tx || len(set.Args) != 0 || set.Base64[2] != base64.StdEncoding.EncodeToString([]byte("\xff\x00")) {
		t.Errorf("%s", lines[3])
	}
}

// Commands far larger than what is kept: values, and numbers of arguments.
func TestLongCommands(t *testing.T) {
	many := []string{"DEL"}
	for i := range 200_000 {
		many = append(many, fmt.Sprintf("key:%d", i))
	}
	g := fill(t, words("SET", "large", strings.Repeat("x", 5<<20)), words(many...), words("SET", "k", "v"))
	f := Filter{DB: psync.UnknownDB}
	lines := strings.Split(all(t, g, &f, asText), "\n")
	if want := `"SET" "large" "xxxxxxxxxx"...(5242870 more bytes)`; !strings.HasSuffix(lines[0], want) {
		t.Errorf("%s, want %s", lines[0], want)
	}
	if !strings.Contains(lines[1], `"key:1" "key:2"`) || !strings.HasSuffix(lines[1], "more arguments)") {
		t.Errorf("%.100s … %s", lines[1], lines[1][len(lines[1])-100:])
	}
	if !strings.HasSuffix(lines[2], `"SET" "k" "v"`) {
		t.Errorf("%s", lines[2])
	}
	// A key of it that was cut off cannot be ruled out; that of the SET can.
	f = Filter{DB: psync.UnknownDB, Match: "key:199999"}
	if out := all(t, g, &f, asText); strings.Count(out, "\n") != 1 || !strings.Contains(out, `"DEL"`) {
		t.Errorf("%.200s", out)
	}
	var cut line
	f = Filter{DB: psync.UnknownDB, Match: "large"}
	if err := json.Unmarshal([]byte(strings.Split(all(t, g, &f, func(c *Command) []byte { return JSON(nil, c) }), "\n")[0]), &cut); err != nil || !cut.Cut || cut.Argc != 3 {
		t.Errorf("%v, cut %v, argc %d", err, cut.Cut, cut.Argc)
	}
}

// What is no command ends it, with the offset.
func TestBrokenStream(t *testing.T) {
	g := fill(t, words("SET", "k", "v"), "garbage\r\n")
	r, err := NewReader(g, store.Mark{Offset: 100, DB: 0})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Close() }()
	if _, err := r.Next(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), "broken at offset 128") {
			t.Fatalf("%v", err)
		}
	}
}

// Match agrees with a real server's KEYS.
func TestMatchAsRedisDoes(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	s, err := localredis.Start(ctx, localredis.Options{})
	if err != nil {
		t.Skip(err)
	}
	defer s.Stop()
	keys := []string{"a", "b", "ab", "abc", "aXbXc", "user:1", "user:12", "[x]", "a*b", "^", "-", "]", "\\", "é", "aaaaaaaaab"}
	client := redis.NewClient(&redis.Options{Addr: s.Addr()})
	defer func() { _ = client.Close() }()
	for _, k := range keys {
		if err := client.Set(ctx, k, "1", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{
		"*", "a", "a*", "*b", "*b*", "a*b*c", "?", "??", "user:?", "user:[0-9]", "user:[9-0]", "user:[^2]", "[^a]", "[ab]", "[a-]", "[-a]",
		"\\[x\\]", "[\\]]", "a\\*b", "[^]", "[^^]", "[a", "[", "\\", "a**b", "*a*a*a*a*b", "", "é", "**", "[z-a]", "[a\\-z]", "[]a]",
	} {
		matching, err := client.Keys(ctx, p).Result()
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range keys {
			if want := slices.Contains(matching, k); Match(p, []byte(k)) != want {
				t.Errorf("Match(%q, %q) is %v, Redis says %v", p, k, !want, want)
			}
		}
	}
}
