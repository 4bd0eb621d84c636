package resp_test

import (
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-io/sluice/resp"
)

func TestParseLongLong(t *testing.T) {
	for _, s := range []string{"0", "1", "-1", "10", "9223372036854775807", "-9223372036854775808", "1000000000000000000"} {
		want, _ := strconv.ParseInt(s, 10, 64)
		if n, ok := resp.ParseLongLong([]byte(s)); !ok || n != want {
			t.Errorf("%q: %d, %v", s, n, ok)
		}
	}
	for _, s := range []string{
		"", "-", "+1", " 1", "1 ", "01", "00", "-0", "-01", "1a", "a", "/", ":", "9223372036854775808", "-9223372036854775809",
		"9999999999999999999", "-9999999999999999999", "18446744073709551617", "10000000000000000000", "100000000000000000000", "1\x00",
	} {
		if n, ok := resp.ParseLongLong([]byte(s)); ok {
			t.Errorf("%q: %d, want none", s, n)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.Int64().Draw(t, "n")
		if n, ok := resp.ParseLongLong(strconv.AppendInt(nil, want, 10)); !ok || n != want {
			t.Fatalf("%d: %d, %v", want, n, ok)
		}
	})
}

func TestParseInt(t *testing.T) {
	for in, want := range map[string]int64{":12\r\n": 12, ":-1\r\n": -1, "$2\r\n12\r\n": 12, "+7\r\n": 7} {
		if n, ok := resp.ParseInt([]byte(in)); !ok || n != want {
			t.Errorf("%q: %d, %v", in, n, ok)
		}
	}
	for _, in := range []string{"", ":", ":12", ":\r\n", "$-1\r\n", "$3\r\n12\r\n", "$2\r\n12", "$2\r\nab\r\n", "-ERR 1\r\n", "*1\r\n:1\r\n", "\r\n"} {
		if n, ok := resp.ParseInt([]byte(in)); ok {
			t.Errorf("%q: %d, want none", in, n)
		}
	}
}

func TestErrorCode(t *testing.T) {
	for in, want := range map[string]string{
		"-READONLY You can't write against a read only replica.\r\n": "READONLY",
		"-ERR\r\n": "ERR", "-LOADING": "LOADING", "!21\r\nSYNTAX invalid syntax\r\n": "SYNTAX",
		"+OK\r\n": "", "": "", "-": "", "!5": "", "$4\r\n-ERR\r\n": "",
	} {
		if got := resp.ErrorCode([]byte(in)); string(got) != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if resp.ErrorCode([]byte("+OK\r\n")) != nil {
		t.Error("a status has a code")
	}
}
