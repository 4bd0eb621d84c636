package downstream

import (
	"fmt"
	"slices"
)

// State is what a connection is doing.
type State uint8

const (
	// StateClient means: it is asked and answers: a replica in its handshake, a
	// Sentinel, an operator.
	StateClient State = iota
	// StateWait means: PSYNC has come and is not answered yet: the replica is ahead
	// of us, or a base is compared with its checksum. It gets newlines.
	StateWait
	// StateTransfer means: +FULLRESYNC was sent and the base is on its way.
	StateTransfer
	// StateLoading means: all of the base was sent; the replica has not acknowledged
	// anything yet. The stream is sent to it.
	StateLoading
	// StateOnline means: it acknowledges the stream.
	StateOnline
	// StateClosed means: the connection is over.
	StateClosed
	numStates
)

// String returns the state in a word.
func (s State) String() string {
	return [...]string{"client", "wait", "transfer", "loading", "online", "closed"}[s]
}

// info returns the word of INFO's slave lines (genRedisInfoString).
func (s State) info() string {
	switch s {
	case StateWait:
		return "wait_bgsave"
	case StateTransfer, StateLoading:
		return "send_bulk"
	case StateOnline:
		return "online"
	case StateClient, StateClosed:
	}
	return ""
}

// transitions are those that DESIGN.md draws. Any state may become closed.
var transitions = [numStates][]State{
	StateClient:   {StateWait},
	StateWait:     {StateClient, StateTransfer, StateOnline},
	StateTransfer: {StateLoading},
	StateLoading:  {StateOnline},
}

// become checks a transition. s.mu is held.
func (s *session) become(to State) {
	if to != StateClosed && !slices.Contains(transitions[s.state], to) {
		panic(fmt.Sprintf("downstream: state %s cannot become %s", s.state, to))
	}
	s.state = to
}
