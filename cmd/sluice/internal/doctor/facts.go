package doctor

import (
	"strconv"
	"strings"
	"time"
)

// Role is a node's role as its INFO says.
type Role string

// The roles.
const (
	RoleMaster  Role = "master"
	RoleReplica Role = "replica"
	RoleUnknown Role = "unknown" // it could not be asked
)

// Facts is what a look at a deployment has found. What could not be read is
// absent, with the reason beside it; a check must not guess it.
type Facts struct {
	Sample time.Duration // over which Master.WriteRate was measured
	Outage time.Duration // the longest loss of a link that must not cost a full sync
	Rate   float64       // bytes/s to check against instead of the measured rate; 0 for none
	Reads  bool          // sluice sends reads to replicas

	Master   *Node   // nil if none was found
	Replicas []*Node // by address
	Sentinel *Sentinel
}

// Node is one server.
type Node struct {
	Addr     string // HOST:PORT
	Role     Role
	Follows  string // HOST:PORT of a replica's master; "" on a master
	Relay    bool   // a sluice relay: it has no settings of Redis
	Err      string // why it could not be asked; then the rest is empty
	Info     Fields // INFO, all its default sections
	InfoErr  string // why INFO is missing
	Settings Fields // CONFIG GET of the settings in [settings]
	ConfErr  string // why settings are missing

	Users  map[string]string // ACL user -> fingerprint of its rules; nil if unknown
	ACLErr string            // why Users is nil; "" on a server without ACLs too

	ClockKnown bool
	Clock      time.Duration // its TIME minus ours
	ClockError time.Duration // how wrong Clock may be: half a round trip

	// Of the sample; the end's values are in Info.
	FullSyncs int64   // sync_full's rise while the sample was taken
	WriteRate float64 // bytes/s of master_repl_offset; -1 if unknown
}

// Sentinel is what the Sentinels say of the master.
type Sentinel struct {
	Name    string // of the master, as Sentinel knows it
	Members []SentinelMember
}

// SentinelMember is one Sentinel.
type SentinelMember struct {
	Addr   string
	Err    string // why it could not be asked
	Master string // HOST:PORT that it holds for the master
	Quorum int
	Others int // other Sentinels that it knows, reachable or not
}

// Fields are names and values as INFO or CONFIG GET give them.
type Fields map[string]string

// Int returns the field as a whole number.
func (f Fields) Int(name string) (int64, bool) {
	v, ok := f[name]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 64)
	return n, err == nil
}

// Is reports whether the field is there and has this value.
func (f Fields) Is(name, value string) bool {
	v, ok := f[name]
	return ok && v == value
}

// parseInfo reads INFO's name:value lines.
func parseInfo(text string) Fields {
	f := Fields{}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok && !strings.HasPrefix(name, "#") {
			f[name] = value
		}
	}
	return f
}

// Version returns redis_version as numbers, and the product: "redis" or
// "valkey", whose redis_version is the one of Redis that it is compatible with.
func (n *Node) Version() (v Version, ok bool) {
	if n.Info["valkey_version"] != "" {
		v, ok = parseVersion(n.Info["valkey_version"])
		v.Valkey = true
		return v, ok
	}
	return parseVersion(n.Info["redis_version"])
}

// Nodes returns the master, if there is one, and the replicas.
func (f *Facts) Nodes() []*Node {
	if f.Master == nil {
		return f.Replicas
	}
	return append([]*Node{f.Master}, f.Replicas...)
}

// direct returns the replicas that the master itself feeds.
func (f *Facts) direct() []*Node {
	var out []*Node
	for _, r := range f.Replicas {
		if f.Master != nil && r.Follows == f.Master.Addr {
			out = append(out, r)
		}
	}
	return out
}

// rate returns the write rate to check against, in bytes/s: what was asked for,
// else what was measured.
func (f *Facts) rate() (bytesPerSecond float64, ok bool) {
	switch {
	case f.Rate > 0:
		return f.Rate, true
	case f.Master == nil || f.Master.WriteRate < 0:
		return 0, false
	}
	return f.Master.WriteRate, true
}

// Version is a server's version.
type Version struct {
	Major, Minor, Patch int
	Valkey              bool
}

func parseVersion(s string) (Version, bool) {
	var n [3]int
	for i, part := range strings.SplitN(s, ".", 3) {
		digits := part
		if end := strings.IndexFunc(part, func(r rune) bool { return r < '0' || r > '9' }); end >= 0 {
			digits = part[:end] // 8.0.0-rc1
		}
		var err error
		if n[i], err = strconv.Atoi(digits); err != nil {
			return Version{}, false
		}
	}
	return Version{Major: n[0], Minor: n[1], Patch: n[2]}, s != ""
}

// Less reports whether v is older than major.minor.patch of the same product.
func (v Version) Less(major, minor, patch int) bool {
	if v.Major != major {
		return v.Major < major
	}
	if v.Minor != minor {
		return v.Minor < minor
	}
	return v.Patch < patch
}

// RDB returns the version of the RDB files that the server writes, which is
// also the newest that it loads: 9 to 6.2, 10 of 7.0, 11 of 7.2 and of Valkey
// up to 8, 12 of 7.4 and 8, 80 of Valkey 9 (RDB_VERSION in rdb.h of each).
func (v Version) RDB() int {
	switch {
	case v.Valkey && !v.Less(9, 0, 0):
		return 80
	case v.Valkey:
		return 11
	case v.Less(7, 0, 0):
		return 9
	case v.Less(7, 2, 0):
		return 10
	case v.Less(7, 4, 0):
		return 11
	}
	return 12
}

// String returns "7.0.15", "valkey 8.1.1".
func (v Version) String() string {
	s := strconv.Itoa(v.Major) + "." + strconv.Itoa(v.Minor) + "." + strconv.Itoa(v.Patch)
	if v.Valkey {
		return "valkey " + s
	}
	return s
}
