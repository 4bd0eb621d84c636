package eventloop

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis/tlstest"
)

// startTLS is start for a listener with TLS. The handshakes are made one after
// the other, in a goroutine that ends with the test.
func startTLS(t *testing.T, version uint16, set func(*Conn), mk func() Handler) (addr string, client *tls.Config) {
	t.Helper()
	ca := tlstest.NewCA(t, "test authority")
	cert := ca.Issue(t, "server").Certificate
	server := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: version, MaxVersion: version}
	l, err := NewLoop()
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.Run(); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			c := ServerTLS(nc, server)
			if err := c.HandshakeContext(context.Background()); err != nil {
				t.Error(err)
				return
			}
			sock, err := Take(c)
			if err != nil {
				t.Error(err)
				return
			}
			l.Post(func() {
				c := l.NewConn(mk())
				set(c)
				if err := l.Attach(c, sock); err != nil {
					t.Error(err)
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		l.Stop()
		wg.Wait()
	})
	return ln.Addr().String(), &tls.Config{RootCAs: ca.Pool(), ServerName: "localhost"}
}

func dialTLS(t *testing.T, addr string, cfg *tls.Config) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

// TestTLSEcho sends pieces of all sizes, more than any buffer holds, while the
// reader is slow to begin: what comes back is what was sent, after a half-close
// too, and the end is an orderly one.
func TestTLSEcho(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		for _, frame := range []int{1, 7, 100_000} {
			t.Run(name, func(t *testing.T) {
				e := &echo{frame: frame, closed: make(chan error, 1)}
				addr, cfg := startTLS(t, version, func(c *Conn) { c.HighWater = 64 << 10 }, func() Handler { return e })
				c := dialTLS(t, addr, cfg)
				sent := make([]byte, 4_000_000/frame*frame)
				for i := range sent {
					sent[i] = byte(rand.IntN(256))
				}
				wrote := make(chan error, 1)
				go func() {
					for p := sent; len(p) > 0; {
						n := min(len(p), 1+rand.IntN(40_000))
						if _, err := c.Write(p[:n]); err != nil {
							wrote <- err
							return
						}
						p = p[n:]
					}
					wrote <- c.CloseWrite()
				}()
				got, err := io.ReadAll(c)
				if err != nil {
					t.Fatal(err)
				}
				if err := <-wrote; err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes sent, %d came back, or others", len(sent), len(got))
				}
				if err := <-e.closed; !errors.Is(err, ErrClosedHere) {
					t.Fatalf("closed with %v", err)
				}
				if e.drains == 0 {
					t.Error("the output never reached its high-water mark: nothing was tried")
				}
			})
		}
	}
}

// TestTLSHoldsBack: a peer that does not read is not read either, in bounded
// memory, and gets everything once it reads.
func TestTLSHoldsBack(t *testing.T) {
	e := &echo{frame: 1, closed: make(chan error, 1)}
	addr, cfg := startTLS(t, tls.VersionTLS13, func(c *Conn) { c.HighWater, c.HardLimit = 64<<10, 1<<20 }, func() Handler { return e })
	c := dialTLS(t, addr, cfg)
	piece := bytes.Repeat([]byte("x"), 16<<10)
	sent := 0
	for { // until the peer's buffers and ours are full
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		if sent > 64<<20 {
			t.Fatal("64 MB were taken from a peer that reads nothing")
		}
		if _, err := c.Write(piece); err != nil {
			break // a deadline in the middle of a record: this connection's output is spoilt, its input is not
		}
		sent += len(piece)
	}
	_ = c.SetReadDeadline(time.Now().Add(60 * time.Second))
	if n, err := io.CopyN(io.Discard, c, int64(sent)); err != nil {
		t.Fatalf("%d of %d bytes came back: %v", n, sent, err)
	}
	_ = c.NetConn().Close()
	if err := <-e.closed; err == nil {
		t.Error("closed without a cause")
	}
}

// TestTLSGarbage: bytes that are no record end the connection with an error
// and an alert.
func TestTLSGarbage(t *testing.T) {
	e := &echo{frame: 1, closed: make(chan error, 1)}
	addr, cfg := startTLS(t, tls.VersionTLS13, func(*Conn) {}, func() Handler { return e })
	c := dialTLS(t, addr, cfg)
	if _, err := c.Write([]byte("good")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.NetConn().Write([]byte("\x17\x03\x03\x00\x20no record of this connection, is it?")); err != nil {
		t.Fatal(err)
	}
	if err := <-e.closed; err == nil || errors.Is(err, io.EOF) || errors.Is(err, ErrClosedHere) {
		t.Fatalf("closed with %v", err)
	}
	var alert *net.OpError
	if _, err := c.Read(make([]byte, 1)); !errors.As(err, &alert) || alert.Op != "remote error" {
		t.Fatalf("the peer got %v, want an alert", err)
	}
}

// TestTLSCutOff: the end of a stream that was cut off does not look like that
// of a complete one, which close_notify says.
func TestTLSCutOff(t *testing.T) {
	for _, cut := range []bool{false, true} {
		e := &echo{frame: 1, closed: make(chan error, 1)}
		addr, cfg := startTLS(t, tls.VersionTLS12, func(c *Conn) { c.HardLimit = 1 << 20 }, func() Handler { return e })
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		var wire bytes.Buffer
		c := tls.Client(&recorder{nc, &wire}, cfg)
		defer func() { _ = c.Close() }()
		_ = c.SetDeadline(time.Now().Add(60 * time.Second))
		if err := c.Handshake(); err != nil {
			t.Fatal(err)
		}
		piece := bytes.Repeat([]byte("x"), 16<<10)
		for range 4096 { // until the limit is hit
			if _, err := c.Write(piece); err != nil || !cut {
				break
			}
		}
		if !cut {
			_ = c.CloseWrite()
		}
		want := map[bool]error{false: ErrClosedHere, true: ErrOutputLimit}[cut]
		if !cut {
			_, _ = io.Copy(io.Discard, c)
		}
		if err := <-e.closed; !errors.Is(err, want) {
			t.Fatalf("closed with %v", err)
		}
		if cut {
			_, _ = io.Copy(io.Discard, c)
		}
		alert := false
		for b := wire.Bytes(); len(b) >= 5; { // TLS 1.2 does not hide the type of a record
			alert = alert || b[0] == 21
			b = b[min(len(b), 5+int(b[3])<<8+int(b[4])):]
		}
		if alert == cut {
			t.Errorf("cut off: %v; ended by close_notify: %v", cut, alert)
		}
	}
}

// recorder keeps what is read.
type recorder struct {
	net.Conn
	wire *bytes.Buffer
}

func (r *recorder) Read(p []byte) (int, error) {
	n, err := r.Conn.Read(p)
	r.wire.Write(p[:n])
	return n, err
}
