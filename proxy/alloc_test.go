//go:build !race

package proxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
)

// exchange sends one prepared pipeline and reads its replies, whose length is
// known. It allocates nothing itself.
type exchange struct {
	conn          net.Conn
	request, want []byte
	reply         []byte
}

func newExchange(t testing.TB, addr string, depth int, reply string, args ...string) *exchange {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	e := &exchange{
		conn:    c,
		request: bytes.Repeat(resp.AppendCommand(nil, args...), depth),
		want:    bytes.Repeat([]byte(reply), depth),
	}
	e.reply = make([]byte, len(e.want))
	return e
}

func (e *exchange) run(t testing.TB) {
	if _, err := e.conn.Write(e.request); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(e.conn, e.reply); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(e.reply, e.want) {
		t.Fatalf("replies %q, want %q", e.reply, e.want)
	}
}

// quietCluster is one loop in front of a master and a replica that have been
// looked at once and are not observed again while a test runs: the observers
// allocate, and so does what logs.
func quietCluster(t testing.TB, consistency proxy.Consistency) *cluster {
	return newCluster(t, 1, func(o *proxy.Options) {
		o.Loops, o.Logger = 1, nil
		o.ObserveEvery, o.DiscoverEvery = time.Hour, time.Hour
		o.Listeners[0].Consistency = consistency
	})
}

// allocations returns how many allocations this process makes in n runs of e: the
// fewest of several tries, since what else the process does now and then, such as
// asking a node for its offset, allocates too. What each run, or each of a few,
// allocates is in every try. ([testing.AllocsPerRun] would leave the loop and its
// client one processor of the scheduler between them.)
func allocations(t testing.TB, n int, e *exchange) uint64 {
	var before, after runtime.MemStats
	fewest := uint64(math.MaxUint64)
	for try := 0; try < 20 && fewest > 0; try++ {
		runtime.ReadMemStats(&before)
		for range n {
			e.run(t)
		}
		runtime.ReadMemStats(&after)
		fewest = min(fewest, after.Mallocs-before.Mallocs)
	}
	return fewest
}

// TestNoAllocationPerCommand counts all allocations of this process while
// commands take the real path: client, loop, redis-server and back.
func TestNoAllocationPerCommand(t *testing.T) {
	for _, consistency := range proxy.Consistencies() {
		t.Run(string(consistency), func(t *testing.T) {
			c := quietCluster(t, consistency)
			dialRaw(t, c.addr).do("+OK\r\n", "SET", "k", "v")
			awaitReply(t, c.replicas[0].Addr(), "$1\r\nv\r\n", "GET", "k")
			for _, depth := range []int{1, 16} {
				for _, e := range []*exchange{
					newExchange(t, c.addr, depth, "$1\r\nv\r\n", "GET", "k"),
					newExchange(t, c.addr, depth, "+OK\r\n", "SET", "k", "v"),
				} {
					for range 200 { // buffers and free lists reach their sizes
						e.run(t)
					}
					const rounds = 100
					allowed := uint64(0)
					if consistency == proxy.ConsistencyLinearizable {
						// A read waits for a sample, so a try takes long enough for what
						// the sampler asks each second. One per pipeline would be ten
						// times that.
						allowed = 10
					}
					if n := allocations(t, rounds, e); n > allowed {
						t.Errorf("%.3s P=%d: %d allocations in %d pipelines, want %d", e.request[8:], depth, n, rounds, allowed)
					}
				}
			}
		})
	}
}

// BenchmarkProxyGet measures one client; b.N counts commands.
func BenchmarkProxyGet(b *testing.B) {
	c := quietCluster(b, proxy.ConsistencyEventual)
	dialRaw(b, c.addr).do("+OK\r\n", "SET", "k", "v")
	awaitReply(b, c.replicas[0].Addr(), "$1\r\nv\r\n", "GET", "k")
	for _, depth := range []int{1, 16} {
		b.Run(fmt.Sprint("P=", depth), func(b *testing.B) {
			e := newExchange(b, c.addr, depth, "$1\r\nv\r\n", "GET", "k")
			b.ReportAllocs()
			for i := 0; i < b.N; i += depth {
				e.run(b)
			}
		})
	}
}

// BenchmarkProxyGetTLS is BenchmarkProxyGet for a client with TLS.
func BenchmarkProxyGetTLS(b *testing.B) {
	p := newPKI(b)
	c := newCluster(b, 1, func(o *proxy.Options) {
		o.Loops, o.Logger = 1, nil
		o.ObserveEvery, o.DiscoverEvery = time.Hour, time.Hour
		o.Listeners[0].Consistency, o.Listeners[0].TLS = proxy.ConsistencyEventual, p.listener()
	})
	awaitReply(b, c.master.Addr(), "+OK\r\n", "SET", "k", "v")
	awaitReply(b, c.replicas[0].Addr(), "$1\r\nv\r\n", "GET", "k")
	for _, depth := range []int{1, 16} {
		b.Run(fmt.Sprint("P=", depth), func(b *testing.B) {
			cfg := p.dialer()
			cfg.ServerName = "localhost"
			conn, err := tls.Dial("tcp", c.addr, cfg)
			if err != nil {
				b.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			want := bytes.Repeat([]byte("$1\r\nv\r\n"), depth)
			e := &exchange{
				conn: conn, want: want, reply: make([]byte, len(want)),
				request: bytes.Repeat(resp.AppendCommand(nil, "GET", "k"), depth),
			}
			b.ReportAllocs()
			for i := 0; i < b.N; i += depth {
				e.run(b)
			}
		})
	}
}
