package sdnotify

import (
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv(Env, path)
	for _, tc := range []struct {
		say  func() error
		want string
	}{
		{func() error { return Ready("listening on tcp :6380") }, "READY=1\nSTATUS=listening on tcp :6380"},
		{Reloading, "RELOADING=1\nMONOTONIC_USEC="},
		{Stopping, "STOPPING=1\n"},
	} {
		if err := tc.say(); err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 1000)
		_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := l.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), tc.want) {
			t.Errorf("got %q, %v; want %q", b[:n], err, tc.want)
		}
	}
}

func TestNobodyToTell(t *testing.T) {
	t.Setenv(Env, "")
	if err := Ready("x"); err != nil {
		t.Errorf("without a service manager: %v", err)
	}
	t.Setenv(Env, filepath.Join(t.TempDir(), "gone"))
	if err := Stopping(); err == nil {
		t.Error("a socket that is not there was told")
	}
}
