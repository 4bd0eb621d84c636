package topology

import "fmt"

// View is one immutable picture of the nodes. It is replaced as a whole when
// something in it changes; offsets and lags are not in it but on the nodes.
type View struct {
	Epoch    uint64      // rises by one with every new View
	Master   *Node       // takes writes now; nil while none is known, up and loaded
	Nodes    []*Node     // all known: the master (the last one known, if it is down) first, then by address
	Readable []*Node     // the replicas that may answer reads now, in the order of Nodes
	States   []NodeState // how each node is judged, in the order of Nodes
}

// NodeState is how a node is judged in one [View].
type NodeState struct {
	Node   *Node
	Role   Role   // as the node said last
	Up     bool   // the observer's last question was answered in time
	Reads  bool   // it is in View.Readable
	Reason string // why it gets no reads; empty where Reads is set, and for the master

	why why // what Reason was made from; a change of Reason's figures alone is no change
}

// IsRelay reports whether the node is a relay: it is no replica, whatever its ROLE
// says, and never gets reads.
func (a NodeState) IsRelay() bool { return a.why == whyRelay }

// same reports whether a and b say the same but for the figures in Reason.
func (a NodeState) same(b NodeState) bool {
	return a.Node == b.Node && a.Role == b.Role && a.Up == b.Up && a.Reads == b.Reads && a.why == b.why
}

// why is the kind of reason for which a node gets no reads.
type why uint8

const (
	whyNot         why = iota // it gets reads, or it is the master
	whyUntried                // its observer has not had an answer or a failure yet
	whyDown                   // no connection, or no answer within the deadline
	whyLoading                // it answers -LOADING
	whyBusy                   // it answers -BUSY: a script or function runs for too long
	whyRefused                // it refuses what the observer asks: NOPERM, NOAUTH, …
	whyRole                   // ROLE is neither master nor replica
	whyRelay                  // it is a relay and holds no data
	whySync                   // a full synchronisation is under way
	whyLink                   // the replica's link to its master is down
	whyForeign                // it is a master, or its history is another one than our master's
	whyUnannounced            // replica-announced no
	whyOffset                 // connected, but without an offset
	whyLagBytes               // too many bytes behind
	whyLagTime                // too long behind
	whySentinel               // most sentinels do not reach it
)

// reason words w for people.
func (m *member) reason(w why) string {
	switch w {
	case whyNot:
		return ""
	case whyUntried:
		return "not asked yet"
	case whyDown:
		return "down"
	case whyLoading:
		return "loading"
	case whyBusy:
		return "busy with a script"
	case whyRefused:
		return "refused: " + m.refusal
	case whyRole:
		return "neither master nor replica"
	case whyRelay:
		return "a relay, which holds no data"
	case whySync:
		return "sync in progress"
	case whyLink:
		return "link down"
	case whyForeign:
		return "not a replica of the master"
	case whyUnannounced:
		return "replica-announced is no"
	case whyOffset:
		return "offset unknown"
	case whyLagBytes:
		return fmt.Sprintf("lag %d bytes over limit", m.lagBytes)
	case whyLagTime:
		return fmt.Sprintf("lag %.1f seconds over limit", m.lag.Seconds())
	case whySentinel:
		return "down for most sentinels"
	}
	return fmt.Sprintf("reason %d", w)
}
