package topology

import (
	"testing"
	"time"
)

func TestTripsTellTheShortestOfLate(t *testing.T) {
	var tr trips
	if got := tr.note(0); got != 0 {
		t.Errorf("nothing is known, and yet %v", got)
	}
	tr.note(3 * time.Millisecond)
	tr.note(time.Millisecond)
	if got := tr.note(time.Second); got != time.Millisecond {
		t.Errorf("shortest %v, want 1ms", got)
	}
	if got := tr.note(0); got != time.Millisecond {
		t.Errorf("a failure counts: %v", got)
	}
	var got time.Duration
	for range len(tr.last) { // the way has become longer
		got = tr.note(5 * time.Millisecond)
	}
	if got != 5*time.Millisecond {
		t.Errorf("shortest %v, want 5ms", got)
	}
}
