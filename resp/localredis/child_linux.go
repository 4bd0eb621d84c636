package localredis

import (
	"runtime"
	"syscall"
)

// childAttr puts the child in a process group of its own, so that Ctrl-C in a
// terminal reaches us alone and we stop the children in order, and lets the
// kernel kill it when the thread that started it ends.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// lockThread keeps the calling goroutine on its thread while the child lives:
// Pdeathsig follows the thread, not the process (prctl(2)).
func lockThread() (unlock func()) {
	runtime.LockOSThread()
	return runtime.UnlockOSThread
}
