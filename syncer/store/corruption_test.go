package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/syncer/repl"
)

const (
	gen1  = "gen-0000000000000001/"
	gen2  = "gen-0000000000000002/"
	base1 = gen1 + "base-0000000000000064.rdb"
	seg11 = gen1 + "log-0000000000000065.seg"
	idx11 = gen1 + "log-0000000000000065.idx"
	base2 = gen2 + "base-00000000000003e8.rdb"
	base3 = gen2 + "base-000000000002bf20.rdb"
	seg21 = gen2 + "log-00000000000003e9.seg"
	idx21 = gen2 + "log-00000000000003e9.idx"
	seg22 = gen2 + "log-000000000002bf21.seg"
	idx22 = gen2 + "log-000000000002bf21.idx"
	seg23 = gen2 + "log-0000000000056ab9.seg"
	idx23 = gen2 + "log-0000000000056ab9.idx"
)

var sampleOptions = Options{SegmentBytes: 150_000, RetainLogBytes: Unlimited, RetainAge: Unlimited, RetainGenerations: Unlimited, Fsync: FsyncNo}

// sample returns a file system with a store: an old generation, and a current
// one with two bases and three segments.
func sample(t testing.TB, closed bool) (*memFS, *Store) {
	fs := newMemFS()
	s := mustOpen(t, fs, sampleOptions)
	begin(t, s, idA, 100)
	addBase(t, s, idA, 100, 5000)
	feed(t, s, 300, 0, at(1))
	begin(t, s, idB, 1000)
	addBase(t, s, idB, 1000, 5000)
	for off := repl.Offset(1000 + 44_750); off <= 180_000; off += 44_750 {
		feed(t, s, off, 1, at(int(off)))
	}
	addBase(t, s, idB, 180_000, 5000)
	feed(t, s, 355_000, 1, at(355_000))
	must(t, s.Sync())
	feed(t, s, 355_600, 1, at(355_600))
	feed(t, s, 420_000, 1, at(420_000))
	if closed {
		must(t, s.Close())
	}
	return fs, s
}

type damage func(fs *memFS, file string)

func flip(at int) damage {
	return func(fs *memFS, file string) {
		fs.edit(file, func(b []byte) []byte { b[(at+len(b))%len(b)] ^= 0x10; return b })
	}
}

func cutTo(n int) damage {
	return func(fs *memFS, file string) {
		fs.edit(file, func(b []byte) []byte {
			if n < 0 {
				return b[:len(b)+n]
			}
			return b[:n]
		})
	}
}

func zero(at, n int) damage {
	return func(fs *memFS, file string) {
		fs.edit(file, func(b []byte) []byte { clear(b[at:min(at+n, len(b))]); return b })
	}
}

func extend(n int) damage {
	return func(fs *memFS, file string) {
		fs.edit(file, func(b []byte) []byte { return append(b, make([]byte, n)...) })
	}
}

func missing(fs *memFS, file string) {
	if err := fs.Remove(file); err != nil {
		panic(err)
	}
}

func (m *memFS) content(name string) []byte {
	var c []byte
	m.edit(name, func(b []byte) []byte { c = b; return b })
	return slices.Clone(c)
}

func swapped(with string) damage {
	return func(fs *memFS, file string) {
		a, b := fs.content(file), fs.content("/s/"+with)
		fs.edit(file, func([]byte) []byte { return b })
		fs.edit("/s/"+with, func([]byte) []byte { return a })
	}
}

func copied(to string) damage {
	return func(fs *memFS, file string) {
		f, err := fs.OpenFile("/s/"+to, 0x40, 0) // os.O_CREATE
		if err != nil {
			panic(err)
		}
		_ = f.Close()
		data := fs.content(file)
		fs.edit("/s/"+to, func([]byte) []byte { return data })
	}
}

func both(a, b damage, fileB string) damage {
	return func(fs *memFS, file string) { a(fs, file); b(fs, "/s/"+fileB) }
}

// outcome is what comes out of a damaged store.
type outcome struct {
	open string // FILE@OFFSET of the CorruptionError of Open; "" if it opens
	read string // the same for reading everything
	// repaired counts what Open has put in order.
	repaired int
	end      repl.Offset // of the head's log, where it opens
}

func place(err error) string {
	var ce *CorruptionError
	if !errors.As(err, &ce) {
		return fmt.Sprint(err)
	}
	return fmt.Sprintf("%s@%d", strings.TrimPrefix(strings.TrimPrefix(ce.Dir+"/"+ce.File, "/s/"), "/"), ce.Offset)
}

func look(fs *memFS) outcome {
	o := sampleOptions
	o.FS = fs
	s, err := Open("/s", o)
	if err != nil {
		return outcome{open: place(err)}
	}
	defer func() { _ = s.Close() }()
	out := outcome{repaired: len(s.Repairs()), end: s.Head().Committed()}
	for _, g := range s.Generations() {
		if err := checkLog(g); err != nil {
			out.read = place(err)
		}
		for _, b := range g.Bases() {
			if r, err := g.OpenBase(context.Background(), b); err != nil {
				out.read = place(err)
			} else {
				_ = r.Close()
			}
		}
	}
	return out
}

// snapshot returns the content of all files.
func (m *memFS) snapshot() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[string]string{}
	for dir, d := range m.dirs {
		for name, n := range d.now {
			if f, ok := n.(*memFile); ok {
				all[dir+"/"+name] = string(f.now)
			}
		}
	}
	return all
}

const end = 420_000

// Every kind of damage to every kind of file of a store that was closed: it is
// found, the file and the place are named, and nothing of it is served.
func TestCorruptionMatrix(t *testing.T) {
	body := func(kind string) int { return len("sluice- 1 01234567\n") + len(kind) }
	rec := func(n int) int { return headerSize + n*recordSize }
	for _, tc := range []struct {
		file, name string
		do         damage
		want       outcome
	}{
		{"manifest", "flip in the first line", flip(3), outcome{open: "manifest@0"}},
		{"manifest", "flip in its checksum", flip(body("manifest") - 2), outcome{open: fmt.Sprintf("manifest@%d", body("manifest"))}},
		{"manifest", "flip", flip(60), outcome{open: fmt.Sprintf("manifest@%d", body("manifest"))}},
		{"manifest", "flip of the last byte", flip(-1), outcome{open: fmt.Sprintf("manifest@%d", body("manifest"))}},
		{"manifest", "empty", cutTo(0), outcome{open: "manifest@0"}},
		{"manifest", "cut", cutTo(-1), outcome{open: fmt.Sprintf("manifest@%d", body("manifest"))}},
		{"manifest", "zeros", zero(0, 4096), outcome{open: "manifest@0"}},
		{"manifest", "longer", extend(1), outcome{open: fmt.Sprintf("manifest@%d", body("manifest"))}},
		{"manifest", "missing", missing, outcome{open: "manifest@0"}},
		{"manifest", "is a catalog", func(fs *memFS, file string) { swapped(gen1+"catalog")(fs, file) }, outcome{open: "manifest@0"}},

		{gen2 + "catalog", "flip in the first line", flip(3), outcome{open: gen2 + "catalog@0"}},
		{gen2 + "catalog", "flip", flip(60), outcome{open: fmt.Sprintf("%scatalog@%d", gen2, body("catalog"))}},
		{gen2 + "catalog", "empty", cutTo(0), outcome{open: gen2 + "catalog@0"}},
		{gen2 + "catalog", "cut", cutTo(-10), outcome{open: fmt.Sprintf("%scatalog@%d", gen2, body("catalog"))}},
		{gen2 + "catalog", "zeros", zero(0, 4096), outcome{open: gen2 + "catalog@0"}},
		{gen2 + "catalog", "missing", missing, outcome{open: gen2 + "catalog@0"}},
		{gen2 + "catalog", "swapped with another's", swapped(gen1 + "catalog"), outcome{open: gen1 + "catalog@0"}},

		{base3, "flip of the first byte", flip(0), outcome{read: base3 + "@0", end: end}},
		{base3, "flip of the last byte", flip(-1), outcome{read: base3 + "@0", end: end}},
		{base3, "zeros", zero(4096, 4096), outcome{read: base3 + "@0", end: end}},
		{base3, "cut", cutTo(-1), outcome{open: base3 + "@4999"}},
		{base3, "empty", cutTo(0), outcome{open: base3 + "@0"}},
		{base3, "longer", extend(1), outcome{open: base3 + "@5000"}},
		{base3, "missing", missing, outcome{open: base3 + "@0"}},
		{base3, "swapped with another of the same size", swapped(base2), outcome{read: base2 + "@0", end: end}},
		{base3, "copied to another offset", copied(gen2 + "base-0000000000000fff.rdb"), outcome{repaired: 1, end: end}},
		{base1, "flip in an old generation", flip(100), outcome{read: base1 + "@0", end: end}},
		{base1, "missing in an old generation", missing, outcome{open: base1 + "@0"}},

		{seg21, "flip of the first byte", flip(0), outcome{read: seg21 + "@0", end: end}},
		{seg21, "flip in the second block", flip(BlockBytes + 9), outcome{read: fmt.Sprintf("%s@%d", seg21, BlockBytes), end: end}},
		{seg21, "flip of the last byte", flip(-1), outcome{read: fmt.Sprintf("%s@%d", seg21, 2*BlockBytes), end: end}},
		{seg21, "zeros", zero(BlockBytes, 4096), outcome{read: fmt.Sprintf("%s@%d", seg21, BlockBytes), end: end}},
		{seg21, "cut", cutTo(-1), outcome{open: seg21 + "@178999"}},
		{seg21, "empty", cutTo(0), outcome{open: seg21 + "@0"}},
		{seg21, "longer", extend(1), outcome{open: seg21 + "@179000"}},
		{seg21, "missing", missing, outcome{open: seg21 + "@0"}},
		{seg21, "missing with its index", both(missing, missing, idx21), outcome{open: seg21 + "@0"}},
		{seg21, "swapped with another's", swapped(seg22), outcome{open: seg21 + "@175000"}},
		{seg21, "swapped with another's, and the index", both(swapped(seg22), swapped(idx22), idx21), outcome{open: idx21 + "@0"}},
		{seg21, "copied into itself", copied(gen2 + "log-0000000000000400.seg"), outcome{open: gen2 + "log-0000000000000400.seg@0"}},
		{seg21, "copied to its begin less one", copied(gen2 + "log-00000000000003e8.seg"), outcome{repaired: 1, end: end}},
		{seg22, "missing in the middle", both(missing, missing, idx22), outcome{open: seg22 + "@0"}},

		{idx21, "flip in the header", flip(20), outcome{open: idx21 + "@0"}},
		{idx21, "flip in a record", flip(rec(1) + 9), outcome{read: fmt.Sprintf("%s@%d", idx21, rec(1)), end: end}},
		{idx21, "flip in the last record", flip(-2), outcome{open: fmt.Sprintf("%s@%d", idx21, rec(5))}},
		{idx21, "zeros from the first record on", zero(headerSize, 4096), outcome{open: fmt.Sprintf("%s@%d", idx21, rec(5))}},
		{idx21, "cut in a record", cutTo(-1), outcome{open: fmt.Sprintf("%s@%d", idx21, rec(5)-1)}},
		{idx21, "cut by a record", cutTo(-recordSize), outcome{open: fmt.Sprintf("%s@%d", idx21, rec(4))}},
		{idx21, "without records", cutTo(headerSize), outcome{open: fmt.Sprintf("%s@%d", idx21, headerSize-recordSize)}},
		{idx21, "empty", cutTo(0), outcome{open: idx21 + "@0"}},
		{idx21, "missing", missing, outcome{open: idx21 + "@0"}},
		{idx21, "swapped with another's", swapped(idx22), outcome{open: idx21 + "@0"}},
		{idx21, "swapped with another generation's", swapped(idx11), outcome{open: idx11 + "@0"}},

		{seg23, "flip of the first byte", flip(0), outcome{open: seg23 + "@0"}},
		{seg23, "flip of the last byte", flip(-1), outcome{open: seg23 + "@0"}},
		{seg23, "zeros", zero(4096, 4096), outcome{open: seg23 + "@0"}},
		{seg23, "cut", cutTo(-1), outcome{open: seg23 + "@64999"}},
		{seg23, "empty", cutTo(0), outcome{open: seg23 + "@0"}},
		{seg23, "missing", missing, outcome{open: seg23 + "@0"}},
		{seg23, "missing with its index", both(missing, missing, idx23), outcome{open: seg23 + "@0"}},
		{seg23, "longer", extend(10), outcome{repaired: 1, end: end}}, // as bytes that were not committed
		{idx23, "flip in the header", flip(20), outcome{open: idx23 + "@0"}},
		{idx23, "flip in the first record", flip(rec(0) + 1), outcome{open: fmt.Sprintf("%s@%d", idx23, rec(0))}},
		{idx23, "flip in the last record", flip(-1), outcome{open: fmt.Sprintf("%s@%d", idx23, rec(1))}},
		{idx23, "cut in a record", cutTo(-1), outcome{open: fmt.Sprintf("%s@%d", idx23, rec(1))}},
		{idx23, "cut by a record", cutTo(-recordSize), outcome{open: fmt.Sprintf("%s@%d", idx23, rec(1))}},
		{idx23, "longer", extend(10), outcome{repaired: 2, end: end}},
		{idx23, "missing", missing, outcome{open: idx23 + "@0"}},
		{seg11, "flip in an old generation", flip(0), outcome{open: seg11 + "@0"}},
	} {
		t.Run(tc.file+"/"+tc.name, func(t *testing.T) {
			fs, _ := sample(t, true)
			tc.do(fs, "/s/"+tc.file)
			before := fs.snapshot()
			v, err := Verify(context.Background(), "/s", Options{FS: fs}, nil)
			must(t, err)
			got := look(fs)
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(outcome{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			if bad := tc.want.open + tc.want.read; bad == "" {
				if len(v.Damage) > 0 || len(v.Leftovers) == 0 {
					t.Errorf("Verify found damage %v, leftovers %q", v.Damage, v.Leftovers)
				}
			} else if len(v.Damage) == 0 || strings.Contains(tc.name, "missing") && place(v.Damage[0]) != bad {
				t.Errorf("Verify found %v, want %s", v.Damage, bad)
			}
			if tc.want.open != "" {
				if d := cmp.Diff(before, fs.snapshot()); d != "" {
					t.Errorf("a refused store was changed (-before +after):\n%s", d)
				}
			}
		})
	}
}

// Whatever byte of a closed store changes, somebody notices, and what is read is
// right.
func TestEveryFlipIsNoticed(t *testing.T) {
	fs, _ := sample(t, true)
	for name, content := range fs.snapshot() {
		stride := max(len(content)/60, 1)
		for i := 0; i < len(content); i += stride {
			flip(i)(fs, name)
			v, err := Verify(context.Background(), "/s", Options{FS: fs}, nil)
			must(t, err)
			if len(v.Damage) == 0 {
				t.Errorf("%s: Verify does not notice byte %d", name, i)
			}
			copy := fs.afterCrash(survivals(nil)[0])
			if got := look(copy); got.open+got.read == "" || got.open != "" && got.read != "" {
				t.Errorf("%s: byte %d is not noticed: %+v", name, i, got)
			}
			flip(i)(fs, name)
		}
	}
	if got := look(fs); got != (outcome{end: end}) {
		t.Errorf("after all was put right: %+v", got)
	}
}

// Damage after the last fsync is what a crash does: the log is cut, to a commit.
func TestTailAfterCrash(t *testing.T) {
	const durable = 355_000
	kill := survivals(nil)[0]
	for _, tc := range []struct {
		name string
		file string
		do   damage
		want outcome
	}{
		{"nothing", idx23, func(*memFS, string) {}, outcome{end: end}},
		{"block", seg23, flip(0), outcome{end: durable, repaired: 3}},
		{"end of the block", seg23, flip(-1), outcome{end: 355_600, repaired: 3}},
		{"record", idx23, flip(-1), outcome{end: 355_600, repaired: 3}},
		{"index", idx23, missing, outcome{end: durable, repaired: 2}},
		{"segment", seg23, missing, outcome{end: durable, repaired: 2}},
		{"durable block", seg22, flip(0), outcome{open: seg22 + "@0"}},
		{"durable record", idx22, flip(headerSize + 1), outcome{open: fmt.Sprintf("%s@%d", idx22, headerSize)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			fs, _ := sample(t, false)
			fs = fs.afterCrash(kill)
			tc.do(fs, "/s/"+tc.file)
			got := look(fs)
			if d := cmp.Diff(tc.want, got, cmp.AllowUnexported(outcome{})); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}
