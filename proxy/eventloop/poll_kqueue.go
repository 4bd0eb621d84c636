//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package eventloop

import (
	"errors"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// poller is kqueue, level-triggered. A pipe wakes it.
type poller struct {
	fd    int
	pipe  [2]int
	slots map[int]int // slot by descriptor
	raw   [maxEvents]unix.Kevent_t
}

func (p *poller) open() error {
	fd, err := unix.Kqueue()
	if err != nil {
		return os.NewSyscallError("kqueue", err)
	}
	p.fd = fd
	p.slots = make(map[int]int)
	if err := unix.Pipe(p.pipe[:]); err != nil {
		_ = unix.Close(fd)
		return os.NewSyscallError("pipe", err)
	}
	for _, fd := range p.pipe {
		unix.CloseOnExec(fd)
		_ = unix.SetNonblock(fd, true)
	}
	unix.CloseOnExec(p.fd)
	return p.change(p.pipe[0], unix.EVFILT_READ, true)
}

func (p *poller) close() {
	_ = unix.Close(p.pipe[0])
	_ = unix.Close(p.pipe[1])
	_ = unix.Close(p.fd)
}

func (p *poller) change(fd int, filter int, on bool) error {
	flags := unix.EV_DELETE
	if on {
		flags = unix.EV_ADD
	}
	var k [1]unix.Kevent_t
	unix.SetKevent(&k[0], fd, filter, flags)
	_, err := unix.Kevent(p.fd, k[:], nil, nil)
	if !on && errors.Is(err, syscall.ENOENT) {
		return nil // it was not armed
	}
	return os.NewSyscallError("kevent", err)
}

func (p *poller) add(fd, slot int, read, write bool) error {
	p.slots[fd] = slot
	return p.modify(fd, slot, read, write)
}

func (p *poller) modify(fd, _ int, read, write bool) error {
	return errors.Join(p.change(fd, unix.EVFILT_READ, read), p.change(fd, unix.EVFILT_WRITE, write))
}

func (p *poller) remove(fd int) {
	delete(p.slots, fd)
	_ = p.change(fd, unix.EVFILT_READ, false)
	_ = p.change(fd, unix.EVFILT_WRITE, false)
}

// wait blocks for at most timeout (negative: for ever) and returns how many
// events there are for each.
func (p *poller) wait(timeout time.Duration) (int, error) {
	var ts *unix.Timespec
	if timeout >= 0 {
		t := unix.NsecToTimespec(int64(timeout))
		ts = &t
	}
	n, err := unix.Kevent(p.fd, nil, p.raw[:], ts)
	if errors.Is(err, syscall.EINTR) {
		return 0, nil
	}
	if err != nil {
		return 0, os.NewSyscallError("kevent", err)
	}
	return n, nil
}

// each calls fn for each of the n events of the last wait.
func (p *poller) each(n int, fn func(event)) {
	for i := range p.raw[:n] {
		ev := &p.raw[i]
		fd := int(ev.Ident)
		if fd == p.pipe[0] {
			var b [64]byte
			_, _ = unix.Read(fd, b[:])
			continue
		}
		if slot, ok := p.slots[fd]; ok {
			fn(event{
				slot:  slot,
				read:  ev.Filter == unix.EVFILT_READ,
				write: ev.Filter == unix.EVFILT_WRITE,
			})
		}
	}
}

// wake ends a wait. Any goroutine may call it.
func (p *poller) wake() { _, _ = unix.Write(p.pipe[1], []byte{1}) }

func accept(fd int) (int, unix.Sockaddr, error) {
	nfd, sa, err := unix.Accept(fd)
	if err != nil {
		return -1, nil, err
	}
	unix.CloseOnExec(nfd)
	if err := unix.SetNonblock(nfd, true); err != nil {
		_ = unix.Close(nfd)
		return -1, nil, err
	}
	return nfd, sa, nil
}
