package psync

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Answer is what a master can say to PSYNC: [FullResync], [Continue], [Retry]
// or [Refused].
type Answer interface{ isAnswer() }

// FullResync is +FULLRESYNC: a snapshot follows (a payload header, see
// [ReadPayloadHeader]), and then the stream from the byte after Pos.
type FullResync struct {
	Pos repl.Pos // of the snapshot; Offset is the last byte included
}

// Continue is +CONTINUE: the stream follows at once, from the byte asked for.
type Continue struct {
	// ReplID is the id that the history goes by from now on: another one than
	// was asked for after a failover, to be told to [repl.History.Append]. It is
	// zero if the master gave none, as before Redis 4 or to a replica without
	// [CapaPSYNC2]; the id is then the one asked for.
	ReplID repl.ReplID
}

// Retry is an error of a master that cannot serve now and will later. The
// replica keeps what it has. It is an error, too: see [Handshake.Run].
type Retry struct {
	Code string // NOMASTERLINK, LOADING, MASTERDOWN or BUSY
	Line string // as the master sent it
}

// Refused is any other reply: an error that an operator must be told of
// (NOAUTH, NOPERM, WRONGPASS, ERR), or what no master says. Asking again
// unchanged may help (BGSAVE failed, too many clients), falling back to SYNC
// never does: it would give up the position. It is an error, too.
type Refused struct {
	Code string // the error's first word; empty if the reply is not an error
	Line string // as the master sent it
}

func (FullResync) isAnswer() {}
func (Continue) isAnswer()   {}
func (Retry) isAnswer()      {}
func (Refused) isAnswer()    {}

var (
	_ error = Retry{}
	_ error = Refused{}
)

// Error says what the master said.
func (r Retry) Error() string { return fmt.Sprintf("master cannot serve now: %q", r.Line) }

// Error says what the master said.
func (r Refused) Error() string { return fmt.Sprintf("master refused: %q", r.Line) }

// String returns the answer as it is on the wire.
func (a FullResync) String() string {
	return fmt.Sprintf("+FULLRESYNC %s %d", a.Pos.ReplID, a.Pos.Offset)
}

// String returns the answer as it is on the wire.
func (a Continue) String() string { return strings.TrimRight("+CONTINUE "+string(a.ReplID), " ") }

// retryCodes are the errors that pass (slaveTryPartialResynchronization knows
// the first two; the others are what a busy server or a stale replica says to
// any command).
var retryCodes = map[string]bool{"NOMASTERLINK": true, "LOADING": true, "MASTERDOWN": true, "BUSY": true}

// ReadAnswer reads the answer to PSYNC, past any keepalives in front of it. A
// master that must fork first may take minutes over +FULLRESYNC. Errors are
// those of reading.
func ReadAnswer(r *bufio.Reader) (Answer, error) {
	line, err := readReply(r)
	if err != nil {
		return nil, err
	}
	return ParseAnswer(line), nil
}

// ParseAnswer parses a reply to PSYNC without its line end. What is malformed
// is Refused.
func ParseAnswer(line string) Answer {
	word, rest, _ := strings.Cut(line, " ")
	switch word {
	case "+FULLRESYNC":
		id, offset, _ := strings.Cut(rest, " ")
		offset, _, _ = strings.Cut(offset, " ") // strtoll looks no further
		replid, err1 := repl.ParseReplID(id)
		off, err2 := repl.ParseOffset(offset)
		if err1 != nil || err2 != nil || !off.IsKnown() {
			return Refused{Line: line}
		}
		return FullResync{Pos: repl.Pos{ReplID: replid, Offset: off}}
	case "+CONTINUE":
		if rest == "" {
			return Continue{}
		}
		replid, err := repl.ParseReplID(rest)
		if err != nil {
			return Refused{Line: line}
		}
		return Continue{ReplID: replid}
	}
	return parseError(line)
}

// parseError makes Retry or Refused of a reply that is not what was hoped for.
func parseError(line string) interface {
	Answer
	error
} {
	if !strings.HasPrefix(line, "-") {
		return Refused{Line: line}
	}
	code, _, _ := strings.Cut(line[1:], " ")
	if retryCodes[code] {
		return Retry{Code: code, Line: line}
	}
	return Refused{Code: code, Line: line}
}
