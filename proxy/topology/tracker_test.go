package topology

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Histories.
var (
	histX = repl.ReplID(strings.Repeat("a", repl.ReplIDLen))
	histY = repl.ReplID(strings.Repeat("b", repl.ReplIDLen))
	histZ = repl.ReplID(strings.Repeat("c", repl.ReplIDLen))
)

var errGone = errors.New("connection refused")

// The builders of observations: nodes are a:1, b:1, ….
func seen(node string, edits ...func(*observation)) observation {
	o := observation{addr: node + ":1", runID: "run of " + node}
	for _, e := range edits {
		e(&o)
	}
	return o
}

func down(o *observation) { o.err = errGone }

func master(offset repl.Offset, hist, was repl.ReplID, lists ...string) func(*observation) {
	return func(o *observation) {
		o.role = &roleReply{role: RoleMaster, offset: offset, replicas: len(lists)}
		o.info = &replicationInfo{replID: hist, replID2: was, slaveOffset: -1}
		for _, l := range lists {
			o.info.replicas = append(o.info.replicas, l+":1")
		}
	}
}

func replica(of string, link string, offset repl.Offset, hist repl.ReplID) func(*observation) {
	return func(o *observation) {
		o.role = &roleReply{role: RoleReplica, masterAddr: of + ":1", link: link, offset: offset}
		o.info = &replicationInfo{replID: hist, slaveOffset: max(offset, 1)}
	}
}

// cached sets what INFO says of a replica's data while its link is down.
func cached(offset repl.Offset) func(*observation) {
	return func(o *observation) { o.info.slaveOffset = offset }
}

func noInfo(o *observation) { o.info = nil }

func ping(text string) func(*observation) { return func(o *observation) { o.ping = text } }

func refuse(text string) func(*observation) {
	return func(o *observation) { o.role, o.info, o.refusal = nil, nil, text }
}

// step is one observation, a second after the one before it, and the View
// after it: "master | node node(reason) …", the master left out of the nodes.
type step struct {
	saw  observation
	want string
}

func sketch(v *View) string {
	name := func(n *Node) string { return strings.TrimSuffix(n.Addr, ":1") }
	m := "-"
	if v.Master != nil {
		m = name(v.Master)
	}
	words := []string{m, "|"}
	for _, s := range v.States {
		switch {
		case s.Node == v.Master && s.Reason == "":
		case s.Reads:
			words = append(words, name(s.Node))
		default:
			words = append(words, fmt.Sprintf("%s(%s)", name(s.Node), s.Reason))
		}
	}
	return strings.Join(words, " ")
}

func TestTransitions(t *testing.T) {
	story := func(more ...step) []step { // a is master, b and c are its replicas
		return append([]step{
			{seen("a", master(100, histX, "", "b", "c")), "a | b(not asked yet) c(not asked yet)"},
			{seen("b", replica("a", "connected", 100, histX)), "a | b c(not asked yet)"},
			{seen("c", replica("a", "connected", 100, histX)), "a | b c"},
		}, more...)
	}
	for _, test := range []struct {
		name  string
		cfg   Config
		steps []step
	}{
		{"replica down and back", Config{}, story(
			step{seen("b", down), "a | b(down) c"},
			step{seen("b", replica("a", "connect", -1, histZ)), "a | b(link down) c"},
			step{seen("b", replica("a", "sync", -1, histZ)), "a | b(sync in progress) c"},
			step{seen("b", replica("a", "connected", -1, histX)), "a | b(offset unknown) c"},
			step{seen("b", replica("a", "connected", 120, histX), ping("LOADING Redis is loading")), "a | b(loading) c"},
			step{seen("b", replica("a", "connected", 120, histX)), "a | b c"},
		)},
		{"another process at the same address, which may not tell its history", Config{}, story(
			step{seen("b", down), "a | b(down) c"},
			step{seen("b", master(500, histZ, ""), noInfo, func(o *observation) { o.runID = "" }), "a | b(not a replica of the master) c"},
			step{seen("a", down), "- | a(down) b(not a replica of the master) c"},
		)},
		{"refusals", Config{}, story(
			step{seen("b", refuse("BUSY Redis is busy"), ping("BUSY Redis is busy")), "a | b(busy with a script) c"},
			step{seen("c", refuse("NOPERM no permissions to run the 'role' command")),
				"a | b(busy with a script) c(refused: NOPERM no permissions to run the 'role' command)"},
			step{seen("b", replica("a", "connected", 100, histX), ping("NOPERM no permissions to run 'ping'")),
				"a | b c(refused: NOPERM no permissions to run the 'role' command)"},
			step{seen("a", refuse("BUSY Redis is busy")), "a | a(busy with a script) b c(refused: NOPERM no permissions to run the 'role' command)"},
			step{seen("a", master(100, histX, ""), ping("MISCONF disk")), "a | b c(refused: NOPERM no permissions to run the 'role' command)"},
		)},
		{"a replica that goes elsewhere", Config{}, story(
			step{seen("b", replica("x", "connected", 500, histZ)), "a | b(not a replica of the master) c"},
			step{seen("c", master(100, histY, histX)), "a | b(not a replica of the master) c(not a replica of the master)"},
			step{seen("b", func(o *observation) {
				o.role = &roleReply{role: RoleUnknown, offset: -1}
			}), "a | b(neither master nor replica) c(not a replica of the master)"},
		)},
		{"a relay, even if named", Config{Replicas: []string{"c:1"}}, story(
			step{seen("b", replica("a", "connected", 100, histX), func(o *observation) { o.info.relay = true }),
				"a | b(a relay, which holds no data) c"},
			step{seen("c", replica("a", "connected", 100, histX), func(o *observation) { o.info.relay, o.info.unannounced = true, true }),
				"a | b(a relay, which holds no data) c(a relay, which holds no data)"},
		)},
		{"not announced, unless named", Config{Replicas: []string{"c:1"}}, story(
			step{seen("b", replica("a", "connected", 100, histX), func(o *observation) { o.info.unannounced = true }),
				"a | b(replica-announced is no) c"},
			step{seen("c", replica("a", "connected", 100, histX), func(o *observation) { o.info.unannounced = true }),
				"a | b(replica-announced is no) c"},
		)},
		{"limit in bytes, with hysteresis", Config{MaxLagBytes: 100}, story(
			step{seen("a", master(250, histX, "", "b", "c")), "a | b c"},
			step{seen("b", replica("a", "connected", 149, histX)), "a | b(lag 101 bytes over limit) c"},
			step{seen("b", replica("a", "connected", 150, histX)), "a | b(lag 101 bytes over limit) c"},
			step{seen("b", replica("a", "connected", 200, histX)), "a | b(lag 101 bytes over limit) c"},
			step{seen("b", replica("a", "connected", 201, histX)), "a | b c"},
			step{seen("c", replica("a", "connected", 150, histX)), "a | b c"},
		)},
		{"limit in time, with hysteresis", Config{MaxLag: 3 * time.Second}, story(
			step{seen("a", master(101, histX, "", "b", "c")), "a | b c"},                                  // at 3 s
			step{seen("b", replica("a", "connected", 100, histX)), "a | b c"},                             // 1 s behind
			step{seen("c", replica("a", "connected", 101, histX)), "a | b c"},                             //
			step{seen("a", master(150, histX, "", "b", "c")), "a | b c"},                                  // at 6 s
			step{seen("b", replica("a", "connected", 100, histX)), "a | b(lag 4.0 seconds over limit) c"}, //
			step{seen("a", master(200, histX, "", "b", "c")), "a | b(lag 4.0 seconds over limit) c"},      // at 8 s
			step{seen("b", replica("a", "connected", 149, histX)), "a | b(lag 4.0 seconds over limit) c"}, // 3 s
			step{seen("b", replica("a", "connected", 150, histX)), "a | b(lag 4.0 seconds over limit) c"}, // 2 s
			step{seen("b", replica("a", "connected", 200, histX)), "a | b c"},                             // none
		)},
		{"master lost: replicas in step go on", Config{}, story(
			step{seen("a", down), "- | a(down) b c"},
			step{seen("b", replica("a", "connect", -1, histX), cached(100)), "- | a(down) b c"},
			step{seen("c", replica("a", "sync", -1, histX)), "- | a(down) b c(sync in progress)"},
			step{seen("c", replica("a", "connect", -1, histX)), "- | a(down) b c(link down)"},
			step{seen("b", replica("a", "connect", -1, histX), cached(1)), "- | a(down) b(link down) c(link down)"},
			step{seen("a", master(0, histY, ""), ping("LOADING")), "- | a(loading) b(link down) c(link down)"},
			step{seen("a", master(200, histY, "")), "a | b(link down) c(link down)"},
			step{seen("b", replica("a", "connected", 200, histY)), "a | b c(link down)"},
		)},
		{"master up: a replica without a link is out", Config{}, story(
			step{seen("b", replica("a", "connect", -1, histX), cached(100)), "a | b c"}, // or is it the master?
			step{seen("a", master(100, histX, "", "b", "c")), "a | b(link down) c"},     // no
			step{seen("b", replica("a", "connecting", -1, histX), cached(100)), "a | b(link down) c"},
		)},
		{"master lost, seen by a replica first", Config{}, story(
			step{seen("b", replica("a", "connect", -1, histX), cached(100)), "a | b c"},
			step{seen("a", down), "- | a(down) b c"},
		)},
		{"master lost, one promoted", Config{}, story(
			step{seen("a", down), "- | a(down) b c"},
			step{seen("b", master(110, histY, histX)), "b | a(down) c(not a replica of the master)"},
			step{seen("c", replica("b", "connected", 115, histY)), "b | a(down) c"},
			step{seen("a", master(0, histZ, "")), "b | a(not a replica of the master) c"}, // the old one is back, and nobody's master
			step{seen("b", down), "- | b(down) a(not a replica of the master) c"},         // and still is not
			step{seen("b", master(0, histZ, "")), "b | a(not a replica of the master) c(not a replica of the master)"},
		)},
		{"master lost, a stray master is not taken for it", Config{Replicas: []string{"s:1"}}, []step{
			{seen("a", master(100, histX, "")), "a | s(not asked yet)"},
			{seen("s", master(9999, histZ, histY, "q")), "a | s(not a replica of the master)"},
			{seen("a", down), "- | a(down) s(not a replica of the master)"},
		}},
		{"master demoted", Config{}, story(
			step{seen("b", master(110, histY, histX)), "a | b(not a replica of the master) c"},
			step{seen("a", replica("b", "connect", -1, histX)), "b | a(link down) c(not a replica of the master)"},
			step{seen("a", replica("b", "connected", 110, histY)), "b | a c(not a replica of the master)"},
			step{seen("c", replica("b", "connected", 110, histY)), "b | a c"},
		)},
		{"master demoted before its successor is promoted", Config{}, story(
			step{seen("a", replica("b", "handshake", -1, histX)), "- | a(link down) b c"},
			step{seen("b", master(110, histY, histX)), "b | a(link down) c(not a replica of the master)"},
		)},
		{"successor known by another name", Config{}, story(
			step{seen("a", replica("name-of-b", "connect", -1, histX)), "- | a(link down) b c name-of-b(not asked yet)"},
			step{seen("name-of-b", down), "- | a(link down) b c name-of-b(down)"},
			step{seen("b", master(110, histY, histX)), "b | a(link down) c(not a replica of the master) name-of-b(down)"},
		)},
		{"configured is a replica of a replica", Config{}, []step{
			{seen("a", replica("b", "connected", 50, histX)), "- | a(not a replica of the master) b(not asked yet)"},
			{seen("b", replica("c", "connected", 50, histX)), "- | a(not a replica of the master) b(not a replica of the master) c(not asked yet)"},
			{seen("c", master(50, histX, "", "b")), "c | a b"},
		}},
		{"a ring of replicas", Config{}, []step{
			{seen("a", replica("b", "connect", -1, histX)), "- | a(link down) b(not asked yet)"},
			{seen("b", replica("a", "connect", -1, histX)), "- | a(link down) b(link down)"},
		}},
		{"start without the configured one", Config{Replicas: []string{"b:1", "c:1"}}, []step{
			{seen("b", master(110, histY, histX)), "- | a(not asked yet) b(not a replica of the master) c(not asked yet)"},
			{seen("c", replica("b", "connected", 110, histY)), "- | a(not asked yet) b(not a replica of the master) c(not a replica of the master)"},
			{seen("a", down), "b | a(down) c"},
		}},
		{"start without the configured one, the other is no successor", Config{Replicas: []string{"b:1"}}, []step{
			{seen("b", master(0, histY, "")), "- | a(not asked yet) b(not a replica of the master)"},
			{seen("a", down), "- | a(down) b(not a replica of the master)"},
		}},
		{"one server by two addresses", Config{}, story(
			step{seen("c", replica("a", "connected", 100, histX), func(o *observation) { o.runID = "run of b" }), "a | b"},
			step{seen("b", down), "a | b(down) c"},
			step{seen("b", replica("a", "connected", 100, histX)), "a | b"},
			step{seen("b", replica("a", "connected", 100, histX), func(o *observation) { o.runID = "another" }), "a | b c"},
		)},
		{"replica of a replica", Config{}, story(
			step{seen("b", replica("a", "connected", 100, histX), func(o *observation) { o.info.replicas = []string{"d:1"} }),
				"a | b c d(not asked yet)"},
			step{seen("d", replica("b", "connected", 100, histX)), "a | b c d"},
			step{seen("b", replica("x", "connected", 7, histZ), func(o *observation) { o.info.replicas = []string{"e:1"} }),
				"a | b(not a replica of the master) c d"},
		)},
	} {
		t.Run(test.name, func(t *testing.T) {
			cfg := test.cfg
			cfg.Master = "a:1"
			cfg.setDefaults()
			tr := newTracker(&cfg)
			before := tr.view
			for i, s := range test.steps {
				s.saw.at = time.Unix(int64(1000+i), 0)
				tr.observe(s.saw)
				v := tr.refresh()
				if got := sketch(v); got != s.want {
					t.Fatalf("step %d (%s): have %q, want %q", i, s.saw.addr, got, s.want)
				}
				changed := v != before
				if changed && v.Epoch != before.Epoch+1 || tr.refresh() != v {
					t.Errorf("step %d: epoch %d after %d", i, v.Epoch, before.Epoch)
				}
				before = v
			}
		})
	}
}

func TestAViewIsMadeOnlyAtAChange(t *testing.T) {
	cfg := Config{Master: "a:1", MaxLagBytes: 10}
	cfg.setDefaults()
	tr := newTracker(&cfg)
	feed := func(i int, o observation) *View {
		o.at = time.Unix(1000, 0).Add(time.Duration(i) * time.Millisecond)
		tr.observe(o)
		return tr.refresh()
	}
	feed(0, seen("a", master(1000, histX, "", "b")))
	v := feed(1, seen("b", replica("a", "connected", 900, histX)))
	for i := range 50 {
		feed(2+2*i, seen("a", master(repl.Offset(1000+i), histX, ""), noInfo))
		if got := feed(3+2*i, seen("b", replica("a", "connected", 900, histX), noInfo)); got != v {
			t.Fatalf("a moving lag made a new View: %s", sketch(got))
		}
	}
	b := tr.byAddr["b:1"].node
	if b.LagBytes() != 149 || b.LagSeconds() <= 0 || b.Offset() != 900 || b.ReplID() != histX {
		t.Errorf("node: lag %d bytes, %v seconds, offset %d", b.LagBytes(), b.LagSeconds(), b.Offset())
	}
	if a := tr.byAddr["a:1"].node; a.LagBytes() != 0 || a.LagSeconds() != 0 || a.Role() != RoleMaster {
		t.Errorf("master: lag %d bytes, %v seconds", a.LagBytes(), a.LagSeconds())
	}
	if x := (&Node{Addr: "x:1"}); x.Offset() != repl.UnknownOffset || x.LagBytes() != -1 || x.LagSeconds() != -1 || x.Up() || !x.SampledAt().IsZero() {
		t.Error("the zero Node knows something")
	}
}

// TestLagGoesOnWhileDown: a replica that does not answer falls behind, from what
// it last had; its verdict waits for an answer, and a promoted node's is unknown.
func TestLagGoesOnWhileDown(t *testing.T) {
	cfg := Config{Master: "a:1", MaxLagBytes: 500}
	cfg.setDefaults()
	tr := newTracker(&cfg)
	feed := func(second int, o observation) {
		o.at = time.Unix(1000+int64(second), 0)
		tr.observe(o)
	}
	feed(0, seen("a", master(1000, histX, "", "b")))
	feed(1, seen("b", replica("a", "connected", 1000, histX)))
	b := tr.byAddr["b:1"].node
	if b.LagBytes() != 0 || b.LagSeconds() != 0 {
		t.Fatalf("before: %d bytes, %v s", b.LagBytes(), b.LagSeconds())
	}
	feed(2, seen("a", master(1700, histX, ""), noInfo))
	feed(4, observation{addr: "b:1", err: errors.New("no answer")})
	if b.LagBytes() != 700 || b.LagSeconds() != 2 || b.Offset() != repl.UnknownOffset || b.Up() {
		t.Errorf("down: %d bytes, %v s, offset %d", b.LagBytes(), b.LagSeconds(), b.Offset())
	}
	if tr.byAddr["b:1"].overBytes {
		t.Error("a lag that nobody has told was held against the replica")
	}
	feed(6, observation{addr: "b:1", err: errors.New("no answer")})
	if b.LagSeconds() != 4 {
		t.Errorf("down for longer: %v s", b.LagSeconds())
	}
	feed(7, seen("b", replica("a", "connected", 1700, histX)))
	if b.LagBytes() != 0 || b.LagSeconds() != 0 {
		t.Errorf("back: %d bytes, %v s", b.LagBytes(), b.LagSeconds())
	}
	feed(8, observation{addr: "b:1", err: errors.New("no answer")})
	feed(9, seen("a", master(1800, histY, histX)))
	feed(10, observation{addr: "b:1", err: errors.New("no answer")})
	if b.LagBytes() != -1 || b.LagSeconds() != -1 {
		t.Errorf("another history: %d bytes, %v s", b.LagBytes(), b.LagSeconds())
	}
}

func TestForgetting(t *testing.T) {
	cfg := Config{Master: "a:1", Replicas: []string{"n:1"}, ForgetAfter: 10 * time.Second}
	cfg.setDefaults()
	tr := newTracker(&cfg)
	now := time.Unix(1000, 0)
	feed := func(after time.Duration, o observation) {
		now = now.Add(after)
		o.at = now
		tr.observe(o)
		tr.refresh()
	}
	expect := func(what string, want ...string) {
		t.Helper()
		var got []string
		for _, m := range tr.expire(now) {
			got = append(got, m.node.Addr)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	feed(0, seen("a", master(100, histX, "", "b", "c", "n")))
	feed(0, seen("b", replica("a", "connected", 100, histX)))
	feed(0, seen("c", replica("a", "connected", 100, histX)))
	node := tr.byAddr["b:1"].node
	feed(0, seen("b", down))
	feed(0, seen("n", down))
	feed(9*time.Second, seen("a", master(100, histX, "", "c")))
	expect("within the grace")
	feed(2*time.Second, seen("a", down))
	feed(time.Hour, seen("a", down))
	expect("while no master can list anybody")
	feed(0, seen("a", master(100, histX, "")))
	expect("down and not listed", "b:1") // c is up, n is named
	feed(0, seen("b", replica("a", "connected", 100, histX)))
	if got := sketch(tr.refresh()); got != "a | c n(down)" {
		t.Errorf("after it was forgotten: %s", got)
	}
	feed(0, seen("a", master(100, histX, "", "b")))
	if tr.byAddr["b:1"].node != node || len(tr.nodes) != 4 {
		t.Error("a node that comes back has another *Node")
	}
	feed(0, seen("b", replica("a", "connected", 100, histX)))
	feed(0, seen("c", down))
	feed(9*time.Second, seen("a", master(100, histX, "")))
	expect("down for less than the grace")
	feed(time.Second, seen("a", master(100, histX, "")))
	expect("c, at last", "c:1")
}
