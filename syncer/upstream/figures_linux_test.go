package upstream

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// figuresEnv: 1 measures what capturing costs, on a quiet machine; quick tries
// that it can be measured. figuresGBEnv is how long a log to write for the
// memory, in GB.
const (
	figuresEnv   = "SLUICE_FIGURES"
	figuresGBEnv = "SLUICE_FIGURES_GB"
)

// TestFigures measures capture under redis-benchmark -t set -P 16 -d 200 -c 50
// with fsync everysec, against a stock replica in our place, in alternating
// rounds:
//
//	SLUICE_FIGURES=1 SLUICE_FIGURES_GB=10 go test -count=1 -v -timeout 30m -run TestFigures ./syncer/upstream
func TestFigures(t *testing.T) {
	mode := os.Getenv(figuresEnv)
	if mode == "" {
		t.Skip("set " + figuresEnv + "=1 on a quiet machine, or =quick to try it")
	}
	rounds, sets, gb := 5, 2_000_000, 1.0
	if mode == "quick" {
		rounds, sets, gb = 1, 100_000, 0.1
	}
	if v := os.Getenv(figuresGBEnv); v != "" {
		var err error
		if gb, err = strconv.ParseFloat(v, 64); err != nil {
			t.Fatal(err)
		}
	}
	judgeFigures := func(ok bool, format string, args ...any) {
		t.Helper()
		if t.Logf(format, args...); !ok && mode == "1" {
			t.Errorf("missed: "+format, args...)
		}
	}
	var ours, stock []cost
	for range rounds {
		ours = append(ours, costOfCapture(t, sets))
		stock = append(stock, costOfReplica(t, sets))
	}
	med := func(c []cost, f func(cost) float64) float64 {
		var v []float64
		for _, x := range c {
			v = append(v, f(x))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	master := func(c cost) float64 { return c.master.Seconds() * 1e6 / float64(sets) }
	perByte := func(c cost) float64 { return c.follower.Seconds() * 1e9 / float64(c.bytes) }
	rate := func(c cost) float64 { return float64(sets) / c.took.Seconds() }
	t.Logf("with us: %.0f SET/s; with a stock replica: %.0f SET/s", med(ours, rate), med(stock, rate))
	mo, ms := med(ours, master), med(stock, master)
	judgeFigures(mo <= 1.05*ms, "CPU of the master per SET: %.3f us with us, %.3f us with a stock replica, ratio %.3f (want 1.00, 5%% is noise)", mo, ms, mo/ms)
	fo, fs := med(ours, perByte), med(stock, perByte)
	judgeFigures(fo < fs, "CPU of the follower per byte: %.3f ns ours, %.3f ns of a stock replica, ratio %.3f (want below 1)", fo, fs, fo/fs)
	t.Run("memory", func(t *testing.T) {
		peak, log := memoryOfCapture(t, int64(gb*1e9))
		judgeFigures(peak < 200<<20, "peak of resident memory with a log of %.2f GB: %d MB (want below 200)", float64(log)/1e9, peak>>20)
	})
	t.Run("lag", func(t *testing.T) {
		p50, p99, n := lagOfCapture(t, sets)
		judgeFigures(p99 < 100*time.Millisecond, "lag, from the master's offset to the commit in our store, over %d samples: median %s, p99 %s (want below 100 ms)", n, p50, p99)
	})
}

// cost is what a run of redis-benchmark took.
type cost struct {
	master, follower time.Duration // CPU, user and system
	took             time.Duration
	bytes            int64 // of the replication stream
}

// benchmark runs redis-benchmark -t set with n requests.
func benchmark(master *localredis.Server, n int) error {
	host, port, _ := strings.Cut(master.Addr(), ":")
	out, err := exec.Command("redis-benchmark", "-h", host, "-p", port, "-t", "set", "-P", "16", "-d", "200", "-c", "50", "-r", "100000", "-n", strconv.Itoa(n), "-q").CombinedOutput()
	if err != nil {
		return fmt.Errorf("redis-benchmark: %w: %s", err, out)
	}
	return nil
}

// startPlain starts a process that captures as serve does, but takes no base
// after the first: that is another cost.
func startPlain(t *testing.T, dir string, master *localredis.Server) *process {
	t.Helper()
	t.Setenv(plainEnv, "1")
	p := startProcess(t, dir, master)
	awaitStore(t, dir, func(st *store.Store) bool { return st.Current() != nil })
	return p
}

// figuresMaster is a master as its operators leave it, but for snapshots.
func figuresMaster(t *testing.T) *localredis.Server {
	t.Helper()
	return startRedis(t, localredis.Options{Args: []string{"--repl-backlog-size", "64mb"}})
}

func costOfCapture(t *testing.T, n int) cost {
	master := figuresMaster(t)
	dir := t.TempDir()
	p := startPlain(t, dir, master)
	defer p.kill()
	defer master.Stop()
	return measure(t, master, p.cmd.Process.Pid, n, func(off repl.Offset) { awaitLog(t, dir, off) })
}

func costOfReplica(t *testing.T, n int) cost {
	master := figuresMaster(t)
	defer master.Stop()
	replica := startReplica(t, master)
	defer replica.Stop()
	return measure(t, master, int(number(t, replica, "process_id")), n, func(off repl.Offset) {
		await(t, "replica has all", func() bool { return number(t, replica, "master_repl_offset") >= int64(off) })
	})
}

// awaitLog waits until another process has committed off.
func awaitLog(t *testing.T, dir string, off repl.Offset) {
	t.Helper()
	st, err := store.OpenReadOnly(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	if err := st.Current().WaitCommitted(ctx, off); err != nil {
		t.Fatal(err)
	}
}

func measure(t *testing.T, master *localredis.Server, follower, n int, caughtUp func(repl.Offset)) cost {
	t.Helper()
	pid := int(number(t, master, "process_id"))
	off, m, f, begin := number(t, master, "master_repl_offset"), cpu(t, pid), cpu(t, follower), time.Now()
	if err := benchmark(master, n); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	end := number(t, master, "master_repl_offset")
	caughtUp(repl.Offset(end))
	return cost{master: cpu(t, pid) - m, follower: cpu(t, follower) - f, took: took, bytes: end - off}
}

// cpu returns the CPU time of a process, by proc(5), in ticks of 10 ms.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), ") ") // behind the name, which may hold spaces
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += v
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// memoryOfCapture writes a log of so many bytes and returns the peak of the
// capturing process's memory.
func memoryOfCapture(t *testing.T, bytes int64) (peak, log int64) {
	master := figuresMaster(t)
	dir := t.TempDir()
	p := startPlain(t, dir, master)
	defer p.kill()
	first := number(t, master, "master_repl_offset")
	for log < bytes {
		if err := benchmark(master, int(min(2_000_000, (bytes-log)/250+1))); err != nil {
			t.Fatal(err)
		}
		log = number(t, master, "master_repl_offset") - first
	}
	awaitLog(t, dir, repl.Offset(number(t, master, "master_repl_offset")))
	return p.peakMemory(t), log
}

// lagOfCapture takes the master's offset again and again under load and waits
// for it to be committed in a store of this process.
func lagOfCapture(t *testing.T, sets int) (p50, p99 time.Duration, n int) {
	master := figuresMaster(t)
	r := startLink(t, t.TempDir(), master.Addr(), Options{BaseRefreshMin: 1 << 40}, store.Options{})
	r.awaitBase(t, "master ")
	ctx := timeout(t)
	client := relaytest.NewClient(t, master.Addr(), 0)
	done := make(chan error, 1)
	go func() { done <- benchmark(master, sets) }()
	var lags []time.Duration
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
		default:
		}
		role, err := client.Do(ctx, "ROLE").Slice()
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := r.st.Head().WaitCommitted(ctx, repl.Offset(role[1].(int64))); err != nil {
			t.Fatal(err)
		}
		lags = append(lags, time.Since(begin))
	}
	slices.Sort(lags)
	return lags[len(lags)/2], lags[len(lags)*99/100], len(lags)
}
