package upstream

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/syncer/repl"
)

// counter counts; as a writer it counts bytes.
type counter struct{ atomic.Uint64 }

// Write counts the bytes of p.
func (c *counter) Write(p []byte) (int, error) {
	c.Add(uint64(len(p)))
	return len(p), nil
}

// counters are what a link counts.
type counters struct {
	attempts, bytes, overflows, fullResyncs, failovers, generations counter
	bases, baseFailures, baseBytes                                  counter
}

// metrics gives a link's condition to Prometheus. The names are a contract.
type metrics struct {
	l        *Link
	state    *prometheus.Desc
	offset   *prometheus.Desc
	buffered *prometheus.Desc
	counts   []count
}

type count struct {
	desc *prometheus.Desc
	of   *counter
}

var _ prometheus.Collector = (*metrics)(nil)

func newMetrics(l *Link) *metrics {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_relay_"+name, help, labels, nil)
	}
	c := &l.counters
	return &metrics{
		l:        l,
		state:    d("link_state", "1 for the state that the link to the master is in, 0 for the others.", "state"),
		offset:   d("offset", "Replication offset: received into memory, committed to the store, fsynced, acknowledged to the master.", "kind"),
		buffered: d("buffered_bytes", "Bytes received that are not in the store yet."),
		counts: []count{
			{d("link_attempts_total", "Connections to the master that were tried."), &c.attempts},
			{d("received_bytes_total", "Bytes of the replication stream received."), &c.bytes},
			{d("buffer_overflows_total", "How often the link was dropped because the disk did not keep up."), &c.overflows},
			{d("full_resyncs_total", "Full resyncs that the master has answered PSYNC with."), &c.fullResyncs},
			{d("replid_changes_total", "Failovers followed by a partial resync under a new replid."), &c.failovers},
			{d("generations_total", "Generations begun."), &c.generations},
			{d("bases_total", "Bases taken."), &c.bases},
			{d("base_failures_total", "Attempts to take a base that failed."), &c.baseFailures},
			{d("base_received_bytes_total", "Bytes of snapshots received."), &c.baseBytes},
		},
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	ch <- m.state
	ch <- m.offset
	ch <- m.buffered
	for _, c := range m.counts {
		ch <- c.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	now := m.l.State()
	for s := range numStates {
		v := 0.0
		if s == now {
			v = 1
		}
		gauge(m.state, v, s.String())
	}
	s := m.l.Status()
	for kind, off := range map[string]repl.Offset{"received": s.Received, "committed": s.Committed, "fsynced": s.Fsynced, "acked": s.Acked} {
		gauge(m.offset, float64(off), kind)
	}
	gauge(m.buffered, float64(s.Buffered))
	for _, c := range m.counts {
		ch <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(c.of.Load()))
	}
}
