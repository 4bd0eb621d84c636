package store

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics gives the store's condition to Prometheus. The names are a contract.
type metrics struct {
	s     *Store
	fsync prometheus.Histogram

	state, disk, bases, baseAge, baseSize *prometheus.Desc
	first, committed, fsynced             *prometheus.Desc
	errors, generations, free             *prometheus.Desc
}

var _ prometheus.Collector = (*metrics)(nil)

// fsyncBuckets are the bounds of sluice_store_fsync_seconds.
var fsyncBuckets = []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10}

// newMetrics registers the metrics where the options say so.
func newMetrics(s *Store) (*metrics, error) {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_store_"+name, help, labels, nil)
	}
	m := &metrics{
		s: s,
		fsync: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "sluice_store_fsync_seconds", Help: "Time in seconds that it took to make the log durable.", Buckets: fsyncBuckets,
		}),
		state:       d("state", "1 for the state that the store is in, 0 for the others.", "state"),
		disk:        d("disk_bytes", "Bytes stored.", "kind"),
		free:        d("free_bytes", "Bytes that the store's disk has left for it."),
		bases:       d("bases", "Complete bases of the current generation."),
		baseAge:     d("base_age_seconds", "Time in seconds since the newest base of the current generation was complete. Absent without one."),
		baseSize:    d("base_bytes", "Size in bytes of the newest base of the current generation. Absent without one."),
		first:       d("first_offset", "Offset of the first byte of the log that is stored."),
		committed:   d("committed_offset", "Offset of the last commit."),
		fsynced:     d("fsynced_offset", "Offset up to which the log is durable."),
		errors:      d("errors_total", "Disk operations that failed."),
		generations: d("generations", "Generations stored."),
	}
	if s.opt.Registerer == nil {
		return m, nil
	}
	return m, s.opt.Registerer.Register(m)
}

func (m *metrics) unregister() {
	if m.s.opt.Registerer != nil {
		m.s.opt.Registerer.Unregister(m)
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.state, m.disk, m.free, m.bases, m.baseAge, m.baseSize,
		m.first, m.committed, m.fsynced, m.errors, m.generations} {
		ch <- d
	}
	m.fsync.Describe(ch)
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := m.s.State()
	for st := range numStates {
		v := 0.0
		if st == now {
			v = 1
		}
		gauge(m.state, v, st.String())
	}
	gens := m.s.Generations()
	var logs, bases int64
	for _, g := range gens {
		logs += g.LogBytes()
		for _, b := range g.Bases() {
			bases += b.Size
		}
	}
	gauge(m.disk, float64(logs), "log")
	gauge(m.disk, float64(bases), "base")
	if f, ok := m.s.opt.FS.(freeSpace); ok {
		if n, err := f.Free(m.s.dir); err == nil { // else absent: the errors of writing are counted
			gauge(m.free, float64(n))
		}
	}
	gauge(m.generations, float64(len(gens)))
	if g := m.s.Head(); g != nil {
		gauge(m.first, float64(g.First()))
		gauge(m.committed, float64(g.Committed()))
		gauge(m.fsynced, float64(g.Fsynced()))
	}
	if g := m.s.Current(); g != nil {
		all := g.Bases()
		gauge(m.bases, float64(len(all)))
		if len(all) > 0 {
			gauge(m.baseAge, ageOf(all[0].Time, time.Now()).Seconds())
			gauge(m.baseSize, float64(all[0].Size))
		}
	} else {
		gauge(m.bases, 0)
	}
	ch <- prometheus.MustNewConstMetric(m.errors, prometheus.CounterValue, float64(m.s.health.failures.Load()))
	m.fsync.Collect(ch)
}
