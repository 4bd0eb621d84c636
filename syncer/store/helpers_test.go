package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-io/sluice/syncer/repl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// testTimeout bounds every wait of the tests; none should come near it.
const testTimeout = 60 * time.Second

var (
	idA = repl.ReplID(strings.Repeat("a", 40))
	idB = repl.ReplID(strings.Repeat("b", 40))
	idC = repl.ReplID(strings.Repeat("c", 40))
)

// history returns the history with one id.
func history(id repl.ReplID) repl.History {
	h, err := repl.NewHistory(id)
	if err != nil {
		panic(err)
	}
	return h
}

// noise has no period in the sizes that matter here.
var noise = func() []byte {
	b := make([]byte, 1<<20+7)
	x := uint64(1)
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}()

// stream returns the bytes from+1 to to of a history.
func stream(from, to repl.Offset) []byte {
	b := make([]byte, 0, to-from)
	for from < to {
		i := int(from) % len(noise)
		n := min(len(noise)-i, int(to-from))
		b = append(b, noise[i:i+n]...)
		from += repl.Offset(n)
	}
	return b
}

// epoch is the time of the first commit in tests.
var epoch = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func at(seconds int) time.Time { return epoch.Add(time.Duration(seconds) * time.Second) }

func mustOpen(t testing.TB, fs FS, o Options) *Store {
	t.Helper()
	return mustOpenDir(t, "/s", fs, o)
}

func mustOpenDir(t testing.TB, dir string, fs FS, o Options) *Store {
	t.Helper()
	o.FS = fs
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // most tests close it and look at the error
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begin starts a generation at off.
func begin(t testing.TB, s *Store, id repl.ReplID, off repl.Offset) *Generation {
	t.Helper()
	g, err := s.NewGeneration(repl.Pos{ReplID: id, Offset: off}, history(id))
	must(t, err)
	return g
}

// feed appends the stream up to off and commits there.
func feed(t testing.TB, s *Store, off repl.Offset, db int, when time.Time) {
	t.Helper()
	must(t, s.Append(stream(s.Head().Committed(), off)))
	must(t, s.Commit(Mark{Offset: off, DB: db, Time: when}))
}

// addBase stores n bytes as the base at off.
func addBase(t testing.TB, s *Store, id repl.ReplID, off repl.Offset, n int) Base {
	t.Helper()
	b, err := s.BeginBase(BaseMeta{Pos: repl.Pos{ReplID: id, Offset: off}, DB: 3, Source: "test"})
	must(t, err)
	_, err = b.Write(baseBytes(off, n))
	must(t, err)
	base, err := b.Commit()
	must(t, err)
	return base
}

func baseBytes(off repl.Offset, n int) []byte { return stream(off*7, off*7+repl.Offset(n)) }

// readAll reads the log of g from after from to the last commit.
func readAll(g *Generation, from repl.Offset) ([]byte, error) {
	r, err := g.NewReader(from)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// checkLog compares all of g's log with the stream.
func checkLog(g *Generation) error {
	from := g.First() - 1
	got, err := readAll(g, from)
	if err != nil {
		return fmt.Errorf("read log from %d: %w", from, err)
	}
	if want := stream(from, g.Committed()); !bytes.Equal(got, want) {
		i := 0
		for i < min(len(got), len(want)) && got[i] == want[i] {
			i++
		}
		return fmt.Errorf("log from %d: %d bytes, want %d; the first different one has offset %d", from, len(got), len(want), from+1+repl.Offset(i))
	}
	return nil
}

func checkBaseContent(g *Generation, b Base) error {
	r, err := g.OpenBase(context.Background(), b)
	if err != nil {
		return err
	}
	got, err := io.ReadAll(r)
	if err == nil && !bytes.Equal(got, baseBytes(b.Offset, int(b.Size))) {
		err = errors.New("base has other bytes")
	}
	return errors.Join(err, r.Close())
}

// within returns a context that ends when the test should have.
func within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeoutCause(context.Background(), testTimeout, errors.New("timeout of the test"))
	t.Cleanup(cancel)
	return ctx
}
