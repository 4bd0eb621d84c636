// Package config is the configuration of sluice: its defaults, its YAML file,
// the flags that win over the file, and the checks of both.
//
// deploy/sluice.example.yml explains every key; a test holds the two together.
package config

import (
	"crypto/tls"
	"fmt"
	"io/fs"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/topology"
)

// Defaults of what package proxy does not know.
const (
	DefaultAdminListen = "127.0.0.1:9380"
	DefaultLogLevel    = "info"
	DefaultLogFormat   = FormatConsole
)

// The log formats.
const (
	FormatConsole = "console" // lines for people
	FormatJSON    = "json"    // one object per line
)

// PasswordEnv is the environment variable that holds the upstream password. It
// wins over the file and loses to --password-file.
const PasswordEnv = "SLUICE_PASSWORD"

// SentinelPasswordEnv is the environment variable that holds the password at
// the sentinels. It wins over the file.
const SentinelPasswordEnv = "SLUICE_SENTINEL_PASSWORD"

// Config is one YAML file. Fields are explained in deploy/sluice.example.yml.
type Config struct {
	Master   string   `yaml:"master"`
	Replicas []string `yaml:"replicas"`
	Sentinel Sentinel `yaml:"sentinel"`
	Upstream Upstream `yaml:"upstream"`

	Listeners   []Listener        `yaml:"listeners"` // empty: no proxy
	Auth        proxy.Auth        `yaml:"auth"`
	Users       []User            `yaml:"users"`
	Consistency proxy.Consistency `yaml:"consistency"`
	ReadFrom    proxy.ReadFrom    `yaml:"read_from"`

	Zone  string              `yaml:"zone"`
	Zones map[string][]string `yaml:"zones"` // addresses by zone

	MaxLagBytes   Size     `yaml:"max_lag_bytes"`
	MaxLag        Duration `yaml:"max_lag"`
	ObserveEvery  Duration `yaml:"observe_every"`
	DiscoverEvery Duration `yaml:"discover_every"`

	Limits         Limits   `yaml:"limits"`
	Timeouts       Timeouts `yaml:"timeouts"`
	DeniedCommands []string `yaml:"denied_commands"` // nil: the proxy's list; empty: none
	Loops          int      `yaml:"loops"`           // 0: one per CPU

	Relay Relay `yaml:"relay"`

	Admin Admin `yaml:"admin"`
	Log   Log   `yaml:"log"`
}

// Sentinel says who the master is, in place of Config.Master.
type Sentinel struct {
	Name         string   `yaml:"name"`      // of the master; "": not used
	Addresses    []string `yaml:"addresses"` // HOST:PORT of sentinels
	User         string   `yaml:"user"`
	Password     Secret   `yaml:"password"` // after Load the one in force
	PasswordFile string   `yaml:"password_file"`

	TLS UpstreamTLS `yaml:"tls"`
}

// Upstream says as whom sluice logs in at Redis.
type Upstream struct {
	User         string `yaml:"user"`
	Password     Secret `yaml:"password"`      // after Load the one in force, wherever it came from
	PasswordFile string `yaml:"password_file"` // its first line is the password

	TLS UpstreamTLS `yaml:"tls"`
}

// Listener is one address for clients. An empty Consistency or ReadFrom is the
// one of [Config].
type Listener struct {
	Address     string            `yaml:"address"` // HOST:PORT or unix:/path
	Consistency proxy.Consistency `yaml:"consistency"`
	ReadFrom    proxy.ReadFrom    `yaml:"read_from"`
	Mode        string            `yaml:"mode"` // of a unix socket, octal: "0770"
	Auth        proxy.Auth        `yaml:"auth"`
	TLS         ListenerTLS       `yaml:"tls"`

	ProxyProtocol  bool     `yaml:"proxy_protocol"`
	TrustedProxies []string `yaml:"trusted_proxies"` // networks in CIDR notation
}

// Limits bound what clients may use.
type Limits struct {
	MaxClients      int      `yaml:"max_clients"`
	IdleTimeout     Duration `yaml:"idle_timeout"` // 0: never
	MaxInFlight     int      `yaml:"max_in_flight"`
	OutputHighWater Size     `yaml:"output_high_water"`
	OutputHardLimit Size     `yaml:"output_hard_limit"`
}

// Timeouts bound waiting.
type Timeouts struct {
	Connect Duration `yaml:"connect"`
	Health  Duration `yaml:"health"`
	Auth    Duration `yaml:"auth"` // 0: never
	Drain   Duration `yaml:"drain"`

	FailoverHold Duration `yaml:"failover_hold"` // 0: not at all
	IndexWait    Duration `yaml:"index_wait"`
}

// Admin is the HTTP server for metrics, health and status.
type Admin struct {
	Listen string `yaml:"listen"` // HOST:PORT
}

// Log says what is logged to standard error, and how.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // FormatConsole or FormatJSON
}

// Default returns the configuration of an empty file. It lacks a
// master, or a Sentinel that knows it.
func Default() *Config {
	return &Config{
		Listeners:     []Listener{{Address: proxy.DefaultListen}},
		Auth:          proxy.DefaultAuth,
		Consistency:   proxy.DefaultConsistency,
		ReadFrom:      proxy.DefaultReadFrom,
		MaxLagBytes:   proxy.DefaultMaxLagBytes,
		MaxLag:        Duration(proxy.DefaultMaxLag),
		ObserveEvery:  Duration(proxy.DefaultObserveEvery),
		DiscoverEvery: Duration(proxy.DefaultDiscoverEvery),
		Limits: Limits{
			MaxClients:      proxy.DefaultMaxClients,
			MaxInFlight:     proxy.DefaultMaxInFlight,
			OutputHighWater: proxy.DefaultOutputHighWater,
			OutputHardLimit: proxy.DefaultOutputHardLimit,
		},
		Timeouts: Timeouts{
			Connect: Duration(proxy.DefaultConnectTimeout),
			Health:  Duration(proxy.DefaultHealthTimeout),
			Auth:    Duration(proxy.DefaultAuthTimeout),
			Drain:   Duration(proxy.DefaultDrainTimeout),

			FailoverHold: Duration(proxy.DefaultFailoverHold),
			IndexWait:    Duration(proxy.DefaultIndexWait),
		},
		Relay: defaultRelay(),
		Admin: Admin{Listen: DefaultAdminListen},
		Log:   Log{Level: DefaultLogLevel, Format: DefaultLogFormat},
	}
}

// ProxyOptions returns the proxy's part of a valid configuration. It reads the
// certificates; its errors name key and file.
func (c *Config) ProxyOptions(logger *zap.Logger, reg prometheus.Registerer) (proxy.Options, error) {
	o := proxy.Options{
		Loops:    c.Loops,
		Master:   c.Master,
		Replicas: c.Replicas,
		Zone:     c.Zone,
		Zones:    c.zoneOf(),
		Sentinel: topology.SentinelConfig{
			Name: c.Sentinel.Name, Addrs: c.Sentinel.Addresses,
			User: c.Sentinel.User, Password: string(c.Sentinel.Password),
		},
		User:            c.Upstream.User,
		Password:        string(c.Upstream.Password),
		MaxClients:      c.Limits.MaxClients,
		IdleTimeout:     time.Duration(c.Limits.IdleTimeout),
		MaxInFlight:     c.Limits.MaxInFlight,
		OutputHighWater: int(c.Limits.OutputHighWater),
		OutputHardLimit: int(c.Limits.OutputHardLimit),
		MaxLagBytes:     int64(c.MaxLagBytes),
		MaxLag:          time.Duration(c.MaxLag),
		ObserveEvery:    time.Duration(c.ObserveEvery),
		DiscoverEvery:   time.Duration(c.DiscoverEvery),
		HealthTimeout:   time.Duration(c.Timeouts.Health),
		ConnectTimeout:  time.Duration(c.Timeouts.Connect),
		FailoverHold:    time.Duration(c.Timeouts.FailoverHold),
		DrainTimeout:    time.Duration(c.Timeouts.Drain),
		IndexWait:       time.Duration(c.Timeouts.IndexWait),
		Logger:          logger,
		Registerer:      reg,
	}
	if o.FailoverHold == 0 {
		o.FailoverHold = -1 // 0 is "not given" there
	}
	var err error
	if o.TLS, err = c.NodeTLS(); err != nil {
		return o, err
	}
	switch t, err := c.SentinelTLS(); {
	case err != nil:
		return o, err
	case t != nil:
		o.Sentinel.TLS = func() *tls.Config { return t }
	}
	if o.Auth, o.AuthTimeout = c.Auth, time.Duration(c.Timeouts.Auth); o.AuthTimeout == 0 {
		o.AuthTimeout = -1 // likewise
	}
	for _, u := range c.Users {
		o.Users = append(o.Users, u.options())
	}
	for i, l := range c.Listeners {
		pl, err := c.listener(&l, fmt.Sprintf("listeners[%d].", i))
		if err != nil {
			return o, err
		}
		o.Listeners = append(o.Listeners, pl)
	}
	if c.DeniedCommands != nil {
		o.DeniedCommands = make([]string, len(c.DeniedCommands)) // an empty list denies nothing
		for i, name := range c.DeniedCommands {
			o.DeniedCommands[i] = strings.ToLower(name)
		}
	}
	return o, nil
}

// listener returns l as the proxy takes it. field begins the errors.
func (c *Config) listener(l *Listener, field string) (pl proxy.Listener, err error) {
	network, address := SplitAddress(l.Address)
	pl = proxy.Listener{
		Network: network, Address: address, Consistency: c.Consistency, ReadFrom: c.ReadFrom,
		Auth: l.Auth, Mode: l.mode(), ProxyProtocol: l.ProxyProtocol,
	}
	if l.Consistency != "" {
		pl.Consistency = l.Consistency
	}
	if l.ReadFrom != "" {
		pl.ReadFrom = l.ReadFrom
	}
	for _, n := range l.TrustedProxies {
		prefix, err := netip.ParsePrefix(n)
		if err != nil {
			return pl, fmt.Errorf("configuration: %strusted_proxies: %w", field, err)
		}
		pl.TrustedProxies = append(pl.TrustedProxies, prefix)
	}
	pl.TLS, err = l.TLS.load(field + "tls")
	return pl, err
}

// mode returns the permissions of a unix socket, 0 where none are given.
func (l *Listener) mode() fs.FileMode {
	n, _ := strconv.ParseUint(l.Mode, 8, 9) // Validate has seen it
	return fs.FileMode(n)
}

// SplitAddress returns the network and the address of "HOST:PORT" or
// "unix:/path" as net.Listen takes them.
func SplitAddress(s string) (network, address string) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return "unix", path
	}
	return "tcp", s
}
