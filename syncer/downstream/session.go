package downstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// flushBytes of replies are sent even while more requests are here: whoever sends
// requests and reads nothing must wait, and not fill our memory.
const flushBytes = 64 << 10

// session is one connection. Its run goroutine reads; once PSYNC has come, a
// sender of its own writes, and run only listens for acknowledgements.
type session struct {
	srv    *Server
	id     int64
	conn   net.Conn
	raw    syscall.RawConn // for sendfile; nil: there is none
	log    *zap.Logger
	begun  time.Time
	ctx    context.Context
	cancel context.CancelCauseFunc
	sender sync.WaitGroup // the sender, or who delivers what is published

	client                    // only run uses it
	announced psync.Announced // likewise; after PSYNC it does not change
	q         *psync.RequestReader

	wmu sync.Mutex // held while writing to conn

	seen  atomic.Int64 // last sign of life, Unix nanoseconds
	sent  atomic.Int64 // offset of the last byte handed to the socket
	acked atomic.Int64 // offset as last acknowledged

	mu       sync.Mutex // for what follows
	state    State
	since    time.Time
	served   *served // what it is served; nil before PSYNC is answered
	finished bool    // all that was asked for was sent
	name     string  // CLIENT SETNAME
	authed   bool
	pubsub   bool   // has subscribed to something
	peer     string // its address as announced, HOST:PORT
}

// served is what a replica is served with.
type served struct {
	gen  *store.Generation
	id   repl.ReplID // that the replica knows the history by
	pin  *store.Pin
	full bool
	why  string // for a full resync: why
	base store.Base
	// magic is how the base begins, with its RDB version.
	magic []byte
	sent  atomic.Int64 // bytes of the base
}

func newSession(srv *Server, id int64, conn net.Conn) *session {
	c := &session{srv: srv, id: id, conn: conn, begun: time.Now(), since: time.Now(), peer: conn.RemoteAddr().String()}
	c.authed = srv.opt.Password == ""
	c.log = srv.log.With(zap.String("replica", c.peer))
	c.ctx, c.cancel = context.WithCancelCause(srv.ctx)
	c.q = psync.NewRequestReader(c)
	if tcp, ok := conn.(*net.TCPConn); ok && hasSendFile {
		if raw, err := tcp.SyscallConn(); err == nil {
			c.raw = raw
		}
	}
	c.seen.Store(c.begun.UnixNano())
	return c
}

// Read reads from the connection and notes the sign of life.
func (c *session) Read(p []byte) (int, error) {
	n, err := c.conn.Read(p)
	if n > 0 {
		c.seen.Store(time.Now().UnixNano())
	}
	return n, err
}

// drop ends the session; the first reason counts. Any goroutine may call.
func (c *session) drop(err error) {
	c.cancel(err)
}

// run serves the connection until it ends.
func (c *session) run() {
	unhook := context.AfterFunc(c.ctx, func() { _ = c.conn.Close() })
	err := c.serve()
	c.mu.Lock()
	if c.finished && errors.Is(err, io.EOF) {
		err = errServed
	}
	c.mu.Unlock()
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = &dropError{reasonClosed, "it closed the connection"}
	}
	c.cancel(err)
	c.sender.Wait()
	unhook()
	_ = c.conn.Close()
	c.srv.hub.leave(c)
	c.finish(context.Cause(c.ctx))
	c.srv.remove(c)
}

// finish notes that the session has ended because of err.
func (c *session) finish(err error) {
	c.mu.Lock()
	was, sv := c.state, c.served
	c.become(StateClosed)
	c.served = nil
	peer := c.peer
	c.mu.Unlock()
	if sv == nil {
		return
	}
	sv.pin.Release()
	why := reasonOf(err)
	c.srv.counters.drops[why].Add(1)
	fields := []zap.Field{zap.Stringer("state", was), zap.String("reason", string(why)),
		zap.Int64("sent", c.sent.Load()), zap.Int64("acked", c.acked.Load()), zap.Error(err)}
	c.srv.note(journal.ReplicaGone, peer, "replica disconnected while "+was.String()+": "+err.Error())
	failures, pause := c.srv.peers.ended(peer, was, why, time.Now())
	switch {
	case failures > 1:
		c.log.Warn(fmt.Sprintf("replica has gone %d times in a row before it had loaded the base and has to wait %s before it gets it again. "+
			"Is it of an older version than the server that wrote the base, or of the other kind (RDB version %s)? Its log tells",
			failures, pause, rdbVersion(sv)), fields...)
	case why == reasonShutdown || why == reasonServed:
		c.log.Debug("replica disconnected", fields...)
	default:
		c.log.Info("replica disconnected", fields...)
	}
}

// serve reads requests until the connection ends.
func (c *session) serve() error {
	if t, ok := c.conn.(*tls.Conn); ok {
		ctx, cancel := context.WithTimeout(c.ctx, c.srv.opt.Timeout)
		defer cancel()
		if err := t.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("TLS handshake: %w", err)
		}
	}
	for {
		c.q.Limits = &psync.ReplicaLimits
		if !c.isAuthed() {
			c.q.Limits = &resp.UnauthenticatedLimits
		}
		args, err := c.q.Next()
		if err != nil {
			return c.refuse(err)
		}
		if c.isReplica() {
			c.listen(args)
			continue
		}
		done, err := c.handle(args)
		if err != nil {
			return err
		}
		if c.q.Buffered() == 0 || done || len(c.out) >= flushBytes {
			if err := c.flush(); err != nil {
				return err
			}
		}
		if done {
			return io.EOF
		}
	}
}

// refuse answers what is no request, where there may still be an answer.
func (c *session) refuse(err error) error {
	var bad resp.ProtocolError
	if c.isReplica() || !errors.As(err, &bad) && !errors.Is(err, psync.ErrRequestTooLarge) {
		return err
	}
	c.out = resp.AppendError(c.out, "ERR "+err.Error())
	return errors.Join(err, c.flush())
}

// flush sends the replies.
func (c *session) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	err := c.write(c.out)
	c.out = c.out[:0]
	return err
}

// write sends b, which is not part of a stream.
func (c *session) write(b []byte) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Now().Add(c.srv.opt.Timeout)); err != nil {
		return err
	}
	_, err := c.conn.Write(b)
	return err
}

// listen takes what a replica says after PSYNC. It is never replied to.
func (c *session) listen(args resp.Args) {
	req, err := psync.ParseRequest(args)
	ack, ok := req.(psync.AckRequest)
	if err != nil || !ok {
		return
	}
	c.mu.Lock()
	state, sv := c.state, c.served
	if state == StateLoading {
		c.become(StateOnline)
		c.since = time.Now()
	}
	c.mu.Unlock()
	if state != StateLoading && state != StateOnline {
		return
	}
	if state == StateLoading {
		c.srv.peers.loaded(c.peer)
		c.log.Info("replica has loaded the base and is online", zap.Int64("offset", int64(ack.Offset)))
	}
	off := min(int64(ack.Offset), c.sent.Load())
	if off > c.acked.Load() || state == StateLoading {
		c.acked.Store(off)
		sv.pin.Move(repl.Offset(off))
		c.srv.pokeAcked()
	}
}

// judge returns why the session is to be ended, nil if it may go on.
func (c *session) judge(current, head *store.Generation, now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	silent := now.Sub(time.Unix(0, c.seen.Load()))
	if c.served == nil {
		if c.state == StateClient && !c.authed && silent > c.srv.opt.Timeout {
			return &dropError{reasonTimeout, "it did not authenticate"}
		}
		return nil
	}
	sv := c.served
	have := max(repl.Offset(c.acked.Load()), sv.base.Offset)
	lag := int64(sv.gen.Committed() - have)
	switch {
	case sv.gen != current && sv.gen != head:
		return errGeneration
	case sv.gen.History().Current() != sv.id:
		return errReplID
	case silent > c.srv.opt.Timeout:
		return &dropError{reasonTimeout, fmt.Sprintf("no sign of life for %s", c.srv.opt.Timeout)}
	case c.srv.opt.MaxLagBytes > 0 && lag > c.srv.opt.MaxLagBytes && !c.finished && holdsLog(sv.gen, have):
		return &dropError{reasonLag, fmt.Sprintf("it is %d bytes behind, more than %d; a slower write rate at the master, or a faster disk or network for the replica, is needed", lag, c.srv.opt.MaxLagBytes)}
	}
	return nil
}

// holdsLog reports whether log of g is kept only for one that has all up to have:
// what follows the newest base stays in any case. Who is given that base is as far
// behind as it is, and would be again after being dropped.
func holdsLog(g *store.Generation, have repl.Offset) bool {
	bases := g.Bases()
	return len(bases) > 0 && have < bases[0].Offset
}

// onlineAt returns what was acknowledged, if it is an online replica of g.
func (c *session) onlineAt(g *store.Generation) (repl.Offset, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != StateOnline || c.served.gen != g {
		return 0, false
	}
	return repl.Offset(c.acked.Load()), true
}

// announcedPort reports whether a replica has told where it listens. Its
// announcements do not change after PSYNC, which the lock orders before.
func (c *session) announcedPort() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state != StateClient && c.announced.ListeningPort != 0
}

func (c *session) peerAddr() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.peer
}

func (c *session) getState() State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// isReplica reports whether PSYNC has come.
func (c *session) isReplica() bool { return c.getState() != StateClient }

func (c *session) isAuthed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.authed
}

// become changes the state.
func (c *session) to(s State) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.become(s)
	c.since = time.Now()
}

// announcedAddr returns where the replica says that it can be reached.
func (c *session) announcedAddr() string {
	host, port, err := net.SplitHostPort(c.conn.RemoteAddr().String())
	if err != nil { // not TCP
		return c.conn.RemoteAddr().String()
	}
	if c.announced.IPAddress != "" {
		host = c.announced.IPAddress
	}
	if c.announced.ListeningPort != 0 {
		port = strconv.Itoa(c.announced.ListeningPort)
	}
	return net.JoinHostPort(host, port)
}
