package resp_test

import (
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/resp"
)

func TestAppend(t *testing.T) {
	for _, tc := range []struct{ want, got string }{
		{"*0\r\n", string(resp.AppendArrayHeader(nil, 0))},
		{"*10\r\n", string(resp.AppendArrayHeader(nil, 10))},
		{"*6\r\n", string(resp.AppendMapHeader(nil, 3, 2))},
		{"%3\r\n", string(resp.AppendMapHeader(nil, 3, 3))},
		{"*3\r\n", string(resp.AppendPushHeader(nil, 3, 2))},
		{">3\r\n", string(resp.AppendPushHeader(nil, 3, 3))},
		{"$0\r\n\r\n", string(resp.AppendBulk(nil, nil))},
		{"x$2\r\n\r\n\r\n", string(resp.AppendBulk([]byte("x"), []byte("\r\n")))},
		{"$2\r\nab\r\n", string(resp.AppendBulkString(nil, "ab"))},
		{"x+a  b\r\n", string(resp.AppendSimple([]byte("x"), "a\r\nb"))},
		{"\r\n-ERR a  b \r\n", string(resp.AppendError([]byte("\r\n"), "ERR a\r\nb\n"))},
		{":-12\r\n", string(resp.AppendInt(nil, -12))},
		{":-9223372036854775808\r\n", string(resp.AppendInt(nil, math.MinInt64))},
		{"$-1\r\n", string(resp.AppendNull(nil, 2))},
		{"_\r\n", string(resp.AppendNull(nil, 3))},
		{"*-1\r\n", string(resp.AppendNullArray(nil, 2))},
		{"_\r\n", string(resp.AppendNullArray(nil, 3))},
		{"$3\r\n1.5\r\n", string(resp.AppendDouble(nil, 1.5, 2))},
		{",1000000\r\n", string(resp.AppendDouble(nil, 1e6, 3))},
		{",1e+20\r\n", string(resp.AppendDouble(nil, 1e20, 3))},
		{",-inf\r\n", string(resp.AppendDouble(nil, math.Inf(-1), 3))},
		{"$3\r\ninf\r\n", string(resp.AppendDouble(nil, math.Inf(1), 2))},
		{",nan\r\n", string(resp.AppendDouble(nil, math.NaN(), 3))},
		{":1\r\n:0\r\n", string(resp.AppendBool(resp.AppendBool(nil, true, 2), false, 2))},
		{"#t\r\n#f\r\n", string(resp.AppendBool(resp.AppendBool(nil, true, 3), false, 3))},
		{"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", string(resp.AppendCommand(nil, "GET", "k"))},
		{"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", string(resp.AppendCommandBytes(nil, []byte("GET"), []byte("k")))},
	} {
		if tc.got != tc.want {
			t.Errorf("got %q, want %q", tc.got, tc.want)
		}
	}
}

func TestCommandsAreScannedBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cmds := rapid.SliceOfN(rapid.SliceOfN(rapid.String(), 1, 12), 1, 4).Draw(t, "commands")
		var buf []byte
		for i, args := range cmds {
			if i%2 == 0 {
				buf = resp.AppendCommand(buf, args...)
				continue
			}
			var b [][]byte
			for _, a := range args {
				b = append(b, []byte(a))
			}
			buf = resp.AppendCommandBytes(buf, b...)
		}
		var s resp.RequestSkimmer
		for _, want := range cmds {
			n, _, spans, err := resp.ScanRequest(buf, &resp.DefaultLimits, nil)
			if n == 0 || err != nil {
				t.Fatalf("n=%d err=%v", n, err)
			}
			if d := cmp.Diff(want, strs(buf, spans)); d != "" {
				t.Fatal(d)
			}
			if sn, done, err := s.Skim(buf, &resp.DefaultLimits); sn != n || !done || err != nil {
				t.Fatalf("skimmer: n=%d done=%v err=%v, want n=%d", sn, done, err, n)
			}
			buf = buf[n:]
		}
		if len(buf) != 0 {
			t.Fatalf("%d bytes left", len(buf))
		}
	})
}

// drawValue appends a random value of at most the given depth.
func drawValue(t *rapid.T, dst []byte, depth, proto int) []byte {
	kinds := 8
	if depth > 0 {
		kinds = 11
	}
	children := func(n int) []byte {
		for range n {
			dst = drawValue(t, dst, depth-1, proto)
		}
		return dst
	}
	switch n := rapid.IntRange(0, 5).Draw(t, "n"); rapid.IntRange(0, kinds-1).Draw(t, "kind") {
	case 0:
		return resp.AppendBulkString(dst, rapid.String().Draw(t, "bulk"))
	case 1:
		return resp.AppendSimple(dst, rapid.String().Draw(t, "simple"))
	case 2:
		return resp.AppendError(dst, "ERR "+rapid.String().Draw(t, "error"))
	case 3:
		return resp.AppendInt(dst, rapid.Int64().Draw(t, "int"))
	case 4:
		return resp.AppendNull(dst, proto)
	case 5:
		return resp.AppendNullArray(dst, proto)
	case 6:
		return resp.AppendDouble(dst, rapid.Float64().Draw(t, "double"), proto)
	case 7:
		return resp.AppendBool(dst, n > 2, proto)
	case 8:
		dst = resp.AppendArrayHeader(dst, n)
		return children(n)
	case 9:
		dst = resp.AppendMapHeader(dst, n, proto)
		return children(2 * n)
	default:
		dst = resp.AppendPushHeader(dst, n, proto)
		return children(n)
	}
}

func TestValuesAreScannedBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		proto := rapid.IntRange(2, 3).Draw(t, "proto")
		var buf []byte
		var lengths []int
		for range rapid.IntRange(1, 5).Draw(t, "values") {
			before := len(buf)
			buf = drawValue(t, buf, 3, proto)
			lengths = append(lengths, len(buf)-before)
		}
		var s resp.ReplyScanner
		for _, want := range lengths {
			n, _, err := resp.ScanReply(buf)
			if n != want || err != nil {
				t.Fatalf("%q: n=%d err=%v, want %d", buf, n, err, want)
			}
			if sn, done, err := s.Scan(buf); sn != want || !done || err != nil {
				t.Fatalf("%q: scanner n=%d done=%v err=%v, want %d", buf, sn, done, err, want)
			}
			buf = buf[n:]
		}
	})
}

func TestDoubleReadsBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := rapid.Float64().Draw(t, "f")
		text := strings.Trim(string(resp.AppendDouble(nil, f, 3)), ",\r\n")
		if got, err := strconv.ParseFloat(text, 64); got != f || err != nil {
			t.Fatalf("%v became %q", f, text)
		}
	})
}

func TestAppendAllocatesNothing(t *testing.T) {
	dst := make([]byte, 0, 512)
	arg := []byte("value")
	if a := testing.AllocsPerRun(100, func() {
		dst = resp.AppendArrayHeader(dst[:0], 12)
		dst = resp.AppendBulk(dst, arg)
		dst = resp.AppendBulkString(dst, "value")
		dst = resp.AppendError(dst, "ERR text")
		dst = resp.AppendInt(dst, 123456)
		dst = resp.AppendDouble(dst, 1.25, 2)
		dst = resp.AppendCommand(dst, "SET", "k", "v")
		dst = resp.AppendCommandBytes(dst, arg, arg)
	}); a != 0 {
		t.Fatalf("%v allocations per run", a)
	}
}
