package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp/localredis"
)

// monitored is a master, a replica, a sluice with a relay in front of them under
// load, and a Prometheus that scrapes it with the rules of deploy/prometheus.
type monitored struct {
	replica *localredis.Server
	api     string // of Prometheus: http://HOST:PORT
}

// startMonitored starts all of them; the test's end stops them.
func startMonitored(t *testing.T) *monitored {
	t.Helper()
	if testing.Short() {
		t.Skip("integration test: not with -short")
	}
	if _, err := exec.LookPath("prometheus"); err != nil {
		t.Fatalf("%v; deploy/test.sh installs it", err)
	}
	master := startRedis(t, localredis.Options{})
	m := &monitored{replica: startRedis(t, localredis.Options{ReplicaOf: master})}
	p, l := startServe(t, "--master", master.Addr(), "--relay-dir", t.TempDir(), "--relay-listen", "127.0.0.1:0", "--loops", "1")
	t.Cleanup(func() {
		p.signals <- syscall.SIGTERM
		if code := p.wait(t); code != exitOK {
			t.Errorf("exit code %d", code)
		}
	})
	startLoad(t, strings.TrimPrefix(l.Listeners[0], "tcp "))
	_, port, err := net.SplitHostPort(l.Relay)
	if err != nil {
		t.Fatal(err)
	}
	startRedis(t, localredis.Options{Args: []string{"--replicaof", "127.0.0.1", port}})
	m.api = startPrometheus(t, l.Admin)
	return m
}

// startLoad writes and reads a little, so that every rate is above 0.
func startLoad(t testing.TB, addr string) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*testTimeout)
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			_ = client.Set(ctx, "written", i, 0).Err() // fails until the master is known
			_ = client.Get(ctx, "other").Err()
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		_ = client.Close()
	})
}

// startPrometheus starts a Prometheus that scrapes target five times a second,
// with deploy's configuration and rules but for that, and returns its URL.
func startPrometheus(t *testing.T, target string) string {
	t.Helper()
	dir := t.TempDir()
	config, err := os.ReadFile("../../deploy/prometheus/prometheus.yml")
	if err != nil {
		t.Fatal(err)
	}
	rules, err := filepath.Abs("../../deploy/prometheus/rules.yml")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("scrape_interval: 2s", "scrape_interval: 200ms\n  evaluation_interval: 500ms",
		"scrape_timeout: 2s", "scrape_timeout: 200ms", "sluice:9380", target, "[rules.yml]", "["+rules+"]").Replace(string(config))
	for _, want := range []string{target, rules, "evaluation_interval"} {
		if !strings.Contains(text, want) {
			t.Fatalf("deploy/prometheus/prometheus.yml has changed; %s is not in:\n%s", want, text)
		}
	}
	file := filepath.Join(dir, "prometheus.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	listen := "127.0.0.1:" + strconv.Itoa(port)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("prometheus", "--config.file="+file, "--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+listen)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = log.Close()
	})
	api := "http://" + listen
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testTimeout}
	within(t, "Prometheus is ready", func() bool {
		resp, err := client.Get(api + "/-/ready")
		if err != nil {
			return false
		}
		_ = resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	return api
}

// query returns the values of an expression's result; NaN is left out. An
// expression that Prometheus refuses ends the test.
func (m *monitored) query(t *testing.T, expr string) (values []float64) {
	t.Helper()
	var answer struct {
		Status, Error string
		Data          struct {
			Result []struct{ Value [2]any }
		}
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testTimeout}
	resp, err := client.Get(m.api + "/api/v1/query?query=" + url.QueryEscape(expr))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil || answer.Status != "success" {
		t.Fatalf("%s: %s %v", expr, answer.Error, err)
	}
	for _, r := range answer.Data.Result {
		if text, ok := r.Value[1].(string); ok && text != "NaN" {
			v, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			values = append(values, v)
		}
	}
	return values
}

// is reports whether the expression has one value, and that satisfies ok.
func (m *monitored) is(t *testing.T, expr string, ok func(float64) bool) bool {
	t.Helper()
	v := m.query(t, expr)
	return len(v) == 1 && ok(v[0])
}

// dashboard is what we use of deploy/grafana/sluice.json.
type dashboard struct {
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ Expr string }
	}
	Annotations struct {
		List []struct{ Expr string }
	}
}

// TestMonitoring: Prometheus sees the lag of a stopped replica rise in seconds
// and in bytes and fall again; and every panel of the dashboard has data.
func TestMonitoring(t *testing.T) {
	m := startMonitored(t)
	little := func(v float64) bool { return v >= 0 && v < 1 }
	node := `{node="` + m.replica.Addr() + `"}`
	seconds, bytes := "sluice_replica_lag_seconds"+node, "sluice_replica_lag_bytes"+node
	within(t, "the lag is seen to be small, and the relay's replica is online", func() bool {
		return m.is(t, seconds, little) && m.is(t, "sluice_node_reads"+node, func(v float64) bool { return v == 1 }) &&
			m.is(t, `sluice_relay_downstream_replicas{state="online"}`, func(v float64) bool { return v == 1 })
	})
	t.Run("dashboard", func(t *testing.T) { checkDashboard(t, m) })
	t.Run("rules", func(t *testing.T) {
		for _, name := range []string{"sluice:commands:rate1m", "sluice:reads_by_replicas:ratio1m", "sluice:command_seconds:p99_5m", "sluice:replication_stream:bytes_rate1m"} {
			within(t, name+" is recorded", func() bool { return len(m.query(t, name)) > 0 })
		}
		if firing := m.query(t, `ALERTS{alertstate="firing", severity="critical"}`); len(firing) > 0 {
			t.Errorf("%d critical alerts fire for a healthy deployment", len(firing))
		}
	})
	t.Run("lag", func(t *testing.T) {
		if err := m.replica.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		// A stopped replica's lag is what it is known to lack: its last offset stays.
		within(t, "the lag rises in seconds and in bytes", func() bool {
			return m.is(t, seconds, func(v float64) bool { return v > 2 }) && m.is(t, bytes, func(v float64) bool { return v > 3000 })
		})
		high, highBytes := m.query(t, seconds), m.query(t, bytes)
		if err := m.replica.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		within(t, "the lag falls", func() bool {
			return m.is(t, seconds, little) && m.is(t, bytes, func(v float64) bool { return v < 3000 })
		})
		t.Logf("stopped: %v s, %v bytes; after SIGCONT: %v s, %v bytes", high, highBytes, m.query(t, seconds), m.query(t, bytes))
	})
}

// checkDashboard asks Prometheus what each panel would.
func checkDashboard(t *testing.T, m *monitored) {
	b, err := os.ReadFile("../../deploy/grafana/sluice.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	fill := strings.NewReplacer("$__rate_interval", "5s", "$instance", ".*")
	asked := 0
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] {
			t.Errorf("panel %q has an id that another has", p.Title)
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other := taken[[2]int{x, y}]; other != "" || x >= 24 {
					t.Fatalf("panel %q lies over %q, or beyond the right edge", p.Title, other)
				}
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q asks for nothing", p.Title)
		}
		for _, target := range p.Targets {
			expr := fill.Replace(target.Expr)
			asked++
			within(t, fmt.Sprintf("panel %q has data: %s", p.Title, expr), func() bool { return len(m.query(t, expr)) > 0 })
		}
	}
	for _, a := range d.Annotations.List {
		m.query(t, fill.Replace(a.Expr)) // it has data only where something changes
	}
	t.Logf("%d panels, %d queries", len(d.Panels), asked)
}

// BenchmarkScrape is a scrape of a sluice with a relay, a master and two
// replicas under a little load. It must stay under 5 ms (TestScrapeFigures has what
// it costs clients):
//
//	go test ./cmd/sluice -run '^$' -bench Scrape -benchtime 200x
func BenchmarkScrape(b *testing.B) {
	master := startRedis(b, localredis.Options{})
	for range 2 {
		startRedis(b, localredis.Options{ReplicaOf: master})
	}
	p, l := startServe(b, "--master", master.Addr(), "--relay-dir", b.TempDir(), "--relay-listen", "127.0.0.1:0")
	b.Cleanup(func() {
		p.signals <- syscall.SIGTERM
		p.wait(b)
	})
	startLoad(b, strings.TrimPrefix(l.Listeners[0], "tcp "))
	within(b, "reads are answered by replicas", func() bool {
		return strings.Contains(scrape(b, l.Admin), `class="read",node="`) && strings.Contains(scrape(b, l.Admin), "\nsluice_store_base_age_seconds ")
	})
	client := &http.Client{Timeout: testTimeout} // as Prometheus, which keeps its connection
	defer client.CloseIdleConnections()
	var size int64
	b.ResetTimer()
	for b.Loop() {
		resp, err := client.Get("http://" + l.Admin + "/metrics")
		if err != nil {
			b.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
		size = n
	}
	b.ReportMetric(float64(size), "bytes")
}
