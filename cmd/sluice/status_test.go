package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/syncer"
	"github.com/sluice-io/sluice/syncer/journal"
)

var someStatus = admin.Status{Status: proxy.Status{
	Ready: true, Epoch: 3, Clients: 12, Listeners: []string{"tcp 127.0.0.1:6380", "unix /s"},
	Nodes: []proxy.NodeStatus{
		{Address: "127.0.0.1:6401", Role: "master", Up: true, Offset: 1234, Commands: 7},
		{Address: "127.0.0.1:6402", Role: "replica", Up: true, Reads: true, Offset: 1200, LagBytes: 34, LagSeconds: 0.0125, Commands: 99},
		{Address: "127.0.0.1:6403", Role: "unknown", Reason: "connection refused", Offset: -1, LagBytes: -1, LagSeconds: -1},
	},
}}

// serveStatus serves status on a real admin server's pages and returns HOST:PORT.
func serveStatus(t *testing.T, status func() admin.Status) string {
	t.Helper()
	s := httptest.NewServer(admin.New(admin.Options{Status: status, Gatherer: prometheus.NewRegistry()}).Handler())
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestStatusTable(t *testing.T) {
	addr := serveStatus(t, func() admin.Status { return someStatus })
	for _, form := range []string{addr, "http://" + addr + "/"} {
		p := start("status", "--admin", form)
		if code := p.wait(t); code != exitOK {
			t.Fatalf("exit code %d: %s", code, p.stderr)
		}
		want := `ready yes   epoch 3   clients 12   listening on tcp 127.0.0.1:6380, unix /s
NODE            ROLE     UP   READS  OFFSET  LAG BYTES  LAG SECONDS  COMMANDS  REASON
127.0.0.1:6401  master   yes  no       1234          0        0.000         7
127.0.0.1:6402  replica  yes  yes      1200         34        0.013        99
127.0.0.1:6403  unknown  no   no          -          -            -         0  connection refused
`
		if d := cmp.Diff(want, p.stdout.String()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

// What the admin server adds: rates, reasons, a tree and events.
func TestStatusScreen(t *testing.T) {
	m, at := "m:1", time.Date(2026, 1, 2, 15, 4, 5, 0, time.Local)
	node := func(addr, role, follows string, up bool, reason string) proxy.NodeStatus {
		return proxy.NodeStatus{Address: addr, Role: role, Follows: follows, Up: up, Reads: role == "replica" && reason == "", Reason: reason, Commands: 5}
	}
	st := &admin.Status{Status: proxy.Status{
		Ready: true, Epoch: 3, Listeners: []string{"tcp h:2"},
		Nodes: []proxy.NodeStatus{node(m, "master", "", true, ""), node("r:1", "replica", m, true, ""), node("s:1", "replica", m, false, "down"), node("t:1", "replica", "r:1", true, ""),
			node("x:1", "replica", "y:1", true, ""), node("y:1", "replica", "x:1", true, "link down")}, // a ring
		Sentinels: []proxy.SentinelStatus{{Address: "n:26379", Error: "connection refused"}},
		Events: []topology.Event{
			{Time: at, Kind: topology.EventFailover, Node: m, Text: "is the master now, in place of r:1, after 1.1 s without one"},
			{Time: at.Add(-time.Second), Kind: topology.EventMasterLost, Node: "r:1", Text: "master lost: writes wait for a new one"},
		},
	}}
	st.Lately = &admin.Lately{
		Point:  admin.Point{Read: 218, Write: 7.25, P50: 0.000142, P99: 0.29, Nodes: []admin.NodePoint{{Address: m, Write: 7.25, Read: 3}}},
		Routed: map[string]float64{"replica": 70, "other_zone": 5, "fence_fresh": 20, "no_replica": 5, "write": 1000},
	}
	want := `ready yes   epoch 3   clients 0   listening on tcp h:2
sentinel n:26379 down: connection refused
per second: reads 218, writes 7.2, other 0   half within 142µs, 99 % within 290ms
reads: 75.0 % on replicas; on the master 20.0 % fence_fresh, 5.0 % no_replica
NODE     ROLE     UP   READS  OFFSET  LAG BYTES  LAG SECONDS  PER SECOND  COMMANDS  REASON
m:1      master   yes  no          0          0        0.000          10         5
├ r:1    replica  yes  yes         0          0        0.000                     5
│ └ t:1  replica  yes  yes         0          0        0.000                     5
└ s:1    replica  no   no          0          0        0.000                     5  down
x:1      replica  yes  yes         0          0        0.000                     5
└ y:1    replica  yes  no          0          0        0.000                     5  link down

TIME      EVENT        NODE  WHAT
15:04:05  failover     m:1   is the master now, in place of r:1, after 1.1 s without one
15:04:04  master lost  r:1   master lost: writes wait for a new one
`
	if d := cmp.Diff(want, statusScreen(st, look{events: 5})); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	st.Relay = &syncer.Status{Events: []journal.Event{ // they stand among the others
		{Time: at.Add(-500 * time.Millisecond), Kind: journal.LinkUp, Node: m, Text: "the link to the master is up at offset 7"},
		{Time: at.Add(-2 * time.Second), Kind: journal.LinkDown, Node: "r:1", Text: "the link to the master is down: EOF"},
	}}
	_, events, _ := strings.Cut(statusScreen(st, look{events: 5}), "TIME ")
	if !regexp.MustCompile(`(?s)failover.*link up.*master lost.*link down`).MatchString(events) {
		t.Errorf("not in order:\n%s", events)
	}
	st.Relay = nil
	for width := 1; width < 120; width++ {
		for line := range strings.Lines(statusScreen(st, look{width: width, events: 5})) {
			if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > width {
				t.Fatalf("%d characters where %d have room: %q", n, width, line)
			}
		}
	}
	narrow := statusScreen(st, look{width: 60, height: 16, events: 100})
	if strings.Contains(narrow, "OFFSET") || !strings.Contains(narrow, "LAG BYTES") || !strings.Contains(narrow, "link down") {
		t.Errorf("60 characters wide, what matters less is to go first:\n%s", narrow)
	}
	if n := strings.Count(narrow, "\n"); n > 16 {
		t.Errorf("%d lines where 16 have room:\n%s", n, narrow)
	}
}

func TestStatusJSON(t *testing.T) {
	p := start("status", "--json", "--admin", serveStatus(t, func() admin.Status { return someStatus }))
	if code := p.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	var got admin.Status
	if err := json.Unmarshal([]byte(p.stdout.String()), &got); err != nil {
		t.Fatal(err)
	}
	got.Time = someStatus.Time // of the answer
	if d := cmp.Diff(someStatus, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// --watch asks again until a signal, and one failure in between does not end it.
func TestStatusWatch(t *testing.T) {
	var asked atomic.Uint64
	failing := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		if n == 2 {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		_ = json.NewEncoder(w).Encode(admin.Status{Status: proxy.Status{Epoch: n}})
	})
	s := httptest.NewServer(failing)
	defer s.Close()
	p := start("status", "--watch", "--json", "--admin", s.Listener.Addr().String())
	p.stdout.waitFor(t, `"epoch":1,`)
	p.stderr.waitFor(t, "it answers 500")
	p.stdout.waitFor(t, `"epoch":3,`)
	p.signals <- syscall.SIGINT
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d after SIGINT: %s", code, p.stderr)
	}
	for lines := bufio.NewScanner(strings.NewReader(p.stdout.String())); lines.Scan(); {
		if !json.Valid(lines.Bytes()) {
			t.Errorf("a line is no JSON: %s", lines.Text())
		}
	}
}

func TestStatusOfSomethingElse(t *testing.T) {
	for _, tc := range []struct {
		name string
		h    http.HandlerFunc
		want string
	}{
		{"not found", http.NotFound, "404 Not Found; is that the admin address of a sluice?"},
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, "is no status"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := httptest.NewServer(tc.h)
			defer s.Close()
			p := start("status", "--admin", s.Listener.Addr().String())
			if code := p.wait(t); code != exitRuntime || !strings.Contains(p.stderr.String(), tc.want) {
				t.Errorf("exit code %d, stderr %q, want %d and %q", code, p.stderr, exitRuntime, tc.want)
			}
		})
	}
}
