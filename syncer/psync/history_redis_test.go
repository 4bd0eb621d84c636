package psync_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// The verdicts of repl.History are those of a real server at every edge: the
// beginning of its backlog, its own end, and the end of its former id; as a
// replica, when promoted, and when its backlog has left the former id behind.
func TestRedisHistoryVerdicts(t *testing.T) {
	old := startRedis(t, localredis.Options{})
	next := startRedis(t, localredis.Options{ReplicaOf: old, Args: []string{"--repl-backlog-size", "16384"}})
	oc, nc := newClient(t, old), newClient(t, next)
	await(t, "replica up", func() bool { return nc.info("master_link_status") == "up" })
	fill := func(c *client, values int) {
		for range values {
			c.do("SET", "k", strings.Repeat("v", 2000))
		}
	}
	fill(oc, 40)
	await(t, "replica in sync", func() bool { return nc.pos() == oc.pos() })
	pos := nc.pos()
	history, err := repl.NewHistory(pos.ReplID)
	if err != nil {
		t.Fatal(err)
	}
	seen := probeEdges(t, next, nc, history)
	if diff := cmp.Diff([]bool{true, true, true, true}, []bool{seen[repl.Accepted] > 5, seen[repl.TooOld] > 0, seen[repl.Ahead] > 0, seen[repl.UnknownReplID] > 0}); diff != "" {
		t.Errorf("as a replica: %v", seen)
	}

	nc.do("REPLICAOF", "NO", "ONE")
	if history, err = history.Append(repl.ReplID(nc.info("master_replid")), pos.Offset); err != nil {
		t.Fatal(err)
	}
	id, offset := history.Second()
	if string(id) != nc.info("master_replid2") || int64(offset) != nc.number("second_repl_offset") {
		t.Errorf("we say master_replid2 %s, second_repl_offset %d; Redis says %s, %s", id, offset, nc.info("master_replid2"), nc.info("second_repl_offset"))
	}
	fill(nc, 3)
	if seen = probeEdges(t, next, nc, history); seen[repl.Diverged] < 5 || seen[repl.Accepted] < 10 {
		t.Errorf("promoted: %v", seen)
	}

	fill(nc, 40)
	first := repl.Offset(nc.number("repl_backlog_first_byte_offset"))
	if first <= pos.Offset+1 {
		t.Fatalf("backlog still begins at %d, the former id ends at %d", first, pos.Offset)
	}
	if forgot := history.Forget(first); len(forgot.Ancestors()) != 0 {
		t.Errorf("Forget(%d) = %v", first, forgot)
	}
	if seen = probeEdges(t, next, nc, history); seen[repl.TooOld] < 5 {
		t.Errorf("former id left behind: %v", seen)
	}
}

// probeEdges asks a server for what lies around every edge, by every id and an
// unknown one, and compares what it says to the verdicts of h.
func probeEdges(t *testing.T, s *localredis.Server, c *client, h repl.History) map[repl.Verdict]int {
	t.Helper()
	first := repl.Offset(c.number("repl_backlog_first_byte_offset"))
	last := c.pos().Offset
	if first <= 1 || last != first+repl.Offset(c.number("repl_backlog_histlen"))-1 {
		t.Fatalf("backlog holds %d to %d", first, last)
	}
	ids := []repl.ReplID{h.Current(), idA}
	ends := []repl.Offset{first, last}
	for _, a := range h.Ancestors() {
		ids, ends = append(ids, a.ReplID), append(ends, a.End)
	}
	seen := map[repl.Verdict]int{}
	for _, id := range ids {
		for _, end := range ends {
			for next := end - 1; next <= end+2; next++ {
				w := repl.Want{ReplID: id, Next: next}
				v := h.Accepts(w, first, last)
				seen[v]++
				if continued := probe(t, s, c, w); continued != (v == repl.Accepted) {
					t.Errorf("%v of %d to %d in %v: continued is %v, we say %v", w, first, last, h, continued, v)
				}
			}
		}
	}
	if now := repl.Offset(c.number("repl_backlog_first_byte_offset")); now != first || c.pos().Offset != last {
		t.Fatalf("backlog moved to %d–%d", now, c.pos().Offset)
	}
	return seen
}

// probe asks for w and returns whether the server continued. It goes by the
// server's counters, because +FULLRESYNC may be a second in coming.
func probe(t *testing.T, s *localredis.Server, c *client, w repl.Want) bool {
	t.Helper()
	ok, failed := c.number("sync_partial_ok"), c.number("sync_partial_err")
	conn := dial(t, s)
	defer func() { _ = conn.Close() }()
	h := psync.Handshake{Capa: bothCapa, RDBOnly: true}
	r := psync.NewReader(conn)
	if err := h.Run(conn, r); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(psync.AppendPSync(nil, w)); err != nil {
		t.Fatal(err)
	}
	continued := false
	await(t, "a verdict", func() bool {
		continued = c.number("sync_partial_ok") == ok+1
		return continued || c.number("sync_partial_err") == failed+1
	})
	if !continued {
		return false
	}
	a, err := psync.ReadAnswer(r)
	if err != nil || a != (psync.Continue{ReplID: repl.ReplID(c.info("master_replid"))}) {
		t.Errorf("%v: %v, %v", w, a, err)
	}
	return true
}
