package upstream

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

const testTimeout = relaytest.Timeout

var (
	startRedis   = relaytest.StartRedis
	startReplica = relaytest.StartReplica
	do           = relaytest.Do
	info         = relaytest.Info
	number       = relaytest.Number
	await        = relaytest.Await
	judge        = relaytest.Judge
	newLoad      = relaytest.NewLoad
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(captureEnv); dir != "" {
		os.Exit(capture(dir, os.Getenv(masterEnv)))
	}
	goleak.VerifyTestMain(m)
}

func openStore(t testing.TB, dir string, o store.Options) *store.Store {
	t.Helper()
	st, err := store.Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// rig is a link with its store.
type rig struct {
	*Link
	st *store.Store
}

// startLink captures from master into dir until stop or the test's end.
func startLink(t testing.TB, dir, master string, o Options, so store.Options) *rig {
	t.Helper()
	o.Master = master
	if o.BaseRefreshMin == 0 {
		o.BaseRefreshMin = 1 << 40 // a second base would cost the master a fork, which tests count
	}
	if testing.Verbose() && o.Logger == nil {
		o.Logger, _ = zap.NewDevelopment()
	}
	st := openStore(t, dir, so)
	l, err := New(st, o)
	if err != nil {
		t.Fatal(err)
	}
	l.Start()
	r := &rig{l, st}
	t.Cleanup(func() { r.stop(t) })
	return r
}

// stop ends both; a second call does nothing.
func (r *rig) stop(t testing.TB) {
	t.Helper()
	r.Close()
	if err := r.st.Close(); err != nil {
		t.Error(err)
	}
}

func timeout(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// awaitBase waits until the current generation has a base from source.
func (r *rig) awaitBase(t testing.TB, source string) store.Base {
	t.Helper()
	var b store.Base
	await(t, "base from "+source, func() bool {
		g := r.st.Current()
		if g == nil || g != r.st.Head() || len(g.Bases()) == 0 {
			return false
		}
		b = g.Bases()[0]
		return true
	})
	if !strings.HasPrefix(b.Source, source) {
		t.Fatalf("base is from %q, want %s", b.Source, source)
	}
	return b
}

// awaitOffset waits until all that the master has said so far is committed.
func (r *rig) awaitOffset(t testing.TB, master *localredis.Server) {
	t.Helper()
	off := repl.Offset(number(t, master, "master_repl_offset"))
	await(t, fmt.Sprintf("commit of %d", off), func() bool { g := r.st.Head(); return g != nil && g.Committed() >= off })
}
