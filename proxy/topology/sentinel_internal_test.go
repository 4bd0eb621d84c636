package topology

import (
	"context"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp/localredis"
)

// TestDeadSentinelsMakeRoom: sentinels that have come and gone under other
// addresses, which those that live go on naming, do not keep a new one out.
func TestDeadSentinelsMakeRoom(t *testing.T) {
	addrs := make([]string, maxSentinels+2) // nobody listens there
	for i := range addrs {
		port, err := localredis.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		addrs[i] = "127.0.0.1:" + itoa(port)
	}
	configured, living, more := addrs[0], addrs[1], addrs[maxSentinels:]
	s := NewStatic(Config{Sentinel: SentinelConfig{Name: "m", Addrs: []string{configured}}})
	ctx, cancel := context.WithCancel(t.Context())
	defer s.stopAll()
	defer cancel()
	tell := func(down bool, others ...string) (known []string) {
		r := &sentinelReport{addr: living}
		for _, addr := range others {
			r.others = append(r.others, otherSentinel{addr, down})
		}
		s.heard(ctx, r)
		return slices.Sorted(maps.Keys(s.watchers))
	}

	s.watchSentinel(ctx, configured)
	full := slices.Sorted(slices.Values(addrs[:maxSentinels]))
	if d := cmp.Diff(full, tell(false, addrs[1:]...)); d != "" {
		t.Fatalf("one that has not been asked yet has made room: %s", d)
	}
	for failed := map[string]bool{}; len(failed) < maxSentinels; {
		r := <-s.reported
		failed[r.addr] = r.err != nil
		s.heard(ctx, r)
	}
	if d := cmp.Diff(full, tell(true, more...)); d != "" {
		t.Errorf("one that nobody reaches has taken a place: %s", d)
	}
	now := tell(false, more...)
	for _, addr := range append(more, configured, living) {
		if !slices.Contains(now, addr) {
			t.Errorf("%s is not among %v", addr, now)
		}
	}
	if len(now) != maxSentinels || len(s.sentinels.reports) > maxSentinels {
		t.Errorf("%d are known, with %d reports; want %d", len(now), len(s.sentinels.reports), maxSentinels)
	}
}
