package topology

import (
	"errors"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func itoa(n int) string { return strconv.Itoa(n) }

func says(master string, epoch uint64, replicas ...string) *sentinelReport {
	r := &sentinelReport{master: master + ":1", epoch: epoch}
	for _, name := range replicas {
		down := name[0] == '!'
		if down {
			name = name[1:]
		}
		r.replicas = append(r.replicas, sentinelReplica{name + ":1", down})
	}
	return r
}

func TestMergeReports(t *testing.T) {
	silent := &sentinelReport{err: errors.New("gone")}
	now := time.Unix(1000, 0)
	for _, tc := range []struct {
		name    string
		reports []*sentinelReport
		was     hint
		want    string
	}{
		{"nobody answers", []*sentinelReport{silent}, hint{master: "a:1", epoch: 3}, "a:1 3"},
		{"nobody has ever answered", []*sentinelReport{silent}, hint{}, " 0"},
		{"all agree", []*sentinelReport{says("a", 1), says("a", 1), silent}, hint{}, "a:1 1"},
		{"the higher epoch wins, though alone", []*sentinelReport{says("a", 1), says("a", 1), says("b", 2)}, hint{master: "a:1", epoch: 1}, "b:1 2"},
		{"one that is late", []*sentinelReport{says("a", 1), silent, silent}, hint{master: "b:1", epoch: 2}, "b:1 2"},
		{"two that are late, and the first to know is silent", []*sentinelReport{says("a", 1), says("a", 1), silent}, hint{master: "b:1", epoch: 2}, "b:1 2"},
		{
			"they are late for long", []*sentinelReport{says("a", 1), says("a", 1), silent},
			hint{master: "b:1", epoch: 2, lowerSince: now.Add(-lowerEpochAfter + 1)}, "b:1 2",
		},
		{
			"set up anew", []*sentinelReport{says("c", 0), says("c", 0), silent},
			hint{master: "b:1", epoch: 2, lowerSince: now.Add(-lowerEpochAfter)}, "c:1 0",
		},
		{
			"set up anew, but too few", []*sentinelReport{says("c", 0), silent, silent},
			hint{master: "b:1", epoch: 2, lowerSince: now.Add(-lowerEpochAfter)}, "b:1 2",
		},
		{"one epoch, two masters", []*sentinelReport{says("b", 1), says("a", 1), says("b", 1)}, hint{}, "b:1 1"},
		{"a tie", []*sentinelReport{says("b", 1), says("a", 1)}, hint{}, "a:1 1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			m := make(map[string]*sentinelReport)
			for i, r := range tc.reports {
				m[itoa(i)] = r
			}
			h := mergeReports(m, len(tc.reports), tc.was, now)
			if got := h.master + " " + itoa(int(h.epoch)); got != tc.want {
				t.Errorf("hint %q, want %q", got, tc.want)
			}
		})
	}
}

// TestLateSentinels has those that are late go on so, as one that was set up
// anew does, with and without a word of the first to know in between.
func TestLateSentinels(t *testing.T) {
	late := map[string]*sentinelReport{"1": says("a", 1), "2": says("a", 1), "3": {err: errors.New("gone")}}
	at := time.Unix(1000, 0)
	h := hint{master: "b:1", epoch: 2}
	merge := func(want string) {
		t.Helper()
		if h = mergeReports(late, 3, h, at); h.master != want {
			t.Fatalf("hint %q, want %q", h.master, want)
		}
	}
	merge("b:1")
	at = at.Add(lowerEpochAfter - time.Second)
	merge("b:1")
	late["3"] = says("b", 2) // begins the time anew
	merge("b:1")
	late["3"] = &sentinelReport{err: errors.New("gone again")}
	at = at.Add(2 * time.Second)
	merge("b:1")
	at = at.Add(lowerEpochAfter)
	merge("a:1")
}

func TestReplicasThatSentinelsDoNotReach(t *testing.T) {
	h := mergeReports(map[string]*sentinelReport{
		"1": says("a", 1, "b", "!c", "!d"), "2": says("a", 1, "b", "!c", "d"), "3": says("a", 1, "!b", "c"),
	}, 3, hint{}, time.Time{})
	want := map[string]bool{"b:1": false, "c:1": true, "d:1": false}
	if d := cmp.Diff(want, h.replicas); d != "" {
		t.Error(d)
	}
}

// TestHints drives a tracker by what sentinels and nodes say, in order.
func TestHints(t *testing.T) {
	named := func(master string, replicas ...string) hint {
		h := hint{master: master + ":1", replicas: map[string]bool{}}
		for _, r := range replicas {
			down := r[0] == '!'
			if down {
				r = r[1:]
			}
			h.replicas[r+":1"] = down
		}
		return h
	}
	for _, tc := range []struct {
		name  string
		steps []any // hint, observation, or a sketch of the View
	}{
		{"nobody is master before Sentinel has named one", []any{
			"- []",
		}},
		{"Sentinel names it, ROLE confirms", []any{
			named("a", "b"), "- []",
			seen("a", master(10, histX, "", "b")), "a []",
			seen("b", replica("a", linkConnected, 10, histX)), "a [b]",
		}},
		{"the deposed one gets no writes, whatever it says", []any{
			named("a", "b"), seen("a", master(10, histX, "", "b")), seen("b", replica("a", linkConnected, 10, histX)), "a [b]",
			named("b", "a"), "- [b]",
			seen("a", master(12, histX, "", "b")), "- [b]",
			seen("b", master(10, histY, histX)), "b []",
			seen("b", down), "- []",
			seen("a", master(14, histX, "")), "- []",
			seen("b", master(11, histY, histX)), "b []",
			seen("a", replica("b", linkConnected, 11, histY)), "b [a]",
		}},
		{"a promotion after a death is followed before Sentinel tells", []any{
			named("a", "b"), seen("a", master(10, histX, "", "b")), seen("b", replica("a", linkConnected, 10, histX)),
			seen("a", down), "- [b]",
			seen("b", master(10, histY, histX)), "b []",
			seen("a", master(10, histX, "")), "b []",
			named("b", "a"), "b []",
		}},
		{"Sentinel's choice wins over a promotion of another kind", []any{
			named("a", "b", "c"), seen("a", master(10, histX, "", "b", "c")),
			seen("b", replica("a", linkConnected, 10, histX)), seen("c", replica("a", linkConnected, 10, histX)),
			seen("a", down), seen("b", master(10, histY, histX)), "b []",
			named("c", "a", "b"), "- []",
			seen("b", master(12, histY, histX)), "- []",
			seen("c", master(10, histZ, histX)), "c []",
		}},
		{"two failovers that nobody here saw", []any{
			named("a", "b", "c"), seen("a", master(10, histX, "", "b", "c")),
			seen("a", down), seen("b", down), seen("c", down), "- []",
			named("c", "a", "b"), "- []",
			seen("c", master(30, histZ, histY)), "c []",
		}},
		{"replicas that most sentinels do not reach", []any{
			named("a", "b", "!c"), seen("a", master(10, histX, "", "b", "c")),
			seen("b", replica("a", linkConnected, 10, histX)), seen("c", replica("a", linkConnected, 10, histX)), "a [b]",
			named("a", "b", "c"), "a [b c]",
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			cfg := Config{Sentinel: SentinelConfig{Name: "m", Addrs: []string{"s:1"}}}
			cfg.setDefaults()
			tr := newTracker(&cfg)
			now := time.Unix(1000, 0)
			for i, step := range tc.steps {
				now = now.Add(100 * time.Millisecond)
				switch step := step.(type) {
				case hint:
					tr.obey(step, now)
				case observation:
					step.at = now
					tr.observe(step)
				case string:
					v := tr.refresh()
					got := "-"
					if v.Master != nil {
						got = v.Master.Addr[:1]
					}
					got += " ["
					for j, n := range v.Readable {
						if j > 0 {
							got += " "
						}
						got += n.Addr[:1]
					}
					if got += "]"; got != step {
						t.Fatalf("step %d: %q, want %q; %s", i, got, step, show(v))
					}
				}
			}
		})
	}
}
