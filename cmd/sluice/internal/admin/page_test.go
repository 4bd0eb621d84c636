package admin

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/browsertest"
	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/syncer"
	"github.com/sluice-io/sluice/syncer/downstream"
	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// crowded is a status with something of everything, and large numbers.
func crowded(at time.Time) Status {
	const offset = 1 << 50
	node := func(addr, role, follows string, up, reads bool, reason string, lag int64, seconds float64, n uint64) proxy.NodeStatus {
		st := proxy.NodeStatus{Address: addr, Role: role, Follows: follows, Up: up, Reads: reads, Reason: reason,
			Offset: offset - lag, LagBytes: lag, LagSeconds: seconds, Commands: 3 * n, ByClass: proxy.ClassCounts{Read: n, Write: n, Other: n}}
		if lag < 0 {
			st.Offset = -1
		}
		return st
	}
	n := uint64(at.Unix() % 1e6)
	m := "master-0.redis.production.svc.cluster.local:6379"
	st := Status{Time: at, Version: "v1.2.3", Status: proxy.Status{
		Ready: true, Epoch: 1234, Started: at.Add(-40 * time.Hour), Clients: 9990, Listeners: []string{"tcp 127.0.0.1:6380"},
		Nodes: []proxy.NodeStatus{
			node(m, "master", "", true, false, "", 0, 0, 100_000*n),
			node("10.0.0.2:6379", "replica", m, true, true, "", 34, 0.004, 900_000*n),
			node("10.0.0.3:6379", "replica", m, true, false, "lag 68719476736 bytes over limit", 1<<36, 12.5, 3*n),
			node("[2001:db8:85a3:8d3:1319:8a2e:370:7348]:16379", "replica", "10.0.0.2:6379", true, true, "", 120, 0.01, 700*n),
			node("10.0.0.4:6379", "replica", m, false, false, "down", -1, -1, 0),
			node("10.0.0.5:6379", "unknown", "", false, false, "not asked yet", -1, -1, 0),
			node("10.0.0.9:6379", "replica", "10.0.0.8:6390", true, true, "", 12, 0, 10*n),
		},
		Sentinels: []proxy.SentinelStatus{{Address: "10.0.0.7:26379", Up: true}, {Address: "10.0.0.6:26379", Error: "connection refused"}},
		Traffic:   proxy.TrafficStatus{Routed: map[string]uint64{}, Latency: proxy.LatencyStatus{Bounds: []float64{0.001, 0.01}, Counts: []uint64{90 * n, 10 * n, 0}}},
	}}
	for r := range route.NumReasons {
		st.Traffic.Routed[r.String()] = n * 1000
	}
	st.Traffic.Routed["replica"] = 1 << 40 * n / 1000
	for i, kind := range []topology.EventKind{topology.EventFailover, topology.EventMasterLost, topology.EventDown, topology.EventResync, topology.EventEjected, topology.EventUp, topology.EventReads, topology.EventKnown, topology.EventForgotten, topology.EventMaster} {
		st.Events = append(st.Events, topology.Event{Seq: uint64(10 - i), Time: at.Add(-time.Duration(i) * time.Minute), Kind: kind, Node: m, Text: "is the master now, in place of 10.0.0.2:6379, after 2.0 s without one"})
	}
	var events []journal.Event
	for i, kind := range journal.Kinds() {
		events = append(events, journal.Event{Seq: uint64(10 - i), Time: at.Add(-time.Duration(i)*time.Minute - 30*time.Second), Kind: kind, Node: m, Text: "full resync from the base at offset 1125899906842624 of 8589934592 bytes: the replica's history is another one"})
	}
	st.Relay = &syncer.Status{Ready: true, Events: events,
		Link:  upstream.Status{State: "connected", Master: m, Received: offset, Committed: offset - 10, Acked: offset - 20, Buffered: 10},
		Store: syncer.StoreStatus{Dir: "/var/lib/sluice", State: "writable", Generations: 2, First: offset - 1<<32, Committed: offset - 10, Fsynced: offset - 1<<30, LogBytes: 1 << 32, Base: &syncer.BaseStatus{Offset: offset - 1<<31, Bytes: 1 << 33, Time: at.Add(-time.Hour), Source: "replica 10.0.0.2:6379"}},
		Downstream: &downstream.Status{Address: "10.0.0.8:6390", Replicas: []downstream.Replica{
			{Address: "10.0.0.9:6379", State: "online", Offset: offset - 12, Lag: 12},
			{Address: "10.0.0.10:6379", State: "transfer", Offset: -1, Lag: -1, Base: 1 << 33, BaseOut: 1 << 31},
		}},
	}
	return st
}

// pageOf serves what status returns, with 15 minutes of history.
func pageOf(t *testing.T, status func(time.Time) Status) string {
	t.Helper()
	s := New(Options{Listen: "127.0.0.1:0", Gatherer: NewRegistry("v", "r", "g"), Version: "v1.2.3", Status: func() Status { return status(time.Now()) }})
	now := time.Now()
	for at := now.Add(-historySpan); at.Before(now); at = at.Add(historyStep) {
		st := status(at)
		s.recorder.observe(&st.Status, at)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(t.Context()); err != nil && t.Context().Err() == nil {
			t.Error(err)
		}
	})
	return "http://" + s.Addr().String() + PagePath
}

var views = map[string]browsertest.View{
	"wide light": {Width: 1280, Height: 900}, "wide dark": {Width: 1280, Height: 900, Dark: true},
	"narrow light": {Width: 400, Height: 860}, "narrow dark": {Width: 400, Height: 860, Dark: true},
	"between": {Width: 900, Height: 860},
}

// TestPageLayout: with something of everything on the page, nothing overlaps or
// is wider than the window, and nothing is asked of another host.
func TestPageLayout(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser: not with -short")
	}
	b := browsertest.Start(t)
	p := b.Open(t, pageOf(t, crowded), views["wide light"])
	p.Until(`document.querySelectorAll('#tree li').length === 9 && document.querySelector('#s-read path.line')?.getAttribute('d').length > 1000`)
	for name, v := range views {
		p.Look(v)
		p.Until(fmt.Sprintf("innerWidth === %d", v.Width))
		for _, flaw := range p.Flaws() {
			t.Errorf("%s: %s", name, flaw)
		}
		p.Shot("crowded " + name)
	}
	depth := browsertest.Eval[int](p, `document.querySelectorAll('#tree ul ul li').length`)
	if depth != 3 { // the replica of a replica, and two behind the relay
		t.Errorf("%d nodes are two levels below the master, want 3", depth)
	}
	background := `getComputedStyle(document.body).backgroundColor`
	p.Look(views["wide light"])
	light := browsertest.Eval[string](p, background)
	p.Click("#theme") // auto -> light
	p.Click("#theme") // light -> dark
	dark := browsertest.Eval[string](p, background)
	if light == dark {
		t.Errorf("the theme button leaves the background %s", dark)
	}
	if got := p.Problems(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}
}

// TestPageIsItsOwn: the files name no other host, and the policy lets none in.
func TestPageIsItsOwn(t *testing.T) {
	h := New(Options{Gatherer: NewRegistry("v", "r", "g"), Status: func() Status { return Status{} }}).Handler()
	files, err := os.ReadDir("page")
	if err != nil {
		t.Fatal(err)
	}
	paths := []string{PagePath}
	for _, f := range files {
		if f.Name() != "index.html" {
			paths = append(paths, PagePath+"/"+f.Name())
		}
	}
	for _, path := range paths {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != http.StatusOK || w.Body.Len() == 0 || w.Header().Get("Content-Type") == "" {
			t.Errorf("GET %s: %d, %d bytes of %q", path, w.Code, w.Body.Len(), w.Header().Get("Content-Type"))
		}
		policy := w.Header().Get("Content-Security-Policy")
		if !strings.HasPrefix(policy, "default-src 'none';") || strings.Contains(policy, "unsafe") || strings.Contains(policy, "http") {
			t.Errorf("%s has the policy %q", path, policy)
		}
		body := strings.ReplaceAll(w.Body.String(), "http://www.w3.org/2000/svg", "") // a name, not an address
		if m := regexp.MustCompile(`(?i)(https?:)?//[a-z0-9-]+\.[a-z]`).FindString(body); m != "" {
			t.Errorf("%s names another host: %s", path, m)
		}
	}
}

// TestPageWordsEveryReason: a reason or event that the code has and the page has
// no words for would be missing there.
func TestPageWordsEveryReason(t *testing.T) {
	script, err := pageFiles.ReadFile("page/page.js")
	if err != nil {
		t.Fatal(err)
	}
	for r := range route.NumReasons {
		if !strings.Contains(string(script), "', '"+r.String()+"', '") {
			t.Errorf("page.js has no words for the reason %s", r)
		}
	}
	for _, kind := range []topology.EventKind{topology.EventKnown, topology.EventForgotten, topology.EventDown, topology.EventUp, topology.EventReads,
		topology.EventEjected, topology.EventResync, topology.EventMasterLost, topology.EventMaster, topology.EventFailover} {
		if !strings.Contains(string(script), " "+string(kind)+": ['") {
			t.Errorf("page.js has no words for the event %s", kind)
		}
	}
	for _, kind := range journal.Kinds() {
		if !strings.Contains(string(script), " "+string(kind)+": ['") {
			t.Errorf("page.js has no words for the relay's event %s", kind)
		}
	}
}
