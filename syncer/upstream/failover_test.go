package upstream

import (
	"context"
	"testing"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/store"
)

// A promoted replica continues our history under a new id.
func TestFailoverContinues(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startReplica(t, master)
	l := newLoad(t, master)
	l.Start()
	r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "replica ")
	l.Stop()
	r.awaitOffset(t, master)
	await(t, "replica has caught up", func() bool {
		return number(t, replica, "master_repl_offset") == number(t, master, "master_repl_offset")
	})
	old := r.st.Head().History().Current()
	do(t, replica, "REPLICAOF", "NO", "ONE")
	master.Kill()
	full := number(t, replica, "sync_full")
	r.SetMaster(replica.Addr())
	l = newLoad(t, replica)
	for range 5 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitOffset(t, replica)
	h := r.st.Head().History()
	if a := h.Ancestors(); len(a) != 1 || a[0].ReplID != old || string(h.Current()) != info(t, replica, "master_replid") {
		t.Errorf("history is %v", h)
	}
	if f := number(t, replica, "sync_full") - full; f != 0 || len(r.st.Generations()) != 1 {
		t.Errorf("%d full resyncs, %d generations", f, len(r.st.Generations()))
	}
	judge(t, r.st, replica)
}

// The relay is ahead of the replica that is promoted: what only the old master
// had is not in the new history, so that a generation begins.
func TestFault16FailoverRelayAhead(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startReplica(t, master)
	r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "replica ")
	do(t, replica, "REPLICAOF", "NO", "ONE")
	do(t, replica, "SET", "only", "here")
	l := newLoad(t, master)
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.awaitOffset(t, master)
	r.SetMaster(replica.Addr())
	await(t, "a new generation is current", func() bool { return r.st.Current().ID() == 2 })
	r.awaitOffset(t, replica)
	judge(t, r.st, replica)
	if n := number(t, replica, "sync_full"); n != 2 { // the two bases
		t.Errorf("%d full resyncs", n)
	}
}

// A master that comes back empty has another history: a generation begins, and
// the old one is kept.
func TestFault19MasterRestartsEmpty(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	l := newLoad(t, master)
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "master ")
	r.awaitOffset(t, master)
	first := r.st.Current()
	end := first.Committed()
	master.Kill()
	if err := master.Restart(timeout(t)); err != nil {
		t.Fatal(err)
	}
	do(t, master, "SET", "new", "life")
	await(t, "a new generation is current", func() bool { return r.st.Current() != first })
	do(t, master, "SET", "after", "base")
	r.awaitOffset(t, master)
	judge(t, r.st, master)
	gens := r.st.Generations()
	if len(gens) != 2 || gens[1] != first || first.Committed() < end || len(first.Bases()) != 1 {
		t.Fatalf("generations are %v, the old one ends at %d", gens, first.Committed())
	}
	b, err := first.OpenBase(context.Background(), first.Bases()[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
}

// The backlog has gone while we were away: a generation begins, without a full
// resync where a replica can give the base.
func TestFault22BacklogGone(t *testing.T) {
	master := startRedis(t, localredis.Options{Args: []string{"--repl-backlog-size", "16384"}})
	startReplica(t, master)
	dir := t.TempDir()
	r := startLink(t, dir, master.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "replica ")
	end := int64(r.st.Head().Committed())
	r.stop(t)
	full := number(t, master, "sync_full")
	l := newLoad(t, master)
	// Redis trims it by and by, and never what a replica has yet to get.
	for number(t, master, "repl_backlog_first_byte_offset") <= end+1 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	r = startLink(t, dir, master.Addr(), Options{}, store.Options{})
	await(t, "a new generation is current", func() bool { return r.st.Current().ID() == 2 })
	r.awaitOffset(t, master)
	judge(t, r.st, master)
	if f := number(t, master, "sync_full") - full; f != 0 {
		t.Errorf("%d full resyncs", f)
	}
}

// The configured node is a replica: its master is found.
func TestFollowsToMaster(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startReplica(t, master)
	do(t, master, "SET", "a", "b")
	r := startLink(t, t.TempDir(), replica.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "replica ")
	if s := r.Status(); s.Master != master.Addr() || s.State != "connected" || s.Error != "" {
		t.Errorf("%+v", s)
	}
}

// A password, and an ACL user with no more than what is documented.
func TestACLUser(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	do(t, master, "ACL", "SETUSER", "relay", "on", ">secret", "+psync", "+replconf", "+ping", "+info")
	do(t, master, "SET", "a", "b")
	r := startLink(t, t.TempDir(), master.Addr(), Options{User: "relay", Password: "secret"}, store.Options{})
	r.awaitBase(t, "master ")
	r.stop(t)

	r = startLink(t, t.TempDir(), master.Addr(), Options{User: "relay", Password: "wrong"}, store.Options{})
	await(t, "a refusal", func() bool { return r.Status().Error != "" })
	if s := r.Status(); s.State == "connected" {
		t.Errorf("%+v", s)
	}
}

// Without INFO, a full resync on the link itself is what is left.
func TestFullResyncWithoutInfo(t *testing.T) {
	for _, diskless := range []string{"yes", "no"} {
		t.Run("diskless="+diskless, func(t *testing.T) {
			master := startRedis(t, localredis.Options{Args: []string{"--repl-diskless-sync", diskless}})
			do(t, master, "ACL", "SETUSER", "relay", "on", ">secret", "+psync", "+replconf", "+ping")
			l := newLoad(t, master)
			l.Start()
			r := startLink(t, t.TempDir(), master.Addr(), Options{User: "relay", Password: "secret"}, store.Options{})
			r.awaitBase(t, "master ")
			l.Stop()
			r.awaitOffset(t, master)
			judge(t, r.st, master)
			if n := number(t, master, "sync_full"); n != 1 {
				t.Errorf("%d full resyncs", n)
			}
		})
	}
}
