package eventloop

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// echo sends back what it gets, in frames: it consumes whole frames of size
// bytes only, so that left-over bytes are kept by the loop.
type echo struct {
	frame  int
	closed chan error
	drains int
	maxIn  int
}

func (e *echo) OnData(c *Conn, data []byte) int {
	e.maxIn = max(e.maxIn, len(data))
	n := len(data) / e.frame * e.frame
	c.Write(data[:n])
	if c.Congested() {
		c.Pause()
	}
	return n
}
func (e *echo) OnEOF(c *Conn)              { c.CloseAfterFlush() }
func (e *echo) OnDrain(c *Conn)            { e.drains++; c.Resume() }
func (e *echo) OnClose(_ *Conn, err error) { e.closed <- err }

// start runs a loop that serves network with handlers made by mk.
func start(t *testing.T, network string, set func(*Conn), mk func() Handler) (*Loop, string) {
	t.Helper()
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	ln, err := Listen(context.Background(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(); err != nil {
			t.Error(err)
		}
	})
	l.Post(func() {
		err := l.Serve(ln, func(sock Socket) {
			c := l.NewConn(mk())
			set(c)
			if err := l.Attach(c, sock); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		l.Post(ln.Close)
		l.Stop()
		wg.Wait()
	})
	return l, ln.Addr().String()
}

func dial(t *testing.T, network, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

func TestEchoKeepsBytesInOrder(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			e := &echo{frame: 7, closed: make(chan error, 1)}
			_, addr := start(t, network, func(c *Conn) { c.HighWater = 64 << 10 }, func() Handler { return e })
			c := dial(t, network, addr)
			want := make([]byte, 7*500_000)
			for i := range want {
				want[i] = byte(rand.Uint32())
			}
			go func() { // in pieces that do not match the frames
				for p := want; len(p) > 0; {
					n := min(len(p), 1+rand.IntN(200_000))
					if _, err := c.Write(p[:n]); err != nil {
						return
					}
					p = p[n:]
				}
				_ = c.(interface{ CloseWrite() error }).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes came back, want %d, or they differ", len(got), len(want))
			}
			if err := <-e.closed; !errors.Is(err, ErrClosedHere) {
				t.Fatalf("closed with %v, want ErrClosedHere", err)
			}
			if e.maxIn > 2*scratchSize {
				t.Fatalf("a handler was given %d bytes at once: the input is not bounded", e.maxIn)
			}
		})
	}
}

// TestAbortResets tells an abort from a close by what the peer reads.
func TestAbortResets(t *testing.T) {
	for _, tc := range []struct {
		network string
		end     func(*Conn, error)
		want    error
	}{
		{"tcp", (*Conn).Abort, syscall.ECONNRESET},
		{"tcp", (*Conn).Close, nil},
		{"unix", (*Conn).Abort, nil},
	} {
		e := &echo{frame: 1, closed: make(chan error, 1)}
		conns := make(chan *Conn, 1)
		l, addr := start(t, tc.network, func(c *Conn) { conns <- c }, func() Handler { return e })
		c := dial(t, tc.network, addr)
		served := <-conns
		l.Post(func() { tc.end(served, io.ErrNoProgress) })
		if _, err := io.ReadAll(c); !errors.Is(err, tc.want) {
			t.Errorf("%s: the peer reads until %v, want %v", tc.network, err, tc.want)
		}
		if err := <-e.closed; !errors.Is(err, io.ErrNoProgress) {
			t.Errorf("%s: closed with %v", tc.network, err)
		}
	}
}

func TestPeerThatDoesNotReadHoldsBackOnlyItself(t *testing.T) {
	e := &echo{frame: 1, closed: make(chan error, 8)}
	l, addr := start(t, "tcp", func(c *Conn) { c.HighWater = 64 << 10 }, func() Handler { return e })
	slow := dial(t, "tcp", addr)
	wrote := make(chan int, 1)
	go func() {
		_ = slow.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
		total := 0
		for buf := make([]byte, 64<<10); ; {
			n, err := slow.Write(buf)
			total += n
			if err != nil {
				wrote <- total
				return
			}
		}
	}()
	other := dial(t, "tcp", addr)
	for range 100 {
		if _, err := other.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(other, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	total := <-wrote
	pending := make(chan int, 1)
	l.Post(func() {
		most := 0
		for _, c := range l.conns {
			if c != nil && c.acceptor == nil {
				most = max(most, c.Pending()+c.Buffered())
			}
		}
		pending <- most
	})
	if n := <-pending; n > 1<<20 {
		t.Fatalf("%d bytes are buffered for a peer that does not read (it sent %d)", n, total)
	}
	// It is served again once it reads.
	if _, err := io.ReadFull(slow, make([]byte, total)); err != nil {
		t.Fatalf("after reading again: %v", err)
	}
	drains := make(chan int, 1)
	l.Post(func() { drains <- e.drains })
	if <-drains == 0 {
		t.Fatal("OnDrain was never called")
	}
}

// flood writes more than the limit as soon as anything comes.
type flood struct{ closed chan error }

func (f *flood) OnData(c *Conn, data []byte) int {
	for range 100 {
		c.Write(make([]byte, 100_000))
	}
	return len(data)
}
func (f *flood) OnEOF(c *Conn)              { c.Close(io.EOF) }
func (f *flood) OnDrain(*Conn)              {}
func (f *flood) OnClose(_ *Conn, err error) { f.closed <- err }

func TestHardLimitCloses(t *testing.T) {
	f := &flood{closed: make(chan error, 1)}
	_, addr := start(t, "tcp", func(c *Conn) { c.HardLimit = 1 << 20 }, func() Handler { return f })
	c := dial(t, "tcp", addr)
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := <-f.closed; !errors.Is(err, ErrOutputLimit) {
		t.Fatalf("closed with %v, want ErrOutputLimit", err)
	}
}

func TestPostRunsInOrderAndStopsWithTheLoop(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- l.Run() }()
	const n = 1000
	var got []int
	all := make(chan struct{})
	for i := range n {
		l.Post(func() {
			if got = append(got, i); i == n-1 {
				close(all)
			}
		})
	}
	<-all
	for i, v := range got {
		if i != v {
			t.Fatalf("call %d ran as number %d", v, i)
		}
	}
	l.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if l.Post(func() { t.Error("a call posted after the end has run") }) {
		t.Fatal("Post after the end says that it will run")
	}
}

func TestTimersFireInOrderAndStop(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	begin := time.Now()
	l.After(40*time.Millisecond, func() { got = append(got, "late"); l.Stop() })
	l.After(10*time.Millisecond, func() { got = append(got, "early") })
	gone := l.After(20*time.Millisecond, func() { got = append(got, "stopped") })
	gone.Stop()
	again := l.After(5*time.Millisecond, func() { got = append(got, "moved") })
	again.Reset(30 * time.Millisecond)
	if err := l.Run(); err != nil {
		t.Fatal(err)
	}
	if want := []string{"early", "moved", "late"}; !equal(got, want) {
		t.Fatalf("fired %q, want %q", got, want)
	}
	if d := time.Since(begin); d < 40*time.Millisecond {
		t.Fatalf("the last timer fired after %v", d)
	}
}

func equal(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func TestRetainedOutputCanBeReadUntilReleased(t *testing.T) {
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	c := l.NewConn(&flood{closed: make(chan error, 1)})
	c.Retain = true
	type piece struct {
		k    *Chunk
		off  int
		want []byte
		end  uint64
	}
	var kept []piece
	for i := range 500 {
		p := bytes.Repeat([]byte{byte(i)}, 1+rand.IntN(9000))
		k, off := c.WriteWhole(p)
		kept = append(kept, piece{k, off, p, c.Appended()})
		if i%3 == 0 { // as if the kernel had taken a part
			c.out.advance(rand.IntN(c.Pending() + 1))
		}
		if i%7 == 0 {
			n := rand.IntN(len(kept))
			if kept[n].end <= c.Written() {
				c.Release(kept[n].end)
				kept = kept[n+1:]
			}
		}
		for _, p := range kept {
			if got := p.k.Bytes(p.off, len(p.want)); !bytes.Equal(got, p.want) {
				t.Fatalf("round %d: retained bytes have changed", i)
			}
		}
	}
	c.out.advance(c.Pending())
	c.Release(c.Written())
	if c.out.head != nil {
		t.Fatal("chunks remain after everything was written and released")
	}
	l.poll.close()
}

func TestStaleUnixSocketIsReplacedAndLiveOneIsNot(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	a, err := Listen(context.Background(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(context.Background(), "unix", path); err == nil {
		t.Fatal("a second listener took the path of a live one")
	}
	a.unlink = "" // as after a kill
	a.Close()
	b, err := Listen(context.Background(), "unix", path)
	if err != nil {
		t.Fatalf("the socket of a dead server was not replaced: %v", err)
	}
	b.Close()
}

// stamp tells the loop's time at which data was handled.
type stamp struct {
	echo
	at chan int64
}

func (s *stamp) OnData(c *Conn, data []byte) int {
	s.at <- c.Loop().Now()
	return len(data)
}

// The time at which something is handled is not that at which the loop began to
// wait for it.
func TestNowIsNotBeforeWhatIsHandled(t *testing.T) {
	s := &stamp{echo{closed: make(chan error, 1)}, make(chan int64, 1)}
	l, addr := start(t, "tcp", func(*Conn) {}, func() Handler { return s })
	c := dial(t, "tcp", addr)
	for range 20 {
		before := int64(time.Since(l.start))
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if at := <-s.at; at < before {
			t.Fatalf("what was sent at %v was handled at %v", time.Duration(before), time.Duration(at))
		}
	}
}
