package psync

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
)

// command makes a request of words separated by spaces.
func command(words string) string {
	return string(resp.AppendCommand(nil, strings.Fields(words)...))
}

// seen is what a test compares of a command: its words too, which a
// StreamCommand has not.
type seen struct {
	Kind   StreamKind
	Len    int
	DB     int
	Commit bool
}

// scanPieces scans the pieces and returns what was found in them.
func scanPieces(t testing.TB, s *StreamScanner, pieces ...[]byte) []seen {
	t.Helper()
	var out []seen
	for _, p := range pieces {
		for len(p) > 0 {
			before := s.Offset()
			c, n, ok, err := s.Next(p)
			if err != nil {
				t.Fatal(err)
			}
			if s.Offset() != before+repl.Offset(n) {
				t.Fatalf("offset went from %d to %d by %d bytes", before, s.Offset(), n)
			}
			if !ok && n != len(p) {
				t.Fatalf("an incomplete command took %d of %d bytes", n, len(p))
			}
			if ok {
				if c.Last != s.Offset() {
					t.Fatalf("command ends at %d, scanner is at %d", c.Last, s.Offset())
				}
				if last, db := s.Commit(); c.Commit && (last != c.Last || db != c.DB) {
					t.Fatalf("commit point is %d in db %d behind %+v", last, db, c)
				}
				out = append(out, seen{c.Kind, int(c.Last-c.First) + 1, c.DB, c.Commit})
			}
			p = p[n:]
		}
	}
	return out
}

func TestStreamScanner(t *testing.T) {
	tests := []struct {
		name   string
		stream []string
		want   []seen
	}{
		{"plain", []string{command("SELECT 3"), command("SET a b"), command("PING")}, []seen{
			{KindSelect, 23, 3, true}, {KindCommand, 27, 3, true}, {KindPing, 14, 3, true}}},
		{"getack", []string{command("REPLCONF GETACK *"), command("replconf getack *"), command("REPLCONF ACK 5")}, []seen{
			{KindGetAck, 37, UnknownDB, true}, {KindGetAck, 37, UnknownDB, true}, {KindCommand, 34, UnknownDB, true}}},
		{"transaction", []string{command("MULTI"), command("SELECT 1"), command("SET a b"), command("EXEC"), command("DEL a")}, []seen{
			{KindMulti, 15, UnknownDB, false}, {KindSelect, 23, 1, false}, {KindCommand, 27, 1, false},
			{KindExec, 14, 1, true}, {KindCommand, 20, 1, true}}},
		{"lower case", []string{command("multi"), command("ping"), command("exec")}, []seen{
			{KindMulti, 15, UnknownDB, false}, {KindPing, 14, UnknownDB, false}, {KindExec, 14, UnknownDB, true}}},
		{"nested MULTI", []string{command("MULTI"), command("MULTI"), command("EXEC"), command("EXEC")}, []seen{
			{KindMulti, 15, UnknownDB, false}, {KindMulti, 15, UnknownDB, false},
			{KindExec, 14, UnknownDB, true}, {KindExec, 14, UnknownDB, true}}},
		{"DISCARD takes back SELECT", []string{command("SELECT 2"), command("MULTI"), command("SELECT 7"), command("DISCARD")}, []seen{
			{KindSelect, 23, 2, true}, {KindMulti, 15, 2, false}, {KindSelect, 23, 7, false}, {KindDiscard, 17, 2, true}}},
		{"wrong arguments do nothing", []string{command("MULTI x"), command("SELECT"), command("SELECT x"), command("SELECT -1"), command("SELECT 99999999999")}, []seen{
			{KindCommand, 22, UnknownDB, true}, {KindCommand, 16, UnknownDB, true}, {KindCommand, 23, UnknownDB, true},
			{KindCommand, 24, UnknownDB, true}, {KindCommand, 34, UnknownDB, true}}},
		{"a name in a value", []string{command("SET MULTI EXEC"), command("ECHO MULTI")}, []seen{
			{KindCommand, 34, UnknownDB, true}, {KindCommand, 25, UnknownDB, true}}},
		{"filler is committed by the next", []string{"\n", "\r\n", "*0\r\n", "*-1\r\n", command("PING")}, []seen{
			{KindFiller, 1, UnknownDB, false}, {KindFiller, 2, UnknownDB, false}, {KindFiller, 4, UnknownDB, false},
			{KindFiller, 5, UnknownDB, false}, {KindPing, 14, UnknownDB, true}}},
		{"long", []string{command("SET k " + strings.Repeat("x", 5000)), command("MSET" + strings.Repeat(" k v", 600))}, []seen{
			{KindCommand, 5029, UnknownDB, true}, {KindCommand, 8417, UnknownDB, true}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			stream := []byte(strings.Join(tt.stream, ""))
			whole := scanPieces(t, NewStreamScanner(100, UnknownDB), stream)
			if diff := cmp.Diff(tt.want, whole); diff != "" {
				t.Error(diff)
			}
			for i := 1; i < len(stream); i += 1 + len(stream)/400 {
				split := scanPieces(t, NewStreamScanner(100, UnknownDB), stream[:i], stream[i:])
				if diff := cmp.Diff(tt.want, split); diff != "" {
					t.Fatalf("split at %d: %s", i, diff)
				}
			}
			var bytewise [][]byte
			for i := range stream {
				bytewise = append(bytewise, stream[i:i+1])
			}
			s := NewStreamScanner(100, UnknownDB)
			if diff := cmp.Diff(tt.want, scanPieces(t, s, bytewise...)); diff != "" {
				t.Errorf("byte by byte: %s", diff)
			}
			if want := repl.Offset(100 + len(stream)); s.Offset() != want {
				t.Errorf("offset %d, want %d", s.Offset(), want)
			}
		})
	}
}

func TestStreamScannerCommitPoint(t *testing.T) {
	s := NewStreamScanner(1000, 5)
	check := func(what string, commit repl.Offset, db int, inTransaction bool) {
		t.Helper()
		if c, d := s.Commit(); c != commit || d != db || s.InTransaction() != inTransaction {
			t.Errorf("%s: commit %d db %d transaction %v, want %d, %d, %v", what, c, d, s.InTransaction(), commit, db, inTransaction)
		}
	}
	skim := func(b string) {
		t.Helper()
		if err := s.Skim([]byte(b)); err != nil {
			t.Fatal(err)
		}
	}
	check("at the start", 1000, 5, false)
	skim(command("SET a b")[:10])
	check("in a command", 1000, 5, false)
	skim(command("SET a b")[10:])
	check("behind it", 1027, 5, false)
	skim("\n")
	check("behind an empty line", 1027, 5, false)
	skim(command("MULTI") + command("SELECT 9") + command("SET a b"))
	check("in a transaction", 1027, 5, true)
	if s.DB() != 9 {
		t.Errorf("db is %d", s.DB())
	}
	skim(command("EXEC"))
	check("behind it", 1027+1+15+23+27+14, 9, false)
	if s.Offset() != 1107 {
		t.Errorf("offset is %d", s.Offset())
	}
}

func TestStreamScannerSetDB(t *testing.T) {
	s := NewStreamScanner(0, UnknownDB)
	if err := s.Skim([]byte(command("SET a b"))); err != nil {
		t.Fatal(err)
	}
	s.SetDB(4)
	if _, db := s.Commit(); db != 4 || s.DB() != 4 {
		t.Errorf("db is %d and %d", db, s.DB())
	}
	s.SetDB(5)
	if s.DB() != 4 {
		t.Error("a known database was changed")
	}
}

func TestStreamScannerHead(t *testing.T) {
	long := command("SET key " + strings.Repeat("v", 100))
	short := command("SET key v")
	s := NewStreamScanner(0, 0)
	c, _, ok, _ := s.Next([]byte(long))
	if !ok || !c.Whole() || string(c.Head) != long {
		t.Errorf("in one piece: %+v", c)
	}
	next := func(first, second string) StreamCommand {
		t.Helper()
		if _, _, ok, err := s.Next([]byte(first)); ok || err != nil {
			t.Fatal(ok, err)
		}
		c, _, ok, err := s.Next([]byte(second))
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		return c
	}
	for i := 1; i < len(long); i++ {
		if c := next(long[:i], long[i:]); c.Whole() || string(c.Head) != long[:HeadBytes] {
			t.Errorf("split at %d: %q", i, c.Head)
		}
	}
	for i := 1; i < len(short); i++ {
		if c := next(short[:i], short[i:]); !c.Whole() || string(c.Head) != short {
			t.Errorf("split at %d: %q", i, c.Head)
		}
	}
}

func TestStreamScannerBroken(t *testing.T) {
	for _, bad := range []string{"PING\r\n", " \n", "\rx", "$4\r\nPING\r\n", "+CONTINUE\r\n", "*x\r\n", "*1\r\n:5\r\n", "*1\r\n$-1\r\n", "*01\r\n$4\r\nPING\r\n"} {
		for split := range len(bad) {
			s := NewStreamScanner(50, 0)
			err := s.Skim([]byte(command("PING")))
			if err == nil {
				if err = s.Skim([]byte(bad[:split])); err == nil {
					err = s.Skim([]byte(bad[split:]))
				}
			}
			var broken *StreamError
			if !errors.As(err, &broken) || broken.Offset != 65 {
				t.Errorf("%q split at %d: %v, want an error at 65", bad, split, err)
			}
			if again := s.Skim([]byte("x")); !errors.Is(again, err) {
				t.Errorf("%q: the error did not stay: %v", bad, again)
			}
			if last, _ := s.Commit(); last != 64 {
				t.Errorf("%q: commit point is %d", bad, last)
			}
		}
	}
}

// An argument longer than any limit of a client's, in constant memory.
func TestStreamScannerHuge(t *testing.T) {
	const size = 1 << 30
	s := NewStreamScanner(0, 0)
	head := fmt.Sprintf("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n", size)
	if err := s.Skim([]byte(head)); err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 1<<20)
	allocs := testing.AllocsPerRun(size/len(chunk)-1, func() {
		if err := s.Skim(chunk); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations for each piece", allocs)
	}
	if last, _ := s.Commit(); last != 0 {
		t.Errorf("committed %d in the middle", last)
	}
	if err := s.Skim([]byte("\r\n")); err != nil {
		t.Fatal(err)
	}
	if last, _ := s.Commit(); last != repl.Offset(len(head)+size+2) {
		t.Errorf("commit point is %d", last)
	}
}

// naive finds the same commands with all of the stream at hand.
func naive(t testing.TB, stream []byte, db int) (out []seen, commit int, commitDB int, rest int) {
	multi, commitDB := false, db
	pos := 0
	for pos < len(stream) {
		n, _, spans, err := resp.ScanRequest(stream[pos:], &streamLimits, nil)
		if err != nil || n == 0 {
			break
		}
		if line := string(stream[pos : pos+n]); line[0] != '*' && line != "\n" && line != "\r\n" {
			break
		}
		c := seen{Len: n, Kind: KindCommand}
		args := resp.Args{Buf: stream[pos : pos+n], Spans: spans}
		if args.Len() == 0 {
			c.Kind = KindFiller
		} else {
			switch words := strings.ToUpper(string(bytes.Join(argList(args), []byte(" ")))); {
			case words == "MULTI":
				c.Kind, multi = KindMulti, true
			case words == "EXEC":
				c.Kind, multi = KindExec, false
			case words == "PING":
				c.Kind = KindPing
			case args.Len() == 3 && strings.HasPrefix(words, "REPLCONF GETACK "):
				c.Kind = KindGetAck
			case args.Len() == 2 && strings.HasPrefix(words, "SELECT "):
				if n, ok := resp.ParseLongLong(args.At(1)); ok && n >= 0 && n < 1<<31 {
					c.Kind, db = KindSelect, int(n)
				}
			case words == "DISCARD":
				c.Kind = KindDiscard
				if multi {
					multi, db = false, commitDB
				}
			}
		}
		pos += n
		c.DB = db
		if c.Commit = !multi && c.Kind != KindFiller; c.Commit {
			commit, commitDB = pos, db
		}
		out = append(out, c)
	}
	return out, commit, commitDB, len(stream) - pos
}

func argList(a resp.Args) [][]byte {
	var out [][]byte
	for i := range a.Len() {
		out = append(out, a.At(i))
	}
	return out
}

// Random streams cut into random pieces give what the whole gives at once.
func TestStreamScannerPieces(t *testing.T) {
	words := []string{"MULTI", "EXEC", "DISCARD", "PING", "SELECT 0", "SELECT 15", "SET k v", "REPLCONF GETACK *", "exec", "MSET" + strings.Repeat(" key value", 12)}
	rapid.Check(t, func(t *rapid.T) {
		var stream []byte
		for _, w := range rapid.SliceOfN(rapid.SampledFrom(words), 1, 20).Draw(t, "commands") {
			stream = append(stream, command(w)...)
			if rapid.IntRange(0, 9).Draw(t, "filler") == 0 {
				stream = append(stream, rapid.SampledFrom([]string{"\n", "\r\n", "*0\r\n"}).Draw(t, "which")...)
			}
		}
		stream = stream[:rapid.IntRange(0, len(stream)).Draw(t, "length")]
		s := NewStreamScanner(0, UnknownDB)
		var got []seen
		for rest := stream; len(rest) > 0; {
			n := rapid.IntRange(1, min(len(rest), 40)).Draw(t, "piece")
			for piece := rest[:n]; len(piece) > 0; {
				c, n, ok, err := s.Next(piece)
				if err != nil {
					t.Fatal(err)
				}
				if ok {
					got = append(got, seen{c.Kind, int(c.Last-c.First) + 1, c.DB, c.Commit})
				}
				piece = piece[n:]
			}
			rest = rest[n:]
		}
		want, commit, commitDB, _ := naive(nil, stream, UnknownDB)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if last, db := s.Commit(); int(last) != commit || db != commitDB {
			t.Fatalf("commit %d db %d, want %d, %d", last, db, commit, commitDB)
		}
	})
}

func BenchmarkStreamScanner(b *testing.B) {
	for _, bm := range []struct{ name, value string }{{"SET-200B", strings.Repeat("v", 200)}, {"SET-3B", "xxx"}} {
		b.Run(bm.name, func(b *testing.B) {
			one := command("SET key:000000012345 " + bm.value)
			stream := bytes.Repeat([]byte(one), (64<<10)/len(one))
			s := NewStreamScanner(0, 0)
			b.SetBytes(int64(len(stream)))
			b.ReportAllocs()
			for b.Loop() {
				if err := s.Skim(stream); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
