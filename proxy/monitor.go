package proxy

import (
	"bytes"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-io/sluice/proxy/topology"
)

// MONITOR shows what every connection of the node sends. What this process asks
// of its own, up to a thousand times a second, would bury what a user looks for;
// so lines that are certainly ours are left out: one of the questions below, from
// an address that belongs to a connection of an observer or a sampler, or to one
// that is being set up.

// ownQuestions are the commands of observers and samplers as MONITOR shows them.
var ownQuestions = map[string]bool{
	`"ROLE"`: true, `"PING"`: true, `"INFO" "replication"`: true, `"INFO" "server"`: true, `"COMMAND"`: true,
	`"hello" "2"`: true, `"CLIENT" "SETNAME" "` + topology.ObserverName + `"`: true,
}

// setsUp reports whether command can be a step of backend.Dialer. AUTH is shown:
// it may be a client's login.
func setsUp(command []byte) bool {
	return string(command) == `"ROLE"` || string(command) == `"HELLO" "3"` || bytes.HasPrefix(command, []byte(`"SELECT" "`))
}

const (
	// maxOpening bounds the connections being set up that a monitor knows.
	maxOpening = 256
	// setUpWaits is how long one waits for a node's answer to MONITOR at most.
	setUpWaits = 500 * time.Millisecond
)

// ownConns knows the connections whose commands are ours. Its methods may be
// called by any goroutine; no ordinary command comes here.
type ownConns struct {
	mu       sync.Mutex
	asking   map[ownConn]int       // of observers and samplers; guarded by mu
	monitors map[*monitor]struct{} // of the sessions in MONITOR; guarded by mu
	watched  atomic.Int32          // len(monitors)
}

// ownConn is a connection to a node (HOST:PORT as it is configured) by our side
// of it. The same local port can lead to several nodes.
type ownConn struct{ node, local string }

func newOwnConns() *ownConns {
	return &ownConns{asking: make(map[ownConn]int), monitors: make(map[*monitor]struct{})}
}

// asks notes that nothing but questions of ours is sent on nc, until it is closed.
func (o *ownConns) asks(node string, nc net.Conn) net.Conn {
	c := ownConn{node, nc.LocalAddr().String()}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asking[c]++
	return &askingConn{Conn: nc, closed: sync.OnceFunc(func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.asking[c]--; o.asking[c] == 0 {
			delete(o.asking, c)
		}
	})}
}

type askingConn struct {
	net.Conn
	closed func()
}

// Close implements net.Conn.
func (c *askingConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// setUp is told by a dialer that it is about to send n commands of its own; it
// calls failed if the connection comes to nothing. It waits for a MONITOR that
// has been sent: only of what is sent after the answer to it can be told that
// MONITOR is going to show it, and that a line is this one and none of a client's.
func (o *ownConns) setUp(node string, local net.Addr, n int) (failed func()) {
	if o.watched.Load() == 0 {
		return func() {}
	}
	for _, answered := range o.unanswered(node) {
		select {
		case <-answered:
		case <-time.After(setUpWaits): // its lines will be shown
		}
	}
	addr := local.String()
	o.mu.Lock()
	defer o.mu.Unlock()
	for m := range o.monitors {
		if m.node == node && m.shows {
			if len(m.opening) >= maxOpening {
				clear(m.opening)
			}
			m.opening[addr] = n
		}
	}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		for m := range o.monitors {
			if m.node == node {
				delete(m.opening, addr)
			}
		}
	}
}

// unanswered returns what to wait for, of each MONITOR that node has been sent.
func (o *ownConns) unanswered(node string) (all []<-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for m := range o.monitors {
		if m.node == node && m.sent && !m.shows {
			all = append(all, m.answered)
		}
	}
	return all
}

// monitor is what a session in MONITOR leaves out. Its fields but the first are
// guarded by own.mu.
type monitor struct {
	own      *ownConns
	node     string
	sent     bool           // on a connection that stands
	shows    bool           // the node has accepted it
	answered chan struct{}  // closed when it has, or will not
	opening  map[string]int // commands of ours that are still to come, by our side's address
}

// beginMonitor is called as MONITOR is sent.
func (s *session) beginMonitor() {
	if s.monitor != nil {
		return
	}
	o := s.w.srv.own
	m := &monitor{own: o, node: s.pin.Node.Addr, answered: make(chan struct{}), opening: make(map[string]int)}
	s.monitor = m
	o.mu.Lock()
	o.monitors[m] = struct{}{}
	o.watched.Store(int32(len(o.monitors)))
	o.mu.Unlock()
	s.pin.WhenReady(func(error) {
		o.mu.Lock()
		defer o.mu.Unlock()
		m.sent = true
	})
}

// began notes that the node has accepted MONITOR.
func (m *monitor) began() {
	m.own.mu.Lock()
	defer m.own.mu.Unlock()
	if !m.shows {
		m.shows = true
		close(m.answered)
	}
}

// endMonitor ends what beginMonitor began, if it did.
func (s *session) endMonitor() {
	m := s.monitor
	if m == nil {
		return
	}
	s.monitor = nil
	o := m.own
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.monitors, m)
	o.watched.Store(int32(len(o.monitors)))
	if !m.shows {
		close(m.answered)
	}
}

// leavesOut reports whether line is certainly ours.
func (m *monitor) leavesOut(line []byte) bool {
	addr, command, ok := monitorLine(line)
	if !ok || !bytes.HasSuffix(command, []byte("\r\n")) {
		return false
	}
	command = command[:len(command)-2]
	question, step := ownQuestions[string(command)], setsUp(command)
	m.own.mu.Lock()
	defer m.own.mu.Unlock()
	if question && m.own.asking[ownConn{m.node, string(addr)}] > 0 {
		return true
	}
	left, ok := m.opening[string(addr)]
	switch {
	case !ok:
		return false
	case !step && bytes.HasPrefix(command, []byte(`"AUTH" `)):
		return false
	case !step, left == 1:
		delete(m.opening, string(addr)) // from here on it carries others' commands
	default:
		m.opening[string(addr)] = left - 1
	}
	return step
}

// monitorLine takes a line of MONITOR apart (replicationFeedMonitors):
//
//	+1700000000.123456 [0 127.0.0.1:54321] "ROLE"
//
// addr may also be "lua", or "unix:" and a path. ok is false for what is none.
func monitorLine(line []byte) (addr, command []byte, ok bool) {
	at, rest, ok := bytes.Cut(line, []byte(" ["))
	if !ok || len(at) < 2 || at[0] != '+' || len(bytes.Trim(at[1:], "0123456789.")) > 0 {
		return nil, nil, false
	}
	db, rest, ok := bytes.Cut(rest, []byte(" "))
	if !ok || len(bytes.Trim(db, "0123456789")) > 0 {
		return nil, nil, false
	}
	i := bytes.Index(rest, []byte(`] "`))
	if i < 0 {
		return nil, nil, false
	}
	return rest[:i], rest[i+2:], true
}
