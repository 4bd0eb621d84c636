package config

import (
	"net"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer"
	"github.com/sluice-io/sluice/syncer/downstream"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// Relay says what is captured from the master, and to where. There is no relay
// without a Dir.
type Relay struct {
	Dir string `yaml:"dir"` // of the store

	User         string `yaml:"user"`          // with a password of its own; else all are of [Upstream]
	Password     Secret `yaml:"password"`      // after Load also that of the file
	PasswordFile string `yaml:"password_file"` // its first line is the password

	AnnounceIP   string `yaml:"announce_ip"`   // "": not told
	AnnouncePort int    `yaml:"announce_port"` // 0: that of Listen; without one not told

	Listen   string   `yaml:"listen"` // HOST:PORT for replicas; "": none are served
	Replicas Replicas `yaml:"replicas"`

	BaseFrom       upstream.BaseFrom `yaml:"base_from"`
	BaseRefresh    float64           `yaml:"base_refresh"` // of the base's size
	BaseRefreshMin Size              `yaml:"base_refresh_min"`

	Ack    upstream.AckMode  `yaml:"ack"`
	Buffer Size              `yaml:"buffer"`
	Fsync  store.FsyncPolicy `yaml:"fsync"`

	RetainBytes       Size     `yaml:"retain_bytes"`       // 0: no limit
	RetainAge         Duration `yaml:"retain_age"`         // 0: no limit
	RetainGenerations Duration `yaml:"retain_generations"` // 0: no limit
}

// Replicas says how replicas are served.
type Replicas struct {
	Auth         ReplicaAuth `yaml:"auth"`
	User         string      `yaml:"user"`          // taken besides "default"
	Password     Secret      `yaml:"password"`      // after Load also that of the file; empty: the one that the relay logs in with
	PasswordFile string      `yaml:"password_file"` // its first line is the password

	Timeout    Duration `yaml:"timeout"`
	HoldAhead  Duration `yaml:"hold_ahead"`
	MaxLag     Size     `yaml:"max_lag"` // 0: no limit
	MaxClients int      `yaml:"max_clients"`

	TLS ListenerTLS `yaml:"tls"`
}

// ReplicaAuth says whether replicas must give a password.
type ReplicaAuth string

const (
	// AuthPassword means: the password of Replicas, or the one that the relay logs
	// in with at the master; nobody needs one if there is neither.
	AuthPassword ReplicaAuth = "password"
	// AuthNone means: nobody needs a password, even if the master wants one.
	AuthNone ReplicaAuth = "none"
)

func defaultRelay() Relay {
	return Relay{
		BaseFrom:          upstream.DefaultBaseFrom,
		BaseRefresh:       upstream.DefaultBaseRefresh,
		BaseRefreshMin:    upstream.DefaultBaseRefreshMin,
		Ack:               upstream.DefaultAck,
		Buffer:            upstream.DefaultBufferBytes,
		Fsync:             store.DefaultFsync,
		RetainBytes:       store.DefaultRetainLogBytes,
		RetainAge:         Duration(store.DefaultRetainAge),
		RetainGenerations: Duration(store.DefaultRetainGenerations),
		Replicas: Replicas{
			Auth:       AuthPassword,
			Timeout:    Duration(downstream.DefaultTimeout),
			HoldAhead:  Duration(downstream.DefaultHoldAhead),
			MaxLag:     downstream.DefaultMaxLagBytes,
			MaxClients: downstream.DefaultMaxClients,
		},
	}
}

// HasProxy reports whether clients are served.
func (c *Config) HasProxy() bool { return len(c.Listeners) > 0 }

// HasRelay reports whether the master is captured.
func (c *Config) HasRelay() bool { return c.Relay.Dir != "" }

// resolvePassword reads the password files.
func (r *Relay) resolvePassword() error {
	if err := r.Replicas.resolvePassword(); err != nil {
		return err
	}
	switch {
	case r.Password != "" && r.PasswordFile != "":
		return &FieldError{"relay.password_file", r.PasswordFile, "relay.password is set too; give one of the two"}
	case r.PasswordFile != "":
		p, err := readPassword("relay.password_file", r.PasswordFile)
		r.Password = p
		return err
	case r.Password == "" && r.User != "":
		return &FieldError{"relay.user", r.User, "needs a password of its own: relay.password or relay.password_file"}
	}
	return nil
}

func (r *Replicas) resolvePassword() error {
	if r.PasswordFile == "" {
		return nil
	}
	if r.Password != "" {
		return &FieldError{"relay.replicas.password_file", r.PasswordFile, "relay.replicas.password is set too; give one of the two"}
	}
	p, err := readPassword("relay.replicas.password_file", r.PasswordFile)
	r.Password = p
	return err
}

func (v *validator) replicas(r Replicas, listen string) {
	v.oneOf("relay.replicas.auth", string(r.Auth), []string{string(AuthPassword), string(AuthNone)}, false)
	v.check(r.Timeout > 0, "relay.replicas.timeout", r.Timeout, "must be more than 0s")
	v.check(r.HoldAhead > 0, "relay.replicas.hold_ahead", r.HoldAhead, "must be more than 0s")
	v.check(r.MaxLag >= 0, "relay.replicas.max_lag", r.MaxLag, "must be 0 (no limit) or more")
	v.listenerTLS("relay.replicas.tls.", r.TLS)
	v.check(r.MaxClients > 0, "relay.replicas.max_clients", r.MaxClients, "must be at least 1")
	if listen != "" {
		_, _, err := net.SplitHostPort(listen)
		v.check(err == nil, "relay.listen", listen, "must be HOST:PORT")
	}
}

func (v *validator) relay(r Relay) {
	v.replicas(r.Replicas, r.Listen)
	v.check(r.Listen == "" || r.Dir != "", "relay.listen", r.Listen, "needs relay.dir: replicas are served from what is stored there")
	v.check(r.Ack != upstream.AckDownstream || r.Listen != "", "relay.ack", string(r.Ack), "needs relay.listen: it is what replicas of the relay acknowledge")

	v.check(r.AnnouncePort >= 0 && r.AnnouncePort <= 65535, "relay.announce_port", r.AnnouncePort, "must be 0 (that of relay.listen) to 65535")
	v.oneOf("relay.base_from", string(r.BaseFrom), names(upstream.BaseFroms()), false)
	v.check(r.BaseRefresh > 0, "relay.base_refresh", r.BaseRefresh, "must be more than 0")
	v.positive("relay.base_refresh_min", int64(r.BaseRefreshMin), r.BaseRefreshMin)
	v.oneOf("relay.ack", string(r.Ack), names(upstream.AckModes()), false)
	v.check(r.Buffer >= minBuffer, "relay.buffer", r.Buffer, "must be at least "+Size(minBuffer).String())
	v.oneOf("relay.fsync", string(r.Fsync), names(store.FsyncPolicies()), false)
	v.check(r.RetainAge >= 0, "relay.retain_age", r.RetainAge, "must be 0s (no limit) or more")
	v.check(r.RetainGenerations >= 0, "relay.retain_generations", r.RetainGenerations, "must be 0s (no limit) or more")
}

// minBuffer is below what a busy master sends while a disk is slow for a moment.
const minBuffer = 1 << 20

// RelayOptions returns the relay's part of a valid configuration that has one.
// The certificates are read for each connection anew, and now, to see whether
// they are good; its errors name key and file.
func (c *Config) RelayOptions(logger *zap.Logger, reg prometheus.Registerer) (syncer.Options, error) {
	r := c.Relay
	if r.Password == "" {
		r.User, r.Password = c.Upstream.User, c.Upstream.Password
	}
	d := downstream.Options{
		Listen:      r.Listen,
		User:        r.Replicas.User,
		Password:    string(r.Replicas.Password),
		Timeout:     time.Duration(r.Replicas.Timeout),
		HoldAhead:   time.Duration(r.Replicas.HoldAhead),
		MaxLagBytes: orUnlimited(int64(r.Replicas.MaxLag)),
		MaxClients:  r.Replicas.MaxClients,
	}
	switch {
	case r.Replicas.Auth == AuthNone:
		d.User, d.Password = "", ""
	case d.Password == "" && r.Password != "": // as their masterauth is
		d.Password = string(r.Password)
		if d.User == "" {
			d.User = r.User
		}
	case d.Password == "":
		d.User = ""
	}
	port := r.AnnouncePort
	if port == 0 {
		port = portOf(r.Listen)
	}
	o := syncer.Options{
		Dir: r.Dir,
		Store: store.Options{
			Fsync:             r.Fsync,
			RetainLogBytes:    orUnlimited(int64(r.RetainBytes)),
			RetainAge:         orUnlimited(time.Duration(r.RetainAge)),
			RetainGenerations: orUnlimited(time.Duration(r.RetainGenerations)),
		},
		Upstream: upstream.Options{
			Master:         c.Master,
			User:           r.User,
			Password:       string(r.Password),
			ListeningPort:  port,
			IPAddress:      r.AnnounceIP,
			BaseFrom:       r.BaseFrom,
			Ack:            r.Ack,
			BufferBytes:    int(r.Buffer),
			BaseRefresh:    r.BaseRefresh,
			BaseRefreshMin: int64(r.BaseRefreshMin),
		},
		Downstream: d,
		Logger:     logger,
		Registerer: reg,
	}
	var err error
	if o.Downstream.TLS, err = r.Replicas.TLS.perConnection("relay.replicas.tls", logger); err != nil || !c.Upstream.TLS.Enabled {
		return o, err
	}
	o.Upstream.Dial = c.Upstream.TLS.Dial
	_, err = c.NodeTLS()
	return o, err
}

// portOf returns the port of HOST:PORT, 0 where there is none that is a number.
func portOf(addr string) int {
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return n
}

// orUnlimited turns 0, which would be "not given", into no limit.
func orUnlimited[T int64 | time.Duration](v T) T {
	if v == 0 {
		return store.Unlimited
	}
	return v
}
