package upstream

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/repl"
)

// LinkState is what the link to the master is doing.
type LinkState uint8

const (
	// StateIdle means: not started, or closed.
	StateIdle LinkState = iota
	// StateConnect means: a connection is being opened.
	StateConnect
	// StateHandshake means: PING, AUTH, REPLCONF and their replies.
	StateHandshake
	// StateAttach means: INFO, PSYNC and its answer; the master may wait for a fork.
	StateAttach
	// StateTransfer means: a snapshot comes on this connection, the stream after it.
	StateTransfer
	// StateConnected means: the stream comes.
	StateConnected
	// StateBackoff means: the link is down; what was received is being written, and
	// after a pause it is tried again.
	StateBackoff
	numStates
)

// String returns the state in a word.
func (s LinkState) String() string {
	return [...]string{"idle", "connect", "handshake", "attach", "transfer", "connected", "backoff"}[s]
}

// transitions are those that DESIGN.md draws. Any state may become idle.
var transitions = [numStates][]LinkState{
	StateIdle:      {StateConnect},
	StateConnect:   {StateHandshake, StateBackoff},
	StateHandshake: {StateAttach, StateBackoff},
	StateAttach:    {StateTransfer, StateConnected, StateBackoff},
	StateTransfer:  {StateConnected, StateBackoff},
	StateConnected: {StateBackoff},
	StateBackoff:   {StateConnect},
}

// machine holds the state. Only the link's run goroutine changes it; any
// goroutine may ask.
type machine struct {
	log     *zap.Logger
	journal *journal.Journal

	mu      sync.Mutex
	state   LinkState
	since   time.Time
	master  string    // who the link is with, or was last
	lastErr string    // why it was lost last; empty while it is connected
	said    string    // lastErr as last logged
	saidAt  time.Time // when
	changed chan struct{}
}

// sayEvery is how often one and the same failure is logged.
const sayEvery = time.Minute

func newMachine(log *zap.Logger, j *journal.Journal) *machine {
	return &machine{log: log, journal: j, since: time.Now(), changed: make(chan struct{})}
}

func (m *machine) become(to LinkState) {
	if to != StateIdle && !slices.Contains(transitions[m.state], to) {
		panic(fmt.Sprintf("upstream: link state %s cannot become %s", m.state, to))
	}
	m.state, m.since = to, time.Now()
	close(m.changed)
	m.changed = make(chan struct{})
}

// BecomeConnect notes: a connection to master is opened.
func (m *machine) BecomeConnect(master string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.master = master
	m.become(StateConnect)
}

// BecomeHandshake notes: the connection is open.
func (m *machine) BecomeHandshake() { m.to(StateHandshake) }

// BecomeAttach notes: the handshake is done.
func (m *machine) BecomeAttach() { m.to(StateAttach) }

// BecomeTransfer notes: +FULLRESYNC has come.
func (m *machine) BecomeTransfer() { m.to(StateTransfer) }

// BecomeIdle notes: the link is closed.
func (m *machine) BecomeIdle() { m.to(StateIdle) }

// BecomeConnected notes: the next byte from the master is one of the stream,
// which is at offset.
func (m *machine) BecomeConnected(offset repl.Offset) {
	m.mu.Lock()
	defer m.mu.Unlock()
	text := fmt.Sprintf("the link to the master is up at offset %d", offset)
	if m.state == StateTransfer {
		text += ", after a full resync"
	}
	m.journal.Add(time.Now(), journal.LinkUp, m.master, text)
	m.become(StateConnected)
	m.lastErr, m.said = "", ""
	m.log.Info("link to the master is up", zap.String("master", m.master), zap.Int64("offset", int64(offset)))
}

// BecomeBackoff notes: the link is down because of err.
func (m *machine) BecomeBackoff(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.become(StateBackoff)
	m.lastErr = err.Error()
	var follow followError
	if errors.Is(err, ErrClosed) || errors.Is(err, errRepointed) {
		return // said where it was done
	}
	if errors.As(err, &follow) {
		m.log.Info("the node is a replica; its master is asked", zap.String("node", follow.from), zap.String("master", follow.to))
		return
	}
	m.journal.Add(time.Now(), journal.LinkDown, m.master, "the link to the master is down: "+m.lastErr)
	if m.lastErr == m.said && time.Since(m.saidAt) < sayEvery {
		return
	}
	m.said, m.saidAt = m.lastErr, time.Now()
	m.log.Warn("link to the master is down; it will be tried again"+hint(err), zap.String("master", m.master), zap.Error(err))
}

func (m *machine) to(s LinkState) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.become(s)
}

// get returns state, since when, the master, the last error, and a channel that
// is closed by the next transition.
func (m *machine) get() (state LinkState, since time.Time, master, lastErr string, changed <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state, m.since, m.master, m.lastErr, m.changed
}
