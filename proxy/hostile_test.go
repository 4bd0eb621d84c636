package proxy_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/localredis"
)

// oneLoop has all clients on one loop, so that who blocks it blocks all.
func oneLoop(o *proxy.Options) { o.Loops = 1 }

// rounds makes the loop, which must be the only one, turn n times at least:
// what was sent before has been read by then.
func (r *raw) rounds(n int) {
	r.t.Helper()
	for range n {
		r.do("$1\r\nx\r\n", "ECHO", "x") // answered by the proxy itself
	}
}

func TestMalformedEndOfALargeRequest(t *testing.T) {
	c := newCluster(t, 0, oneLoop)
	r := dialRaw(t, c.addr)
	body := strings.Repeat("x", 1_500_000)
	r.send("*4\r\n$3\r\nSET\r\n$1\r\nk\r\n$1500000\r\n" + body + "\r\n!2\r\n")
	r.closedAfter("-ERR Protocol error: expected '$', got '!'\r\n")
	dialRaw(t, c.addr).do("$-1\r\n", "GET", "k")
}

// A large request goes on to the node as it comes; the proxy does not collect it.
func TestLargeRequestIsPassedOnAsItComes(t *testing.T) {
	c := newCluster(t, 0, oneLoop)
	r, admin := dialRaw(t, c.addr), dialRaw(t, c.master.Addr())
	const size = 64 << 20
	r.send(fmt.Sprintf("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n%s", size, strings.Repeat("x", size/2)))
	for deadline := time.Now().Add(10 * time.Second); ; {
		admin.cmd("CLIENT", "LIST")
		list, err := admin.reply()
		if err != nil {
			t.Fatal(err)
		}
		if regexp.MustCompile(` qbuf=[1-9]\d{7} `).MatchString(list) { // ten megabytes and more have arrived there
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("32 MB of a request have been sent, and no connection of the master has 10 MB of it:\n%s", list)
		}
	}
	r.send(strings.Repeat("y", size/2) + "\r\n")
	r.expect("+OK\r\n")
	r.do(fmt.Sprintf(":%d\r\n", size), "STRLEN", "k")
}

func TestDeniedCommandBehindALargeHeader(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) {
		oneLoop(o)
		o.DeniedCommands = []string{"del", "config|set"}
	})
	other := dialRaw(t, c.addr)
	other.do("+OK\r\n", "SET", "k", "v")
	for _, begin := range []string{"$3\r\nDEL\r\n$1\r\nk\r\n", "$6\r\nCONFIG\r\n$3\r\nSET\r\n"} {
		r := dialRaw(t, c.addr)
		r.send("*300001\r\n") // so many that the request is streamed
		other.rounds(3)
		for _, b := range []byte(begin) {
			r.send(string(b))
			other.rounds(2)
		}
		go func() {
			for range 300_001 {
				if _, err := io.WriteString(r.Conn, "$1\r\nk\r\n"); err != nil {
					return
				}
			}
		}()
		if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-SLUICE_DENIED ") {
			t.Fatalf("%.20q: %q, %v", begin, got, err)
		}
	}
	other.do("$1\r\nv\r\n", "GET", "k")
}

// A subscriber that does not read must be Redis's concern, with Redis's limit
// for it, not grow in the proxy.
func TestSlowSubscriberIsHeldBack(t *testing.T) {
	c := newCluster(t, 0, oneLoop, "--client-output-buffer-limit", "pubsub 4mb 4mb 60")
	slow, good := dialRaw(t, c.addr), dialRaw(t, c.addr)
	slow.do("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	message := strings.Repeat("m", 100_000)
	sent := 0
	for receivers := ":1\r\n"; receivers == ":1\r\n"; sent++ {
		if sent == 1000 {
			t.Fatal("100 MB have been published and Redis has not disconnected the subscriber: the proxy takes it all")
		}
		good.cmd("PUBLISH", "a", message)
		var err error
		if receivers, err = good.reply(); err != nil {
			t.Fatal(err)
		}
	}
	// What had been on its way is still delivered, in order, and then the end.
	want := fmt.Sprintf("*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$100000\r\n%s\r\n", message)
	n := 0
	for ; ; n++ {
		got, err := slow.reply()
		if err != nil {
			break
		}
		if got != want {
			t.Fatalf("message %d is %.60q", n, got)
		}
	}
	if n == 0 || n > sent {
		t.Errorf("%d of %d messages were delivered", n, sent)
	}
	good.do("+OK\r\n", "SET", "k", "v")
}

// cutter passes connections on to a server and can cut one in the middle of a
// large reply.
type cutter struct {
	ln   net.Listener
	mu   sync.Mutex
	left int // bytes that may still pass in a burst before the cut; 0: all may
	wg   sync.WaitGroup
}

func newCutter(t *testing.T) *cutter {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return &cutter{ln: ln}
}

func (k *cutter) port() string {
	_, port, _ := net.SplitHostPort(k.ln.Addr().String())
	return port
}

func (k *cutter) serve(t *testing.T, to string) {
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		_ = k.ln.Close()
		k.wg.Wait()
	})
	k.wg.Go(func() {
		for {
			in, err := k.ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			stop := context.AfterFunc(ctx, func() { _ = in.Close(); _ = out.Close() })
			k.wg.Go(func() { _, _ = io.Copy(out, in); _ = out.Close() })
			k.wg.Go(func() {
				defer stop()
				k.replies(in, out)
				_ = in.Close()
				_ = out.Close()
			})
		}
	})
}

// cutAfter has the next connection that passes more than n bytes at once cut.
func (k *cutter) cutAfter(n int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.left = n
}

// replies copies from the server. A small read is never cut: observers and
// samplers have connections too.
func (k *cutter) replies(in, out net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := out.Read(buf)
		if _, werr := in.Write(buf[:n]); err != nil || werr != nil {
			return
		}
		k.mu.Lock()
		cut := false
		if n == len(buf) && k.left > 0 {
			k.left -= n
			cut = k.left <= 0
			k.left = max(0, k.left)
		}
		k.mu.Unlock()
		if cut {
			return
		}
	}
}

// A read whose connection dies in the middle of a large reply, part of which
// waits here for its turn, must be answered anew, not in addition.
func TestHalfAReplyThatWaitsIsNotKept(t *testing.T) {
	k := newCutter(t)
	master := startRedis(t, localredis.Options{})
	replica := startRedis(t, localredis.Options{ReplicaOf: master,
		Args: []string{"--replica-announce-ip", "127.0.0.1", "--replica-announce-port", k.port()}})
	k.serve(t, replica.Addr())
	awaitInfo(t, replica, "master_link_status:up")
	srv, err := proxy.New(proxy.Options{
		Master: master.Addr(), Loops: 1, HealthTimeout: time.Minute,
		Listeners: []proxy.Listener{{Network: "tcp", Address: "127.0.0.1:0", Consistency: proxy.ConsistencyEventual}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := &cluster{master: master, replicas: []*localredis.Server{replica}, srv: srv, addr: srv.Addrs()[0].String()}
	t.Cleanup(func() {
		done, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_ = srv.Close(done)
	})
	c.await(t, "the replica", func(s proxy.Status) bool { return s.Ready && readable(s) == 1 })
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	var big strings.Builder
	for i := range 120_000 {
		fmt.Fprintf(&big, "%07d ", i)
	}
	r.do("+OK\r\n", "SET", "big", big.String())
	c.sync(t)
	r.do(":1\r\n", "DBSIZE")
	r.do(fmt.Sprintf("$%d\r\n%s\r\n", big.Len(), big.String()), "GET", "big")
	if calls(t, replica, "get") != 1 {
		t.Fatal("the read did not go to the replica: the test tests nothing")
	}
	k.cutAfter(300_000)
	if err := master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = master.Signal(contSignal) }()
	r.send("DBSIZE\r\nGET big\r\n") // the first waits for the master, the second comes from the replica
	for deadline := time.Now().Add(10 * time.Second); ; {
		k.mu.Lock()
		cut := k.left == 0
		k.mu.Unlock()
		if cut {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the connection was not cut")
		}
		other.rounds(1)
	}
	other.rounds(50)
	_ = master.Signal(contSignal)
	r.expect(":1\r\n")
	r.expect(fmt.Sprintf("$%d\r\n%s\r\n", big.Len(), big.String()))
	r.do("+PONG\r\n", "PING")
}

// Clients that end their side of the connection get all that is due first.
func TestHalfCloseGetsItsReplies(t *testing.T) {
	c := newCluster(t, 1, nil)
	dialRaw(t, c.addr).do("+OK\r\n", "SET", "k", "v")
	dialRaw(t, c.addr).do(":2\r\n", "RPUSH", "l", "a", "b")
	awaitReply(t, c.replicas[0].Addr(), ":2\r\n", "LLEN", "l")
	for _, tc := range []struct{ sent, want string }{
		{"GET k\r\n", "$1\r\nv\r\n"},
		{"GET k\r\nSET k v\r\nGET k\r\nPING\r\n", "$1\r\nv\r\n+OK\r\n$1\r\nv\r\n+PONG\r\n"},
		{"SELECT 5\r\n", "+OK\r\n"},
		{"SELECT 6\r\nGET k\r\n", "+OK\r\n$-1\r\n"},
		{"AUTH default x\r\n", "+OK\r\n"},
		{"HELLO 2 AUTH nobody x\r\n", "-WRONGPASS invalid username-password pair or user is disabled.\r\n"},
		{"MULTI\r\nSET k v\r\n", "+OK\r\n+QUEUED\r\n"},
		{"WATCH k\r\nGET k\r\n", "+OK\r\n$1\r\nv\r\n"},
		{"SUBSCRIBE a\r\n", "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"},
		{"CLIENT NO-EVICT on\r\nGET k\r\n", "+OK\r\n$1\r\nv\r\n"},
		{"GET k\r\nGET", "$1\r\nv\r\n"}, // the rest never comes
		{"", ""},
		{"CLIENT REPLY OFF\r\nSET k v\r\nPING\r\n", ""},
		{strings.Repeat("GET k\r\n", 5000), strings.Repeat("$1\r\nv\r\n", 5000)},
	} {
		r := dialRaw(t, c.addr)
		r.send(tc.sent)
		_ = r.Conn.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(r.r)
		if err != nil || string(b) != tc.want {
			t.Errorf("%.40q and the end of input: %.200q, %v; want %.200q and the end", tc.sent, b, err, tc.want)
		}
	}
	c.await(t, "the end of all clients", func(s proxy.Status) bool { return s.Clients <= 2 })
}

// Thousands of clients that are of no use, each in its way, and one that works.
func TestCrowdOfBadClients(t *testing.T) {
	const crowd = 2000
	c := newCluster(t, 1, oneLoop)
	good := dialRaw(t, c.addr)
	good.do("+OK\r\n", "SET", "k", "v")
	good.do("+OK\r\n", "SET", "big", strings.Repeat("x", 50_000))
	kinds := []struct {
		sent, want string // want: what comes before the end; without it the client stays
	}{
		{"*1000000000\r\n", "-ERR Protocol error: invalid multibulk length\r\n"},
		{"*2\r\n$3\r\nGET\r\n$1000\r\nab", ""},
		{"*2\r\n$3\r\nG", ""},
		{"*", ""},
		{"GET k", ""},
		{"MULTI\r\nSET k theirs\r\n", ""},
		{"BLPOP nothing 0\r\n", ""},
		{"SUBSCRIBE a\r\n", ""},
		{strings.Repeat("GET big\r\n", 200), ""}, // and reads nothing
		{"*1\r\n$999999999999\r\n", "-ERR Protocol error: invalid bulk length\r\n"},
		{"\x00\x01\x02 \"\n", ""},
		{"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n*x\r\n", ""}, // TLS
		{"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$400000000\r\nabc", ""},        // announces 400 MB
		{"*900000\r\n", ""},
	}
	var conns []net.Conn
	defer func() {
		for _, b := range conns {
			_ = b.Close()
		}
	}()
	for i := range crowd {
		b, err := net.Dial("tcp", c.addr)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, b)
		if _, err := io.WriteString(b, kinds[i%len(kinds)].sent); err != nil {
			t.Fatal(err)
		}
		if i%20 == 0 {
			good.do("+OK\r\n", "SET", "mine", fmt.Sprint(i))
			good.do(fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(i)), i), "GET", "mine")
		}
	}
	for i, b := range conns {
		want := kinds[i%len(kinds)].want
		if want == "" {
			continue
		}
		_ = b.SetReadDeadline(time.Now().Add(10 * time.Second))
		if got, err := io.ReadAll(b); err != nil || string(got) != want {
			t.Fatalf("client %d, who sent %.30q, got %q, %v; want %q", i, kinds[i%len(kinds)].sent, got, err, want)
		}
	}
	good.do("$1\r\nv\r\n", "GET", "k") // no MULTI was executed
	for _, b := range conns {
		_ = b.Close()
	}
	c.await(t, "the end of all but the good client", func(s proxy.Status) bool { return s.Clients == 1 })
	good.do(":0\r\n", "PUBLISH", "a", "m")
	awaitInfo(t, c.master, "blocked_clients:0\r\n")
	good.do("$1\r\nv\r\n", "GET", "k")
}

// A client in a silent transaction holds up nobody, and finds it as it left it.
func TestSilentTransaction(t *testing.T) {
	c := newCluster(t, 0, oneLoop)
	silent, good := dialRaw(t, c.addr), dialRaw(t, c.addr)
	silent.do("+OK\r\n", "MULTI")
	silent.do("+QUEUED\r\n", "INCR", "n")
	for i := range 500 {
		good.do(fmt.Sprintf(":%d\r\n", i+1), "INCR", "n")
	}
	silent.do("*1\r\n:501\r\n", "EXEC")
}

func TestUnixSocketClients(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	c := newCluster(t, 1, func(o *proxy.Options) {
		o.Listeners = append(o.Listeners, proxy.Listener{Network: "unix", Address: path})
	})
	for round := range 3 {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		r := &raw{t, conn, bufio.NewReaderSize(conn, 4<<20)}
		r.do("+OK\r\n", "SET", "k", fmt.Sprint(round))
		r.do(fmt.Sprintf("$1\r\n%d\r\n", round), "GET", "k") // causal
		big := strings.Repeat("b", 3<<20)
		r.do("+OK\r\n", "SET", "big", big)
		r.do(fmt.Sprintf("$%d\r\n%s\r\n", len(big), big), "GET", "big")
		r.send("GET k\r\nSELECT 7\r\n")
		_ = conn.(*net.UnixConn).CloseWrite()
		r.closedAfter(fmt.Sprintf("$1\r\n%d\r\n+OK\r\n", round))
	}
	// One that leaves without reading anything.
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, strings.Repeat("GET big\r\n", 20)); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	c.await(t, "the end of all clients", func(s proxy.Status) bool { return s.Clients == 0 })
}

// A client that sends a huge pipeline and reads only then, and others that
// flood with inline requests, while one works.
func TestHugePipelines(t *testing.T) {
	c := newCluster(t, 1, oneLoop)
	good := dialRaw(t, c.addr)
	good.do("+OK\r\n", "SET", "k", "v")
	const n = 50_000
	var wg sync.WaitGroup
	for i := range 4 {
		r := dialRaw(t, c.addr)
		key := fmt.Sprint("p", i)
		var request []byte
		for j := range n {
			if i%2 == 0 {
				request = fmt.Appendf(request, "SET %s %d\r\n\r\nGET %s\r\n", key, j, key)
			} else {
				request = resp.AppendCommand(request, "SET", key, fmt.Sprint(j))
				request = resp.AppendCommand(request, "GET", key)
			}
		}
		wg.Go(func() {
			if _, err := r.Write(request); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
		wg.Go(func() {
			for j := range n {
				for _, want := range []string{"+OK\r\n", fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(j)), j)} {
					if got, err := r.reply(); err != nil || got != want {
						t.Errorf("client %d, pair %d: %q, %v; want %q", i, j, got, err, want)
						_ = r.Close()
						return
					}
				}
			}
		})
	}
	for range 300 {
		good.do("$1\r\nv\r\n", "GET", "k")
	}
	wg.Wait()
}

// What clients send while the master hangs waits with them, not here.
func TestHangingMasterHoldsBackItsClients(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) {
		oneLoop(o)
		o.HealthTimeout = time.Minute
	})
	r := dialRaw(t, c.addr)
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	set := resp.AppendCommand(nil, "SET", "k", strings.Repeat("x", 900<<10))
	const all, most = 200, 80 // the sockets hold some too
	_ = r.SetWriteDeadline(time.Now().Add(5 * time.Second))
	sent := 0
	for sent < all {
		if _, err := r.Write(set); err != nil {
			break
		}
		sent++
	}
	if sent > most {
		t.Errorf("%d writes of 900 KB were taken from one client, want at most %d", sent, most)
	}
	if err := c.master.Signal(contSignal); err != nil {
		t.Fatal(err)
	}
	for range sent {
		r.expect("+OK\r\n")
	}
}

// A client with a name uploads where no connection is ready for it: the name is
// told the node first, and the upload goes on the same connection.
func TestUploadOfANamedClient(t *testing.T) {
	c := newCluster(t, 0, oneLoop)
	for db := range 9 { // each leaves two connections that are kept, until there are enough
		r := dialRaw(t, c.addr)
		r.do("+OK\r\n", "SELECT", fmt.Sprint(db))
		r.do("*-1\r\n", "BLPOP", "nothing", "0.01")
	}
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SELECT", "10")
	r.do("+OK\r\n", "CLIENT", "SETNAME", "uploader")
	const size = 2 << 20
	for range 3 {
		r.cmd("SET", "k", strings.Repeat("x", size))
		r.expect("+OK\r\n")
		r.do(fmt.Sprintf(":%d\r\n", size), "STRLEN", "k")
	}
}

// A WATCH that is so large that it is streamed watches all the same.
func TestLargeWatch(t *testing.T) {
	c := newCluster(t, 0, oneLoop)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	watch := []string{"WATCH"}
	for i := range 1200 {
		watch = append(watch, fmt.Sprint(strings.Repeat("x", 1000), i))
	}
	r.do("+OK\r\n", append(watch, "k")...)
	other.do("+OK\r\n", "SET", "k", "v")
	r.do("+OK\r\n", "MULTI")
	r.do("+QUEUED\r\n", "SET", "k", "w")
	r.do("*-1\r\n", "EXEC")
	other.do("$1\r\nv\r\n", "GET", "k")
}
