package proxy_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/topology"
)

// TestStatusTellsTrafficAndEvents: what /api/status shows beside the nodes.
func TestStatusTellsTrafficAndEvents(t *testing.T) {
	c := newCluster(t, 1, nil)
	ctx := context.Background()
	client := redis.NewClient(&redis.Options{Addr: c.addr})
	defer func() { _ = client.Close() }()
	if err := client.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	c.await(t, "a read that a replica answered", func(proxy.Status) bool {
		if err := client.Get(ctx, "other").Err(); !errors.Is(err, redis.Nil) {
			t.Fatal(err)
		}
		st := c.srv.Status()
		return st.Nodes[1].ByClass.Read > 0 && st.Traffic.Routed["replica"] > 0
	})
	st := c.srv.Status()
	m, r := st.Nodes[0], st.Nodes[1]
	if m.Follows != "" || r.Follows != m.Address {
		t.Errorf("the master follows %q, the replica %q", m.Follows, r.Follows)
	}
	if m.ByClass.Write != 1 || r.ByClass.Write != 0 || m.Commands != m.ByClass.Read+m.ByClass.Write+m.ByClass.Other {
		t.Errorf("answered by class: %+v, of %d; %+v", m.ByClass, m.Commands, r.ByClass)
	}
	if st.Traffic.Routed["write"] != 1 {
		t.Errorf("routed: %v, want one write", st.Traffic.Routed)
	}
	var timed uint64
	for _, n := range st.Traffic.Latency.Counts {
		timed += n
	}
	if timed != m.Commands+r.Commands || len(st.Traffic.Latency.Counts) != len(st.Traffic.Latency.Bounds)+1 {
		t.Errorf("the latency of %d commands is known, of %d", timed, m.Commands+r.Commands)
	}
	if st.Started.IsZero() {
		t.Error("no time of the start")
	}

	c.replicas[0].Kill()
	c.await(t, "the loss of the replica in the events", func(st proxy.Status) bool {
		return st.Events[0].Kind == topology.EventDown && st.Events[0].Node == c.replicas[0].Addr()
	})
	var kinds []string
	for _, e := range c.srv.Status().Events {
		kinds = append(kinds, string(e.Kind))
	}
	if all := strings.Join(kinds, " "); !strings.Contains(all, "master") || !strings.Contains(all, "reads") {
		t.Errorf("events: %s", all)
	}
}
