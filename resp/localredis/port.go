package localredis

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// Ports are given out below those that the kernel gives to connections and to
// listeners on port 0 (from 32768 on Linux, 49152 on macOS): a port that nobody
// listens on for a while, such as that of a server that is killed and started
// again, would be taken by one of them now and then.
const firstPort, endOfPorts = 20000, 32000

// claims keeps what [FreePort] holds from the garbage collector, which would
// close it.
var claims struct {
	sync.Mutex
	held []net.PacketConn
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on. No other call
// returns it, in this process or in another, until this process ends: the UDP
// port of the same number is held as the sign of that.
func FreePort() (int, error) {
	var last error
	for range 1000 {
		port := firstPort + rand.IntN(endOfPorts-firstPort)
		addr := net.JoinHostPort(defaultHost, strconv.Itoa(port))
		claim, err := net.ListenPacket("udp", addr)
		if err != nil {
			last = err
			continue
		}
		l, err := net.Listen("tcp", addr)
		if err == nil {
			claims.Lock()
			claims.held = append(claims.held, claim)
			claims.Unlock()
			return port, l.Close()
		}
		last = errors.Join(err, claim.Close())
	}
	return 0, fmt.Errorf("find a free port: %w", last)
}
