package syncer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/downstream"
	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startRelay captures from master until the test's end.
func startRelay(t *testing.T, master *localredis.Server, o Options) *Relay {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Upstream.Master = master.Addr()
	if o.Upstream.BaseRefreshMin == 0 {
		o.Upstream.BaseRefreshMin = 1 << 40 // a second base would cost the master a full resync, which tests count
	}
	r, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() }) // who wants to know closes it before
	return r
}

// awaitAll waits until the relay is ready and has committed all that the master
// has said so far.
func awaitAll(t *testing.T, r *Relay, master *localredis.Server) {
	t.Helper()
	off := repl.Offset(relaytest.Number(t, master, "master_repl_offset"))
	relaytest.Await(t, "all is committed", func() bool {
		s := r.Status()
		return s.Ready && s.Store.Current == s.Store.Head && s.Store.Committed >= off
	})
}

func TestRelayCapturesAndResumes(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	l := relaytest.NewLoad(t, master)
	l.Start()
	dir := t.TempDir()
	r := startRelay(t, master, Options{Dir: dir})
	awaitAll(t, r, master)
	l.Stop()
	awaitAll(t, r, master)
	relaytest.Judge(t, r.Store(), master)
	s := r.Status()
	if s.Link.State != "connected" || s.Store.State != "writable" || s.Store.Base == nil || s.Store.Dir != dir || s.Store.Head != 1 || s.Store.LogBytes == 0 {
		t.Errorf("%+v", s)
	}
	if _, err := store.Open(dir, store.Options{}); !errors.Is(err, store.ErrLocked) {
		t.Errorf("a second one may write to the store: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	full := relaytest.Number(t, master, "sync_full")
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	r = startRelay(t, master, Options{Dir: dir})
	awaitAll(t, r, master)
	relaytest.Judge(t, r.Store(), master)
	if n := relaytest.Number(t, master, "sync_full") - full; n != 0 {
		t.Errorf("%d full resyncs", n)
	}
}

func TestRelaySetMaster(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	replica := relaytest.StartReplica(t, master)
	relaytest.Do(t, master, "SET", "a", "b")
	r := startRelay(t, master, Options{})
	awaitAll(t, r, master)
	relaytest.Await(t, "the replica has all", func() bool {
		return relaytest.Number(t, replica, "master_repl_offset") == relaytest.Number(t, master, "master_repl_offset")
	})
	relaytest.Do(t, replica, "REPLICAOF", "NO", "ONE")
	master.Kill()
	r.SetMaster(replica.Addr())
	relaytest.Do(t, replica, "SET", "after", "failover")
	awaitAll(t, r, replica)
	relaytest.Judge(t, r.Store(), replica)
	if s := r.Status(); s.Link.Master != replica.Addr() || len(s.Store.History.Ancestors()) != 1 {
		t.Errorf("%+v", s)
	}
}

// lossyFS loses what the next fsync of a log should write, and says so by EIO,
// as a kernel does that drops dirty pages after a failed write.
type lossyFS struct {
	store.OSFS
	lose    atomic.Bool  // the next fsync of a segment fails and loses its end
	corrupt atomic.Bool  // and something that had been durable
	refuse  atomic.Int32 // so many locks fail after it
}

func (f *lossyFS) OpenFile(name string, flag int, perm os.FileMode) (store.File, error) {
	file, err := f.OSFS.OpenFile(name, flag, perm)
	if err != nil || filepath.Ext(name) != ".seg" {
		return file, err
	}
	return &lossyFile{file, f}, nil
}

func (f *lossyFS) Lock(name string) (io.Closer, error) {
	if f.refuse.Load() > 0 && f.refuse.Add(-1) >= 0 {
		return nil, syscall.EIO
	}
	return f.OSFS.Lock(name)
}

type lossyFile struct {
	store.File
	fs *lossyFS
}

func (f *lossyFile) Sync() error {
	if !f.fs.lose.CompareAndSwap(true, false) {
		return f.File.Sync()
	}
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	at := fi.Size() - 10
	if f.fs.corrupt.Load() {
		at = 10
	}
	if _, err := f.WriteAt(make([]byte, 10), at); err != nil {
		return err
	}
	return syscall.EIO
}

// lossy returns a relay on a file system that will lose writes, with a base, and
// all of its log durable.
func lossy(t *testing.T, master *localredis.Server, log *zap.Logger) (*Relay, *lossyFS) {
	t.Helper()
	fs := &lossyFS{}
	r := startRelay(t, master, Options{
		Logger: log, Registerer: prometheus.NewRegistry(), ReopenMin: 10 * time.Millisecond,
		Store: store.Options{FS: fs, Fsync: store.FsyncNo, RetryEvery: 10 * time.Millisecond},
	})
	awaitAll(t, r, master)
	if err := r.Store().Sync(); err != nil {
		t.Fatal(err)
	}
	return r, fs
}

// A store that has lost what was written to it is opened again, however often
// that fails at first, and what was lost comes from the master once more.
func TestRelayOpensUnsafeStoreAgain(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	master := relaytest.StartRedis(t, localredis.Options{})
	l := relaytest.NewLoad(t, master)
	l.Start()
	r, fs := lossy(t, master, zap.New(core))
	full := relaytest.Number(t, master, "sync_full")
	old, replaced := r.Store(), r.Replaced()
	fs.refuse.Store(2)
	fs.lose.Store(true)
	relaytest.Await(t, "the store is opened again", func() bool {
		_ = r.Store().Sync() // does nothing where nothing was committed since the last
		select {
		case <-replaced:
			return true
		default:
			return false
		}
	})
	l.Stop()
	if r.Store() == old || old.State() != store.StateClosed {
		t.Errorf("the old store is %s", old.State())
	}
	awaitAll(t, r, master)
	relaytest.Judge(t, r.Store(), master)
	if n := relaytest.Number(t, master, "sync_full") - full; n != 0 || r.Err() != nil {
		t.Errorf("%d full resyncs, %v", n, r.Err())
	}
	for msg, want := range map[string]int{"the store has lost what was written": 1, "cannot be opened again": 2, "the store is open again": 1} {
		n := 0
		for _, e := range logs.All() {
			if strings.Contains(e.Message, msg) {
				n++
			}
		}
		if n != want {
			t.Errorf("logged %d times, want %d: %s", n, want, msg)
		}
	}
	awaitEvent(t, r, journal.StoreDown, r.opt.Dir, "unsafe: nothing is written")
	awaitEvent(t, r, journal.StoreUp, r.opt.Dir, "after unsafe")
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// awaitEvent waits until the relay remembers such an event.
func awaitEvent(t *testing.T, r *Relay, kind journal.Kind, node, text string) {
	t.Helper()
	relaytest.Await(t, fmt.Sprintf("%s of %s: %s", kind, node, text), func() bool {
		return slices.ContainsFunc(r.Status().Events, func(e journal.Event) bool {
			return e.Kind == kind && e.Node == node && strings.Contains(e.Text, text)
		})
	})
}

// What happens to link, bases and replicas is remembered for people.
func TestRelayRemembersEvents(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	r := startRelay(t, master, Options{Downstream: downstream.Options{Listen: "127.0.0.1:0"}})
	awaitEvent(t, r, journal.LinkUp, master.Addr(), "is up at offset ")
	awaitEvent(t, r, journal.Base, master.Addr(), " was taken from master "+master.Addr())
	host, port, err := net.SplitHostPort(r.Server().Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	replica := relaytest.StartRedis(t, localredis.Options{Args: []string{"--replicaof", host, port}})
	awaitEvent(t, r, journal.FullResync, replica.Addr(), "full resync requested")
	relaytest.Await(t, "the replica is online", func() bool {
		list := r.Server().Status().Replicas
		return len(list) == 1 && list[0].State == "online"
	})
	relaytest.Do(t, master, "SET", "k", "v") // a replica continues only what it has had something of
	awaitAll(t, r, master)
	relaytest.Await(t, "the replica has it", func() bool {
		return relaytest.Number(t, replica, "slave_repl_offset") == relaytest.Number(t, master, "master_repl_offset")
	})
	relaytest.Do(t, replica, "CLIENT", "KILL", "TYPE", "master")
	awaitEvent(t, r, journal.ReplicaGone, replica.Addr(), "while online: it closed the connection")
	awaitEvent(t, r, journal.PartialResync, replica.Addr(), "it goes on at offset ")
	replica.Stop()
	master.Kill()
	awaitEvent(t, r, journal.LinkDown, master.Addr(), "is down: ")
}

// One that has lost what was durable is corrupt: the relay has failed, and says
// where.
func TestRelayFailsOnCorruption(t *testing.T) {
	master := relaytest.StartRedis(t, localredis.Options{})
	l := relaytest.NewLoad(t, master)
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	r, fs := lossy(t, master, nil)
	if err := l.Round(context.Background()); err != nil { // into the log
		t.Fatal(err)
	}
	awaitAll(t, r, master)
	if err := r.Store().Sync(); err != nil {
		t.Fatal(err)
	}
	fs.corrupt.Store(true)
	fs.lose.Store(true)
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	relaytest.Await(t, "the relay has failed", func() bool {
		_ = r.Store().Sync() // as above
		select {
		case <-r.Done():
			return true
		default:
			return false
		}
	})
	var ce *store.CorruptionError
	if err := r.Err(); !errors.As(err, &ce) || filepath.Ext(ce.File) != ".seg" {
		t.Errorf("Err is %v", err)
	}
	if s := r.Status(); s.Ready || !strings.Contains(s.Reason, ".seg is corrupt") {
		t.Errorf("%+v", s)
	}
	r.SetMaster("127.0.0.1:1") // of no use, and harmless
	if err := r.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func TestRelayOptions(t *testing.T) {
	good := Options{Dir: "x", Upstream: upstream.Options{Master: "h:1"}}
	if r, err := New(good); err != nil {
		t.Error(err)
	} else if b, err := json.Marshal(r.Status()); err != nil || r.Store() != nil || r.Link() != nil {
		t.Errorf("before Start: %s, %v", b, err)
	}
	for want, change := range map[string]func(*Options){
		"Dir":      func(o *Options) { o.Dir = "" },
		"Master":   func(o *Options) { o.Upstream.Master = "nowhere" },
		"Fsync":    func(o *Options) { o.Store.Fsync = "often" },
		"BaseFrom": func(o *Options) { o.Upstream.BaseFrom = "heaven" },
	} {
		o := good
		change(&o)
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New: %v, want an error about %s", err, want)
		}
	}
}
