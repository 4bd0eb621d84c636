package downstream

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// What a child process is told: to be a relay that can be killed.
const (
	dirEnv    = "SLUICE_TEST_RELAY_DIR"
	masterEnv = "SLUICE_TEST_RELAY_MASTER"
	listenEnv = "SLUICE_TEST_RELAY_LISTEN"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(dirEnv); dir != "" {
		if err := beRelay(dir, os.Getenv(masterEnv), os.Getenv(listenEnv)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// beRelay is a relay until SIGTERM.
func beRelay(dir, master, listen string) error {
	log, err := zap.NewDevelopment()
	if err != nil {
		return err
	}
	st, err := store.Open(dir, store.Options{SegmentBytes: 4 << 20, Logger: log})
	if err != nil {
		return err
	}
	link, err := upstream.New(st, upstream.Options{Master: master, BaseRefreshMin: 1 << 40, Logger: log})
	if err != nil {
		return err
	}
	srv, err := New(st, link, Options{Listen: listen, Logger: log})
	if err != nil {
		return err
	}
	link.SetReplicas(srv)
	if err := srv.Start(); err != nil {
		return err
	}
	link.Start()
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
	srv.Close()
	link.Close()
	return st.Close()
}

// relayProcess is a relay that can be killed.
type relayProcess struct {
	t                   testing.TB
	dir, master, listen string
	cmd                 *exec.Cmd
	log                 bytes.Buffer
}

func (p *relayProcess) start() {
	p.t.Helper()
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), dirEnv+"="+p.dir, masterEnv+"="+p.master, listenEnv+"="+p.listen)
	p.cmd.Stdout, p.cmd.Stderr = &p.log, &p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *relayProcess) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// fullResyncs counts in its log how often a replica was given a full resync.
func fullResyncs(t testing.TB, s *localredis.Server) int {
	t.Helper()
	b, err := os.ReadFile(s.LogFile())
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(b), "Full resync from master")
}

// campaign returns for how long to go on.
func campaign() time.Duration {
	switch {
	case os.Getenv("SLUICE_LONG") != "":
		return 10 * time.Minute
	case testing.Short():
		return 10 * time.Second
	}
	return 20 * time.Second
}

// Relay, links, replicas and their connections are killed at random under load:
// the same data at the end, and after the first sync no full resync at all.
//
// A replica that is killed comes back with the snapshot that it last received or
// saved, and goes on from there: stock forgets that much when its backlog has
// gone, or with its own restart.
func TestFault03RandomKillChain(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	load := relaytest.NewLoad(t, master)
	round(t, load, 1)
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p := &relayProcess{t: t, dir: t.TempDir(), master: master.Addr(), listen: fmt.Sprintf("127.0.0.1:%d", port)}
	p.start()
	defer func() {
		p.kill()
		if t.Failed() {
			t.Logf("the relay's log ends:\n%s", p.log.Bytes()[max(0, p.log.Len()-20_000):])
		}
	}()
	var replicas []*localredis.Server
	for range 3 {
		replicas = append(replicas, startBehind(t, port, "--repl-diskless-load", "disabled"))
	}
	for _, s := range replicas {
		relaytest.Await(t, "first sync of "+s.Addr(), func() bool { return relaytest.Info(t, s, "master_link_status") == "up" })
	}
	full := relaytest.Number(t, master, "sync_full")
	// Some megabytes a second: ten minutes are to fit on a disk.
	stop := repeat(t, 50*time.Millisecond, func() error { return load.Round(context.Background()) })
	kills := map[string]int{}
	rng := rand.New(rand.NewPCG(3, uint64(time.Now().UnixNano())))
	for end := time.Now().Add(campaign()); time.Now().Before(end); {
		pause := time.NewTimer(time.Duration(rng.IntN(1500)) * time.Millisecond) // the schedule, not a wait for something
		<-pause.C
		kills[strike(t, rng, p, master, replicas)]++
	}
	stop()
	sameData(t, master, replicas...)
	for _, s := range replicas {
		if n := fullResyncs(t, s); n != 1 {
			t.Errorf("replica %s was given %d full resyncs, want the first only", s.Addr(), n)
		}
	}
	if n := relaytest.Number(t, master, "sync_full"); n != full {
		t.Errorf("the master did %d more full resyncs", n-full)
	}
	t.Logf("killed: %v; offset %d", kills, relaytest.Number(t, master, "master_repl_offset"))
}

// strike does one evil and says which.
func strike(t *testing.T, rng *rand.Rand, p *relayProcess, master *localredis.Server, replicas []*localredis.Server) string {
	t.Helper()
	s := replicas[rng.IntN(len(replicas))]
	ctx, cancel := context.WithTimeout(context.Background(), relaytest.Timeout)
	defer cancel()
	switch rng.IntN(6) {
	case 0, 1:
		p.kill()
		p.start()
		return "relay"
	case 2:
		_, _ = localredis.Do(master.Addr(), "CLIENT", "KILL", "TYPE", "replica")
		return "link to the master"
	case 3:
		_, _ = localredis.Do(p.listen, "CLIENT", "KILL", "TYPE", "replica") // it may not listen yet
		return "links to the replicas"
	case 4:
		if rng.IntN(2) == 0 {
			_, _ = localredis.Do(s.Addr(), "SAVE")
		}
		s.Kill()
		if err := s.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		return "replica"
	default:
		if err := s.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		pause := time.NewTimer(time.Duration(rng.IntN(1000)) * time.Millisecond)
		<-pause.C
		if err := s.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		return "replica stopped"
	}
}
