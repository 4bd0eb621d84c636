package resp_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/resp"
)

// completeReplies are one reply each.
var completeReplies = []string{
	"+OK\r\n", "+\r\n", "-ERR unknown command 'x'\r\n", ":0\r\n", ":-9223372036854775808\r\n", "+a\rb\nc\r\r\n",
	"+" + strings.Repeat("x", 300) + "\r\n",
	"$0\r\n\r\n", "$5\r\nhello\r\n", "$10\r\n0123456789\r\n", "$-1\r\n",
	"$100\r\n" + strings.Repeat("x", 100) + "\r\n", "$1000\r\n" + strings.Repeat("\r\n", 500) + "\r\n",
	"$12345\r\n" + strings.Repeat("x", 12345) + "\r\n",
	"*0\r\n", "*-1\r\n", "*2\r\n$1\r\na\r\n:1\r\n", "*2\r\n*2\r\n+a\r\n*0\r\n*1\r\n*1\r\n$-1\r\n",
	"_\r\n", "#t\r\n", "#f\r\n", ",3.14\r\n", ",inf\r\n", ",nan\r\n", "(3492890328409238509324850943850943825024385\r\n",
	"=15\r\ntxt:Some string\r\n", "!21\r\nSYNTAX invalid syntax\r\n",
	"%0\r\n", "%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n", "~2\r\n+a\r\n+b\r\n", ">3\r\n+message\r\n+c\r\n$1\r\nx\r\n",
	"|1\r\n+ttl\r\n:3600\r\n$1\r\nv\r\n", "|0\r\n|1\r\n+a\r\n+b\r\n*1\r\n|1\r\n+c\r\n%1\r\n+d\r\n+e\r\n:1\r\n",
	"$?\r\n;4\r\nHell\r\n;5\r\no wor\r\n;1\r\nd\r\n;0\r\n", "$?\r\n;0\r\n",
	"*?\r\n.\r\n", "*?\r\n:1\r\n:2\r\n.\r\n", "%?\r\n+a\r\n*?\r\n+x\r\n.\r\n+b\r\n~2\r\n+y\r\n+z\r\n.\r\n",
	"*2\r\n~?\r\n|1\r\n+k\r\n+v\r\n+a\r\n.\r\n$?\r\n;1\r\nx\r\n;0\r\n",
	strings.Repeat("*1\r\n", 10000) + ":1\r\n",
	"*3\r\n" + strings.Repeat("*3\r\n:1\r\n:2\r\n$3\r\nabc\r\n", 3),
}

var malformedReplies = []string{
	"\r\n", "x", "HTTP/1.1 200 OK\r\n", "$\r\n", "$x", "$+5\r\n", "$ 5\r\n", "$05\r\n", "$5\n", "$5\rx", "$-2\r\n", "$-1x", "$5x",
	"$5\r\nhellox", "$5\r\nhello\rx", "$5\r\nhello\n", "!-1\r\n", "=-1\r\n", "=?\r\n", "!?\r\n", "%-1\r\n", "~-1\r\n", ">-1\r\n", "|-1\r\n", ">?\r\n", "|?\r\n",
	"*-2\r\n", "*x", "$9223372036854775808\r\n", "*9223372036854775807\r\n", "*99999999999999999999\r\n", "%1152921504606846975\r\n",
	"*1000000000000000000\r\n*1000000000000000000\r\n",
	".\r\n", ";0\r\n", "*1\r\n.\r\n", "*?\r\n*1\r\n.\r\n", "*?\r\n|1\r\n+a\r\n+b\r\n.\r\n", "*?\r\n.x", "*?\r\n.\rx", "$?\r\n+OK\r\n", "$?\r\n;-1\r\n", "$?\r\n;?\r\n", "$?\r\n;1\r\nxy",
	strings.Repeat("*?\r\n", 33),
	"+" + strings.Repeat("x", 1<<20+2),
	"-" + strings.Repeat("x", 1<<20+1) + "\r",
	"+" + strings.Repeat("\r", 1<<20+2),
}

func TestScanReplyComplete(t *testing.T) {
	for _, in := range completeReplies {
		n, need, err := resp.ScanReply([]byte(in + "+next\r\n"))
		if n != len(in) || need != 0 || err != nil {
			t.Errorf("%.60q: n=%d need=%d err=%v, want n=%d", in, n, need, err, len(in))
		}
	}
}

func TestReplyPrefixes(t *testing.T) {
	for i, in := range completeReplies {
		if len(in) < 2000 {
			checkReplyPrefixes(t, []byte(in+":7\r\n"), uint64(i))
		}
	}
	for i, in := range malformedReplies {
		if len(in) < 2000 {
			checkReplyPrefixes(t, []byte(in), uint64(i))
		}
	}
}

func TestReplyMalformed(t *testing.T) {
	for _, in := range malformedReplies {
		if n, need, err := resp.ScanReply([]byte(in)); !errors.Is(err, resp.ErrMalformedReply) || n != 0 || need != 0 {
			t.Errorf("%.60q: n=%d need=%d err=%v, want an error", in, n, need, err)
		}
		for _, size := range []int{1, 7, 4096, len(in)} {
			var s resp.ReplyScanner
			var err error
			for rest := []byte(in); len(rest) > 0 && err == nil; {
				var n int
				n, _, err = s.Scan(rest[:min(size, len(rest))])
				rest = rest[n:]
			}
			if !errors.Is(err, resp.ErrMalformedReply) {
				t.Errorf("%.60q in pieces of %d: err=%v, want an error", in, size, err)
			}
		}
	}
}

func TestReplyLineLimit(t *testing.T) {
	in := []byte("-" + strings.Repeat("x", resp.MaxReplyLineBytes) + "\r\n")
	if n, _, err := resp.ScanReply(in); n != len(in) || err != nil {
		t.Fatalf("ScanReply: n=%d err=%v", n, err)
	}
	for _, size := range []int{1, 3, 1000, 1 << 20, 1<<20 + 2} {
		var s resp.ReplyScanner
		pos, done := 0, false
		for pos < len(in) {
			n, d, err := s.Scan(in[pos:min(pos+size, len(in))])
			if err != nil {
				t.Fatalf("pieces of %d: %v at %d", size, err, pos)
			}
			pos, done = pos+n, d
		}
		if !done {
			t.Fatalf("pieces of %d: not done", size)
		}
	}
}

func TestScanReplyNeed(t *testing.T) {
	for in, want := range map[string]int64{
		"":                                3,
		"+OK":                             4,
		"$5\r\nhe":                        11,
		"$2000000\r\n":                    10 + 2000000 + 2,
		"*3\r\n":                          4 + 9,
		"*3\r\n:1\r\n$10\r\n":             4 + 4 + 5 + 12 + 3,
		"%2\r\n+a\r\n":                    4 + 4 + 9,
		"|1\r\n":                          4 + 9,
		"*2\r\n*?\r\n":                    8 + 6,
		"$?\r\n;1000\r\n":                 4 + 7 + 1002 + 4,
		"*1000000000000000000\r\n":        22 + 3e18,
		"*2\r\n*1000000000000000000\r\n*": 26 + 3e18 + 3,
		"*2\r\n*?\r\n*1000000000000000000\r\n*1000000000000000\r\n*1\r\n": 4 + 4 + 22 + 19 + 4 + 3e18 + 3e15 - 3 + 3 + 3,
	} {
		n, need, err := resp.ScanReply([]byte(in))
		if n != 0 || need != want || err != nil {
			t.Errorf("%q: n=%d need=%d err=%v, want need=%d", in, n, need, err, want)
		}
	}
	// Sums beyond an int64 are not wrapped.
	in := strings.Repeat("*?\r\n*1000000000000000000\r\n", 8)
	if n, need, err := resp.ScanReply([]byte(in)); n != 0 || need != math.MaxInt64 || err != nil {
		t.Errorf("n=%d need=%d err=%v, want the largest need", n, need, err)
	}
}

// checkReplyPrefixes asserts that every prefix of data is incomplete until the
// reply ends or is refused, that need holds, and that a ReplyScanner agrees, fed
// byte by byte and in pieces.
func checkReplyPrefixes(t *testing.T, data []byte, seed uint64) {
	t.Helper()
	n, _, err := resp.ScanReply(data)
	var one, some resp.ReplyScanner
	for end := 0; end <= len(data); end++ {
		pn, need, perr := resp.ScanReply(data[:end])
		var done bool
		var serr error
		if end > 0 {
			var sn int
			if sn, done, serr = one.Scan(data[end-1 : end]); sn != 1 && serr == nil {
				t.Fatalf("%q: scanner took %d of one byte", data, sn)
			}
		}
		if done != (pn > 0) || (serr != nil) != (perr != nil) {
			t.Fatalf("%q: scanner done=%v err=%v after %d bytes, ScanReply n=%d err=%v", data, done, serr, end, pn, perr)
		}
		if pn == 0 && perr == nil {
			if need <= int64(end) || n > 0 && need > int64(n) {
				t.Fatalf("%q: need=%d with %d bytes there; the reply has %d", data, need, end, n)
			}
			continue
		}
		if pn != n || (perr == nil) != (err == nil) || pn > 0 && pn != end {
			t.Fatalf("%q: n=%d err=%v at %d bytes, but n=%d err=%v at all", data, pn, perr, end, n, err)
		}
		if perr != nil && (perr.Error() != err.Error() || serr.Error() != err.Error()) {
			t.Fatalf("%q: errors differ: %v, %v, %v", data, perr, serr, err)
		}
		break
	}
	rnd := rand.New(rand.NewPCG(seed, 2))
	for pos := 0; pos < len(data); {
		piece := data[pos:min(len(data), pos+1+rnd.IntN(30))]
		sn, done, serr := some.Scan(piece)
		pos += sn
		if done || serr != nil {
			if done && pos != n || done != (n > 0) || (serr != nil) != (err != nil) || !some.Idle() && done {
				t.Fatalf("%q: scanner in pieces done=%v err=%v at %d, ScanReply n=%d err=%v", data, done, serr, pos, n, err)
			}
			return
		}
		if sn != len(piece) || some.Idle() {
			t.Fatalf("%q: scanner left %d bytes, idle=%v", data, len(piece)-sn, some.Idle())
		}
	}
	if n > 0 || err != nil {
		t.Fatalf("%q: scanner in pieces has no verdict, ScanReply n=%d err=%v", data, n, err)
	}
}

func FuzzScanReply(f *testing.F) {
	for i, s := range append(append([]string{}, completeReplies...), malformedReplies...) {
		if len(s) < 400 {
			f.Add([]byte(s), uint64(i))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte, seed uint64) {
		if len(data) > 400 {
			return
		}
		checkReplyPrefixes(t, data, seed)
	})
}

func TestScanReplyAllocatesNothing(t *testing.T) {
	var replies [][]byte
	for _, r := range completeReplies {
		replies = append(replies, []byte(r))
	}
	var s resp.ReplyScanner
	if a := testing.AllocsPerRun(100, func() {
		for _, r := range replies {
			if n, _, err := resp.ScanReply(r); n == 0 || err != nil {
				t.Fatal("not complete")
			}
			_, _, _ = resp.ScanReply(r[:len(r)-1])
			_, _, _ = s.Scan(r[:len(r)/2])
			if _, done, err := s.Scan(r[len(r)/2:]); !done || err != nil {
				t.Fatal("not done")
			}
		}
	}); a != 0 {
		t.Fatalf("%v allocations per run", a)
	}
}

func BenchmarkScanReply(b *testing.B) {
	bulk := "$32\r\n01234567890123456789012345678901\r\n"
	for name, unit := range map[string]string{
		"OK": "+OK\r\n", "Bulk32": bulk, "Mixed": bulk + "+OK\r\n", "Int": ":12345\r\n", "Null": "$-1\r\n",
		"Array10": "*10\r\n" + strings.Repeat(bulk, 10),
	} {
		b.Run(name, func(b *testing.B) {
			buf := []byte(strings.Repeat(unit, (64<<10)/len(unit)))
			b.ReportAllocs()
			items := 0
			for b.Loop() {
				for rest := buf; len(rest) > 0; items++ {
					n, _, err := resp.ScanReply(rest)
					if n == 0 || err != nil {
						b.Fatalf("n=%d err=%v", n, err)
					}
					rest = rest[n:]
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(items), "ns/reply")
		})
	}
}
