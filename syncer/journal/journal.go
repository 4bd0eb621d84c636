// Package journal remembers the last things that have happened to a relay, for
// people: link, bases, replicas, store. It is bounded, and does no I/O.
package journal

import (
	"slices"
	"sync"
	"time"
)

// Size is how many events a Journal keeps.
const Size = 128

// Event is something that happened to a relay.
type Event struct {
	Seq  uint64    `json:"seq"`  // rises by one with each event, from 1
	Time time.Time `json:"time"` // when it was seen here
	Kind Kind      `json:"kind"`
	Node string    `json:"node"` // HOST:PORT of whom it is told, or the store's directory
	Text string    `json:"text"` // what happened to it
}

// Kind sorts events. The words are part of /api/status, where they stand beside
// those of the proxy's events, and differ from them.
type Kind string

// The kinds of events.
const (
	LinkUp        Kind = "link_up"        // the master's stream comes
	LinkDown      Kind = "link_down"      // it does not; told once until it is up again
	Base          Kind = "base"           // a snapshot was taken
	BaseFailed    Kind = "base_failed"    // one was not taken; told once until one is
	FullResync    Kind = "full_resync"    // a replica is sent the base and the log
	PartialResync Kind = "partial_resync" // a replica goes on in the log
	ReplicaGone   Kind = "replica_gone"   // its connection has ended
	StoreDown     Kind = "store_down"     // the disk takes no writes
	StoreUp       Kind = "store_up"       // it takes them again
)

// Kinds returns all kinds.
func Kinds() []Kind {
	return []Kind{LinkUp, LinkDown, Base, BaseFailed, FullResync, PartialResync, ReplicaGone, StoreDown, StoreUp}
}

// Journal remembers the last Size events. Its methods may be called by any
// goroutine and never block on anything but each other. Of a nil Journal they
// do nothing.
type Journal struct {
	mu     sync.Mutex
	events []Event // the oldest first
	seq    uint64
	down   bool // LinkDown was told, LinkUp not since
	failed bool // BaseFailed was told, Base not since
}

// Add notes what happened at now, unless it is one more failure of what is known
// to fail.
func (j *Journal) Add(now time.Time, kind Kind, node, text string) {
	if j == nil {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	switch kind {
	case LinkDown:
		if j.down {
			return
		}
		j.down = true
	case LinkUp:
		j.down = false
	case BaseFailed:
		if j.failed {
			return
		}
		j.failed = true
	case Base:
		j.failed = false
	}
	j.seq++
	if len(j.events) == Size {
		j.events = slices.Delete(j.events, 0, 1)
	}
	j.events = append(j.events, Event{Seq: j.seq, Time: now, Kind: kind, Node: node, Text: text})
}

// Events returns the events that are remembered, the newest first.
func (j *Journal) Events() []Event {
	if j == nil {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	list := slices.Clone(j.events)
	slices.Reverse(list)
	return list
}
