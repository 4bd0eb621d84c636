package psync_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// The way to attach without a fork where there was no replica before: an empty
// snapshot creates the backlog, and then the stream is had from where it is.
func TestRedisAttachAtCurrentOffset(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	c := newClient(t, master)
	if got := c.info("repl_backlog_active"); got != "0" {
		t.Fatalf("repl_backlog_active is %s", got)
	}
	base, a := request(t, master, psync.Handshake{Capa: bothCapa, RDBOnly: true, Filter: psync.EmptyRDB}, repl.Want{})
	full, ok := a.(psync.FullResync)
	if !ok || full.Pos != c.pos() {
		t.Fatalf("answer is %v, master is at %v", a, c.pos())
	}
	if h, _ := base.payload(); !h.Marked() {
		t.Errorf("a filtered payload has no mark: %+v", h)
	}
	forks := c.number("total_forks")

	l, a := request(t, master, psync.Handshake{Capa: bothCapa, ListeningPort: 6390, IPAddress: "10.9.8.7", Version: "8.0.1"}, full.Pos.Want())
	if a != (psync.Continue{ReplID: full.Pos.ReplID}) {
		t.Fatalf("answer is %v", a)
	}
	s := psync.NewStreamScanner(full.Pos.Offset, psync.UnknownDB)
	rng := rand.New(rand.NewPCG(1, 2))
	want := c.writes(rng, 300)
	c.do("SET", "big", strings.Repeat("x", 10<<20))
	c.do("MULTI")
	c.do("SET", "big2", strings.Repeat("y", 10<<20))
	c.do("SET", "last", "z")
	c.do("EXEC")
	want++
	c.do("SELECT", "11")
	c.do("SET", "last", "z")

	transactions, selects, largest := 0, 0, int64(0)
	l.follow(s, c.pos().Offset, func(c psync.StreamCommand) {
		switch c.Kind {
		case psync.KindExec:
			transactions++
		case psync.KindSelect:
			selects++
		}
		largest = max(largest, int64(c.Last-c.First))
	})
	if _, db := s.Commit(); db != 11 {
		t.Errorf("db is %d, want 11", db)
	}
	if transactions != want || selects < 10 || largest < 10<<20 {
		t.Errorf("%d transactions, want %d; %d SELECTs; largest command %d bytes", transactions, want, selects, largest)
	}
	l.quiet()
	l.ack(s.Offset())
	slave := fmt.Sprintf("ip=10.9.8.7,port=6390,state=online,offset=%d,", s.Offset())
	await(t, slave, func() bool { return strings.HasPrefix(c.info("slave0"), slave) })
	if n := c.number("total_forks") - forks; n != 0 {
		t.Errorf("%d forks", n)
	}

	// The connection is lost in the middle; from the commit point it goes on.
	_ = l.c.Close()
	c.writes(rng, 20)
	commit, db := s.Commit()
	l, a = request(t, master, psync.Handshake{Capa: bothCapa}, repl.Pos{ReplID: full.Pos.ReplID, Offset: commit}.Want())
	if a != (psync.Continue{ReplID: full.Pos.ReplID}) {
		t.Fatalf("answer is %v", a)
	}
	l.follow(psync.NewStreamScanner(commit, db), c.pos().Offset, nil)
	l.quiet()
}

// Without psync2 the master gives no id.
func TestRedisContinueWithoutID(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	c := newClient(t, master)
	_, _ = request(t, master, psync.Handshake{Capa: bothCapa, RDBOnly: true}, repl.Want{})
	if _, a := request(t, master, psync.Handshake{}, c.pos().Want()); a != (psync.Continue{}) {
		t.Errorf("answer is %v", a)
	}
}

func TestRedisFullResync(t *testing.T) {
	for _, diskless := range []string{"yes", "no"} {
		for _, rdbOnly := range []bool{false, true} {
			t.Run(fmt.Sprintf("diskless=%s/rdb-only=%v", diskless, rdbOnly), func(t *testing.T) {
				master := startRedis(t, localredis.Options{Args: []string{"--repl-diskless-sync", diskless}})
				c := newClient(t, master)
				rng := rand.New(rand.NewPCG(3, 4))
				c.writes(rng, 200)
				h := psync.Handshake{Capa: bothCapa, RDBOnly: rdbOnly}
				l, a := request(t, master, h, repl.Want{})
				full, ok := a.(psync.FullResync)
				if !ok {
					t.Fatalf("answer is %v", a)
				}
				// These follow directly behind a payload of known size.
				c.writes(rng, 200)
				end := c.pos()
				header, _ := l.payload()
				if header.Marked() != (diskless == "yes") {
					t.Errorf("payload is %+v", header)
				}
				if rdbOnly {
					if n, err := l.r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
						t.Errorf("behind the snapshot: %d bytes, %v", n, err)
					}
					return
				}
				if end.ReplID != full.Pos.ReplID || end.Offset <= full.Pos.Offset {
					t.Fatalf("master went from %v to %v", full.Pos, end)
				}
				if header.Marked() {
					l.quiet() // nothing comes before the first ACK
					l.start(c, full.Pos.Offset)
				}
				s := psync.NewStreamScanner(full.Pos.Offset, psync.UnknownDB)
				first := true
				l.follow(s, end.Offset, func(c psync.StreamCommand) {
					if first && c.Kind != psync.KindSelect && c.Kind != psync.KindMulti {
						t.Errorf("the stream begins with %v", c.Kind)
					}
					first = false
				})
				l.quiet()
			})
		}
	}
}

// A snapshot from a replica names the master's history and costs the master
// nothing.
func TestRedisSnapshotFromReplica(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startRedis(t, localredis.Options{ReplicaOf: master})
	c, rc := newClient(t, master), newClient(t, replica)
	c.writes(rand.New(rand.NewPCG(5, 6)), 100)
	await(t, "replica in sync", func() bool { return rc.info("master_link_status") == "up" && rc.pos() == c.pos() })
	forks := c.number("total_forks")
	l, a := request(t, replica, psync.Handshake{Capa: bothCapa, RDBOnly: true}, repl.Want{})
	if a != (psync.FullResync{Pos: c.pos()}) {
		t.Errorf("answer is %v, master is at %v", a, c.pos())
	}
	l.payload()
	if n := c.number("total_forks") - forks; n != 0 {
		t.Errorf("%d forks of the master", n)
	}
}

// A replica that has lost its master says so in words that we retry upon.
func TestRedisNoMasterLink(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startRedis(t, localredis.Options{ReplicaOf: master})
	rc := newClient(t, replica)
	await(t, "link up", func() bool { return rc.info("master_link_status") == "up" })
	master.Kill()
	await(t, "link down", func() bool { return rc.info("master_link_status") == "down" })
	_, a := request(t, replica, psync.Handshake{Capa: bothCapa}, rc.pos().Want())
	if retry, ok := a.(psync.Retry); !ok || retry.Line+"\r\n" != psync.ReplyNoMasterLink {
		t.Errorf("answer is %#v", a)
	}
}

func TestRedisAuth(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	c := newClient(t, master)
	c.do("ACL", "SETUSER", "repl", "on", ">secret", "+psync", "+replconf", "+ping")
	c.do("ACL", "SETUSER", "default", "-psync", "-ping")
	_, a := request(t, master, psync.Handshake{Username: "repl", Password: "secret", Capa: bothCapa}, repl.Want{})
	if _, ok := a.(psync.FullResync); !ok {
		t.Errorf("answer is %v", a)
	}
	if _, a = request(t, master, psync.Handshake{Capa: bothCapa}, repl.Want{}); a.(psync.Refused).Code != "NOPERM" {
		t.Errorf("without permission: %v", a)
	}
	conn := dial(t, master)
	bad := psync.Handshake{Username: "repl", Password: "wrong"}
	if err := bad.Run(conn, psync.NewReader(conn)); err == nil || !strings.Contains(err.Error(), "WRONGPASS") {
		t.Errorf("wrong password: %v", err)
	}
}

// WAIT makes the master ask; our answer, with and without FACK, satisfies it.
func TestRedisGetAck(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	c := newClient(t, master)
	l, a := request(t, master, psync.Handshake{Capa: bothCapa}, repl.Want{})
	pos := a.(psync.FullResync).Pos
	l.payload()
	l.start(c, pos.Offset)
	s := psync.NewStreamScanner(pos.Offset, psync.UnknownDB)
	for _, fsynced := range []bool{false, true} {
		c.do("SET", "a", "b")
		written := c.pos().Offset
		c.send("WAIT", "1", fmt.Sprint(patience.Milliseconds()))
		buf := make([]byte, 1024)
		asked := false
		for !asked {
			n, err := l.r.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			for p := buf[:n]; len(p) > 0; {
				cmd, n, ok, err := s.Next(p)
				if err != nil {
					t.Fatal(err)
				}
				asked = asked || ok && cmd.Kind == psync.KindGetAck && cmd.First > written
				p = p[n:]
			}
		}
		ack := psync.Ack{Offset: s.Offset(), Fsynced: repl.UnknownOffset}
		if fsynced {
			ack.Fsynced = s.Offset() // Redis up to 7.0 must pass over it
		}
		if _, err := l.c.Write(psync.AppendAck(nil, ack)); err != nil {
			t.Fatal(err)
		}
		if got := c.reply(); got != ":1\r\n" {
			t.Errorf("WAIT replied %q", got)
		}
		if pos := c.pos(); pos.Offset != s.Offset() {
			t.Errorf("GETACK counts: master is at %d, scanner at %d", pos.Offset, s.Offset())
		}
	}
}
