//go:build darwin || freebsd || netbsd || openbsd || dragonfly

package eventloop

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

func errno(err error) syscall.Errno {
	var e syscall.Errno
	if err == nil || errors.As(err, &e) {
		return e
	}
	return syscall.EIO
}

func sysRead(fd int, p []byte) (int, syscall.Errno) {
	n, err := unix.Read(fd, p)
	return n, errno(err)
}

func sysWrite(fd int, p []byte) (int, syscall.Errno) {
	n, err := unix.Write(fd, p)
	return n, errno(err)
}

type vectors struct{}

// writev writes the first chunk only: the kqueue build is for a developer's
// machine and favours few lines.
func (l *Loop) writev(fd int, k *Chunk) (int, syscall.Errno) { return sysWrite(fd, k.buf[k.sent:]) }
