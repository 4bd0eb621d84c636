package downstream

import (
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Status is what there is to know about a server.
type Status struct {
	Address  string    `json:"address"` // that is listened on
	Clients  int       `json:"clients"` // connections that are no replicas
	Replicas []Replica `json:"replicas"`
}

// Replica is what there is to know about a replica.
type Replica struct {
	Address string      `json:"address"` // where it says that it can be reached
	Name    string      `json:"name,omitempty"`
	State   string      `json:"state"`
	Since   time.Time   `json:"since"`    // of the state
	Offset  repl.Offset `json:"offset"`   // as acknowledged; -1 before the sync is answered
	Sent    repl.Offset `json:"sent"`     // as handed to the socket; likewise
	Lag     int64       `json:"lag"`      // bytes committed that are not acknowledged; -1 if not known
	Silent  float64     `json:"silent"`   // seconds since the last sign of life
	Sync    string      `json:"sync"`     // "full", "partial", or "" before it is answered
	Reason  string      `json:"reason"`   // why a full resync was needed
	Base    int64       `json:"base"`     // bytes of the base, 0 for a partial resync
	BaseOut int64       `json:"base_out"` // bytes of it that were sent
	begun   time.Time
}

// Status returns what there is to know now.
func (s *Server) Status() Status {
	st := Status{Replicas: []Replica{}}
	if s.ln != nil {
		st.Address = s.ln.Addr().String()
	}
	now := time.Now()
	for _, c := range s.list() {
		if r, ok := c.status(now); ok {
			st.Replicas = append(st.Replicas, r)
		} else {
			st.Clients++
		}
	}
	return st
}

// status returns what there is to know; ok is false if it is no replica.
func (c *session) status(now time.Time) (r Replica, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state == StateClient || c.state == StateClosed {
		return r, false
	}
	r = Replica{
		Address: c.peer, Name: c.name, State: c.state.String(), Since: c.since, begun: c.begun,
		Offset: repl.UnknownOffset, Sent: repl.UnknownOffset, Lag: -1,
		Silent: max(now.Sub(time.Unix(0, c.seen.Load())), 0).Seconds(),
	}
	if sv := c.served; sv != nil {
		r.Offset, r.Sent, r.Sync = repl.Offset(c.acked.Load()), repl.Offset(c.sent.Load()), "partial"
		r.Lag = max(int64(sv.gen.Committed()-r.Offset), 0)
		if sv.full {
			r.Sync, r.Reason, r.Base, r.BaseOut = "full", sv.why, sv.base.Size, sv.sent.Load()
		}
	}
	return r, true
}
