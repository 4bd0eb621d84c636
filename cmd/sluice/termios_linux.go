package main

import "golang.org/x/sys/unix"

// The requests that get and set a terminal's mode, see ioctl_tty(2).
const (
	termiosGet = unix.TCGETS
	termiosSet = unix.TCSETS
)
