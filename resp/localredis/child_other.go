//go:build !linux

package localredis

import "syscall"

// childAttr puts the child in a process group of its own, so that Ctrl-C in a
// terminal reaches us alone and we stop the children in order.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func lockThread() (unlock func()) { return func() {} }
