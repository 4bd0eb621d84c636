// Package config is the configuration of sluice: its defaults, its YAML file,
// the flags that win over the file, and the checks of both.
//
// deploy/sluice.example.yml explains every key; a test holds the two together.
package config

import (
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy"
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

// Config is one YAML file. Fields are explained in deploy/sluice.example.yml.
type Config struct {
	Master   string   `yaml:"master"`
	Replicas []string `yaml:"replicas"`
	Upstream Upstream `yaml:"upstream"`

	Listeners   []Listener        `yaml:"listeners"`
	Consistency proxy.Consistency `yaml:"consistency"`
	ReadFrom    proxy.ReadFrom    `yaml:"read_from"`

	MaxLagBytes   Size     `yaml:"max_lag_bytes"`
	MaxLag        Duration `yaml:"max_lag"`
	ObserveEvery  Duration `yaml:"observe_every"`
	DiscoverEvery Duration `yaml:"discover_every"`

	Limits         Limits   `yaml:"limits"`
	Timeouts       Timeouts `yaml:"timeouts"`
	DeniedCommands []string `yaml:"denied_commands"` // nil: the proxy's list; empty: none
	Loops          int      `yaml:"loops"`           // 0: one per CPU

	Admin Admin `yaml:"admin"`
	Log   Log   `yaml:"log"`
}

// Upstream says as whom sluice logs in at Redis.
type Upstream struct {
	User         string `yaml:"user"`
	Password     Secret `yaml:"password"`      // after Load the one in force, wherever it came from
	PasswordFile string `yaml:"password_file"` // its first line is the password
}

// Listener is one address for clients. An empty Consistency or ReadFrom is the
// one of [Config].
type Listener struct {
	Address     string            `yaml:"address"` // HOST:PORT or unix:/path
	Consistency proxy.Consistency `yaml:"consistency"`
	ReadFrom    proxy.ReadFrom    `yaml:"read_from"`
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
	Drain   Duration `yaml:"drain"`

	FailoverHold Duration `yaml:"failover_hold"` // 0: not at all
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

// Default returns the configuration of an empty file. It lacks a master.
func Default() *Config {
	return &Config{
		Listeners:     []Listener{{Address: proxy.DefaultListen}},
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
			Drain:   Duration(proxy.DefaultDrainTimeout),

			FailoverHold: Duration(proxy.DefaultFailoverHold),
		},
		Admin: Admin{Listen: DefaultAdminListen},
		Log:   Log{Level: DefaultLogLevel, Format: DefaultLogFormat},
	}
}

// ProxyOptions returns the proxy's part of a valid configuration.
func (c *Config) ProxyOptions(logger *zap.Logger, reg prometheus.Registerer) proxy.Options {
	o := proxy.Options{
		Loops:           c.Loops,
		Master:          c.Master,
		Replicas:        c.Replicas,
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
		Logger:          logger,
		Registerer:      reg,
	}
	if o.FailoverHold == 0 {
		o.FailoverHold = -1 // 0 is "not given" there
	}
	for _, l := range c.Listeners {
		network, address := SplitAddress(l.Address)
		pl := proxy.Listener{Network: network, Address: address, Consistency: c.Consistency, ReadFrom: c.ReadFrom}
		if l.Consistency != "" {
			pl.Consistency = l.Consistency
		}
		if l.ReadFrom != "" {
			pl.ReadFrom = l.ReadFrom
		}
		o.Listeners = append(o.Listeners, pl)
	}
	if c.DeniedCommands != nil {
		o.DeniedCommands = make([]string, len(c.DeniedCommands)) // an empty list denies nothing
		for i, name := range c.DeniedCommands {
			o.DeniedCommands[i] = strings.ToLower(name)
		}
	}
	return o
}

// SplitAddress returns the network and the address of "HOST:PORT" or
// "unix:/path" as net.Listen takes them.
func SplitAddress(s string) (network, address string) {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		return "unix", path
	}
	return "tcp", s
}
