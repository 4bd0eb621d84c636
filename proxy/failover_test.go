package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// load is writers and readers that go on until stopped and note what they see.
type load struct {
	stop                     chan struct{}
	wg                       sync.WaitGroup
	writes, uncertain, reads atomic.Int64
	acked                    []atomic.Int64 // by writer: the last INCR that was acknowledged
	unexpected               atomic.Int64
	longest                  atomic.Int64 // nanoseconds between two acknowledged writes
	firstAck                 atomic.Int64 // when a write was acknowledged first since this was set to 0, Unix nanoseconds
	lost                     atomic.Int64 // acknowledged writes that a later one shows to be gone
	mu                       sync.Mutex
	firstUnexpected          string
}

func startLoad(t testing.TB, c *cluster, writers, readers int) *load {
	l := &load{stop: make(chan struct{}), acked: make([]atomic.Int64, writers)}
	ctx := context.Background()
	r := c.client(t, func(o *redis.Options) { o.PoolSize = writers + readers; o.ReadTimeout = 20 * time.Second })
	for i := range writers {
		l.wg.Go(func() {
			last := time.Now()
			for l.running() {
				v, err := r.Incr(ctx, fmt.Sprint("counter", i)).Result()
				switch {
				case err == nil:
					if prev := l.acked[i].Swap(v); v <= prev { // nobody else writes it
						l.lost.Add(prev - v + 1)
					}
					l.writes.Add(1)
					now := time.Now()
					if l.firstAck.Load() == 0 {
						l.firstAck.CompareAndSwap(0, now.UnixNano())
					}
					if d := int64(now.Sub(last)); d > l.longest.Load() {
						l.longest.Store(d)
					}
					last = now
				case strings.HasPrefix(err.Error(), "SLUICE_UNCERTAIN "):
					l.uncertain.Add(1)
				default:
					l.note(err)
				}
			}
		})
	}
	for i := range readers {
		l.wg.Go(func() {
			var seen int64
			for l.running() {
				floor := l.acked[i%writers].Load()
				v, err := r.Get(ctx, fmt.Sprint("counter", i%writers)).Int64()
				switch {
				case err != nil && (!errors.Is(err, redis.Nil) || floor > 0):
					l.note(err)
				case v < floor:
					l.note(fmt.Errorf("stale: read %d after %d was acknowledged", v, floor))
				case v < seen:
					l.note(fmt.Errorf("not monotonic: read %d after %d", v, seen))
				default:
					seen = v
					l.reads.Add(1)
				}
			}
		})
	}
	return l
}

func (l *load) running() bool {
	select {
	case <-l.stop:
		return false
	default:
		return true
	}
}

func (l *load) note(err error) {
	if l.unexpected.Add(1) == 1 {
		l.mu.Lock()
		l.firstUnexpected = err.Error()
		l.mu.Unlock()
	}
}

func (l *load) end(t testing.TB) {
	t.Helper()
	close(l.stop)
	l.wg.Wait()
	t.Logf("%d writes, %d uncertain, %d lost, %d reads; longest time without a write of one writer %v",
		l.writes.Load(), l.uncertain.Load(), l.lost.Load(), l.reads.Load(), time.Duration(l.longest.Load()))
	if n := l.unexpected.Load(); n > 0 {
		t.Errorf("%d unexpected errors, the first: %s", n, l.firstUnexpected)
	}
}

func redisDo(t testing.TB, s *localredis.Server, words ...string) {
	t.Helper()
	if got, err := localredis.Do(s.Addr(), words...); err != nil || strings.HasPrefix(got, "-") {
		t.Fatalf("%v: %q, %v", words, got, err)
	}
}

func masterIs(s *localredis.Server) func(proxy.Status) bool {
	return func(st proxy.Status) bool {
		return st.Ready && len(st.Nodes) > 0 && st.Nodes[0].Address == s.Addr() && st.Nodes[0].Role == "master"
	}
}

// TestManualFailover kills the master under load; somebody promotes a replica
// and repoints the other. Clients see nothing but what is truly uncertain.
func TestManualFailover(t *testing.T) {
	c := newCluster(t, 2, nil)
	l := startLoad(t, c, 10, 10)
	awaitCount(t, &l.writes, 500)
	// Nothing that was acknowledged may be lost here, so that the counters can
	// be judged: let the new master have everything before the old one dies.
	redisDo(t, c.master, "CLIENT", "PAUSE", "60000", "WRITE")
	c.sync(t)
	c.master.Kill()
	redisDo(t, c.replicas[0], "REPLICAOF", "NO", "ONE")
	redisDo(t, c.replicas[1], "REPLICAOF", "127.0.0.1", fmt.Sprint(c.replicas[0].Port()))
	c.await(t, "the new master", masterIs(c.replicas[0]))
	awaitCount(t, &l.writes, l.writes.Load()+500)
	c.await(t, "the other replica's return", func(s proxy.Status) bool { return readable(s) == 1 })
	awaitCount(t, &l.reads, l.reads.Load()+500)
	l.end(t)
	if n := l.uncertain.Load(); n > 10 {
		t.Errorf("%d uncertain writes of 10 writers, at most one each was in flight", n)
	}
	r := dialRaw(t, c.replicas[0].Addr())
	for i := range l.acked {
		r.cmd("GET", fmt.Sprint("counter", i))
		var n, v int64
		got, err := r.reply()
		if _, serr := fmt.Sscanf(got, "$%d\r\n%d\r\n", &n, &v); err != nil || serr != nil || v < l.acked[i].Load() {
			t.Errorf("counter%d is %q on the new master, %d was acknowledged", i, got, l.acked[i].Load())
		}
	}
}

// TestDemotedMasterIsNotWrittenTo makes the master a replica while it lives: what
// it refuses by READONLY runs on the new master.
func TestDemotedMasterIsNotWrittenTo(t *testing.T) {
	c := newCluster(t, 1, nil)
	l := startLoad(t, c, 8, 4)
	awaitCount(t, &l.writes, 300)
	redisDo(t, c.master, "CLIENT", "PAUSE", "60000", "WRITE")
	c.sync(t)
	redisDo(t, c.replicas[0], "REPLICAOF", "NO", "ONE")
	redisDo(t, c.master, "REPLICAOF", "127.0.0.1", fmt.Sprint(c.replicas[0].Port()))
	redisDo(t, c.master, "CLIENT", "UNPAUSE")
	c.await(t, "the new master", masterIs(c.replicas[0]))
	awaitCount(t, &l.writes, l.writes.Load()+300)
	l.end(t)
}

// A client whose write waits for a master is not idle.
func TestHeldClientIsNotIdle(t *testing.T) {
	c := newCluster(t, 1, func(o *proxy.Options) {
		oneLoop(o)
		o.IdleTimeout, o.FailoverHold = 2*time.Second, time.Minute
	})
	r := dialRaw(t, c.addr)
	c.master.Kill()
	c.await(t, "the loss of the master", func(s proxy.Status) bool { return !s.Ready })
	r.cmd("SET", "k", "v")
	idle := dialRaw(t, c.addr) // which has been idle for less long
	idle.closedAfter("")
	redisDo(t, c.replicas[0], "REPLICAOF", "NO", "ONE")
	r.expect("+OK\r\n")
}
