package downstream

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// sentinelSays returns a field of what a Sentinel knows of a master.
func sentinelSays(t testing.TB, s *localredis.Server, name, field string) string {
	t.Helper()
	m, err := relaytest.NewClient(t, s.Addr(), 0).Do(context.Background(), "SENTINEL", "MASTER", name).Slice()
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(m); i += 2 {
		if m[i] == field {
			return fmt.Sprint(m[i+1])
		}
	}
	return ""
}

// Three Sentinels find the relay, watch it, fail the master over, and take the
// relay and what is behind it along; nobody else tells it. They do not promote it,
// although it is the most caught-up of all.
func TestSentinelFailover(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	round(t, relaytest.NewLoad(t, master), 1)
	candidate := relaytest.StartReplica(t, master)
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{
		Options: Options{Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, up: upstream.Options{ListeningPort: port}})
	behind := startBehind(t, r.port())
	r.awaitOnline(t, 1)
	const name = "m"
	var sentinels []*localredis.Server
	for range 3 {
		s, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
			Name: name, Master: master, Quorum: 2, DownAfter: 3 * time.Second, FailoverTimeout: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		sentinels = append(sentinels, s)
	}
	for _, s := range sentinels {
		relaytest.Await(t, "sentinel knows candidate, relay and the other two", func() bool {
			return sentinelSays(t, s, name, "num-slaves") == "2" && sentinelSays(t, s, name, "num-other-sentinels") == "2"
		})
	}
	relaytest.Await(t, "sentinels talk to the relay", func() bool { return r.Status().Clients >= 6 })
	catchUp(t, master, candidate)
	master.Kill()
	relaytest.Await(t, "candidate is master", func() bool { // whose clients the Sentinels kill meanwhile
		info, err := localredis.Do(candidate.Addr(), "INFO", "replication")
		return err == nil && strings.Contains(info, "role:master")
	})
	relaytest.Await(t, "the relay was repointed", func() bool { return r.link.Status().Master == candidate.Addr() })
	round(t, relaytest.NewLoad(t, candidate), 1)
	relaytest.Await(t, "new id behind the relay", func() bool {
		return relaytest.Info(t, behind, "master_replid") == relaytest.Info(t, candidate, "master_replid")
	})
	sameData(t, candidate, behind)
	if n := r.fulls(); n != 1 || len(r.st.Generations()) != 1 {
		t.Errorf("%d full resyncs, %d generations", n, len(r.st.Generations()))
	}
}

// sentinelLists reports whether a Sentinel tells clients of a replica. A relay it
// knows, and does not tell: that is not announced.
func sentinelLists(t testing.TB, s, replica *localredis.Server, name string) bool {
	t.Helper()
	list, err := relaytest.NewClient(t, s.Addr(), 0).Do(context.Background(), "SENTINEL", "REPLICAS", name).Slice()
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(list, func(fields any) bool {
		words, ok := fields.([]any) // name, ADDRESS, ...
		return ok && slices.Contains(words, any(replica.Addr()))
	})
}

// A replica that a Sentinel knows it sends back to the master from behind the
// relay, after failover-timeout. SENTINEL RESET has it forget the replica, but has
// to come after that went, as README.md says: before, the master still lists it.
func TestSentinelResetFreesAReplica(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	replica := relaytest.StartReplica(t, master)
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{
		Options: Options{Listen: net.JoinHostPort("127.0.0.1", strconv.Itoa(port))}, up: upstream.Options{ListeningPort: port}})
	const name = "m"
	s, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
		Name: name, Master: master, Quorum: 1, DownAfter: 30 * time.Second, FailoverTimeout: 3 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	listed := func() bool { return sentinelLists(t, s, replica, name) }
	relaytest.Await(t, "the sentinel knows relay and replica", func() bool { return listed() && sentinelSays(t, s, name, "num-slaves") == "2" })

	reset := func() {
		t.Helper()
		if n := relaytest.Do(t, s, "SENTINEL", "RESET", name); n != ":1" {
			t.Fatalf("SENTINEL RESET: %s", n)
		}
	}
	reset()
	relaytest.Await(t, "reset too early, it finds the replica again", listed)

	replicaOf(t, replica, r.port())
	relaytest.Await(t, "the master lists it no longer", func() bool {
		return !strings.Contains(relaytest.Do(t, master, "INFO", "replication"), fmt.Sprintf("port=%d,", replica.Port()))
	})
	reset()
	relaytest.Await(t, "the sentinel knows the relay alone", func() bool { return !listed() && sentinelSays(t, s, name, "num-slaves") == "1" })
	r.awaitOnline(t, 1)
	if at := relaytest.Info(t, replica, "master_port"); at != strconv.Itoa(port) {
		t.Errorf("the replica is at port %s, not at the relay's %d", at, port)
	}
}
