// Package psynctest plays a master over net.Pipe, for what a real one cannot
// be made to do: bytes cut at every place, answers that come late, twice or
// never, connections that end in the middle. Whatever a real redis-server can
// be made to do is to be tested with one.
//
// Each connection is played by a script, a function that runs in a goroutine
// of its own. Every Send is one Write to a pipe, so the other side's Read
// never sees more than that piece at once, and Send returns when it has been
// read. What the other side writes is taken in as it comes, as by a socket's
// buffer, and read by the script when it wants to.
package psynctest

import (
	"context"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Timeout bounds one connection: a script that waits for what never comes
// fails the test rather than hang. In a testing/synctest bubble it is fake
// time.
const Timeout = 30 * time.Second

// Master is a master whose connections are scripted. Its methods may be called
// by any goroutine.
type Master struct {
	t       testing.TB
	wg      sync.WaitGroup
	mu      sync.Mutex
	scripts []func(*Session)
	conns   []net.Conn
	ending  bool // the test is over: errors of scripts are of no interest
}

// NewMaster returns a master without scripts. When the test ends it closes its
// connections and waits for its scripts.
func NewMaster(t testing.TB) *Master {
	m := &Master{t: t}
	t.Cleanup(m.close)
	return m
}

// Script adds the script of one more connection. Connections get them in the
// order in which they were added. A connection is closed when its script
// returns.
func (m *Master) Script(play func(*Session)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.scripts = append(m.scripts, play)
}

// Dial connects to the master. Where there is no script the connection is
// refused, as by a master that is down. The arguments are for use as a dial
// function; the address is ignored.
func (m *Master) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.scripts) == 0 || m.ending {
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	}
	play := m.scripts[0]
	m.scripts = m.scripts[1:]
	theirs, ours := net.Pipe()
	m.conns = append(m.conns, ours)
	s := newSession(m, ours)
	m.wg.Go(s.receive)
	m.wg.Go(func() {
		defer func() { _ = ours.Close() }()
		play(s)
	})
	return theirs, nil
}

// Wait waits until all scripts that were begun have returned, and fails the
// test if one was not.
func (m *Master) Wait() {
	m.t.Helper()
	m.wg.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	if n := len(m.scripts); n > 0 {
		m.t.Errorf("%d scripted connections were never made", n)
	}
}

func (m *Master) close() {
	m.mu.Lock()
	m.ending = true
	for _, c := range m.conns {
		_ = c.Close()
	}
	m.mu.Unlock()
	m.wg.Wait()
}

// fail reports an error of a script, unless the test is over, and ends the
// script's goroutine.
func (m *Master) fail(format string, args ...any) {
	m.t.Helper()
	m.mu.Lock()
	ending := m.ending
	m.mu.Unlock()
	if !ending {
		m.t.Errorf(format, args...)
	}
	runtime.Goexit()
}
