package proxy_test

import (
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// eachSeries calls fn with the labels, by name, and the value of each series of a
// counter or gauge, and returns how many there are.
func eachSeries(t testing.TB, reg *prometheus.Registry, name string, fn func(labels map[string]string, v float64)) (n int) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := make(map[string]string)
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			fn(labels, m.GetCounter().GetValue()+m.GetGauge().GetValue())
			n++
		}
	}
	return n
}

// metric returns the sum of the series that have all these label values; 0 where
// there is none.
func metric(t testing.TB, reg *prometheus.Registry, name string, values ...string) (sum float64) {
	t.Helper()
	eachSeries(t, reg, name, func(labels map[string]string, v float64) {
		has := func(value string) bool {
			for _, have := range labels {
				if have == value {
					return true
				}
			}
			return false
		}
		if !slices.ContainsFunc(values, func(value string) bool { return !has(value) }) {
			sum += v
		}
	})
	return sum
}

// metricSum returns the sum over all series of a metric that must exist.
func metricSum(t testing.TB, reg *prometheus.Registry, name string) (sum int64) {
	t.Helper()
	if eachSeries(t, reg, name, func(_ map[string]string, v float64) { sum += int64(v) }) == 0 {
		t.Fatalf("there is no metric %s", name)
	}
	return sum
}

// awaitMetric waits until the series that have these label values have come to
// want together.
func awaitMetric(t testing.TB, reg *prometheus.Registry, want float64, name string, values ...string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); metric(t, reg, name, values...) < want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s%v is %v, want %v", name, values, metric(t, reg, name, values...), want)
		}
	}
}
