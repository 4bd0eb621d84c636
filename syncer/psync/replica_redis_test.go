package psync_test

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// master is what these tests play to a stock replica: each connection is
// handled by the test itself, in turn.
type master struct {
	t *testing.T
	l net.Listener
}

func newMaster(t *testing.T) *master {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return &master{t, l}
}

func (m *master) port() string { return strconv.Itoa(m.l.Addr().(*net.TCPAddr).Port) }

// replicaConn is the connection of a stock replica.
type replicaConn struct {
	t *testing.T
	c net.Conn
	q *psync.RequestReader
}

// accept takes the next connection and answers its handshake up to PSYNC.
func (m *master) accept() (*replicaConn, psync.Announced, psync.PSync) {
	m.t.Helper()
	c, err := m.l.Accept()
	if err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() { _ = c.Close() })
	r := &replicaConn{m.t, patient{c}, psync.NewRequestReader(patient{c})}
	var a psync.Announced
	for {
		switch req := r.next().(type) {
		case psync.Ping:
			r.send(psync.ReplyPong)
		case psync.Replconf:
			if err := a.Apply(req); err != nil {
				m.t.Fatal(err)
			}
			r.send(psync.ReplyOK)
		case psync.PSync:
			return r, a, req
		default:
			m.t.Fatalf("in the handshake: %#v", req)
		}
	}
}

func (r *replicaConn) next() psync.Request {
	r.t.Helper()
	args, err := r.q.Next()
	if err != nil {
		r.t.Fatal(err)
	}
	req, err := psync.ParseRequest(args)
	if err != nil {
		r.t.Fatal(err)
	}
	return req
}

func (r *replicaConn) send(b string) {
	r.t.Helper()
	if _, err := io.WriteString(r.c, b); err != nil {
		r.t.Fatal(err)
	}
}

// awaitAck reads until the replica has acknowledged offset.
func (r *replicaConn) awaitAck(offset repl.Offset) {
	r.t.Helper()
	for {
		switch req := r.next().(type) {
		case psync.AckRequest:
			if req.Offset > offset {
				r.t.Fatalf("replica acknowledged %d, we are at %d", req.Offset, offset)
			}
			if req.Offset == offset {
				return
			}
		case psync.Ignored:
		default:
			r.t.Fatalf("awaiting ACK: %#v", req)
		}
	}
}

// A stock replica is fed by what both halves of this package make of a stock
// master's bytes: snapshot in either framing, stream, another id after a
// failover, and the errors that make it keep its place.
func TestRedisServesReplica(t *testing.T) {
	for _, marked := range []bool{false, true} {
		t.Run(fmt.Sprintf("marked=%v", marked), func(t *testing.T) {
			t.Parallel() // the replica takes a second over each new attempt
			serveReplica(t, marked)
		})
	}
}

func serveReplica(t *testing.T, marked bool) {
	upstream := startRedis(t, localredis.Options{})
	uc := newClient(t, upstream)
	rng := rand.New(rand.NewPCG(7, 8))
	uc.writes(rng, 100)
	l, a := request(t, upstream, psync.Handshake{Capa: bothCapa}, repl.Want{})
	pos := a.(psync.FullResync).Pos
	_, snapshot := l.payload()
	l.start(uc, pos.Offset)
	history, err := repl.NewHistory(pos.ReplID)
	if err != nil {
		t.Fatal(err)
	}

	m := newMaster(t)
	replica := startRedis(t, localredis.Options{Args: []string{"--replicaof", "127.0.0.1 " + m.port()}})
	rc := newClient(t, replica)

	// Full resync.
	r, announced, want := m.accept()
	if diff := cmp.Diff(psync.Announced{ListeningPort: replica.Port(), Capa: bothCapa}, announced); diff != "" {
		t.Error(diff)
	}
	if !want.Want.IsZero() || want.Failover || want.Malformed {
		t.Errorf("replica asks for %+v", want)
	}
	h := psync.PayloadHeader{Size: int64(len(snapshot))}
	if marked {
		h = psync.NewPayloadMark()
	}
	r.send(psync.KeepAlive)
	r.send(string(psync.AppendFullResync(nil, pos)))
	r.send(psync.KeepAlive)
	r.send(string(h.Append(nil)) + string(snapshot) + h.Mark)
	if marked {
		r.awaitAck(pos.Offset)
	}

	// Stream.
	s := psync.NewStreamScanner(pos.Offset, psync.UnknownDB)
	relay := func() {
		t.Helper()
		uc.writes(rng, 50)
		l.tee = r.send
		l.follow(s, uc.pos().Offset, nil)
		r.awaitAck(s.Offset())
		if got, want := rc.pos(), (repl.Pos{ReplID: history.Current(), Offset: s.Offset()}); got != want {
			t.Errorf("replica is at %v, want %v", got, want)
		}
		if got, want := rc.do("DEBUG", "DIGEST"), uc.do("DEBUG", "DIGEST"); got != want {
			t.Errorf("digest of the replica is %s, of the master %s", got, want)
		}
	}
	relay()

	// Not ready: it comes back with the same request, and not by SYNC.
	_ = r.c.Close()
	for _, reply := range []string{psync.ReplyNoMasterLink, psync.ReplyLoading} {
		r, _, want = m.accept()
		if want.Want != (repl.Pos{ReplID: history.Current(), Offset: s.Offset()}).Want() {
			t.Errorf("replica asks for %v, is at %d", want.Want, s.Offset())
		}
		r.send(psync.KeepAlive + reply)
	}
	r, _, want = m.accept()
	if v := history.Accepts(want.Want, 1, s.Offset()); v != repl.Accepted {
		t.Fatalf("replica asks for %v: %v", want.Want, v)
	}

	// It is told of a failover, and takes the same view of it as we.
	if history, err = history.Append(idB, s.Offset()); err != nil {
		t.Fatal(err)
	}
	r.send(string(psync.AppendContinue(nil, history.Current(), bothCapa)))
	relay()
	second, offset := history.Second()
	if rc.info("master_replid2") != string(second) || rc.number("second_repl_offset") != int64(offset) {
		t.Errorf("replica has %s up to %s, we %s up to %d", rc.info("master_replid2"), rc.info("second_repl_offset"), second, offset)
	}

	// It passes the stream on to a replica of its own, which then stands where
	// it stands itself.
	sub, err := localredis.Start(context.Background(), localredis.Options{ReplicaOf: replica})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sub.Stop)
	sc := newClient(t, sub)
	await(t, "replica's replica", func() bool { return sc.pos() == rc.pos() })
}

// FAILOVER makes a stock master ask us to take its place, in a form that we
// know; an error makes it give up.
func TestRedisFailoverRequest(t *testing.T) {
	upstream := startRedis(t, localredis.Options{})
	uc := newClient(t, upstream)
	m := newMaster(t)
	host, port := "127.0.0.1", m.port()
	listen, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	l, a := request(t, upstream, psync.Handshake{Capa: bothCapa, IPAddress: host, ListeningPort: listen}, repl.Want{})
	pos := a.(psync.FullResync).Pos
	l.payload()
	l.start(uc, pos.Offset)
	slave := fmt.Sprintf("ip=%s,port=%s,state=online,offset=%d", host, port, pos.Offset)
	await(t, slave, func() bool { return len(uc.info("slave0")) >= len(slave) && uc.info("slave0")[:len(slave)] == slave })
	uc.do("FAILOVER", "TO", host, port)
	// Before it asks, it wants an ACK of its last byte.
	s := psync.NewStreamScanner(pos.Offset, psync.UnknownDB)
	l.follow(s, uc.pos().Offset, nil)
	l.ack(s.Offset())
	r, _, want := m.accept()
	if want.Want != uc.pos().Want() || !want.Failover {
		t.Errorf("master asks for %+v, is at %v", want, uc.pos())
	}
	r.send("-ERR a relay cannot become a master\r\n")
	await(t, "failover given up", func() bool { return uc.info("master_failover_state") == "no-failover" })
	if role := uc.info("role"); role != "master" {
		t.Errorf("role is %s", role)
	}
}
