package topology

import "time"

// trips remembers how long the last answers of a node took.
type trips struct {
	last [32]time.Duration // 0 none
	next int
}

// note takes an answer into account, if took is above 0, and returns the
// shortest of the last ones: of what an answer takes that is the network's
// part, the rest is how busy the node was, or this machine.
func (t *trips) note(took time.Duration) (shortest time.Duration) {
	if took > 0 {
		t.last[t.next] = took
		t.next = (t.next + 1) % len(t.last)
	}
	for _, d := range t.last {
		if d > 0 && (shortest == 0 || d < shortest) {
			shortest = d
		}
	}
	return shortest
}
