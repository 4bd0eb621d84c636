package topology

import (
	"crypto/tls"
	"fmt"
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

	User     string      // ACL user, "" for the default user; needs +ping +role +info, and +command for OnMaster
	Password string      // "" for none
	TLS      *tls.Config // nil for plain TCP

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

	Logger *zap.Logger // nil logs nothing
}

// MasterInfo is what a master says of itself once it serves.
type MasterInfo struct {
	Addr    string // HOST:PORT
	Version string // redis_version of INFO server; empty where INFO is refused
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
}

func (c *Config) validate() error {
	for _, addr := range append([]string{c.Master}, c.Replicas...) {
		if err := splitAddr(addr); err != nil {
			return fmt.Errorf("check topology: %w", err)
		}
	}
	return nil
}
