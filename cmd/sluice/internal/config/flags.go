package config

import (
	"slices"
	"strings"

	"github.com/sluice-io/sluice/proxy"
)

// ProxyFlags are the flags that serve and lab share; the tags are kong's. A
// flag that was not given is empty, and then the file or the default counts.
type ProxyFlags struct {
	Listen      []string `help:"Listen for clients on HOST:PORT or unix:/path; may be repeated (default ${listen})." placeholder:"ADDR" sep:"none"`
	AdminListen string   `help:"Listen for metrics, health and status on HOST:PORT (default ${admin})." placeholder:"ADDR"`
	Consistency string   `help:"What a read may return, for all listeners: ${consistencies} (default ${consistency})." placeholder:"MODE"`
	ReadFrom    string   `help:"Which nodes answer reads, for all listeners: ${readpolicies} (default ${readfrom})." placeholder:"POLICY"`
	Loops       *int     `help:"Event loops; 0 for one per CPU (default 0)." placeholder:"N"`
	LogLevel    string   `help:"debug, info, warn or error (default ${loglevel})." placeholder:"L"`
	LogFormat   string   `help:"console or json (default ${logformat})." placeholder:"F"`
}

// Flags are the flags of serve.
type Flags struct {
	Config       string   `help:"YAML file; flags win over it. deploy/sluice.example.yml explains every key." placeholder:"FILE"`
	Master       string   `help:"The master, or any node that knows it." placeholder:"HOST:PORT"`
	Replica      []string `help:"A replica that the master's INFO does not show; may be repeated." placeholder:"HOST:PORT"`
	Sentinel     string   `help:"Sentinels that say who the master is, in place of --master; their password is in ${sentinelpasswordenv}." placeholder:"NAME@HOST:PORT,..."`
	User         string   `help:"ACL user at Redis." placeholder:"NAME"`
	PasswordFile string   `help:"File whose first line is the password at Redis; or set ${passwordenv}." placeholder:"FILE"`
	RelayDir     string   `help:"Capture the master's data and replication stream into DIR (no relay without it)." placeholder:"DIR"`
	RelayListen  string   `help:"Serve stock replicas from there on HOST:PORT: REPLICAOF HOST PORT (usual port 6390; none without it)." placeholder:"ADDR"`
	ProxyFlags
}

// Vars are the values that the help texts of [Flags] name.
func Vars() map[string]string {
	return map[string]string{
		"listen":        proxy.DefaultListen,
		"admin":         DefaultAdminListen,
		"consistency":   string(proxy.DefaultConsistency),
		"consistencies": list(proxy.Consistencies()),
		"readfrom":      string(proxy.DefaultReadFrom),
		"readpolicies":  list(proxy.ReadPolicies()),
		"loglevel":      DefaultLogLevel,
		"logformat":     DefaultLogFormat,
		"passwordenv":   PasswordEnv,

		"sentinelpasswordenv": SentinelPasswordEnv,
	}
}

// Apply puts the flags that were given over c.
func (f *ProxyFlags) Apply(c *Config) {
	if len(f.Listen) > 0 {
		c.Listeners = nil
		for _, a := range f.Listen {
			c.Listeners = append(c.Listeners, Listener{Address: a})
		}
	}
	c.Listeners = slices.Clone(c.Listeners)
	for i := range c.Listeners { // a flag wins over what the file says of a single listener too
		if f.Consistency != "" {
			c.Listeners[i].Consistency = ""
		}
		if f.ReadFrom != "" {
			c.Listeners[i].ReadFrom = ""
		}
	}
	set(&c.Consistency, proxy.Consistency(f.Consistency))
	set(&c.ReadFrom, proxy.ReadFrom(f.ReadFrom))
	set(&c.Admin.Listen, f.AdminListen)
	set(&c.Log.Level, f.LogLevel)
	set(&c.Log.Format, f.LogFormat)
	if f.Loops != nil {
		c.Loops = *f.Loops
	}
}

// apply puts all flags but the password over c. A master that is given wins
// over a Sentinel of the file, and the other way round.
func (f *Flags) apply(c *Config) error {
	if f.Sentinel != "" {
		name, list, ok := strings.Cut(f.Sentinel, "@")
		if !ok || name == "" {
			return &FieldError{"--sentinel", f.Sentinel, "must be NAME@HOST:PORT,HOST:PORT,..."}
		}
		c.Sentinel.Name, c.Sentinel.Addresses = name, strings.Split(list, ",")
		c.Master = ""
	} else if f.Master != "" {
		c.Sentinel.Name, c.Sentinel.Addresses = "", nil
	}
	set(&c.Master, f.Master)
	if len(f.Replica) > 0 {
		c.Replicas = f.Replica
	}
	set(&c.Upstream.User, f.User)
	set(&c.Relay.Dir, f.RelayDir)
	set(&c.Relay.Listen, f.RelayListen)
	f.Apply(c)
	return nil
}

// set assigns v to dst unless v is empty.
func set[T ~string](dst *T, v T) {
	if v != "" {
		*dst = v
	}
}
