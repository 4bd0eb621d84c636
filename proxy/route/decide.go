package route

// Target is where a request goes.
type Target uint8

// The targets.
const (
	MasterWrite Target = iota // the connection to the master that carries the writes
	MasterReads               // a connection to the master that carries reads only
	Replica                   // one of the readable replicas
	Hold                      // nowhere yet: what is in flight must be answered first
)

// Reason says why a request went where it went; it is counted in
// sluice_proxy_routed_total.
type Reason uint8

// The reasons.
const (
	ReasonWrite         Reason = iota // it may write
	ReasonReplica                     // a read, on a replica
	ReasonNearest                     // a read on the master, which is as good as any node under read_from nearest
	ReasonMasterPolicy                // a read where the policy wants the master
	ReasonNoReplica                   // a read, but no replica can answer now
	ReasonNodeLocal                   // a read whose answer depends on the node
	ReasonMixedPipeline               // a read in one pipeline with writes
	ReasonBehindWrite                 // a read behind an unanswered write of its session
	ReasonOther                       // neither read nor write
	ReasonPinned                      // on the connection that its session is pinned to
	ReasonLocal                       // answered by the proxy
	ReasonDenied                      // refused by the proxy
	ReasonRetry                       // a read sent again after a node failed it
	ReasonFenceFresh                  // a read of what is being written, or was a moment ago
	ReasonFenceBehind                 // a read of what no replica has applied yet
	ReasonKeysUnknown                 // a read whose keys cannot be told
	ReasonIndexLate                   // a linearizable read that no replica could answer in time
	ReasonOtherZone                   // a read on a replica of another zone
	NumReasons
)

var reasonNames = [NumReasons]string{
	"write", "replica", "nearest", "master_policy", "no_replica", "node_local", "mixed_pipeline",
	"behind_write", "other", "pinned", "local", "denied", "retry",
	"fence_fresh", "fence_behind", "keys_unknown", "index_late", "other_zone",
}

// String returns the metric label.
func (r Reason) String() string { return reasonNames[r] }

// Policy says which nodes reads may go to.
type Policy uint8

// The policies.
const (
	PreferReplica Policy = iota
	OnlyMaster
	Nearest
)

// Session is what the decision needs to know of the session.
type Session struct {
	OnWrite   int // requests in flight on the MasterWrite connection
	Elsewhere int // requests in flight on any other
	Mixed     bool
	Policy    Policy
}

// Decide routes a request that needs no connection of its own.
//
// The order of a session is kept thus: a write overtakes nothing, because it
// waits (Hold) for reads of its session that are in flight elsewhere; a read
// overtakes no write, because behind an unanswered write it takes the same
// connection.
func Decide(k Kind, s Session, replicas int) (Target, Reason) {
	if k != Read && k != MasterRead {
		if s.Elsewhere > 0 {
			return Hold, ReasonWrite
		}
		if k == Write || k == Script {
			return MasterWrite, ReasonWrite
		}
		return MasterWrite, ReasonOther
	}
	if s.Mixed || s.OnWrite > 0 {
		if s.Elsewhere > 0 {
			return Hold, ReasonMixedPipeline
		}
		if s.Mixed {
			return MasterWrite, ReasonMixedPipeline
		}
		return MasterWrite, ReasonBehindWrite
	}
	switch {
	case k == MasterRead:
		return MasterReads, ReasonNodeLocal
	case s.Policy == OnlyMaster:
		return MasterReads, ReasonMasterPolicy
	case replicas == 0:
		return MasterReads, ReasonNoReplica
	default:
		return Replica, ReasonReplica
	}
}
