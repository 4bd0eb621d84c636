package proxy_test

import (
	"crypto/sha256"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/proxy"
)

const (
	wrongPass = "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
	noAuth    = "-NOAUTH Authentication required.\r\n"
)

// secured is a cluster whose nodes need the password "upstream" and know the
// user app (password apppw), who may not touch keys that begin with "x". set
// may name the auth mode.
func secured(t *testing.T, replicas int, set func(*proxy.Options)) *cluster {
	t.Helper()
	return newCluster(t, replicas, func(o *proxy.Options) {
		o.Password = "upstream"
		o.Users = []proxy.User{
			{Name: "alice", Hashes: [][32]byte{sha256.Sum256([]byte("old")), sha256.Sum256([]byte("new"))}, UpstreamUser: "app", UpstreamPassword: "apppw"},
			{Name: "default", Hashes: [][32]byte{sha256.Sum256([]byte("plain"))}},
		}
		if set != nil {
			set(o)
		}
	}, "--requirepass", "upstream", "--masterauth", "upstream", "--user", "app", "on", ">apppw", "~[^x]*", "+@all", "&*")
}

// TestAuthStatic: the list judges, the nodes' passwords are not the clients'.
func TestAuthStatic(t *testing.T) {
	logs, seen := observer.New(zap.DebugLevel)
	reg := prometheus.NewRegistry()
	c := secured(t, 0, func(o *proxy.Options) {
		o.Auth, o.Logger, o.Registerer = proxy.AuthStatic, zap.New(logs), reg
	})
	r := dialRaw(t, c.addr)
	r.do(noAuth, "GET", "k")
	for _, bad := range [][]string{{"AUTH", "upstream"}, {"AUTH", "app", "apppw"}, {"AUTH", "alice", "wrong"}, {"AUTH", "nobody", "new"}, {"AUTH", ""}, {"HELLO", "3", "AUTH", "app", "apppw"}} {
		r.do(wrongPass, bad...)
		r.do(noAuth, "GET", "k")
	}
	if n := metric(t, reg, "sluice_proxy_auth_failures_total"); n != 6 {
		t.Errorf("%v failures are counted, want 6", n)
	}
	r.do("-ERR wrong number of arguments for 'auth' command\r\n", "AUTH")
	r.do("-ERR syntax error\r\n", "AUTH", "a", "b", "c")
	r.do("+OK\r\n", "AUTH", "alice", "new")
	r.do("$3\r\napp\r\n", "ACL", "WHOAMI")
	r.do("+OK\r\n", "SET", "k", "v")
	r.cmd("SET", "xk", "v")
	if got, _ := r.reply(); !strings.HasPrefix(got, "-NOPERM") {
		t.Errorf("what the user may not do is answered with %q", got)
	}
	r.do(wrongPass, "AUTH", "alice", "wrong") // and stays alice, as in Redis
	r.do("+OK\r\n", "SET", "k", "v")

	// On a connection of its own the client's words must not reach the node.
	r.do("+OK\r\n", "WATCH", "k")
	r.do(wrongPass, "AUTH", "upstream")
	r.do(wrongPass, "AUTH", "app", "apppw")
	r.do(wrongPass, "HELLO", "2", "AUTH", "app", "apppw")
	r.do("+OK\r\n", "AUTH", "alice", "old")
	r.do("+OK\r\n", "AUTH", "plain")
	r.do("$7\r\ndefault\r\n", "ACL", "WHOAMI")
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "SET", "k", "w")
	r.cmd("AUTH", "alice", "new")
	if got, _ := r.reply(); !strings.HasPrefix(got, "-ERR") {
		t.Errorf("AUTH inside MULTI: %q", got)
	}
	r.cmd("EXEC")
	if got, _ := r.reply(); !strings.HasPrefix(got, "-EXECABORT") {
		t.Errorf("EXEC: %q", got)
	}
	r.do("+RESET\r\n", "RESET")
	r.do(noAuth, "GET", "k")
	r.cmd("HELLO", "3", "AUTH", "alice", "old")
	if got, _ := r.reply(); !strings.HasPrefix(got, "%7\r\n") {
		t.Errorf("HELLO: %q", got)
	}
	r.do("$1\r\nv\r\n", "GET", "k")

	// No credential is in the log, whoever's it is.
	if seen.FilterMessage("a client's login has failed").Len() == 0 {
		t.Error("failed logins are not logged")
	}
	for _, e := range seen.All() {
		text := e.Message
		for _, f := range e.Context {
			text += " " + f.String
		}
		for _, secret := range []string{"apppw", "wrong\"", "upstream\""} {
			if strings.Contains(text, secret) {
				t.Errorf("%q is in the log: %s", secret, text)
			}
		}
	}
}

// TestAuthNone: clients need no login and act with the options' credentials,
// on shared connections and on their own.
func TestAuthNone(t *testing.T) {
	c := secured(t, 1, func(o *proxy.Options) {
		o.Auth = proxy.AuthNone
		strict := o.Listeners[0]
		strict.Auth = proxy.AuthPassthrough
		o.Listeners = append(o.Listeners, strict)
	})
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SET", "k", "v")
	r.do("-ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?\r\n", "AUTH", "x")
	r.do(wrongPass, "AUTH", "app", "apppw")
	r.do("+OK\r\n", "AUTH", "default", "anything")
	r.do("+OK\r\n", "WATCH", "k")
	r.do(wrongPass, "AUTH", "app", "apppw")
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "GET", "k")
	r.do("*1\r\n$1\r\nv\r\n", "EXEC")
	r.do("+OK\r\n", "WATCH", "k")
	r.do("+RESET\r\n", "RESET") // which without the proxy would end the login
	r.do("$1\r\nv\r\n", "GET", "k")
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "GET", "k")
	r.do("*1\r\n$1\r\nv\r\n", "EXEC")
	strict := dialRaw(t, c.srv.Addrs()[1].String())
	strict.do(noAuth, "GET", "k")
	strict.do("+OK\r\n", "AUTH", "upstream")
	strict.do("$1\r\nv\r\n", "GET", "k")
}

// TestAuthPinned has a session log in while it is in WATCH, MULTI or subscribed:
// every reply is the one that Redis itself gives.
func TestAuthPinned(t *testing.T) {
	c := secured(t, 0, nil)
	for _, story := range [][]string{
		{"WATCH k", "AUTH app wrong", "ACL WHOAMI", "AUTH app apppw", "ACL WHOAMI", "SET xk 1", "MULTI", "SET k 1", "EXEC", "ACL WHOAMI"},
		{"MULTI", "AUTH app apppw", "ACL WHOAMI", "SET xk 1", "EXEC", "ACL WHOAMI"},
		{"MULTI", "AUTH app wrong", "SET k 1", "EXEC", "ACL WHOAMI"},
		{"MULTI", "AUTH app apppw", "DISCARD", "ACL WHOAMI"},
		{"SUBSCRIBE c", "AUTH app apppw", "UNSUBSCRIBE c", "AUTH app apppw", "ACL WHOAMI", "SET xk 1"},
		{"HELLO 3", "SUBSCRIBE c", "AUTH app apppw", "ACL WHOAMI", "SET xk 1", "UNSUBSCRIBE c", "ACL WHOAMI"},
		{"WATCH k", "AUTH app apppw", "RESET", "ACL WHOAMI"},
		{"WATCH k", "AUTH app apppw", "UNWATCH", "SET xk 1", "GET k", "RESET", "AUTH upstream", "SET xk 1"},
	} {
		tell := func(addr string) (replies []string) {
			r := dialRaw(t, addr)
			for _, line := range append([]string{"AUTH upstream"}, story...) {
				r.cmd(strings.Fields(line)...)
				got, err := r.reply()
				if err != nil {
					t.Fatalf("%v: %s: %v", story, line, err)
				}
				if !strings.HasPrefix(line, "HELLO") { // its reply has the number of the connection
					replies = append(replies, line+" "+got)
				}
			}
			return replies
		}
		if d := cmp.Diff(tell(c.master.Addr()), tell(c.addr)); d != "" {
			t.Errorf("%v (-Redis +proxy):\n%s", story, d)
		}
	}
}

// TestAuthPassthrough: a failed login is in the master's ACL LOG, and a changed
// password holds for new logins, while who is logged in stays so.
func TestAuthPassthrough(t *testing.T) {
	c := secured(t, 0, nil)
	admin := dialRaw(t, c.master.Addr())
	admin.do("+OK\r\n", "AUTH", "upstream")
	admin.do("+OK\r\n", "ACL", "LOG", "RESET")
	r := dialRaw(t, c.addr)
	r.do(wrongPass, "AUTH", "app", "wrong")
	admin.cmd("ACL", "LOG")
	if got, _ := admin.reply(); !strings.Contains(got, "\r\nauth\r\n") || !strings.Contains(got, "\r\napp\r\n") {
		t.Errorf("ACL LOG: %q", got)
	}
	r.do("+OK\r\n", "AUTH", "app", "apppw")
	r.do("+OK\r\n", "SET", "k", "v")
	r.do("$1\r\nv\r\n", "GET", "k")
	admin.do("+OK\r\n", "ACL", "SETUSER", "app", "resetpass", ">next")
	r.do("$1\r\nv\r\n", "GET", "k")
	fresh := dialRaw(t, c.addr)
	fresh.do(wrongPass, "AUTH", "app", "apppw")
	fresh.do(noAuth, "GET", "k")
	fresh.do("+OK\r\n", "AUTH", "app", "next")
	fresh.do("$1\r\nv\r\n", "GET", "k")
}

// TestAuthTimeout: who must log in and does not is disconnected; who has, or
// need not, stays.
func TestAuthTimeout(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := secured(t, 0, func(o *proxy.Options) { o.AuthTimeout, o.Registerer = time.Second, reg })
	in, out := dialRaw(t, c.addr), dialRaw(t, c.addr)
	in.do("+OK\r\n", "AUTH", "upstream")
	out.do(noAuth, "PING")
	if b, err := io.ReadAll(out); err != nil || len(b) > 0 {
		t.Errorf("%q, %v", b, err)
	}
	awaitMetric(t, reg, 1, "sluice_proxy_clients_dropped_total", "auth_timeout")
	in.do("+PONG\r\n", "PING")
}
