package main

import (
	"context"
	"encoding/csv"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
)

// TestScrapeFigures says what being scraped every second costs in throughput:
// rounds of load with and without scrapes alternate, and the median of the ratios
// of a pair is what counts. It is run on request, on a machine that does nothing
// else:
//
//	SLUICE_FIGURES=1 go test ./cmd/sluice -run TestScrapeFigures -v -timeout 10m
//
// SLUICE_FIGURES_SECONDS is how long a round takes, 8 if not given.
func TestScrapeFigures(t *testing.T) {
	if os.Getenv("SLUICE_FIGURES") == "" {
		t.Skip("SLUICE_FIGURES is not set")
	}
	const pairs = 7
	seconds := 8.0
	if s := os.Getenv("SLUICE_FIGURES_SECONDS"); s != "" {
		var err error
		if seconds, err = strconv.ParseFloat(s, 64); err != nil {
			t.Fatal(err)
		}
	}
	master := startRedis(t, localredis.Options{})
	for range 2 {
		startRedis(t, localredis.Options{ReplicaOf: master})
	}
	p, l := startServe(t, "--master", master.Addr(), "--relay-dir", t.TempDir(), "--relay-listen", "127.0.0.1:0")
	defer func() {
		p.signals <- syscall.SIGTERM
		p.wait(t)
	}()
	addr := strings.TrimPrefix(l.Listeners[0], "tcp ")
	within(t, "two replicas get reads", func() bool { return strings.Count(scrape(t, l.Admin), "\nsluice_replica_lag_bytes{") >= 2 })
	requests := int(seconds * throughput(t, addr, 50_000)) // which warms up, too
	var ratios, took []float64
	for i := range pairs {
		order := []bool{i%2 == 0, i%2 != 0} // neither is always the first
		rate := map[bool]float64{}
		for _, scraped := range order {
			stop := func() []float64 { return nil }
			if scraped {
				stop = scrapeEverySecond(t, l.Admin)
			}
			rate[scraped] = throughput(t, addr, requests)
			took = append(took, stop()...)
		}
		ratios = append(ratios, rate[true]/rate[false])
		t.Logf("round %d: %.0f GET/s scraped, %.0f not: %.3f", i+1, rate[true], rate[false], ratios[i])
	}
	if len(took) < pairs {
		t.Fatalf("only %d scrapes in %d rounds", len(took), pairs)
	}
	slices.Sort(ratios)
	slices.Sort(took)
	t.Logf("scraped every second: %.3f of the throughput without (median of %d pairs, %.3f to %.3f); a scrape under this load took %.1f ms (median of %d, longest %.1f)",
		ratios[pairs/2], pairs, ratios[0], ratios[pairs-1], 1000*took[len(took)/2], len(took), 1000*took[len(took)-1])
}

// throughput returns how many GETs per second redis-benchmark gets done.
func throughput(t *testing.T, addr string, requests int) float64 {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("redis-benchmark", "-h", host, "-p", port, "-c", "50", "-t", "get", "-n", strconv.Itoa(requests), "--csv").Output()
	if err != nil {
		t.Fatalf("redis-benchmark: %v", err)
	}
	rows, err := csv.NewReader(strings.NewReader(string(out))).ReadAll()
	if err != nil || len(rows) != 2 || len(rows[1]) < 2 {
		t.Fatalf("redis-benchmark printed %q, %v", out, err)
	}
	rate, err := strconv.ParseFloat(rows[1][1], 64)
	if err != nil || rate <= 0 {
		t.Fatalf("redis-benchmark printed %q, %v", out, err)
	}
	return rate
}

// scrapeEverySecond scrapes as Prometheus does, beginning at once, until stop,
// which returns how long each took in seconds.
func scrapeEverySecond(t *testing.T, admin string) (stop func() []float64) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan []float64)
	go func() {
		client := &http.Client{Timeout: testTimeout}
		defer client.CloseIdleConnections()
		var took []float64
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			began := time.Now()
			resp, err := client.Get("http://" + admin + "/metrics")
			if err != nil {
				t.Error(err)
			} else {
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				took = append(took, time.Since(began).Seconds())
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
				done <- took
				return
			}
		}
	}()
	return func() []float64 { cancel(); return <-done }
}
