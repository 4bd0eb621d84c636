package admin

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/syncer"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newServer returns a server that shows what status holds.
func newServer(t *testing.T, status *atomic.Pointer[Status]) *Server {
	t.Helper()
	return New(Options{
		Listen:   "127.0.0.1:0",
		Status:   func() Status { return *status.Load() },
		Gatherer: NewRegistry("v1", "abc", "go1"),
	})
}

func get(t *testing.T, h http.Handler, path string) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestPages(t *testing.T) {
	var status atomic.Pointer[Status]
	status.Store(&Status{})
	h := newServer(t, &status).Handler()
	for _, tc := range []struct {
		path string
		code int
		want string
	}{
		{"/", 200, "/metrics"},
		{"/healthz", 200, "ok\n"},
		{"/metrics", 200, `sluice_build_info{goversion="go1",revision="abc",version="v1"} 1`},
		{"/metrics", 200, "go_goroutines "},
		{"/metrics", 200, "process_open_fds "},
		{"/debug/pprof/", 200, "goroutine"},
		{"/debug/pprof/goroutine?debug=1", 200, "goroutine profile"},
		{"/debug/pprof/cmdline", 200, "admin.test"},
		{"/nosuch", 404, ""},
	} {
		if code, body := get(t, h, tc.path); code != tc.code || !strings.Contains(body, tc.want) {
			t.Errorf("GET %s: %d %.200q, want %d with %q", tc.path, code, body, tc.code, tc.want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/healthz", nil))
	if w.Code != http.StatusMethodNotAllowed {
		t.Errorf("POST /healthz: %d, want 405", w.Code)
	}
}

func TestReadiness(t *testing.T) {
	var status atomic.Pointer[Status]
	status.Store(&Status{Status: proxy.Status{Nodes: []proxy.NodeStatus{
		{Address: "h:1", Role: "unknown", Reason: "connection refused"}, {Address: "h:2", Role: "replica", Up: true}}}})
	s := newServer(t, &status)
	h := s.Handler()
	code, body := get(t, h, "/readyz")
	want := "not ready: no master is known that answers\nh:1: role unknown, down, connection refused\nh:2: role replica, up\n"
	if code != 503 || body != want {
		t.Errorf("without a master: %d %q, want 503 %q", code, body, want)
	}
	status.Store(&Status{Status: proxy.Status{Ready: true}})
	if code, body := get(t, h, "/readyz"); code != 200 || body != "ok\n" {
		t.Errorf("with a master: %d %q, want 200", code, body)
	}
	relay := syncer.Status{Reason: "no base is stored yet"}
	status.Store(&Status{Status: proxy.Status{Ready: true, Listeners: []string{"tcp h:1"}}, Relay: &relay})
	if code, body := get(t, h, "/readyz"); code != 200 || body != "ok\nrelay: not ready: no base is stored yet\n" {
		t.Errorf("a proxy beside a relay without a base: %d %q, want 200", code, body)
	}
	status.Store(&Status{Relay: &relay})
	if code, body := get(t, h, "/readyz"); code != 503 || body != "not ready: relay: no base is stored yet\n" {
		t.Errorf("a relay alone, without a base: %d %q, want 503", code, body)
	}
	status.Store(&Status{Status: proxy.Status{Ready: true}, Relay: &syncer.Status{Ready: true}})
	if code, _ := get(t, h, "/readyz"); code != 200 {
		t.Errorf("a relay alone: %d, want 200", code)
	}
	s.Drain()
	if code, body := get(t, h, "/readyz"); code != 503 || !strings.Contains(body, "draining") {
		t.Errorf("while draining: %d %q, want 503", code, body)
	}
	if code, _ := get(t, h, "/healthz"); code != 200 {
		t.Errorf("/healthz while draining: %d, want 200", code)
	}
}

func TestStatusIsThatOfTheParts(t *testing.T) {
	want := Status{Status: proxy.Status{Ready: true, Epoch: 7, Clients: 3, Listeners: []string{"tcp 127.0.0.1:6380"},
		Nodes: []proxy.NodeStatus{{Address: "h:1", Role: "master", Up: true, Offset: 1 << 60, LagBytes: -1, LagSeconds: 0.25, Commands: 1 << 63}}}}
	want.Relay = &syncer.Status{Ready: true, Link: upstream.Status{State: "connected", Acked: 5},
		Store: syncer.StoreStatus{Dir: "/d", State: "writable", Head: 1, Current: 1, Committed: 7, Base: &syncer.BaseStatus{Offset: 3, Source: "master h:1"}}}
	var status atomic.Pointer[Status]
	status.Store(&want)
	code, body := get(t, newServer(t, &status).Handler(), StatusPath)
	var got Status
	if err := json.Unmarshal([]byte(body), &got); err != nil || code != 200 {
		t.Fatalf("%d, %v: %s", code, err, body)
	}
	if got.Time.IsZero() {
		t.Error("the answer has no time")
	}
	got.Time = time.Time{}
	if d := cmp.Diff(want, got, cmp.Comparer(repl.History.Equal)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestAddressInUse(t *testing.T) {
	var status atomic.Pointer[Status]
	status.Store(&Status{})
	first := newServer(t, &status)
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	second := New(Options{Listen: first.Addr().String(), Gatherer: prometheus.NewRegistry()})
	if err := second.Start(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), first.Addr().String()) {
		t.Errorf("err = %v, want EADDRINUSE with the address", err)
	}
	if err := first.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A request in flight is answered before Close returns.
func TestCloseIsGraceful(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := New(Options{Listen: "127.0.0.1:0", Gatherer: prometheus.NewRegistry(), SampleEvery: time.Hour, Status: func() Status {
		close(entered)
		<-release
		return Status{Status: proxy.Status{Epoch: 42}}
	}})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	body := make(chan string, 1)
	go func() {
		resp, err := client.Get("http://" + s.Addr().String() + StatusPath)
		if err != nil {
			body <- err.Error()
			return
		}
		defer func() { _ = resp.Body.Close() }()
		b, _ := io.ReadAll(resp.Body)
		body <- string(b)
	}()
	<-entered
	closed := make(chan error, 1)
	go func() { closed <- s.Close(context.Background()) }()
	<-s.Done() // no longer accepts
	select {
	case err := <-closed:
		t.Errorf("Close returned %v before the request had ended", err)
	default:
	}
	close(release)
	if got := <-body; !strings.Contains(got, `"epoch": 42`) {
		t.Errorf("the request in flight got %q", got)
	}
	if err := <-closed; err != nil || s.Err() != nil {
		t.Errorf("Close: %v, Err: %v", err, s.Err())
	}
}

// A request that does not end cannot hold Close up for longer than its context.
func TestCloseEndsByForce(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	s := New(Options{Listen: "127.0.0.1:0", Gatherer: prometheus.NewRegistry(), SampleEvery: time.Hour, Status: func() Status {
		close(entered)
		<-release
		return Status{}
	}})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	failed := make(chan error, 1)
	go func() {
		resp, err := client.Get("http://" + s.Addr().String() + StatusPath)
		if err == nil {
			_ = resp.Body.Close()
		}
		failed <- err
	}()
	<-entered
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); err != nil {
		t.Error(err)
	}
	if err := <-failed; err == nil {
		t.Error("the request was answered, want its connection cut")
	}
	close(release)
}
