package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/topology"
)

const example = "../../../../deploy/sluice.example.yml"

// write puts text into a file of its own and returns the path.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sluice.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustOptions(t *testing.T, c *Config) proxy.Options {
	t.Helper()
	o, err := c.ProxyOptions(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

func TestExampleIsTheDefault(t *testing.T) {
	got, err := Load(example, Flags{})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Master = "127.0.0.1:6379" // the one key without a default
	want.Replicas, want.Users, want.Zones = []string{}, []User{}, map[string][]string{}
	want.Sentinel.Addresses = []string{}
	want.Listeners[0].TrustedProxies = []string{}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("deploy/sluice.example.yml differs from Default (-default +example):\n%s", d)
	}
}

func TestExampleHasEveryKey(t *testing.T) {
	src, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	keys := yamlKeys(t, reflect.TypeFor[Config]())
	if len(keys) < 25 {
		t.Fatalf("only %d keys found in Config: %v", len(keys), keys)
	}
	for _, key := range keys {
		if !regexp.MustCompile(`(?m)^ *(# )? *(- )?` + key + `:`).Match(src) {
			t.Errorf("deploy/sluice.example.yml lacks the key %s", key)
		}
	}
}

// yamlKeys returns the keys of a struct and of all structs within.
func yamlKeys(t *testing.T, typ reflect.Type) (keys []string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		tag := f.Tag.Get("yaml")
		if tag == "" {
			t.Errorf("%s.%s has no yaml key", typ.Name(), f.Name)
		}
		keys = append(keys, tag)
		ft := f.Type
		if ft.Kind() == reflect.Slice {
			ft = ft.Elem()
		}
		if ft.Kind() == reflect.Struct {
			keys = append(keys, yamlKeys(t, ft)...)
		}
	}
	return keys
}

func TestFileErrorsNameThePlace(t *testing.T) {
	for _, tc := range []struct{ name, src, want string }{
		{"unknown key", "master: a:1\nlimits:\n  max_client: 5\n", `:3:3: unknown key "max_client"`},
		{"unknown key of a group", "sentinel:\n  nodes: []\n", `:2:3: unknown key "nodes"`},
		{"unknown key in a list", "listeners:\n- address: :1\n  tsl: x\n", `:3:3: unknown key "tsl"`},
		{"unknown key in a group in a list", "listeners:\n- address: :1\n  tls:\n    cert: x\n", `:4:5: unknown key "cert"`},
		{"yes or no", "upstream:\n  tls:\n    enabled: maybe\n", ":3:14: true or false is expected here"},
		{"twice", "master: a:1\nmaster: b:1\n", `:2:1: mapping key "master" already defined`},
		{"number", "loops: many\n", ":1:8: a whole number is expected here"},
		{"list", "replicas: a:1\n", ":1:11: "},
		{"fraction", "relay:\n  base_refresh: half\n", ":2:17: a number is expected here"},
		{"group", "limits: 5\n", ":1:9: "},
		{"scalar", "master: [a]\n", ":1:9: a single value is expected here"},
		{"size", "max_lag_bytes: 5 parsecs\n", `:1:16: size "5 parsecs": want`},
		{"duration without unit", "max_lag: 10\n", `:1:10: duration "10": want`},
		{"duration is a list", "max_lag: [1s]\n", ":1:10: a single value is expected here"},
		{"second document", "master: a:1\n---\nloops: 1\n", ":3:"},
		{"syntax", "master: a:1\nlimits: {max_clients: 1\n", ":2:9: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			file := write(t, tc.src)
			_, err := Load(file, Flags{})
			if err == nil || !strings.Contains(err.Error(), file+tc.want) {
				t.Errorf("err = %v, want %s", err, tc.want)
			}
		})
	}
}

func TestFileErrorsHideSecrets(t *testing.T) {
	for _, src := range []string{
		"upstream:\n  password: hunter2\n  nosuch: 1\n",
		"upstream:\n  password: *hunter2\n",
		"upstream:\n  password: @hunter2\n",
		"upstream:\n  password: \"hunter2\n",
		"upstream:\n  password: [hunter2]\n",
		"upstream: {password: hunter2\n",
		"upstream:\n  password: %hunter2\n",
		"upstream:\n  password: hunter2\n  password_file: x\nmaster: a:1\n",
		"upstream:\n  password: hunter2\n  password: hunter2\n",
		"master: redis://u:hunter2@h:1\n",
	} {
		_, err := Load(write(t, src), Flags{})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: err = %v, want one without the password", src, err)
		}
	}
}

func TestValidateNamesTheField(t *testing.T) {
	for _, tc := range []struct {
		want string
		set  func(*Config)
	}{
		{"master: is missing; give HOST:PORT", func(c *Config) { c.Master = "" }},
		{`master: "redis": must be HOST:PORT`, func(c *Config) { c.Master = "redis" }},
		{`master: ":6379": must be HOST:PORT`, func(c *Config) { c.Master = ":6379" }},
		{`master: "h:0": must end with a port`, func(c *Config) { c.Master = "h:0" }},
		{`replicas[1]: "h:x": must end with a port`, func(c *Config) { c.Replicas = []string{"h:1", "h:x"} }},
		{`zones.a[1]: "h": must be HOST:PORT`, func(c *Config) { c.Zones = map[string][]string{"a": {"h:1", "h"}} }},
		{`zones.b[0]: "h:1": is in zone a already`, func(c *Config) { c.Zones = map[string][]string{"a": {"h:1"}, "b": {"h:1"}} }},
		{`zone: "a": means nothing without zones`, func(c *Config) { c.Zone = "a" }},
		{`consistency: "strict": is not supported; allowed: causal, linearizable, eventual, master`, func(c *Config) { c.Consistency = "strict" }},
		{`consistency: is not supported`, func(c *Config) { c.Consistency = "" }},
		{`read_from: "slave": is not supported; allowed: replica, master, nearest`, func(c *Config) { c.ReadFrom = "slave" }},
		{"listeners: is empty, and there is no relay either", func(c *Config) { c.Listeners = nil }},
		{`relay.announce_port: "65536"`, func(c *Config) { c.Relay.AnnouncePort = 65536 }},
		{`relay.base_from: "slave": is not supported; allowed: auto, replica, master`, func(c *Config) { c.Relay.BaseFrom = "slave" }},
		{`relay.base_refresh: "0": must be more than 0`, func(c *Config) { c.Relay.BaseRefresh = 0 }},
		{`relay.base_refresh_min: "0"`, func(c *Config) { c.Relay.BaseRefreshMin = 0 }},
		{`relay.ack: "sent": is not supported; allowed: received, fsynced`, func(c *Config) { c.Relay.Ack = "sent" }},
		{`relay.buffer: "1kb": must be at least 1mb`, func(c *Config) { c.Relay.Buffer = 1 << 10 }},
		{`relay.fsync: "often": is not supported; allowed: always, everysec, no`, func(c *Config) { c.Relay.Fsync = "often" }},
		{`relay.retain_age: "-1s"`, func(c *Config) { c.Relay.RetainAge = Duration(-time.Second) }},
		{`relay.retain_generations: "-1s"`, func(c *Config) { c.Relay.RetainGenerations = Duration(-time.Second) }},
		{`listeners[0].address: "6380": must be HOST:PORT`, func(c *Config) { c.Listeners[0].Address = "6380" }},
		{`listeners[0].address: "unix:": must be unix: and a path`, func(c *Config) { c.Listeners[0].Address = "unix:" }},
		{"a path of 1 to", func(c *Config) { c.Listeners[0].Address = "unix:/" + strings.Repeat("x", 200) }},
		{"listeners[1].address: \"127.0.0.1:6380\": is listed twice", func(c *Config) { c.Listeners = append(c.Listeners, c.Listeners[0]) }},
		{`listeners[0].consistency: "x"`, func(c *Config) { c.Listeners[0].Consistency = "x" }},
		{`listeners[0].read_from: "x"`, func(c *Config) { c.Listeners[0].ReadFrom = "x" }},
		{`max_lag_bytes: "0": must be more than 0`, func(c *Config) { c.MaxLagBytes = 0 }},
		{`max_lag: "-1s"`, func(c *Config) { c.MaxLag = Duration(-time.Second) }},
		{`limits.max_clients: "0": must be more than 0`, func(c *Config) { c.Limits.MaxClients = 0 }},
		{`limits.idle_timeout: "-1s"`, func(c *Config) { c.Limits.IdleTimeout = Duration(-time.Second) }},
		{`timeouts.failover_hold: "-1s": must be 0s`, func(c *Config) { c.Timeouts.FailoverHold = Duration(-time.Second) }},
		{`limits.output_hard_limit: "1mb": must be more than limits.output_high_water (1mb)`, func(c *Config) { c.Limits.OutputHardLimit = 1 << 20 }},
		{`denied_commands[0]: "config set"`, func(c *Config) { c.DeniedCommands = []string{"config set"} }},
		{`loops: "-1": must be 0`, func(c *Config) { c.Loops = -1 }},
		{`admin.listen: "x"`, func(c *Config) { c.Admin.Listen = "x" }},
		{`log.level: "loud": is not supported; allowed: debug, info`, func(c *Config) { c.Log.Level = "loud" }},
		{`log.format: "xml"`, func(c *Config) { c.Log.Format = "xml" }},
	} {
		t.Run(tc.want, func(t *testing.T) {
			c := Default()
			c.Master = "h:1"
			if err := c.Validate(); err != nil {
				t.Fatalf("before the change: %v", err)
			}
			tc.set(c)
			err := c.Validate()
			var fe *FieldError
			if !errors.As(err, &fe) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("err = %v, want %q", err, tc.want)
			}
		})
	}
}

func TestEverySupportedModeIsAccepted(t *testing.T) {
	c := Default()
	c.Master = "[::1]:6379"
	for _, m := range proxy.Consistencies() {
		for _, r := range proxy.ReadPolicies() {
			c.Listeners = []Listener{{Address: "unix:/s", Consistency: m, ReadFrom: r}, {Address: ":0"}, {Address: ":0"}}
			if err := c.Validate(); err != nil {
				t.Errorf("%s, %s: %v", m, r, err)
			}
		}
	}
}

func TestFlagsWinOverTheFile(t *testing.T) {
	file := write(t, `
master: file:1
replicas: [file:2]
listeners:
- {address: ":1", consistency: master, read_from: nearest}
loops: 3
log: {level: warn, format: json}
admin: {listen: ":2"}
`)
	zero := 0
	got, err := Load(file, Flags{Master: "flag:1", Replica: []string{"flag:2"}, User: "u",
		ProxyFlags: ProxyFlags{Consistency: "eventual", Loops: &zero, LogLevel: "debug", AdminListen: ":3"}})
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.Master, want.Replicas, want.Upstream.User = "flag:1", []string{"flag:2"}, "u"
	want.Consistency, want.Listeners = "eventual", []Listener{{Address: ":1", ReadFrom: "nearest"}}
	want.Log = Log{Level: "debug", Format: "json"}
	want.Admin.Listen = ":3"
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	got, err = Load(file, Flags{ProxyFlags: ProxyFlags{Listen: []string{":4", "unix:/s"}}})
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]Listener{{Address: ":4"}, {Address: "unix:/s"}}, got.Listeners); d != "" {
		t.Errorf("--listen does not replace the listeners (-want +got):\n%s", d)
	}
	if got.Loops != 3 {
		t.Errorf("loops = %d without a flag, want the file's 3", got.Loops)
	}
}

func TestPasswordSources(t *testing.T) {
	pw := write(t, "of-file\r\nnext line\n")
	flagPw := write(t, "of-flag")
	const inline = "master: h:1\nupstream:\n  password: 007\n"
	for _, tc := range []struct{ name, src, env, flag, want string }{
		{"as written, not as a number", inline, "", "", "007"},
		{"password file, first line", "master: h:1\nupstream: {password_file: " + pw + "}\n", "", "", "of-file"},
		{"environment over file", inline, "of-env", "", "of-env"},
		{"environment over password file", "master: h:1\nupstream: {password_file: /none}\n", "of-env", "", "of-env"},
		{"flag over both", inline, "of-env", flagPw, "of-flag"},
		{"none", "master: h:1\n", "", "", ""},
		{"quoted", "master: h:1\nupstream:\n  password: \"a: #b\\\"\"\n", "", "", `a: #b"`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv(PasswordEnv, tc.env)
			c, err := Load(write(t, tc.src), Flags{PasswordFile: tc.flag})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(c.Upstream.Password); got != tc.want {
				t.Errorf("password %q, want %q", got, tc.want)
			}
			if got := mustOptions(t, c).Password; got != tc.want {
				t.Errorf("the proxy gets the password %q, want %q", got, tc.want)
			}
		})
	}
	if _, err := Load("", Flags{Master: "h:1", PasswordFile: write(t, "\nx")}); err == nil || !strings.Contains(err.Error(), "first line is empty") {
		t.Errorf("empty password file: %v", err)
	}
	if _, err := Load("", Flags{Master: "h:1", PasswordFile: "/nonexistent"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing password file: %v", err)
	}
}

func TestProxyOptions(t *testing.T) {
	c, err := Load(write(t, `
master: h:1
read_from: nearest
listeners: [{address: ":1"}, {address: "unix:/s", consistency: master, read_from: master}]
denied_commands: [SHUTDOWN, "config|set"]
`), Flags{})
	if err != nil {
		t.Fatal(err)
	}
	o := mustOptions(t, c)
	want := []proxy.Listener{
		{Network: "tcp", Address: ":1", Consistency: proxy.DefaultConsistency, ReadFrom: "nearest"},
		{Network: "unix", Address: "/s", Consistency: "master", ReadFrom: "master"},
	}
	if d := cmp.Diff(want, o.Listeners); d != "" {
		t.Errorf("listeners (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"shutdown", "config|set"}, o.DeniedCommands); d != "" {
		t.Errorf("denied commands (-want +got):\n%s", d)
	}
	// Whatever the configuration leaves at zero the proxy would take for "not
	// given": only these may be.
	v := reflect.ValueOf(o)
	for i := range v.NumField() {
		switch name := v.Type().Field(i).Name; name {
		case "Loops", "Replicas", "Sentinel", "User", "Password", "TLS", "Users", "RefusalRest", "Zone", "IdleTimeout", "Logger", "Registerer":
		default:
			if v.Field(i).IsZero() {
				t.Errorf("proxy.Options.%s is zero", name)
			}
		}
	}
}

func TestZones(t *testing.T) {
	c, err := Load(write(t, "master: h:1\nzone: a\nzones: {a: [\"h:1\", \"h:2\"], b: [\"i:1\"]}\n"), Flags{})
	if err != nil {
		t.Fatal(err)
	}
	o := mustOptions(t, c)
	if d := cmp.Diff(map[string]string{"h:1": "a", "h:2": "a", "i:1": "b"}, o.Zones); d != "" || o.Zone != "a" {
		t.Errorf("zone %q, zones (-want +got):\n%s", o.Zone, d)
	}
}

func TestSentinel(t *testing.T) {
	t.Setenv(SentinelPasswordEnv, "of-env")
	c, err := Load(write(t, "master: h:1\n"), Flags{Sentinel: "mymaster@a:1,b:2"})
	if err != nil {
		t.Fatal(err)
	}
	o := mustOptions(t, c)
	want := topology.SentinelConfig{Name: "mymaster", Addrs: []string{"a:1", "b:2"}, Password: "of-env"}
	if d := cmp.Diff(want, o.Sentinel); d != "" || o.Master != "" {
		t.Errorf("master %q, sentinel (-want +got):\n%s", o.Master, d)
	}
	file := write(t, "sentinel: {name: m, addresses: [\"a:1\"]}\n")
	if c, err = Load(file, Flags{Master: "h:1"}); err != nil || c.Sentinel.Name != "" {
		t.Errorf("--master over a sentinel of the file: %+v, %v", c.Sentinel, err)
	}
	for src, want := range map[string]string{
		"master: h:1\nsentinel: {name: m, addresses: [\"a:1\"]}\n":                    "master: \"h:1\": must be empty where sentinel is given",
		"sentinel: {name: m, addresses: [\"a:1\"]}\nlisteners: []\nrelay: {dir: x}\n": "relay.dir: \"x\": with sentinel needs a listener",
		"sentinel: {name: m}\n":                                                           "sentinel.addresses: is empty",
		"sentinel: {addresses: [\"a:1\"]}\n":                                              "sentinel.name: is missing",
		"sentinel: {name: m, addresses: [a]}\n":                                           "sentinel.addresses[0]: \"a\": must be HOST:PORT",
		"sentinel: {name: m, addresses: [\"a:1\"], tls: {ca_file: x}}\n":                  "sentinel.tls.enabled: must be true",
		"sentinel: {name: m, addresses: [\"a:1\"], tls: {enabled: true, cert_file: x}}\n": "sentinel.tls.key_file",
	} {
		if _, err := Load(write(t, src), Flags{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: err = %v, want %s", src, err, want)
		}
	}
	if _, err := Load("", Flags{Sentinel: "a:1"}); err == nil || !strings.Contains(err.Error(), "NAME@HOST:PORT") {
		t.Errorf("--sentinel a:1: %v", err)
	}
}

func TestFailoverHold(t *testing.T) {
	for src, want := range map[string]time.Duration{
		"":                              proxy.DefaultFailoverHold,
		"timeouts: {failover_hold: 3s}": 3 * time.Second,
		"timeouts: {failover_hold: 0s}": -1, // the proxy's "not at all"
	} {
		c, err := Load(write(t, "master: h:1\n"+src), Flags{})
		if err != nil {
			t.Fatal(err)
		}
		if got := mustOptions(t, c).FailoverHold; got != want {
			t.Errorf("%q: the proxy gets %s, want %s", src, got, want)
		}
	}
}

func TestDeniedCommandsNullIsNotEmpty(t *testing.T) {
	for src, wantNil := range map[string]bool{"": true, "denied_commands: null\n": true, "denied_commands: []\n": false} {
		c, err := Load(write(t, "master: h:1\n"+src), Flags{})
		if err != nil {
			t.Fatal(err)
		}
		if got := mustOptions(t, c).DeniedCommands == nil; got != wantNil {
			t.Errorf("%q: nil is %v, want %v", src, got, wantNil)
		}
	}
}

func TestEmptyFileIsTheDefault(t *testing.T) {
	for _, src := range []string{"", "# nothing\n", "---\n", "limits:\nlisteners:\n"} {
		got, err := Load(write(t, src), Flags{Master: "h:1"})
		if err != nil {
			t.Errorf("%q: %v", src, err)
			continue
		}
		want := Default()
		want.Master = "h:1"
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%q (-want +got):\n%s", src, d)
		}
	}
}

func TestChanged(t *testing.T) {
	a, b := Default(), Default()
	if got := Changed(a, b); got != nil {
		t.Errorf("Changed of equals: %v", got)
	}
	b.Listeners = []Listener{{Address: ":1", TLS: ListenerTLS{CertFile: "x"}}}
	b.Limits.MaxClients++
	b.Upstream.Password = "x"
	b.Log.Level = "debug"
	want := []string{"upstream.password", "listeners[0].address", "listeners[0].tls.cert_file", "limits.max_clients", "log.level"}
	if d := cmp.Diff(want, Changed(a, b)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
