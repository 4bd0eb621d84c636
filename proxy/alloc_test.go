//go:build !race

package proxy_test

import (
	"bytes"
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
					if n != 0 {
						t.Errorf("%v allocations in %d pipelines of %d, want 0", n, rounds, depth)
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
