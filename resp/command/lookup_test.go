package command_test

import (
	"bytes"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
)

// lookupSlow is Lookup as one would write it without haste.
func lookupSlow(t *command.Table, name []byte) *command.Command {
	lower := bytes.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r | 0x20
		}
		return r
	}, name)
	if bytes.IndexByte(lower, '|') >= 0 {
		return nil
	}
	for i := range t.Len() {
		if t.At(i).Name == string(lower) {
			return t.At(i)
		}
	}
	return nil
}

// TestLookupFindsEveryName in several cases, and takes no byte for another:
// every byte of every name is replaced by what a careless folding would equate.
func TestLookupFindsEveryName(t *testing.T) {
	b := command.Builtin()
	for i := range b.Len() {
		c := b.At(i)
		if strings.Contains(c.Name, "|") {
			if b.Lookup([]byte(c.Name)) != nil {
				t.Errorf("Lookup finds the subcommand %s", c.Name)
			}
			continue
		}
		for _, name := range []string{c.Name, strings.ToUpper(c.Name), strings.ToUpper(c.Name[:1]) + c.Name[1:]} {
			if got := b.Lookup([]byte(name)); got != c {
				t.Errorf("Lookup(%q) = %v", name, got)
			}
		}
		for at := range len(c.Name) {
			for _, mask := range []byte{0x20, 0x40, 0x80, 0x01} {
				name := []byte(c.Name)
				name[at] ^= mask
				if got, want := b.Lookup(name), lookupSlow(b, name); got != want {
					t.Errorf("Lookup(%q) = %v, want %v", name, got, want)
				}
			}
		}
		for _, name := range []string{c.Name + "\x00", c.Name + c.Name, c.Name[1:], c.Name[:len(c.Name)-1]} {
			if got, want := b.Lookup([]byte(name)), lookupSlow(b, []byte(name)); got != want {
				t.Errorf("Lookup(%q) = %v, want %v", name, got, want)
			}
		}
	}
	if b.Lookup(nil) != nil || b.Lookup(bytes.Repeat([]byte("g"), 1<<20)) != nil {
		t.Error("Lookup finds an empty or a huge name")
	}
}

// TestLookupOfAnyTable builds tables of arbitrary names, such as modules bring.
func TestLookupOfAnyTable(t *testing.T) {
	name := rapid.StringMatching(`[a-cA-C_.0-9-]{1,24}`)
	rapid.Check(t, func(t *rapid.T) {
		var reply []any
		for _, n := range rapid.SliceOfN(name, 0, 60).Draw(t, "names") {
			reply = append(reply, []any{n, int64(1), []any{}, int64(0), int64(0), int64(0)})
		}
		table, err := command.Parse(append([]any{nil}, reply...))
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			n := []byte(name.Draw(t, "name"))
			if len(reply) > 0 && rapid.Bool().Draw(t, "known") {
				n = []byte(strings.ToUpper(reply[0].([]any)[0].(string)))
			}
			if got, want := table.Lookup(n), lookupSlow(table, n); got != want {
				t.Fatalf("Lookup(%q) = %v, want %v", n, got, want)
			}
		}
	})
}

// TestNoAllocations gates the path of a command.
func TestNoAllocations(t *testing.T) {
	b := command.Builtin()
	keys := make([]int, 0, 16)
	for _, line := range []string{
		"GET k", "georadiusbymember_ro k m 3 km", "nosuchcommand k", "config get x", "mset a 1 b 2",
		"eval s 2 a b", "xread count 1 streams a b 0 0", "sort k by w_* store d", "migrate h 1  0 1 keys a b",
	} {
		a := args(strings.Split(line, " ")...)
		if n := testing.AllocsPerRun(100, func() {
			if c := b.Resolve(a); c != nil {
				keys, _ = c.AppendKeys(keys[:0], a)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", line, n)
		}
	}
}

func BenchmarkLookup(b *testing.B) {
	t := command.Builtin()
	for _, name := range []string{"get", "SET", "hgetall", "ZRANGEBYSCORE", "georadiusbymember_ro", "nosuch"} {
		n := []byte(name)
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = t.Lookup(n)
			}
		})
	}
	b.Run("mixed", func(b *testing.B) { // no branch of one name to learn
		var names [][]byte
		for i := range t.Len() {
			if !strings.Contains(t.At(i).Name, "|") {
				names = append(names, []byte(t.At(i).Name))
			}
		}
		i := 0
		for b.Loop() {
			_ = t.Lookup(names[i])
			if i++; i == len(names) {
				i = 0
			}
		}
	})
}

func BenchmarkResolveAndKeys(b *testing.B) {
	t := command.Builtin()
	keys := make([]int, 0, 16)
	for _, line := range []string{"get k", "mset a 1 b 2 c 3", "object encoding k", "zunionstore d 2 a b", "xread count 1 streams a b 0 0"} {
		a := args(strings.Fields(line)...)
		b.Run(strings.Fields(line)[0], func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				c := t.Resolve(a)
				keys, _ = c.AppendKeys(keys[:0], a)
			}
		})
	}
}

// FuzzAppendKeys runs every command over arbitrary arguments: words are split
// at zero bytes. Indexes must lie inside the arguments and behind the name.
func FuzzAppendKeys(f *testing.F) {
	for _, line := range []string{
		"eval s 99999999999 a", "zunion -1 a", "lmpop 2 a left", "xread streams", "migrate h 1  0 1 keys",
		"sort k store", "georadius k 1 2 3 m store", "object encoding", "msetex 3 a 1 b 2", "config",
	} {
		f.Add([]byte(strings.ReplaceAll(line, " ", "\x00")))
	}
	b := command.Builtin()
	f.Fuzz(func(t *testing.T, line []byte) {
		var a resp.Args
		a.Buf = line
		off := 0
		for _, w := range bytes.Split(line, []byte{0}) {
			a.Spans = append(a.Spans, resp.Span{Off: uint32(off), Len: uint32(len(w))})
			off += len(w) + 1
		}
		check := func(c *command.Command, a resp.Args) {
			keys, _ := c.AppendKeys(nil, a)
			if len(keys) > 4*a.Len() {
				t.Fatalf("%s: %d keys of %d arguments", c.Name, len(keys), a.Len())
			}
			for _, i := range keys {
				if i < 1 || i >= a.Len() {
					t.Fatalf("%s: key at %d of %d arguments", c.Name, i, a.Len())
				}
			}
		}
		if got, want := b.Lookup(a.At(0)), lookupSlow(b, a.At(0)); got != want {
			t.Fatalf("Lookup(%q) = %v, want %v", a.At(0), got, want)
		}
		if c := b.Resolve(a); c != nil {
			check(c, a)
		}
		// Also as if the name, or nothing at all, had been sent with each command.
		for i := range b.Len() {
			check(b.At(i), a)
		}
		check(b.At(len(line)%b.Len()), resp.Args{})
	})
}
