//go:build !linux

package main

import "golang.org/x/sys/unix"

// The requests that get and set a terminal's mode, see termios(4).
const (
	termiosGet = unix.TIOCGETA
	termiosSet = unix.TIOCSETA
)
