package store

import (
	"context"
	"errors"
	"io"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/syncer/repl"
)

func TestRetentionPlan(t *testing.T) {
	now := at(100_000)
	const never = math.MaxInt64
	// Segments of 100 bytes that end at 100, 200 …, an hour old each.
	segs := func(n int) (s []retainedSegment) {
		for i := 1; i <= n; i++ {
			s = append(s, retainedSegment{repl.Offset(i * 100), 100, now.Add(-time.Duration(n-i+1) * time.Hour)})
		}
		return s
	}
	base := func(off int, age time.Duration) Base { return Base{Offset: repl.Offset(off), Time: now.Add(-age)} }
	h := time.Hour
	for _, tc := range []struct {
		name     string
		in       retained
		segments int
		bases    int
	}{
		{"no base: everything stays", retained{segments: segs(5), pinned: never, maxBytes: 1, maxAge: 1}, 0, 0},
		{"within limits", retained{segments: segs(5), bases: []Base{base(350, 0)}, pinned: never, maxBytes: 500, maxAge: 6 * h}, 0, 0},
		{"bytes", retained{segments: segs(5), bases: []Base{base(350, 0)}, pinned: never, maxBytes: 400, maxAge: -1}, 1, 0},
		{"bytes, up to the base", retained{segments: segs(5), bases: []Base{base(350, 0)}, pinned: never, maxBytes: 1, maxAge: -1}, 3, 0},
		{"a segment that ends at the base is not needed", retained{segments: segs(5), bases: []Base{base(300, 0)}, pinned: never, maxBytes: 1, maxAge: -1}, 3, 0},
		{"the last segment stays", retained{segments: segs(5), bases: []Base{base(500, 0)}, pinned: never, maxBytes: 1, maxAge: -1}, 4, 0},
		{"age", retained{segments: segs(5), bases: []Base{base(350, 0)}, pinned: never, maxBytes: -1, maxAge: 3 * h}, 2, 0},
		{"unlimited", retained{segments: segs(5), bases: []Base{base(10, 99*h), base(350, 98*h)}, pinned: never, maxBytes: -1, maxAge: -1}, 0, 0},
		{"pin", retained{segments: segs(5), bases: []Base{base(350, 0)}, pinned: 150, maxBytes: 1, maxAge: 1}, 1, 0},
		{"pin at the begin", retained{segments: segs(5), bases: []Base{base(350, 0)}, pinned: 0, maxBytes: 1, maxAge: 1}, 0, 0},
		{"older base goes for its log", retained{segments: segs(5), bases: []Base{base(10, h), base(350, 0)}, pinned: never, maxBytes: 400, maxAge: -1}, 1, 1},
		{"older base stays if that frees nothing", retained{segments: segs(5), bases: []Base{base(10, h), base(50, 0)}, pinned: never, maxBytes: 400, maxAge: -1}, 0, 0},
		{"older base stays if a pin holds its log", retained{segments: segs(5), bases: []Base{base(10, h), base(350, 0)}, pinned: 20, maxBytes: 400, maxAge: -1}, 0, 0},
		{"older base goes when the next is old enough", retained{segments: segs(5), bases: []Base{base(10, 9*h), base(250, 4*h), base(350, h)}, pinned: never, maxBytes: -1, maxAge: 3 * h}, 2, 1},
		{"empty log", retained{bases: []Base{base(10, 9*h)}, pinned: never, maxBytes: 1, maxAge: 1}, 0, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.in.now = now
			s, b := tc.in.plan()
			if s != tc.segments || b != tc.bases {
				t.Errorf("%d segments and %d bases go, want %d and %d", s, b, tc.segments, tc.bases)
			}
		})
	}
}

func TestRetention(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fs := newMemFS()
		s := mustOpen(t, fs, Options{SegmentBytes: 1000, RetainLogBytes: 3000, RetainAge: 24 * time.Hour, RetainGenerations: 48 * time.Hour})
		g := begin(t, s, idA, 0)
		addBase(t, s, idA, 0, 10)
		grow := func(n int) {
			for range n {
				feed(t, s, g.Committed()+1000, 0, time.Now())
			}
			synctest.Wait()
		}
		grow(10)
		if g.First() != 1 || g.LogBytes() != 10_000 {
			t.Fatalf("log from %d, %d bytes: the only base needs all of it", g.First(), g.LogBytes())
		}
		pin, err := g.Pin(4000)
		must(t, err)
		slow, err := g.NewReader(2500) // without a pin
		must(t, err)
		rg, err := slow.Next(100)
		must(t, err)
		b := addBase(t, s, idA, 10_000, 10)
		grow(1)
		if g.First() != 4001 {
			t.Errorf("log from %d, want what is pinned: 4001", g.First())
		}
		if bases := g.Bases(); len(bases) != 1 || bases[0].Offset != 10_000 {
			t.Errorf("bases are %v", bases)
		}
		// An open file outlives its name, the next one does not.
		got := make([]byte, rg.Length)
		if _, err := rg.File.ReadAt(got, rg.Offset); err != nil {
			t.Errorf("range of a segment that was removed meanwhile: %v", err)
		}
		if _, err := io.Copy(io.Discard, slow); !errors.Is(err, ErrOffsetGone) {
			t.Errorf("overtaken reader: %v", err)
		}
		must(t, slow.Close())
		if _, err := g.Pin(3999); !errors.Is(err, ErrOffsetGone) {
			t.Errorf("pin of what is gone: %v", err)
		}
		pin.Move(6000)
		pin.Move(5000)
		grow(1)
		if g.First() != 6001 {
			t.Errorf("log from %d, want 6001", g.First())
		}
		pin.Release()
		pin.Release()
		synctest.Wait()
		if g.First() != 9001 {
			t.Errorf("log from %d, want 3000 bytes and no less than 3 segments: 9001", g.First())
		}
		br, err := g.OpenBase(context.Background(), b) // holds its log
		must(t, err)
		addBase(t, s, idA, g.Committed(), 10)
		grow(5)
		if g.First() != 10_001 || len(g.Bases()) != 2 {
			t.Errorf("log from %d, bases %v: an open base holds the log after it", g.First(), g.Bases())
		}
		must(t, br.Close())
		synctest.Wait()
		if g.First() != 12_001 {
			t.Errorf("log from %d after the base was closed, want 12001: what the newest base needs", g.First())
		}
		if _, err := g.OpenBase(context.Background(), b); !errors.Is(err, ErrBaseGone) {
			t.Errorf("open of a base that was removed: %v", err)
		}
		if err := second(g.NewReader(11_000)); !errors.Is(err, ErrOffsetGone) {
			t.Errorf("reader of what was removed: %v", err)
		}
		must(t, checkLog(g))

		// A generation goes when it has been replaced for long enough and nobody
		// holds it.
		pin, err = g.Pin(g.Committed())
		must(t, err)
		begin(t, s, idB, 5)
		addBase(t, s, idB, 5, 5)
		time.Sleep(47 * time.Hour)
		synctest.Wait()
		if len(s.Generations()) != 2 {
			t.Error("the old generation is gone before its time")
		}
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		if len(s.Generations()) != 2 {
			t.Error("the old generation is gone although it is pinned")
		}
		pin.Release()
		synctest.Wait()
		if len(s.Generations()) != 1 {
			t.Error("the old generation is still there")
		}
		names, err := fs.ReadDir("/s")
		must(t, err)
		if d := cmp.Diff([]string{"gen-0000000000000002", "manifest"}, names); d != "" {
			t.Errorf("files (-want +got):\n%s", d)
		}
		must(t, s.Close())
		s = mustOpen(t, fs, Options{})
		if len(s.Repairs()) != 0 {
			t.Errorf("repairs: %q", s.Repairs())
		}
		must(t, s.Close())
	})
}
