package psynctest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var id = repl.ReplID(strings.Repeat("a", repl.ReplIDLen))

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	errors []string
}

func (r *recorder) Helper()          {}
func (r *recorder) Cleanup(f func()) { r.TB.Cleanup(f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func TestSession(t *testing.T) {
	m := NewMaster(t)
	pos := repl.Pos{ReplID: id, Offset: 100}
	h := psync.PayloadHeader{Mark: strings.Repeat("m", psync.MarkLen)}
	m.Script(func(s *Session) {
		want, announced := s.Handshake()
		if !want.Want.IsZero() || announced.ListeningPort != 7 {
			t.Errorf("%+v, %+v", want, announced)
		}
		header := len(h.Append(nil))
		s.FullResync(pos, h, "REDIS", 3, header, header+5, header+6, header+44)
		if ack := s.AwaitAck(102); ack.Fsynced != 101 {
			t.Errorf("%+v", ack)
		}
		s.Send("abc", "de", "f")
		s.AwaitClose()
	})
	c, err := m.Dial(context.Background(), "tcp", "somewhere:6379")
	if err != nil {
		t.Fatal(err)
	}
	r := psync.NewReader(c)
	handshake := psync.Handshake{Password: "x", ListeningPort: 7}
	if err := handshake.Run(c, r); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(psync.AppendPSync(nil, repl.Want{})); err != nil {
		t.Fatal(err)
	}
	if a, err := psync.ReadAnswer(r); err != nil || a != (psync.FullResync{Pos: pos}) {
		t.Fatalf("%v, %v", a, err)
	}
	got, err := psync.ReadPayloadHeader(r)
	if err != nil || got != h {
		t.Fatalf("%v, %v", got, err)
	}
	if b, err := io.ReadAll(psync.NewPayloadReader(r, got)); err != nil || string(b) != "REDIS" {
		t.Fatalf("%q, %v", b, err)
	}
	// The script need not be reading for us to write.
	for _, a := range []psync.Ack{{Offset: 100, Fsynced: repl.UnknownOffset}, {Offset: 102, Fsynced: 101}, {Offset: 102, Fsynced: 102}} {
		if _, err := c.Write(psync.AppendAck(nil, a)); err != nil {
			t.Fatal(err)
		}
	}
	var pieces []string
	buf := make([]byte, 100)
	for range 3 {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		pieces = append(pieces, string(buf[:n]))
	}
	if diff := cmp.Diff([]string{"abc", "de", "f"}, pieces); diff != "" {
		t.Error(diff)
	}
	_ = c.Close()
	m.Wait()
}

func TestDialRefused(t *testing.T) {
	m := NewMaster(t)
	if _, err := m.Dial(context.Background(), "", ""); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("without a script: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	m.Script(func(*Session) {})
	if _, err := m.Dial(ctx, "", ""); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	c, err := m.Dial(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("behind the script's end: %v", err)
	}
}

// A script that does not get what it wants fails the test.
func TestScriptFails(t *testing.T) {
	for name, script := range map[string]func(*Session){
		"other words": func(s *Session) { s.Expect("PING", "x") },
		"other kind":  func(s *Session) { s.AwaitAck(5) },
		"closed":      func(s *Session) { s.Expect("PING"); s.Next() },
		"unread":      func(s *Session) { s.Expect("PING"); s.Send("x") },
	} {
		rec := &recorder{TB: t}
		m := NewMaster(rec)
		m.Script(func(s *Session) {
			script(s)
			t.Errorf("%s: the script went on", name)
		})
		c, err := m.Dial(context.Background(), "", "")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(c, "PING\r\n"); err != nil {
			t.Fatal(err)
		}
		_ = c.Close()
		m.Wait()
		if len(rec.errors) != 1 {
			t.Errorf("%s: errors %q", name, rec.errors)
		}
	}
	rec := &recorder{TB: t}
	m := NewMaster(rec)
	m.Script(func(*Session) {})
	if m.Wait(); len(rec.errors) != 1 {
		t.Errorf("a connection that was not made: errors %q", rec.errors)
	}
}
