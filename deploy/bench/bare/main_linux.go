// Command bare is the benchmark's yardstick: what is left of a proxy when all
// that it is for is taken away. It joins the requests of its clients on one
// connection to each node, as every proxy does that pipelines, and hands the
// replies back in order. It reads none of them: all requests are of one size,
// and so are all replies, and it is told both. It knows no error, no other
// command and no failure; whatever is not as expected ends it.
//
// What is slower than direct here is what one more process costs the machine.
package main

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	fs := flag.NewFlagSet("bare", flag.ContinueOnError)
	listen := fs.String("listen", "127.0.0.1:0", "`address` for clients")
	request := fs.Int("request", 0, "`bytes` of each request")
	reply := fs.Int("reply", 0, "`bytes` of each reply")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *request <= 0 || *reply <= 0 || fs.NArg() == 0 {
		return errors.New("usage: bare -listen ADDRESS -request BYTES -reply BYTES NODE [NODE]")
	}
	f := &forwarder{request: *request, reply: *reply, clients: map[int32]*client{}}
	if err := f.open(*listen, fs.Args()); err != nil {
		return err
	}
	return f.serve()
}

// forwarder is one loop, as small as one can be.
type forwarder struct {
	request, reply   int // bytes
	epoll, listening int
	nodes            []*node
	clients          map[int32]*client // by descriptor
	answered         []*client         // that have output
	chosen           *node
	chosenAt         time.Time
	buf              [128 << 10]byte
}

// node is a connection to a Redis.
type node struct {
	fd       int
	out      []byte
	waiting  []share // in the order of their requests
	inFlight int     // bytes of replies that are to come
}

// share is what of a node's replies is a client's.
type share struct {
	to   *client
	left int // bytes
}

type client struct {
	fd  int
	out []byte
}

func (f *forwarder) open(listen string, nodes []string) (err error) {
	if f.epoll, err = unix.EpollCreate1(0); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	for _, addr := range nodes {
		fd, to, err := socket(addr)
		if err != nil {
			return err
		}
		if err := unix.Connect(fd, to); err != nil {
			return fmt.Errorf("connect to %s: %w", addr, err)
		}
		f.nodes = append(f.nodes, &node{fd: fd})
		if err := f.watch(fd); err != nil {
			return err
		}
	}
	f.chosen = f.nodes[0]
	fd, at, err := socket(listen)
	if err != nil {
		return err
	}
	f.listening = fd
	if err := errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1), unix.Bind(fd, at), unix.Listen(fd, 511)); err != nil {
		return fmt.Errorf("listen on %s: %w", listen, err)
	}
	return f.watch(fd)
}

func socket(addr string) (fd int, at *unix.SockaddrInet4, err error) {
	a, err := netip.ParseAddrPort(addr)
	if err != nil || !a.Addr().Is4() {
		return 0, nil, fmt.Errorf("address %q: want IPv4:port", addr)
	}
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, nil, fmt.Errorf("socket: %w", err)
	}
	return fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
}

func (f *forwarder) watch(fd int) error {
	return unix.EpollCtl(f.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}
