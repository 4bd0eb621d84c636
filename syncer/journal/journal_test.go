package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// told returns what is remembered, the newest first, without times.
func told(j *Journal) (list []string) {
	for _, e := range j.Events() {
		list = append(list, fmt.Sprintf("%d %s %s %s", e.Seq, e.Kind, e.Node, e.Text))
	}
	return list
}

// TestFailuresAreToldOnce: a link that is tried for an hour is down once, and so
// is a base that nobody gives.
func TestFailuresAreToldOnce(t *testing.T) {
	j := &Journal{}
	now := time.Unix(1, 0)
	for _, e := range []struct {
		kind Kind
		text string
	}{
		{LinkDown, "refused"}, {LinkDown, "refused again"}, {BaseFailed, "a"}, {LinkUp, "here"}, {BaseFailed, "b"},
		{LinkDown, "reset"}, {Base, "taken"}, {BaseFailed, "c"}, {StoreDown, "full"}, {StoreDown, "read-only"},
	} {
		j.Add(now, e.kind, "m", e.text)
	}
	want := []string{
		"8 store_down m read-only", "7 store_down m full", "6 base_failed m c", "5 base m taken",
		"4 link_down m reset", "3 link_up m here", "2 base_failed m a", "1 link_down m refused",
	}
	if d := cmp.Diff(want, told(j)); d != "" {
		t.Error(d)
	}
	if e := j.Events()[0]; !e.Time.Equal(now) {
		t.Errorf("it happened at %s", e.Time)
	}
}

// TestBounded: the oldest go.
func TestBounded(t *testing.T) {
	j := &Journal{}
	for i := range 3 * Size {
		j.Add(time.Time{}, PartialResync, "r", fmt.Sprint(i))
	}
	list := j.Events()
	if len(list) != Size || cap(j.events) > 2*Size || list[0].Seq != 3*Size || list[Size-1].Seq != 2*Size+1 {
		t.Errorf("%d events in room for %d, from %v to %v", len(list), cap(j.events), list[0], list[len(list)-1])
	}
	list[0].Text = "changed"
	if j.Events()[0].Text == "changed" {
		t.Error("Events hands out what it remembers")
	}
	var none *Journal
	none.Add(time.Time{}, Base, "", "")
	if none.Events() != nil {
		t.Error("a nil journal remembers something")
	}
}
