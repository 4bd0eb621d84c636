package downstream

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// edition is a server's binary with its version.
type edition struct {
	localredis.Version
	binary string
}

func editions(t *testing.T) (all []edition) {
	t.Helper()
	binaries := localredis.TestServers()
	if len(binaries) == 1 {
		t.Skipf("%s names no servers of other versions: see deploy/servers.sh", localredis.ServersEnv)
	}
	for _, b := range binaries {
		v, err := localredis.VersionOf(b)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, edition{v, b})
	}
	return all
}

// rdb returns the version of RDB that it writes (RDB_VERSION in its rdb.h).
func (e edition) rdb() int {
	switch {
	case e.Valkey && e.Major >= 9:
		return 80
	case e.Valkey:
		return 11
	case e.AtLeast(7, 4):
		return 12
	case e.AtLeast(7, 2):
		return 11
	}
	return 10
}

// loads tells whether it loads what other writes: a Valkey knows none of Redis'
// versions from 12 on (rdbIsForeignVersion), and a Redis none of Valkey's.
func (e edition) loads(other edition) bool {
	if e.Valkey && other.rdb() >= 12 && other.rdb() < 80 {
		return false
	}
	return e.rdb() >= other.rdb()
}

func (e edition) start(t *testing.T, args ...string) *localredis.Server {
	t.Helper()
	return relaytest.StartRedis(t, localredis.Options{Binary: e.binary, Args: args})
}

// Masters of every version have replicas of every version behind the relay.
// Those that can load what the master writes have its data, the others are told
// of and do not come in a tight loop.
func TestVersions(t *testing.T) {
	all := editions(t)
	for _, e := range all {
		t.Run(e.String(), func(t *testing.T) { testMasterOf(t, e, all) })
	}
}

func testMasterOf(t *testing.T, e edition, all []edition) {
	master := e.start(t)
	load := relaytest.NewLoad(t, master)
	round(t, load, 3)
	if e.AtLeast(7, 4) || e.Valkey && e.Major >= 9 { // types of RDB that came with them
		relaytest.Do(t, master, "HSET", "fields", "a", "1", "b", "2")
		relaytest.Do(t, master, "HEXPIRE", "fields", "100000", "FIELDS", "1", "a")
	}
	core, logs := observer.New(zap.InfoLevel)
	dir := t.TempDir()
	r := newRig(t, dir, master.Addr(), rigOptions{up: upstream.Options{Logger: zap.New(core)}})
	r.link.Start()
	r.awaitBase(t)
	base := r.st.Current().Bases()[0]
	t.Logf("base of %d bytes, %s", base.Size, base.Source)
	full := relaytest.Number(t, master, "sync_full")
	load.Start()
	var able, unable []*localredis.Server
	for _, o := range all {
		s := o.start(t, "--replicaof", "127.0.0.1", strconv.Itoa(r.port()))
		if o.loads(e) {
			able = append(able, s)
			t.Logf("%s syncs from %s", o, e)
		} else {
			unable = append(unable, s)
			t.Logf("%s cannot load what %s writes", o, e)
		}
	}
	r.awaitOnline(t, len(able))
	load.Stop()
	sameData(t, master, able...)
	r.awaitOffset(t, master)
	relaytest.Judge(t, r.st, master)
	for _, s := range unable {
		awaitRefused(t, r, s, logs, e.rdb())
		if got := relaytest.Info(t, s, "master_link_status"); got != "down" {
			t.Errorf("link of %s is %s", s.Addr(), got)
		}
		s.Stop()
	}
	if n := relaytest.Number(t, master, "sync_full") - full; n != 0 {
		t.Errorf("the replicas cost the master %d full resyncs", n)
	}

	// A restart of the relay costs those that are in sync no full resync.
	listen := r.addr()
	r.stop(t)
	round(t, load, 1)
	r = startRig(t, dir, master.Addr(), rigOptions{Options: Options{Listen: listen}})
	r.awaitOnline(t, len(able))
	sameData(t, master, able...)
	if f, p := r.fulls(), r.counters.partial.Load(); f != 0 || p != uint64(len(able)) {
		t.Errorf("after a restart: %d full and %d partial resyncs, want 0 and %d", f, p, len(able))
	}
}

// awaitRefused waits until a replica has failed three times. A replica connects
// again at once, so that without a pause it would have had the base hundreds of
// times by then. The log must say why.
func awaitRefused(t *testing.T, r *rig, s *localredis.Server, logs *observer.ObservedLogs, rdb int) {
	t.Helper()
	relaytest.Await(t, "replica fails to load the base for the third time", func() bool {
		r.peers.mu.Lock()
		defer r.peers.mu.Unlock()
		p := r.peers.seen[s.Addr()]
		return p != nil && p.failures >= 3
	})
	bases, warnings := 0, 0
	for _, l := range logs.FilterField(zap.String("replica", s.Addr())).All() {
		switch {
		case l.Message == "full resync":
			bases++
		case strings.HasSuffix(l.Message, fmt.Sprintf("(RDB version %d)? Its log tells", rdb)):
			warnings++
		}
	}
	if bases > 8 || warnings == 0 {
		t.Errorf("%s got the base %d times, and the log told %d times that it cannot load RDB version %d", s.Addr(), bases, warnings, rdb)
	}
}
