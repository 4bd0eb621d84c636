package proxy_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// readers read all the time, and note how long they had to wait.
type readers struct {
	stop    chan struct{}
	wg      sync.WaitGroup
	reads   atomic.Int64
	longest atomic.Int64 // nanoseconds
	mu      sync.Mutex
	err     error
}

func (c *cluster) startReaders(t testing.TB, addr string, n int) *readers {
	r := &readers{stop: make(chan struct{})}
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1, PoolSize: n, ReadTimeout: 30 * time.Second})
	t.Cleanup(func() { _ = client.Close() })
	for i := range n {
		r.wg.Go(func() {
			for r.running() {
				began := time.Now()
				if got, err := client.Get(context.Background(), "k").Result(); err != nil || got != "v" {
					r.mu.Lock()
					r.err = fmt.Errorf("reader %d: %q, %w", i, got, err)
					r.mu.Unlock()
					return
				}
				r.reads.Add(1)
				took := int64(time.Since(began))
				for old := r.longest.Load(); old < took && !r.longest.CompareAndSwap(old, took); old = r.longest.Load() {
				}
				time.Sleep(time.Millisecond) // a load, not as much as the machine can
			}
		})
	}
	return r
}

func (r *readers) running() bool {
	select {
	case <-r.stop:
		return false
	default:
		return true
	}
}

func (r *readers) end(t testing.TB) {
	close(r.stop)
	r.wg.Wait()
	if r.err != nil {
		t.Error(r.err)
	}
}

// stalls returns how often reads were taken from a replica.
func stalls(t testing.TB, reg *prometheus.Registry, s *localredis.Server) float64 {
	t.Helper()
	return metric(t, reg, "sluice_proxy_replica_stalls_total", s.Addr())
}

// TestFrozenReplicaLosesItsReads: the observers are told to wait for half a
// minute, so what answers the reads is the watch of the loops alone.
func TestFrozenReplicaLosesItsReads(t *testing.T) {
	for _, test := range []struct {
		mode     proxy.Consistency
		replicas int // with one, the master must answer
	}{{proxy.ConsistencyEventual, 2}, {proxy.ConsistencyCausal, 2}, {proxy.ConsistencyLinearizable, 2}, {proxy.ConsistencyEventual, 1}} {
		t.Run(fmt.Sprintf("%s of %d", test.mode, test.replicas), func(t *testing.T) {
			reg := prometheus.NewRegistry()
			c := newCluster(t, test.replicas, func(o *proxy.Options) {
				o.Loops = 1
				o.Listeners[0].Consistency = test.mode
				o.HealthTimeout = 30 * time.Second
				o.Registerer = reg
			})
			dialRaw(t, c.addr).do("+OK\r\n", "SET", "k", "v")
			for _, s := range c.replicas {
				awaitReply(t, s.Addr(), "$1\r\nv\r\n", "GET", "k")
			}
			frozen := c.replicas[0]
			before := calls(t, frozen, "get")
			load := c.startReaders(t, c.addr, 8)
			for calls(t, frozen, "get") < before+100 {
				time.Sleep(time.Millisecond)
			}
			usual := time.Duration(load.longest.Swap(0))
			began := time.Now()
			if err := frozen.Signal(stopSignal); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = frozen.Signal(contSignal) })
			for deadline := began.Add(20 * time.Second); stalls(t, reg, frozen) == 0; {
				if time.Now().After(deadline) {
					t.Fatal("its reads stayed with it")
				}
				time.Sleep(time.Millisecond)
			}
			took := time.Since(began)
			for before := load.reads.Load(); load.reads.Load() < before+500; {
				time.Sleep(time.Millisecond)
			}
			longest := time.Duration(load.longest.Swap(0))
			t.Logf("out after %v; the longest read took %v, before that %v", took.Round(time.Millisecond), longest.Round(time.Millisecond), usual.Round(time.Millisecond))
			if longest > 10*time.Second {
				t.Errorf("a read took %v", longest)
			}

			if err := frozen.Signal(contSignal); err != nil {
				t.Fatal(err)
			}
			began = time.Now()
			all := load.reads.Load()
			for before := calls(t, frozen, "get"); calls(t, frozen, "get") < before+100; {
				if time.Since(began) > 20*time.Second {
					t.Fatal("it gets no reads any more")
				}
				time.Sleep(time.Millisecond)
			}
			all = load.reads.Load() - all
			t.Logf("read again; 100 of %d reads within %v", all, time.Since(began).Round(time.Millisecond))
			load.end(t)
		})
	}
}

// TestSlowReadIsNotChased: a read that takes long by itself runs on a second
// node, and no further.
func TestSlowReadIsNotChased(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 2, func(o *proxy.Options) {
		o.Loops = 1
		o.Listeners[0].Consistency = proxy.ConsistencyEventual
		o.HealthTimeout = 30 * time.Second
		o.Registerer = reg
	}, "--enable-debug-command", "local")
	r := dialRaw(t, c.addr)
	// A script that only reads, for longer than any patience.
	const slow = "local t = redis.call('TIME'); local e = t[1]*1000000+t[2]+1000000; repeat t = redis.call('TIME') until t[1]*1000000+t[2] > e; return 7"
	r.do(":7\r\n", "EVAL_RO", slow, "1", "k")
	ran, left := 0, 0.0
	for _, s := range c.replicas {
		ran += calls(t, s, "eval_ro")
		left += stalls(t, reg, s)
	}
	t.Logf("it ran %d times on replicas; %v times reads were taken from one", ran, left)
	if ran > 2 || left > 1 {
		t.Errorf("it ran on %d replicas, %v of which had their reads taken", ran, left)
	}
}
