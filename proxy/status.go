package proxy

import (
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
)

// Status is a view of a running [Server] for people and for /api/status.
type Status struct {
	Ready     bool         `json:"ready"`     // a master is known and answers
	Epoch     uint64       `json:"epoch"`     // rises with every change of topology
	Started   time.Time    `json:"started"`   // when clients could connect for the first time
	Clients   int          `json:"clients"`   // connected now
	Listeners []string     `json:"listeners"` // "tcp 127.0.0.1:6380"
	Nodes     []NodeStatus `json:"nodes"`     // master first, then replicas by address

	Sentinels []SentinelStatus `json:"sentinels,omitempty"` // by address; none where a master is configured

	Traffic TrafficStatus    `json:"traffic"`
	Events  []topology.Event `json:"events"` // the last ones, the newest first; bounded
}

// SentinelStatus is one sentinel as it was asked last.
type SentinelStatus struct {
	Address string `json:"address"`
	Up      bool   `json:"up"`              // it answers, and knows the master
	Error   string `json:"error,omitempty"` // why it is not up
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// NodeStatus is one Redis node as its observer saw it last.
type NodeStatus struct {
	Address    string          `json:"address"`
	Role       string          `json:"role"`              // "master", "replica" or "unknown"
	Follows    string          `json:"follows,omitempty"` // whom a replica gets its stream from, HOST:PORT
	Up         bool            `json:"up"`                // the observer's last question was answered in time
	Reads      bool            `json:"reads"`             // reads are sent to it now
	Reason     string          `json:"reason,omitempty"`  // why it gets no reads
	Offset     int64           `json:"offset"`            // replication offset, -1 unknown
	LagBytes   int64           `json:"lag_bytes"`         // behind the master, -1 unknown
	LagSeconds float64         `json:"lag_seconds"`       // behind the master, -1 unknown
	Refused    []RefusalStatus `json:"refused,omitempty"` // users for whom it has refused what the master allows
	Commands   uint64          `json:"commands"`          // answered by it through this proxy

	ByClass ClassCounts `json:"by_class"` // what Commands consists of
}

// ClassCounts are numbers of commands that nodes have answered.
type ClassCounts struct {
	Read  uint64 `json:"read"`
	Write uint64 `json:"write"`
	Other uint64 `json:"other"`
}

// TrafficStatus counts what has passed since the start. While a loop is too busy
// to answer, its counts are missing: the numbers are lower than before.
type TrafficStatus struct {
	Routed  map[string]uint64 `json:"routed"` // decisions by the reason of sluice_proxy_routed_total
	Latency LatencyStatus     `json:"latency"`
}

// LatencyStatus is the histogram of sluice_proxy_command_seconds.
type LatencyStatus struct {
	Bounds []float64 `json:"bounds"` // upper bounds of the buckets in seconds
	Counts []uint64  `json:"counts"` // of each bucket by itself; one more than Bounds, for what is above
}

// Status describes the server.
func (s *Server) Status() Status {
	v := s.topo.View()
	counts := s.snapshot()
	st := Status{
		Ready: v.Master != nil, Epoch: v.Epoch, Started: s.started, Clients: int(s.clients.Load()),
		Traffic: counts.traffic(), Events: s.journal.Events(),
	}
	for _, b := range s.bound() {
		st.Listeners = append(st.Listeners, b.Network+" "+b.ln.Addr().String())
	}
	for _, sn := range s.topo.Sentinels() {
		st.Sentinels = append(st.Sentinels, SentinelStatus{Address: sn.Addr, Up: sn.Up, Error: errorText(sn.Err)})
	}
	for _, ns := range v.States {
		n, by := ns.Node, counts.byClass(ns.Node)
		refused, _ := s.refusals.of(n)
		st.Nodes = append(st.Nodes, NodeStatus{
			Refused: refused,
			Address: n.Addr, Role: ns.Role.String(), Follows: n.Follows(), Up: ns.Up, Reads: ns.Reads, Reason: ns.Reason,
			Offset: int64(n.Offset()), LagBytes: n.LagBytes(), LagSeconds: n.LagSeconds(),
			Commands: by.Read + by.Write + by.Other, ByClass: by,
		})
	}
	return st
}

// byClass returns the replies of n, in whatever role it gave them.
func (s *workerStats) byClass(n *topology.Node) (c ClassCounts) {
	if n.Index >= len(s.nodes) || s.nodes[n.Index].node == nil {
		return c
	}
	m, r := s.nodes[n.Index].master, s.nodes[n.Index].replica
	c.Read = m[backend.Read] + r[backend.Read]
	c.Write = m[backend.Write] + r[backend.Write]
	c.Other = m[backend.Other] + r[backend.Other]
	return c
}

func (s *workerStats) traffic() TrafficStatus {
	t := TrafficStatus{Routed: make(map[string]uint64, route.NumReasons)}
	for r := range route.NumReasons {
		t.Routed[r.String()] = s.routed[r]
	}
	for _, b := range latencyBounds {
		t.Latency.Bounds = append(t.Latency.Bounds, b.Seconds())
	}
	t.Latency.Counts = append(t.Latency.Counts, s.latency[:]...)
	return t
}
