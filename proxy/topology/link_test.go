package topology

import (
	"io"
	"net"
	"strconv"
	"sync"
	"testing"
)

// link forwards connections to a master and can hold back what the master
// sends, so that a replica behind it stays connected and falls behind.
type link struct {
	listener net.Listener
	target   string
	mu       sync.Mutex
	flows    *sync.Cond // on mu: held or closed has changed
	held     bool
	closed   bool
	conns    []net.Conn
	wg       sync.WaitGroup
}

func newLink(t *testing.T, target string) *link {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &link{listener: listener, target: target}
	l.flows = sync.NewCond(&l.mu)
	l.wg.Go(l.accept)
	t.Cleanup(l.close)
	return l
}

func (l *link) port() string { return strconv.Itoa(l.listener.Addr().(*net.TCPAddr).Port) }

func (l *link) hold(held bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = held
	l.flows.Broadcast()
}

func (l *link) close() {
	_ = l.listener.Close()
	l.mu.Lock()
	l.closed = true
	for _, c := range l.conns {
		_ = c.Close()
	}
	l.flows.Broadcast()
	l.mu.Unlock()
	l.wg.Wait()
}

func (l *link) accept() {
	for {
		replica, err := l.listener.Accept()
		if err != nil {
			return
		}
		master, err := net.Dial("tcp", l.target)
		if err != nil {
			_ = replica.Close()
			continue
		}
		l.mu.Lock()
		l.conns = append(l.conns, replica, master)
		if l.closed {
			_, _ = replica.Close(), master.Close()
		}
		l.mu.Unlock()
		l.wg.Go(func() {
			_, _ = io.Copy(master, replica)
			_ = master.Close()
		})
		l.wg.Go(func() {
			_, _ = io.Copy(gate{l, replica}, master)
			_ = replica.Close()
		})
	}
}

// gate delays writes while the link is held.
type gate struct {
	l *link
	w io.Writer
}

func (g gate) Write(p []byte) (int, error) {
	g.l.mu.Lock()
	for g.l.held && !g.l.closed {
		g.l.flows.Wait()
	}
	g.l.mu.Unlock()
	return g.w.Write(p)
}
