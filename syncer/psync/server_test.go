package psync_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// patience bounds every wait for a real server.
const patience = 20 * time.Second

func startRedis(t *testing.T, o localredis.Options) *localredis.Server {
	t.Helper()
	o.Args = append([]string{"--repl-ping-replica-period", "3600", "--enable-debug-command", "yes"}, o.Args...) // no byte that the test has not caused
	s, err := localredis.Start(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// patient is a connection whose reads and writes each have a deadline.
type patient struct{ net.Conn }

func (c patient) Read(p []byte) (int, error) {
	_ = c.SetReadDeadline(time.Now().Add(patience))
	return c.Conn.Read(p)
}

func dial(t *testing.T, s *localredis.Server) net.Conn {
	t.Helper()
	c, err := net.DialTimeout("tcp", s.Addr(), patience)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return patient{c}
}

// client sends commands to a real server.
type client struct {
	t *testing.T
	c net.Conn
	r *bufio.Reader
}

func newClient(t *testing.T, s *localredis.Server) *client {
	c := dial(t, s)
	return &client{t, c, bufio.NewReaderSize(c, 1<<20)}
}

func (c *client) send(args ...string) {
	c.t.Helper()
	if _, err := c.c.Write(resp.AppendCommand(nil, args...)); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads one reply, which must fit the buffer.
func (c *client) reply() string {
	c.t.Helper()
	need := int64(1)
	for {
		if _, err := c.r.Peek(int(need)); err != nil {
			c.t.Fatal(err)
		}
		b, _ := c.r.Peek(c.r.Buffered())
		n, more, err := resp.ScanReply(b)
		if err != nil {
			c.t.Fatal(err)
		}
		if n > 0 {
			out := string(b[:n])
			_, _ = c.r.Discard(n)
			return out
		}
		need = more
	}
}

func (c *client) do(args ...string) string {
	c.t.Helper()
	c.send(args...)
	reply := c.reply()
	if reply[0] == '-' {
		c.t.Fatalf("%q: %s", args, reply)
	}
	return strings.TrimSpace(reply)
}

// info returns a field of INFO.
func (c *client) info(field string) string {
	c.t.Helper()
	for line := range strings.Lines(c.do("INFO", "everything")) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), ":"); ok && name == field {
			return value
		}
	}
	c.t.Fatalf("INFO has no %s", field)
	return ""
}

func (c *client) number(field string) int64 {
	c.t.Helper()
	n, err := strconv.ParseInt(c.info(field), 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// pos returns the server's own position.
func (c *client) pos() repl.Pos {
	return repl.Pos{ReplID: repl.ReplID(c.info("master_replid")), Offset: repl.Offset(c.number("master_repl_offset"))}
}

// await polls until a condition of a server holds: Redis reports no changes.
func await(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-tick.C
	}
}

// link is a connection on which we are a replica.
type link struct {
	t   *testing.T
	c   net.Conn
	r   *bufio.Reader
	tee func(string) // gets what follow reads; may be nil
}

var bothCapa = psync.CapaEOF | psync.CapaPSYNC2

// request performs the handshake and PSYNC.
func request(t *testing.T, s *localredis.Server, h psync.Handshake, w repl.Want) (*link, psync.Answer) {
	t.Helper()
	c := dial(t, s)
	l := &link{t: t, c: c, r: psync.NewReader(c)}
	if err := h.Run(c, l.r); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(psync.AppendPSync(nil, w)); err != nil {
		t.Fatal(err)
	}
	a, err := psync.ReadAnswer(l.r)
	if err != nil {
		t.Fatal(err)
	}
	return l, a
}

func (l *link) ack(offset repl.Offset) {
	l.t.Helper()
	if _, err := l.c.Write(psync.AppendAck(nil, psync.Ack{Offset: offset, Fsynced: repl.UnknownOffset})); err != nil {
		l.t.Fatal(err)
	}
}

// start acknowledges a payload that ended by a mark, so that the stream begins.
// An ACK that comes before the master has seen its child exit is in vain, which
// a replica that sends one every second never notices.
func (l *link) start(c *client, offset repl.Offset) {
	l.t.Helper()
	await(l.t, "replica online", func() bool { return strings.Contains(c.info("slave0"), "state=online") })
	l.ack(offset)
}

// payload reads a payload and checks that it is a whole RDB file, by the
// checksum at its end.
func (l *link) payload() (psync.PayloadHeader, []byte) {
	l.t.Helper()
	h, err := psync.ReadPayloadHeader(l.r)
	if err != nil {
		l.t.Fatal(err)
	}
	p := psync.NewPayloadReader(l.r, h)
	b, err := io.ReadAll(p)
	if err != nil {
		l.t.Fatal(err)
	}
	if p.N() != int64(len(b)) || !h.Marked() && h.Size != p.N() {
		l.t.Errorf("%+v: read %d, N is %d", h, len(b), p.N())
	}
	if !bytes.HasPrefix(b, []byte("REDIS")) {
		l.t.Fatalf("payload begins %.20q", b)
	}
	body, sum := b[:len(b)-8], binary.LittleEndian.Uint64(b[len(b)-8:])
	if got := ^crc64.Update(^uint64(0), crc64.MakeTable(0x95AC9329AC4BC9B5), body); got != sum {
		l.t.Errorf("checksum of the payload is %x, it says %x", got, sum)
	}
	return h, b
}

// follow scans the stream up to offset, which must be a commit point that no
// byte goes beyond.
func (l *link) follow(s *psync.StreamScanner, offset repl.Offset, visit func(psync.StreamCommand)) {
	l.t.Helper()
	buf := make([]byte, 16<<10)
	for s.Offset() < offset {
		n, err := l.r.Read(buf)
		if err != nil {
			l.t.Fatalf("at offset %d of %d: %v", s.Offset(), offset, err)
		}
		if l.tee != nil {
			l.tee(string(buf[:n]))
		}
		for p := buf[:n]; len(p) > 0; {
			c, n, ok, err := s.Next(p)
			if err != nil {
				l.t.Fatal(err)
			}
			if ok && visit != nil {
				visit(c)
			}
			p = p[n:]
		}
	}
	if last, _ := s.Commit(); s.Offset() != offset || last != offset || s.InTransaction() {
		l.t.Fatalf("scanned up to %d, commit point %d, transaction %v; the master is at %d", s.Offset(), last, s.InTransaction(), offset)
	}
}

// quiet checks that nothing more comes.
func (l *link) quiet() {
	l.t.Helper()
	if n := l.r.Buffered(); n > 0 {
		l.t.Errorf("%d bytes more", n)
	}
	raw := l.c.(patient).Conn
	_ = raw.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := raw.Read(make([]byte, 1)); n > 0 || errors.Is(err, io.EOF) {
		l.t.Errorf("%d bytes more, %v", n, err)
	}
}

// writes sends random writes and returns how many transactions were among them.
func (c *client) writes(rng *rand.Rand, count int) (transactions int) {
	c.t.Helper()
	c.do("SELECT", "0")
	selected := 0
	write := func() []string {
		key := fmt.Sprint("key:", rng.IntN(100))
		switch rng.IntN(8) {
		case 0:
			return []string{"LPUSH", "list:" + key, key, strings.Repeat("e", rng.IntN(200))}
		case 1:
			return []string{"INCR", "n:" + key}
		case 2:
			return []string{"SET", key, strings.Repeat("v", rng.IntN(100_000)), "EX", "1000"}
		case 3:
			args := []string{"MSET"}
			for i := range 1 + rng.IntN(30) {
				args = append(args, fmt.Sprint(key, i), "v")
			}
			return args
		default:
			return []string{"SET", key, fmt.Sprint(rng.Int64())}
		}
	}
	for range count {
		if rng.IntN(4) == 0 {
			selected = rng.IntN(16)
			c.do("SELECT", fmt.Sprint(selected))
		}
		if rng.IntN(6) > 0 {
			c.do(write()...)
			continue
		}
		c.do("MULTI")
		for range 2 + rng.IntN(5) { // Redis wraps no single command
			if rng.IntN(3) == 0 {
				selected = rng.IntN(16)
				c.do("SELECT", fmt.Sprint(selected))
			}
			c.do(write()...)
		}
		c.do("EXEC")
		transactions++
	}
	return transactions
}
