package upstream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/store"
)

// With these set the test binary is a process that captures.
const (
	captureEnv = "SLUICE_TEST_CAPTURE" // directory of the store
	masterEnv  = "SLUICE_TEST_MASTER"  // HOST:PORT
	plainEnv   = "SLUICE_TEST_PLAIN"   // 1: with the defaults, and no base after the first
	longEnv    = "SLUICE_LONG"         // 1: run the long tests in full
)

// capture is that process; it ends when it is killed.
func capture(dir, master string) int {
	log, err := zap.NewDevelopment()
	if err != nil {
		return 1
	}
	// Small segments and bases that are due soon, so that a kill hits all that
	// there is.
	so, o := store.Options{SegmentBytes: 1 << 20, Logger: log}, Options{Master: master, BaseRefresh: 0.2, BaseRefreshMin: 256 << 10, Logger: log}
	if os.Getenv(plainEnv) != "" {
		so.SegmentBytes, o.BaseRefresh, o.BaseRefreshMin = 0, 0, 1<<40
	}
	st, err := store.Open(dir, so)
	if err != nil {
		log.Error("open", zap.Error(err))
		return 1
	}
	l, err := New(st, o)
	if err != nil {
		log.Error("new", zap.Error(err))
		return 1
	}
	l.Start()
	<-l.ctx.Done()
	return 1
}

// process is a capturing process.
type process struct {
	cmd *exec.Cmd
	log *os.File
}

func startProcess(t *testing.T, dir string, master *localredis.Server) *process {
	t.Helper()
	log, err := os.CreateTemp(t.TempDir(), "capture")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{exec.Command(os.Args[0]), log}
	p.cmd.Env = append(os.Environ(), captureEnv+"="+dir, masterEnv+"="+master.Addr())
	p.cmd.Stderr = log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			b, _ := os.ReadFile(log.Name())
			t.Logf("capturing process:\n%s", b)
		}
	})
	return p
}

// kill ends the process by SIGKILL and waits for it.
func (p *process) kill() {
	if p.cmd.ProcessState == nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait() // that it was killed
		_ = p.log.Close()
	}
}

// peakMemory returns the most memory that the process has had, in bytes.
func (p *process) peakMemory(t *testing.T) (peak int64) {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if errors.Is(err, os.ErrNotExist) {
		t.Skip("there is no /proc here")
	}
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &peak); err == nil {
			return peak << 10
		}
	}
	t.Fatal("/proc tells no VmHWM")
	return 0
}

// Kill -9 at any instant, while it appends and while a base comes: the link goes
// on by partial resync, and what is stored is what the master has.
func TestFault07Kill(t *testing.T) {
	kills := 5
	if os.Getenv(longEnv) == "1" {
		kills = 100
	}
	master := startRedis(t, localredis.Options{})
	replica := startReplica(t, master, "--rdb-key-save-delay", "20") // microseconds: bases take a while
	l := newLoad(t, master)
	for range 20 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	full, forks := number(t, master, "sync_full"), number(t, master, "total_forks")
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(5, 6))
	bases, generations := 0, 0
	killed := 0
	for killed < kills {
		p := startProcess(t, dir, master)
		if killed == 0 { // the first base has to be there for the judge
			awaitStore(t, dir, func(st *store.Store) bool { return st.Current() != nil })
		}
		l.Start()
		time.Sleep(time.Duration(rng.IntN(700)) * time.Millisecond) // the instant of the kill
		p.kill()
		killed++
		l.Stop()

		st := openStore(t, dir, store.Options{})
		link, err := New(st, Options{Master: master.Addr()})
		if err != nil {
			t.Fatal(err)
		}
		link.Start()
		r := &rig{link, st}
		r.awaitOffset(t, master)
		judge(t, st, master)
		bases = int(st.Current().Bases()[0].Offset)
		generations = len(st.Generations())
		r.stop(t)
		if f := number(t, master, "sync_full"); f != full {
			t.Fatalf("after kill %d: %d full resyncs", killed, f-full)
		}
	}
	if f := number(t, master, "total_forks") - forks; f != 0 || generations != 1 {
		t.Errorf("%d forks of the master, %d generations", f, generations)
	}
	t.Logf("%d kills; last base at %d, forks of the replica %d", killed, bases, number(t, replica, "total_forks"))
	if v, err := store.Verify(context.Background(), dir, store.Options{}, nil); err != nil || len(v.Damage) > 0 {
		t.Errorf("%+v, %v", v, err)
	}
}

// awaitStore waits until what another process stores is as ok wants it.
func awaitStore(t *testing.T, dir string, ok func(*store.Store) bool) {
	t.Helper()
	await(t, fmt.Sprintf("store in %s", dir), func() bool {
		st, err := store.OpenReadOnly(dir, store.Options{})
		if err != nil {
			return false // not made yet, or being changed
		}
		defer func() { _ = st.Close() }()
		return ok(st)
	})
}
