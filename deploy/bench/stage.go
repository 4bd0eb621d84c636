package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
)

// readyTimeout bounds how long a process may take until it answers.
const readyTimeout = 20 * time.Second

// contestant is where one of them listens. Its process is nil for direct.
type contestant struct {
	port   int
	socket string
	proc   *process
}

// stage is all that runs on this machine for the benchmark: a master with two
// replicas, and the proxies in front. One goroutine uses it.
type stage struct {
	dir         string
	servers     []*localredis.Server // the master first
	contestants map[string]*contestant
}

// startStage starts everything and returns once every contestant has answered
// a GET through both of its addresses.
func startStage(ctx context.Context, opt options) (*stage, error) {
	dir, err := os.MkdirTemp("", "sluice-bench-")
	if err != nil {
		return nil, fmt.Errorf("create directory: %w", err)
	}
	st := &stage{dir: dir, contestants: map[string]*contestant{}}
	err = st.startServers(ctx)
	for _, name := range opt.contestants {
		if err == nil {
			err = st.startContestant(ctx, name, opt)
		}
	}
	if err != nil {
		st.stop()
		return nil, err
	}
	return st, nil
}

// stop ends everything that was started, proxies first.
func (st *stage) stop() {
	for _, c := range st.contestants {
		if c.proc != nil {
			c.proc.stop()
		}
	}
	for _, s := range st.servers {
		s.Stop()
	}
	_ = os.RemoveAll(st.dir)
}

// startServers starts the master with the values for GET, and two replicas.
func (st *stage) startServers(ctx context.Context) error {
	var master *localredis.Server
	for range 3 {
		s, err := localredis.Start(ctx, localredis.Options{ReplicaOf: master, Args: []string{"--maxclients", "10000"}})
		if err != nil {
			return err
		}
		st.servers = append(st.servers, s)
		if master == nil {
			master = s
		}
	}
	linked := func() error {
		for _, s := range st.servers[1:] {
			info, err := localredis.Do(s.Addr(), "INFO", "replication")
			if err != nil {
				return fmt.Errorf("ask replica %s: %w", s.Addr(), err)
			}
			if !strings.Contains(info, "master_link_status:up") {
				return fmt.Errorf("replica %s has no link to its master", s.Addr())
			}
		}
		return nil
	}
	if err := poll(ctx, nil, linked); err != nil {
		return err
	}
	return fill(master.Socket())
}

// fill writes all keys through the master's socket and waits for both replicas.
func fill(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return fmt.Errorf("fill master: %w", err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	failed := make(chan error, 1)
	go func() { // the replies must be read meanwhile, or both sides block
		w := bufio.NewWriter(conn)
		for _, size := range sizes {
			value := strings.Repeat("x", size)
			for i := range keys {
				_, _ = w.WriteString(request("SET", fmt.Sprintf("%s%012d", keyPrefix(size), i), value))
			}
		}
		_, _ = w.WriteString(request("WAIT", "2", "30000"))
		failed <- w.Flush() // a bufio.Writer keeps its first error
	}()
	r := bufio.NewReader(conn)
	for range keys * len(sizes) {
		if err := expect(r, "+OK\r\n"); err != nil {
			return fmt.Errorf("fill master: SET: %w", err)
		}
	}
	if err := expect(r, ":2\r\n"); err != nil {
		return fmt.Errorf("fill replicas: WAIT: %w", err)
	}
	return <-failed
}

func expect(r *bufio.Reader, want string) error {
	line, err := r.ReadString('\n')
	if err != nil {
		return err
	}
	if line != want {
		return fmt.Errorf("answered %q", line)
	}
	return nil
}

// startContestant starts one and waits until it answers.
func (st *stage) startContestant(ctx context.Context, name string, opt options) error {
	master := st.servers[0]
	c := &contestant{port: master.Port(), socket: master.Socket()}
	if name != direct {
		c.socket = filepath.Join(st.dir, name+".sock")
		var err error
		if c.port, err = localredis.FreePort(); err != nil {
			return err
		}
		argv, err := st.command(name, c, opt)
		if err != nil {
			return err
		}
		if c.proc, err = startProcess(st.dir, name, argv); err != nil {
			return err
		}
	}
	st.contestants[name] = c
	answers := func() error {
		for _, via := range []string{viaTCP, viaUnix} {
			if !slices.Contains(small("GET", 1, via).among(opt.contestants), name) {
				continue
			}
			if err := c.probe(via); err != nil {
				return fmt.Errorf("%s via %s: %w", name, via, err)
			}
		}
		if name == sluice {
			return st.replicasRead()
		}
		return nil
	}
	if c.proc == nil {
		return poll(ctx, nil, answers)
	}
	if err := poll(ctx, c.proc.done, answers); err != nil {
		return fmt.Errorf("%w%s", err, c.proc.logTail())
	}
	return nil
}

// replicasRead says whether both replicas have served reads by now.
func (st *stage) replicasRead() error {
	for _, s := range st.servers[1:] {
		stats, err := readStats(s)
		if err != nil {
			return err
		}
		if stats.gets == 0 {
			return fmt.Errorf("sluice sends no reads to replica %s", s.Addr())
		}
	}
	return nil
}

// command writes the configuration of a proxy and returns how to start it. All
// are as their packages ship them but for what the line-up needs.
func (st *stage) command(name string, c *contestant, opt options) ([]string, error) {
	master := st.servers[0].Addr()
	addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
	config := filepath.Join(st.dir, name+".conf")
	switch name {
	case haproxy:
		text := fmt.Sprintf(`global
  maxconn 2000
  nbthread %d
defaults
  mode tcp
  timeout connect 5s
  timeout client 5m
  timeout server 5m
listen redis
  bind %s
  bind unix@%s
  server master %s
`, opt.loops, addr, c.socket, master)
		return []string{"haproxy", "-db", "-f", config}, os.WriteFile(config, []byte(text), 0o644)
	case twemproxy:
		text := ""
		for pool, listen := range map[string]string{viaTCP: addr, viaUnix: c.socket + " 0666"} {
			text += fmt.Sprintf(`%s:
  listen: %s
  redis: true
  hash: fnv1a_64
  distribution: modula
  preconnect: true
  auto_eject_hosts: false
  servers:
   - %s:1
`, pool, listen, master)
		}
		stats, err := localredis.FreePort()
		if err != nil {
			return nil, err
		}
		return []string{"nutcracker", "-c", config, "-a", "127.0.0.1", "-s", strconv.Itoa(stats),
			"-p", filepath.Join(st.dir, name+".pid"), "-o", filepath.Join(st.dir, name+".log")}, os.WriteFile(config, []byte(text), 0o644)
	case bare:
		argv := []string{opt.bare, "-listen", addr, "-request", strconv.Itoa(len(probeRequest())), "-reply", strconv.Itoa(len(probeReply()))}
		for _, s := range st.servers[1:] {
			argv = append(argv, s.Addr())
		}
		return argv, nil
	default:
		admin, err := localredis.FreePort()
		if err != nil {
			return nil, err
		}
		return []string{opt.sluice, "serve", "--master", master, "--listen", addr, "--listen", "unix:" + c.socket,
			"--admin-listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(admin)),
			"--consistency", "eventual", "--loops", strconv.Itoa(opt.loops)}, nil
	}
}

// probe asks for a key and returns an error unless its value comes back.
func (c *contestant) probe(via string) error {
	network, addr := "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port))
	if via == viaUnix {
		network, addr = "unix", c.socket
	}
	conn, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, probeRequest()); err != nil {
		return err
	}
	want := probeReply()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(conn, got); err != nil {
		return fmt.Errorf("GET answered %q: %w", got[:n], err)
	}
	if string(got) != want {
		return fmt.Errorf("GET answered %q", got)
	}
	return nil
}

// probeRequest asks for a key of the first size, in as many bytes as redis-benchmark does.
func probeRequest() string {
	return request("GET", fmt.Sprintf("%s%012d", keyPrefix(sizes[0]), 0))
}

// probeReply is the answer.
func probeReply() string {
	return fmt.Sprintf("$%d\r\n%s\r\n", sizes[0], strings.Repeat("x", sizes[0]))
}

// request returns a command as RESP: twemproxy knows no inline commands.
func request(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

// poll asks until there is no error, what is asked has ended, ctx is done, or
// readyTimeout has passed.
func poll(ctx context.Context, ended <-chan struct{}, ask func() error) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := ask()
		if err == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("process has ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ctx.Err(), err)
		case <-tick.C:
		}
	}
}

// process is a proxy that we started, with its output in a file.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has been waited for
}

func startProcess(dir, name string, argv []string) (*process, error) {
	p := &process{name: name, log: filepath.Join(dir, name+".out"), done: make(chan struct{})}
	out, err := os.Create(p.log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer func() { _ = out.Close() }()
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us: we stop it
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is in its log
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(3 * time.Second):
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

func (p *process) logTail() string {
	b, err := os.ReadFile(p.log)
	if err != nil || len(b) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return "; its output ends: " + strings.Join(lines[max(0, len(lines)-3):], " | ")
}
