package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/sluice-io/sluice/proxy"
)

// maxLoops is far above any machine's CPUs and catches a slip of the finger.
const maxLoops = 1024

// FieldError is a key with a value that is not allowed.
type FieldError struct {
	Field   string // "limits.max_clients", "listeners[0].address"
	Value   string // as given; never a secret
	Allowed string // what it must be
}

// Error names the field, its value and what is allowed.
func (e *FieldError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("configuration: %s: %s", e.Field, e.Allowed)
	}
	return fmt.Sprintf("configuration: %s: %q: %s", e.Field, e.Value, e.Allowed)
}

// Validate checks every field and returns all faults, each a [*FieldError],
// joined.
func (c *Config) Validate() error {
	v := validator{}
	v.master(c)
	for i, r := range c.Replicas {
		v.node(fmt.Sprintf("replicas[%d]", i), r)
	}
	v.oneOf("consistency", string(c.Consistency), names(proxy.Consistencies()), false)
	v.oneOf("read_from", string(c.ReadFrom), names(proxy.ReadPolicies()), false)
	v.check(c.HasProxy() || c.HasRelay(), "listeners", "", "is empty, and there is no relay either; give at least one address, or relay.dir")
	v.listeners(c.Listeners)
	v.zones(c)
	v.auth(c)
	v.relay(c.Relay)
	v.upstreamTLS(upstreamTLSKey, c.Upstream.TLS)
	v.upstreamTLS("sentinel.tls", c.Sentinel.TLS)

	v.positive("max_lag_bytes", int64(c.MaxLagBytes), c.MaxLagBytes)
	v.positive("max_lag", int64(c.MaxLag), c.MaxLag)
	v.positive("observe_every", int64(c.ObserveEvery), c.ObserveEvery)
	v.positive("discover_every", int64(c.DiscoverEvery), c.DiscoverEvery)

	l := c.Limits
	v.positive("limits.max_clients", int64(l.MaxClients), l.MaxClients)
	v.check(l.IdleTimeout >= 0, "limits.idle_timeout", l.IdleTimeout, "must be 0s (never) or more")
	v.positive("limits.max_in_flight", int64(l.MaxInFlight), l.MaxInFlight)
	v.positive("limits.output_high_water", int64(l.OutputHighWater), l.OutputHighWater)
	v.check(l.OutputHardLimit > l.OutputHighWater, "limits.output_hard_limit", l.OutputHardLimit,
		fmt.Sprintf("must be more than limits.output_high_water (%s)", l.OutputHighWater))

	v.positive("timeouts.connect", int64(c.Timeouts.Connect), c.Timeouts.Connect)
	v.check(c.Timeouts.Auth >= 0, "timeouts.auth", c.Timeouts.Auth, "must be 0s (never) or more")
	v.positive("timeouts.health", int64(c.Timeouts.Health), c.Timeouts.Health)
	v.positive("timeouts.drain", int64(c.Timeouts.Drain), c.Timeouts.Drain)
	v.check(c.Timeouts.FailoverHold >= 0, "timeouts.failover_hold", c.Timeouts.FailoverHold, "must be 0s (fail at once) or more")
	v.positive("timeouts.index_wait", int64(c.Timeouts.IndexWait), c.Timeouts.IndexWait)

	for i, name := range c.DeniedCommands {
		v.check(name != "" && !strings.ContainsAny(name, " \t\r\n"), fmt.Sprintf("denied_commands[%d]", i), name,
			"must be one command's name, such as shutdown")
	}
	v.check(c.Loops >= 0 && c.Loops <= maxLoops, "loops", c.Loops, fmt.Sprintf("must be 0 (one per CPU) to %d", maxLoops))
	v.hostPort("admin.listen", c.Admin.Listen, true)
	v.oneOf("log.level", c.Log.Level, []string{"debug", "info", "warn", "error"}, false)
	v.oneOf("log.format", c.Log.Format, []string{FormatConsole, FormatJSON}, false)
	return errors.Join(v.errs...)
}

// validator collects faults.
type validator struct{ errs []error }

func (v *validator) check(ok bool, field string, value any, allowed string) {
	if !ok {
		v.errs = append(v.errs, &FieldError{field, fmt.Sprint(value), allowed})
	}
}

// positive refuses 0 too: the proxy would take it for "not given".
func (v *validator) positive(field string, n int64, value any) {
	v.check(n > 0, field, value, "must be more than 0")
}

func (v *validator) oneOf(field, value string, allowed []string, orEmpty bool) {
	v.check(slices.Contains(allowed, value) || (orEmpty && value == ""), field, value,
		"is not supported; allowed: "+strings.Join(allowed, ", "))
}

// master checks that there is one way to know the master.
func (v *validator) master(c *Config) {
	s := c.Sentinel
	if s.Name == "" {
		v.check(len(s.Addresses) == 0, "sentinel.name", "", "is missing; give the name of the master as the sentinels know it")
		v.node("master", c.Master)
		return
	}
	v.check(c.Master == "", "master", c.Master, "must be empty where sentinel is given: the sentinels say who the master is")
	v.check(!c.HasRelay() || c.HasProxy(), "relay.dir", c.Relay.Dir, "with sentinel needs a listener: it is the proxy that asks the sentinels, and tells the relay who the master is")
	v.check(len(s.Addresses) > 0, "sentinel.addresses", "", "is empty; give HOST:PORT of at least one sentinel")
	for i, a := range s.Addresses {
		v.node(fmt.Sprintf("sentinel.addresses[%d]", i), a)
	}
}

// node checks the address of a Redis server.
func (v *validator) node(field, value string) { v.hostPort(field, value, false) }

// hostPort checks HOST:PORT. To listen, HOST may be empty (all interfaces) and
// PORT 0 (any free one).
func (v *validator) hostPort(field, value string, listen bool) {
	host, port, err := net.SplitHostPort(value)
	if at := strings.LastIndexByte(value, '@'); at >= 0 { // a pasted URL may carry a password
		value = redacted + value[at:]
	}
	n, errPort := strconv.ParseUint(port, 10, 16)
	switch {
	case value == "":
		v.check(false, field, "", "is missing; give HOST:PORT")
	case err != nil || (host == "" && !listen):
		v.check(false, field, value, "must be HOST:PORT, an IPv6 address in brackets: [::1]:6379")
	case errPort != nil || (n == 0 && !listen):
		v.check(false, field, value, "must end with a port number from 1 to 65535")
	}
}

func (v *validator) listeners(ls []Listener) {
	seen := map[string]bool{}
	for i, l := range ls {
		field := fmt.Sprintf("listeners[%d].", i)
		if network, address := SplitAddress(l.Address); network == "unix" {
			// sun_path holds the path and its final zero (unix(7)).
			longest := len(syscall.RawSockaddrUnix{}.Path) - 1
			v.check(address != "" && len(address) <= longest, field+"address", l.Address,
				fmt.Sprintf("must be unix: and a path of 1 to %d bytes", longest))
		} else {
			v.hostPort(field+"address", l.Address, true)
		}
		if !strings.HasSuffix(l.Address, ":0") {
			v.check(!seen[l.Address], field+"address", l.Address, "is listed twice")
			seen[l.Address] = true
		}
		v.oneOf(field+"consistency", string(l.Consistency), names(proxy.Consistencies()), true)
		v.oneOf(field+"read_from", string(l.ReadFrom), names(proxy.ReadPolicies()), true)
		if network, _ := SplitAddress(l.Address); l.Mode != "" {
			n, err := strconv.ParseUint(l.Mode, 8, 9)
			v.check(network == "unix" && err == nil && n > 0, field+"mode", l.Mode, "must be the permissions of a unix socket, as 0770")
		}
		v.listenerTLS(field+"tls.", l.TLS)
		v.trustedProxies(field, &l)
	}
}

// trustedProxies checks who may say whom it speaks for.
func (v *validator) trustedProxies(field string, l *Listener) {
	network, _ := SplitAddress(l.Address)
	list := strings.Join(l.TrustedProxies, ", ")
	v.check(len(l.TrustedProxies) == 0 || network == "tcp", field+"trusted_proxies", list,
		"must be empty for a unix socket: whoever its permissions (mode) let connect is trusted")
	v.check(len(l.TrustedProxies) == 0 || l.ProxyProtocol, field+"proxy_protocol", "", "must be true where trusted_proxies is set")
	v.check(!l.ProxyProtocol || network != "tcp" || len(l.TrustedProxies) > 0, field+"trusted_proxies", "",
		"is empty; proxy_protocol needs the networks of the load balancers, such as 10.0.0.0/8")
	for i, n := range l.TrustedProxies {
		p, err := netip.ParsePrefix(n)
		v.check(err == nil && !p.Addr().Is4In6(), fmt.Sprintf("%strusted_proxies[%d]", field, i), n,
			"must be a network in CIDR notation, such as 10.0.0.0/8, or 10.1.2.3/32 for one address")
	}
}

func names[T ~string](values []T) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v)
	}
	return out
}

func list[T ~string](values []T) string { return strings.Join(names(values), ", ") }
