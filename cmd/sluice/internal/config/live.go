package config

import "slices"

// WithLive returns what is in force after next has been loaded by a running
// sluice: c, and of next what can change while it runs.
func (c *Config) WithLive(next *Config) *Config {
	m := *c
	m.Log.Level = next.Log.Level
	m.Auth, m.Users = next.Auth, next.Users
	m.Limits, m.DeniedCommands = next.Limits, next.DeniedCommands
	connect, health := c.Timeouts.Connect, c.Timeouts.Health
	m.Timeouts = next.Timeouts
	m.Timeouts.Connect, m.Timeouts.Health = connect, health
	if c.Upstream.TLS.Enabled == next.Upstream.TLS.Enabled {
		m.Upstream.TLS = next.Upstream.TLS
	}
	if c.Sentinel.TLS.Enabled == next.Sentinel.TLS.Enabled {
		m.Sentinel.TLS = next.Sentinel.TLS
	}
	m.Listeners = slices.Clone(c.Listeners)
	for i := range m.Listeners {
		if len(next.Listeners) == len(m.Listeners) && next.Listeners[i].Address == m.Listeners[i].Address {
			m.Listeners[i].takeLive(&next.Listeners[i])
		}
	}
	return &m
}

func (l *Listener) takeLive(next *Listener) {
	l.TLS, l.Auth = next.TLS, next.Auth
	l.ProxyProtocol, l.TrustedProxies = next.ProxyProtocol, next.TrustedProxies
}
