// Package localredis starts stock redis-server processes on this machine, as
// servers and as sentinels: for `sluice lab`, for the generator of the command
// table and for the tests.
//
// A [Server] is a child process with a directory of its own. Start returns
// once it answers PING; Stop ends it and waits for it. On Linux the kernel
// kills the child when its parent dies, so a killed lab leaves nothing behind.
package localredis

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// DefaultBinary is looked up in PATH.
const DefaultBinary = "redis-server"

const defaultHost = "127.0.0.1"

// readyTimeout bounds how long a new server may take to answer PING.
const readyTimeout = 15 * time.Second

// ErrNoBinary says that redis-server is not installed.
var ErrNoBinary = errors.New("redis-server not found in PATH: install it (apt-get install redis-server, brew install redis)")

// Options of [Start]. The zero value starts a master on a free port of
// 127.0.0.1 that persists nothing.
type Options struct {
	Binary    string   // default DefaultBinary
	Dir       string   // working directory; default a new temporary one, removed by Stop
	Host      string   // address to listen on; default 127.0.0.1
	Port      int      // TCP port; 0 for a free one
	ReplicaOf *Server  // start as a replica of this server
	Args      []string // further arguments as on redis-server's command line: "--maxmemory", "10mb"
}

// Server is a running redis-server. Its methods may be called by any
// goroutine, Stop, Kill and Restart by one at a time.
type Server struct {
	opt     Options
	conf    string // a sentinel's configuration, "" for a server
	ownDir  bool
	port    int
	cmd     *exec.Cmd
	done    chan struct{} // closed when the process has been waited for
	waitErr error         // valid once done is closed
}

// Start starts a server and waits until it answers PING or ctx is done.
func Start(ctx context.Context, o Options) (*Server, error) { return start(ctx, o, "") }

func start(ctx context.Context, o Options, conf string) (*Server, error) {
	if o.Binary == "" {
		o.Binary = DefaultBinary
	}
	if o.Host == "" {
		o.Host = defaultHost
	}
	if _, err := exec.LookPath(o.Binary); err != nil {
		return nil, ErrNoBinary
	}
	s := &Server{opt: o, conf: conf}
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "sluice-redis-")
		if err != nil {
			return nil, fmt.Errorf("create directory of redis-server: %w", err)
		}
		s.opt.Dir, s.ownDir = dir, true
	}
	var err error
	for range 5 { // a free port may be taken by another program in between
		if s.port = o.Port; s.port == 0 {
			if s.port, err = FreePort(); err != nil {
				break
			}
		}
		if err = s.configure(); err != nil {
			break
		}
		if err = s.launch(ctx); err == nil {
			return s, nil
		}
		if o.Port != 0 || ctx.Err() != nil {
			break
		}
	}
	s.removeDir()
	return nil, err
}

// Addr returns HOST:PORT.
func (s *Server) Addr() string { return net.JoinHostPort(s.opt.Host, strconv.Itoa(s.port)) }

// Host returns the address on which the server listens.
func (s *Server) Host() string { return s.opt.Host }

// Port returns the TCP port.
func (s *Server) Port() int { return s.port }

// Binary returns the program that was started.
func (s *Server) Binary() string { return s.opt.Binary }

// Dir returns the server's working directory.
func (s *Server) Dir() string { return s.opt.Dir }

// LogFile returns the path of the server's log.
func (s *Server) LogFile() string { return filepath.Join(s.opt.Dir, "redis.log") }

// Socket returns the path of the server's unix socket.
func (s *Server) Socket() string { return filepath.Join(s.opt.Dir, "redis.sock") }

// Pid returns the process id.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

// Done is closed when the process has ended, for whatever reason.
func (s *Server) Done() <-chan struct{} { return s.done }

// Signal sends sig to the process, for instance SIGSTOP.
func (s *Server) Signal(sig os.Signal) error { return s.cmd.Process.Signal(sig) }

// Kill ends the process by SIGKILL and waits for it. The directory stays, so
// that Restart can follow.
func (s *Server) Kill() {
	_ = s.cmd.Process.Kill()
	<-s.done
}

// Restart starts the server again on its port and in its directory, with the
// replicaof that it was started with. The process must have ended.
func (s *Server) Restart(ctx context.Context) error { return s.launch(ctx) }

// Stop ends the process (SIGTERM, then SIGKILL after five seconds), waits for
// it and removes a directory that Start made.
func (s *Server) Stop() {
	_ = s.cmd.Process.Signal(syscall.SIGCONT) // a stopped process cannot act on SIGTERM
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.done:
	case <-time.After(5 * time.Second):
		s.Kill()
	}
	s.removeDir()
}

func (s *Server) removeDir() {
	if s.ownDir {
		_ = os.RemoveAll(s.opt.Dir)
	}
}

// args returns the command line.
func (s *Server) args() []string {
	if s.conf != "" {
		return append([]string{s.confFile(), "--sentinel"}, s.opt.Args...)
	}
	args := []string{
		"--port", strconv.Itoa(s.port), "--bind", s.opt.Host, "--dir", s.opt.Dir,
		"--unixsocket", s.Socket(), "--logfile", s.LogFile(), "--daemonize", "no",
		"--save", "", "--appendonly", "no", "--repl-diskless-sync-delay", "0",
	}
	if s.opt.ReplicaOf != nil {
		args = append(args, "--replicaof", s.opt.ReplicaOf.Host(), strconv.Itoa(s.opt.ReplicaOf.port))
	}
	if s.opt.Host != defaultHost { // else it refuses every peer that is not 127.0.0.1
		args = append(args, "--protected-mode", "no")
	}
	return append(args, s.opt.Args...)
}

func (s *Server) launch(ctx context.Context) error {
	cmd := exec.Command(s.opt.Binary, s.args()...)
	cmd.SysProcAttr = childAttr()
	done := make(chan struct{})
	started := make(chan error, 1)
	go func() { // owner of the process: the parent-death signal is tied to its thread
		defer close(done)
		unlock := lockThread()
		defer unlock()
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		started <- nil
		s.waitErr = cmd.Wait()
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start %s: %w", s.opt.Binary, err)
	}
	s.cmd, s.done = cmd, done
	if err := s.waitReady(ctx); err != nil {
		_ = cmd.Process.Kill()
		<-done
		return fmt.Errorf("start %s on port %d: %w%s", s.opt.Binary, s.port, err, s.logTail())
	}
	return nil
}

// waitReady polls PING: redis-server offers no other sign that it is ready.
func (s *Server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		// The port may be somebody else's: ours answers only while ours lives.
		if reply, err := Do(s.Addr(), "PING"); err == nil && !strings.HasPrefix(reply, "-LOADING") {
			select {
			case <-s.done:
			default:
				return nil
			}
		}
		select {
		case <-s.done:
			return fmt.Errorf("process ended: %w", s.waitErr)
		case <-ctx.Done():
			return fmt.Errorf("no answer to PING: %w", ctx.Err())
		case <-tick.C:
		}
	}
}

func (s *Server) logTail() string {
	b, err := os.ReadFile(s.LogFile())
	if err != nil || len(b) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "; its log ends: " + strings.Join(lines[max(0, len(lines)-3):], " | ")
}

// Do sends one inline command on a connection of its own and returns the first
// line of the reply with its type character, or for a bulk string the string.
// It is for set-up and probing, not for a data path, and fails after 5 s.
func Do(addr string, words ...string) (string, error) {
	return DoWithin(5*time.Second, addr, words...)
}

// DoWithin is [Do] for a command that may take longer.
func DoWithin(timeout time.Duration, addr string, words ...string) (string, error) {
	c, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return "", err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(timeout))
	if _, err := fmt.Fprintf(c, "%s\r\n", strings.Join(words, " ")); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	if !strings.HasPrefix(line, "$") || line == "$-1" {
		return line, nil
	}
	n, err := strconv.Atoi(line[1:])
	if err != nil {
		return "", fmt.Errorf("reply of %s: bad bulk length %q", addr, line)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	return string(b), nil
}
