package proxy_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// delay is what a replication link adds to whatever the master sends: latency
// plus or minus up to jitter.
type delay struct{ latency, jitter time.Duration }

// newDelayedCluster is newCluster with one replica for each delay, whose link
// to the master is that slow. The proxy reaches the replicas directly: they
// announce their own addresses. Without such links a replica on the same
// machine is never caught behind, and a hunt for stale reads proves nothing.
func newDelayedCluster(t testing.TB, delays []delay, set func(*proxy.Options)) *cluster {
	t.Helper()
	master := startRedis(t, localredis.Options{})
	return newClusterBehind(t, master, master.Addr(), delays, set)
}

// newClusterBehind is newDelayedCluster with replicas that sync from an address.
func newClusterBehind(t testing.TB, master *localredis.Server, from string, delays []delay, set func(*proxy.Options)) *cluster {
	t.Helper()
	c := &cluster{master: master}
	for _, d := range delays {
		_, port, _ := strings.Cut(startLink(t, from, d), ":")
		own, err := localredis.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		c.replicas = append(c.replicas, startRedis(t, localredis.Options{Port: own, Args: []string{
			"--replicaof", "127.0.0.1", port,
			"--replica-announce-ip", "127.0.0.1", "--replica-announce-port", strconv.Itoa(own),
		}}))
		c.links = append(c.links, port)
	}
	c.front(t, set)
	return c
}

// startLink starts a slow way to upstream and returns its address.
func startLink(t testing.TB, upstream string, d delay) string {
	t.Helper()
	p := toxiproxy.NewProxy(toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop()), "link", "127.0.0.1:0", upstream)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Stop)
	if _, err := p.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"type": "latency", "stream": "downstream", "attributes": {"latency": %d, "jitter": %d}}`,
		d.latency.Milliseconds(), d.jitter.Milliseconds()))); err != nil {
		t.Fatal(err)
	}
	return p.Listen
}

// faults keep hurting replicas, one at a time, until stopped.
type faults struct {
	c     *cluster
	stop  chan struct{}
	wg    sync.WaitGroup
	count [4]int
}

func (c *cluster) startFaults(t testing.TB, seed uint64) *faults {
	f := &faults{c: c, stop: make(chan struct{})}
	f.wg.Go(func() {
		rng := rand.New(rand.NewPCG(seed, 0))
		for f.rest(50+rng.IntN(250)) && f.hurt(t, rng) {
		}
	})
	return f
}

// end heals and waits.
func (f *faults) end(t testing.TB) {
	close(f.stop)
	f.wg.Wait()
	t.Logf("faults: %d times stopped, %d links cut, %d resynced anew, %d killed and restarted", f.count[0], f.count[1], f.count[2], f.count[3])
}

// rest lets the time pass for which a fault lasts, or nothing happens; false
// once the faults are to end.
func (f *faults) rest(ms int) bool {
	select {
	case <-time.After(time.Duration(ms) * time.Millisecond):
		return true
	case <-f.stop:
		return false
	}
}

func (f *faults) hurt(t testing.TB, rng *rand.Rand) bool {
	i := rng.IntN(len(f.c.replicas))
	r := f.c.replicas[i]
	kind := [...]int{0, 0, 0, 0, 0, 1, 1, 2, 2, 3}[rng.IntN(10)]
	f.count[kind]++
	var err error
	switch kind {
	case 0: // frozen, as by a long fork or a swapping host
		if err = r.Signal(stopSignal); err == nil {
			f.rest(50 + rng.IntN(450))
			err = r.Signal(contSignal)
		}
	case 1: // a partial resync follows
		_, err = localredis.Do(r.Addr(), "CLIENT", "KILL", "TYPE", "master")
	case 2: // a full resync follows: its history is another one for a moment
		if _, err = localredis.Do(r.Addr(), "REPLICAOF", "NO", "ONE"); err == nil {
			f.rest(rng.IntN(20))
			_, err = localredis.Do(r.Addr(), "REPLICAOF", "127.0.0.1", f.c.links[i])
		}
	case 3: // comes back empty
		r.Kill()
		err = r.Restart(context.Background())
	}
	if err != nil {
		t.Errorf("fault %d on replica %d: %v", kind, i, err)
	}
	return err == nil
}
