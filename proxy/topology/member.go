package topology

import (
	"strings"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// observation is what one round of an observer brought.
type observation struct {
	addr  string
	at    time.Time // when the question was sent; when it failed, if err is set
	err   error     // no connection, a lost one, or no answer in time: the node is down
	runID string    // of the server process, empty where INFO is refused

	ping string           // PING's error reply, "" for none
	role *roleReply       // ROLE's answer; nil where it was refused
	info *replicationInfo // nil where INFO was not asked, or refused

	refusal string // the error reply of ROLE or INFO, "" for none

	took time.Duration // from the question of PING and ROLE to the answer; 0 unknown
}

// member is a node that is observed now, with all that is known of it. It
// belongs to the tracker; what others may see of it is in its Node and in the
// Views.
type member struct {
	node  *Node
	named bool // in the configuration: never forgotten

	tried bool  // an observation has arrived
	up    bool  // the last one was an answer
	cause error // why it is not up

	kind    why    // whyNot, or why it refuses: whyLoading, whyBusy, whyLink (MASTERDOWN), whyRefused
	refusal string // the error reply behind kind

	// As the node said last; kept while it is down, but for offset and link.
	role       Role
	masterAddr string
	link       string
	offset     repl.Offset
	attached   int // replicas attached to a master, by ROLE
	info       replicationInfo
	runID      string

	// held is the last offset at which the link was seen connected. It stays
	// while the link is down, but only as long as the data must still contain
	// it: a failed full synchronisation leaves a replica with an empty data
	// set that it serves (replica-serve-stale-data yes).
	held repl.Offset

	// last is the last offset that the replica told. It stays while the node is
	// down, for its lag alone: a node that is stopped falls behind.
	last repl.Offset

	answered time.Time // when the last question was sent that was answered
	trips    trips     // how long its answers take
	linkLost time.Time // when a replica's link was first seen down after it was connected

	deposed bool // Sentinel has put another master in its place; until it is a replica, or named again
	vetoed  bool // a replica that most sentinels do not reach

	lagBytes  int64         // -1 unknown
	lag       time.Duration // -1 unknown
	overBytes bool          // above MaxLagBytes and not yet below half of it
	overTime  bool          // above MaxLag and not yet below half of it

	listed    time.Time // when some node's INFO last showed it, or a node was seen to follow it
	downSince time.Time // when it went down, or became known
}

func newMember(n *Node, named bool, now time.Time) *member {
	return &member{
		node: n, named: named, listed: now, downSince: now,
		offset: repl.UnknownOffset, held: repl.UnknownOffset, last: repl.UnknownOffset, lagBytes: -1, lag: -1,
	}
}

// serves reports whether m takes writes as a master would, and may.
func (m *member) serves() bool {
	return m.up && m.role == RoleMaster && m.kind != whyLoading && !m.deposed
}

// becomeDown notes that the node did not answer.
func (m *member) becomeDown(o observation) {
	if m.up || !m.tried {
		m.downSince = o.at
	}
	m.tried, m.up, m.cause = true, false, o.err
	m.kind, m.refusal = whyNot, ""
	m.link, m.offset, m.held = "", repl.UnknownOffset, repl.UnknownOffset
	m.trips = trips{} // it may come back by another way
}

// becomeUp notes an answer.
func (m *member) becomeUp(o observation) {
	if o.runID != m.runID { // what another process said does not hold for this one
		m.info, m.held = replicationInfo{}, repl.UnknownOffset
	}
	m.tried, m.up, m.cause, m.runID, m.answered = true, true, nil, o.runID, o.at
	m.kind, m.refusal = refusalKind(o)
	if o.info != nil {
		if o.info.replID != m.info.replID {
			m.held = repl.UnknownOffset // another history
		}
		m.info = *o.info
	}
	if o.role != nil {
		if o.role.role != m.role {
			m.held = repl.UnknownOffset
		}
		if m.link == linkConnected && o.role.link != linkConnected {
			m.linkLost = o.at
		}
		if o.role.role == RoleReplica {
			m.deposed = false
		}
		m.role, m.masterAddr, m.link = o.role.role, o.role.masterAddr, o.role.link
		m.offset, m.attached = o.role.offset, o.role.replicas
	}
	m.last = m.offset
	switch {
	case m.role != RoleReplica:
	case m.link == linkConnected && m.offset.IsKnown():
		m.held = m.offset
	case m.link == linkSync, m.kind == whyLoading, o.info != nil && o.info.slaveOffset < m.held:
		m.held = repl.UnknownOffset
	}
}

// refusalKind sorts error replies. PING says whether clients get answers at
// all; that a user may not PING, or that a master refuses it with MISCONF as
// it refuses writes, says nothing about that.
func refusalKind(o observation) (why, string) {
	for _, text := range []string{o.ping, o.refusal} {
		switch code, _, _ := strings.Cut(text, " "); code {
		case "LOADING":
			return whyLoading, text
		case "MASTERDOWN": // its link is down and replica-serve-stale-data is no
			return whyLink, text
		case "BUSY":
			return whyBusy, text
		}
	}
	if o.refusal != "" {
		return whyRefused, o.refusal
	}
	return whyNot, ""
}

// measure sets the lag from the master's clock; ours says whether the node has
// the master's history. While the node is down its lag goes on from its last
// answer.
func (m *member) measure(c *LagClock, now time.Time, ours bool, lim Limits) {
	offset := m.offset
	if !m.up {
		offset = m.last
	}
	lag, ok := c.Lag(offset, now)
	switch {
	case m.serves() && ours:
		m.lagBytes, m.lag = 0, 0
	case !ok || !ours || m.role != RoleReplica || !offset.IsKnown():
		m.lagBytes, m.lag = -1, -1
		return // the limits keep their last verdict
	default:
		m.lagBytes, m.lag = max(0, int64(c.Offset()-offset)), lag
	}
	if !m.up {
		return // likewise: this lag is a guess, and the node gets no reads anyway
	}
	m.overBytes = over(m.overBytes, m.lagBytes, lim.MaxLagBytes)
	m.overTime = over(m.overTime, int64(m.lag), int64(lim.MaxLag))
}

// over applies a limit with hysteresis: crossed above the limit, left below
// half of it.
func over(was bool, value, limit int64) bool {
	switch {
	case limit <= 0:
		return false
	case was:
		return value > 0 && value >= limit-limit/2
	}
	return value > limit
}

// store shows the values that change with every sample to other goroutines.
func (m *member) store(o observation) {
	n := m.node
	n.up.Store(m.up)
	n.role.Store(uint32(m.role))
	n.offset.Store(int64(m.offset) + 1)
	n.lagBytes.Store(m.lagBytes + 1)
	n.lag.Store(int64(m.lag) + 1)
	n.roundTrip.Store(int64(m.trips.note(o.took)))
	if id := m.info.replID; id != n.ReplID() {
		n.replID.Store(&id)
	}
	if o.role != nil {
		n.sampledAt.Store(o.at.UnixNano())
	}
}
