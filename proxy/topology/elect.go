package topology

import (
	"cmp"
	"strings"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// elect says who is the master now; it may return one that does not serve:
// the last one known. The rule, see also DESIGN.md:
//
//  1. The current master stays as long as it answers ROLE with "master",
//     whoever else says so too.
//  2. Before there was one: the configured node; if it is a replica, whom it
//     follows; if it is down, a node that was promoted or has replicas.
//  3. A master that was demoted names its successor: whom it follows.
//  4. A master that is lost is succeeded only by a node that was promoted
//     from its history: replid or replid2 of INFO replication is its replid.
//     A stray master, such as an old one that came back after a failover, is
//     never taken for it.
func (t *tracker) elect(now time.Time) *member {
	cur := t.master
	switch {
	case cur != nil && cur.serves():
		return cur
	case cur == nil:
		return t.firstMaster(now)
	case cur.up && cur.role == RoleReplica:
		if next := t.successor(cur, now); next != nil {
			return next
		}
	default:
		if next := t.best(func(m *member) bool { return m.descends(t.replID) }); next != nil {
			return next
		}
	}
	return cur
}

// firstMaster elects before any master was known.
func (t *tracker) firstMaster(now time.Time) *member {
	m := t.configured
	switch {
	case m == nil: // no sentinel has answered yet
		return nil
	case !m.tried:
		return nil // others may have answered sooner by chance
	case !m.up:
		return t.best(func(m *member) bool { return !m.info.replID2.IsZero() || m.attached > 0 })
	case m.serves():
		return m
	case m.role == RoleReplica:
		return t.successor(m, now)
	}
	return nil // loading, or it refuses to tell
}

// successor returns the master that the replica m follows, nil if it is not
// known yet. An address that is new becomes a member.
func (t *tracker) successor(m *member, now time.Time) *member {
	next := m
	for range len(t.members) + 1 { // a ring of replicas ends too
		if next.masterAddr == "" {
			break
		}
		next = t.primary(t.add(next.masterAddr, false, now))
		if next.serves() {
			return next
		}
		if !next.up || next.role != RoleReplica {
			break
		}
	}
	// m may know it by a name that means nothing here.
	return t.best(func(c *member) bool { return c.descends(m.info.replID) || c.descends(t.replID) })
}

// descends reports whether m writes the history id, or one that it began when
// it was promoted out of id (shiftReplicationId in Redis's replication.c).
func (m *member) descends(id repl.ReplID) bool {
	return !id.IsZero() && (m.info.replID == id || m.info.replID2 == id)
}

// best returns the most convincing of the serving masters that ok accepts:
// with the most replicas among the members, then furthest, then by address.
func (t *tracker) best(ok func(*member) bool) *member {
	var best *member
	for _, m := range t.members {
		if !m.serves() || !ok(m) || t.primary(m) != m {
			continue
		}
		if best == nil || cmp.Or(
			cmp.Compare(t.followers(m), t.followers(best)),
			cmp.Compare(m.offset, best.offset),
			strings.Compare(best.node.Addr, m.node.Addr),
		) > 0 {
			best = m
		}
	}
	return best
}

// followers counts the replicas that have the history of m.
func (t *tracker) followers(m *member) (n int) {
	for _, r := range t.members {
		if r.up && r.role == RoleReplica && !r.info.replID.IsZero() && r.info.replID == m.info.replID {
			n++
		}
	}
	return n
}
