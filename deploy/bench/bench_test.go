package main

import (
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseBenchmark(t *testing.T) {
	out := `WARNING: Could not fetch server CONFIG
"test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
"GET bench32:__rand_int__","222222.23","4.956","2.936","4.927","6.599","6.823","6.871"
`
	got, err := parseBenchmark([]byte(out))
	want := sample{rps: 222222.23, p50: 4.927, p99: 6.823}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(sample{}, cell{})); err != nil || diff != "" {
		t.Fatalf("%v\n%s", err, diff)
	}
	for _, bad := range []string{"", "Could not connect to Redis", strings.ReplaceAll(out, "rps", "tps"), strings.ReplaceAll(out, "222222.23", "many")} {
		if _, err := parseBenchmark([]byte(bad)); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestParseCPU(t *testing.T) {
	stat := "42 (a (b) c) S 1 42 42 0 -1 4194304 100 0 0 0 150 250 7 8 20 0 1 0 100 1000 10"
	got, err := parseCPU(stat)
	if want := (cpuTime{user: 1500 * time.Millisecond, sys: 2500 * time.Millisecond}); err != nil || got != want {
		t.Fatalf("%v, %v, want %v", got, err, want)
	}
	if _, err := parseCPU("42 (x) S 1"); err == nil {
		t.Fatal("no error for a short line")
	}
}

func TestInfoNumber(t *testing.T) {
	info := "# Commandstats\r\ncmdstat_getex:calls=9,usec=1\r\ncmdstat_get:calls=17,usec=5\r\n"
	if got := infoNumber(info, "cmdstat_get:calls="); got != 17 {
		t.Errorf("get: %d, want 17", got)
	}
	if got := infoNumber(info, "cmdstat_set:calls="); got != 0 {
		t.Errorf("set: %d, want 0", got)
	}
	if got := infoNumber("calls=3", "calls="); got != 3 {
		t.Errorf("at the end: %d, want 3", got)
	}
}

func TestMatrix(t *testing.T) {
	full, err := parseFlags(nil)
	if err != nil {
		t.Fatal(err)
	}
	cells := chooseCells(full)
	if len(cells) != 32 {
		t.Errorf("%d cells, want 2 commands x 2 pipelines x 2 clients x 2 sizes x 2 transports", len(cells))
	}
	for _, g := range goals {
		r := &results{}
		for _, c := range cells {
			for _, name := range allContestants {
				r.samples = append(r.samples, sample{cell: c, contestant: name, round: 1, rps: 1, userUS: 1, redisUS: 1})
			}
		}
		if v, ok := g.value(r); !ok || v != 1 {
			t.Errorf("goal %q: %v, %v: it is about a cell that is not measured", g.text, v, ok)
		}
	}
	quick, err := parseFlags([]string{"-quick", "-only", "GET", "-contestants", "sluice"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range chooseCells(quick) {
		names = append(names, c.String())
	}
	want := []string{"GET P=1 c=50 d=32 tcp", "GET P=1 c=50 d=32 unix", "GET P=16 c=50 d=32 tcp"}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{direct, sluice}, quick.contestants); diff != "" {
		t.Error(diff)
	}
	for _, bad := range [][]string{{"-rounds", "0"}, {"-only", "("}, {"-contestants", "nginx"}, {"more"}} {
		if _, err := parseFlags(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestRatioIsOfTheSameRound(t *testing.T) {
	c := small("GET", 1, viaTCP)
	r := &results{}
	// The machine halves its speed in the second round and again in the third:
	// the medians would say 1, the rounds say 2.
	for round, rps := range map[int]float64{1: 400, 2: 200, 3: 100} {
		r.samples = append(r.samples,
			sample{cell: c, contestant: direct, round: round, rps: rps},
			sample{cell: c, contestant: sluice, round: round, rps: 2 * rps})
	}
	if got, ok := r.ratio(c, sluice, c, direct); !ok || math.Abs(got-2) > 1e-9 {
		t.Fatalf("ratio %v, %v, want 2", got, ok)
	}
	if _, ok := r.ratio(c, haproxy, c, direct); ok {
		t.Fatal("a ratio of what was not measured")
	}
	r.cells, r.contestants = []cell{c}, []string{direct, sluice}
	report := r.report("")
	for _, want := range []string{
		"| GET | 1 | 50 | 32 | tcp | sluice | 0.4 | 2.00 |",
		"| GET P=1, by direct | >= 0.85 | 2.00 | yes |",
	} {
		if !strings.Contains(report, want) {
			t.Errorf("no %q in\n%s", want, report)
		}
	}
}

// TestBudget: half a microsecond of each, of client, proxy and Redis, lets two
// CPUs do 1.33 million commands a second, whatever was reached.
func TestBudget(t *testing.T) {
	c := small("GET", 16, viaTCP)
	r := &results{samples: []sample{
		{cell: c, contestant: direct, round: 1, rps: 1e6, clientUS: 0.5, redisUS: 0.5},
		{cell: c, contestant: sluice, round: 1, rps: 0.8e6, clientUS: 0.5, userUS: 0.1, sysUS: 0.4, redisUS: 0.5},
	}}
	for name, want := range map[string]string{
		direct: "| direct | 0.50 + 0.00 + 0.50 = 1.00 | 1.00 of 2 | 2.00 |\n",
		sluice: "| sluice | 0.50 + 0.50 + 0.50 = 1.50 | 1.20 of 2 | 1.33 |\n",
	} {
		if got := r.budgetRow(c, name, 2); !strings.HasSuffix(got, want) {
			t.Errorf("%q, want %q at its end", got, want)
		}
	}
}

// TestRun measures Redis itself, and the proxies that are installed, briefly.
func TestRun(t *testing.T) {
	for _, need := range []string{"redis-server", "redis-benchmark", "/proc/self/stat"} {
		if _, err := exec.LookPath(need); err != nil && !strings.HasPrefix(need, "/") {
			t.Skipf("needs %s", need)
		} else if _, err := os.Stat(need); err != nil && strings.HasPrefix(need, "/") {
			t.Skipf("needs %s", need)
		}
	}
	contestants := []string{direct}
	if _, err := exec.LookPath("haproxy"); err == nil {
		contestants = append(contestants, haproxy)
	}
	if _, err := exec.LookPath("nutcracker"); err == nil {
		contestants = append(contestants, twemproxy)
	}
	out, forwarder := t.TempDir(), filepath.Join(t.TempDir(), "bare")
	if b, err := exec.Command("go", "build", "-o", forwarder, "./bare").CombinedOutput(); err != nil {
		t.Fatalf("build the bare forwarder: %v\n%s", err, b)
	}
	opt, err := parseFlags([]string{"-quick", "-rounds", "1", "-n", "5000", "-out", out, "-bare", forwarder,
		"-only", "P=1 ", "-contestants", strings.Join(append(contestants, bare), ",")})
	if err != nil {
		t.Fatal(err)
	}
	if err := run(context.Background(), opt); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(out, "raw.csv"))
	if err != nil {
		t.Fatal(err)
	}
	// GET and SET through TCP and GET through a socket, the bare forwarder's GET
	// through TCP, and the heading.
	if got, want := strings.Count(string(raw), "\n"), 3*len(contestants)+2; got != want {
		t.Errorf("raw.csv has %d lines, want %d:\n%s", got, want, raw)
	}
}
