package psync_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/psync/psynctest"
	"github.com/sluice-io/sluice/syncer/repl"
)

var (
	idA = repl.ReplID(strings.Repeat("a", repl.ReplIDLen))
	idB = repl.ReplID(strings.Repeat("b", repl.ReplIDLen))
)

func TestParseAnswer(t *testing.T) {
	a := string(idA)
	for line, want := range map[string]psync.Answer{
		"+FULLRESYNC " + a + " 0":                     psync.FullResync{Pos: repl.Pos{ReplID: idA}},
		"+FULLRESYNC " + a + " 123":                   psync.FullResync{Pos: repl.Pos{ReplID: idA, Offset: 123}},
		"+FULLRESYNC " + a + " 123 more":              psync.FullResync{Pos: repl.Pos{ReplID: idA, Offset: 123}},
		"+CONTINUE":                                   psync.Continue{},
		"+CONTINUE ":                                  psync.Continue{},
		"+CONTINUE " + a:                              psync.Continue{ReplID: idA},
		"-NOMASTERLINK Can't SYNC while failing over": psync.Retry{Code: "NOMASTERLINK", Line: "-NOMASTERLINK Can't SYNC while failing over"},
		"-LOADING Redis is loading":                   psync.Retry{Code: "LOADING", Line: "-LOADING Redis is loading"},
		"-MASTERDOWN Link with MASTER is down":        psync.Retry{Code: "MASTERDOWN", Line: "-MASTERDOWN Link with MASTER is down"},
		"-BUSY Redis is busy":                         psync.Retry{Code: "BUSY", Line: "-BUSY Redis is busy"},
		"-BUSYKEY x":                                  psync.Refused{Code: "BUSYKEY", Line: "-BUSYKEY x"},
		"-NOAUTH Authentication required.":            psync.Refused{Code: "NOAUTH", Line: "-NOAUTH Authentication required."},
		"-NOPERM x":                                   psync.Refused{Code: "NOPERM", Line: "-NOPERM x"},
		"-WRONGPASS x":                                psync.Refused{Code: "WRONGPASS", Line: "-WRONGPASS x"},
		"-ERR unknown command":                        psync.Refused{Code: "ERR", Line: "-ERR unknown command"},
		"-":                                           psync.Refused{Line: "-"},
		"":                                            psync.Refused{},
		"+DUALCHANNELSYNC":                            psync.Refused{Line: "+DUALCHANNELSYNC"},
		"+FULLRESYNC":                                 psync.Refused{Line: "+FULLRESYNC"},
		"+FULLRESYNC " + a:                            psync.Refused{Line: "+FULLRESYNC " + a},
		"+FULLRESYNC " + a + " -1":                    psync.Refused{Line: "+FULLRESYNC " + a + " -1"},
		"+FULLRESYNC " + a[1:] + " 1":                 psync.Refused{Line: "+FULLRESYNC " + a[1:] + " 1"},
		"+FULLRESYNC" + a + " 1":                      psync.Refused{Line: "+FULLRESYNC" + a + " 1"},
		"+CONTINUE " + a[1:]:                          psync.Refused{Line: "+CONTINUE " + a[1:]},
		"+CONTINUE " + a + "a":                        psync.Refused{Line: "+CONTINUE " + a + "a"},
		"+CONTINUED":                                  psync.Refused{Line: "+CONTINUED"},
		":1":                                          psync.Refused{Line: ":1"},
		"*3":                                          psync.Refused{Line: "*3"},
		"+FULLRESYNC " + strings.ToUpper(a) + " 123":     psync.Refused{Line: "+FULLRESYNC " + strings.ToUpper(a) + " 123"},
		"+FULLRESYNC " + a + " 99999999999999999999":     psync.Refused{Line: "+FULLRESYNC " + a + " 99999999999999999999"},
		"+FULLRESYNC  " + a + " 1":                       psync.Refused{Line: "+FULLRESYNC  " + a + " 1"},
		"-ERR BGSAVE failed, replication can't continue": psync.Refused{Code: "ERR", Line: "-ERR BGSAVE failed, replication can't continue"},
	} {
		if diff := cmp.Diff(want, psync.ParseAnswer(line)); diff != "" {
			t.Errorf("%q: %s", line, diff)
		}
	}
}

func TestReadLine(t *testing.T) {
	r := psync.NewReader(iotest.OneByteReader(strings.NewReader("\n\r\nOK\r\na\rb\n" + strings.Repeat("x", psync.MaxLineBytes) + "\r\n")))
	for _, want := range []string{"", "", "OK", "a\rb", strings.Repeat("x", psync.MaxLineBytes)} {
		if got, err := psync.ReadLine(r); err != nil || got != want {
			t.Errorf("ReadLine = %q, %v; want %q", got, err, want)
		}
	}
	if _, err := psync.ReadLine(r); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if _, err := psync.ReadLine(psync.NewReader(strings.NewReader("+OK"))); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("in a line: %v", err)
	}
	if _, err := psync.ReadLine(psync.NewReader(strings.NewReader(strings.Repeat("x", 5000)))); !errors.Is(err, psync.ErrLineTooLong) {
		t.Errorf("endless line: %v", err)
	}
}

// attach runs a handshake and PSYNC against a scripted master.
func attach(t *testing.T, h psync.Handshake, w repl.Want, script func(*psynctest.Session)) (psync.Answer, net.Conn, *bufio.Reader, error) {
	t.Helper()
	m := psynctest.NewMaster(t)
	m.Script(script)
	c, err := m.Dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	r := psync.NewReader(c)
	if err := h.Run(c, r); err != nil {
		_ = c.Close()
		m.Wait()
		return nil, c, r, err
	}
	if _, err := c.Write(psync.AppendPSync(nil, w)); err != nil {
		t.Fatal(err)
	}
	a, err := psync.ReadAnswer(r)
	return a, c, r, err
}

func TestHandshakeOrder(t *testing.T) {
	h := psync.Handshake{
		Username: "repl", Password: "secret", ListeningPort: 6390, IPAddress: "10.0.0.1",
		Capa: psync.CapaEOF | psync.CapaPSYNC2, Version: "8.0.1", RDBOnly: true, Filter: psync.FunctionsOnly,
	}
	a, _, _, err := attach(t, h, repl.Pos{ReplID: idA, Offset: 100}.Want(), func(s *psynctest.Session) {
		s.Expect("PING")
		s.Send("-NOAUTH Authentication required.\r\n")
		for _, words := range []string{"AUTH repl secret", "REPLCONF listening-port 6390", "REPLCONF ip-address 10.0.0.1",
			"REPLCONF capa eof capa psync2", "REPLCONF version 8.0.1", "REPLCONF rdb-only 1", "REPLCONF rdb-filter-only functions"} {
			s.Expect(strings.Fields(words)...)
		}
		s.Send("+O", "K\r", "\n\n+OK\r\n+OK\r\n\n", "\n+OK\r\n-ERR Unrecognized REPLCONF option: version\r\n+OK\r\n+OK\r\n")
		s.Expect("PSYNC", string(idA), "101")
		s.Send("\n", "\n", "\n+CONT", "INUE "+string(idB)+"\r", "\n")
	})
	if err != nil {
		t.Fatal(err)
	}
	if a != (psync.Continue{ReplID: idB}) {
		t.Errorf("answer is %v", a)
	}
}

func TestHandshakeLeast(t *testing.T) {
	a, _, _, err := attach(t, psync.Handshake{}, repl.Want{}, func(s *psynctest.Session) {
		s.Expect("PING")
		s.Send("+PONG\r\n")
		s.Expect("PSYNC", "?", "-1")
		s.Send("+FULLRESYNC " + string(idA) + " 7\r\n")
	})
	if err != nil || a != (psync.FullResync{Pos: repl.Pos{ReplID: idA, Offset: 7}}) {
		t.Errorf("answer is %v, %v", a, err)
	}
}

func TestHandshakeErrors(t *testing.T) {
	h := psync.Handshake{Password: "secret", ListeningPort: 1, Capa: psync.CapaEOF, Version: "1.2.3", RDBOnly: true}
	noAuth := psync.Handshake{ListeningPort: 1}
	const ok = "+OK\r\n"
	tests := []struct {
		name    string
		h       psync.Handshake
		ping    string
		replies string // to what follows PING
		command string // named in the error; empty for none
		code    string
		retry   bool
	}{
		{"password wanted, none given", noAuth, "-NOAUTH Authentication required.\r\n", "", "PING", "NOAUTH", false},
		{"loading", h, "-LOADING Redis is loading the dataset in memory\r\n", "", "PING", "LOADING", true},
		{"stale replica", h, "-MASTERDOWN Link with MASTER is down\r\n", "", "PING", "MASTERDOWN", true},
		{"too many clients", h, "-ERR max number of clients reached\r\n", "", "PING", "ERR", false},
		{"no Redis", h, "HTTP/1.1 400 Bad Request\r\n", "", "PING", "", false},
		{"PING not permitted", h, "-NOPERM no\r\n", strings.Repeat(ok, 5), "", "", false},
		{"wrong password", h, "-NOAUTH x\r\n", "-WRONGPASS no\r\n" + strings.Repeat("-NOAUTH x\r\n", 4), "AUTH", "WRONGPASS", false},
		{"no password configured", h, "+PONG\r\n", "-ERR AUTH <password> called without any password\r\n" + strings.Repeat(ok, 4), "AUTH", "ERR", false},
		{"REPLCONF not permitted", h, "+PONG\r\n", ok + "-NOPERM no\r\n" + strings.Repeat(ok, 3), "REPLCONF listening-port", "NOPERM", false},
		{"busy", h, "+PONG\r\n", ok + ok + "-BUSY script\r\n" + ok + ok, "REPLCONF capa", "BUSY", true},
		{"old master: optional ones are ignored", h, "+PONG\r\n", ok + "-ERR x\r\n-ERR x\r\n-ERR x\r\n" + ok, "", "", false},
		{"old master: rdb-only is not", h, "+PONG\r\n", ok + ok + ok + ok + "-ERR Unrecognized REPLCONF option: rdb-only\r\n", "REPLCONF rdb-only", "ERR", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, _, err := attach(t, tt.h, repl.Want{}, func(s *psynctest.Session) {
				s.Expect("PING")
				s.Send(tt.ping)
				if tt.replies == "" {
					s.AwaitClose()
					return
				}
				for range 5 {
					s.Next()
				}
				s.Send(tt.replies)
				if tt.command != "" {
					s.AwaitClose()
					return
				}
				s.Expect("PSYNC", "?", "-1")
				s.Send("+CONTINUE\r\n")
			})
			if tt.command == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.HasPrefix(err.Error(), tt.command+": ") {
				t.Fatalf("error is %v, want one of %s", err, tt.command)
			}
			if strings.Contains(err.Error(), "secret") {
				t.Errorf("error holds the password: %v", err)
			}
			var retry psync.Retry
			var refused psync.Refused
			switch {
			case errors.As(err, &retry):
				if !tt.retry || retry.Code != tt.code {
					t.Errorf("error is %#v", retry)
				}
			case errors.As(err, &refused):
				if tt.retry || refused.Code != tt.code {
					t.Errorf("error is %#v", refused)
				}
			default:
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestHandshakeConnectionLost(t *testing.T) {
	for _, sent := range []string{"", "+PO", "+PONG\r\n", "+PONG\r\n+OK\r"} {
		_, _, _, err := attach(t, psync.Handshake{ListeningPort: 1}, repl.Want{}, func(s *psynctest.Session) {
			s.Expect("PING")
			if strings.Contains(sent, "\n") {
				s.Send("+PONG\r\n")
				s.Next()
				if rest := sent[len("+PONG\r\n"):]; rest != "" {
					s.Send(rest)
				}
			} else if sent != "" {
				s.Send(sent)
			}
		})
		if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("after %q: %v", sent, err)
		}
	}
}

func TestAppendAck(t *testing.T) {
	if got, want := string(psync.AppendAck(nil, psync.Ack{Offset: 123, Fsynced: repl.UnknownOffset})), "*3\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$3\r\n123\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := string(psync.AppendAck(nil, psync.Ack{Offset: 123, Fsynced: 0})), "*5\r\n$8\r\nREPLCONF\r\n$3\r\nACK\r\n$3\r\n123\r\n$4\r\nFACK\r\n$1\r\n0\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
