package topology

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
)

// Defaults of [Config].
const (
	DefaultObserveEvery   = 100 * time.Millisecond
	DefaultDiscoverEvery  = time.Second
	DefaultHealthTimeout  = time.Second
	DefaultConnectTimeout = time.Second
	DefaultForgetAfter    = time.Minute
)

// Config configures a [Static]. Zero durations take their defaults.
type Config struct {
	Master   string   // HOST:PORT of the master, or of a replica that knows it
	Replicas []string // HOST:PORT of further nodes; like Master they are never forgotten

	// Sentinel, if it has a name, says who the master is, and Master is empty.
	Sentinel SentinelConfig

	User     string // ACL user, "" for the default user; needs +ping +role +info, and +command for OnMaster
	Password string // "" for none
	// TLS is asked for each connection; where it, or what it returns, is nil the
	// connection is plain.
	TLS func() *tls.Config

	ObserveEvery   time.Duration // between two samples (ROLE) of a node
	DiscoverEvery  time.Duration // between two INFO replication of a node
	HealthTimeout  time.Duration // a node that takes longer to answer is down
	ConnectTimeout time.Duration // for a connection with its handshake
	ForgetAfter    time.Duration // a node that was found by INFO, is listed no more and is down is dropped after this

	MaxLagBytes int64         // a replica further behind gets no reads until it is below half of it; 0 for no limit
	MaxLag      time.Duration // likewise, in time

	// OnMaster is called once for each run of a master's process. It is called
	// from a goroutine of its own, never twice at a time. nil asks for nothing.
	OnMaster func(MasterInfo)
	// OnError is called for each connection to a node that could not be made,
	// by any goroutine. nil tells nobody.
	OnError func(addr string, err error)
	// OnConn, if set, is given each connection to a node, or to a sentinel, as it
	// is made, and returns the one to use; by any goroutine.
	OnConn func(addr string, c net.Conn) net.Conn

	Logger *zap.Logger // nil logs nothing

	live *atomic.Pointer[Limits] // those of SetLimits; nil until setDefaults
}

// Limits are what of a [Config] can change while it is observed.
type Limits struct {
	HealthTimeout, ConnectTimeout time.Duration
	MaxLagBytes                   int64
	MaxLag                        time.Duration
}

// limits are those of now. Any goroutine may call it.
func (c *Config) limits() Limits {
	if c.live != nil {
		if l := c.live.Load(); l != nil {
			return *l
		}
	}
	return Limits{c.HealthTimeout, c.ConnectTimeout, c.MaxLagBytes, c.MaxLag}
}

// SentinelConfig names the sentinels that watch over the master.
type SentinelConfig struct {
	Name  string   // under which they know it: the mymaster of sentinel.conf
	Addrs []string // HOST:PORT of one or more; the others are found by asking

	User     string             // ACL user at the sentinels, "" for the default user; needs +sentinel +subscribe &*
	Password string             // "" for none; the nodes' own is never sent to a sentinel
	TLS      func() *tls.Config // as in Config
}

// MasterInfo is what a master says of itself once it serves.
type MasterInfo struct {
	Addr    string // HOST:PORT
	Version string // redis_version of INFO server; empty where INFO is refused
	Hello   any    // its answer to HELLO, likewise; nil where it knows none
	Command any    // its answer to COMMAND, RESP2, nested []any as go-redis gives it
}

func (c *Config) setDefaults() {
	for _, d := range []struct {
		value *time.Duration
		dflt  time.Duration
	}{
		{&c.ObserveEvery, DefaultObserveEvery},
		{&c.DiscoverEvery, DefaultDiscoverEvery},
		{&c.HealthTimeout, DefaultHealthTimeout},
		{&c.ConnectTimeout, DefaultConnectTimeout},
		{&c.ForgetAfter, DefaultForgetAfter},
	} {
		if *d.value <= 0 {
			*d.value = d.dflt
		}
	}
	if c.Logger == nil {
		c.Logger = zap.NewNop()
	}
	c.live = new(atomic.Pointer[Limits])
}

func (c *Config) validate() error {
	addrs := append(slices.Clone(c.Replicas), c.Sentinel.Addrs...)
	switch sentinel := c.Sentinel.Name != ""; {
	case sentinel && c.Master != "":
		return errors.New("check topology: both a master and a Sentinel are given; who is master would have two answers")
	case sentinel != (len(c.Sentinel.Addrs) > 0):
		return errors.New("check topology: Sentinel needs the master's name and at least one address")
	case !sentinel:
		addrs = append(addrs, c.Master)
	}
	for _, addr := range addrs {
		if err := splitAddr(addr); err != nil {
			return fmt.Errorf("check topology: %w", err)
		}
	}
	return nil
}
