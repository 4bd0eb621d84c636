package proxy_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// figureKeys is how many keys the load of the figures chooses from.
const figureKeys = 100_000

// figures are of one run of a load.
type figures struct {
	rate      float64 // commands per second
	replicas  float64 // part of the reads that replicas served
	masterCPU float64 // of one core, by the master
	roles     float64 // ROLE per second at the master
	roleCPU   float64 // of one core, inside ROLE
}

// front1 starts a proxy with one loop and one listener in front of c's nodes.
func (c *cluster) front1(t testing.TB, mode proxy.Consistency) (*cluster, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	p := &cluster{master: c.master, replicas: c.replicas}
	p.front(t, func(o *proxy.Options) {
		o.Loops = 1
		o.Listeners[0].Consistency = mode
		o.Registerer = reg
		o.Logger = nil
	})
	return p, reg
}

// infoNumber returns a number of INFO: of the field, or of a part of it, as
// "cmdstat_role:calls=".
func infoNumber(t testing.TB, s *localredis.Server, section, field string) float64 {
	t.Helper()
	info, err := localredis.Do(s.Addr(), "INFO", section)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(info, "\n"+field)
	if !ok {
		return 0
	}
	number := strings.FieldsFunc(rest, func(r rune) bool { return r != '.' && (r < '0' || r > '9') })[0]
	v, err := strconv.ParseFloat(number, 64)
	if err != nil {
		t.Fatalf("%s of INFO %s: %v", field, section, err)
	}
	return v
}

// roleUsec returns the microseconds that a server has spent in ROLE.
func roleUsec(t testing.TB, s *localredis.Server) float64 {
	t.Helper()
	calls := infoNumber(t, s, "commandstats", "cmdstat_role:calls=")
	return infoNumber(t, s, "commandstats", fmt.Sprintf("cmdstat_role:calls=%.0f,usec=", calls))
}

// cpu returns the CPU time in seconds of a server's main thread.
func cpu(t testing.TB, s *localredis.Server) float64 {
	t.Helper()
	return infoNumber(t, s, "cpu", "used_cpu_sys_main_thread:") + infoNumber(t, s, "cpu", "used_cpu_user_main_thread:")
}

// measure runs a load. With a pace two runs do the same.
func (c *cluster) measure(t testing.TB, reg *prometheus.Registry, pace, d time.Duration) (f figures) {
	t.Helper()
	r0, m0 := served(t, reg)
	cpu0, roles0, usec0 := cpu(t, c.master), float64(calls(t, c.master, "role")), roleUsec(t, c.master)
	began := time.Now()
	did, err := mixedLoad{Addr: c.addr, Clients: 50, Keys: figureKeys, Pace: pace, For: d}.run()
	if err != nil {
		t.Fatal(err)
	}
	took := time.Since(began).Seconds()
	f.masterCPU = (cpu(t, c.master) - cpu0) / took
	f.roles = (float64(calls(t, c.master, "role")) - roles0) / took
	f.roleCPU = (roleUsec(t, c.master) - usec0) / 1e6 / took
	r, m := served(t, reg)
	f.rate = float64(did.Commands) / did.Took.Seconds()
	f.replicas = (r - r0) / max(1, r-r0+m-m0)
	return f
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

// TestReplicasServeCausalReads: nine reads to one write over many keys leave
// nearly all reads to the replicas. SLUICE_FIGURES=1 measures in five rounds of
// 3 s, in turn, what causal costs next to eventual; its figures need a machine
// that does nothing else.
func TestReplicasServeCausalReads(t *testing.T) {
	rounds, length := 1, time.Second
	if os.Getenv("SLUICE_FIGURES") != "" {
		rounds, length = 5, 3*time.Second
	}
	c := newCluster(t, 2, func(o *proxy.Options) { o.Logger = nil })
	modes := []proxy.Consistency{proxy.ConsistencyCausal, proxy.ConsistencyEventual}
	var fronts [2]*cluster
	var regs [2]*prometheus.Registry
	for i, m := range modes {
		fronts[i], regs[i] = c.front1(t, m)
		c.warm(t, dialRaw(t, fronts[i].addr))
	}
	full, paced := [2][]figures{}, [2][]figures{}
	for n := range rounds {
		for i := range modes {
			i ^= n & 1 // in turned order every other round
			full[i] = append(full[i], fronts[i].measure(t, regs[i], 0, length))
		}
		if rounds == 1 {
			break
		}
		for i := range modes {
			i ^= n & 1
			paced[i] = append(paced[i], fronts[i].measure(t, regs[i], 5*time.Millisecond, length))
		}
	}
	over := func(list []figures, of func(figures) float64) float64 {
		var all []float64
		for _, f := range list {
			all = append(all, of(f))
		}
		return median(all)
	}
	share := over(full[0], func(f figures) float64 { return f.replicas })
	t.Logf("causal: %.2f %% of the reads on replicas", 100*share)
	for reason, n := range allRouted(t, regs[0]) {
		t.Logf("  %s: %.0f", reason, n)
	}
	if share < 0.9 {
		t.Errorf("replicas served %.1f %% of the reads, want 90 %%", 100*share)
	}
	if rounds == 1 {
		return
	}
	var ratios, cost []float64
	for n := range rounds {
		ratios = append(ratios, full[0][n].rate/full[1][n].rate)
		cost = append(cost, paced[0][n].masterCPU-paced[1][n].masterCPU)
	}
	for i, m := range modes {
		t.Logf("%s: %.0f commands/s at full speed; paced to %.0f/s the master's CPU is %.2f %%, ROLE %.0f/s, %.3f %% inside ROLE", m,
			over(full[i], func(f figures) float64 { return f.rate }), over(paced[i], func(f figures) float64 { return f.rate }),
			100*over(paced[i], func(f figures) float64 { return f.masterCPU }), over(paced[i], func(f figures) float64 { return f.roles }),
			100*over(paced[i], func(f figures) float64 { return f.roleCPU }))
	}
	t.Logf("medians of %d rounds: throughput causal/eventual %.3f; sampling and what else causal asks of the master costs it %.2f %% of a core",
		rounds, median(ratios), 100*median(cost))
}

// allRouted returns the routing decisions by reason, those that were taken.
func allRouted(t testing.TB, reg *prometheus.Registry) map[string]float64 {
	t.Helper()
	all := make(map[string]float64)
	eachSeries(t, reg, "sluice_proxy_routed_total", func(labels map[string]string, v float64) {
		if v > 0 {
			all[labels["reason"]] = v
		}
	})
	return all
}
