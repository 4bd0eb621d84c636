package eventloop

import (
	"syscall"
	"unsafe"
)

// The sockets never block, so the calls go past the scheduler's bookkeeping
// (RawSyscall): it costs about 50 ns a call and buys nothing here.

func sysRead(fd int, p []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), e
}

func sysWrite(fd int, p []byte) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), e
}

const maxIovecs = 64

// vectors is the loop's scratch space for writev.
type vectors [maxIovecs]syscall.Iovec

func (l *Loop) writev(fd int, k *Chunk) (int, syscall.Errno) {
	n := 0
	for ; k != nil && n < maxIovecs; k = k.next {
		b := k.buf[k.sent:]
		if len(b) == 0 {
			continue
		}
		l.iov[n].Base = unsafe.SliceData(b)
		l.iov[n].SetLen(len(b))
		n++
	}
	w, _, e := syscall.RawSyscall(syscall.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(&l.iov[0])), uintptr(n))
	clear(l.iov[:n])
	return int(w), e
}
