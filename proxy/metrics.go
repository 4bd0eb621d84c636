package proxy

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
)

// collector gives the server's state to Prometheus. The names are a contract;
// deploy/METRICS.md explains them.
type collector struct {
	srv *Server

	nodeUp, nodeOffset, lagBytes, lagSeconds, nodeReads   *prometheus.Desc
	commands, seconds, clients, routed, stalls            *prometheus.Desc
	accepted, refused, protocolErrors, authFails, dropped *prometheus.Desc
	epoch, sentinelUp, tlsErrors, refusals                *prometheus.Desc
	errors, held, headerErrors, detached                  *prometheus.Desc
	failovers, lost, uncertain, unknown, hold             *prometheus.Desc
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
		stalls:     d("proxy_replica_stalls_total", "Times that an event loop took its reads from a replica that did not answer while other nodes did.", "node"),
		routed:     d("proxy_routed_total", "Routing decisions by reason.", "reason"),
		accepted:   d("proxy_connections_total", "Client connections accepted."),
		refused:    d("proxy_connections_refused_total", "Client connections refused because of max_clients."),

		protocolErrors: d("proxy_protocol_errors_total", "Client connections ended because of malformed input."),
		authFails:      d("proxy_auth_failures_total", "Logins that the master refused."),
		errors:         d("proxy_errors_total", "Errors of sluice's own that clients were given.", "code"),
		held:           d("proxy_held_clients", "Clients whose requests wait for a master."),
		detached:       d("proxy_detached_total", "Shared connections to a node that a large reply took for itself."),
		dropped:        d("proxy_clients_dropped_total", "Client connections ended by the proxy.", "reason"),
		failovers:      d("failovers_total", "Times that another node has taken the master's place."),
		hold:           d("failover_hold_seconds", "Time in seconds for which there was no master to write to: the last time, and the longest.", "which"),
		lost:           d("lost_writes_bytes_total", "Bytes of the replication stream that a master had written and its successor has not."),
		uncertain:      d("lost_writes_uncertain_bytes_total", "Bytes of the requests of writes that were acknowledged after a lost master's last sample and that its successor may lack."),
		unknown:        d("lost_writes_unknown_total", "Changes to a master whose history does not tell what it has of the last one's."),
		sentinelUp:     d("sentinel_up", "1 if the sentinel answers and knows the master.", "sentinel"),
		refusals:       d("node_refusals_total", "Reads and connections of users that a replica refused and the master allows.", "node", "error"),
		tlsErrors:      d("proxy_tls_errors_total", "TLS connections that failed, with clients and with nodes, by reason.", "peer", "reason"),
		headerErrors:   d("proxy_header_errors_total", "Client connections closed because of their PROXY protocol header, or for want of one.", "reason"),
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
	for _, ns := range c.srv.topo.View().States {
		_, refused := c.srv.refusals.of(ns.Node)
		for code := notRefused + 1; code < numRefusalCodes; code++ {
			if refused[code] > 0 {
				count(c.refusals, refused[code], ns.Node.Addr, code.String())
			}
		}
	}
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
		count(c.stalls, n.stalls, n.node.Addr)
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
	l := &c.srv.losses
	count(c.failovers, l.failovers.Load())
	gauge(c.hold, time.Duration(l.lastHold.Load()).Seconds(), "last")
	gauge(c.hold, time.Duration(l.longestHold.Load()).Seconds(), "longest")
	count(c.lost, l.bytes.Load())
	count(c.uncertain, l.uncertain.Load())
	count(c.unknown, l.unknown.Load())
	gauge(c.clients, float64(c.srv.clients.Load()))
	count(c.accepted, st.accepted)
	count(c.refused, st.refused)
	count(c.protocolErrors, st.protocolErrors)
	count(c.authFails, st.authFailures)
	for i, code := range errorCodes {
		count(c.errors, st.errors[i], code)
	}
	gauge(c.held, float64(st.held))
	count(c.detached, st.detached)
	count(c.dropped, st.closedOutput, "output_limit")
	count(c.dropped, st.closedIdle, "idle")
	count(c.dropped, st.closedLost, "node_lost")
	count(c.dropped, st.closedAuth, "auth_timeout")
	for f := range numHeaderFaults {
		count(c.headerErrors, c.srv.headerFaults[f].Load(), f.String())
	}
	for f := range numTLSFaults {
		count(c.tlsErrors, c.srv.clientTLS[f].Load(), "client", f.String())
		count(c.tlsErrors, c.srv.nodeTLS[f].Load(), "node", f.String())
	}
}

func (c *collector) collectNodes(gauge func(*prometheus.Desc, float64, ...string)) {
	v := c.srv.topo.View()
	gauge(c.epoch, float64(v.Epoch))
	for _, sn := range c.srv.topo.Sentinels() {
		gauge(c.sentinelUp, b2f(sn.Up), sn.Addr)
	}
	for _, ns := range v.States {
		n, role := ns.Node, ns.Role.String()
		gauge(c.nodeUp, b2f(ns.Up), n.Addr, role)
		if o := n.Offset(); o.IsKnown() {
			gauge(c.nodeOffset, float64(o), n.Addr, role)
		}
		if n == v.Master || ns.IsRelay() {
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
