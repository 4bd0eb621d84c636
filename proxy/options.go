package proxy

import (
	"crypto/tls"
	"io/fs"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/topology"
)

// Defaults of [Options]; sizes in bytes.
const (
	DefaultListen          = "127.0.0.1:6380"
	DefaultMaxClients      = 10000
	DefaultMaxInFlight     = 1024
	DefaultOutputHighWater = 1 << 20
	DefaultOutputHardLimit = 256 << 20
	DefaultMaxLagBytes     = 64 << 20
	DefaultMaxLag          = 10 * time.Second
	DefaultObserveEvery    = 100 * time.Millisecond
	DefaultDiscoverEvery   = time.Second
	DefaultConnectTimeout  = time.Second
	DefaultDrainTimeout    = 10 * time.Second
	DefaultFailoverHold    = 10 * time.Second
	DefaultIndexWait       = 5 * time.Millisecond
	DefaultHealthTimeout   = time.Second
	DefaultAuthTimeout     = time.Minute

	DefaultConsistency = ConsistencyCausal
	DefaultReadFrom    = ReadFromReplica
	DefaultAuth        = AuthPassthrough
)

// ReadFrom says which nodes may answer a read.
type ReadFrom string

// The read policies.
const (
	ReadFromReplica ReadFrom = "replica" // replicas, the master where none is eligible
	ReadFromMaster  ReadFrom = "master"  // the master only
	ReadFromNearest ReadFrom = "nearest" // the nodes with the shortest round trip, also the master
)

// ReadPolicies returns the read policies that a [Listener] may have.
func ReadPolicies() []ReadFrom {
	return []ReadFrom{ReadFromReplica, ReadFromMaster, ReadFromNearest}
}

// Consistency says what a read may return.
type Consistency string

// The consistency modes (see DESIGN.md).
const (
	// ConsistencyCausal: no read shows less than what was acknowledged, to
	// anybody, through this proxy before the read arrived.
	ConsistencyCausal Consistency = "causal"
	// ConsistencyLinearizable: no read shows less than what was acknowledged, to
	// anybody, by the master before the read arrived, whoever wrote it.
	ConsistencyLinearizable Consistency = "linearizable"

	ConsistencyEventual Consistency = "eventual" // any eligible replica, however far behind within the lag limits
	ConsistencyMaster   Consistency = "master"   // every read on the master
)

// Consistencies returns the modes that a [Listener] may have.
func Consistencies() []Consistency {
	return []Consistency{ConsistencyCausal, ConsistencyLinearizable, ConsistencyEventual, ConsistencyMaster}
}

// Listener is one address that clients connect to.
type Listener struct {
	Network     string // "tcp" or "unix"
	Address     string // HOST:PORT, or the socket's path
	Consistency Consistency
	ReadFrom    ReadFrom
	Auth        Auth        // "": Options.Auth
	Mode        fs.FileMode // permissions of a unix socket; 0: what the umask leaves
	TLS         *tls.Config // what clients are met with; nil: plain

	// ProxyProtocol demands a PROXY protocol header, version 2, of every
	// connection, before TLS. Over TCP it is taken from TrustedProxies only; on a
	// unix socket from whom its permissions let connect.
	ProxyProtocol  bool
	TrustedProxies []netip.Prefix
}

// Options configure a [Server]. Zero fields take their defaults in [New].
type Options struct {
	Listeners []Listener
	Loops     int // event loops; default one per CPU

	Master   string   // HOST:PORT of the master, or of any node that knows it
	Replicas []string // HOST:PORT of replicas that INFO does not show

	// Sentinel, if it has a name, says who the master is, and Master is empty.
	Sentinel topology.SentinelConfig

	Zone  string            // where this proxy is; "" for nowhere
	Zones map[string]string // where nodes are, by HOST:PORT; replicas in Zone are read before others

	User     string // upstream ACL user, "" for the default user
	Password string // upstream password, "" for none

	Auth  Auth   // who vouches for clients; default DefaultAuth
	Users []User // of AuthStatic

	TLS *tls.Config // to the nodes; nil: plain. Without ServerName their certificates must be for the host by which each is reached

	MaxClients      int           // clients over all loops; one more is refused as Redis refuses it
	AuthTimeout     time.Duration // close a client that must log in and has not for so long; negative never
	IdleTimeout     time.Duration // close a client that sent nothing for so long; 0 never
	MaxInFlight     int           // requests of one session in flight before it is no longer read
	OutputHighWater int           // bytes waiting for a client before it is no longer read
	OutputHardLimit int           // bytes waiting for a client before it is closed
	MaxLagBytes     int64         // a replica further behind is not read
	MaxLag          time.Duration // a replica longer behind is not read
	ObserveEvery    time.Duration // how often each node is asked for its ROLE
	DiscoverEvery   time.Duration // how often INFO is read for replicas
	HealthTimeout   time.Duration // an observer that waits longer marks its node down
	ConnectTimeout  time.Duration // for an upstream connection including its handshake
	FailoverHold    time.Duration // how long writes wait for a master before they fail; negative: not at all
	IndexWait       time.Duration // how long a linearizable read waits for a replica before it goes to the master
	RefusalRest     time.Duration // how long reads of a user keep away from a replica that refuses what the master allows
	DrainTimeout    time.Duration // how long Close waits for requests in flight

	DeniedCommands []string // lower case; nil for DefaultDeniedCommands

	Logger     *zap.Logger           // nil logs nothing
	Registerer prometheus.Registerer // nil registers nothing
}
