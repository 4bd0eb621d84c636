package command_test

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sluice-io/sluice/resp/command"
	"github.com/sluice-io/sluice/resp/localredis"
)

// facts compares commands by what COMMAND says of them.
var facts = cmp.Options{
	cmpopts.IgnoreUnexported(command.Command{}),
	cmpopts.IgnoreFields(command.Command{}, "Index"),
}

// TestBuiltinEqualsServer: the committed table says of every command what the
// server that it was generated from says, in RESP2 and RESP3.
func TestBuiltinEqualsServer(t *testing.T) {
	for _, protocol := range []int{2, 3} {
		rdb := start(t, protocol, localredis.Options{})
		if v := "Redis " + version(t, rdb); v != command.Sources()[0] {
			t.Skipf("installed is %s, the table was generated from %s", v, command.Sources()[0])
		}
		known := live(t, rdb)
		if known.Len() < 300 {
			t.Fatalf("RESP%d: the server knows %d commands only", protocol, known.Len())
		}
		for i := range known.Len() {
			want := known.At(i)
			got := command.Builtin().Find(want.Name)
			if got == nil {
				t.Errorf("RESP%d: %s is missing", protocol, want.Name)
				continue
			}
			if diff := cmp.Diff(want, got, facts, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("RESP%d: %s (-server +builtin):\n%s", protocol, want.Name, diff)
			}
		}
	}
}

// TestBuiltinFacts pins what routing rests on, some of it from newer servers.
func TestBuiltinFacts(t *testing.T) {
	for name, want := range map[string]command.Flags{
		"get":           command.ReadOnly | command.Fast,
		"set":           command.Write | command.DenyOOM,
		"sort":          command.Write | command.DenyOOM | command.MovableKeys,
		"sort_ro":       command.ReadOnly | command.MovableKeys,
		"getex":         command.Write | command.Fast,
		"xreadgroup":    command.Write | command.Blocking | command.MovableKeys,
		"object|freq":   command.ReadOnly,
		"memory|usage":  command.ReadOnly,
		"xgroup|create": command.Write | command.DenyOOM,
		"config|set":    command.Admin | command.NoScript | command.Loading | command.Stale,
		"hexpire":       command.Write | command.Fast,      // Valkey 9; Redis 7.4 has denyoom too
		"vsim":          command.ReadOnly | command.Module, // Redis 8
		"waitaof":       command.Blocking,                  // Redis 7.2
	} {
		c := command.Builtin().Find(name)
		if c == nil {
			t.Errorf("%s is missing", name)
		} else if c.Flags != want {
			t.Errorf("%s: flags %v, want %v", name, c.Flags, want)
		}
	}
	for i := range command.Builtin().Len() {
		if c := command.Builtin().At(i); c.Flags.Has(command.Write | command.ReadOnly) {
			t.Errorf("%s is both write and readonly", c.Name)
		}
	}
}

func TestIndexIsDense(t *testing.T) {
	b := command.Builtin()
	seen := map[string]bool{}
	for i := range b.Len() {
		c := b.At(i)
		if c.Index != i || seen[c.Name] || b.Find(c.Name) != c {
			t.Fatalf("At(%d) is %s with index %d, seen before: %v", i, c.Name, c.Index, seen[c.Name])
		}
		seen[c.Name] = true
	}
}

func TestArityOK(t *testing.T) {
	for _, c := range []struct {
		name string
		n    int
		want bool
	}{
		{"get", 1, false}, {"get", 2, true}, {"get", 3, false},
		{"mget", 1, false}, {"mget", 2, true}, {"mget", 2000, true},
		{"ping", 0, false}, {"ping", 1, true},
		{"config|get", 2, false}, {"config|get", 3, true}, {"config|get", 4, true},
	} {
		if got := command.Builtin().Find(c.name).ArityOK(c.n); got != c.want {
			t.Errorf("%s with %d arguments: %v, want %v", c.name, c.n, got, c.want)
		}
	}
}

func TestResolve(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"get k", "get"},
		{"CONFIG GeT x", "config|get"},
		{"config", "config"},
		{"config nosuch", "config"},
		{"command", "command"},
		{"Client NO-EVICT on", "client|no-evict"},
		{"cluster count-failure-reports x", "cluster|count-failure-reports"},
		{"cluster count-failure-repORTs x", "cluster|count-failure-reports"},
		{"cluster count-failurE_reports x", "cluster"},
		{"get get", "get"},
		{"config|get x", ""},
		{"nosuch", ""},
		{`""`, ""},
		{"", ""},
	} {
		got := ""
		if r := command.Builtin().Resolve(args(words(c.line)...)); r != nil {
			got = r.Name
		}
		if got != c.want {
			t.Errorf("Resolve(%s) = %q, want %q", c.line, got, c.want)
		}
	}
	config := command.Builtin().Find("Config")
	if !config.HasSubcommands() || command.Builtin().Find("get").HasSubcommands() {
		t.Error("HasSubcommands: want CONFIG to have some, GET none")
	}
}

// TestOverlayRenamedAndDisabled: a real server where commands are renamed and
// disabled. COMMAND lists a renamed command under its original name.
func TestOverlayRenamedAndDisabled(t *testing.T) {
	rdb := start(t, 3, localredis.Options{Args: []string{
		"--rename-command", "CONFIG", "hidden-config", "--rename-command", "FLUSHALL", "", "--rename-command", "OBJECT", "",
	}})
	if err := rdb.Do(context.Background(), "flushall").Err(); err == nil {
		t.Fatal("FLUSHALL is not disabled: the test tests nothing")
	}
	known := live(t, rdb)
	if known.Find("flushall") != nil || known.Find("object|freq") != nil {
		t.Fatal("the server lists what it has disabled")
	}
	table := command.Builtin().Overlay(known)
	for _, name := range []string{"flushall", "config", "config|set", "object", "object|freq"} {
		got, want := table.Find(name), command.Builtin().Find(name)
		if diff := cmp.Diff(want, got, facts, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s (-builtin +overlaid):\n%s", name, diff)
		}
	}
	if c := table.Resolve(args("object", "freq", "k")); c == nil || c.Name != "object|freq" {
		t.Errorf("OBJECT FREQ resolves to %v", c)
	}
	if table.Lookup([]byte("hidden-config")) != nil {
		t.Error("the new name is known, yet no COMMAND tells it")
	}
	if table.Len() != command.Builtin().Len() {
		t.Errorf("%d commands, want %d", table.Len(), command.Builtin().Len())
	}
}

// entry is one COMMAND entry of 7.0 and later, RESP2.
func entry(name string, arity int64, flags []any, first, last, step int64, specs, subs []any) []any {
	return []any{name, arity, flags, first, last, step, []any{"@all"}, []any{}, specs, subs}
}

func rangeSpec(pos int64, flags ...any) []any {
	return []any{
		"flags", flags,
		"begin_search", []any{"type", "index", "spec", []any{"index", pos}},
		"find_keys", []any{"type", "range", "spec", []any{"lastkey", int64(0), "keystep", int64(1), "limit", int64(0)}},
	}
}

// TestOverlayModule: commands of modules, one whose keys only the module's
// callback knows, and one that replaces a subcommand.
func TestOverlayModule(t *testing.T) {
	over, err := command.Parse([]any{
		entry("Graph.QUERY", -3, []any{"write", "denyoom", "module"}, 1, 1, 1, []any{rangeSpec(1, "RW", "variable_flags")}, []any{}),
		entry("ts.mrange", -4, []any{"readonly", "module", "movablekeys"}, 1, 1, 1, []any{rangeSpec(1, "RW", "variable_flags")}, []any{}),
		entry("ts.keyless", -1, []any{"module"}, 0, 0, 0, []any{}, []any{}),
		entry("object", -2, []any{}, 0, 0, 0, []any{}, []any{
			entry("object|freq", 4, []any{"readonly", "no-such-flag"}, 3, 3, 1, []any{rangeSpec(3, "RO", "access")}, []any{}),
		}),
	})
	if err != nil {
		t.Fatal(err)
	}
	table := command.Builtin().Overlay(over)
	for _, c := range []struct {
		line     string
		keys     []string
		complete bool
	}{
		{"GRAPH.query g q", []string{"g"}, true},
		{"ts.mrange a b c", []string{"a"}, false},
		{"ts.keyless a b", nil, true},
		{"object freq x k", []string{"k"}, true},
		{"object encoding k", []string{"k"}, true},
		{"get k", []string{"k"}, true},
	} {
		keys, complete := keysOf(t, table, words(c.line))
		if !slices.Equal(keys, c.keys) || complete != c.complete {
			t.Errorf("%s: keys %q, complete %v; want %q, %v", c.line, keys, complete, c.keys, c.complete)
		}
	}
	if got := table.Find("object|freq"); got.Flags != command.ReadOnly || got.Arity != 4 {
		t.Errorf("object|freq is that of the built-in table: %+v", got)
	}
	if command.Builtin().Find("object|freq").Arity != 3 || command.Builtin().Lookup([]byte("graph.query")) != nil {
		t.Error("Overlay changed the table that it was called on")
	}
}

// commandOf60 is the COMMAND reply of Redis 6.0.16, six and seven elements each.
func commandOf60(t *testing.T) []any {
	t.Helper()
	b, err := os.ReadFile("testdata/command-6.0.16.json")
	if err != nil {
		t.Fatal(err)
	}
	var reply []any
	if err := json.Unmarshal(b, &reply); err != nil {
		t.Fatal(err)
	}
	for _, e := range reply {
		e := e.([]any)
		for i, v := range e {
			if f, ok := v.(float64); ok {
				e[i] = int64(f)
			}
		}
	}
	return reply
}

// TestOverlayBefore70: a server whose COMMAND tells neither key specs nor
// subcommands.
func TestOverlayBefore70(t *testing.T) {
	for _, elements := range []int{6, 7} {
		reply := commandOf60(t)
		for i := range reply {
			reply[i] = reply[i].([]any)[:elements]
		}
		old, err := command.Parse(reply)
		if err != nil {
			t.Fatal(err)
		}
		if old.Len() != 205 || old.Find("config|get") != nil {
			t.Fatalf("%d commands, want the 205 of Redis 6.0 without subcommands", old.Len())
		}
		if keys, complete := keysOf(t, old, words("zunionstore d 2 a b")); complete {
			t.Errorf("without key specs: ZUNIONSTORE is complete with %q", keys)
		}
		table := command.Builtin().Overlay(old)
		for _, c := range []struct {
			line     string
			keys     []string
			complete bool
		}{
			{"get k", []string{"k"}, true},
			{"mset a 1 b 2", []string{"a", "b"}, true},
			{"blpop a b 0", []string{"a", "b"}, true},
			{"zunionstore d 2 a b weights 1 2", []string{"d", "a", "b"}, true},
			{"eval s 2 a b c", []string{"a", "b"}, true},
			{"eval s 0 a", nil, true},
			{"xread count 1 streams a b 0 0", []string{"a", "b"}, true},
			{"sort k store d", []string{"k", "d"}, true},
			{"georadius k 1 2 3 m store d", []string{"k", "d"}, true},
			{"migrate h 1 \"\" 0 1 keys a b", []string{"a", "b"}, true},
			{"stralgo lcs keys a b", []string{"a", "b"}, true},
			{"memory usage k", []string{"k"}, true},
			{"object encoding k", []string{"k"}, true},
			{"xgroup create k g $", []string{"k"}, true},
			{"lmpop 1 k left", []string{"k"}, true}, // of the table below: 6.0 has none
		} {
			keys, complete := keysOf(t, table, words(c.line))
			if !slices.Equal(keys, c.keys) || complete != c.complete {
				t.Errorf("%d elements: %s: keys %q, complete %v; want %q, %v", elements, c.line, keys, complete, c.keys, c.complete)
			}
		}
		if got, want := table.Find("blpop").Flags, command.Write|command.NoScript; got != want {
			t.Errorf("BLPOP has flags %v, want those of 6.0: %v", got, want)
		}
	}
}

func TestParseErrorsNameTheCommand(t *testing.T) {
	good := func() []any {
		return entry("get", 2, []any{"readonly"}, 1, 1, 1, []any{rangeSpec(1, "RO")}, []any{})
	}
	if _, err := command.Parse([]any{good(), nil}); err != nil {
		t.Fatal(err)
	}
	with := func(i int, v any) []any {
		e := good()
		e[i] = v
		return e
	}
	search := func(name string, v any) []any {
		s := rangeSpec(1, "RO")
		s[slices.Index(s, any(name))+1] = v
		return with(8, []any{s})
	}
	for want, e := range map[string]any{
		"entry 0: string is no command":                                                        "get",
		"entry 0: []interface {} is no command":                                                []any{"get", int64(2)},
		"entry 0: name is int64":                                                               with(0, int64(7)),
		"get: element 1: string, want an integer":                                              with(1, "2"),
		"get: element 3: 99999999999 is out":                                                   with(3, int64(99999999999)),
		"get: element 5: <nil>, want":                                                          with(5, nil),
		"get: flags: string, want":                                                             with(2, "readonly"),
		"get: flags: int64, want a string":                                                     with(2, []any{int64(1)}),
		"get: key specs are string":                                                            with(8, "x"),
		"get: key spec 0: string, want a map":                                                  with(8, []any{"x"}),
		"get: key spec 0: 3 elements, want pairs":                                              with(8, []any{[]any{"flags", []any{}, "x"}}),
		"get: key spec 0: flags: <nil>":                                                        with(8, []any{[]any{}}),
		"get: key spec 0: begin_search: type is <nil>":                                         search("begin_search", []any{}),
		"get: key spec 0: begin_search: index: <nil>, want an integer":                         search("begin_search", []any{"type", "index", "spec", []any{}}),
		"get: key spec 0: begin_search: keyword is <nil>":                                      search("begin_search", []any{"type", "keyword", "spec", []any{}}),
		"get: key spec 0: find_keys: <nil>, want a map":                                        search("find_keys", nil),
		"get: key spec 0: find_keys: ":                                                         search("find_keys", []any{"type", "range", "spec", map[any]any{}}),
		"get: subcommands are string":                                                          with(9, "x"),
		"get: subcommand 0: int64 is no command":                                               with(9, []any{int64(1)}),
		"get: subcommand 0: config|set: subcommand of get":                                     with(9, []any{entry("config|set", 1, []any{}, 0, 0, 0, []any{}, []any{})}),
		"get: subcommand 0: get|x: key spec 0: begin_search: index: -99999999999 is out of ra": with(9, []any{entry("GET|x", 1, []any{}, 0, 0, 0, []any{rangeSpec(-99999999999)}, []any{})}),
	} {
		if _, err := command.Parse([]any{e}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if _, err := command.Parse("OK"); err == nil || !strings.Contains(err.Error(), "reply is string") {
		t.Errorf("Parse of a status: %v", err)
	}
}

// TestParseShapes: sets as keys of a map, maps as maps, and kinds of key specs
// that no server has yet.
func TestParseShapes(t *testing.T) {
	table, err := command.Parse([]any{[]any{
		"x.future", int64(-2), map[any]any{"readonly": struct{}{}, "fast": struct{}{}}, int64(0), int64(0), int64(0), nil, nil,
		[]any{map[any]any{
			"flags":        map[any]any{"RO": true},
			"begin_search": map[any]any{"type": "telepathy", "spec": map[any]any{}},
			"find_keys":    map[string]any{"type": "telepathy", "spec": map[string]any{"x": int64(1)}},
		}},
		[]any{}, "something newer",
	}})
	if err != nil {
		t.Fatal(err)
	}
	c := table.Lookup([]byte("X.FUTURE"))
	if c == nil || c.Flags != command.ReadOnly|command.Fast {
		t.Fatalf("parsed to %+v", c)
	}
	if keys, complete := keysOf(t, table, words("x.future k")); complete || keys != nil {
		t.Errorf("keys %q, complete %v of an unknown kind of key spec", keys, complete)
	}
}
