package main

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/proxy"
)

var someStatus = proxy.Status{
	Ready: true, Epoch: 3, Clients: 12, Listeners: []string{"tcp 127.0.0.1:6380", "unix /s"},
	Nodes: []proxy.NodeStatus{
		{Address: "127.0.0.1:6401", Role: "master", Up: true, Offset: 1234, Commands: 7},
		{Address: "127.0.0.1:6402", Role: "replica", Up: true, Reads: true, Offset: 1200, LagBytes: 34, LagSeconds: 0.0125, Commands: 99},
		{Address: "127.0.0.1:6403", Role: "unknown", Reason: "connection refused", Offset: -1, LagBytes: -1, LagSeconds: -1},
	},
}

// serveStatus serves status on a real admin server's pages and returns HOST:PORT.
func serveStatus(t *testing.T, status func() proxy.Status) string {
	t.Helper()
	s := httptest.NewServer(admin.New(admin.Options{Status: status, Gatherer: prometheus.NewRegistry()}).Handler())
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func TestStatusTable(t *testing.T) {
	addr := serveStatus(t, func() proxy.Status { return someStatus })
	for _, form := range []string{addr, "http://" + addr + "/"} {
		p := start("status", "--admin", form)
		if code := p.wait(t); code != exitOK {
			t.Fatalf("exit code %d: %s", code, p.stderr)
		}
		want := `ready yes   epoch 3   clients 12   listening on tcp 127.0.0.1:6380, unix /s
NODE            ROLE     UP   READS  OFFSET  LAG BYTES  LAG SECONDS  COMMANDS  REASON
127.0.0.1:6401  master   yes  no     1234    0          0.000        7
127.0.0.1:6402  replica  yes  yes    1200    34         0.013        99
127.0.0.1:6403  unknown  no   no     -       -          -            0         connection refused
`
		if d := cmp.Diff(want, p.stdout.String()); d != "" {
			t.Errorf("(-want +got):\n%s", d)
		}
	}
}

func TestStatusJSON(t *testing.T) {
	p := start("status", "--json", "--admin", serveStatus(t, func() proxy.Status { return someStatus }))
	if code := p.wait(t); code != exitOK {
		t.Fatalf("exit code %d: %s", code, p.stderr)
	}
	var got proxy.Status
	if err := json.Unmarshal([]byte(p.stdout.String()), &got); err != nil {
		t.Fatal(err)
	}
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
		_ = json.NewEncoder(w).Encode(proxy.Status{Epoch: n})
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
