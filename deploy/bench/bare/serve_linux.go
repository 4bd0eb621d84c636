package main

import (
	"bytes"
	"errors"
	"fmt"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// How long a choice of node stands, and how often a wait yields before it
// sleeps: as in sluice (proxy/choose.go, proxy/eventloop/poll_epoll.go), so that
// what it differs by is the work alone.
const (
	choiceFor = time.Millisecond
	yields    = 2
)

// serve handles whatever is ready, then writes once to everyone it is for.
func (f *forwarder) serve() error {
	var events [512]unix.EpollEvent
	for {
		n, err := f.wait(events[:])
		if err != nil {
			return err
		}
		f.choose()
		for i := range events[:n] {
			if err := f.handle(events[i].Fd); err != nil {
				return err
			}
		}
		for _, n := range f.nodes {
			if err := send(n.fd, &n.out); err != nil {
				return fmt.Errorf("write to a node: %w", err)
			}
		}
		for _, c := range f.answered {
			_ = send(c.fd, &c.out) // one that has left says so itself
		}
		f.answered = f.answered[:0]
	}
}

func (f *forwarder) handle(fd int32) error {
	if int(fd) == f.listening {
		conn, _, err := unix.Accept4(f.listening, unix.SOCK_CLOEXEC)
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		f.clients[int32(conn)] = &client{fd: conn}
		_ = unix.SetsockoptInt(conn, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		return f.watch(conn)
	}
	for _, n := range f.nodes {
		if n.fd == int(fd) {
			return f.replies(n)
		}
	}
	return f.requests(f.clients[fd])
}

// choose takes the node with less in flight, for a while.
func (f *forwarder) choose() {
	if now := time.Now(); now.Sub(f.chosenAt) >= choiceFor {
		f.chosenAt = now
		for _, n := range f.nodes {
			if n.inFlight < f.chosen.inFlight {
				f.chosen = n
			}
		}
	}
}

// requests passes on what a client has sent: whole requests, as
// redis-benchmark's come. It also asks for the node's configuration, on a
// connection of its own, and takes an error for the answer.
func (f *forwarder) requests(c *client) error {
	n := recv(c.fd, f.buf[:])
	data := f.buf[:max(n, 0)]
	switch {
	case n <= 0:
		fd := c.fd
		delete(f.clients, int32(fd))
		c.fd = -1 // the number may soon be another's
		return unix.Close(fd)
	case bytes.HasPrefix(data, []byte("*3\r\n")): // CONFIG GET, some at once
		c.out = append(c.out, bytes.Repeat([]byte("-ERR not here\r\n"), bytes.Count(data, []byte("*3\r\n")))...)
		f.answered = append(f.answered, c)
		return nil
	case n%f.request != 0:
		return fmt.Errorf("%d bytes from a client are not requests of %d", n, f.request)
	}
	to, left := f.chosen, n/f.request*f.reply
	to.out = append(to.out, data...)
	to.waiting = append(to.waiting, share{c, left})
	to.inFlight += left
	return nil
}

// replies hands out what a node has answered.
func (f *forwarder) replies(from *node) error {
	n := recv(from.fd, f.buf[:])
	if n <= 0 {
		return errors.New("a node has closed its connection")
	}
	from.inFlight -= n
	done := 0
	for data := f.buf[:n]; len(data) > 0; {
		if done == len(from.waiting) {
			return fmt.Errorf("a node has sent %d bytes too many", len(data))
		}
		s := &from.waiting[done]
		part := data[:min(len(data), s.left)]
		if len(s.to.out) == 0 {
			f.answered = append(f.answered, s.to)
		}
		s.to.out = append(s.to.out, part...)
		data = data[len(part):]
		if s.left -= len(part); s.left == 0 {
			done++
		}
	}
	from.waiting = from.waiting[:copy(from.waiting, from.waiting[done:])]
	return nil
}

// wait returns how many events there are.
func (f *forwarder) wait(events []unix.EpollEvent) (int, error) {
	n, e := f.poll(events, 0)
	for i := 0; i < yields && n == 0 && e == 0; i++ {
		_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
		n, e = f.poll(events, 0)
	}
	if n == 0 && e == 0 {
		n, e = f.poll(events, -1)
	}
	if e != 0 && e != syscall.EINTR {
		return 0, fmt.Errorf("epoll_pwait: %w", e)
	}
	return max(n, 0), nil
}

func (f *forwarder) poll(events []unix.EpollEvent, ms int) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(f.epoll), uintptr(unsafe.Pointer(&events[0])), uintptr(len(events)), uintptr(ms), 0, 0)
	return int(n), e
}

// recv returns the number of bytes read, 0 at the end, below 0 on an error.
func recv(fd int, b []byte) int {
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if e != 0 {
		return -1
	}
	return int(n)
}

// send writes and empties out. The sockets block, so that all of it is written.
func send(fd int, out *[]byte) error {
	b := *out
	if len(b) == 0 {
		return nil
	}
	*out = b[:0]
	_, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), syscall.MSG_NOSIGNAL, 0, 0)
	if e != 0 {
		return e
	}
	return nil
}
