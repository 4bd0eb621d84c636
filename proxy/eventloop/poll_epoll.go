//go:build linux

package eventloop

import (
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// poller is epoll, level-triggered.
type poller struct {
	fd, wakeFD int
	raw        [maxEvents]unix.EpollEvent
}

const wakeSlot = -1

func (p *poller) open() error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	p.fd = fd
	p.wakeFD, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		_ = unix.Close(fd)
		return os.NewSyscallError("eventfd", err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: wakeSlot}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, p.wakeFD, &ev); err != nil {
		p.close()
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

func (p *poller) close() {
	_ = unix.Close(p.wakeFD)
	_ = unix.Close(p.fd)
}

func epollMask(read, write bool) uint32 {
	var m uint32
	if read {
		m |= unix.EPOLLIN
	}
	if write {
		m |= unix.EPOLLOUT
	}
	return m
}

func (p *poller) add(fd, slot int, read, write bool) error {
	ev := unix.EpollEvent{Events: epollMask(read, write), Fd: int32(slot)}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("add descriptor to epoll: %w", err)
	}
	return nil
}

func (p *poller) modify(fd, slot int, read, write bool) error {
	ev := unix.EpollEvent{Events: epollMask(read, write), Fd: int32(slot)}
	if err := unix.EpollCtl(p.fd, unix.EPOLL_CTL_MOD, fd, &ev); err != nil {
		return fmt.Errorf("change descriptor in epoll: %w", err)
	}
	return nil
}

// remove is needed though close would do it: a duplicate of the descriptor in
// a child process would keep it registered.
func (p *poller) remove(fd int) { _ = unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// wait blocks for at most timeout (negative: for ever) and calls fn for each
// event. It polls once without blocking first: under load something is ready,
// and the blocking call costs a hand-over of the processor to the scheduler.
func (p *poller) wait(timeout time.Duration, fn func(event)) error {
	n, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.raw[0])), maxEvents, 0, 0, 0)
	if e == 0 && n == 0 && timeout != 0 {
		ms := -1
		if timeout > 0 {
			ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
		}
		// Through the scheduler: the garbage collector must not wait for us.
		n, _, e = syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.raw[0])), maxEvents, uintptr(ms), 0, 0)
	}
	if e == syscall.EINTR {
		return nil
	}
	if e != 0 {
		return os.NewSyscallError("epoll_pwait", e)
	}
	for i := range p.raw[:n] {
		ev := &p.raw[i]
		if ev.Fd == wakeSlot {
			var b [8]byte
			_, _ = unix.Read(p.wakeFD, b[:])
			continue
		}
		fn(event{
			slot:   int(ev.Fd),
			read:   ev.Events&unix.EPOLLIN != 0,
			write:  ev.Events&unix.EPOLLOUT != 0,
			hangup: ev.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0,
		})
	}
	return nil
}

// wake ends a wait. Any goroutine may call it.
func (p *poller) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.wakeFD, one[:])
}

func accept(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
}
