package psynctest

import (
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// Session is one connection to a [Master], seen from the master. Only its
// script's goroutine may call its methods. A method that cannot do what it
// says fails the test and ends the script.
type Session struct {
	m    *Master
	conn net.Conn
	in   inbox
	reqs *psync.RequestReader
}

func newSession(m *Master, conn net.Conn) *Session {
	_ = conn.SetDeadline(time.Now().Add(Timeout)) // a pipe always can
	s := &Session{m: m, conn: conn}
	s.in.changed = sync.NewCond(&s.in.mu)
	s.reqs = psync.NewRequestReader(&s.in)
	return s
}

// receive takes in what the replica writes until the connection ends.
func (s *Session) receive() {
	buf := make([]byte, 32<<10)
	for {
		n, err := s.conn.Read(buf)
		s.in.put(buf[:n], err)
		if err != nil {
			return
		}
	}
}

// Send writes each piece by a Write of its own and waits until it was read.
func (s *Session) Send(pieces ...string) {
	s.m.t.Helper()
	for _, p := range pieces {
		if _, err := s.conn.Write([]byte(p)); err != nil {
			s.m.fail("send %q: %v", short(p), err)
		}
	}
}

// SendCut sends data cut at the given places, in ascending order.
func (s *Session) SendCut(data string, at ...int) {
	s.m.t.Helper()
	from := 0
	for _, to := range append(at, len(data)) {
		if to > from {
			s.Send(data[from:to])
			from = to
		}
	}
}

// Next returns the replica's next request. Empty lines are skipped.
func (s *Session) Next() psync.Request {
	s.m.t.Helper()
	for {
		args, err := s.reqs.Next()
		if err != nil {
			s.m.fail("read request: %v", err)
		}
		req, err := psync.ParseRequest(args)
		if err != nil {
			s.m.fail("parse request: %v", err)
		}
		if _, ok := req.(psync.Ignored); !ok {
			return req
		}
	}
}

// Expect reads the next request and fails unless it is made of these words.
func (s *Session) Expect(words ...string) {
	s.m.t.Helper()
	args, err := s.reqs.Next()
	if err != nil {
		s.m.fail("expect %q: %v", words, err)
	}
	var got []string
	for i := range args.Len() {
		got = append(got, string(args.At(i)))
	}
	if !slices.Equal(got, words) {
		s.m.fail("request is %q, want %q", got, words)
	}
}

// Handshake answers PING, AUTH and REPLCONF as a master does that knows
// everything and lets everybody in, up to PSYNC, which it leaves unanswered.
func (s *Session) Handshake() (psync.PSync, psync.Announced) {
	s.m.t.Helper()
	var a psync.Announced
	for {
		switch r := s.Next().(type) {
		case psync.Ping:
			s.Send(psync.ReplyPong)
		case psync.Auth:
			s.Send(psync.ReplyOK)
		case psync.Replconf:
			if err := a.Apply(r); err != nil {
				s.m.fail("handshake: %v", err)
			}
			s.Send(psync.ReplyOK)
		case psync.PSync:
			return r, a
		default:
			s.m.fail("handshake: unexpected %#v", r)
		}
	}
}

// Continue answers PSYNC by +CONTINUE id.
func (s *Session) Continue(id repl.ReplID) {
	s.m.t.Helper()
	s.Send(string(psync.AppendContinue(nil, id, psync.CapaPSYNC2)))
}

// FullResync answers PSYNC by +FULLRESYNC and a payload, the whole of it cut
// at the given places behind the answer's line.
func (s *Session) FullResync(pos repl.Pos, h psync.PayloadHeader, payload string, at ...int) {
	s.m.t.Helper()
	s.Send(string(psync.AppendFullResync(nil, pos)))
	s.SendCut(string(h.Append(nil))+payload+h.Mark, at...)
}

// AwaitAck reads ACKs until one has reached offset, and returns it. An ACK
// beyond it fails the test: more was never sent.
func (s *Session) AwaitAck(offset repl.Offset) psync.Ack {
	s.m.t.Helper()
	for {
		r := s.Next()
		ack, ok := r.(psync.AckRequest)
		switch {
		case !ok:
			s.m.fail("await ACK %d: unexpected %#v", offset, r)
		case ack.Offset > offset:
			s.m.fail("await ACK %d: replica has acknowledged %d", offset, ack.Offset)
		case ack.Offset == offset:
			return ack.Ack
		}
	}
}

// AwaitClose reads and drops what comes until the replica closes the
// connection.
func (s *Session) AwaitClose() {
	s.m.t.Helper()
	if _, err := io.Copy(io.Discard, &s.in); err != nil {
		s.m.fail("await close: %v", err)
	}
}

// Close closes the connection, in the middle of whatever was being sent.
func (s *Session) Close() { _ = s.conn.Close() }

func short(s string) string {
	const most = 60
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// inbox holds what has arrived until it is read, in any quantity.
type inbox struct {
	mu      sync.Mutex
	changed *sync.Cond // on mu: data or err
	data    []byte
	err     error
}

func (b *inbox) put(p []byte, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.data = append(b.data, p...)
	b.err = err
	b.changed.Broadcast()
}

// Read waits for data or the connection's end.
func (b *inbox) Read(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for len(b.data) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		b.changed.Wait()
	}
	n := copy(p, b.data)
	b.data = b.data[n:]
	return n, nil
}
