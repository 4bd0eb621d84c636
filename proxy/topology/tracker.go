package topology

import (
	"slices"
	"strings"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// tracker turns observations into Views. It does no I/O, reads no clock and
// belongs to one goroutine.
type tracker struct {
	cfg        *Config
	configured *member            // Config.Master, or whom Sentinel names; nil before it has
	members    []*member          // observed now
	byAddr     map[string]*member // the same
	nodes      map[string]*Node   // every one ever made, also those dropped

	hinted string      // whom the sentinels named last
	master *member     // the last one known, up or not; nil before the first
	replID repl.ReplID // its history when it last told
	clock  *LagClock   // its offsets

	view   *View       // the last one made
	states []NodeState // scratch
}

func newTracker(cfg *Config) *tracker {
	t := &tracker{
		cfg:    cfg,
		byAddr: make(map[string]*member),
		nodes:  make(map[string]*Node),
		clock:  NewLagClock(2 * cfg.MaxLag),
		view:   &View{},
	}
	if cfg.Master != "" {
		t.configured = t.add(cfg.Master, true, time.Time{})
	}
	for _, addr := range cfg.Replicas {
		t.add(addr, true, time.Time{})
	}
	t.refresh()
	return t
}

// add makes addr a member and notes that it was seen now.
func (t *tracker) add(addr string, named bool, now time.Time) *member {
	if m := t.byAddr[addr]; m != nil {
		m.named = m.named || named
		m.listed = now
		return m
	}
	n := t.nodes[addr]
	if n == nil {
		n = newNode(len(t.nodes), addr)
		t.nodes[addr] = n
	}
	m := newMember(n, named, now)
	t.byAddr[addr] = m
	t.members = append(t.members, m)
	return m
}

// observe takes in what an observer saw and returns whom to ask at once: the
// master, if a replica has lost it; everybody, if there is another master or it
// writes another history.
func (t *tracker) observe(o observation) (ask []*member) {
	m := t.byAddr[o.addr]
	if m == nil {
		return nil
	}
	lost := m.linkLost
	if o.err != nil {
		m.becomeDown(o)
	} else {
		m.becomeUp(o)
	}
	historyChanged := t.follow(o.at)
	switch {
	case historyChanged:
		ask = t.members
	case m.linkLost != lost && t.master != nil:
		ask = []*member{t.master}
	}
	if m == t.master && m.serves() && o.role != nil {
		t.clock.Observe(m.offset, o.at)
	}
	if o.info != nil || historyChanged {
		t.learn(o.at)
	}
	lim := t.cfg.limits()
	t.clock.SetSpan(2 * lim.MaxLag)
	m.measure(t.clock, o.at, t.ours(m), lim)
	m.store(o)
	if up := t.upstream(m); up != m.node.Follows() {
		m.node.follows.Store(&up)
	}
	return ask
}

// follow elects anew and reports whether there is another master, or another
// history of it.
func (t *tracker) follow(now time.Time) bool {
	before, history := t.master, t.replID
	t.master = t.elect(now)
	if t.master != nil && t.master.serves() {
		t.replID = t.master.info.replID
	}
	if t.master == before && t.replID == history {
		return false
	}
	t.clock.Reset()
	return true
}

// ours reports whether m's data belongs to the master's history. Addresses
// would not do: a replica may know its master by another name than we do.
func (t *tracker) ours(m *member) bool { return !t.replID.IsZero() && m.info.replID == t.replID }

// upstream names the node that m gets its stream from. A replica may know its
// master by an address that means nothing here; then the node that lists the
// replica is meant.
func (t *tracker) upstream(m *member) string {
	if m.role != RoleReplica || m.masterAddr == "" {
		return ""
	}
	if up := t.byAddr[m.masterAddr]; up != nil {
		return t.primary(up).node.Addr
	}
	for _, up := range t.members {
		if up != m && up.up && t.primary(up) == up && slices.Contains(up.info.replicas, m.node.Addr) {
			return up.node.Addr
		}
	}
	return m.masterAddr
}

// learn adds the replicas that the nodes below the master list, down to the
// last replica of a replica.
func (t *tracker) learn(now time.Time) {
	for i := 0; i < len(t.members); i++ { // grows
		m := t.members[i]
		inTree := m == t.master || t.ours(m) || t.master == nil && m == t.configured
		if !m.up || !inTree {
			continue
		}
		for _, addr := range m.info.replicas {
			t.add(addr, false, now)
		}
	}
}

// expire drops the members that nobody named, nobody lists and nobody reaches
// any more. While no master is up nobody lists anything, so nothing is dropped.
func (t *tracker) expire(now time.Time) (dropped []*member) {
	if t.master == nil || !t.master.serves() {
		return nil
	}
	t.members = slices.DeleteFunc(t.members, func(m *member) bool {
		if m.named || m.up || m == t.master ||
			now.Sub(m.listed) < t.cfg.ForgetAfter || now.Sub(m.downSince) < t.cfg.ForgetAfter {
			return false
		}
		delete(t.byAddr, m.node.Addr)
		dropped = append(dropped, m)
		return true
	})
	return dropped
}

// primary returns the member that stands for m: another one, if m is a second
// address of the same server process; the master before others, the one known
// longer before the other.
func (t *tracker) primary(m *member) *member {
	if !m.up || m.runID == "" {
		return m
	}
	best := m
	for _, other := range t.members {
		if !other.up || other.runID != m.runID || best == t.master {
			continue
		}
		if other == t.master || other.node.Index < best.node.Index {
			best = other
		}
	}
	return best
}

// judge says why m gets no reads.
func (t *tracker) judge(m *member) why {
	switch {
	case !m.tried:
		return whyUntried
	case !m.up:
		return whyDown
	case m.kind != whyNot:
		return m.kind
	case m == t.master && m.serves():
		return whyNot
	case m.role == RoleUnknown:
		return whyRole
	case m.role == RoleMaster:
		return whyForeign
	case m.info.relay:
		return whyRelay
	case m.link == linkSync:
		return whySync
	}
	// Without a master every link is down, and what the replicas have is the
	// best there is: those that were in step when it went may go on. A lost
	// link may be the first that is seen of it, so the verdict waits until the
	// master has been asked once more.
	mayStand := t.master != nil && m.held.IsKnown() &&
		(!t.master.serves() || !t.master.answered.After(m.linkLost))
	switch {
	case m.link != linkConnected && !mayStand:
		return whyLink
	case !t.ours(m):
		return whyForeign
	case m.info.unannounced && !m.named:
		return whyUnannounced
	case m.vetoed:
		return whySentinel
	case !m.held.IsKnown():
		return whyOffset
	case m.overBytes:
		return whyLagBytes
	case m.overTime:
		return whyLagTime
	}
	return whyNot
}

// refresh returns the View of now: the last one, if nothing has changed.
func (t *tracker) refresh() *View {
	slices.SortFunc(t.members, func(a, b *member) int {
		if (a == t.master) != (b == t.master) {
			if a == t.master {
				return -1
			}
			return 1
		}
		return strings.Compare(a.node.Addr, b.node.Addr)
	})
	t.states = t.states[:0]
	var master *Node
	for _, m := range t.members {
		if t.primary(m) != m {
			continue
		}
		w := t.judge(m)
		s := NodeState{Node: m.node, Role: m.role, Up: m.up, why: w}
		if m == t.master && m.serves() {
			master = m.node
		} else {
			s.Reads = w == whyNot
		}
		t.states = append(t.states, s)
	}
	if t.view.Epoch > 0 && t.view.Master == master && slices.EqualFunc(t.view.States, t.states, NodeState.same) {
		return t.view
	}
	v := &View{Epoch: t.view.Epoch + 1, Master: master, States: slices.Clone(t.states)}
	for i := range v.States {
		s := &v.States[i]
		s.Reason = t.byAddr[s.Node.Addr].reason(s.why)
		v.Nodes = append(v.Nodes, s.Node)
		if s.Reads {
			v.Readable = append(v.Readable, s.Node)
		}
	}
	t.view = v
	return v
}
