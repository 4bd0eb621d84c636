package proxy

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
)

// collector gives the server's state to Prometheus. The names are a contract;
// deploy/METRICS.md explains them.
type collector struct {
	srv *Server

	nodeUp, nodeOffset, lagBytes, lagSeconds, nodeReads   *prometheus.Desc
	commands, seconds, clients, routed                    *prometheus.Desc
	accepted, refused, protocolErrors, authFails, dropped *prometheus.Desc
	epoch                                                 *prometheus.Desc
}

func newCollector(s *Server) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("sluice_"+name, help, labels, nil)
	}
	return &collector{
		srv:        s,
		nodeUp:     d("node_up", "1 if the node answered its observer's last question in time.", "node", "role"),
		nodeOffset: d("node_repl_offset", "Replication offset in bytes: written by a master, applied by a replica. Absent while unknown.", "node", "role"),
		nodeReads:  d("node_reads", "1 if reads are sent to the replica now.", "node"),
		lagBytes:   d("replica_lag_bytes", "Bytes of the replication stream that the replica is behind the master. Absent while unknown.", "node"),
		lagSeconds: d("replica_lag_seconds", "Time in seconds that the replica is behind the master. Absent while unknown.", "node"),
		commands:   d("proxy_commands_total", "Commands answered by a node.", "node", "role", "class"),
		seconds:    d("proxy_command_seconds", "Time in seconds from sending a command to a node until its reply."),
		clients:    d("proxy_clients", "Clients connected now."),
		routed:     d("proxy_routed_total", "Routing decisions by reason.", "reason"),
		accepted:   d("proxy_connections_total", "Client connections accepted."),
		refused:    d("proxy_connections_refused_total", "Client connections refused because of max_clients."),

		protocolErrors: d("proxy_protocol_errors_total", "Client connections ended because of malformed input."),
		authFails:      d("proxy_auth_failures_total", "Logins that the master refused."),
		dropped:        d("proxy_clients_dropped_total", "Client connections ended by the proxy.", "reason"),
		epoch:          d("topology_epoch", "Number of the current view of the nodes; rises with every change."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	c.collectNodes(gauge)
	st := c.srv.snapshot()
	for _, n := range st.nodes {
		if n.node == nil {
			continue
		}
		for class := range backend.NumClasses {
			if v := n.master[class]; v > 0 {
				count(c.commands, v, n.node.Addr, "master", class.String())
			}
			if v := n.replica[class]; v > 0 {
				count(c.commands, v, n.node.Addr, "replica", class.String())
			}
		}
	}
	buckets := make(map[float64]uint64, len(latencyBounds))
	var total uint64
	for i, b := range latencyBounds {
		total += st.latency[i]
		buckets[b.Seconds()] = total
	}
	total += st.latency[len(latencyBounds)]
	ch <- prometheus.MustNewConstHistogram(c.seconds, total, float64(st.latencySum)/1e9, buckets)
	for r := range route.NumReasons {
		count(c.routed, st.routed[r], r.String())
	}
	gauge(c.clients, float64(c.srv.clients.Load()))
	count(c.accepted, st.accepted)
	count(c.refused, st.refused)
	count(c.protocolErrors, st.protocolErrors)
	count(c.authFails, st.authFailures)
	count(c.dropped, st.closedOutput, "output_limit")
	count(c.dropped, st.closedIdle, "idle")
	count(c.dropped, st.closedLost, "node_lost")
}

func (c *collector) collectNodes(gauge func(*prometheus.Desc, float64, ...string)) {
	v := c.srv.topo.View()
	gauge(c.epoch, float64(v.Epoch))
	for _, ns := range v.States {
		n, role := ns.Node, ns.Role.String()
		gauge(c.nodeUp, b2f(ns.Up), n.Addr, role)
		if o := n.Offset(); o.IsKnown() {
			gauge(c.nodeOffset, float64(o), n.Addr, role)
		}
		if n == v.Master {
			continue
		}
		gauge(c.nodeReads, b2f(ns.Reads), n.Addr)
		if lag := n.LagBytes(); lag >= 0 {
			gauge(c.lagBytes, float64(lag), n.Addr)
		}
		if lag := n.LagSeconds(); lag >= 0 {
			gauge(c.lagSeconds, lag, n.Addr)
		}
	}
}

func b2f(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
