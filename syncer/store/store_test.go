package store

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/syncer/repl"
)

func TestOpenNew(t *testing.T) {
	fs := newMemFS()
	s := mustOpen(t, fs, Options{})
	if s.Head() != nil || s.Current() != nil || len(s.Generations()) != 0 {
		t.Error("a new store has generations")
	}
	for name, err := range map[string]error{
		"Append": s.Append([]byte("x")),
		"Commit": s.Commit(Mark{Offset: 1}),
		"Trunc":  second(s.TruncateToCommit()),
		"Last":   second(s.LastCommit()),
		"Base":   second(s.BeginBase(BaseMeta{})),
		"ID":     s.ChangeReplID(idA),
	} {
		if !errors.Is(err, ErrNoGeneration) {
			t.Errorf("%s: %v, want ErrNoGeneration", name, err)
		}
	}
	if _, err := Open("/s", Options{FS: fs}); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	must(t, s.Sync())
	must(t, s.Close())
	must(t, s.Close())
	if err := s.Append([]byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("Append after Close: %v", err)
	}
	if err := s.Sync(); !errors.Is(err, ErrClosed) {
		t.Errorf("Sync after Close: %v", err)
	}
	if _, err := OpenReadOnly("/s", Options{FS: fs}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("OpenReadOnly of nothing: %v", err)
	}
	must(t, mustOpen(t, fs, Options{}).Close())
}

func second[T any](_ T, err error) error { return err }

// The lock of the operating system keeps a second writer out, also one in the
// same process, and lets readers in.
func TestLockOS(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	s := mustOpenDir(t, dir, OSFS{}, Options{})
	if _, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("second Open: %v, want ErrLocked", err)
	}
	begin(t, s, idA, 10)
	r, err := OpenReadOnly(dir, Options{})
	must(t, err)
	must(t, r.Close())
	must(t, s.Close())
	must(t, mustOpenDir(t, dir, OSFS{}, Options{}).Close())
}

// A store's life: attach, base, log, failover, full resync, restart.
func TestLife(t *testing.T) {
	fs := newMemFS()
	s := mustOpen(t, fs, Options{SegmentBytes: 128 << 10, Fsync: FsyncNo})
	g1 := begin(t, s, idA, 1000)
	if s.Current() != nil || s.Head() != g1 {
		t.Error("a generation without a base is current")
	}
	feed(t, s, 1500, 2, at(1)) // the log begins before the base
	changed := s.CurrentChanged()
	b1 := addBase(t, s, idA, 1200, 5000)
	select {
	case <-changed:
	default:
		t.Error("the first base did not change the current generation")
	}
	if s.Current() != g1 {
		t.Error("a generation with a base is not current")
	}
	feed(t, s, 200_000, 0, at(2))
	feed(t, s, 400_000, 1, at(3))
	must(t, s.ChangeReplID(idB))
	feed(t, s, 400_100, 1, at(4))
	if got, want := g1.History().String(), string(idA)+"..400000 "+string(idB); got != want {
		t.Errorf("history is %s, want %s", got, want)
	}
	g2 := begin(t, s, idC, 77)
	if s.Current() != g1 || s.Head() != g2 {
		t.Error("a new generation without a base took the place of the old one")
	}
	feed(t, s, 90, 0, at(5))
	must(t, checkLog(g1))
	select {
	case <-g1.Over():
		t.Error("the old generation is over before the new one has a base")
	default:
	}
	b2 := addBase(t, s, idC, 77, 10)
	<-g1.Over()
	if s.Current() != g2 {
		t.Error("current is still the old generation")
	}
	must(t, s.Close())

	s = mustOpen(t, fs, Options{RetainAge: Unlimited})
	if len(s.Repairs()) > 0 {
		t.Errorf("repairs after a clean close: %q", s.Repairs())
	}
	gens := s.Generations()
	if len(gens) != 2 || gens[0] != s.Current() || gens[0] != s.Head() || gens[0].ID() != 2 || gens[1].ID() != 1 {
		t.Fatalf("generations are %v", gens)
	}
	for i, want := range []struct {
		pos  repl.Pos
		base Base
	}{{repl.Pos{ReplID: idC, Offset: 90}, b2}, {repl.Pos{ReplID: idB, Offset: 400_100}, b1}} {
		g := gens[i]
		must(t, checkLog(g))
		if g.Pos() != want.pos || g.Fsynced() != want.pos.Offset {
			t.Errorf("generation %d is at %s, fsynced %d, want %s", g.ID(), g.Pos(), g.Fsynced(), want.pos)
		}
		if d := cmp.Diff([]Base{want.base}, g.Bases()); d != "" {
			t.Errorf("bases of generation %d (-want +got):\n%s", g.ID(), d)
		}
		must(t, checkBaseContent(g, want.base))
	}
	m, err := s.LastCommit()
	if d := cmp.Diff(Mark{Offset: 90, DB: 0, Time: at(5).Local()}, m); err != nil || d != "" {
		t.Errorf("last commit: %v (-want +got):\n%s", err, d)
	}
	if err := gens[1].WaitCommitted(context.Background(), 1<<40); !errors.Is(err, ErrGenerationOver) {
		t.Errorf("wait for more of an old generation: %v", err)
	}
	must(t, s.Close())
	if fs.opened != 0 {
		t.Errorf("%d files left open", fs.opened)
	}
}

func TestCommitErrors(t *testing.T) {
	s := mustOpen(t, newMemFS(), Options{})
	begin(t, s, idA, 100)
	must(t, s.Append(stream(100, 200)))
	for _, m := range []Mark{{Offset: 99}, {Offset: 201}, {Offset: 150, DB: -2}} {
		if err := s.Commit(m); err == nil {
			t.Errorf("Commit(%+v) was accepted", m)
		}
	}
	must(t, s.Commit(Mark{Offset: 150, DB: -1, Time: at(10)}))
	must(t, s.Commit(Mark{Offset: 150, DB: -1, Time: at(11)}))
	must(t, s.Commit(Mark{Offset: 160, DB: 1, Time: at(3)})) // a clock that goes back
	if m, err := s.LastCommit(); err != nil || !m.Time.Equal(at(10)) {
		t.Errorf("last commit is %+v, %v, want the time of the one before", m, err)
	}
	for _, tc := range []struct {
		pos repl.Pos
		h   repl.History
	}{
		{repl.Pos{ReplID: idA, Offset: 1}, history(idB)},
		{repl.Pos{}, repl.History{}},
		{repl.Pos{ReplID: idA, Offset: -1}, history(idA)},
	} {
		if _, err := s.NewGeneration(tc.pos, tc.h); err == nil {
			t.Errorf("NewGeneration(%s, %s) was accepted", tc.pos, tc.h)
		}
	}
	must(t, s.ChangeReplID(idB))
	if err := s.ChangeReplID(idA); !errors.Is(err, repl.ErrReplIDReused) {
		t.Errorf("an id twice: %v", err)
	}
}

func TestBaseErrors(t *testing.T) {
	fs := newMemFS()
	s := mustOpen(t, fs, Options{})
	g := begin(t, s, idA, 100)
	feed(t, s, 200, 0, at(0))
	meta := func(id repl.ReplID, off repl.Offset) BaseMeta {
		return BaseMeta{Pos: repl.Pos{ReplID: id, Offset: off}}
	}
	for _, tc := range []struct {
		m    BaseMeta
		want error
	}{
		{meta(idB, 150), ErrForeignBase},
		{meta(idA, -1), ErrForeignBase},
		{meta(idA, 99), ErrOffsetGone},
	} {
		if _, err := s.BeginBase(tc.m); !errors.Is(err, tc.want) {
			t.Errorf("BeginBase at %s: %v, want %v", tc.m.Pos, err, tc.want)
		}
	}
	// One that is ahead waits for the log.
	ahead, err := s.BeginBase(meta(idA, 300))
	must(t, err)
	if _, err := s.BeginBase(meta(idA, 300)); !errors.Is(err, ErrBaseExists) {
		t.Errorf("two at once: %v", err)
	}
	_, err = ahead.Write(baseBytes(300, 50))
	must(t, err)
	if _, err := ahead.Commit(); !errors.Is(err, ErrOffsetAhead) {
		t.Errorf("commit ahead of the log: %v", err)
	}
	feed(t, s, 300, 0, at(1))
	ahead.SetDB(7)
	b, err := ahead.Commit()
	must(t, err)
	must(t, ahead.Abort())
	if b.DB != 7 || b.Size != 50 || b.Offset != 300 {
		t.Errorf("base is %+v", b)
	}
	if g.Fsynced() < 300 {
		t.Errorf("the log up to the base is durable up to %d only", g.Fsynced())
	}
	must(t, checkBaseContent(g, b))
	if _, err := s.BeginBase(meta(idA, 300)); !errors.Is(err, ErrBaseExists) {
		t.Errorf("a second one: %v", err)
	}

	short := meta(idA, 250)
	short.Size = 10
	sink, err := s.BeginBase(short)
	must(t, err)
	_, err = sink.Write(make([]byte, 9))
	must(t, err)
	if _, err := sink.Commit(); !errors.Is(err, ErrBaseSize) {
		t.Errorf("short base: %v", err)
	}
	must(t, sink.Abort())
	must(t, sink.Abort())
	if _, err := sink.Write(nil); !errors.Is(err, ErrClosed) {
		t.Errorf("write after Abort: %v", err)
	}
	if _, err := sink.Commit(); !errors.Is(err, ErrClosed) {
		t.Errorf("commit after Abort: %v", err)
	}
	stale, err := s.BeginBase(meta(idA, 260))
	must(t, err)
	begin(t, s, idB, 0)
	if _, err := stale.Commit(); !errors.Is(err, ErrGenerationOver) {
		t.Errorf("commit into an old generation: %v", err)
	}
	must(t, stale.Abort())
	names, err := fs.ReadDir(g.dir)
	must(t, err)
	if d := cmp.Diff([]string{"base-000000000000012c.rdb", "catalog", "log-0000000000000065.idx", "log-0000000000000065.seg"}, names); d != "" {
		t.Errorf("files (-want +got):\n%s", d)
	}
	if _, err := g.OpenBase(context.Background(), Base{Offset: 290}); !errors.Is(err, ErrBaseGone) {
		t.Errorf("open of what is not there: %v", err)
	}
}

// Ids of the log: a base of an ancestor is taken up to the ancestor's end.
func TestBaseOfAncestor(t *testing.T) {
	s := mustOpen(t, newMemFS(), Options{})
	begin(t, s, idA, 100)
	feed(t, s, 200, 0, at(0))
	must(t, s.ChangeReplID(idB))
	feed(t, s, 300, 0, at(0))
	if _, err := s.BeginBase(BaseMeta{Pos: repl.Pos{ReplID: idA, Offset: 201}}); !errors.Is(err, ErrForeignBase) {
		t.Errorf("base beyond the ancestor's end: %v", err)
	}
	addBase(t, s, idA, 200, 10)
	addBase(t, s, idB, 150, 10)
	if got := s.Current().Bases(); len(got) != 2 || got[0].Offset != 200 || got[1].Offset != 150 {
		t.Errorf("bases are %+v, want newest first", got)
	}
}

// Readers follow the writer: every byte once, in order, nothing uncommitted.
func TestLiveTail(t *testing.T) {
	s := mustOpen(t, newMemFS(), Options{SegmentBytes: 20_000, Fsync: FsyncNo})
	const start, end = 500, 500 + 300_000
	g := begin(t, s, idA, start)
	ctx := within(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			r, err := g.NewReader(start)
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = r.Close() }()
			var got []byte
			buf := make([]byte, 7001)
			for r.Offset() < end {
				n, err := r.Read(buf)
				got = append(got, buf[:n]...)
				if errors.Is(err, io.EOF) {
					err = r.Wait(ctx)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			if !bytes.Equal(got, stream(start, end)) {
				t.Error("a reader got other bytes")
			}
			if _, err := r.Read(buf); !errors.Is(err, io.EOF) {
				t.Errorf("read at the end: %v", err)
			}
			if err := r.Wait(ctx); !errors.Is(err, ErrClosed) {
				t.Errorf("wait until Close: %v", err)
			}
		})
	}
	for off := repl.Offset(start); off < end; {
		to := min(off+3333, end)
		must(t, s.Append(append(stream(off, to), "uncommitted"...)))
		must(t, s.Commit(Mark{Offset: to, Time: at(0)}))
		_, err := s.TruncateToCommit()
		must(t, err)
		off = to
	}
	must(t, s.Sync())
	must(t, g.WaitFsynced(ctx, end))
	must(t, s.Close())
	wg.Wait()
}

func TestReaderBounds(t *testing.T) {
	s := mustOpen(t, newMemFS(), Options{SegmentBytes: 1000})
	g := begin(t, s, idA, 100)
	feed(t, s, 2000, 0, at(0))
	feed(t, s, 3000, 0, at(0))
	must(t, s.Append([]byte("uncommitted")))
	if _, err := g.NewReader(99); !errors.Is(err, ErrOffsetGone) {
		t.Errorf("before the log: %v", err)
	}
	if _, err := g.NewReader(3001); !errors.Is(err, ErrOffsetAhead) {
		t.Errorf("after the log: %v", err)
	}
	r, err := g.NewReader(3000)
	must(t, err)
	if _, err := r.Next(1); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	must(t, r.Seek(1990))
	for _, want := range []struct {
		limit int64
		Range
	}{{100, Range{Offset: 1890, Length: 10}}, {100, Range{Offset: 0, Length: 100}}, {1 << 40, Range{Offset: 100, Length: 900}}} {
		got, err := r.Next(want.limit)
		if err != nil || got.Offset != want.Offset || got.Length != want.Length {
			t.Errorf("Next(%d): %+v, %v, want %+v", want.limit, got, err, want.Range)
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if err := r.Wait(ctx); !errors.Is(err, cause) {
		t.Errorf("cancelled wait: %v", err)
	}
	must(t, r.Close())
	must(t, r.Close())
}

// With the file system of the operating system, ranges are of real files.
func TestRangeIsOSFile(t *testing.T) {
	s := mustOpenDir(t, t.TempDir(), OSFS{}, Options{})
	g := begin(t, s, idA, 0)
	feed(t, s, 5000, 0, at(0))
	base := addBase(t, s, idA, 5000, 10)
	r, err := g.NewReader(1000)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	rg, err := r.Next(1 << 20)
	must(t, err)
	f, ok := rg.File.(*os.File)
	if !ok {
		t.Fatalf("file is a %T", rg.File)
	}
	b, err := io.ReadAll(io.NewSectionReader(f, rg.Offset, rg.Length))
	if err != nil || !bytes.Equal(b, stream(1000, 5000)) {
		t.Errorf("range has %d bytes, %v", len(b), err)
	}
	br, err := g.OpenBase(context.Background(), base)
	must(t, err)
	if _, ok := br.File().(*os.File); !ok {
		t.Errorf("base's file is a %T", br.File())
	}
	must(t, br.Close())
}

func TestMarks(t *testing.T) {
	fs := newMemFS()
	s := mustOpen(t, fs, Options{SegmentBytes: 20_000})
	g := begin(t, s, idA, 1000)
	if m, err := g.CommitBefore(1000); err != nil || m != (Mark{Offset: 1000, DB: -1}) {
		t.Errorf("of an empty log: %+v, %v", m, err)
	}
	for i := 1; i <= 20; i++ { // each is indexed, as seconds lie between
		feed(t, s, repl.Offset(1000+i*3000), i, at(i))
	}
	check := func(g *Generation) {
		t.Helper()
		for _, tc := range []struct {
			off  repl.Offset
			want int // number of the commit
		}{{1000, 0}, {3999, 0}, {4000, 1}, {4001, 1}, {31000, 10}, {60999, 19}, {61000, 20}, {1 << 40, 20}} {
			m, err := g.CommitBefore(tc.off)
			if err != nil || m.Offset != repl.Offset(1000+tc.want*3000) || tc.want > 0 && (m.DB != tc.want || !m.Time.Equal(at(tc.want))) {
				t.Errorf("CommitBefore(%d) is %+v, %v, want number %d", tc.off, m, err, tc.want)
			}
		}
		if _, err := g.CommitBefore(999); !errors.Is(err, ErrOffsetGone) {
			t.Errorf("CommitBefore the log: %v", err)
		}
		for _, tc := range []struct {
			t    time.Time
			want int
		}{{time.Time{}, 0}, {at(0), 0}, {at(1), 1}, {at(2).Add(-1), 1}, {at(11).Add(1), 11}, {at(999), 20}} {
			m, err := g.CommitAt(tc.t)
			if err != nil || m.Offset != repl.Offset(1000+tc.want*3000) {
				t.Errorf("CommitAt(%s) is %+v, %v, want number %d", tc.t, m, err, tc.want)
			}
		}
	}
	check(g)
	must(t, s.Close())
	r, err := OpenReadOnly("/s", Options{FS: fs})
	must(t, err)
	check(r.Head())
	must(t, r.Close())
}

// A reader in another process sees what is committed, follows it over segments
// and learns of the end of the generation.
func TestOpenReadOnlyWhileWriting(t *testing.T) {
	fs := newMemFS()
	w := mustOpen(t, fs, Options{SegmentBytes: 100_000})
	begin(t, w, idA, 0)
	feed(t, w, 50_000, 0, at(1))
	addBase(t, w, idA, 50_000, 77)
	r, err := OpenReadOnly("/s", Options{FS: fs})
	must(t, err)
	defer func() { must(t, r.Close()) }()
	g := r.Current()
	must(t, checkLog(g))
	must(t, checkBaseContent(g, g.Bases()[0]))
	if m, err := r.LastCommit(); err != nil || m.Offset != 50_000 {
		t.Errorf("last commit %+v, %v", m, err)
	}
	for name, err := range map[string]error{
		"Append": r.Append([]byte("x")), "Commit": r.Commit(Mark{}), "Sync": r.Sync(),
		"Truncate": second(r.TruncateToCommit()), "NewGeneration": second(r.NewGeneration(repl.Pos{}, repl.History{})),
		"BeginBase": second(r.BeginBase(BaseMeta{})), "WaitFsynced": g.WaitFsynced(within(t), 1),
	} {
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v, want ErrReadOnly", name, err)
		}
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := g.WaitCommitted(within(t), 400_000); err != nil {
			t.Error(err)
		}
		if err := checkLog(g); err != nil {
			t.Error(err)
		}
	})
	for off := repl.Offset(100_000); off <= 400_000; off += 50_000 {
		feed(t, w, off, 0, at(int(off)/10_000))
	}
	wg.Wait()
	begin(t, w, idB, 5)
	addBase(t, w, idB, 5, 5)
	if err := g.WaitCommitted(within(t), 400_001); !errors.Is(err, ErrGenerationOver) {
		t.Errorf("wait for more of the old generation: %v", err)
	}
}

// What is committed becomes durable as the policy says, without anybody waiting
// for it, and nobody has to ask.
func TestFsyncPolicies(t *testing.T) {
	for _, tc := range []struct {
		policy FsyncPolicy
		after  time.Duration // in which it has to be durable; 0: never by itself
	}{{FsyncAlways, time.Nanosecond}, {FsyncEverySec, time.Second}, {FsyncNo, 0}} {
		t.Run(string(tc.policy), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := mustOpen(t, newMemFS(), Options{Fsync: tc.policy})
				g := begin(t, s, idA, 0)
				for off := repl.Offset(100); off < 500; off += 100 {
					feed(t, s, off, 0, time.Now())
					if tc.after == 0 {
						time.Sleep(time.Hour)
						synctest.Wait()
						if g.Fsynced() != 0 {
							t.Fatalf("durable up to %d without anybody asking", g.Fsynced())
						}
						continue
					}
					begin := time.Now()
					must(t, g.WaitFsynced(context.Background(), off))
					if d := time.Since(begin); d > tc.after || tc.policy == FsyncEverySec && d < tc.after {
						t.Errorf("durable after %s, want %s", d, tc.after)
					}
				}
				must(t, s.Sync())
				if g.Fsynced() != 400 {
					t.Errorf("durable up to %d after Sync", g.Fsynced())
				}
				must(t, s.Close())
			})
		})
	}
}

// Any sequence of appends, commits and truncations, with any sizes, leaves a log
// that equals the stream and that Open verifies without repair.
func TestAppendCommitProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fs := newMemFS()
		o := Options{FS: fs, Fsync: FsyncNo, RetainAge: Unlimited, SegmentBytes: rapid.SampledFrom([]int64{1, 1000, BlockBytes, 3*BlockBytes + 5}).Draw(rt, "segment")}
		s, err := Open("/s", o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { _ = s.Close() }()
		start := repl.Offset(rapid.IntRange(0, 100).Draw(rt, "start"))
		if _, err := s.NewGeneration(repl.Pos{ReplID: idA, Offset: start}, history(idA)); err != nil {
			rt.Fatal(err)
		}
		check := func(err error) {
			if err != nil {
				rt.Fatal(err)
			}
		}
		appended := start
		size := rapid.OneOf(rapid.IntRange(1, 300), rapid.IntRange(1, 3*BlockBytes), rapid.SampledFrom([]int{BlockBytes - 1, BlockBytes, BlockBytes + 1}))
		rt.Repeat(map[string]func(*rapid.T){
			"append": func(rt *rapid.T) {
				to := appended + repl.Offset(size.Draw(rt, "size"))
				check(s.Append(stream(appended, to)))
				appended = to
			},
			"commit": func(rt *rapid.T) {
				from := s.Head().Committed()
				off := repl.Offset(rapid.Int64Range(int64(from), int64(appended)).Draw(rt, "offset"))
				check(s.Commit(Mark{Offset: off, Time: at(int(off))}))
			},
			"commit all": func(rt *rapid.T) { check(s.Commit(Mark{Offset: appended, Time: at(int(appended))})) },
			"garbage": func(rt *rapid.T) {
				check(s.Append(make([]byte, size.Draw(rt, "size"))))
				m, err := s.TruncateToCommit()
				check(err)
				appended = m.Offset
			},
			"sync": func(rt *rapid.T) {
				check(s.Sync())
				if f := s.Head().Fsynced(); f != s.Head().Committed() {
					rt.Fatalf("fsynced %d of %d", f, s.Head().Committed())
				}
			},
			"reopen": func(rt *rapid.T) {
				end := s.Head().Committed()
				check(s.Close())
				s, err = Open("/s", o)
				check(err)
				appended = s.Head().Committed()
				if appended != end {
					rt.Fatalf("log ends at %d, was closed at %d", appended, end)
				}
			},
			"": func(rt *rapid.T) { check(checkLog(s.Head())) },
		})
	})
}
