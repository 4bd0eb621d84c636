package config

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp/localredis/tlstest"
)

func TestProxyProtocol(t *testing.T) {
	for _, tc := range []struct{ listener, err string }{
		{`address: ":1", proxy_protocol: true, trusted_proxies: [10.0.0.0/8, "fd00::/8", 192.0.2.1/32]`, ""},
		{`address: "unix:/s", proxy_protocol: true`, ""},
		{`address: ":1", proxy_protocol: true`, "listeners[0].trusted_proxies: is empty"},
		{`address: ":1", trusted_proxies: [10.0.0.0/8]`, "listeners[0].proxy_protocol: must be true"},
		{`address: "unix:/s", proxy_protocol: true, trusted_proxies: [10.0.0.0/8]`, "listeners[0].trusted_proxies: \"10.0.0.0/8\": must be empty for a unix socket"},
		{`address: ":1", proxy_protocol: true, trusted_proxies: [10.0.0.0/8, balancer]`, "listeners[0].trusted_proxies[1]: \"balancer\": must be a network"},
		{`address: ":1", proxy_protocol: true, trusted_proxies: [10.0.0.1]`, "listeners[0].trusted_proxies[0]"},
		{`address: ":1", proxy_protocol: true, trusted_proxies: ["::ffff:10.0.0.0/104"]`, "listeners[0].trusted_proxies[0]"},
	} {
		c, err := Load(write(t, "master: h:1\nlisteners: [{"+tc.listener+"}]\n"), Flags{})
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: err = %v, want %q", tc.listener, err, tc.err)
		}
		if err != nil {
			continue
		}
		l := mustOptions(t, c).Listeners[0]
		var want []netip.Prefix
		if l.Network == "tcp" {
			want = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8"), netip.MustParsePrefix("192.0.2.1/32")}
		}
		if d := cmp.Diff(want, l.TrustedProxies, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" || !l.ProxyProtocol {
			t.Errorf("%s: %+v: (-want +got)\n%s", tc.listener, l, d)
		}
	}
}

// TestSentinelTLS: the sentinels have TLS of their own, which a reload renews.
func TestSentinelTLS(t *testing.T) {
	ca := tlstest.NewCA(t, "authority")
	cert := ca.Issue(t, "sluice")
	src := "sentinel: {name: m, addresses: [\"a:1\"], tls: {enabled: true, server_name: s, ca_file: "
	c, err := Load(write(t, src+ca.File+", cert_file: "+cert.CertFile+", key_file: "+cert.KeyFile+"}}\n"), Flags{})
	if err != nil {
		t.Fatal(err)
	}
	o := mustOptions(t, c)
	if o.TLS != nil {
		t.Error("the TLS of the sentinels holds for the nodes, too")
	}
	if got := o.Sentinel.TLS(); got.ServerName != "s" || len(got.Certificates) != 1 || !got.RootCAs.Equal(ca.Pool()) {
		t.Errorf("%+v", got)
	}
	next := *c
	next.Sentinel.TLS.ServerName = "other"
	if got := c.WithLive(&next).Sentinel.TLS; got != next.Sentinel.TLS {
		t.Errorf("a reload leaves %+v in force", got)
	}
	next.Sentinel.TLS = UpstreamTLS{}
	if got := c.WithLive(&next).Sentinel.TLS; got != c.Sentinel.TLS {
		t.Error("a reload takes TLS away")
	}
	if c, err = Load(write(t, src+"/nosuch}}\n"), Flags{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.ProxyOptions(nil, nil); err == nil || !strings.Contains(err.Error(), "sentinel.tls: load ca_file /nosuch") {
		t.Errorf("err = %v", err)
	}
}
