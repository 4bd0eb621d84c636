package syncer

import (
	"time"

	"github.com/sluice-io/sluice/syncer/downstream"
	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// Status is a view of a [Relay] for people and for /api/status.
type Status struct {
	Ready  bool   `json:"ready"`            // a generation with a base is stored and can be served
	Reason string `json:"reason,omitempty"` // why it is not ready

	Link  upstream.Status `json:"link"`
	Store StoreStatus     `json:"store"`
	// Downstream is the server for replicas; nil where there is none.
	Downstream *downstream.Status `json:"downstream,omitempty"`

	Events []journal.Event `json:"events"` // the last ones, the newest first; bounded
}

// StoreStatus is what there is to know about a relay's store. Offsets are those
// of the generation that is written to, -1 where there is none.
type StoreStatus struct {
	Dir   string `json:"dir"`
	State string `json:"state"`           // "writable", "disk full" …
	Error string `json:"error,omitempty"` // why it takes no writes

	Generations int    `json:"generations"` // stored
	Current     uint64 `json:"current"`     // the generation that is served, 0: none has a base yet
	Head        uint64 `json:"head"`        // the generation that is written to, 0: none

	History   repl.History `json:"history"`   // of the head
	First     repl.Offset  `json:"first"`     // of the first byte of the log
	Committed repl.Offset  `json:"committed"` // of the last commit
	Fsynced   repl.Offset  `json:"fsynced"`   // durable up to it
	LogBytes  int64        `json:"log_bytes"` // of the head

	Base *BaseStatus `json:"base,omitempty"` // the newest of the generation that is served
}

// BaseStatus is a snapshot that is stored.
type BaseStatus struct {
	Offset repl.Offset `json:"offset"`
	Bytes  int64       `json:"bytes"`
	Time   time.Time   `json:"time"`   // when it was complete
	Source string      `json:"source"` // who gave it, for people
}

// Status returns what there is to know now. Before Start it is that of an empty
// store.
func (r *Relay) Status() Status {
	r.mu.Lock()
	p, reopen, failed := r.parts.Load(), r.reopen, r.err
	r.mu.Unlock()
	if p == nil {
		return Status{Reason: "it has not been started", Store: StoreStatus{Dir: r.opt.Dir, First: repl.UnknownOffset, Committed: repl.UnknownOffset, Fsynced: repl.UnknownOffset}}
	}
	s := Status{Link: p.link.Status(), Store: storeStatus(p.store), Events: r.journal.Events()}
	if p.server != nil {
		d := p.server.Status()
		s.Downstream = &d
	}
	for _, err := range []error{failed, reopen} {
		if err != nil {
			s.Store.Error = err.Error()
			s.Reason = s.Store.Error
			return s
		}
	}
	if s.Ready = s.Store.Base != nil; !s.Ready {
		s.Reason = "no base is stored yet"
		if s.Link.BaseError != "" {
			s.Reason += ": " + s.Link.BaseError
		} else if s.Link.Error != "" {
			s.Reason += "; the link to the master is down: " + s.Link.Error
		}
	}
	return s
}

func storeStatus(st *store.Store) StoreStatus {
	s := StoreStatus{
		Dir: st.Dir(), State: st.State().String(), Generations: len(st.Generations()),
		First: repl.UnknownOffset, Committed: repl.UnknownOffset, Fsynced: repl.UnknownOffset,
	}
	if err := st.Err(); err != nil {
		s.Error = err.Error()
	}
	if g := st.Head(); g != nil {
		s.Head, s.History, s.LogBytes = g.ID(), g.History(), g.LogBytes()
		s.First, s.Committed, s.Fsynced = g.First(), g.Committed(), g.Fsynced()
	}
	if g := st.Current(); g != nil {
		s.Current = g.ID()
		if bases := g.Bases(); len(bases) > 0 {
			b := bases[0]
			s.Base = &BaseStatus{Offset: b.Offset, Bytes: b.Size, Time: b.Time, Source: b.Source}
		}
	}
	return s
}
