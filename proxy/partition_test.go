package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp/localredis"
)

// island is a network namespace that one cable connects with ours, and a
// firewall on its side of the cable.
type island struct {
	name        string
	here, there string // the addresses of the two ends
	redisBinary string // runs redis-server on the island
}

const firewall = "partition" // the table of the rules

// newIsland makes one, or skips the test where that is not allowed.
func newIsland(t testing.TB) *island {
	t.Helper()
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("a network partition needs %s (Debian: iproute2, nftables): %v", tool, err)
		}
	}
	n := rand.IntN(1 << 14)                  // others may run this too
	block := fmt.Sprintf("198.18.%d.", n>>6) // a range kept for tests (RFC 2544)
	i := &island{
		name: fmt.Sprint("sluice", n), here: block + fmt.Sprint(n&63<<2+1), there: block + fmt.Sprint(n&63<<2+2),
		redisBinary: filepath.Join(t.TempDir(), "redis-on-the-island"),
	}
	if out, err := exec.Command("ip", "netns", "add", i.name).CombinedOutput(); err != nil {
		t.Skipf("no network namespace can be made here (it takes root and CAP_SYS_ADMIN): %v: %s", err, out)
	}
	t.Cleanup(func() { i.run(t, "ip", "netns", "del", i.name) }) // the cable goes with it
	cable := fmt.Sprint("slu", n)
	i.run(t, "ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", i.name)
	i.run(t, "ip", "addr", "add", i.here+"/30", "dev", cable)
	i.run(t, "ip", "link", "set", cable, "up")
	i.run(t, "ip", "-n", i.name, "addr", "add", i.there+"/30", "dev", "eth0")
	i.run(t, "ip", "-n", i.name, "link", "set", "eth0", "up")
	i.run(t, "ip", "-n", i.name, "link", "set", "lo", "up")
	i.nft(t, "add table inet "+firewall)
	for _, hook := range []string{"input", "output"} {
		i.nft(t, fmt.Sprintf("add chain inet %s %s { type filter hook %s priority 0; policy accept; }", firewall, hook, hook))
	}
	// exec, so that the process started is redis-server itself.
	script := fmt.Sprintf("#!/bin/sh\nexec ip netns exec %s %s \"$@\"\n", i.name, localredis.DefaultBinary)
	if err := os.WriteFile(i.redisBinary, []byte(script), 0o700); err != nil { //nolint:gosec // it is to be run
		t.Fatal(err)
	}
	return i
}

func (i *island) run(t testing.TB, words ...string) {
	t.Helper()
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil { //nolint:gosec // words of this file
		t.Fatalf("%v: %v: %s", words, err, out)
	}
}

func (i *island) nft(t testing.TB, rule string) {
	t.Helper()
	i.run(t, "ip", "netns", "exec", i.name, "nft", rule)
}

// drop loses in silence the packets from and to one port on our side.
func (i *island) drop(t testing.TB, port string) {
	t.Helper()
	i.nft(t, fmt.Sprintf("add rule inet %s input tcp sport %s drop", firewall, port))
	i.nft(t, fmt.Sprintf("add rule inet %s output tcp dport %s drop", firewall, port))
}

// dropAll loses all packets.
func (i *island) dropAll(t testing.TB) {
	t.Helper()
	i.nft(t, fmt.Sprintf("add rule inet %s input drop", firewall))
	i.nft(t, fmt.Sprintf("add rule inet %s output drop", firewall))
}

func (i *island) heal(t testing.TB) { t.Helper(); i.nft(t, "flush table inet "+firewall) }

// newPartitionCluster has the master on the island; its replica, the sentinels
// and the proxy are on our side.
func newPartitionCluster(t testing.TB, i *island, reg *prometheus.Registry) (c *cluster, sentinels []*localredis.Server) {
	t.Helper()
	c = &cluster{master: startRedis(t, localredis.Options{Binary: i.redisBinary, Host: i.there})}
	c.replicas = []*localredis.Server{startRedis(t, localredis.Options{Host: i.here, ReplicaOf: c.master})}
	awaitInfo(t, c.replicas[0], "master_link_status:up")
	o := topology.SentinelConfig{Name: "mymaster"}
	for range 3 {
		s, err := localredis.StartSentinel(t.Context(), localredis.SentinelOptions{
			Name: o.Name, Master: c.master, Quorum: 2, Host: i.here,
			DownAfter: time.Minute, FailoverTimeout: 10 * time.Second,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		sentinels = append(sentinels, s)
		o.Addrs = append(o.Addrs, s.Addr())
	}
	for _, s := range sentinels {
		awaitInfo(t, s, "slaves=1,sentinels=3")
	}
	c.front(t, func(p *proxy.Options) {
		p.Master, p.Sentinel = "", o
		p.Registerer = reg
		p.HealthTimeout = 2 * time.Second
		p.FailoverHold = time.Minute // a slow machine's sentinels take their time
	})
	return c, sentinels
}

// downAfter sets the time after which the sentinels call a node down: short
// while one is, long while none is and only a busy machine could look like it.
func downAfter(t testing.TB, sentinels []*localredis.Server, d time.Duration) {
	t.Helper()
	for _, s := range sentinels {
		redisDo(t, s, "SENTINEL", "SET", "mymaster", "down-after-milliseconds", fmt.Sprint(d.Milliseconds()))
	}
}

// watch is a reader of one counter that notes how often and how far it went back.
type watch struct {
	seen, steps, back int64
}

func startWatches(t testing.TB, c *cluster, l *load) []watch {
	list := make([]watch, len(l.acked))
	r := c.client(t, func(o *redis.Options) { o.PoolSize = len(list); o.ReadTimeout = time.Minute })
	for i := range list {
		l.wg.Go(func() {
			w := &list[i]
			for l.running() {
				v, err := r.Get(context.Background(), fmt.Sprint("counter", i)).Int64()
				if err != nil && !errors.Is(err, redis.Nil) {
					l.note(err)
					continue
				}
				if v < w.seen {
					w.steps++
					w.back = max(w.back, w.seen-v)
				}
				w.seen = v
				l.reads.Add(1)
			}
		})
	}
	return list
}

// islander is a client on the old master's side, which writes to it past the
// proxy until it is told that it writes to a replica.
type islander struct {
	writes atomic.Int64
	wg     sync.WaitGroup
}

func startIslander(t testing.TB, m *localredis.Server) *islander {
	d := &islander{}
	r := redis.NewClient(&redis.Options{Network: "unix", Addr: m.Socket(), MaxRetries: -1})
	ctx, cancel := context.WithCancel(context.Background())
	d.wg.Go(func() {
		for ctx.Err() == nil && r.Set(ctx, "island", d.writes.Load(), 0).Err() == nil {
			d.writes.Add(1)
			select { // a client, not a flood
			case <-time.After(time.Millisecond):
			case <-ctx.Done():
			}
		}
	})
	t.Cleanup(func() {
		cancel()
		d.wg.Wait()
		_ = r.Close()
	})
	return d
}

// monitor notes which commands of which clients m runs, from now on until
// Sentinel, which makes m a replica, kills the connections of its clients.
type monitor struct {
	conn  net.Conn
	done  chan struct{}
	mu    sync.Mutex
	lines []string // of peers by TCP; guarded by mu
}

func startMonitor(t testing.TB, m *localredis.Server) *monitor {
	t.Helper()
	conn, err := net.Dial("unix", m.Socket())
	if err != nil {
		t.Fatal(err)
	}
	w := &monitor{conn: conn, done: make(chan struct{})}
	if _, err := conn.Write([]byte("MONITOR\r\n")); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(conn)
	if !lines.Scan() || lines.Text() != "+OK" {
		t.Fatalf("MONITOR is answered with %q", lines.Text())
	}
	go func() {
		defer close(w.done)
		for lines.Scan() {
			if !strings.Contains(lines.Text(), "unix:") {
				w.mu.Lock()
				w.lines = append(w.lines, lines.Text())
				w.mu.Unlock()
			}
		}
	}()
	t.Cleanup(func() {
		_ = conn.Close()
		<-w.done
	})
	return w
}

// count returns how many commands of that name came from peers other than except.
func (w *monitor) count(name, except string) (n int, first string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.lines {
		if strings.Contains(strings.ToUpper(line), `] "`+name+`"`) && !strings.Contains(line, except+"]") {
			if n++; n == 1 {
				first = line
			}
		}
	}
	return n, first
}

// TestPartition cuts the master off, together with a client that goes on writing
// to it, first from its replica and then from everybody else. What the proxy
// has acknowledged is on the new master or counted as lost; the old one is not
// written to again when it is back and still says that it is master.
func TestPartition(t *testing.T) {
	i := newIsland(t)
	reg := prometheus.NewRegistry()
	c, sentinels := newPartitionCluster(t, i, reg)
	m, r := c.master, c.replicas[0]
	l := startLoad(t, c, 10, 0)
	watches := startWatches(t, c, l)
	awaitCount(t, &l.writes, 500)
	awaitCount(t, &l.reads, 500)

	// The link of the replica goes first: what is acknowledged now will be lost.
	list, err := localredis.Do(m.Addr(), "CLIENT", "LIST", "TYPE", "replica")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(list, " addr="+i.here+":")
	port, _, _ = strings.Cut(port, " ")
	i.drop(t, port)
	awaitCount(t, &l.writes, l.writes.Load()+200)
	i.dropAll(t)
	cut := time.Now()
	direct := startIslander(t, m)
	downAfter(t, sentinels, 500*time.Millisecond)
	promotedAt(t, c.replicas)
	c.await(t, "the new master", masterIs(r))
	t.Logf("the new master serves %v after the cut", time.Since(cut))
	downAfter(t, sentinels, time.Minute)
	awaitCount(t, &direct.writes, direct.writes.Load()+50)
	for k := range l.acked { // each writer has written to the new one
		v := l.acked[k].Load()
		c.await(t, "each writer", func(proxy.Status) bool { return l.acked[k].Load() != v })
	}

	spy := startMonitor(t, m)
	onIsland := direct.writes.Load()
	i.heal(t)
	c.await(t, "the old master, as one that is not ours", func(s proxy.Status) bool {
		for _, n := range s.Nodes[1:] {
			if n.Address == m.Addr() && n.Role == "master" {
				return masterIs(r)(s)
			}
		}
		return false
	})
	awaitCount(t, &l.writes, l.writes.Load()+500)
	if direct.writes.Load() == onIsland {
		t.Error("the island's client has not written since the heal: the old master was no master any more, so this shows nothing")
	}
	for deadline := time.Now().Add(time.Minute); readable(c.srv.Status()) != 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the old master does not return as a replica: %+v", c.srv.Status())
		}
	}
	awaitCount(t, &l.writes, l.writes.Load()+200)
	l.end(t)
	t.Logf("the island's client wrote %d times, %d of them after the heal", direct.writes.Load(), direct.writes.Load()-onIsland)
	if n, _ := spy.count("PING", r.Addr()); n == 0 {
		t.Error("the old master has run no PING since the heal: what it runs was not seen")
	}
	if n, first := spy.count("INCR", r.Addr()); n > 0 {
		t.Errorf("the old master got %d writes of the proxy after the failover, the first: %s", n, first)
	}
	if l.lost.Load() == 0 {
		t.Error("nothing was lost: the test proves nothing")
	}
	checkLosses(t, reg, l)
	checkAfterPartition(t, r, l, watches)
	if n := metricSum(t, reg, "sluice_failovers_total"); n != 1 {
		t.Errorf("%d failovers, want 1", n)
	}
}

// checkAfterPartition compares the new master with what the writers were told
// last, and what readers saw go back with what the writers know to be lost.
func checkAfterPartition(t testing.TB, master *localredis.Server, l *load, watches []watch) {
	t.Helper()
	if n := l.uncertain.Load(); n > int64(len(l.acked)) {
		t.Errorf("%d uncertain writes of %d writers, at most one each was in flight", n, len(l.acked))
	}
	var back int64
	for k := range watches {
		got, err := localredis.Do(master.Addr(), "GET", fmt.Sprint("counter", k))
		var v int64
		if _, serr := fmt.Sscan(got, &v); err != nil || serr != nil || v < l.acked[k].Load() {
			t.Errorf("counter%d is %q on the new master, %d was acknowledged", k, got, l.acked[k].Load())
		}
		w := watches[k]
		back += w.back
		if w.steps > 1 {
			t.Errorf("the reader of counter%d went back %d times; one failover explains one", k, w.steps)
		}
	}
	// Each may have seen one more than was acknowledged: what became uncertain.
	if most := l.lost.Load() + l.uncertain.Load(); back > most {
		t.Errorf("readers went back by %d writes, %d are lost or uncertain", back, most)
	}
}
