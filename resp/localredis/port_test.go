package localredis

import (
	"net"
	"runtime"
	"strconv"
	"testing"
)

// A port is given out once, and its claim outlives the garbage collector.
func TestFreePortIsClaimed(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		port, err := FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if seen[port] {
			t.Fatalf("port %d was given out twice", port)
		}
		seen[port] = true
	}
	runtime.GC()
	runtime.GC() // finalizers of the first have run, or run now
	for port := range seen {
		if c, err := net.ListenPacket("udp", net.JoinHostPort(defaultHost, strconv.Itoa(port))); err == nil {
			t.Errorf("another process could be given port %d too", port)
			_ = c.Close()
		}
	}
}
