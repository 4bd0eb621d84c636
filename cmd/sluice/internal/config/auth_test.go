package config

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/proxy"
)

func TestUsers(t *testing.T) {
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte("secret")))
	for _, tc := range []struct{ src, err string }{
		{"auth: static\nusers: [{name: a, password: hunter2}]", ""},
		{"auth: static\nusers: [{name: a, password_sha256: [" + hash + "], upstream_user: x, upstream_password: hunter2}]", ""},
		{"auth: none", ""},
		{"auth: ask", `auth: "ask"`},
		{"auth: static", "users: is empty"},
		{`listeners: [{address: ":1", auth: static}]`, "users: is empty"},
		{`listeners: [{address: ":1", auth: ask}]`, `listeners[0].auth: "ask"`},
		{`listeners: [{address: "unix:/s", mode: "0770"}]`, ""},
		{`listeners: [{address: "unix:/s", mode: "0999"}]`, `listeners[0].mode: "0999"`},
		{`listeners: [{address: ":1", mode: "0770"}]`, "listeners[0].mode"},
		{"users: [{password: hunter2}]", "users[0].name: is missing"},
		{"users: [{name: a, password: hunter2}, {name: a, password: hunter2}]", `users[1].name: "a": is listed twice`},
		{"users: [{name: a}]", "users[0].password: is missing"},
		{"users: [{name: a, password_sha256: [hunter2]}]", "users[0].password_sha256[0]"},
		{"users: [{name: a, password: hunter2, upstream_user: x}]", "users[0].upstream_password: is missing"},
	} {
		c, err := Load(write(t, "master: h:1\n"+tc.src+"\n"), Flags{})
		if (err == nil) != (tc.err == "") || err != nil && !strings.Contains(err.Error(), tc.err) {
			t.Errorf("%s: %v, want %q", tc.src, err, tc.err)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error tells the password: %v", tc.src, err)
		}
		if err != nil || len(c.Users) == 0 {
			continue
		}
		u := mustOptions(t, c).Users[0]
		want := sha256.Sum256([]byte("secret"))
		if c.Users[0].Password != "" {
			want = sha256.Sum256([]byte("hunter2"))
		}
		if u.Name != "a" || len(u.Hashes) != 1 || u.Hashes[0] != want || u.UpstreamUser != c.Users[0].UpstreamUser {
			t.Errorf("%s: the proxy gets %+v", tc.src, u)
		}
	}
	if o := mustOptions(t, Default()); o.Auth != proxy.AuthPassthrough {
		t.Errorf("auth is %q by default", o.Auth)
	}
}
