package upstream

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/repl"
)

// BaseFrom says who gives the snapshots.
type BaseFrom string

const (
	// BaseAuto takes them from the most caught-up replica, and from the master
	// only where no replica can give one.
	BaseAuto BaseFrom = "auto"
	// BaseReplica never makes the master fork: it waits for a replica.
	BaseReplica BaseFrom = "replica"
	// BaseMaster takes them from the master.
	BaseMaster BaseFrom = "master"
)

// BaseFroms returns the values that exist.
func BaseFroms() []BaseFrom { return []BaseFrom{BaseAuto, BaseReplica, BaseMaster} }

// AckMode says what is acknowledged to the master, and so what WAIT on it
// means.
type AckMode string

const (
	// AckReceived acknowledges what is in our memory, as a stock replica does.
	AckReceived AckMode = "received"
	// AckFsynced acknowledges what is durable on our disk.
	AckFsynced AckMode = "fsynced"
	// AckDownstream acknowledges what the slowest replica behind the relay has
	// acknowledged, and while none is online, what is durable on our disk. See
	// [Link.SetReplicas].
	AckDownstream AckMode = "downstream"
)

// Replicas are those behind a relay. Any goroutine may call.
type Replicas interface {
	// MinAcked returns the lowest offset that an online replica has acknowledged;
	// ok is false if none is online.
	MinAcked() (off repl.Offset, ok bool)
	// Acked returns a channel that is sent to after MinAcked may have changed.
	Acked() <-chan struct{}
	// Online returns the addresses, HOST:PORT, of the online replicas with what
	// they have acknowledged.
	Online() map[string]repl.Offset
}

// AckModes returns the values that exist.
func AckModes() []AckMode { return []AckMode{AckReceived, AckFsynced, AckDownstream} }

// Defaults of [Options]; sizes in bytes.
const (
	DefaultBaseFrom       = BaseAuto
	DefaultAck            = AckReceived
	DefaultBufferBytes    = 64 << 20
	DefaultBaseRefresh    = 1.0
	DefaultBaseRefreshMin = 64 << 20
	DefaultConnectTimeout = 5 * time.Second
	DefaultTimeout        = 60 * time.Second // Redis's repl-timeout
	DefaultBaseWait       = 60 * time.Second
	DefaultBackoffMin     = 100 * time.Millisecond
	DefaultBackoffMax     = 10 * time.Second
)

// announcedVersion is told by REPLCONF version. A Valkey 9 gives no diskless
// snapshot of hashes with field TTLs to a replica that it takes for an older
// one; snapshots are stored as they are, so that any version will do.
const announcedVersion = "9.0.0"

// Options configure a [Link]. Zero fields take their defaults in New.
type Options struct {
	Master   string // HOST:PORT; if that is a replica, its master is followed; empty: SetMaster will tell
	User     string // ACL user; needs +psync +replconf +ping +info; empty: the default user
	Password string // empty: no AUTH
	TLS      *tls.Config

	// ListeningPort and IPAddress are announced to the master, which shows them
	// in INFO and ROLE. Zero: not told.
	ListeningPort int
	IPAddress     string

	BaseFrom BaseFrom
	Ack      AckMode

	BufferBytes int // memory between the socket and the disk; when it is full the link is dropped

	// A new base is taken when the log since the newest one is longer than
	// BaseRefresh times its size, and than BaseRefreshMin bytes.
	BaseRefresh    float64
	BaseRefreshMin int64

	ConnectTimeout time.Duration // to open a connection
	Timeout        time.Duration // silence after which a peer counts as gone
	BaseWait       time.Duration // how long a replica and the log wait for each other
	BackoffMin     time.Duration // first pause before the link is tried again; doubles
	BackoffMax     time.Duration

	// Dial opens connections; nil for TCP.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)

	Logger     *zap.Logger           // nil logs nothing
	Journal    *journal.Journal      // nil remembers nothing
	Registerer prometheus.Registerer // nil registers nothing
}

// Check returns what New would say of the options.
func (o Options) Check() error { return o.complete() }

// complete sets defaults and checks.
func (o *Options) complete() error {
	o.BaseFrom = cmp.Or(o.BaseFrom, DefaultBaseFrom)
	o.Ack = cmp.Or(o.Ack, DefaultAck)
	o.BufferBytes = cmp.Or(o.BufferBytes, DefaultBufferBytes)
	o.BaseRefresh = cmp.Or(o.BaseRefresh, DefaultBaseRefresh)
	o.BaseRefreshMin = cmp.Or(o.BaseRefreshMin, DefaultBaseRefreshMin)
	o.ConnectTimeout = cmp.Or(o.ConnectTimeout, DefaultConnectTimeout)
	o.Timeout = cmp.Or(o.Timeout, DefaultTimeout)
	o.BaseWait = cmp.Or(o.BaseWait, DefaultBaseWait)
	o.BackoffMin = cmp.Or(o.BackoffMin, DefaultBackoffMin)
	o.BackoffMax = cmp.Or(o.BackoffMax, DefaultBackoffMax)
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.Dial == nil {
		d := &net.Dialer{KeepAlive: time.Minute}
		o.Dial = d.DialContext
	}
	if host, port, err := net.SplitHostPort(o.Master); o.Master != "" && (err != nil || host == "" || port == "") {
		return fmt.Errorf("check Master: %q is not HOST:PORT", o.Master)
	}
	switch o.BaseFrom {
	case BaseAuto, BaseReplica, BaseMaster:
	default:
		return fmt.Errorf("check BaseFrom: %q is none of %q", o.BaseFrom, BaseFroms())
	}
	switch o.Ack {
	case AckReceived, AckFsynced, AckDownstream:
	default:
		return fmt.Errorf("check Ack: %q is none of %q", o.Ack, AckModes())
	}
	if o.BufferBytes < 0 || o.BaseRefresh < 0 || o.BaseRefreshMin < 0 {
		return fmt.Errorf("check Options: a size is negative")
	}
	return nil
}
