package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp/localredis"
)

const metricsDoc = "../../deploy/METRICS.md"

// metric is what the page says of one, or /metrics shows.
type metric struct {
	Type   string
	Labels string // sorted, with commas
}

// TestMetricsPage compares deploy/METRICS.md with what a running sluice with a
// master, a replica and a relay exposes, and one with a sentinel: names, types, labels, and that the values of
// the labels with few values are explained.
func TestMetricsPage(t *testing.T) {
	page, err := os.ReadFile(metricsDoc)
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]metric{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(sluice_\\w+)` \\| (\\w+) \\| ([^|]*)\\|").FindAllStringSubmatch(string(page), -1) {
		documented[m[1]] = metric{m[2], sorted(regexp.MustCompile(`\w+`).FindAllString(m[3], -1))}
	}

	master := startRedis(t, localredis.Options{})
	startRedis(t, localredis.Options{ReplicaOf: master})
	p, l := startServe(t, "--master", master.Addr(), "--relay-dir", t.TempDir(), "--relay-listen", "127.0.0.1:0")
	host, port, _ := strings.Cut(l.Relay, ":")
	startRedis(t, localredis.Options{Args: []string{"--replicaof", host, port}})
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(l.Listeners[0], "tcp ")})
	defer func() { _ = client.Close() }()
	if reply, err := localredis.Do(master.Addr(), "ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all"); reply != "+OK" { // the replica will refuse it
		t.Fatal(reply, err)
	}
	app := redis.NewClient(&redis.Options{Addr: client.Options().Addr, Username: "app", Password: "secret"})
	defer func() { _ = app.Close() }()
	within(t, "a replica answers a read and refuses another, and its lag is known", func() bool {
		_ = app.Get(ctx, "other").Err()
		_ = client.Set(ctx, "k", "v", 0).Err() // fails until the master is known
		_ = client.Get(ctx, "other").Err()
		text := scrape(t, l.Admin)
		return strings.Contains(text, `role="replica"} `) && strings.Contains(text, "\nsluice_replica_lag_seconds{") &&
			strings.Contains(text, "\nsluice_node_refusals_total{") &&
			strings.Contains(text, "\nsluice_store_base_age_seconds ") &&
			strings.Contains(text, "\nsluice_relay_downstream_lag_bytes{") &&
			regexp.MustCompile(`(?m)^sluice_proxy_commands_total\{class="read",.*role="replica"\} `).MatchString(text)
	})

	exposed, values := parseMetrics(scrape(t, l.Admin))
	exposed["sluice_sentinel_up"] = sentinelMetric(t, master)
	if d := cmp.Diff(exposed, documented); d != "" {
		t.Errorf("deploy/METRICS.md differs from /metrics (-exposed +page):\n%s", d)
	}
	for _, v := range values {
		if !strings.Contains(string(page), "`"+v+"`") {
			t.Errorf("deploy/METRICS.md does not explain the label value %s", v)
		}
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// sentinelMetric returns what a sluice that goes by Sentinel shows of it.
func sentinelMetric(t *testing.T, master *localredis.Server) metric {
	sentinel, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
		Name: "mymaster", Master: master, Quorum: 1, DownAfter: testTimeout, FailoverTimeout: testTimeout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sentinel.Stop)
	p, l := startServe(t, "--sentinel", "mymaster@"+sentinel.Addr())
	within(t, "the sentinel answers", func() bool {
		return strings.Contains(scrape(t, l.Admin), `sluice_sentinel_up{sentinel="`+sentinel.Addr()+`"} 1`)
	})
	exposed, _ := parseMetrics(scrape(t, l.Admin))
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	return exposed["sluice_sentinel_up"]
}

func scrape(t testing.TB, admin string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testTimeout}
	resp, err := client.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// parseMetrics returns sluice's metrics in Prometheus's text format by name, and
// the values of role, class, reason, state and kind.
func parseMetrics(text string) (metrics map[string]metric, values []string) {
	metrics = map[string]metric{}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (sluice_\w+) (\w+)$`).FindAllStringSubmatch(text, -1) {
		sample := regexp.MustCompile(`(?m)^` + m[1] + `(?:_bucket)?(?:\{(.*)\})? `)
		labels, seen := []string{}, map[string]bool{}
		for _, s := range sample.FindAllStringSubmatch(text, -1) {
			for _, l := range regexp.MustCompile(`(\w+)="([^"]*)"`).FindAllStringSubmatch(s[1], -1) {
				if name := l[1]; !seen[name] && name != "le" {
					seen[name] = true
					labels = append(labels, name)
				}
				switch l[1] {
				case "role", "class", "reason", "state", "kind":
					values = append(values, l[2])
				}
			}
		}
		metrics[m[1]] = metric{m[2], sorted(labels)}
	}
	return metrics, values
}

func sorted(words []string) string {
	slices.Sort(words)
	return strings.Join(words, ",")
}
