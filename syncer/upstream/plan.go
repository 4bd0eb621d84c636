package upstream

import (
	"fmt"

	"github.com/sluice-io/sluice/syncer/repl"
)

// attachKind is a way to attach to a master.
type attachKind uint8

const (
	// attachResume: PSYNC from the last commit; the generation goes on.
	attachResume attachKind = iota
	// attachJoin: PSYNC at the master's offset, into a new generation. No fork;
	// a base is taken apart.
	attachJoin
	// attachCreate: the master has no backlog yet. A snapshot for its own
	// connection creates one; PSYNC from the snapshot's position.
	attachCreate
	// attachFull: PSYNC ? -1, where nothing else works.
	attachFull
)

// String returns the way in words, for the log.
func (k attachKind) String() string {
	return [...]string{"resume", "join at the master's offset", "create the backlog by a base from the master", "full resync"}[k]
}

// attachPlan is how to attach.
type attachPlan struct {
	kind   attachKind
	want   repl.Want // for attachResume and attachJoin
	reason string    // why the generation cannot go on; empty if it can or there is none
}

// planAttach decides how to attach to the node that i tells of, nil if it would
// not tell. have is our last commit, zero if there is none. It asks for a full
// resync only where nothing else works, because PSYNC that cannot be continued
// makes the master fork at once.
func planAttach(i *nodeInfo, have repl.Pos, from BaseFrom) (attachPlan, error) {
	p := attachPlan{kind: attachFull}
	if !have.IsZero() {
		w := have.Want()
		if i == nil {
			return attachPlan{kind: attachResume, want: w}, nil
		}
		v := i.verdict(w)
		if v == repl.Accepted {
			return attachPlan{kind: attachResume, want: w}, nil
		}
		p.reason = fmt.Sprintf("the master cannot continue %s: %s", have, v)
	}
	if i == nil {
		return p, nil
	}
	switch {
	case i.backlog && i.hasRDBOnly():
		p.kind, p.want = attachJoin, i.pos.Want()
	case from == BaseReplica: // its first replica will create the backlog
		return p, ErrNoReplica
	case i.hasRDBOnly():
		p.kind = attachCreate
	}
	return p, nil
}
