package config

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/syncer"
	"github.com/sluice-io/sluice/syncer/store"
)

// A relay alone, a proxy alone, or both.
func TestRelayAlone(t *testing.T) {
	for _, tc := range []struct {
		src, flag    string
		proxy, relay bool
	}{
		{"", "", true, false},
		{"", "/d", true, true},
		{"relay: {dir: /d}\n", "", true, true},
		{"relay: {dir: /d}\nlisteners: []\n", "", false, true},
		{"listeners: []\n", "/d", false, true},
	} {
		c, err := Load(write(t, "master: h:1\n"+tc.src), Flags{RelayDir: tc.flag})
		if err != nil {
			t.Errorf("%+v: %v", tc, err)
		} else if c.HasProxy() != tc.proxy || c.HasRelay() != tc.relay || (tc.relay && mustRelay(t, c).Dir != "/d") {
			t.Errorf("%+v: proxy %v, relay %v", tc, c.HasProxy(), c.HasRelay())
		}
	}
	if _, err := Load(write(t, "master: h:1\nlisteners: []\n"), Flags{}); err == nil || !strings.Contains(err.Error(), "no relay either") {
		t.Errorf("neither proxy nor relay: %v", err)
	}
}

// The relay logs in as the proxy does, unless it has a password of its own.
func TestRelayPassword(t *testing.T) {
	pw := write(t, "of-file\nrest")
	for _, tc := range []struct{ relay, user, password, err string }{
		{"{}", "u", "up", ""},
		{"{password: own}", "", "own", ""},
		{"{user: r, password: own}", "r", "own", ""},
		{"{user: r, password_file: " + pw + "}", "r", "of-file", ""},
		{"{user: r}", "", "", "relay.user: \"r\": needs a password of its own"},
		{"{password: own, password_file: " + pw + "}", "", "", "relay.password is set too"},
		{"{password_file: " + write(t, "") + "}", "", "", "relay.password_file"},
	} {
		c, err := Load(write(t, "master: h:1\nupstream: {user: u, password: up}\nrelay: "+tc.relay+"\n"), Flags{})
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) || strings.Contains(err.Error(), "own\"") {
				t.Errorf("%s: %v, want %s", tc.relay, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.relay, err)
			continue
		}
		if o := mustRelay(t, c).Upstream; o.User != tc.user || o.Password != tc.password {
			t.Errorf("%s: user %q, password %q", tc.relay, o.User, o.Password)
		}
	}
}

func mustRelay(t *testing.T, c *Config) syncer.Options {
	t.Helper()
	o, err := c.RelayOptions(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestRelayOptions(t *testing.T) {
	c, err := Load(write(t, "master: h:1\nrelay: {dir: /d, retain_bytes: 0, retain_age: 0s, retain_generations: 1h, base_refresh: 0.5, announce_port: 6390}\n"), Flags{})
	if err != nil {
		t.Fatal(err)
	}
	o := mustRelay(t, c)
	if s := o.Store; s.RetainLogBytes != store.Unlimited || s.RetainAge != store.Unlimited || s.RetainGenerations != time.Hour {
		t.Errorf("%+v", s)
	}
	if u := o.Upstream; u.BaseRefresh != 0.5 || u.ListeningPort != 6390 || u.Master != "h:1" {
		t.Errorf("%+v", u)
	}
	if _, err := syncer.New(o); err != nil {
		t.Error(err)
	}
	// Whatever the configuration leaves at zero the relay takes for "not given":
	// only these may be, for they have no key.
	may := strings.Fields("SegmentBytes RetryEvery FS Logger Registerer User Password TLS IPAddress ConnectTimeout Timeout BaseWait Journal BackoffMin BackoffMax Dial")
	for _, v := range []reflect.Value{reflect.ValueOf(o.Store), reflect.ValueOf(o.Upstream)} {
	fields:
		for i := range v.NumField() {
			for _, m := range may {
				if v.Type().Field(i).Name == m {
					continue fields
				}
			}
			if v.Field(i).IsZero() {
				t.Errorf("%s.%s is zero", v.Type(), v.Type().Field(i).Name)
			}
		}
	}
}

// Replicas log in as the relay does, unless they have a password of their own.
func TestReplicaPassword(t *testing.T) {
	pw := write(t, "of-file\nrest")
	for _, tc := range []struct{ relay, user, password, err string }{
		{"{}", "u", "up", ""},
		{"{user: r, password: own}", "r", "own", ""},
		{"{replicas: {auth: none}}", "", "", ""},
		{"{replicas: {password: theirs}}", "", "theirs", ""},
		{"{replicas: {user: x, password_file: " + pw + "}}", "x", "of-file", ""},
		{"{replicas: {password: theirs, password_file: " + pw + "}}", "", "", "relay.replicas.password is set too"},
		{"{replicas: {auth: maybe}}", "", "", "relay.replicas.auth"},
		{"{replicas: {timeout: 0s}}", "", "", "relay.replicas.timeout"},
		{"{replicas: {max_clients: 0}}", "", "", "relay.replicas.max_clients"},
		{"{listen: nowhere, dir: /d}", "", "", "relay.listen: \"nowhere\": must be HOST:PORT"},
		{"{listen: \":1\"}", "", "", "needs relay.dir"},
		{"{dir: /d, ack: downstream}", "", "", "relay.ack: \"downstream\": needs relay.listen"},
	} {
		c, err := Load(write(t, "master: h:1\nupstream: {user: u, password: up}\nrelay: "+tc.relay+"\n"), Flags{})
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%s: %v, want %s", tc.relay, err, tc.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tc.relay, err)
			continue
		}
		if o := mustRelay(t, c).Downstream; o.User != tc.user || o.Password != tc.password {
			t.Errorf("%s: user %q, password %q", tc.relay, o.User, o.Password)
		}
	}
}

func TestDownstreamOptions(t *testing.T) {
	c, err := Load(write(t, "master: h:1\nrelay: {dir: /d, ack: downstream, replicas: {max_lag: 0}}\n"), Flags{RelayListen: "127.0.0.1:6390"})
	if err != nil {
		t.Fatal(err)
	}
	o := mustRelay(t, c)
	if d := o.Downstream; d.Listen != "127.0.0.1:6390" || d.MaxLagBytes >= 0 || d.Timeout != time.Minute || d.HoldAhead != time.Minute || d.MaxClients != 1000 || d.Password != "" {
		t.Errorf("%+v", d)
	}
	if o.Upstream.ListeningPort != 6390 {
		t.Errorf("announced port is %d", o.Upstream.ListeningPort)
	}
	if _, err := syncer.New(o); err != nil {
		t.Error(err)
	}
}
