package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/repl"
)

const (
	maxLabReplicas = 50
	labSyncTimeout = 30 * time.Second
	labPollEvery   = 20 * time.Millisecond
	labRelayPort   = 6390
)

// labCmd is `sluice lab`.
type labCmd struct {
	Replicas int  `help:"Number of replicas (default ${default})." default:"2" placeholder:"N"`
	Port     int  `help:"Port of the master; the replicas get the next ones. A free port takes the place of one that is in use (default ${default})." default:"6401" placeholder:"PORT"`
	Relay    bool `help:"Have the last replica sync from sluice's relay in place of the master."`
	config.ProxyFlags
}

// lab is a master, its replicas and a sluice, all of this process.
type lab struct {
	env       *env
	dir       string
	servers   []*labServer // the master first
	in        *instance
	relayPort int             // 0: no relay
	died      chan *labServer // servers that have ended by themselves
	stopped   chan struct{}   // closed when the end has begun
	watches   sync.WaitGroup  // of the goroutines that write to died
}

// labServer is one redis-server of a lab.
type labServer struct {
	*localredis.Server
	role string // "master" or "replica", as started
	of   int    // port that a replica syncs from, as started
}

// Run runs the lab until a signal.
func (c *labCmd) Run(e *env) error {
	cfg, err := c.config()
	if err != nil {
		return usageError{err}
	}
	ctx, stop := e.untilSignal()
	defer stop()
	l := &lab{env: e, died: make(chan *labServer), stopped: make(chan struct{})}
	err = l.start(ctx, c, cfg)
	if err == nil {
		l.printTable()
		err = l.watch(ctx)
	} else if ctx.Err() != nil {
		err = nil // Ctrl-C while starting is no failure
	}
	stop() // a second signal is close's: it ends the drain
	return errors.Join(err, l.close())
}

// config returns the proxy's configuration; start fills in what only a running
// server knows.
func (c *labCmd) config() (*config.Config, error) {
	if c.Replicas < 0 || c.Replicas > maxLabReplicas {
		return nil, fmt.Errorf("--replicas %d: must be 0 to %d", c.Replicas, maxLabReplicas)
	}
	if c.Relay && c.Replicas == 0 {
		return nil, errors.New("--relay: needs a replica; give --replicas 1 or more")
	}
	if last := c.Port + c.Replicas; c.Port < 1 || last > 65535 {
		return nil, fmt.Errorf("--port %d: must be 1 to %d with %d replicas", c.Port, 65535-c.Replicas, c.Replicas)
	}
	cfg := config.Default()
	cfg.Log.Level = "warn" // the table is to stay in sight
	c.Apply(cfg)
	cfg.Master = net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port))
	return cfg, cfg.Validate()
}

// start starts the servers, then sluice, and waits until reads go to every
// replica. What it has started when it fails, close ends.
func (l *lab) start(ctx context.Context, c *labCmd, cfg *config.Config) (err error) {
	if l.dir, err = os.MkdirTemp("", "sluice-lab-"); err != nil {
		return fmt.Errorf("create the lab's directory: %w", err)
	}
	direct := c.Replicas
	if c.Relay {
		direct--
	}
	for i := range direct + 1 {
		if err := l.startServer(ctx, c.Port+i, 0); err != nil {
			return err
		}
	}
	cfg.Master = l.servers[0].Addr()
	if c.Relay {
		if err := l.configureRelay(cfg); err != nil {
			return err
		}
	}
	cfg.Listeners = append(cfg.Listeners, config.Listener{Address: "unix:" + filepath.Join(l.dir, "sluice.sock")})
	if err := cfg.Validate(); err != nil { // a long TMPDIR makes a long socket path
		return err
	}
	if l.in, err = startInstance(cfg, l.env.stderr); err != nil {
		return err
	}
	if c.Relay {
		if err := l.startServer(ctx, c.Port+c.Replicas, l.relayPort); err != nil {
			return err
		}
	}
	return l.waitInSync(ctx)
}

// configureRelay has cfg serve replicas on a port of its own.
func (l *lab) configureRelay(cfg *config.Config) (err error) {
	if l.relayPort = freeOrZero(labRelayPort); l.relayPort == 0 {
		if l.relayPort, err = localredis.FreePort(); err != nil {
			return err
		}
	}
	cfg.Relay.Dir = filepath.Join(l.dir, "relay")
	cfg.Relay.Listen = net.JoinHostPort("127.0.0.1", strconv.Itoa(l.relayPort))
	return nil
}

// startServer starts the next redis-server, on port if it is free. A replica syncs
// from the port of, or from the master if that is 0.
func (l *lab) startServer(ctx context.Context, port, of int) error {
	o := localredis.Options{Dir: filepath.Join(l.dir, "master"), Port: freeOrZero(port)}
	s := &labServer{role: "master"}
	if n := len(l.servers); n > 0 {
		s.role, s.of = "replica", of
		if of == 0 {
			s.of = l.servers[0].Port()
		}
		o.Args = []string{"--replicaof", "127.0.0.1", strconv.Itoa(s.of)}
		o.Dir = filepath.Join(l.dir, fmt.Sprintf("replica%d", n))
	}
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		return fmt.Errorf("create directory of redis-server: %w", err)
	}
	var err error
	if s.Server, err = localredis.Start(ctx, o); err != nil && o.Port != 0 && freeOrZero(port) == 0 {
		o.Port = 0 // somebody took it in between
		s.Server, err = localredis.Start(ctx, o)
	}
	if err != nil {
		return err
	}
	l.servers = append(l.servers, s)
	l.watches.Go(func() {
		<-s.Done()
		select {
		case l.died <- s:
		case <-l.stopped:
		}
	})
	return nil
}

// freeOrZero returns port if it can be listened on, else 0.
func freeOrZero(port int) int {
	ln, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return 0
	}
	_ = ln.Close()
	return port
}

// waitInSync waits until every replica is read and has applied a write.
//
// That its link is connected is not enough: after a diskless sync the master
// starts the command stream only at the replica's next REPLCONF ACK, up to a
// second later (replicaStartCommandStream in Redis's replication.c), and a GET
// typed in between would not see the SET before it.
func (l *lab) waitInSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, labSyncTimeout)
	defer cancel()
	mark := int64(-1)                    // the offset to wait for, once all are read
	tick := time.NewTicker(labPollEvery) // a Status can only be asked for
	defer tick.Stop()
	for {
		st := l.in.proxy.Status()
		if l.inSync(st, mark) {
			if mark >= 0 || len(l.servers) == 1 {
				return nil
			}
			var err error
			if mark, err = advanceOffset(l.servers[0].Addr()); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case s := <-l.died:
			return fmt.Errorf("the %s %s has ended while the lab was starting", s.role, s.Addr())
		case <-l.in.proxy.Done():
			return l.in.failure()
		case <-l.in.admin.Done():
			return l.in.failure()
		case <-ctx.Done():
			return fmt.Errorf("the replicas are not in sync after %s:\n%s", labSyncTimeout, statusTable(&admin.Status{Status: st}))
		}
	}
}

// inSync reports whether the master answers and every replica is read and has
// applied the stream up to offset.
func (l *lab) inSync(st proxy.Status, offset int64) bool {
	replicas := 0
	for _, n := range st.Nodes {
		if n.Role == "replica" && n.Up && n.Address != l.in.cfg.Relay.Listen && (n.Reads || l.masterOnly()) && n.Offset >= max(0, offset) {
			replicas++
		}
	}
	return st.Ready && replicas == len(l.servers)-1
}

// advanceOffset makes the master send something to its replicas that changes no
// data, and returns an offset that includes it.
func advanceOffset(master string) (int64, error) {
	if _, err := localredis.Do(master, "PUBLISH", "sluice:lab", "ready"); err != nil {
		return 0, fmt.Errorf("publish on %s: %w", master, err)
	}
	info, err := localredis.Do(master, "INFO", "replication")
	if err != nil {
		return 0, fmt.Errorf("read INFO of %s: %w", master, err)
	}
	_, rest, _ := strings.Cut(info, "\r\nmaster_repl_offset:")
	digits, _, _ := strings.Cut(rest, "\r\n")
	offset, err := repl.ParseOffset(digits)
	if err != nil {
		return 0, fmt.Errorf("read INFO of %s: %w", master, err)
	}
	return int64(offset), nil
}

// masterOnly reports whether no listener sends reads to replicas.
func (l *lab) masterOnly() bool {
	return l.in.cfg.Consistency == proxy.ConsistencyMaster || l.in.cfg.ReadFrom == proxy.ReadFromMaster
}

// watch waits for a signal or a failure of sluice. That a redis-server ends is
// what a lab is for: it is said, and sluice goes on.
func (l *lab) watch(ctx context.Context) error {
	for {
		select {
		case s := <-l.died:
			l.env.printf("\nThe %s %s (pid %d) has ended; sluice goes on without it. To have it back:\n  %s\n",
				s.role, s.Addr(), s.Pid(), l.restartCommand(s))
		case <-ctx.Done():
			return nil
		case <-l.in.proxy.Done():
			return l.in.failure()
		case <-l.in.admin.Done():
			return l.in.failure()
		}
	}
}

// restartCommand is what to type for a server like s.
func (l *lab) restartCommand(s *labServer) string {
	cmd := fmt.Sprintf("redis-server --port %d --bind 127.0.0.1 --save ''", s.Port())
	if s.role == "replica" {
		cmd += fmt.Sprintf(" --replicaof 127.0.0.1 %d", s.of)
	}
	return cmd
}

// close ends sluice, then the replicas, then the master, and says so. It leaves
// nothing behind.
func (l *lab) close() error {
	close(l.stopped)
	l.env.printf("\n")
	var err error
	if l.in != nil {
		l.env.printf("Stopping sluice\n")
		err = l.in.close(l.env.signals)
	}
	for i := len(l.servers) - 1; i >= 0; i-- {
		s := l.servers[i]
		l.env.printf("Stopping the %s %s\n", s.role, s.Addr())
		s.Stop()
	}
	l.watches.Wait()
	if l.dir != "" {
		err = errors.Join(err, os.RemoveAll(l.dir))
	}
	if err == nil {
		l.env.printf("All stopped.\n")
	}
	return err
}
