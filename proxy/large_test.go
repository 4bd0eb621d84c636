package proxy_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
)

// largeSize is how many bytes the values of these tests have.
func largeSize() int {
	if longRun() {
		return 512 << 20
	}
	return 64 << 20
}

// pattern is a value of any length that is made and compared piece by piece; its
// period fits no buffer's size.
var pattern = func() []byte {
	b := make([]byte, 1<<20-3)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}()

// sendPattern writes the bytes of the repeated pattern from one position to
// another.
func sendPattern(w io.Writer, from, to int) error {
	for from < to {
		p := pattern[from%len(pattern):]
		n, err := w.Write(p[:min(len(p), to-from)])
		if err != nil {
			return err
		}
		from += n
	}
	return nil
}

// slowClient reads one value of the pattern as slowly as it is told to.
type slowClient struct {
	t    testing.TB
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
	pos  int
}

func dialSlow(t testing.TB, addr string) *slowClient {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(4 * time.Minute))
	return &slowClient{t: t, conn: conn, r: bufio.NewReaderSize(conn, 64<<10), buf: make([]byte, 64<<10)}
}

func (c *slowClient) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads exactly this.
func (c *slowClient) expect(text string) {
	c.t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(c.r, got); err != nil || string(got) != text {
		c.t.Fatalf("reply %q, %v; want %q", got[:n], err, text)
	}
}

// value reads a part of the value; the first is begun with its header.
func (c *slowClient) value(n int) {
	c.t.Helper()
	for n > 0 {
		b := c.buf[:min(n, len(c.buf))]
		if _, err := io.ReadFull(c.r, b); err != nil {
			c.t.Fatalf("value ends at byte %d: %v", c.pos, err)
		}
		for rest := b; len(rest) > 0; {
			want := pattern[c.pos%len(pattern):]
			k := min(len(rest), len(want))
			if !bytes.Equal(rest[:k], want[:k]) {
				c.t.Fatalf("value differs between bytes %d and %d", c.pos, c.pos+k)
			}
			rest, c.pos = rest[k:], c.pos+k
		}
		n -= len(b)
	}
}

// whole reads a reply that is the value.
func (c *slowClient) whole(size int) {
	c.t.Helper()
	c.expect(fmt.Sprintf("$%d\r\n", size))
	c.pos = 0
	c.value(size)
	c.expect("\r\n")
}

// upload sets key to the pattern.
func (c *slowClient) upload(key string, size int) {
	c.t.Helper()
	c.send(fmt.Sprintf("*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n", len(key), key, size))
	if err := sendPattern(c.conn, 0, size); err != nil {
		c.t.Fatal(err)
	}
	c.send("\r\n")
	c.expect("+OK\r\n")
}

// others are a session that goes on, on the same loop, whatever large values do.
type others struct {
	*raw
	longest time.Duration
	n       int
}

func (c *cluster) others(t testing.TB) *others {
	r := dialRaw(t, c.addr)
	_ = r.SetDeadline(time.Now().Add(4 * time.Minute))
	return &others{raw: r}
}

func (o *others) work(rounds int) {
	o.t.Helper()
	for range rounds {
		o.n++
		v := strconv.Itoa(o.n)
		for _, cmd := range []struct{ want, args string }{
			{"+OK\r\n", "SET k " + v}, {fmt.Sprintf("$%d\r\n%s\r\n", len(v), v), "GET k"},
		} {
			began := time.Now()
			o.do(cmd.want, strings.Fields(cmd.args)...)
			o.longest = max(o.longest, time.Since(began))
		}
	}
}

// untilDetached works until n large replies have taken their connections.
func (o *others) untilDetached(reg *prometheus.Registry, n int) {
	o.t.Helper()
	for deadline := time.Now().Add(time.Minute); metricSum(o.t, reg, "sluice_proxy_detached_total") < int64(n); {
		if time.Now().After(deadline) {
			o.t.Fatalf("%d large replies have not taken their connections", n)
		}
		o.work(5)
	}
}

// largeCluster is one loop in front of a master and n replicas that take a
// stream of any size.
func largeCluster(t testing.TB, n int, set func(*proxy.Options)) (*cluster, *prometheus.Registry) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, n, func(o *proxy.Options) {
		o.Loops, o.Registerer = 1, reg
		o.HealthTimeout = time.Minute // copying half a gigabyte keeps Redis from all else
		o.MaxLag, o.MaxLagBytes = time.Hour, 1<<40
		if set != nil {
			set(o)
		}
	}, "--client-output-buffer-limit", "replica 0 0 0")
	return c, reg
}

// heldBytes is what servers keep for clients that do not take it.
func (c *cluster) heldBytes(t testing.TB) (sum int) {
	for _, s := range append(c.replicas[:len(c.replicas):len(c.replicas)], c.master) {
		r := dialRaw(t, s.Addr())
		r.cmd("CLIENT", "LIST", "TYPE", "normal")
		list, err := r.reply()
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(` omem=(\d+) `).FindAllStringSubmatch(list, -1) {
			n, _ := strconv.Atoi(m[1])
			sum += n
		}
		_ = r.Close()
	}
	return sum
}

// TestLargeValues: a value is set and then read by a client that takes its time,
// while another works on.
func TestLargeValues(t *testing.T) {
	for _, test := range []struct {
		name     string
		replicas int
		mode     proxy.Consistency
	}{{"master", 0, proxy.ConsistencyCausal}, {"replica", 1, proxy.ConsistencyCausal}} {
		t.Run(test.name, func(t *testing.T) {
			c, reg := largeCluster(t, test.replicas, func(o *proxy.Options) { o.Listeners[0].Consistency = test.mode })
			size := largeSize()
			other := c.others(t)
			other.work(20)
			memory := watchMemory(t)
			slow := dialSlow(t, c.addr)
			slow.send(fmt.Sprintf("*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$%d\r\n", size))
			const parts = 16
			for i := range parts {
				if err := sendPattern(slow.conn, i*size/parts, (i+1)*size/parts); err != nil {
					t.Fatal(err)
				}
				other.work(5)
			}
			slow.send("\r\n")
			slow.expect("+OK\r\n")
			c.sync(t)
			t.Logf("SET: %s; longest answer to others %v", memory, other.longest)

			before := calls(t, c.master, "get")
			slow.send("GET big\r\n")
			other.untilDetached(reg, 1)
			other.work(100) // nothing of the value has been taken so far
			slow.expect(fmt.Sprintf("$%d\r\n", size))
			slow.pos = 0
			for i := range parts {
				slow.value((i+1)*size/parts - i*size/parts)
				other.work(5)
			}
			slow.expect("\r\n")
			slow.send("GET k\r\nPING\r\n")
			slow.expect(fmt.Sprintf("$%d\r\n%d\r\n+PONG\r\n", len(strconv.Itoa(other.n)), other.n))
			t.Logf("SET and GET of %d MB: %s; longest answer to others %v; %d GETs at the master",
				size>>20, memory, other.longest, calls(t, c.master, "get")-before)
			memory.check(min(size/2, 64<<20))
			if other.longest > 20*time.Second {
				t.Errorf("another session waited %v", other.longest)
			}
		})
	}
}

// Several clients ask for large values and take none, also several in one
// pipeline, some of them from other connections; then all take theirs.
func TestSeveralLargeValuesAtOnce(t *testing.T) {
	c, reg := largeCluster(t, 1, nil)
	const clients = 6
	size := largeSize() / 8
	other := c.others(t)
	first := dialSlow(t, c.addr)
	first.upload("big", size)
	c.sync(t)
	other.work(5)
	memory := watchMemory(t)
	var all []*slowClient
	for range clients {
		s := dialSlow(t, c.addr)
		all = append(all, s)
		s.send("GET big\r\nGET missing\r\nDBSIZE\r\nGET big\r\nDBSIZE\r\nGET big\r\nPING\r\n")
	}
	other.untilDetached(reg, clients)
	other.work(50)
	for _, s := range all {
		s.whole(size)
		other.work(2)
	}
	for _, s := range all {
		s.expect("$-1\r\n:2\r\n")
		s.whole(size)
		s.expect(":2\r\n")
		s.whole(size)
		s.expect("+PONG\r\n")
	}
	other.work(5)
	t.Logf("%d clients with three values of %d MB: %s; longest answer to others %v; %v connections detached",
		clients, size>>20, memory, other.longest, metricSum(t, reg, "sluice_proxy_detached_total"))
	memory.check(64 << 20)
}

// What others have asked for behind a large reply comes without it, and what
// the same client has asked for comes behind it.
func TestReadsBehindALargeValue(t *testing.T) {
	c, reg := largeCluster(t, 0, nil)
	size := 16 << 20
	slow, other, third := dialSlow(t, c.addr), c.others(t), dialRaw(t, c.addr)
	slow.upload("big", size)
	other.work(5)
	third.do(":2\r\n", "DBSIZE")
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.master.Signal(contSignal) }()
	slow.send("GET big\r\n")
	other.rounds(5)
	third.send("GET k\r\nDBSIZE\r\n")
	other.rounds(5)
	slow.send("GET k\r\n")
	other.rounds(5)
	third.send("STRLEN big\r\n")
	other.rounds(5)
	before := metricSum(t, reg, "sluice_proxy_routed_total")
	_ = c.master.Signal(contSignal)
	third.expect("$1\r\n5\r\n")
	third.expect(":2\r\n")
	third.expect(fmt.Sprintf(":%d\r\n", size))
	if n := metricSum(t, reg, "sluice_proxy_routed_total") - before; n != 3 {
		t.Errorf("%v commands were sent again, want the 3 of the other client", n)
	}
	other.work(20)
	slow.whole(size)
	slow.expect("$1\r\n5\r\n")
	slow.send("PING\r\n")
	slow.expect("+PONG\r\n")
}

// A client that leaves in the middle takes its connection with it, and one whose
// node is lost is told by the end of its own.
func TestEndInTheMiddleOfALargeValue(t *testing.T) {
	c, reg := largeCluster(t, 1, nil)
	size := largeSize() / 4
	other := c.others(t)
	s := dialSlow(t, c.addr)
	s.upload("big", size)
	c.sync(t)
	for i := range 3 {
		s := dialSlow(t, c.addr)
		s.send("GET big\r\nGET big\r\n")
		other.untilDetached(reg, i+1)
		s.expect(fmt.Sprintf("$%d\r\n", size))
		s.value(size / 3)
		_ = s.conn.Close()
	}
	for deadline := time.Now().Add(20 * time.Second); c.heldBytes(t) > 0; other.work(5) {
		if time.Now().After(deadline) {
			t.Fatalf("the nodes keep %d bytes for clients that are gone", c.heldBytes(t))
		}
	}
	c.warm(t, other.raw) // a replica that was slow for a moment has reads again: the value is to come from it
	s.send("GET big\r\n")
	other.untilDetached(reg, 4)
	if c.heldBytes(t) == 0 {
		t.Fatal("no node keeps the rest of the value: the test tests nothing")
	}
	c.replicas[0].Stop()
	c.await(t, "the loss of the replica", func(s proxy.Status) bool { return readable(s) == 0 })
	if n, err := io.Copy(io.Discard, s.r); err != nil || n == 0 || n >= int64(size) {
		t.Errorf("%d bytes of a reply whose node is lost, %v; want a part of it and the end", n, err)
	}
	other.work(20)
}

// A planned failover does not wait for a client that is slow to take what the
// old master has answered, and does not take it away.
func TestPlannedFailoverDuringALargeValue(t *testing.T) {
	c, reg := largeCluster(t, 1, func(o *proxy.Options) {
		o.Listeners[0].Consistency = proxy.ConsistencyMaster
		o.HealthTimeout = 5 * time.Second
	})
	size := 32 << 20
	other := c.others(t)
	s := dialSlow(t, c.addr)
	s.upload("big", size)
	other.work(5)
	s.send("GET big\r\n")
	other.untilDetached(reg, 1)
	c.switchTo(t, c.replicas[0])
	other.work(20)
	s.whole(size)
	s.send("GET k\r\n")
	s.expect(fmt.Sprintf("$%d\r\n%d\r\n", len(strconv.Itoa(other.n)), other.n))
}

// A large reply on the connection for writes is no different, as long as nobody
// else's writes stand behind it.
func TestLargeReplyToAWrite(t *testing.T) {
	c, reg := largeCluster(t, 0, func(o *proxy.Options) { o.OutputHardLimit = 8 << 20 })
	size := 32 << 20
	s := dialSlow(t, c.addr)
	s.upload("big", size)
	s.send("GETSET big x\r\nSET y z\r\nGET y\r\n")
	for deadline := time.Now().Add(time.Minute); metricSum(t, reg, "sluice_proxy_detached_total") == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the reply has not taken its connection")
		}
		time.Sleep(time.Millisecond)
	}
	other := c.others(t)
	other.work(50)
	other.do("$1\r\nx\r\n", "GET", "big")
	s.whole(size)
	s.expect("+OK\r\n$1\r\nz\r\n")
	other.work(5)
}

// Where others' writes do stand behind it, it is taken up to the limit; then it
// is the slow client that goes, and not its reply that keeps them.
func TestLargeReplyBeforeOthersWritesIsBounded(t *testing.T) {
	c, reg := largeCluster(t, 0, func(o *proxy.Options) { o.OutputHardLimit = 8 << 20 })
	other := c.others(t)
	s := dialSlow(t, c.addr)
	s.upload("big", 32<<20)
	other.work(5)
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.master.Signal(contSignal) }()
	s.send("GETSET big x\r\n")
	other.rounds(5)
	second := dialRaw(t, c.addr)
	second.send("INCR n\r\n")
	other.rounds(5)
	_ = c.master.Signal(contSignal)
	second.expect(":1\r\n")
	for deadline := time.Now().Add(time.Minute); metricSum(t, reg, "sluice_proxy_clients_dropped_total") == 0; other.work(5) {
		if time.Now().After(deadline) {
			t.Fatal("the client was not closed")
		}
	}
	if n, err := io.Copy(io.Discard, s.r); n >= 32<<20 {
		t.Errorf("%d bytes of the reply, %v", n, err)
	}
	other.work(20)
	other.do("$1\r\nx\r\n", "GET", "big")
	other.do("$1\r\n1\r\n", "GET", "n")
}

// A client that asks for many small values and takes none is not read on, so
// that it costs a few megabytes; nobody waits for it.
func TestManySmallRepliesAreBounded(t *testing.T) {
	c, reg := largeCluster(t, 1, nil)
	other := c.others(t)
	other.work(5)
	other.do("+OK\r\n", "SET", "small", strings.Repeat("s", 10_000))
	c.sync(t)
	memory := watchMemory(t)
	s := dialSlow(t, c.addr)
	const n = 10_000 // 100 MB of replies
	sent := make(chan error, 1)
	go func() {
		_, err := io.WriteString(s.conn, strings.Repeat("GET small\r\n", n))
		sent <- err
	}()
	other.work(200)
	want := fmt.Sprintf("$10000\r\n%s\r\n", strings.Repeat("s", 10_000))
	for range n {
		s.expect(want)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
	memory.check(32 << 20)
	if d := metricSum(t, reg, "sluice_proxy_detached_total"); d != 0 {
		t.Errorf("%v connections were detached for small replies", d)
	}
}

// memory is what this process, and the proxy in it, has taken at most since the
// beginning of a test.
type memory struct {
	t        testing.TB
	baseline int // bytes
}

func watchMemory(t testing.TB) memory {
	t.Helper()
	debug.FreeOSMemory()
	_ = os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) // the peak begins anew, see proc(5)
	m := memory{t: t}
	m.baseline = m.peak()
	return m
}

// peak returns the most that was resident, in bytes above the beginning; 0
// where the system does not tell.
func (m memory) peak() int {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	f := regexp.MustCompile(`(?m)^VmHWM:\s+(\d+) kB$`).FindSubmatch(b)
	if f == nil {
		return 0
	}
	kb, _ := strconv.Atoi(string(f[1]))
	return kb<<10 - m.baseline
}

// String gives the peak for people.
func (m memory) String() string {
	return fmt.Sprintf("%.1f MB above the %.1f MB before", float64(m.peak())/(1<<20), float64(m.baseline)/(1<<20))
}

// check fails the test if more than limit was taken. The race detector's own
// memory is not counted against it.
func (m memory) check(limit int) {
	m.t.Helper()
	if n := m.peak(); !raceEnabled && n > limit {
		m.t.Errorf("%s, want %d MB at most", m, limit>>20)
	}
}
