package downstream

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// rig is a relay: a store, the link that fills it, and a server of it.
type rig struct {
	*Server
	link *upstream.Link
	st   *store.Store
}

// rigOptions are those of the three.
type rigOptions struct {
	Options
	up upstream.Options
	st store.Options
}

func logger(t testing.TB) *zap.Logger {
	if !testing.Verbose() {
		return zap.NewNop()
	}
	l, err := zap.NewDevelopment()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// newRig opens a store in dir and starts a server of it. The link to master is
// not started.
func newRig(t testing.TB, dir, master string, o rigOptions) *rig {
	t.Helper()
	if o.up.Master = master; o.up.Logger == nil {
		o.up.Logger = logger(t)
	}
	if o.up.BaseRefreshMin == 0 {
		o.up.BaseRefreshMin = 1 << 40 // a second base would cost the master a full resync, which tests count
	}
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	o.Logger = o.up.Logger
	st, err := store.Open(dir, o.st)
	if err != nil {
		t.Fatal(err)
	}
	link, err := upstream.New(st, o.up)
	if err != nil {
		t.Fatal(err)
	}
	srv, err := New(st, link, o.Options)
	if err == nil {
		link.SetReplicas(srv)
		err = srv.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{srv, link, st}
	t.Cleanup(func() { r.stop(t) })
	return r
}

// startRig starts all three and waits for a base.
func startRig(t testing.TB, dir, master string, o rigOptions) *rig {
	t.Helper()
	r := newRig(t, dir, master, o)
	r.link.Start()
	r.awaitBase(t)
	return r
}

// stop ends all three; a second call does nothing.
func (r *rig) stop(t testing.TB) {
	t.Helper()
	r.Close()
	r.link.Close()
	if err := r.st.Close(); err != nil {
		t.Error(err)
	}
}

func (r *rig) addr() string { return r.Addr().String() }

func (r *rig) port() int { return r.Addr().(*net.TCPAddr).Port }

func (r *rig) awaitBase(t testing.TB) {
	t.Helper()
	relaytest.Await(t, "base", func() bool { g := r.st.Current(); return g != nil && g == r.st.Head() })
}

// awaitOffset waits until all that the master has said so far is committed.
func (r *rig) awaitOffset(t testing.TB, master *localredis.Server) {
	t.Helper()
	off := repl.Offset(relaytest.Number(t, master, "master_repl_offset"))
	relaytest.Await(t, fmt.Sprintf("commit of %d", off), func() bool { g := r.st.Head(); return g != nil && g.Committed() >= off })
}

// fulls returns how many full resyncs were given.
func (r *rig) fulls() (n uint64) {
	for _, c := range r.counters.full {
		n += c.Load()
	}
	return n
}

// state returns the state of the only replica, "" if there is none.
func (r *rig) state(t testing.TB) string {
	t.Helper()
	rs := r.Status().Replicas
	if len(rs) > 1 {
		t.Fatalf("%d replicas: %+v", len(rs), rs)
	}
	if len(rs) == 0 {
		return ""
	}
	return rs[0].State
}

// awaitOnline waits for n replicas that have acknowledged something.
func (r *rig) awaitOnline(t testing.TB, n int) {
	t.Helper()
	relaytest.Await(t, fmt.Sprintf("%d replicas online", n), func() bool {
		online := 0
		for _, r := range r.Status().Replicas {
			if r.State == StateOnline.String() {
				online++
			}
		}
		return online == n
	})
}

// startBehind starts a stock replica of whatever listens on a port.
func startBehind(t testing.TB, port int, args ...string) *localredis.Server {
	t.Helper()
	return relaytest.StartRedis(t, localredis.Options{Args: append([]string{"--replicaof", "127.0.0.1", strconv.Itoa(port)}, args...)})
}

func replicaOf(t testing.TB, s *localredis.Server, port int) {
	t.Helper()
	relaytest.Do(t, s, "REPLICAOF", "127.0.0.1", strconv.Itoa(port))
}

// sameData waits until the replicas have what the master has said so far, and
// compares. The master must be idle.
func sameData(t testing.TB, master *localredis.Server, replicas ...*localredis.Server) {
	t.Helper()
	want := relaytest.Digest(t, master)
	if strings.Trim(want, "+0") == "" {
		t.Fatal("the master is empty")
	}
	off := relaytest.Number(t, master, "master_repl_offset")
	for _, r := range replicas {
		relaytest.Await(t, fmt.Sprintf("replica %s at %d", r.Addr(), off), func() bool {
			info, err := localredis.Do(r.Addr(), "INFO", "replication")
			return err == nil && strings.Contains(info, "master_link_status:up") && fieldOf(info, "master_repl_offset") >= off
		})
		if got := relaytest.Digest(t, r); got != want {
			t.Fatalf("digest of %s is %s, the master has %s", r.Addr(), got, want)
		}
		if got := relaytest.Number(t, r, "master_repl_offset"); got < off {
			t.Fatalf("offset of %s is %d, the master had %d", r.Addr(), got, off)
		}
	}
}

// fieldOf returns a number of INFO, -1 if it is not there.
func fieldOf(info, key string) int64 {
	_, rest, ok := strings.Cut(info, "\r\n"+key+":")
	value, _, _ := strings.Cut(rest, "\r\n")
	n, err := strconv.ParseInt(value, 10, 64)
	if !ok || err != nil {
		return -1
	}
	return n
}

// round writes some commands to several databases.
func round(t testing.TB, l *relaytest.Load, times int) {
	t.Helper()
	for range times {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// repeat calls write at a pace until stopped; a second stop does nothing.
func repeat(t *testing.T, pace time.Duration, write func() error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(pace)
		defer tick.Stop()
		for ctx.Err() == nil {
			if err := write(); err != nil {
				t.Errorf("load: %v", err)
				return
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// peerConn plays a replica by hand.
type peerConn struct {
	net.Conn
	t testing.TB
}

func dialRig(t testing.TB, r *rig) *peerConn {
	t.Helper()
	c, err := net.Dial("tcp", r.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &peerConn{c, t}
}

func (c *peerConn) send(s string) {
	c.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.t.Fatal(err)
	}
}

// line reads a line, without its end.
func (c *peerConn) line() string {
	c.t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(relaytest.Timeout)); err != nil {
		c.t.Fatal(err)
	}
	var b []byte
	for p := make([]byte, 1); ; b = append(b, p[0]) {
		if _, err := c.Read(p); err != nil {
			c.t.Fatalf("read a line: %v, after %q", err, b)
		}
		if p[0] == '\n' {
			return strings.TrimSuffix(string(b), "\r")
		}
	}
}

// reply reads a reply of one line or a bulk string.
func (c *peerConn) reply() string {
	c.t.Helper()
	line := c.line()
	if !strings.HasPrefix(line, "$") || line == "$-1" {
		return line
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(c, b); err != nil {
		c.t.Fatal(err)
	}
	return string(b[:n])
}
