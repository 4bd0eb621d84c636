package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/proxy"
)

// TestReplicaWithoutTheUser has ACL users that only the master knows, or that
// may do less on the replica: their reads are answered by the master, the node
// is reported, and is read again once the user is set up there.
func TestReplicaWithoutTheUser(t *testing.T) {
	for _, consistency := range []proxy.Consistency{proxy.ConsistencyCausal, proxy.ConsistencyEventual} {
		for code, onReplica := range map[string][]string{
			"WRONGPASS": nil,
			"NOPERM":    {"ACL", "SETUSER", "bob", "on", ">bobpw", "~other", "+@all"},
		} {
			t.Run(string(consistency)+" "+code, func(t *testing.T) {
				logs, seen := observer.New(zap.WarnLevel)
				reg := prometheus.NewRegistry()
				c := newCluster(t, 1, func(o *proxy.Options) {
					o.Logger, o.Registerer, o.RefusalRest = zap.New(logs), reg, time.Second
					o.Listeners[0].Consistency = consistency
				})
				full := []string{"ACL", "SETUSER", "bob", "on", ">bobpw", "~*", "+@all", "-dbsize"}
				dialRaw(t, c.master.Addr()).do("+OK\r\n", full...)
				replica := dialRaw(t, c.replicas[0].Addr())
				if onReplica != nil {
					replica.do("+OK\r\n", onReplica...)
				}
				r := dialRaw(t, c.addr)
				r.do("+OK\r\n", "AUTH", "bob", "bobpw")
				r.do("+OK\r\n", "SET", "k", "v")
				c.sync(t)
				node := c.replicas[0].Addr()
				for deadline := time.Now().Add(20 * time.Second); metric(t, reg, "sluice_node_refusals_total", node, code) == 0; {
					r.do("$1\r\nv\r\n", "GET", "k")
					if time.Now().After(deadline) {
						t.Fatal("the replica never refused")
					}
				}
				for range 100 {
					r.do("$1\r\nv\r\n", "GET", "k")
				}
				if n := metric(t, reg, "sluice_node_refusals_total", node, code); n > 20 {
					t.Errorf("%v refusals: the replica is asked again and again", n)
				}
				var users []proxy.RefusalStatus
				for _, n := range c.srv.Status().Nodes {
					if n.Address == node {
						users = n.Refused
					}
				}
				if len(users) != 1 || users[0].User != "bob" || users[0].Error != code || users[0].Times == 0 {
					t.Errorf("status: %+v", users)
				}
				e := seen.FilterMessageSnippet("a replica refuses to a user").All()
				if len(e) != 1 || e[0].ContextMap()["node"] != node || e[0].ContextMap()["user"] != "bob" {
					t.Errorf("logged %v, want one line", e)
				}
				// What the master refuses as well is no fault of the replica.
				r.cmd("DBSIZE")
				if got, _ := r.reply(); !strings.HasPrefix(got, "-NOPERM") {
					t.Errorf("DBSIZE: %q", got)
				}
				replica.do("+OK\r\n", full...)
				before := calls(t, c.replicas[0], "get")
				for deadline := time.Now().Add(20 * time.Second); calls(t, c.replicas[0], "get") < before+10; {
					r.do("$1\r\nv\r\n", "GET", "k")
					if time.Now().After(deadline) {
						t.Fatal("the replica is not read again")
					}
				}
			})
		}
	}
}
