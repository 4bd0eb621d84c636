package downstream

import (
	"time"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// answerKind is how PSYNC is answered.
type answerKind uint8

const (
	// answerContinue: +CONTINUE from the log.
	answerContinue answerKind = iota
	// answerFull: +FULLRESYNC, base, log.
	answerFull
	// answerHold: the replica is ahead of us; not yet.
	answerHold
	// answerNotReady: there is nothing to serve yet.
	answerNotReady
)

// offer is what a generation has, for a decision.
type offer struct {
	history   repl.History
	first     repl.Offset // of the log's first byte
	committed repl.Offset
	// floor is the offset of the first damaged byte, plus what was lost with it;
	// nothing at or before it is served. Below first where there is no damage.
	floor repl.Offset
	bases []store.Base // newest first
}

// answer is what PSYNC is answered with.
type answer struct {
	kind  answerKind
	offer int          // index of the offer it is served from
	base  store.Base   // for answerFull
	why   repl.Verdict // why not by partial resync
}

// plan decides how a replica that wants w is served. The offers are those of the
// head, if it is not the current generation, and of the current one, if there is
// one, in this order: a replica may be in the new history already, while the old
// one is still served to the others.
func plan(w repl.Want, capa psync.Capa, offers []offer) answer {
	held := answer{kind: answerNotReady}
	for i, o := range offers {
		v := o.history.Accepts(w, max(o.first, o.floor+1), o.committed)
		switch {
		case v == repl.Accepted && (w.ReplID == o.history.Current() || capa&psync.CapaPSYNC2 != 0):
			return answer{kind: answerContinue, offer: i}
		case v == repl.Ahead:
			held = answer{kind: answerHold, offer: i, why: v}
		}
		if held.kind != answerHold {
			held.why = v
		}
	}
	if held.kind == answerHold {
		return held
	}
	return planFull(offers, held.why)
}

// planFull decides where a full resync comes from: the newest base of the
// generation that is served. Only a generation with a base is current, so that
// the last offer is the one.
func planFull(offers []offer, why repl.Verdict) answer {
	for i := len(offers) - 1; i >= 0; i-- {
		for _, b := range offers[i].bases {
			if b.Offset >= offers[i].floor && b.Offset+1 >= offers[i].first {
				return answer{kind: answerFull, offer: i, base: b, why: why}
			}
		}
	}
	return answer{kind: answerNotReady, why: why}
}

// syncReason is why a full resync was done, the value of a metric's label.
func syncReason(v repl.Verdict) string {
	if v == repl.Accepted {
		return "no psync2" // the replica could not be told the new id
	}
	return v.String()
}

// What a replica that goes again and again before it has loaded the base has to
// wait.
const (
	retryPauseMin      = time.Second
	retryPauseMax      = time.Minute
	retryPauseTransfer = 4 * time.Second // at most, if it was cut off in the midst of the base: that may be the network
)

// retryPause returns how long a replica that has failed so many times in a row,
// the last time in the state was, must wait before it gets the base again.
func retryPause(failures int, was State) time.Duration {
	if failures < 2 { // once may be an accident
		return 0
	}
	longest := retryPauseMax
	if was == StateTransfer {
		longest = retryPauseTransfer
	}
	return min(retryPauseMin<<min(failures-1, 10), longest)
}
