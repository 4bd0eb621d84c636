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
	busy       bool // the last wait had events
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

// briefly is for how long, in milliseconds, a wait keeps its processor.
const briefly = 1

// yields is how often a wait, before it sleeps, lets others have the CPU and
// looks again.
const yields = 2

// wait blocks for at most timeout (negative: for ever) and returns how many
// events there are for each.
//
// A loop that has just been busy does not sleep at once. On a machine with few
// CPUs whoever is to give it work, a node or a client, may be waiting for this
// very CPU: it runs now, and then its answer is there, without a sleep and a
// wake-up, which cost more, and after which the kernel likes to have the loop
// wait behind the one that woke it. Where nobody waits it is five short calls.
//
// Then it first keeps its processor of Go's scheduler: under load something is
// soon ready, and a call that hands the processor over has the runtime's monitor
// wake every 20 us to see whether to take it, and the loop move from thread to
// thread. The garbage collector does not wait for us: its signal ends the call.
// Other goroutines need a processor meanwhile, see [Loop.Run].
func (p *poller) wait(timeout time.Duration) (int, error) {
	ms := -1
	if timeout >= 0 {
		ms = int((timeout + time.Millisecond - 1) / time.Millisecond)
	}
	brief := ms
	if ms < 0 || ms > briefly {
		brief = briefly
	}
	n, e := 0, syscall.Errno(0)
	if p.busy && ms != 0 {
		n, e = p.poll(0)
		for i := 0; i < yields && n == 0 && e == 0; i++ {
			_, _, _ = syscall.RawSyscall(syscall.SYS_SCHED_YIELD, 0, 0, 0)
			n, e = p.poll(0)
		}
	}
	if n == 0 && e == 0 {
		n, e = p.poll(brief)
	}
	if n == 0 && e == 0 && ms != brief {
		n, e = p.sleep(ms)
	}
	p.busy = n > 0
	if e == syscall.EINTR {
		return 0, nil
	}
	if e != 0 {
		return 0, os.NewSyscallError("epoll_pwait", e)
	}
	return n, nil
}

// poll waits for at most ms milliseconds and keeps its processor.
func (p *poller) poll(ms int) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.raw[0])), maxEvents, uintptr(ms), 0, 0)
	return int(n), e
}

// sleep is poll without the processor.
func (p *poller) sleep(ms int) (int, syscall.Errno) {
	n, _, e := syscall.Syscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd), uintptr(unsafe.Pointer(&p.raw[0])), maxEvents, uintptr(ms), 0, 0)
	return int(n), e
}

// each calls fn for each of the n events of the last wait.
func (p *poller) each(n int, fn func(event)) {
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
}

// wake ends a wait. Any goroutine may call it.
func (p *poller) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.wakeFD, one[:])
}

func accept(fd int) (int, unix.Sockaddr, error) {
	return unix.Accept4(fd, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
}
