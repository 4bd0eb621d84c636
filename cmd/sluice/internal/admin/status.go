package admin

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/syncer"
)

// Status is what /api/status shows: the proxy's, and the relay's where there is
// one. Without a proxy, Ready is the relay's and the rest of the proxy's is
// empty.
type Status struct {
	proxy.Status
	Relay *syncer.Status `json:"relay,omitempty"`

	// The admin server's own.
	Time     time.Time `json:"time"`              // of this answer
	Version  string    `json:"version,omitempty"` // of sluice
	Draining bool      `json:"draining"`          // no new clients are taken
	Lately   *Lately   `json:"lately,omitempty"`  // nil in the first seconds
}

// History returns the last events of the nodes and of the relay in one list, the
// newest first.
func (s *Status) History() []topology.Event {
	list := slices.Clone(s.Events)
	if s.Relay != nil {
		for _, e := range s.Relay.Events {
			list = append(list, topology.Event{Seq: e.Seq, Time: e.Time, Kind: topology.EventKind(e.Kind), Node: e.Node, Text: e.Text})
		}
	}
	slices.SortStableFunc(list, func(a, b topology.Event) int { return b.Time.Compare(a.Time) })
	return list
}

// hasProxy reports whether clients are served.
func (s *Status) hasProxy() bool { return len(s.Listeners) > 0 }

// notReady says why, node by node.
func (s *Status) notReady() string {
	if !s.hasProxy() && s.Relay != nil {
		return "not ready: relay: " + s.Relay.Reason
	}
	var b strings.Builder
	b.WriteString("not ready: no master is known that answers")
	for _, n := range s.Nodes {
		up := "down"
		if n.Up {
			up = "up"
		}
		fmt.Fprintf(&b, "\n%s: role %s, %s", n.Address, n.Role, up)
		if n.Reason != "" {
			fmt.Fprintf(&b, ", %s", n.Reason)
		}
	}
	return b.String()
}

// ready says ok, and what does not keep clients away but should be seen.
func (s *Status) ready() string {
	if s.Relay != nil && !s.Relay.Ready {
		return "ok\nrelay: not ready: " + s.Relay.Reason
	}
	return "ok"
}
