package resp_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/resp"
)

// strs returns the arguments of a scanned request.
func strs(buf []byte, spans []resp.Span) []string {
	a := resp.Args{Buf: buf, Spans: spans}
	out := make([]string, a.Len())
	for i := range out {
		out[i] = string(a.At(i))
	}
	return out
}

func TestScanRequestComplete(t *testing.T) {
	long := strings.Repeat("v", 12345)
	for _, tc := range []struct {
		in   string
		n    int
		args []string
	}{
		{"*1\r\n$4\r\nPING\r\n*1\r\n", 14, []string{"PING"}},
		{"*3\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n", 27, []string{"SET", "", "\r\n"}},
		{"*2\r\n$4\r\nECHO\r\n$12345\r\n" + long + "\r\n", 14 + 8 + 12345 + 2, []string{"ECHO", long}},
		{"*12\r\n" + strings.Repeat("$1\r\nx\r\n", 12), 5 + 12*7, strings.Split(strings.Repeat("x", 12), "")},
		{"*0\r\nrest", 4, []string{}},
		{"*-1\r\n", 5, []string{}},
		{"*-77\r\n", 6, []string{}},
		{"*1\r?$1\r?x??", 11, []string{"x"}}, // what stands for LF, and behind an argument, is not looked at
		{"PING\r\n", 6, []string{"PING"}},
		{"PING\n", 5, []string{"PING"}},
		{"\n", 1, []string{}},
		{"\r\n", 2, []string{}},
		{"  \t \r\n", 6, []string{}},
		{"  set\tk  v \r\nx", 13, []string{"set", "k", "v"}},
		{"set k \"a \\\" b\" 'c d'\n", 21, []string{"set", "k", `"a \" b"`, "'c d'"}},
	} {
		n, need, spans, err := resp.ScanRequest([]byte(tc.in), &resp.DefaultLimits, make([]resp.Span, 0, 8))
		if err != nil || n != tc.n || need != 0 {
			t.Errorf("%.40q: n=%d need=%d err=%v, want n=%d", tc.in, n, need, err, tc.n)
			continue
		}
		if d := cmp.Diff(tc.args, strs([]byte(tc.in), spans)); d != "" {
			t.Errorf("%.40q: arguments (-want +got):\n%s", tc.in, d)
		}
	}
}

func TestScanRequestNeed(t *testing.T) {
	for _, tc := range []struct {
		in   string
		need int64
	}{
		{"", 1},
		{"*", 4},
		{"*3", 4},
		{"*3\r", 4},
		{"*3\r\n", 4 + 18},
		{"*3\r\n$3\r\nSE", 4 + 9 + 12},
		{"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$2000000\r\nabc", 4 + 9 + 7 + 10 + 2000000 + 2},
		{"*3\r\n$3\r\nSET\r\n$200", 4 + 9 + 12},
		{"*3\r\nx", 6}, // refused as soon as there is a CR: no waiting
		{"PING", 5},
		{"PI\x00NG\r\n", 64<<10 + 1},
	} {
		spans := make([]resp.Span, 2, 8)
		n, need, out, err := resp.ScanRequest([]byte(tc.in), &resp.DefaultLimits, spans)
		if n != 0 || err != nil || need != tc.need || len(out) != 2 {
			t.Errorf("%q: n=%d need=%d err=%v spans=%d, want need=%d and 2 spans", tc.in, n, need, err, len(out), tc.need)
		}
	}
}

func TestScanRequestAppends(t *testing.T) {
	spans := []resp.Span{{Off: 7, Len: 9}}
	_, _, spans, err := resp.ScanRequest([]byte("*1\r\n$4\r\nPING\r\n"), &resp.DefaultLimits, spans)
	if d := cmp.Diff([]resp.Span{{Off: 7, Len: 9}, {Off: 8, Len: 4}}, spans); d != "" || err != nil {
		t.Fatalf("err=%v (-want +got):\n%s", err, d)
	}
}

func TestScanRequestOwnLimits(t *testing.T) {
	lim := resp.Limits{MaxBulkBytes: 5, MaxElements: 3, MaxInlineBytes: 16}
	for in, want := range map[string]resp.ProtocolError{
		"*4\r\n":                  resp.ErrInvalidMultibulkLength,
		"*1\r\n$6\r\n":            resp.ErrInvalidBulkLength,
		"*1\r\n$6\r\nabcdef\r\n":  resp.ErrInvalidBulkLength,
		"12345678901234567":       resp.ErrTooBigInline,
		"*1234567890123456":       resp.ErrTooBigMultibulkCount,
		"*1\r\n$1234567890123456": resp.ErrTooBigBulkCount,
	} {
		n, need, spans, err := resp.ScanRequest([]byte(in), &lim, nil)
		if err != want || n != 0 || need != 0 || len(spans) != 0 { //nolint:errorlint // the very value
			t.Errorf("%q: n=%d need=%d err=%v, want %v", in, n, need, err, want)
		}
		var s resp.RequestSkimmer
		if _, _, err := s.Skim([]byte(in), &lim); !errors.Is(err, want) {
			t.Errorf("%q: skimmer: %v, want %v", in, err, want)
		}
	}
}

// checkRequestPrefixes asserts the contract of ScanRequest on every prefix of
// data: incomplete until it ends or is refused, with a need that holds; and that
// a skimmer agrees, fed byte by byte and in pieces.
func checkRequestPrefixes(t interface {
	Helper()
	Fatalf(string, ...any)
}, data []byte, lim *resp.Limits, seed uint64) {
	t.Helper()
	n, _, spans, err := resp.ScanRequest(data, lim, nil)
	var end int // length of the first prefix with a verdict
	for end = 0; end <= len(data); end++ {
		pn, need, pspans, perr := resp.ScanRequest(data[:end], lim, nil)
		rn, rneed, rspans, rerr := resp.ScanRequest(data[:end:end], lim, make([]resp.Span, 1, 8)) // room for spans: the fast path
		if rn != pn || rneed != need || !errors.Is(rerr, perr) || !slices.Equal(rspans[1:], pspans) {
			t.Fatalf("%q, %d bytes: n=%d need=%d err=%v %v, but with room for spans n=%d need=%d err=%v %v",
				data, end, pn, need, perr, pspans, rn, rneed, rerr, rspans)
		}
		if pn == 0 && perr == nil {
			if need <= int64(end) || n > 0 && need > int64(n) {
				t.Fatalf("%q: need=%d with %d bytes there; the request has %d", data, need, end, n)
			}
			continue
		}
		if pn != n || !errors.Is(perr, err) || !cmp.Equal(pspans, spans) {
			t.Fatalf("%q: n=%d err=%v at %d bytes, but n=%d err=%v at all", data, pn, perr, end, n, err)
		}
		if n > 0 && end != n {
			t.Fatalf("%q: %d bytes long, but complete only at %d", data, n, end)
		}
		break
	}
	var one, some resp.RequestSkimmer
	verdict := false
	for i := range data {
		sn, done, serr := one.Skim(data[i:i+1], lim)
		if sn != 1 {
			t.Fatalf("%q: skimmer took %d of one byte", data, sn)
		}
		if verdict = done || serr != nil; verdict {
			if i+1 != end || done != (n > 0) || !errors.Is(serr, err) {
				t.Fatalf("%q: skimmer done=%v err=%v after %d bytes, ScanRequest n=%d err=%v after %d", data, done, serr, i+1, n, err, end)
			}
			break
		}
	}
	if verdict != (n > 0 || err != nil) {
		t.Fatalf("%q: skimmer has no verdict, ScanRequest n=%d err=%v", data, n, err)
	}
	rnd := rand.New(rand.NewPCG(seed, 1))
	for pos := 0; pos < len(data); {
		piece := data[pos:min(len(data), pos+1+rnd.IntN(20))]
		sn, done, serr := some.Skim(piece, lim)
		pos += sn
		if done || serr != nil {
			if done && pos != n || done != (n > 0) || !errors.Is(serr, err) {
				t.Fatalf("%q: skimmer in pieces done=%v err=%v at %d, ScanRequest n=%d err=%v", data, done, serr, pos, n, err)
			}
			return
		}
		if sn != len(piece) {
			t.Fatalf("%q: skimmer left %d bytes", data, len(piece)-sn)
		}
	}
	if n > 0 || err != nil {
		t.Fatalf("%q: skimmer in pieces has no verdict, ScanRequest n=%d err=%v", data, n, err)
	}
}

var fuzzLimits = []*resp.Limits{
	&resp.DefaultLimits,
	&resp.UnauthenticatedLimits,
	{MaxBulkBytes: 40, MaxElements: 12, MaxInlineBytes: 24},
	{MaxBulkBytes: 5, MaxElements: 3, MaxInlineBytes: 60, Unauthenticated: true},
}

var requestSeeds = []string{
	"*2\r\n$3\r\nGET\r\n$5\r\nkey:1\r\n", "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$32\r\n01234567890123456789012345678901\r\n",
	"PING\r\n", "set k \"a\\x41\\n\\\"\" 'it\\'s'\r\n", "set \"a\"b\n", "get 'a\\\\'\n", "a\"b", "\r\n", "\r\r\n", "*0\r\n", "*-1\r\n", "*-0\r\n", "*\r\n", "*01\r\n",
	"*1\r\n$-1\r\n", "*1\r\n\r\n", "*1\r\nx\r\n", "*1\r\n$05\r\n", "*1\r\n$5\rxhello..", "*11\r\n", "*1\r\n$16385\r\n", "*1\r\n$1\x00\r\n", "PI\x00NG\r\n",
	"*1\r\n$00000000000000000000000000000000000000000000000001\r\n", "*000000000000000000000000000000000000000000000000000000000001\r\n",
	"*9223372036854775808\r\n", "*1\r\n$9223372036854775807\r\n", "*1\r\n$99999999999\r\n",
}

func TestRequestPrefixes(t *testing.T) {
	for i, in := range requestSeeds {
		for _, lim := range fuzzLimits {
			checkRequestPrefixes(t, []byte(in+"*1\r\n"), lim, uint64(i))
		}
	}
	rapid.Check(t, func(t *rapid.T) { // well-formed ones, which bytes drawn at random seldom are
		args := rapid.SliceOfN(rapid.StringN(0, 130, 130), 1, 12).Draw(t, "args")
		data := resp.AppendCommand(nil, args...)
		if i := rapid.IntRange(-1, len(data)-1).Draw(t, "flipped"); i >= 0 {
			data[i] = rapid.SampledFrom([]byte("\r\n$*0159-x\x00")).Draw(t, "byte")
		}
		for _, lim := range fuzzLimits {
			checkRequestPrefixes(t, data, lim, 1)
		}
	})
}

func FuzzScanRequest(f *testing.F) {
	for i, s := range requestSeeds {
		f.Add([]byte(s), byte(i), uint64(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, lim byte, seed uint64) {
		if len(data) > 400 {
			return
		}
		checkRequestPrefixes(t, data, fuzzLimits[int(lim)%len(fuzzLimits)], seed)
	})
}

func TestRequestSkimmerLarge(t *testing.T) {
	const size = 300 << 20
	head := "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$314572800\r\n"
	var s resp.RequestSkimmer
	piece := make([]byte, 1<<20)
	if n, done, err := s.Skim([]byte(head), &resp.DefaultLimits); n != len(head) || done || err != nil {
		t.Fatalf("head: n=%d done=%v err=%v", n, done, err)
	}
	for range size / len(piece) {
		if n, done, err := s.Skim(piece, &resp.DefaultLimits); n != len(piece) || done || err != nil {
			t.Fatalf("body: n=%d done=%v err=%v", n, done, err)
		}
	}
	if n, done, err := s.Skim([]byte("\r\nPING\r\n"), &resp.DefaultLimits); n != 2 || !done || err != nil {
		t.Fatalf("end: n=%d done=%v err=%v", n, done, err)
	}
	if n, done, err := s.Skim([]byte("PING\r\n*"), &resp.DefaultLimits); n != 6 || !done || err != nil {
		t.Fatalf("next: n=%d done=%v err=%v", n, done, err)
	}
}

func TestScanRequestAllocatesNothing(t *testing.T) {
	buf := []byte("*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$32\r\n01234567890123456789012345678901\r\n")
	inline := []byte("set key:1 0123\r\n")
	spans := make([]resp.Span, 0, 8)
	dst := make([]byte, 0, 256)
	if a := testing.AllocsPerRun(100, func() {
		for _, b := range [][]byte{buf, buf[:20], inline} {
			_, _, spans, _ = resp.ScanRequest(b, &resp.DefaultLimits, spans[:0])
		}
		var s resp.RequestSkimmer
		_, _, _ = s.Skim(buf[:30], &resp.DefaultLimits)
		_, _, _ = s.Skim(buf[30:], &resp.DefaultLimits)
		dst, _ = resp.NormalizeInline(dst[:0], inline)
	}); a != 0 {
		t.Fatalf("%v allocations per run", a)
	}
}

func BenchmarkScanRequest(b *testing.B) {
	for name, req := range map[string]string{
		"GET":    "*2\r\n$3\r\nGET\r\n$16\r\nkey:000000012345\r\n",
		"SET32B": "*3\r\n$3\r\nSET\r\n$16\r\nkey:000000012345\r\n$32\r\n01234567890123456789012345678901\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			buf := []byte(strings.Repeat(req, (16<<10)/len(req)))
			spans := make([]resp.Span, 0, 8)
			b.ReportAllocs()
			items := 0
			for b.Loop() {
				for rest := buf; len(rest) > 0; items++ {
					var n int
					var err error
					n, _, spans, err = resp.ScanRequest(rest, &resp.DefaultLimits, spans[:0])
					if n == 0 || err != nil {
						b.Fatalf("n=%d err=%v", n, err)
					}
					rest = rest[n:]
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(items), "ns/request")
		})
	}
}
