package resp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/localredis"
)

// These tests ask a real redis-server what it makes of the same bytes.

func startRedis(t *testing.T, args ...string) *localredis.Server {
	t.Helper()
	s, err := localredis.Start(context.Background(), localredis.Options{Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// talk sends data on a connection of its own, closes its sending half, and
// returns all that the server replies before it closes the other. A server
// that finds its client's half closed drops what it has not sent yet: for
// replies of many KB leave it open and end data with QUIT.
func talk(addr string, data []byte, leaveOpen ...bool) ([]byte, error) {
	c, err := net.DialTimeout("tcp", addr, 5*time.Second)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	if _, err := c.Write(data); err != nil {
		return nil, err
	}
	if len(leaveOpen) == 0 {
		// The server may have refused data and closed before.
		if err := c.(*net.TCPConn).CloseWrite(); err != nil && !errors.Is(err, syscall.ENOTCONN) {
			return nil, err
		}
	}
	return io.ReadAll(c)
}

// verdict is what a server or our scanner makes of a client's bytes.
type verdict struct {
	Requests int    // complete requests with arguments
	Error    string // the protocol error after them, without "-ERR "
}

func ourVerdict(data []byte, lim *resp.Limits) (v verdict, err error) {
	for len(data) > 0 {
		n, _, spans, err := resp.ScanRequest(data, lim, nil)
		if err != nil {
			var pe resp.ProtocolError
			if !errors.As(err, &pe) {
				return v, err
			}
			v.Error = pe.Error()
			return v, nil
		}
		if n == 0 {
			return v, nil
		}
		if len(spans) > 0 {
			v.Requests++
		}
		data = data[n:]
	}
	return v, nil
}

func serverVerdict(addr string, data []byte) (v verdict, err error) {
	out, err := talk(addr, data)
	if err != nil {
		return v, err
	}
	for len(out) > 0 {
		n, _, err := resp.ScanReply(out)
		if err != nil || n == 0 {
			return v, fmt.Errorf("reply %q: n=%d err=%w", out, n, err)
		}
		if text, ok := strings.CutPrefix(string(out[:n]), "-ERR Protocol error: "); ok {
			v.Error = "Protocol error: " + strings.TrimSuffix(text, "\r\n")
		} else {
			v.Requests++
		}
		out = out[n:]
	}
	return v, nil
}

// malformedRequests are refused by every client's limits.
var malformedRequests = []string{
	"*+1\r\n", "* 1\r\n", "*1 \r\n", "*01\r\n", "*-0\r\n", "*-01\r\n", "*\r\n", "*abc\r\n", "*1a\r\n", "*1\n\r\n", "*2147483648\r\n",
	"*9223372036854775807\r\n", "*9223372036854775808\r\n", "*-9223372036854775809\r\n", "*100000000000000000000000\r\n",
	"*1\r\n$+5\r\n", "*1\r\n$ 5\r\n", "*1\r\n$05\r\n", "*1\r\n$-1\r\n", "*1\r\n$-0\r\n", "*1\r\n$\r\n", "*1\r\n$5 \r\n", "*1\r\n$abc\r\n", "*1\r\n$3\nabc\r\n",
	"*1\r\n$536870913\r\n", "*1\r\n$9223372036854775807\r\n", "*1\r\n$9223372036854775808\r\n",
	"*1\r\nx\r\n", "*1\r\n\r\n", "*1\r\n\n\r\n", "*1\r\n:5\r\n", "*1\r\n*1\r\n", "*1\r\n\xff\r\n", "*2\r\n$1\r\na\r\nbcd\r\n", "*1\r\n$1\r\nabc\r\r\n*1\r\n$-1\r\n",
	"get \"a\r\n", "get 'a\r\n", "get \"a\"b\r\n", "get 'a'b\n", "get a\"b\n", "\"\\\"\n", "'\\'\n", "get \"a\\\r\n",
	strings.Repeat("x", 64<<10+1), "*" + strings.Repeat("1", 64<<10), "*1\r\n$" + strings.Repeat("1", 64<<10),
	"*1\r\n" + strings.Repeat("x", 64<<10+1), "PI\x00NG\r\n" + strings.Repeat("x", 64<<10), "*1\x00\r\n" + strings.Repeat("1", 64<<10),
}

// oddRequests are complete, ignored or incomplete, but not malformed.
var oddRequests = []string{
	"nosuch\n", "nosuch\r\n", "nosuch \"a\" 'b' c\\x\r\n", "\r\n\n \t\r\nnosuch\r\n", "\x0b\x0cnosuch\x0b\r\n", "nosuch a\rb\n", "'nosuch'\n",
	"*0\r\n*-1\r\n*-5\r\nnosuch\n", "*1\r\n$6\r\nnosuch\r\n", "*1\rx$6\rxnosuchxx", "*1\r\n$0\r\n\r\n", "*2\r\n$6\r\nnosuch\r\n$2\r\n\r\n\r\n",
	"*-9223372036854775808\r\nnosuch\n", "PI\x00NG\r\n", "*1\x00\r\n", "*1\r\n$6\x00\r\nnosuch\r\n", "*1\r\n$6\r", "*1", "*1\r", "*1\r\nxyz", "nosuch \"", "*10\r\n$1\r\n",
	"*1\r\n$16384\r\n", "nosuch \"\\x4g\\xZZ\\x41\\q\"\n", "nosuch 'a\\b\\'' \"\\\"\"\n",
}

func TestVerdictsOfRedis(t *testing.T) {
	open := startRedis(t).Addr()
	locked := startRedis(t, "--requirepass", "secret").Addr()
	compare := func(addr string, lim *resp.Limits, in string, wantError bool) {
		t.Helper()
		theirs, err := serverVerdict(addr, []byte(in))
		if err != nil {
			t.Errorf("%.60q: %v", in, err)
			return
		}
		ours, err := ourVerdict([]byte(in), lim)
		if err != nil {
			t.Errorf("%.60q: %v", in, err)
		}
		if d := cmp.Diff(theirs, ours); d != "" || wantError != (theirs.Error != "") {
			t.Errorf("%.60q: refused by Redis: %q (-Redis +ours):\n%s", in, theirs.Error, d)
		}
	}
	for _, in := range malformedRequests {
		compare(open, &resp.DefaultLimits, in, true)
		compare(locked, &resp.UnauthenticatedLimits, in, true)
	}
	for _, in := range oddRequests {
		compare(open, &resp.DefaultLimits, in, false)
		compare(locked, &resp.UnauthenticatedLimits, in, false)
	}
	for _, in := range []string{
		"*11\r\n", "*1000000000\r\n", "*2147483647\r\n", "*1\r\n$16385\r\n", "*1\r\n$536870912\r\n",
		"*11\r\n" + strings.Repeat("$1\r\nx\r\n", 11),
	} {
		compare(locked, &resp.UnauthenticatedLimits, in, true)
	}
	for _, in := range []string{
		"*11\r\n" + strings.Repeat("$1\r\nx\r\n", 11), "*1\r\n$16385\r\n" + strings.Repeat("x", 16385) + "\r\n",
		"*1048576\r\n", "*1\r\n$536870912\r\n",
	} {
		compare(open, &resp.DefaultLimits, in, false)
	}
}

// Where ours is stricter: Redis 7 lets an authenticated client announce 2^31-1
// arguments, we keep to the 1,048,576 of Redis 6.
func TestElementsLimitIsThatOfRedis6(t *testing.T) {
	addr := startRedis(t).Addr()
	for _, in := range []string{"*1048577\r\n", "*1000000000\r\n", "*2147483647\r\n"} {
		if v, err := serverVerdict(addr, []byte(in)); v != (verdict{}) || err != nil {
			t.Errorf("%q: Redis says %+v, %v", in, v, err)
		}
		if _, _, _, err := resp.ScanRequest([]byte(in), &resp.DefaultLimits, nil); !errors.Is(err, resp.ErrInvalidMultibulkLength) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// Random sequences of the protocol's pieces: Redis and we must agree on every one.
func TestRandomVerdictsOfRedis(t *testing.T) {
	servers := []struct {
		addr string
		lim  *resp.Limits
	}{
		{startRedis(t).Addr(), &resp.DefaultLimits},
		{startRedis(t, "--requirepass", "secret").Addr(), &resp.UnauthenticatedLimits},
	}
	pieces := rapid.SliceOfN(rapid.SampledFrom([]string{
		"*1\r\n", "*2\r\n", "*0\r\n", "*", "$1\r\nx\r\n", "$1\r\nx\r\n", "$3\r\nabc\r\n", "$3\r\n", "$0\r\n\r\n", "$", "1", "0", "-", "12", "\r\n", "\r\n", "\r", "\n",
		"x", "abc", " ", "\t", "\v", "\"", "'", "\\", "\\x41", "\x00", "\xff", "+", "x y\r\n",
	}), 1, 14)
	rapid.Check(t, func(t *rapid.T) {
		data := []byte(strings.Join(pieces.Draw(t, "pieces"), ""))
		s := rapid.SampledFrom(servers).Draw(t, "server")
		theirs, err := serverVerdict(s.addr, data)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := ourVerdict(data, s.lim)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(theirs, ours); d != "" {
			t.Fatalf("%q (-Redis +ours):\n%s", data, d)
		}
	})
}

// replyStrings returns the strings of a reply that is an array of them.
func replyStrings(reply []byte) (out []string, err error) {
	for reply = reply[1+strings.Index(string(reply), "\n"):]; len(reply) > 0; {
		n, _, err := resp.ScanReply(reply)
		if n == 0 || err != nil {
			return nil, fmt.Errorf("%q: n=%d err=%w", reply, n, err)
		}
		_, body, _ := strings.Cut(string(reply[:n]), "\r\n")
		out = append(out, strings.TrimSuffix(body, "\r\n"))
		reply = reply[n:]
	}
	return out, nil
}

// The words of an inline request, as Redis stores them, are those that
// SplitInline gives, and NormalizeInline makes Redis store the same.
func TestInlineWordsOfRedis(t *testing.T) {
	addr := startRedis(t).Addr()
	words := rapid.SliceOfN(rapid.SampledFrom([]string{
		" ", " ", "\t", "\v", "\f", "\r", "\"", "\"", "'", "'", "\\", "\\\"", "\\'", "\\n", "\\t\\r\\b\\a", "\\x41", "\\x0a", "\\xfF", "\\x4", "\\xg1",
		"a", "bc", "x41", "\"d e\" ", "'f g' ", "\xff",
	}), 1, 12)
	stored, refused := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		line := "RPUSH k x " + strings.Join(words.Draw(t, "words"), "") + "\r\n"
		want, wantErr := resp.SplitInline([]byte(line))
		array, err := resp.NormalizeInline([]byte("+"), []byte(line))
		if !errors.Is(err, wantErr) || err != nil && string(array) != "+" {
			t.Fatalf("%q: NormalizeInline %q, %v, SplitInline %v", line, array, err, wantErr)
		}
		if err != nil {
			refused++
			v, err := serverVerdict(addr, []byte(line))
			if err != nil || v.Error != wantErr.Error() {
				t.Fatalf("%q: Redis says %+v, %v, we %v", line, v, err, wantErr)
			}
			return
		}
		stored++
		for _, req := range []string{line, string(array[1:])} {
			out, err := talk(addr, []byte("del k\n"+req+"lrange k 0 -1\n"))
			if err != nil {
				t.Fatal(err)
			}
			i := strings.IndexByte(string(out), '*')
			if i < 0 {
				t.Fatalf("%q: Redis says %q", req, out)
			}
			got, err := replyStrings(out[i:])
			if err != nil {
				t.Fatal(err)
			}
			var ours []string
			for _, w := range want[2:] {
				ours = append(ours, string(w))
			}
			if d := cmp.Diff(got, ours); d != "" {
				t.Fatalf("%q (-Redis +ours):\n%s", req, d)
			}
		}
	})
	if stored == 0 || refused == 0 {
		t.Fatalf("%d lines stored, %d refused: want some of each", stored, refused)
	}
}

// Replies of a real server, RESP2 and RESP3, are framed one by one.
func TestRepliesOfRedis(t *testing.T) {
	s := startRedis(t, "--enable-debug-command", "yes")
	for _, proto := range []string{"2", "3"} {
		var req []byte
		req = resp.AppendCommand(req, "HELLO", proto)
		count := 1
		for _, kind := range strings.Fields("string integer double null array set map attrib push verbatim true false") {
			if proto == "2" && (kind == "attrib" || kind == "push") {
				continue // refused there
			}
			req = resp.AppendCommand(req, "DEBUG", "PROTOCOL", kind)
			count++
			if kind == "push" {
				count++ // the push, and a reply
			}
		}
		for _, words := range [][]string{{"COMMAND"}, {"INFO"}, {"CONFIG", "GET", "*"}, {"COMMAND", "DOCS", "get"}, {"NOSUCH"}, {"GET", "nokey"},
			{"EVAL", "return {1,{2,{3,'x'}},false}", "0"}, {"QUIT"}} {
			req = resp.AppendCommand(req, words...)
			count++
		}
		out, err := talk(s.Addr(), req, true)
		if err != nil {
			t.Fatal(err)
		}
		whole, pieces := 0, 0
		for rest := out; len(rest) > 0; whole++ {
			n, _, err := resp.ScanReply(rest)
			if n == 0 || err != nil {
				t.Fatalf("RESP%s, reply %d: n=%d err=%v: %.80q", proto, whole, n, err, rest)
			}
			rest = rest[n:]
		}
		var sc resp.ReplyScanner
		for pos := 0; pos < len(out); {
			n, done, err := sc.Scan(out[pos:min(pos+1000, len(out))])
			if err != nil {
				t.Fatalf("RESP%s: %v", proto, err)
			}
			if pos += n; done {
				pieces++
			}
		}
		if whole != count || pieces != count || !sc.Idle() {
			t.Fatalf("RESP%s: %d replies, %d in pieces, want %d", proto, whole, pieces, count)
		}
	}
}
