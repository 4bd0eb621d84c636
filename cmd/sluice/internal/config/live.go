package config

// WithLive returns what is in force after next has been loaded by a running
// sluice: c, and of next what can change while it runs.
func (c *Config) WithLive(next *Config) *Config {
	m := *c
	m.Log.Level = next.Log.Level
	m.Auth, m.Users = next.Auth, next.Users
	m.Limits, m.DeniedCommands = next.Limits, next.DeniedCommands
	m.Timeouts = next.Timeouts
	m.MaxLagBytes, m.MaxLag = next.MaxLagBytes, next.MaxLag
	if c.Upstream.TLS.Enabled == next.Upstream.TLS.Enabled {
		m.Upstream.TLS = next.Upstream.TLS
	}
	if c.Sentinel.TLS.Enabled == next.Sentinel.TLS.Enabled {
		m.Sentinel.TLS = next.Sentinel.TLS
	}
	if c.HasProxy() && next.HasProxy() {
		m.Listeners, m.Consistency, m.ReadFrom = next.Listeners, next.Consistency, next.ReadFrom
	}
	return &m
}
