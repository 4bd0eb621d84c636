package psync

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp"
)

// cut divides data into pieces of the sizes in sizes, in turn.
func cut(data, sizes []byte) (out pieces) {
	for i := 0; len(data) > 0; i++ {
		n := len(data)
		if len(sizes) > 0 {
			n = min(n, 1+int(sizes[i%len(sizes)]))
		}
		out = append(out, data[:n])
		data = data[n:]
	}
	return out
}

// However a stream is cut, the scanner finds the commands that are found with
// all of it at hand, and never goes beyond what is whole.
func FuzzStreamScanner(f *testing.F) {
	f.Add([]byte(command("MULTI")+command("SELECT 3")+command("SET a b")+command("EXEC")), []byte{3})
	f.Add([]byte("\n\r\n*0\r\n"+command("REPLCONF GETACK *")+"x"), []byte{0})
	f.Add([]byte(command("SET k "+strings.Repeat("v", 300))+command("PING")), []byte{1, 70})
	f.Add([]byte("*3\r\n$-1\r\n"), []byte{})
	f.Fuzz(func(t *testing.T, stream, sizes []byte) {
		want, commit, commitDB, rest := naive(t, stream, UnknownDB)
		s := NewStreamScanner(0, UnknownDB)
		var got []seen
		var broken error
	scan:
		for _, p := range cut(stream, sizes) {
			for len(p) > 0 {
				c, n, ok, err := s.Next(p)
				if err != nil {
					broken = err
					break scan
				}
				if ok {
					if start := int(c.First) - 1; !bytes.HasPrefix(stream[start:c.Last], c.Head) {
						t.Fatalf("head of %d to %d is %q", c.First, c.Last, c.Head)
					}
					got = append(got, seen{c.Kind, int(c.Last-c.First) + 1, c.DB, c.Commit})
				}
				p = p[n:]
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatal(diff)
		}
		if last, db := s.Commit(); int(last) != commit || db != commitDB {
			t.Fatalf("commit point %d in db %d, want %d in %d", last, db, commit, commitDB)
		}
		var e *StreamError
		switch {
		case broken == nil && int(s.Offset()) != len(stream):
			t.Fatalf("offset %d of %d", s.Offset(), len(stream))
		case broken != nil && (!errors.As(broken, &e) || int(e.Offset) != len(stream)-rest+1):
			t.Fatalf("%v, want it at %d", broken, len(stream)-rest+1)
		}
	})
}

// What is written as a payload is read as that payload, however it is cut, and
// anything else gives an error and never more bytes than there are.
func FuzzPayload(f *testing.F) {
	f.Add([]byte("REDIS0010"), []byte("*1\r\n"), []byte{5}, true)
	f.Add([]byte(testMark[1:]), []byte(testMark), []byte{39}, true)
	f.Add([]byte("\n$5\r\n"), []byte{}, []byte{0}, false)
	f.Fuzz(func(t *testing.T, payload, rest, sizes []byte, marked bool) {
		h := PayloadHeader{Size: int64(len(payload))}
		if marked {
			h = PayloadHeader{Mark: testMark}
			// The first mark ends it.
			if i := bytes.Index(append(bytes.Clone(payload), testMark...), []byte(testMark)); i < len(payload) {
				payload = payload[:i]
			}
		}
		wire := append(append(append([]byte("\n"), h.Append(nil)...), payload...), h.Mark...)
		src := cut(append(wire, rest...), sizes)
		got, behind, err := readPayload(&src, MarkLen)
		if err != nil || !bytes.Equal(got, payload) || !bytes.Equal(behind, rest) {
			t.Fatalf("%v: %q, then %q, %v; want %q, then %q", h, got, behind, err, payload, rest)
		}
		raw := cut(payload, sizes)
		if got, behind, err := readPayload(&raw, ReaderSize); len(got)+len(behind) > len(payload) {
			t.Fatalf("%q, then %q, %v of %d bytes", got, behind, err, len(payload))
		}
	})
}

// A reply line is parsed to what is written as the same line, or Refused.
func FuzzAnswer(f *testing.F) {
	for _, line := range []string{"+CONTINUE", "+CONTINUE " + string(idA), "+FULLRESYNC " + string(idA) + " 5", "-LOADING x", "-ERR x", "$5"} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		var wire string
		switch a := ParseAnswer(line).(type) {
		case FullResync:
			wire = string(AppendFullResync(nil, a.Pos))
		case Continue:
			wire = string(AppendContinue(nil, a.ReplID, bothCapaIf(!a.ReplID.IsZero())))
		case Retry:
			if a.Line != line || !strings.HasPrefix(line, "-"+a.Code) {
				t.Fatalf("%q: %#v", line, a)
			}
			return
		case Refused:
			if a.Line != line {
				t.Fatalf("%q: %#v", line, a)
			}
			return
		}
		if again, err := ReadAnswer(NewReader(strings.NewReader(wire))); err != nil || again != ParseAnswer(line) {
			t.Fatalf("%q is written as %q and read as %v, %v", line, wire, again, err)
		}
	})
}

func bothCapaIf(yes bool) Capa {
	if yes {
		return CapaEOF | CapaPSYNC2
	}
	return CapaEOF
}

// Requests come out the same however they are cut, and what was understood of
// PSYNC and ACK is written as it was.
func FuzzRequest(f *testing.F) {
	f.Add([]byte(command("PING")+"\n"+command("REPLCONF capa eof")+command("PSYNC ? -1")), []byte{4})
	f.Add([]byte("PSYNC '"+string(idA)+"' 101 failover\r\nREPLCONF ACK 5 FACK 4\r\n"), []byte{0})
	f.Add([]byte("AUTH \"a\\x20b\" c\nREPLCONF rdb-filter-only \"\" rdb-only 1\n"), []byte{9})
	f.Fuzz(func(t *testing.T, wire, sizes []byte) {
		want, err1 := parseAll(bytes.NewReader(wire))
		src := cut(wire, sizes)
		got, err2 := parseAll(&src)
		if diff := cmp.Diff(want, got); diff != "" || !errors.Is(err2, err1) {
			t.Fatalf("%v, %v: %s", err1, err2, diff)
		}
		if _, err := parseAll(iotest.DataErrReader(bytes.NewReader(wire))); !errors.Is(err, err1) {
			t.Fatalf("%v, %v", err, err1)
		}
		for _, r := range got {
			var again []byte
			switch r := r.(type) {
			case PSync:
				if r.Want.ReplID.IsZero() || r.Want.Next < 0 {
					continue
				}
				again = AppendPSync(nil, r.Want)
			case AckRequest:
				again = AppendAck(nil, r.Ack)
			case Replconf:
				var a Announced
				var e ReplyError
				if err := a.Apply(r); err != nil && !errors.As(err, &e) {
					t.Fatal(err)
				}
				_ = resp.AppendError(nil, string(e))
				continue
			default:
				continue
			}
			q := NewRequestReader(bytes.NewReader(again))
			args, err := q.Next()
			if err != nil {
				t.Fatalf("%q: %v", again, err)
			}
			back, err := ParseRequest(args)
			if p, ok := r.(PSync); ok {
				p.Failover = false
				r = p
			}
			if diff := cmp.Diff(r, back); diff != "" || err != nil {
				t.Fatalf("%q: %v %s", again, err, diff)
			}
			if _, err := q.Next(); !errors.Is(err, io.EOF) {
				t.Fatalf("%q: more than one request: %v", again, err)
			}
		}
	})
}
