//go:build !linux && !darwin

package downstream

import (
	"errors"
	"os"
	"syscall"
)

func sendFile(syscall.RawConn, *os.File, int64, int) (int, error) {
	return 0, errors.ErrUnsupported
}

const hasSendFile = false
