package proxy

// Status is a view of a running [Server] for people and for /api/status.
type Status struct {
	Ready     bool         `json:"ready"`     // a master is known and answers
	Epoch     uint64       `json:"epoch"`     // rises with every change of topology
	Clients   int          `json:"clients"`   // connected now
	Listeners []string     `json:"listeners"` // "tcp 127.0.0.1:6380"
	Nodes     []NodeStatus `json:"nodes"`     // master first, then replicas by address
}

// NodeStatus is one Redis node as its observer saw it last.
type NodeStatus struct {
	Address    string  `json:"address"`
	Role       string  `json:"role"`             // "master", "replica" or "unknown"
	Up         bool    `json:"up"`               // the observer's last question was answered in time
	Reads      bool    `json:"reads"`            // reads are sent to it now
	Reason     string  `json:"reason,omitempty"` // why it gets no reads
	Offset     int64   `json:"offset"`           // replication offset, -1 unknown
	LagBytes   int64   `json:"lag_bytes"`        // behind the master, -1 unknown
	LagSeconds float64 `json:"lag_seconds"`      // behind the master, -1 unknown
	Commands   uint64  `json:"commands"`         // answered by it through this proxy
}
