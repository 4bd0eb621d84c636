package causal

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
)

// mainThread returns the CPU time of a server's main thread.
func mainThread(b *testing.B, s *localredis.Server) (sum time.Duration) {
	b.Helper()
	info, err := localredis.Do(s.Addr(), "INFO", "cpu")
	if err != nil {
		b.Fatal(err)
	}
	for _, field := range []string{"used_cpu_sys_main_thread:", "used_cpu_user_main_thread:"} {
		_, rest, _ := strings.Cut(info, field)
		number, _, _ := strings.Cut(rest, "\r")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil {
			b.Fatalf("%s of INFO cpu: %v", field, err)
		}
		sum += time.Duration(v * float64(time.Second))
	}
	return sum
}

// BenchmarkSamplingCost samples without a pause, as while something is written
// all the time, a master that has nothing else to do: what it spends on a
// sample is then an upper bound, since a busy one answers several clients with
// one round of its event loop. Use -benchtime 5000x or more.
func BenchmarkSamplingCost(b *testing.B) {
	r := newRig(b)
	m, _ := r.pair()
	time.Sleep(time.Second) // what starting up left to do is done
	idle := mainThread(b, m)
	time.Sleep(time.Second)
	idle = mainThread(b, m) - idle // per second

	g := r.fences.Sampled()
	before := mainThread(b, m)
	began := time.Now()
	b.ResetTimer()
	for r.fences.Sampled() < g+Generation(b.N) {
		r.fences.Urge()
		time.Sleep(100 * time.Microsecond)
	}
	b.StopTimer()
	took := time.Since(began)
	spent := mainThread(b, m) - before - time.Duration(float64(idle)*took.Seconds())
	n := float64(r.fences.Sampled() - g)
	b.ReportMetric(n/took.Seconds(), "samples/s")
	b.ReportMetric(float64(spent.Nanoseconds())/1e3/n, "master-us/sample")
	b.ReportMetric(100*spent.Seconds()/took.Seconds(), "%-of-master's-core")
}
