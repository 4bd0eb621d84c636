// Package sdnotify tells the service manager what the process is doing, as
// sd_notify(3) describes it: datagrams of KEY=VALUE lines to the unix socket
// that NOTIFY_SOCKET names. Without that variable it does nothing.
package sdnotify

import (
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Env names the variable that holds the socket's path, or its abstract name
// behind an @.
const Env = "NOTIFY_SOCKET"

// timeout bounds a datagram: a service manager that reads nothing must not hold
// up the service.
const timeout = time.Second

// Ready says that the service serves, or that a reload is over; status is a
// line for `systemctl status`.
func Ready(status string) error { return send("READY=1\nSTATUS=" + status) }

// Reloading says that a reload has begun. Ready must follow, whether it
// succeeds or not.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return send(fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping says that the end has begun.
func Stopping() error { return send("STOPPING=1\nSTATUS=draining") }

func send(state string) error {
	name := os.Getenv(Env)
	if name == "" {
		return nil
	}
	conn, err := net.DialTimeout("unixgram", name, timeout) // an @ is net's sign of an abstract name too
	if err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetWriteDeadline(time.Now().Add(timeout)) // it fails only on a closed socket
	if _, err := conn.Write([]byte(state)); err != nil {
		return fmt.Errorf("tell the service manager: %w", err)
	}
	return nil
}
