package downstream

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// Server serves replicas. Its methods may be called by any goroutine, Start and
// Close by one.
type Server struct {
	st    *store.Store
	up    Upstream
	opt   Options
	log   *zap.Logger
	runID string // as INFO's run_id: another one after each start
	begun time.Time

	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup // accept, watch, and a run of each session
	ln     net.Listener

	hub      hub
	counters counters
	metrics  *metrics
	peers    peers
	damage   damage
	link     linkClock
	acked    chan struct{} // capacity 1: a replica has acknowledged more, or has come or gone

	mu       sync.Mutex
	sessions map[*session]struct{}
	lastID   int64
	closed   bool
}

// New returns a server of what st holds. It does no I/O. Store and link must stay
// open until Close has returned.
func New(st *store.Store, up Upstream, o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	var id [repl.ReplIDLen / 2]byte
	_, _ = rand.Read(id[:]) // never fails
	s := &Server{
		st: st, up: up, opt: o, log: o.Logger.Named("relay"), runID: hex.EncodeToString(id[:]), begun: time.Now(),
		sessions: map[*session]struct{}{}, acked: make(chan struct{}, 1),
	}
	s.counters.init()
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.metrics = newMetrics(s)
	return s, nil
}

// note remembers what happened to a replica, for people.
func (s *Server) note(kind journal.Kind, peer, text string) {
	s.opt.Journal.Add(time.Now(), kind, peer, text)
}

// Start listens and serves until Close.
func (s *Server) Start() error {
	ln, err := net.Listen("tcp", s.opt.Listen)
	if err != nil {
		return fmt.Errorf("listen for replicas: %w", err)
	}
	if s.opt.Registerer != nil {
		if err := s.opt.Registerer.Register(s.metrics); err != nil {
			return errors.Join(err, ln.Close())
		}
	}
	s.ln = ln
	s.wg.Go(s.accept)
	s.wg.Go(s.watch)
	return nil
}

// Addr returns the address that is listened on, after Start.
func (s *Server) Addr() net.Addr { return s.ln.Addr() }

// Close stops listening, disconnects everybody and waits. Replicas come back by
// partial resync. A second call does nothing.
func (s *Server) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.cancel(errShutdown)
	if s.ln == nil {
		return
	}
	_ = s.ln.Close()
	s.wg.Wait()
	if s.opt.Registerer != nil {
		s.opt.Registerer.Unregister(s.metrics)
	}
}

// accept takes connections until the listener is closed.
func (s *Server) accept() {
	for {
		conn, err := s.ln.Accept()
		switch {
		case err == nil:
			s.admit(conn)
			continue
		case s.ctx.Err() != nil:
			return
		}
		s.log.Warn("cannot take a connection; the listener goes on. Out of file descriptors? See ulimit -n", zap.Error(err))
		t := time.NewTimer(100 * time.Millisecond)
		select {
		case <-t.C:
		case <-s.ctx.Done():
			t.Stop()
			return
		}
	}
}

// admit starts a session on a connection.
func (s *Server) admit(sock net.Conn) {
	conn := sock
	if s.opt.TLS != nil {
		conn = tls.Server(sock, s.opt.TLS)
	}
	s.mu.Lock()
	full := len(s.sessions) >= s.opt.MaxClients
	var c *session
	if !full && !s.closed {
		s.lastID++
		c = newSession(s, s.lastID, conn)
		s.sessions[c] = struct{}{}
	}
	s.mu.Unlock()
	if c == nil {
		if full && s.opt.TLS == nil {
			_ = sock.SetWriteDeadline(time.Now().Add(time.Second))
			_, _ = sock.Write([]byte("-ERR max number of clients reached\r\n"))
		}
		s.counters.rejected.Add(1)
		_ = sock.Close()
		return
	}
	s.wg.Go(c.run)
}

// remove forgets a session that has ended.
func (s *Server) remove(c *session) {
	s.mu.Lock()
	delete(s.sessions, c)
	s.mu.Unlock()
	s.pokeAcked()
}

// list returns the sessions, oldest first.
func (s *Server) list() []*session {
	s.mu.Lock()
	all := make([]*session, 0, len(s.sessions))
	for c := range s.sessions {
		all = append(all, c)
	}
	s.mu.Unlock()
	slices.SortFunc(all, func(a, b *session) int { return int(a.id - b.id) })
	return all
}

// watch disconnects replicas whose history was renamed or replaced, that are
// silent, or that are too far behind, until the server is closed.
func (s *Server) watch() {
	tick := time.NewTicker(min(time.Second, s.opt.Timeout/4))
	defer tick.Stop()
	for {
		switched := s.st.CurrentChanged()
		var renamed, headRenamed <-chan struct{}
		current, head := s.st.Current(), s.st.Head()
		if current != nil {
			renamed = current.Renamed()
		}
		if head != nil {
			headRenamed = head.Renamed()
		}
		s.look(current, head)
		select {
		case <-switched:
		case <-renamed:
		case <-headRenamed:
		case <-tick.C:
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *Server) look(current, head *store.Generation) {
	now := time.Now()
	s.link.look(s.up.Status(), committedOf(head), now)
	for _, c := range s.list() {
		if err := c.judge(current, head, now); err != nil {
			c.drop(err)
		}
	}
}

func committedOf(g *store.Generation) repl.Offset {
	if g == nil {
		return repl.UnknownOffset
	}
	return g.Committed()
}

// pokeAcked says that what MinAcked returns may have changed.
func (s *Server) pokeAcked() {
	select {
	case s.acked <- struct{}{}:
	default:
	}
}

// MinAcked returns the lowest offset that an online replica of the head has
// acknowledged; ok is false if none is online.
func (s *Server) MinAcked() (off repl.Offset, ok bool) {
	head := s.st.Head()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.sessions {
		if acked, online := c.onlineAt(head); online && (!ok || acked < off) {
			off, ok = acked, true
		}
	}
	return off, ok
}

// Online returns the addresses of the online replicas of the head that have
// announced one, with what they have acknowledged.
func (s *Server) Online() map[string]repl.Offset {
	head := s.st.Head()
	online := map[string]repl.Offset{}
	for _, c := range s.list() {
		if acked, ok := c.onlineAt(head); ok && c.announcedPort() {
			online[c.peerAddr()] = acked
		}
	}
	return online
}

// Acked returns a channel that is sent to after MinAcked may have changed. It is
// for one receiver.
func (s *Server) Acked() <-chan struct{} { return s.acked }

// linkClock notes since when the link to the master is down, and when it last
// brought something, to the second.
type linkClock struct {
	downSince atomic.Int64 // Unix nanoseconds; 0: it is up
	lastIO    atomic.Int64
	committed repl.Offset // only look uses it
}

func (l *linkClock) look(up linkStatus, committed repl.Offset, now time.Time) {
	switch {
	case isUp(up):
		l.downSince.Store(0)
	case l.downSince.Load() == 0:
		l.downSince.Store(up.Since.UnixNano())
	}
	if committed != l.committed {
		l.committed = committed
		l.lastIO.Store(now.UnixNano())
	}
}
