package causal

import (
	"strings"
	"testing"

	"github.com/sluice-io/sluice/syncer/repl"
)

func TestLoss(t *testing.T) {
	id := func(c string) repl.ReplID { return repl.ReplID(strings.Repeat(c, repl.ReplIDLen)) }
	last := position{lineage: lineage{runID: "1", id: id("a")}, at: 1000, settled: 1000, acked: 500}
	for _, tc := range []struct {
		name      string
		last      position
		now       lineage
		acked     uint64
		some      bool
		survived  repl.Offset
		lost, may int64
	}{
		{"there was none before", position{}, lineage{runID: "1", id: id("a")}, 900, false, 0, 0, 0},
		{"the same history", last, lineage{runID: "1", id: id("a")}, 900, false, 0, 0, 0},
		{"its backlog expired", last, lineage{runID: "1", id: id("b")}, 500, false, 0, 0, 0},
		{"everything survived", last, lineage{runID: "2", id: id("b"), id2: id("a"), second: 1001}, 500, false, 1000, 0, 0},
		{"more than was sampled survived", last, lineage{runID: "2", id: id("b"), id2: id("a"), second: 1301}, 800, false, 1300, 0, 0},
		{"the tail may be lost", last, lineage{runID: "2", id: id("b"), id2: id("a"), second: 1101}, 800, true, 1100, 0, 200},
		{"lost for certain, and the tail may be", last, lineage{runID: "2", id: id("b"), id2: id("a"), second: 901}, 530, true, 900, 100, 30},
		{"what is missing was written by others", position{lineage: lineage{id: id("a")}, at: 1000, settled: 900, acked: 500},
			lineage{runID: "2", id: id("b"), id2: id("a"), second: 951}, 500, false, 950, 0, 0},
		{"it came back empty", last, lineage{runID: "3", id: id("c")}, 510, true, repl.UnknownOffset, 0, 10},
		{"a stranger", last, lineage{runID: "2", id: id("c"), id2: id("b"), second: 5000}, 500, true, repl.UnknownOffset, 0, 0},
	} {
		l, some := tc.last.loss(tc.now, tc.acked)
		if some != tc.some {
			t.Errorf("%s: told %t", tc.name, some)
		}
		if some && (l.Survived != tc.survived || l.Bytes != tc.lost || l.Uncertain != tc.may) {
			t.Errorf("%s: survived to %d, lost %d, uncertain %d; want %d, %d, %d", tc.name, l.Survived, l.Bytes, l.Uncertain, tc.survived, tc.lost, tc.may)
		}
	}
}
