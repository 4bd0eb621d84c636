package proxy_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

func TestOwnZoneFirst(t *testing.T) {
	for _, mode := range []proxy.Consistency{proxy.ConsistencyEventual, proxy.ConsistencyCausal} {
		t.Run(string(mode), func(t *testing.T) {
			reg := prometheus.NewRegistry()
			c := &cluster{master: startRedis(t, localredis.Options{})}
			for range 3 {
				s := startRedis(t, localredis.Options{ReplicaOf: c.master})
				awaitInfo(t, s, "master_link_status:up")
				c.replicas = append(c.replicas, s)
			}
			ours := c.replicas[1]
			c.front(t, func(o *proxy.Options) {
				o.Listeners[0].Consistency = mode
				o.Zone = "a"
				o.Zones = map[string]string{ours.Addr(): "a", c.replicas[0].Addr(): "b"}
				o.Registerer = reg
			})
			r := dialRaw(t, c.addr)
			awaitRoutes(t, r, reg, "replica")
			before := calls(t, ours, "get")
			for range 100 {
				r.do("$-1\r\n", "GET", "k")
			}
			if got := calls(t, ours, "get") - before; got != 100 {
				t.Errorf("the replica of our zone answered %d of 100 reads", got)
			}
			ours.Kill()
			awaitRoutes(t, r, reg, "other_zone")
		})
	}
}

// TestNearestIsMeasured: a replica that is far away gets no reads; not so far that
// it would get none as one that does not answer.
func TestNearestIsMeasured(t *testing.T) {
	c := &cluster{master: startRedis(t, localredis.Options{})}
	c.replicas = append(c.replicas, startRedis(t, localredis.Options{ReplicaOf: c.master}))
	own, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(startLink(t, "127.0.0.1:"+strconv.Itoa(own), delay{latency: 30 * time.Millisecond}), ":")
	far := startRedis(t, localredis.Options{Port: own, Args: []string{
		"--replicaof", "127.0.0.1", strconv.Itoa(c.master.Port()),
		"--replica-announce-ip", "127.0.0.1", "--replica-announce-port", port,
	}})
	c.replicas = append(c.replicas, far)
	c.front(t, func(o *proxy.Options) {
		o.Listeners[0].Consistency, o.Listeners[0].ReadFrom = proxy.ConsistencyEventual, proxy.ReadFromNearest
	})
	r := dialRaw(t, c.addr)
	for deadline := time.Now().Add(20 * time.Second); ; {
		before := calls(t, far, "get")
		for begin := time.Now(); time.Since(begin) < 100*time.Millisecond; { // of which a choice stands for one
			r.do("$-1\r\n", "GET", "k")
		}
		stray := calls(t, far, "get") - before
		replica, master := calls(t, c.replicas[0], "get"), calls(t, c.master, "get")
		if stray == 0 && replica > 0 && master > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the far replica got %d of the last reads, the near one %d in all, the master %d", stray, replica, master)
		}
	}
}
