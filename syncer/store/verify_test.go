package store

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sluice-io/sluice/syncer/repl"
)

func TestVerifyGood(t *testing.T) {
	fs, _ := sample(t, true)
	var told int64
	v, err := Verify(context.Background(), "/s", Options{FS: fs}, func(n int64) {
		if n <= told {
			t.Errorf("progress goes from %d to %d", told, n)
		}
		told = n
	})
	must(t, err)
	want := Verification{
		Dir: "/s", Generations: 2, Segments: 4, Bases: 3, Bytes: 200 + 419_000 + 15_000,
		Damage: []*CorruptionError{}, Leftovers: []string{},
	}
	if d := cmp.Diff(want, v); d != "" || told != v.Bytes {
		t.Errorf("told %d (-want +got):\n%s", told, d)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cause := errors.New("enough")
	cancel(cause)
	if _, err := Verify(ctx, "/s", Options{FS: fs}, nil); !errors.Is(err, cause) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := Verify(context.Background(), "/none", Options{FS: fs}, nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

// Verify does not stop at the first damage.
func TestVerifyNamesAllDamage(t *testing.T) {
	fs, _ := sample(t, true)
	flip(9)(fs, "/s/manifest")
	flip(9)(fs, "/s/"+base1)
	flip(9)(fs, "/s/"+base2)
	cutTo(17)(fs, "/s/"+base3)
	flip(70_000)(fs, "/s/"+seg21)
	missing(fs, "/s/"+idx22)
	flip(-1)(fs, "/s/"+seg23)
	v, err := Verify(context.Background(), "/s", Options{FS: fs}, nil)
	must(t, err)
	var got []string
	for _, d := range v.Damage {
		got = append(got, place(d))
	}
	want := []string{"manifest@0", base1 + "@0", seg21 + "@65536", idx22 + "@0", seg23 + "@0", base2 + "@0", base3 + "@17"}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	missing(fs, "/s/"+gen2+"catalog")
	v, err = Verify(context.Background(), "/s", Options{FS: fs}, nil)
	must(t, err)
	if n := len(v.Damage); n != 3 || place(v.Damage[2]) != gen2+"catalog@0" {
		t.Errorf("without a catalog: %v", v.Damage)
	}
}

// While another process writes and removes, Verify sees no damage, and one that
// opens for reading gets in.
func TestVerifyWhileWriting(t *testing.T) {
	fs := newMemFS()
	s := mustOpen(t, fs, Options{SegmentBytes: 30_000, RetainLogBytes: 100_000, Fsync: FsyncAlways})
	g := begin(t, s, idA, 0)
	addBase(t, s, idA, 0, 100)
	stop := make(chan struct{})
	var rounds atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				v, err := Verify(context.Background(), "/s", Options{FS: fs}, nil)
				if err != nil || len(v.Damage) > 0 {
					t.Errorf("Verify: %v, %v", v.Damage, err)
				}
				r, err := OpenReadOnly("/s", Options{FS: fs})
				if err != nil {
					t.Error(err)
					continue
				}
				if err := checkLog(r.Head()); err != nil && !errors.Is(err, ErrOffsetGone) {
					t.Error(err)
				}
				_ = r.Close()
				rounds.Add(1)
			}
		})
	}
	for i := 1; rounds.Load() < 100 && !t.Failed(); i++ {
		off := repl.Offset(i * 7000)
		feed(t, s, off, 0, time.Now())
		if i%20 == 0 {
			addBase(t, s, idA, off, 1000)
		}
	}
	close(stop)
	wg.Wait()
	if g.First() == 1 {
		t.Error("nothing was removed")
	}
	must(t, s.Close())
}

func TestList(t *testing.T) {
	_, s := sample(t, false)
	l, err := s.List()
	must(t, err)
	if len(l.Generations) != 2 {
		t.Fatalf("%d generations", len(l.Generations))
	}
	g := l.Generations[0]
	want := GenerationListing{
		ID: 2, Dir: "gen-0000000000000002", Current: true, Head: true, Created: g.Created, History: history(idB),
		Bases: s.Head().Bases(), LogFirst: 1001, LogLast: 420_000, LogBytes: 419_000, LogFrom: at(45_750).Local(), LogTo: at(420_000).Local(), Fsynced: 355_000,
		Segments: []SegmentListing{
			{"log-00000000000003e9.seg", 1001, 180_000, 179_000, at(180_000).Local()},
			{"log-000000000002bf21.seg", 180_001, 355_000, 175_000, at(355_000).Local()},
			{"log-0000000000056ab9.seg", 355_001, 420_000, 65_000, at(420_000).Local()},
		},
	}
	if d := cmp.Diff(want, g); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if old := l.Generations[1]; old.Current || old.Head || old.Retired.IsZero() || old.LogLast != 300 {
		t.Errorf("old generation: %+v", old)
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewRegistry()
	fs := newMemFS()
	s := mustOpen(t, fs, Options{Registerer: reg, Fsync: FsyncNo})
	begin(t, s, idA, 50)
	feed(t, s, 150, 0, at(0))
	addBase(t, s, idA, 150, 1000)
	feed(t, s, 250, 0, at(0))
	change(fs, func(fs *memFS) { fs.readOnly = true })
	if err := s.Append([]byte("x")); !errors.Is(err, ErrDegraded) {
		t.Fatal(err)
	}
	want := `
# HELP sluice_store_bases Complete bases of the current generation.
# TYPE sluice_store_bases gauge
sluice_store_bases 1
# HELP sluice_store_base_bytes Size in bytes of the newest base of the current generation. Absent without one.
# TYPE sluice_store_base_bytes gauge
sluice_store_base_bytes 1000
# HELP sluice_store_committed_offset Offset of the last commit.
# TYPE sluice_store_committed_offset gauge
sluice_store_committed_offset 250
# HELP sluice_store_disk_bytes Bytes stored.
# TYPE sluice_store_disk_bytes gauge
sluice_store_disk_bytes{kind="base"} 1000
sluice_store_disk_bytes{kind="log"} 200
# HELP sluice_store_errors_total Disk operations that failed.
# TYPE sluice_store_errors_total counter
sluice_store_errors_total 1
# HELP sluice_store_first_offset Offset of the first byte of the log that is stored.
# TYPE sluice_store_first_offset gauge
sluice_store_first_offset 51
# HELP sluice_store_fsynced_offset Offset up to which the log is durable.
# TYPE sluice_store_fsynced_offset gauge
sluice_store_fsynced_offset 150
# HELP sluice_store_generations Generations stored.
# TYPE sluice_store_generations gauge
sluice_store_generations 1
# HELP sluice_store_state 1 for the state that the store is in, 0 for the others.
# TYPE sluice_store_state gauge
sluice_store_state{state="closed"} 0
sluice_store_state{state="disk failing"} 0
sluice_store_state{state="disk full"} 0
sluice_store_state{state="disk read-only"} 1
sluice_store_state{state="read-only"} 0
sluice_store_state{state="unsafe"} 0
sluice_store_state{state="writable"} 0
`
	names := []string{"sluice_store_bases", "sluice_store_base_bytes", "sluice_store_committed_offset", "sluice_store_disk_bytes",
		"sluice_store_errors_total", "sluice_store_first_offset", "sluice_store_fsynced_offset", "sluice_store_generations", "sluice_store_state"}
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	all, err := testutil.GatherAndCount(reg)
	must(t, err)
	if all != 18 { // those above, base_age_seconds and fsync_seconds
		t.Errorf("%d metrics", all)
	}
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("lint: %v, %v", problems, err)
	}
	change(fs, func(fs *memFS) { fs.readOnly = false })
	must(t, s.Close())
	must(t, mustOpen(t, fs, Options{Registerer: reg}).Close()) // registers again
}
