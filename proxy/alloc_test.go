//go:build !race

package proxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
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

// TestNoAllocationPerCommand counts all allocations of this process while
// commands take the real path: client, loop, redis-server and back.
func TestNoAllocationPerCommand(t *testing.T) {
	for _, consistency := range proxy.Consistencies() {
		c := quietCluster(t, consistency)
		dialRaw(t, c.addr).do("+OK\r\n", "SET", "k", "v")
		awaitReply(t, c.replicas[0].Addr(), "$1\r\nv\r\n", "GET", "k")
		background := 0.0
		if consistency == proxy.ConsistencyLinearizable {
			// A read waits for a sample, so a run takes long enough for what the
			// sampler asks each second. One per pipeline would be ten times that.
			background = 10
		}
		for _, depth := range []int{1, 16} {
			for _, e := range []*exchange{
				newExchange(t, c.addr, depth, "$1\r\nv\r\n", "GET", "k"),
				newExchange(t, c.addr, depth, "+OK\r\n", "SET", "k", "v"),
			} {
				name := fmt.Sprintf("%s/%.3s P=%d", consistency, e.request[8:], depth)
				t.Run(name, func(t *testing.T) {
					for range 200 { // buffers and free lists reach their sizes
						e.run(t)
					}
					const rounds = 100 // AllocsPerRun rounds down: less than one in so many would pass
					n := testing.AllocsPerRun(20, func() {
						for range rounds {
							e.run(t)
						}
					})
					if n > background {
						t.Errorf("%v allocations in %d pipelines of %d, want %v", n, rounds, depth, background)
					}
				})
			}
		}
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
