package topology

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// diary has a tracker see what happens, a second apart, and returns what its
// journal says of it, the oldest first.
func diary(cfg Config, saw ...observation) (*tracker, []string) {
	cfg.Master = "a:1"
	cfg.setDefaults()
	tr, j := newTracker(&cfg), NewJournal()
	t0 := time.Unix(1000, 0)
	j.Observe(tr.refresh(), t0)
	for i, o := range saw {
		o.at = t0.Add(time.Duration(i+1) * time.Second)
		tr.observe(o)
		j.Observe(tr.refresh(), o.at)
	}
	var lines []string
	for _, e := range j.Events() {
		lines = append([]string{fmt.Sprintf("%d %s %s: %s", e.Time.Unix()-1000, strings.TrimSuffix(e.Node, ":1"), e.Kind, e.Text)}, lines...)
	}
	return tr, lines
}

func TestJournalTellsAFailover(t *testing.T) {
	_, got := diary(Config{},
		seen("a", master(100, histX, "", "b", "c")),
		seen("b", replica("a", "connected", 100, histX)),
		seen("c", replica("a", "connected", 100, histX)),
		seen("a", down),
		seen("a", down),
		seen("b", master(100, histY, histX)),
		seen("c", replica("b", "connected", 120, histY)),
		seen("a", replica("b", "sync", -1, histY)),
		seen("a", replica("b", "connected", 120, histY)),
	)
	want := []string{
		"0 a known: became known",
		"1 b known: became known",
		"1 c known: became known",
		"1 a master: is the master",
		"2 b reads: gets reads",
		"3 c reads: gets reads",
		"4 a down: master does not answer",
		"4 a master_lost: master lost: writes wait for a new one",
		"6 c ejected: gets no reads any more: not a replica of the master",
		"6 b failover: is the master now, in place of a:1, after 2.0 s without one",
		"7 c reads: gets reads",
		"8 a resync: full resync: it loads a copy from its master, and gets no reads meanwhile",
		"9 a reads: gets reads",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestJournalTellsOfReplicas(t *testing.T) {
	_, got := diary(Config{MaxLagBytes: 100},
		seen("a", master(100, histX, "", "b")),
		seen("b", down),
		seen("b", replica("a", "connect", -1, histX)),
		seen("b", replica("a", "connected", 100, histX)),
		seen("a", master(250, histX, "", "b")),
		seen("b", replica("a", "connected", 149, histX)),
		seen("b", replica("a", "connected", 150, histX)), // still above half of the limit
		seen("b", replica("a", "connected", 250, histX)),
		seen("a", down),
		seen("a", master(250, histX, "", "b")),
	)
	want := []string{
		"0 a known: became known",
		"1 b known: became known",
		"1 a master: is the master",
		"2 b down: node does not answer",
		"3 b up: replica answers again; no reads yet: link down",
		"4 b reads: gets reads",
		"6 b ejected: gets no reads any more: lag 101 bytes over limit",
		"8 b reads: gets reads",
		"9 a down: master does not answer",
		"9 a master_lost: master lost: writes wait for a new one",
		"10 a up: master answers again",
		"10 a master: is the master again, after 1.0 s without one",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestJournalForgets(t *testing.T) {
	j := NewJournal()
	n := newNode(0, "a:1")
	with := &View{States: []NodeState{{Node: n}}}
	for i := range 2 * journalSize {
		v := with
		if i%2 == 1 {
			v = &View{}
		}
		j.Observe(v, time.Unix(int64(i), 0))
	}
	list := j.Events()
	if len(list) != journalSize || cap(j.events) > 2*journalSize {
		t.Fatalf("%d events, room for %d, want %d", len(list), cap(j.events), journalSize)
	}
	for i, e := range list {
		if want := uint64(2*journalSize - i); e.Seq != want || e.Time.Unix() != int64(want)-1 {
			t.Fatalf("event %d from the newest is number %d of second %d, want number %d", i, e.Seq, e.Time.Unix(), want)
		}
	}
	if list[0].Kind != EventForgotten || list[1].Kind != EventKnown {
		t.Errorf("the last two are %v", list[:2])
	}
}

func TestWhomAReplicaFollows(t *testing.T) {
	elsewhere := func(o *observation) { o.role.masterAddr = "nat:9" }
	tr, _ := diary(Config{},
		seen("a", master(100, histX, "", "b", "c")),
		seen("b", replica("a", "connected", 100, histX), func(o *observation) { o.info.replicas = []string{"d:1"} }),
		seen("c", replica("a", "connected", 100, histX), elsewhere), // knows a by a name of its own
		seen("d", replica("b", "connected", 100, histX)),
		seen("e", replica("a", "connected", 100, histX)), // is not known: ignored
		seen("d", down),
	)
	for node, want := range map[string]string{"a": "", "b": "a:1", "c": "a:1", "d": "b:1"} {
		if got := tr.byAddr[node+":1"].node.Follows(); got != want {
			t.Errorf("%s follows %q, want %q", node, got, want)
		}
	}
	tr.observe(seen("c", replica("x", "connected", 100, histX))) // a still lists c, and x is not known
	tr.observe(seen("a", master(100, histX, "", "b")))
	tr.observe(seen("c", replica("x", "connected", 100, histX)))
	if got := tr.byAddr["c:1"].node.Follows(); got != "x:1" {
		t.Errorf("c follows %q, want what it says itself", got)
	}
	if got := (&Node{}).Follows(); got != "" {
		t.Errorf("the zero Node follows %q", got)
	}
}
