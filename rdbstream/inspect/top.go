package inspect

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/sluice-io/sluice/rdbstream"
)

// topKeys keeps the n largest keys: a heap with the smallest of them first.
type topKeys struct {
	n    int
	keys []Key
}

var _ heap.Interface = (*topKeys)(nil)

// Len is how many there are.
func (t *topKeys) Len() int { return len(t.keys) }

// Less puts the smallest first.
func (t *topKeys) Less(i, j int) bool { return larger(t.keys[j], t.keys[i]) < 0 }

// Swap swaps two.
func (t *topKeys) Swap(i, j int) { t.keys[i], t.keys[j] = t.keys[j], t.keys[i] }

// Push appends a Key.
func (t *topKeys) Push(k any) { t.keys = append(t.keys, k.(Key)) }

// Pop takes the last.
func (t *topKeys) Pop() any {
	k := t.keys[len(t.keys)-1]
	t.keys = t.keys[:len(t.keys)-1]
	return k
}

// add keeps r if it is among the largest so far.
func (t *topKeys) add(r *rdbstream.Record) {
	switch {
	case len(t.keys) < t.n:
		heap.Push(t, keyOf(r))
	case t.n > 0 && r.Size > t.keys[0].Bytes:
		t.keys[0] = keyOf(r)
		heap.Fix(t, 0)
	}
}

// larger orders by size, largest first, then by database and name.
func larger(a, b Key) int {
	return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.DB, b.DB), cmp.Compare(a.Name, b.Name))
}

func (t *topKeys) sorted() []Key {
	slices.SortFunc(t.keys, larger)
	return slices.Concat([]Key{}, t.keys)
}
