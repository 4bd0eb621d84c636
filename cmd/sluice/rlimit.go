package main

import (
	"fmt"
	"syscall"
)

// reservedFiles are descriptors for what is no client: listeners, upstream
// connections, the log (as CONFIG_MIN_RESERVED_FDS in Redis's server.h).
const reservedFiles = 32

// raiseFileLimit raises the soft limit of open files (RLIMIT_NOFILE) to the hard
// one and returns the limit in force. With an error it is the one from before.
func raiseFileLimit() (uint64, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if r.Cur >= r.Max {
		return r.Cur, nil
	}
	before := r.Cur
	r.Cur = r.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return before, fmt.Errorf("raise the limit of open files from %d to %d: %w", before, r.Max, err)
	}
	return r.Cur, nil
}
