package topology

import (
	"fmt"
	"sync"
	"time"
)

// journalSize is how many events a Journal keeps.
const journalSize = 128

// Event is something that happened to the nodes, for people.
type Event struct {
	Seq  uint64    `json:"seq"`  // rises by one with each event, from 1
	Time time.Time `json:"time"` // when it was seen here
	Kind EventKind `json:"kind"`
	Node string    `json:"node"` // HOST:PORT of whom it is told
	Text string    `json:"text"` // what happened to it
}

// EventKind sorts events. The words are part of /api/status.
type EventKind string

// The kinds of events.
const (
	EventKnown      EventKind = "known"       // a node was configured or discovered
	EventForgotten  EventKind = "forgotten"   // it is down and nobody lists it any more
	EventDown       EventKind = "down"        // it does not answer
	EventUp         EventKind = "up"          // it answers again
	EventReads      EventKind = "reads"       // a replica gets reads
	EventEjected    EventKind = "ejected"     // a replica that got reads gets none, though it answers
	EventResync     EventKind = "resync"      // a replica loads a full copy from its master
	EventMasterLost EventKind = "master_lost" // nobody takes writes
	EventMaster     EventKind = "master"      // the first master, or the same one is back
	EventFailover   EventKind = "failover"    // another one took its place
)

// Journal remembers the last events, which it makes from the differences
// between Views. Its methods may be called by any goroutine.
type Journal struct {
	mu     sync.Mutex
	view   *View
	events []Event // a ring once it is full: the event n is at (n-1)%journalSize
	seq    uint64
	master *Node     // the last one known
	lostAt time.Time // when it was lost; zero while there is one
}

// NewJournal returns a journal without events.
func NewJournal() *Journal { return &Journal{view: &View{}} }

// Events returns the events that are remembered, the newest first.
func (j *Journal) Events() []Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	list := make([]Event, 0, len(j.events))
	for i := range uint64(len(j.events)) {
		list = append(list, j.events[(j.seq-1-i)%journalSize])
	}
	return list
}

// Observe notes what is different in v, which became the picture at now. It
// never blocks on anything but another call, so a subscriber of [Static] may
// call it.
func (j *Journal) Observe(v *View, now time.Time) {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := make(map[*Node]NodeState, len(j.view.States))
	for _, s := range j.view.States {
		before[s.Node] = s
	}
	for _, s := range v.States {
		was, known := before[s.Node]
		delete(before, s.Node)
		if !known {
			j.add(now, EventKnown, s.Node, "became known")
		}
		j.nodeChanged(now, was, s)
	}
	for _, s := range j.view.States { // what is left, in order
		if _, gone := before[s.Node]; gone {
			j.add(now, EventForgotten, s.Node, "is no longer watched: down, and no node lists it")
		}
	}
	j.masterChanged(now, v)
	j.view = v
}

// nodeChanged tells one thing at most: the gravest.
func (j *Journal) nodeChanged(now time.Time, was, is NodeState) {
	role := is.Role.String()
	if is.Role == RoleUnknown {
		role = "node"
	}
	switch {
	case was.why == is.why && was.Up == is.Up && was.Reads == is.Reads:
	case is.why == whyDown:
		if was.why != whyDown {
			j.add(now, EventDown, is.Node, role+" does not answer")
		}
	case is.why == whySync:
		j.add(now, EventResync, is.Node, "full resync: it loads a copy from its master, and gets no reads meanwhile")
	case was.why == whyDown && is.Up:
		text := role + " answers again"
		if is.Reason != "" {
			text += "; no reads yet: " + is.Reason
		} else if is.Reads {
			text += " and gets reads"
		}
		j.add(now, EventUp, is.Node, text)
	case is.Reads:
		j.add(now, EventReads, is.Node, "gets reads")
	case was.Reads && is.Reason != "":
		j.add(now, EventEjected, is.Node, "gets no reads any more: "+is.Reason)
	}
}

func (j *Journal) masterChanged(now time.Time, v *View) {
	last := j.master
	switch {
	case v.Master == j.view.Master:
		return
	case v.Master == nil:
		j.lostAt = now
		j.add(now, EventMasterLost, j.view.Master, "master lost: writes wait for a new one")
		return
	case last == nil:
		j.add(now, EventMaster, v.Master, "is the master")
	case last == v.Master:
		j.add(now, EventMaster, v.Master, "is the master again"+j.without(now))
	default:
		j.add(now, EventFailover, v.Master, "is the master now, in place of "+last.Addr+j.without(now))
	}
	j.master, j.lostAt = v.Master, time.Time{}
}

// without says for how long there was no master, if there was none.
func (j *Journal) without(now time.Time) string {
	if j.lostAt.IsZero() {
		return ""
	}
	return fmt.Sprintf(", after %.1f s without one", now.Sub(j.lostAt).Seconds())
}

func (j *Journal) add(now time.Time, kind EventKind, n *Node, text string) {
	j.seq++
	e := Event{Seq: j.seq, Time: now, Kind: kind, Node: n.Addr, Text: text}
	if len(j.events) < journalSize {
		j.events = append(j.events, e)
		return
	}
	j.events[(j.seq-1)%journalSize] = e
}
