package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

var (
	storeID1 = repl.ReplID(strings.Repeat("1", repl.ReplIDLen))
	storeID2 = repl.ReplID(strings.Repeat("2", repl.ReplIDLen))
	storeID3 = repl.ReplID(strings.Repeat("3", repl.ReplIDLen))
)

// fillStore writes a store of two generations and leaves it open.
func fillStore(t *testing.T, dir string) *store.Store {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s, err := store.Open(dir, store.Options{Fsync: store.FsyncNo, RetainAge: store.Unlimited})
	check(err)
	t.Cleanup(func() { _ = s.Close() })
	when := time.Date(2026, 3, 1, 12, 0, 0, 0, time.Local)
	fill := func(id repl.ReplID, off repl.Offset, n int) {
		h, err := repl.NewHistory(id)
		check(err)
		_, err = s.NewGeneration(repl.Pos{ReplID: id, Offset: off}, h)
		check(err)
		check(s.Append(make([]byte, n)))
		check(s.Commit(store.Mark{Offset: off + repl.Offset(n), DB: 0, Time: when}))
		b, err := s.BeginBase(store.BaseMeta{Pos: repl.Pos{ReplID: id, Offset: off + 10}, DB: -1, Source: "replica 127.0.0.1:6402"})
		check(err)
		_, err = b.Write([]byte("REDIS0010"))
		check(err)
		_, err = b.Commit()
		check(err)
	}
	fill(storeID1, 100, 5000)
	fill(storeID2, 0, 1000)
	check(s.ChangeReplID(storeID3))
	h, err := repl.NewHistory(storeID1)
	check(err)
	_, err = s.NewGeneration(repl.Pos{ReplID: storeID1, Offset: 77}, h)
	check(err)
	return s
}

var aTime = regexp.MustCompile(`20\d\d-\d\d-\d\d \d\d:\d\d:\d\d`)

func TestStoreLs(t *testing.T) {
	dir := t.TempDir()
	fillStore(t, dir) // ls works while another writes
	p := start("store", "ls", dir)
	if code := p.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	want := `generation 3 (waits for its base)   begun TIME   replid 1111111111111111111111111111111111111111
log   empty, goes on at offset 78
no base

generation 2 (current; the next one waits for its base)   begun TIME   replid 3333333333333333333333333333333333333333
  before offset 1001   replid 2222222222222222222222222222222222222222
log   offsets 1 to 1000   1000 bytes in 1 segment   2026-03-01 12:00:00 to 2026-03-01 12:00:00   durable up to 1000
BASE OFFSET  DB  BYTES  CRC32C    COMPLETE  FROM
10           -   9      e2119d4a  TIME      replica 127.0.0.1:6402

generation 1 (old, replaced TIME)   begun TIME   replid 1111111111111111111111111111111111111111
log   offsets 101 to 5100   5000 bytes in 1 segment   2026-03-01 12:00:00 to 2026-03-01 12:00:00   durable up to 5100
BASE OFFSET  DB  BYTES  CRC32C    COMPLETE  FROM
110          -   9      e2119d4a  TIME      replica 127.0.0.1:6402
`
	got := aTime.ReplaceAllStringFunc(p.stdout.String(), func(s string) string {
		if s == "2026-03-01 12:00:00" {
			return s
		}
		return "TIME"
	})
	got = regexp.MustCompile(`COMPLETE +FROM`).ReplaceAllString(got, "COMPLETE  FROM")
	got = regexp.MustCompile(`TIME +replica`).ReplaceAllString(got, "TIME      replica")
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	p = start("store", "ls", "--json", dir)
	if code := p.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	var l store.Listing
	if err := json.Unmarshal([]byte(p.stdout.String()), &l); err != nil {
		t.Fatal(err)
	}
	if len(l.Generations) != 3 || l.Generations[1].LogLast != 1000 || !l.Generations[1].Current || len(l.Generations[2].Segments) != 1 {
		t.Errorf("listing is %+v", l)
	}
}

func TestStoreVerify(t *testing.T) {
	dir := t.TempDir()
	if err := fillStore(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	p := start("store", "verify", dir)
	if code := p.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	if got, want := p.stdout.String(), "3 generations, 2 segments, 2 bases, 6018 bytes read: all as it was written\n"; got != want {
		t.Errorf("printed %q, want %q", got, want)
	}

	base := filepath.Join(dir, "gen-0000000000000001", "base-000000000000006e.rdb")
	if err := os.WriteFile(base, []byte("REDIS0011"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "probe.tmp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p = start("store", "verify", dir)
	if code := p.wait(t); code != exitRuntime {
		t.Errorf("exit code %d for a damaged store", code)
	}
	if out := p.stdout.String(); !strings.Contains(out, "DAMAGED   "+base+" at byte 0: file has CRC32C") ||
		!strings.Contains(out, "leftover  probe.tmp") || !strings.Contains(out, ": 1 damaged\n") {
		t.Errorf("printed %q", out)
	}
	if !strings.Contains(p.stderr.String(), dir+" is damaged in 1 place") {
		t.Errorf("stderr %q", p.stderr)
	}

	p = start("store", "verify", "--json", dir)
	if code := p.wait(t); code != exitRuntime {
		t.Errorf("exit code %d for a damaged store", code)
	}
	var v store.Verification
	if err := json.Unmarshal([]byte(p.stdout.String()), &v); err != nil {
		t.Fatal(err)
	}
	if len(v.Damage) != 1 || v.Damage[0].File != filepath.Base(base) {
		t.Errorf("result is %+v", v)
	}
}

func TestStoreOfNothing(t *testing.T) {
	for _, args := range [][]string{{"store", "ls"}, {"store", "verify"}} {
		p := start(append(args, t.TempDir())...)
		if code := p.wait(t); code != exitRuntime || !strings.Contains(p.stderr.String(), "manifest: file does not exist") {
			t.Errorf("%v: exit code %d, stderr %q", args, code, p.stderr)
		}
		if code := start(args...).wait(t); code != exitUsage {
			t.Errorf("%v without a directory: exit code %d, want %d", args, code, exitUsage)
		}
	}
}
