//go:build linux || darwin

package downstream

import (
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

const hasSendFile = true

// sendFile sends up to n bytes of f from off on by sendfile(2), and waits while
// the socket takes none. It returns how many it has sent, at least one without an
// error. The file's own position is not used, as readers share the file.
func sendFile(conn syscall.RawConn, f *os.File, off int64, n int) (sent int, err error) {
	src, err := f.SyscallConn()
	if err != nil {
		return 0, err
	}
	errSrc := src.Control(func(in uintptr) {
		var errSend error
		err = conn.Write(func(out uintptr) bool {
			at := off
			for {
				sent, errSend = unix.Sendfile(int(out), int(in), &at, n)
				if sent > 0 {
					errSend = nil
				}
				if errSend != unix.EINTR {
					break
				}
			}
			return errSend != unix.EAGAIN
		})
		if err == nil {
			err = errSend
		}
	})
	switch {
	case errSrc != nil:
		return 0, errSrc
	case err != nil:
		return 0, os.NewSyscallError("sendfile", err)
	case sent <= 0:
		return 0, io.ErrUnexpectedEOF
	}
	return sent, nil
}
