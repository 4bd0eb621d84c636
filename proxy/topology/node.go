package topology

import (
	"sync/atomic"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Role is what a node is according to its own ROLE.
type Role uint8

const (
	// RoleUnknown is a node that has not answered ROLE yet, or that is neither of the others (a Sentinel).
	RoleUnknown Role = iota
	// RoleMaster is a node whose ROLE says "master".
	RoleMaster
	// RoleReplica is a node whose ROLE says "slave".
	RoleReplica
)

// String returns "unknown", "master" or "replica".
func (r Role) String() string {
	switch r {
	case RoleMaster:
		return "master"
	case RoleReplica:
		return "replica"
	}
	return "unknown"
}

// Node is one Redis node, known by its address. There is one *Node per address
// for the life of a [Static], so pointers may be compared and kept. All
// methods may be called by any goroutine and never block. Each value is
// current by itself; two calls may see two different samples.
//
// The zero value, given Index and Addr, is a node of which nothing is known.
type Node struct {
	Index int    // dense from 0, in the order of becoming known; never reused
	Addr  string // HOST:PORT, an IPv6 host in brackets

	// Written by the coordinator of Static alone. Numbers are stored plus one,
	// so that zero means unknown.
	offset    atomic.Int64
	lagBytes  atomic.Int64
	lag       atomic.Int64 // nanoseconds
	roundTrip atomic.Int64 // nanoseconds, 0 unknown
	sampledAt atomic.Int64 // Unix nanoseconds, 0 never
	role      atomic.Uint32
	up        atomic.Bool
	replID    atomic.Pointer[repl.ReplID]
	follows   atomic.Pointer[string]

	// ask wakes the observer for a round at once; capacity 1.
	ask chan struct{}
}

func newNode(index int, addr string) *Node {
	return &Node{Index: index, Addr: addr, ask: make(chan struct{}, 1)}
}

// Offset returns the replication offset of the last sample: what a master has
// written to its stream, what a replica has applied (ROLE, roleCommand in
// Redis's replication.c). [repl.UnknownOffset] while the node is down or a
// replica's link to its master is.
func (n *Node) Offset() repl.Offset { return repl.Offset(n.offset.Load() - 1) }

// Role returns what the node said last; it stays while the node is down.
func (n *Node) Role() Role { return Role(n.role.Load()) }

// Up reports whether the observer's last question was answered in time.
func (n *Node) Up() bool { return n.up.Load() }

// LagBytes returns by how many bytes of the replication stream a replica was
// behind the master at its last sample; 0 for the master, -1 unknown. While the
// node is down it goes on from its last answer.
func (n *Node) LagBytes() int64 { return n.lagBytes.Load() - 1 }

// LagSeconds returns for how long a replica had been behind at its last
// sample: the seconds since the master was first seen past the replica's
// offset, hence a lower bound. 0 for the master, -1 unknown. While the node is
// down it goes on from its last answer.
func (n *Node) LagSeconds() float64 {
	if v := n.lag.Load(); v > 0 {
		return time.Duration(v - 1).Seconds()
	}
	return -1
}

// RoundTrip returns the shortest time that one of the node's last answers to
// its observer took, which is about the way to it and back; 0 unknown.
func (n *Node) RoundTrip() time.Duration { return time.Duration(n.roundTrip.Load()) }

// ReplID returns the history that the node's data belongs to (master_replid of
// INFO replication), zero while unknown. It stays while the node is down.
func (n *Node) ReplID() repl.ReplID {
	if id := n.replID.Load(); id != nil {
		return *id
	}
	return ""
}

// Follows returns the address (HOST:PORT) of the node that a replica gets its
// stream from: of the node here that it is, where that is known, else as the
// replica has it. Empty for a master, and while unknown. It stays while the node
// is down.
func (n *Node) Follows() string {
	if addr := n.follows.Load(); addr != nil {
		return *addr
	}
	return ""
}

// SampledAt returns when the question was sent whose answer the node's values
// come from; the zero time if there was none.
func (n *Node) SampledAt() time.Time {
	if v := n.sampledAt.Load(); v != 0 {
		return time.Unix(0, v)
	}
	return time.Time{}
}

// askNow wakes the node's observer; it never blocks.
func (n *Node) askNow() {
	select {
	case n.ask <- struct{}{}:
	default: // a question is due already
	}
}
