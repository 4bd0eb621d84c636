package downstream

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// Defaults of [Options]; sizes in bytes.
const (
	DefaultTimeout     = 60 * time.Second // Redis's repl-timeout
	DefaultHoldAhead   = 60 * time.Second
	DefaultMaxLagBytes = 8 << 30
	DefaultMaxClients  = 1000
)

// Options configure a [Server]. Zero fields take their defaults in New.
type Options struct {
	Listen string // HOST:PORT, port 0 for a free one

	// Password is what clients and replicas must AUTH with, as requirepass; empty:
	// none. User is a name that AUTH and HELLO take besides "default", for replicas
	// with a masteruser.
	User     string
	Password string
	TLS      *tls.Config // nil: plain TCP

	Timeout   time.Duration // a replica that gives no sign of life for so long is dropped
	HoldAhead time.Duration // how long one that is ahead of us is held until we have caught up

	// MaxLagBytes is how far a replica may be behind before it is dropped, where the
	// log from there on is kept on disk for it alone: what follows the newest base is
	// kept anyway. Below 0: no limit.
	MaxLagBytes int64
	MaxClients  int // connections at once, replicas included

	Logger     *zap.Logger           // nil logs nothing
	Journal    *journal.Journal      // nil remembers nothing
	Registerer prometheus.Registerer // nil registers nothing
}

// Upstream is the link to the master, as far as a server needs it.
// [upstream.Link] is one.
type Upstream interface {
	Status() upstream.Status
	// SetMaster goes over to another master, HOST:PORT.
	SetMaster(addr string)
	// RefreshBase has a new base taken.
	RefreshBase()
}

var (
	_ Upstream          = (*upstream.Link)(nil)
	_ upstream.Replicas = (*Server)(nil)
)

// Check returns what New would say of the options.
func (o Options) Check() error { return o.complete() }

// complete sets defaults and checks.
func (o *Options) complete() error {
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.HoldAhead = cmp.Or(o.HoldAhead, DefaultHoldAhead)
	o.MaxLagBytes = cmp.Or(o.MaxLagBytes, DefaultMaxLagBytes)
	o.MaxClients = cmp.Or(o.MaxClients, DefaultMaxClients)
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		return fmt.Errorf("check Listen: %q is not HOST:PORT", o.Listen)
	}
	switch {
	case o.Timeout < 0 || o.HoldAhead < 0:
		return fmt.Errorf("check Options: a time is negative")
	case o.MaxClients < 0:
		return fmt.Errorf("check MaxClients: %d is negative", o.MaxClients)
	case o.User != "" && o.Password == "":
		return fmt.Errorf("check User: %q has no Password", o.User)
	}
	return nil
}
