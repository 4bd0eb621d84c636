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

// haveHead is what there is to go on with: the last commit, zero if there is
// none, and whether its generation has a base.
type haveHead struct {
	repl.Pos
	base bool
}

// planAttach decides how to attach to the node that i tells of, nil if it would
// not tell. A head without a base goes on only where one can be had apart: else
// a restart in the middle of a full resync would leave it without one for good.
// It asks for a full resync only where nothing else works, because PSYNC that
// cannot be continued makes the master fork at once.
func planAttach(i *nodeInfo, have haveHead, from BaseFrom) (attachPlan, error) {
	p := attachPlan{kind: attachFull}
	if i != nil && i.relay { // it never forks, and knows more of its history than INFO can tell
		if !have.IsZero() && have.base {
			p = attachPlan{kind: attachResume, want: have.Want()}
		}
		return p, nil
	}
	apart := i != nil && i.hasRDBOnly()
	switch {
	case have.IsZero():
	case !have.base && !apart:
		p.reason = "the last full resync was not complete, and the master gives no snapshot apart"
	default:
		w := have.Want()
		if i == nil {
			return attachPlan{kind: attachResume, want: w}, nil
		}
		v := i.verdict(w)
		if v == repl.Accepted {
			return attachPlan{kind: attachResume, want: w}, nil
		}
		p.reason = fmt.Sprintf("the master cannot continue %s: %s", have.Pos, v)
	}
	if i == nil {
		return p, nil
	}
	switch {
	case i.backlog && apart:
		p.kind, p.want = attachJoin, i.pos.Want()
	case from == BaseReplica: // its first replica will create the backlog
		return p, ErrNoReplica
	case apart:
		p.kind = attachCreate
	}
	return p, nil
}
