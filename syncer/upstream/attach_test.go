package upstream

import (
	"context"
	"testing"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/store"
)

// With a replica, attaching costs the master neither a fork nor a full resync.
func TestAttachWithReplica(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	startReplica(t, master)
	l := newLoad(t, master)
	l.Start()
	full, forks := number(t, master, "sync_full"), number(t, master, "total_forks")
	r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "replica ")
	l.Stop()
	r.awaitOffset(t, master)
	judge(t, r.st, master)
	if f, n := number(t, master, "sync_full")-full, number(t, master, "total_forks")-forks; f != 0 || n != 0 {
		t.Errorf("%d full resyncs, %d forks of the master", f, n)
	}
}

// Without one, the master forks exactly once, whether it has a backlog or not.
func TestAttachWithoutReplica(t *testing.T) {
	for name, backlog := range map[string]bool{"no backlog": false, "backlog": true} {
		t.Run(name, func(t *testing.T) {
			master := startRedis(t, localredis.Options{})
			if backlog {
				replica := startReplica(t, master)
				replica.Stop()
				await(t, "replica gone", func() bool { return info(t, master, "connected_slaves") == "0" })
			}
			l := newLoad(t, master)
			l.Start()
			forks := number(t, master, "total_forks")
			r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{})
			r.awaitBase(t, "master ")
			l.Stop()
			r.awaitOffset(t, master)
			judge(t, r.st, master)
			if n := number(t, master, "total_forks") - forks; n != 1 {
				t.Errorf("%d forks", n)
			}
		})
	}
}

// A restart goes on where the store ends, by partial resync.
func TestRestartResumes(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	dir := t.TempDir()
	r := startLink(t, dir, master.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "master ")
	r.stop(t)
	full, partial := number(t, master, "sync_full"), number(t, master, "sync_partial_ok")
	l := newLoad(t, master)
	for range 5 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	r = startLink(t, dir, master.Addr(), Options{}, store.Options{})
	r.awaitOffset(t, master)
	judge(t, r.st, master)
	if f, p := number(t, master, "sync_full")-full, number(t, master, "sync_partial_ok")-partial; f != 0 || p != 1 {
		t.Errorf("%d full, %d partial resyncs", f, p)
	}
	if len(r.st.Generations()) != 1 {
		t.Errorf("%d generations", len(r.st.Generations()))
	}
}

// The base of a replica of every version and what follows it is the master's data.
func TestVersions(t *testing.T) {
	binaries := localredis.TestServers()
	if len(binaries) == 1 {
		t.Skipf("%s names no servers of other versions: see deploy/servers.sh", localredis.ServersEnv)
	}
	for _, binary := range binaries {
		v, err := localredis.VersionOf(binary)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(v.String(), func(t *testing.T) {
			master := startRedis(t, localredis.Options{Binary: binary})
			startReplica(t, master)
			l := newLoad(t, master)
			l.Start()
			forks := number(t, master, "total_forks")
			r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{})
			r.awaitBase(t, "replica ")
			l.Stop()
			r.awaitOffset(t, master)
			judge(t, r.st, master)
			if n := number(t, master, "total_forks") - forks; n != 0 {
				t.Errorf("%d forks of the master", n)
			}
		})
	}
}
