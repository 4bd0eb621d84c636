package command_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
)

// args lays words out as a scanned request.
func args(words ...string) resp.Args {
	var a resp.Args
	for _, w := range words {
		a.Spans = append(a.Spans, resp.Span{Off: uint32(len(a.Buf)), Len: uint32(len(w))})
		a.Buf = append(a.Buf, w...)
	}
	return a
}

// keysOf returns the words that AppendKeys takes for keys.
func keysOf(t *testing.T, table *command.Table, words []string) (keys []string, complete bool) {
	t.Helper()
	a := args(words...)
	c := table.Resolve(a)
	if c == nil {
		t.Fatalf("%q: unknown command", words)
	}
	idx, complete := c.AppendKeys([]int{-7}, a)
	if len(idx) == 0 || idx[0] != -7 {
		t.Fatalf("%q: what dst held is gone: %v", words, idx)
	}
	for _, i := range idx[1:] {
		keys = append(keys, words[i])
	}
	return keys, complete
}

// keyLine is one line of testdata/getkeys.txt.
type keyLine struct {
	text       string
	words      []string
	incomplete bool     // "?"
	want       []string // of "=>"
	override   bool     // there is a "=>"
}

func readKeyLines(t *testing.T) []keyLine {
	t.Helper()
	f, err := os.Open("testdata/getkeys.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var lines []keyLine
	for s := bufio.NewScanner(f); s.Scan(); {
		text := strings.TrimSpace(s.Text())
		if text == "" || strings.HasPrefix(text, "#") {
			continue
		}
		l := keyLine{text: text}
		text, l.incomplete = strings.CutPrefix(text, "? ")
		text, want, override := strings.Cut(text, "=>")
		l.words, l.want, l.override = words(text), words(want), override
		lines = append(lines, l)
	}
	return lines
}

func words(s string) []string {
	var list []string
	for _, w := range strings.Fields(s) {
		if w == `""` {
			w = ""
		}
		list = append(list, w)
	}
	return list
}

// Answers of COMMAND GETKEYS that name no keys (getKeysSubcommandImpl).
const (
	noKeyArguments = "The command has no key arguments"
	badArguments   = "Invalid arguments specified for command"
	badArity       = "Invalid number of arguments specified for command"
)

// getKeys asks the server for the keys of each line, in one pipeline. An error
// reply comes as the text of an error without its code.
func getKeys(t *testing.T, rdb *redis.Client, lines [][]string) ([][]string, []string) {
	t.Helper()
	keys, errs := make([][]string, len(lines)), make([]string, len(lines))
	p := rdb.Pipeline()
	cmds := make([]*redis.StringSliceCmd, len(lines))
	for i, words := range lines {
		ask := []any{"COMMAND", "GETKEYS"}
		for _, w := range words {
			ask = append(ask, w)
		}
		cmds[i] = redis.NewStringSliceCmd(context.Background(), ask...)
		_ = p.Process(context.Background(), cmds[i])
	}
	_, _ = p.Exec(context.Background()) // its error is that of some line, looked at below
	for i, c := range cmds {
		list, err := c.Result()
		var reply redis.Error
		if err != nil && !errors.As(err, &reply) {
			t.Fatalf("COMMAND GETKEYS %q: %v", lines[i], err)
		}
		if err != nil {
			errs[i] = strings.TrimPrefix(err.Error(), "ERR ")
		}
		if len(list) > 0 {
			keys[i] = list
		}
	}
	return keys, errs
}

func TestKeysEqualGetKeys(t *testing.T) {
	eachServer(t, func(t *testing.T, rdb *redis.Client) {
		known := live(t, rdb)
		table := command.Builtin().Overlay(known)
		var lines []keyLine
		var ask [][]string
		for _, l := range readKeyLines(t) {
			if known.Lookup([]byte(l.words[0])) != nil {
				lines, ask = append(lines, l), append(ask, l.words)
			}
		}
		wants, errs := getKeys(t, rdb, ask)
		compared := 0
		for i, l := range lines {
			got, complete := keysOf(t, table, l.words)
			want, incomplete := wants[i], l.incomplete
			switch {
			case l.override:
				want = l.want
			case before70(known) && errs[i] != "":
				continue // its GETKEYS refuses what the command accepts: EVAL s 0
			case errs[i] == noKeyArguments || strings.HasPrefix(errs[i], "wrong number of arguments for 'command|getkeys'"):
			case errs[i] == badArguments || errs[i] == badArity:
				incomplete, want = true, got
			case errs[i] != "":
				t.Errorf("%s: server says %q", l.text, errs[i])
				continue
			}
			compared++
			if diff := cmp.Diff(want, got, anyOrder); diff != "" {
				t.Errorf("%s: keys (-want +got), server's error %q:\n%s", l.text, errs[i], diff)
			}
			if complete == incomplete {
				t.Errorf("%s: complete = %v, server's error %q", l.text, complete, errs[i])
			}
		}
		if compared < 150 {
			t.Errorf("only %d lines compared", compared)
		}
		t.Logf("Redis version %s: %d lines", version(t, rdb), compared)
	})
}

// anyOrder compares keys sorted: 6.x names a destination last, 7.0 first.
var anyOrder = cmp.Transformer("sorted", func(keys []string) []string { return slices.Sorted(slices.Values(keys)) })

// vocabulary of the random command lines: what the key finders look at.
var vocabulary = []string{
	"a", "b", "c", "0", "1", "2", "3", "5", "-1", "", "*", "w_*",
	"store", "STOREDIST", "streams", "KEYS", "by", "get", "limit", "auth", "auth2", "count",
}

// TestKeysEqualGetKeysAtRandom asks for every command with random arguments:
// whatever AppendKeys calls complete must be what the server says.
func TestKeysEqualGetKeysAtRandom(t *testing.T) {
	const perCommand = 60
	eachServer(t, func(t *testing.T, rdb *redis.Client) {
		known := live(t, rdb)
		table := command.Builtin().Overlay(known)
		rnd := rand.New(rand.NewPCG(1, 2))
		var ask [][]string
		for i := range known.Len() {
			c := known.At(i)
			name := strings.Split(c.Name, "|")
			if c.HasSubcommands() || table.Find(c.Name).HasSubcommands() {
				continue
			}
			for range perCommand {
				line := slices.Clone(name)
				for n := max(len(line)+1, 3) + rnd.IntN(10); len(line) < n; {
					line = append(line, vocabulary[rnd.IntN(len(vocabulary))])
				}
				ask = append(ask, line)
			}
		}
		wants, errs := getKeys(t, rdb, ask)
		equal, refused := 0, 0
		for i, line := range ask {
			got, complete := keysOf(t, table, line)
			switch {
			case errs[i] == badArity, before70(known) && errs[i] != "":
			case errs[i] == badArguments:
				refused++
				if complete && line[0] != "pfmerge" { // PFMERGE dst is correct, and refused by GETKEYS
					t.Errorf("%q: complete with %q, refused by the server", line, got)
				}
			case errs[i] == noKeyArguments:
				if len(got) > 0 {
					t.Errorf("%q: keys %q, none says the server", line, got)
				}
			case errs[i] != "":
				t.Errorf("%q: server says %q", line, errs[i])
			case complete:
				equal++
				if diff := cmp.Diff(wants[i], got, anyOrder); diff != "" && !takesLastStore(line) {
					t.Errorf("%q: keys (-want +got):\n%s", line, diff)
				}
			case !mayBeIncomplete(line, wants[i]):
				t.Errorf("%q: incomplete, server says %q", line, wants[i])
			}
		}
		if equal < 1000 || refused < 50 && !before70(known) {
			t.Errorf("%d lines equal, %d refused: the lines test too little", equal, refused)
		}
		t.Logf("Redis version %s: %d lines, %d with keys, %d refused", version(t, rdb), len(ask), equal, refused)
	})
}

// before70 tells a server older than 7.0 by its lack of functions.
func before70(t *command.Table) bool { return t.Find("function") == nil }

// takesLastStore says that the command writes to the destination of its last
// STORE clause while COMMAND GETKEYS of some servers names another one:
// TestLastStoreIsWritten proves it.
func takesLastStore(line []string) bool {
	stores := 0
	for _, w := range line {
		if w == "store" || w == "STOREDIST" {
			stores++
		}
	}
	switch line[0] {
	case "sort": // the server's getter may also take a destination for an option
		return stores > 0
	case "georadius": // at 5 it stands for the unit, which the command refuses
		return stores > 1 || line[5] == "store" || line[5] == "STOREDIST"
	case "georadiusbymember":
		return stores > 1
	}
	return false
}

// mayBeIncomplete says that AppendKeys may call a line incomplete although the
// server names keys: SORT with a pattern, MIGRATE with a key and KEYS, scripts
// with a bad number of keys, of which the server says no keys, and XREAD and
// XREADGROUP with anything that these commands refuse.
func mayBeIncomplete(line, keys []string) bool {
	switch line[0] {
	case "sort", "sort_ro":
		return slices.Contains(line, "*") || slices.Contains(line, "w_*")
	case "migrate":
		return slices.Contains(line, "KEYS")
	case "eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro":
		return len(keys) == 0
	case "xread", "xreadgroup":
		return !readsStreams.MatchString(strings.Join(line, " "))
	}
	return false
}

// readsStreams matches XREAD and XREADGROUP as these commands take them.
var readsStreams = regexp.MustCompile(`^(xread( (block|count) [^ ]*)*|` +
	`xreadgroup( (block|count) [^ ]*| noack)* group [^ ]* [^ ]*( (block|count) [^ ]*| noack)*) streams( [^ ]* [^ ]*)+$`)

// TestLastStoreIsWritten shows by execution which destination is the key.
func TestLastStoreIsWritten(t *testing.T) {
	eachServer(t, func(t *testing.T, rdb *redis.Client) {
		ctx := context.Background()
		table := command.Builtin().Overlay(live(t, rdb))
		for _, line := range []string{
			"sort l store a store b",
			"sort l store get store b",
			"sort l store limit desc store b",
			"georadius g 0 0 9 km store a store b",
			"georadius g 0 0 9 km store a storedist b",
			"georadius g 0 0 9 km storedist a store b",
			"georadiusbymember g m 9 km store a storedist b",
		} {
			rdb.FlushAll(ctx)
			rdb.RPush(ctx, "l", 1, 2)
			rdb.GeoAdd(ctx, "g", &redis.GeoLocation{Name: "m"})
			before := rdb.Keys(ctx, "*").Val()
			w := words(line)
			var do []any
			for _, s := range w {
				do = append(do, s)
			}
			if err := rdb.Do(ctx, do...).Err(); err != nil {
				t.Fatalf("%s: %v", line, err)
			}
			var written []string
			for _, k := range rdb.Keys(ctx, "*").Val() {
				if !slices.Contains(before, k) {
					written = append(written, k)
				}
			}
			keys, complete := keysOf(t, table, w)
			if want := append([]string{w[1]}, written...); !complete || !slices.Equal(keys, want) {
				t.Errorf("%s: keys %q, complete %v; read and written were %q", line, keys, complete, want)
			}
		}
	})
}

func ExampleCommand_AppendKeys() {
	a := args("XREAD", "COUNT", "2", "STREAMS", "s1", "s2", "0", "0")
	c := command.Builtin().Resolve(a)
	keys, complete := c.AppendKeys(nil, a)
	fmt.Println(c.Name, c.Flags, keys, complete)
	// Output: xread readonly|blocking|movablekeys [4 5] true
}
