package downstream

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/syncer/repl"
)

// maxLagSeries bounds how many replicas have a lag of their own in the metrics;
// the highest is given in any case.
const maxLagSeries = 100

// counters are what a server counts.
type counters struct {
	partial, held, notReady, corrupt, rejected atomic.Uint64
	streamBytes, baseBytes                     atomic.Uint64
	full                                       map[string]*atomic.Uint64 // by reason; never changed
	drops                                      map[reason]*atomic.Uint64 // likewise
}

func (c *counters) init() {
	c.full, c.drops = map[string]*atomic.Uint64{}, map[reason]*atomic.Uint64{}
	for v := repl.Accepted; v <= repl.TooOld; v++ {
		c.full[syncReason(v)] = new(atomic.Uint64)
	}
	for _, r := range reasons {
		c.drops[r] = new(atomic.Uint64)
	}
}

func (c *counters) countFull(why string) { c.full[why].Add(1) }

// metrics gives a server's condition to Prometheus. The names are a contract.
type metrics struct {
	s        *Server
	replicas *prometheus.Desc
	clients  *prometheus.Desc
	lag      *prometheus.Desc
	maxLag   *prometheus.Desc
	full     *prometheus.Desc
	drops    *prometheus.Desc
	counts   []count
}

type count struct {
	desc *prometheus.Desc
	of   *atomic.Uint64
}

var _ prometheus.Collector = (*metrics)(nil)

func newMetrics(s *Server) *metrics {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_relay_downstream_"+name, help, labels, nil)
	}
	c := &s.counters
	return &metrics{
		s:        s,
		replicas: d("replicas", "Replicas attached to the relay, by state.", "state"),
		clients:  d("clients", "Connections to the relay's port that are no replicas: Sentinels, operators, replicas in their handshake."),
		lag:      d("lag_bytes", "Committed bytes that a replica has not acknowledged, for the first hundred of them.", "replica"),
		maxLag:   d("max_lag_bytes", "The highest lag of all replicas that are served."),
		full:     d("full_syncs_total", "Full resyncs that replicas were given, by why a partial one was not possible.", "reason"),
		drops:    d("disconnects_total", "Replicas disconnected, by reason.", "reason"),
		counts: []count{
			{d("partial_syncs_total", "Partial resyncs that replicas were given."), &c.partial},
			{d("held_total", "Replicas that were ahead of the relay and were held until it had caught up."), &c.held},
			{d("not_ready_total", "Replicas told to come again, because there was no base yet or the relay did not catch up with them."), &c.notReady},
			{d("corrupt_total", "How often a base or the log was found damaged and not served."), &c.corrupt},
			{d("rejected_total", "Connections refused because there were too many."), &c.rejected},
			{d("sent_bytes_total", "Bytes of the replication stream sent to replicas."), &c.streamBytes},
			{d("base_sent_bytes_total", "Bytes of bases sent to replicas."), &c.baseBytes},
		},
	}
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{m.replicas, m.clients, m.lag, m.maxLag, m.full, m.drops} {
		ch <- d
	}
	for _, c := range m.counts {
		ch <- c.desc
	}
}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	st := m.s.Status()
	byState := map[string]int{}
	lags := map[string]int64{} // an address that is here twice is one series
	highest := int64(0)
	for _, r := range st.Replicas {
		byState[r.State]++
		if r.Lag < 0 {
			continue
		}
		highest = max(highest, r.Lag)
		if _, here := lags[r.Address]; here || len(lags) < maxLagSeries {
			lags[r.Address] = r.Lag
		}
	}
	for s := StateWait; s < StateClosed; s++ {
		gauge(m.replicas, float64(byState[s.String()]), s.String())
	}
	gauge(m.clients, float64(st.Clients))
	gauge(m.maxLag, float64(highest))
	for addr, lag := range lags {
		gauge(m.lag, float64(lag), addr)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	for why, n := range m.s.counters.full {
		counter(m.full, n.Load(), why)
	}
	for why, n := range m.s.counters.drops {
		counter(m.drops, n.Load(), string(why))
	}
	for _, c := range m.counts {
		counter(c.desc, c.of.Load())
	}
}
