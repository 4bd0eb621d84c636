package psync

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
)

var idA = repl.ReplID(strings.Repeat("a", repl.ReplIDLen))

// parseAll reads and parses what a replica sends. Other is shown by its name.
func parseAll(src io.Reader) (out []any, err error) {
	q := NewRequestReader(src)
	for {
		args, err := q.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return out, err
		}
		r, err := ParseRequest(args)
		if o, ok := r.(Other); ok {
			out = append(out, "other "+string(o.Args.At(0)))
			continue
		}
		if err != nil {
			out = append(out, err)
			continue
		}
		out = append(out, r)
	}
}

func TestParseRequest(t *testing.T) {
	a := string(idA)
	replconf := func(pairs ...string) Replconf {
		var r Replconf
		for i := 0; i < len(pairs); i += 2 {
			r.Options = append(r.Options, ReplconfOption{pairs[i], pairs[i+1]})
		}
		return r
	}
	unknown := repl.UnknownOffset
	tests := map[string][]any{
		"PING":                               {Ping{}},
		"ping x":                             {"other ping"},
		"AUTH pw":                            {Auth{Password: "pw"}},
		"auth user pw":                       {Auth{Username: "user", Password: "pw"}},
		"AUTH":                               {errArity("auth")},
		"AUTH a b c":                         {errSyntax},
		"REPLCONF listening-port 6380":       {replconf("listening-port", "6380")},
		"REPLCONF capa eof CAPA psync2":      {replconf("capa", "eof", "capa", "psync2")},
		"REPLCONF":                           {errArity("replconf")},
		"REPLCONF capa":                      {errSyntax},
		"REPLCONF ACK 123":                   {AckRequest{Ack{123, unknown}}},
		"replconf ack 123 fack 100":          {AckRequest{Ack{123, 100}}},
		"REPLCONF ACK 123 FACK x":            {AckRequest{Ack{123, unknown}}},
		"REPLCONF ACK 123 other 5":           {AckRequest{Ack{123, unknown}}},
		"REPLCONF ACK x":                     {Ignored{}},
		"REPLCONF ACK -1":                    {Ignored{}},
		"REPLCONF GETACK *":                  {Ignored{}},
		"PSYNC ? -1":                         {PSync{}},
		"PSYNC ? 5":                          {PSync{}},
		"psync " + a + " 101":                {PSync{Want: repl.Want{ReplID: idA, Next: 101}}},
		"PSYNC " + strings.ToUpper(a) + " 1": {PSync{Want: repl.Want{ReplID: idA, Next: 1}}},
		"PSYNC " + a + " 101 FAILOVER":       {PSync{Want: repl.Want{ReplID: idA, Next: 101}, Failover: true}},
		"PSYNC " + a + " 101 other":          {PSync{Want: repl.Want{ReplID: idA, Next: 101}}},
		"PSYNC x 101":                        {PSync{Malformed: true}},
		"PSYNC " + a + " x":                  {errNotInteger},
		"PSYNC " + a:                         {errArity("psync")},
		"SYNC":                               {Sync{}},
		"SYNC x":                             {errArity("sync")},
		"INFO replication":                   {"other INFO"},
		"":                                   {Ignored{}},
	}
	for words, want := range tests {
		for form, wire := range map[string]string{"array": command(words), "inline": words + "\r\n"} {
			got, err := parseAll(strings.NewReader(wire))
			if err != nil {
				t.Errorf("%s %q: %v", form, words, err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s %q: %s", form, words, diff)
			}
		}
	}
}

// What a 6.2+ replica sends in one piece, an older one step by step, and one
// that loads between newlines, comes out the same however it is cut.
func TestRequestReaderCutAnywhere(t *testing.T) {
	wire := "\n" + command("PING") + command("AUTH u p") + command("REPLCONF listening-port 1") + "\n\n" +
		command("REPLCONF capa eof capa psync2") + "PSYNC \"?\" -1\n" + command("REPLCONF ACK 0")
	want, err := parseAll(strings.NewReader(wire))
	if err != nil || len(want) != 9 {
		t.Fatalf("%v, %v", want, err)
	}
	if diff := cmp.Diff(PSync{}, want[7]); diff != "" {
		t.Error(diff)
	}
	for i := range wire {
		got, err := parseAll(io.MultiReader(strings.NewReader(wire[:i]), strings.NewReader(wire[i:])))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Fatalf("cut at %d: %v %s", i, err, diff)
		}
	}
	got, err := parseAll(iotest.OneByteReader(strings.NewReader(wire)))
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Fatalf("byte by byte: %v %s", err, diff)
	}
}

func TestRequestReaderErrors(t *testing.T) {
	for wire, want := range map[string]error{
		"*1\r\n$4\r\nPI":            io.ErrUnexpectedEOF,
		"PING":                      io.ErrUnexpectedEOF,
		"*x\r\n":                    resp.ErrInvalidMultibulkLength,
		"PING \"x\n":                resp.ErrUnbalancedQuotes,
		"*1\r\n$16385\r\n":          resp.ErrInvalidBulkLength,
		"*1025\r\n":                 resp.ErrInvalidMultibulkLength,
		strings.Repeat("x", 17<<10): resp.ErrTooBigInline,
		"*1024\r\n$1\r\nx\r\n" + strings.Repeat("$1000\r\n"+strings.Repeat("x", 1000)+"\r\n", 80): ErrRequestTooLarge,
	} {
		if _, err := parseAll(strings.NewReader(wire)); !errors.Is(err, want) {
			t.Errorf("%.30q: %v, want %v", wire, err, want)
		}
	}
	q := NewRequestReader(strings.NewReader("*11\r\n$4\r\nPING\r\n"))
	q.Limits = &resp.UnauthenticatedLimits
	if _, err := q.Next(); !errors.Is(err, resp.ErrUnauthMultibulkLength) {
		t.Errorf("unauthenticated: %v", err)
	}
}

// What is malformed is refused when it is seen, not when as much has come as a
// well-formed request would have had.
func TestRequestReaderRefusesEarly(t *testing.T) {
	for _, wire := range []string{"*3\r\n:\r\n", "*3\r\n$4\r\nPING\r\nx\r\n", "*-\r\n"} {
		r, w := io.Pipe()
		late := time.AfterFunc(10*time.Second, func() { _ = w.CloseWithError(errors.New("still waiting")) })
		go func() { _, _ = io.WriteString(w, wire) }()
		var malformed resp.ProtocolError
		if _, err := NewRequestReader(r).Next(); !errors.As(err, &malformed) {
			t.Errorf("%q: %v", wire, err)
		}
		late.Stop()
		_ = w.Close()
	}
}

func TestRequestReaderBuffered(t *testing.T) {
	q := NewRequestReader(strings.NewReader(command("PING") + command("SYNC")))
	for _, want := range []int{len(command("SYNC")), 0} {
		if _, err := q.Next(); err != nil || q.Buffered() != want {
			t.Errorf("%d bytes buffered, %v; want %d", q.Buffered(), err, want)
		}
	}
}

func TestAnnounced(t *testing.T) {
	long := strings.Repeat("h", maxAddress)
	tests := []struct {
		commands []string
		want     Announced
		err      string // of the last command
	}{
		{[]string{"REPLCONF listening-port 6380", "REPLCONF ip-address 10.1.1.1", "REPLCONF capa eof capa psync2 capa dual-channel", "REPLCONF version 9.0.1"},
			Announced{ListeningPort: 6380, IPAddress: "10.1.1.1", Capa: CapaEOF | CapaPSYNC2, Version: "9.0.1"}, ""},
		{[]string{"REPLCONF rdb-only 1 rdb-filter-only functions"}, Announced{RDBOnly: true, Filter: FunctionsOnly}, ""},
		{[]string{"REPLCONF rdb-filter-only functions", "REPLCONF rdb-filter-only \"\""}, Announced{Filter: EmptyRDB}, ""},
		{[]string{"REPLCONF rdb-only 1", "REPLCONF rdb-only 0", "REPLCONF rdb-channel 1"}, Announced{RDBChannel: true}, ""},
		{[]string{"REPLCONF capa eof what 5 capa psync2"}, Announced{Capa: CapaEOF}, "ERR Unrecognized REPLCONF option: what"},
		{[]string{"REPLCONF listening-port x"}, Announced{}, "ERR value is not an integer or out of range"},
		{[]string{"REPLCONF rdb-only 2"}, Announced{}, "ERR value is out of range, value must between 0 and 1"},
		{[]string{"REPLCONF rdb-filter-only keys"}, Announced{}, "ERR Unsupported rdb-filter-only option: keys"},
		{[]string{"REPLCONF ip-address " + long}, Announced{}, "ERR REPLCONF ip-address provided by replica instance is too long: 256 bytes"},
		{[]string{"REPLCONF ip-address " + long[1:]}, Announced{IPAddress: long[1:]}, ""},
	}
	for _, tt := range tests {
		var a Announced
		var last error
		for _, c := range tt.commands {
			q := NewRequestReader(strings.NewReader(c + "\r\n"))
			args, err := q.Next()
			if err != nil {
				t.Fatal(err)
			}
			r, err := ParseRequest(args)
			if err != nil {
				t.Fatal(err)
			}
			last = a.Apply(r.(Replconf))
		}
		if diff := cmp.Diff(tt.want, a); diff != "" {
			t.Errorf("%q: %s", tt.commands, diff)
		}
		if tt.err == "" && last != nil || tt.err != "" && (last == nil || last.Error() != tt.err) {
			t.Errorf("%.80q: error %v, want %q", tt.commands, last, tt.err)
		}
	}
}

// What we write as a replica we read as a master, and the other way round.
func TestBothDirections(t *testing.T) {
	for _, w := range []repl.Want{{}, {ReplID: idA, Next: 1}, {ReplID: idA, Next: 1 << 60}} {
		got, err := parseAll(strings.NewReader(string(AppendPSync(nil, w))))
		if diff := cmp.Diff([]any{PSync{Want: w}}, got); diff != "" || err != nil {
			t.Errorf("%v: %v %s", w, err, diff)
		}
	}
	for _, a := range []Ack{{0, repl.UnknownOffset}, {1 << 60, 1 << 59}, {5, 0}} {
		got, err := parseAll(strings.NewReader(string(AppendAck(nil, a))))
		if diff := cmp.Diff([]any{AckRequest{a}}, got); diff != "" || err != nil {
			t.Errorf("%v: %v %s", a, err, diff)
		}
	}
	for wire, want := range map[string]Answer{
		string(AppendFullResync(nil, repl.Pos{ReplID: idA, Offset: 9})): FullResync{repl.Pos{ReplID: idA, Offset: 9}},
		string(AppendContinue(nil, idA, CapaEOF|CapaPSYNC2)):            Continue{idA},
		string(AppendContinue(nil, idA, CapaEOF)):                       Continue{},
		ReplyNoMasterLink: Retry{"NOMASTERLINK", strings.TrimSpace(ReplyNoMasterLink)},
		ReplyLoading:      Retry{"LOADING", strings.TrimSpace(ReplyLoading)},
	} {
		got, err := ReadAnswer(NewReader(strings.NewReader(KeepAlive + wire)))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%q: %v %s", wire, err, diff)
		}
		if len(wire) >= 256 {
			t.Errorf("%q does not fit a replica's buffer", wire)
		}
	}
}
