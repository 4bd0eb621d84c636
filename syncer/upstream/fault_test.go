package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/psync/psynctest"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

var (
	idA = repl.ReplID(strings.Repeat("a", repl.ReplIDLen))
	idB = repl.ReplID(strings.Repeat("b", repl.ReplIDLen))
)

// emptyRDB is a snapshot of nothing: Redis 7's magic and end, and no checksum.
const emptyRDB = "REDIS0010\xff\x00\x00\x00\x00\x00\x00\x00\x00"

// command returns words as they are in the stream.
func command(words ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "*%d\r\n", len(words))
	for _, w := range words {
		fmt.Fprintf(&b, "$%d\r\n%s\r\n", len(w), w)
	}
	return b.String()
}

// handshake plays the handshake and refuses INFO, so that PSYNC is what decides.
// It returns what PSYNC asks for.
func handshake(s *psynctest.Session) repl.Want {
	var a psync.Announced
	for {
		switch r := s.Next().(type) {
		case psync.Ping:
			s.Send(psync.ReplyPong)
		case psync.Auth:
			s.Send(psync.ReplyOK)
		case psync.Replconf:
			_ = a.Apply(r) // whatever it is, it is taken
			s.Send(psync.ReplyOK)
		case psync.Other:
			s.Send("-NOPERM no INFO here\r\n")
		case psync.PSync:
			return r.Want
		}
	}
}

// startScripted captures from a scripted master.
func startScripted(t *testing.T, m *psynctest.Master, o Options, so store.Options) *rig {
	t.Helper()
	o.Dial = m.Dial
	return startLink(t, t.TempDir(), "scripted:6379", o, so)
}

// awaitCommitted waits for a commit of exactly off in the head.
func (r *rig) awaitCommitted(t *testing.T, off repl.Offset) {
	t.Helper()
	await(t, "generation", func() bool { return r.st.Head() != nil })
	if err := r.st.Head().WaitCommitted(timeout(t), off); err != nil {
		t.Fatal(err)
	}
	if c := r.st.Head().Committed(); c != off {
		t.Fatalf("committed is %d, want %d", c, off)
	}
}

// cutTest loses the link behind part of a stream, and expects PSYNC from the
// last commit point in it.
func cutTest(t *testing.T, whole, part string) {
	t.Helper()
	m := psynctest.NewMaster(t)
	pos := repl.Pos{ReplID: idA, Offset: 100}
	commit := pos.Offset + repl.Offset(len(whole))
	m.Script(func(s *psynctest.Session) {
		if w := handshake(s); !w.IsZero() {
			t.Errorf("first PSYNC %v", w)
		}
		s.FullResync(pos, psync.PayloadHeader{Size: int64(len(emptyRDB))}, emptyRDB)
		s.Send(whole + part)
		s.AwaitAck(commit)
	})
	rest := command("SET", "after", "it")
	m.Script(func(s *psynctest.Session) {
		if w := handshake(s); w != (repl.Want{ReplID: idA, Next: commit + 1}) {
			t.Errorf("second PSYNC %v, want from %d", w, commit+1)
		}
		s.Continue(idA)
		s.Send(rest)
		s.AwaitClose()
	})
	r := startScripted(t, m, Options{}, store.Options{})
	r.awaitCommitted(t, commit+repl.Offset(len(rest)))
	log, err := r.st.Head().NewReader(pos.Offset)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	if got, err := io.ReadAll(log); err != nil || string(got) != whole+rest {
		t.Errorf("log is %q, %v", got, err)
	}
	r.stop(t)
	m.Wait()
}

// The master is lost in the middle of a command: what is not whole is dropped.
func TestFault01KillMidCommand(t *testing.T) {
	cutTest(t, command("SELECT", "0")+command("SET", "a", "b"), "*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$5\r\nab")
}

// A command longer than what is kept in memory was written in part.
func TestFault01KillMidLargeCommand(t *testing.T) {
	cutTest(t, command("SET", "a", "b"), "*3\r\n$3\r\nSET\r\n$1\r\nc\r\n$9000000\r\n"+strings.Repeat("x", 5<<20))
}

// Lost within a transaction: nothing of it is kept.
func TestFault02KillMidTransaction(t *testing.T) {
	cutTest(t, command("SELECT", "3")+command("SET", "a", "b"), command("MULTI")+command("SET", "c", "d")+command("LPUSH", "l", "x"))
}

// The mark behind a payload is cut at every place; nothing comes before the
// first ACK (fault 5), which a master waits for.
func TestFault04And05PayloadMark(t *testing.T) {
	h := psync.PayloadHeader{Mark: strings.Repeat("m", psync.MarkLen-1) + "n"}
	behind := len(h.Append(nil)) + len(emptyRDB)
	for cut := 1; cut < psync.MarkLen; cut++ {
		m := psynctest.NewMaster(t)
		pos := repl.Pos{ReplID: idA, Offset: 100}
		stream := command("SET", "a", "b")
		m.Script(func(s *psynctest.Session) {
			handshake(s)
			s.Send("\n", "\n")
			s.FullResync(pos, h, emptyRDB, behind, behind+cut)
			s.AwaitAck(pos.Offset)
			s.Send(stream)
			s.AwaitClose()
		})
		r := startScripted(t, m, Options{}, store.Options{})
		r.awaitCommitted(t, pos.Offset+repl.Offset(len(stream)))
		if b := r.awaitBase(t, "master "); b.Size != int64(len(emptyRDB)) {
			t.Errorf("cut at %d: base has %d bytes", cut, b.Size)
		}
		r.stop(t)
		m.Wait()
	}
}

// A master that has not seen its child end yet loses an ACK, and then waits for
// the next: there are more of them than one a second until something comes.
func TestFirstAckIsRepeated(t *testing.T) {
	m := psynctest.NewMaster(t)
	pos := repl.Pos{ReplID: idA, Offset: 100}
	stream := command("SET", "a", "b")
	m.Script(func(s *psynctest.Session) {
		handshake(s)
		s.FullResync(pos, psync.PayloadHeader{Mark: strings.Repeat("m", psync.MarkLen)}, emptyRDB)
		s.AwaitAck(pos.Offset)
		begin := time.Now()
		for range 8 { // at one a second they would take as many
			s.AwaitAck(pos.Offset)
		}
		if d := time.Since(begin); d > 7*time.Second {
			t.Errorf("8 ACKs took %s", d)
		}
		s.Send(stream)
		s.AwaitClose()
	})
	r := startScripted(t, m, Options{}, store.Options{})
	r.awaitCommitted(t, pos.Offset+repl.Offset(len(stream)))
	r.stop(t)
	m.Wait()
}

// Stopped in the middle of a full resync, from a master that gives no snapshot
// apart: after a restart another one is asked for, as there would never be a
// base else.
func TestRestartInFullResync(t *testing.T) {
	m := psynctest.NewMaster(t)
	pos := repl.Pos{ReplID: idA, Offset: 5000}
	sent := make(chan struct{})
	m.Script(func(s *psynctest.Session) {
		handshake(s)
		s.Send(string(psync.AppendFullResync(nil, pos)) + "$100\r\nREDIS0010")
		close(sent)
		s.AwaitClose()
	})
	stream := command("SET", "a", "b")
	m.Script(func(s *psynctest.Session) {
		if w := handshake(s); !w.IsZero() {
			t.Errorf("PSYNC %v, want a full resync", w)
		}
		s.FullResync(pos, psync.PayloadHeader{Size: int64(len(emptyRDB))}, emptyRDB)
		s.Send(stream)
		s.AwaitClose()
	})
	dir := t.TempDir()
	r := startLink(t, dir, "scripted:6379", Options{Dial: m.Dial}, store.Options{})
	<-sent
	await(t, "transfer", func() bool { return r.State() == StateTransfer })
	r.stop(t)
	r = startLink(t, dir, "scripted:6379", Options{Dial: m.Dial}, store.Options{})
	r.awaitBase(t, "master ")
	r.awaitCommitted(t, pos.Offset+repl.Offset(len(stream)))
	r.stop(t)
	m.Wait()
}

// stuckFS is a file system whose writes to the log wait, or fail, until let go;
// when they fail, no directory can be made either.
type stuckFS struct {
	store.OSFS
	mu    sync.Mutex
	stuck chan struct{} // writes wait until it is closed; nil: they do not
	err   error         // writes fail with it
}

func (f *stuckFS) set(stuck chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck, f.err = stuck, err
}

func (f *stuckFS) OpenFile(name string, flag int, perm os.FileMode) (store.File, error) {
	file, err := f.OSFS.OpenFile(name, flag, perm)
	if err != nil || !strings.HasSuffix(name, ".seg") {
		return file, err
	}
	return &stuckFile{file, f}, nil
}

func (f *stuckFS) Mkdir(name string, perm os.FileMode) error {
	f.mu.Lock()
	err := f.err
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return f.OSFS.Mkdir(name, perm)
}

type stuckFile struct {
	store.File
	fs *stuckFS
}

func (f *stuckFile) WriteAt(p []byte, off int64) (int, error) {
	f.fs.mu.Lock()
	stuck, err := f.fs.stuck, f.fs.err
	f.fs.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	if err != nil {
		return 0, err
	}
	return f.File.WriteAt(p, off)
}

// The disk does not answer: an ACK that is asked for comes all the same.
func TestFault06GetAckWhileDiskStalls(t *testing.T) {
	fs := &stuckFS{}
	m := psynctest.NewMaster(t)
	pos := repl.Pos{ReplID: idA, Offset: 100}
	first := command("SET", "a", "b")
	stuck := make(chan struct{})
	last := pos.Offset
	m.Script(func(s *psynctest.Session) {
		handshake(s)
		s.FullResync(pos, psync.PayloadHeader{Size: int64(len(emptyRDB))}, emptyRDB)
		s.AwaitAck(pos.Offset)
		fs.set(stuck, nil)
		for range 3 {
			s.Send(first + command("REPLCONF", "GETACK", "*"))
			last += repl.Offset(len(first + command("REPLCONF", "GETACK", "*")))
			s.AwaitAck(last)
		}
		fs.set(nil, nil)
		close(stuck)
		s.AwaitClose()
	})
	r := startScripted(t, m, Options{}, store.Options{FS: fs})
	await(t, "all acknowledged", func() bool {
		return r.Status().State == "connected" && r.Status().Acked == 100+3*repl.Offset(len(first)+len(command("REPLCONF", "GETACK", "*")))
	})
	r.awaitCommitted(t, r.Status().Acked)
	r.stop(t)
	m.Wait()
}

// The disk is full for longer than the memory lasts: the link is dropped by us
// and resumed when there is space, from the last commit; nothing is lost and
// nothing comes twice.
func TestFault10DiskFull(t *testing.T) {
	fs := &stuckFS{}
	master := startRedis(t, localredis.Options{})
	l := newLoad(t, master)
	r := startLink(t, t.TempDir(), master.Addr(), Options{BufferBytes: 1 << 20}, store.Options{FS: fs, RetryEvery: 20e6})
	r.awaitBase(t, "master ")
	full := number(t, master, "sync_full")
	fs.set(nil, syscall.ENOSPC)
	for r.counters.overflows.Load() == 0 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	await(t, "the buffer is said to be full", func() bool { return strings.Contains(r.Status().Error, ErrBufferFull.Error()) })
	await(t, "full disk", func() bool { return r.st.State() == store.StateDiskFull }) // it is tried again and again
	await(t, "link dropped", func() bool { return info(t, master, "connected_slaves") == "0" })
	fs.set(nil, nil)
	r.awaitOffset(t, master)
	judge(t, r.st, master)
	if f := number(t, master, "sync_full") - full; f != 0 {
		t.Errorf("%d full resyncs", f)
	}
}

// While the disk takes nothing, nobody forks for a base that is due.
func TestNoBaseWhileDiskFull(t *testing.T) {
	fs := &stuckFS{}
	master := startRedis(t, localredis.Options{})
	l := newLoad(t, master)
	r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{FS: fs, RetryEvery: time.Hour})
	first := r.awaitBase(t, "master ")
	fs.set(nil, syscall.ENOSPC)
	defer fs.set(nil, nil) // for Close
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	await(t, "full disk", func() bool { return r.st.State() == store.StateDiskFull })
	forks := number(t, master, "total_forks")
	r.RefreshBase()
	await(t, "base put off", func() bool { return strings.Contains(r.Status().BaseError, "the disk is full") })
	if n := number(t, master, "total_forks"); n != forks {
		t.Errorf("the master forked %d times for a disk that is full", n-forks)
	}
	if b := r.st.Current().Bases(); len(b) != 1 || b[0] != first {
		t.Errorf("bases are %+v", b)
	}
}

// fullFS has no room left for a base.
type fullFS struct {
	store.OSFS
	full atomic.Bool
}

func (f *fullFS) Free(dir string) (uint64, error) {
	if f.full.Load() {
		return 1, nil
	}
	return f.OSFS.Free(dir)
}

// A base that would not fit is not asked for, and the log goes on.
func TestNoBaseWithoutRoom(t *testing.T) {
	fs := &fullFS{}
	master := startRedis(t, localredis.Options{})
	l := newLoad(t, master)
	r := startLink(t, t.TempDir(), master.Addr(), Options{}, store.Options{FS: fs})
	r.awaitBase(t, "master ")
	forks := number(t, master, "total_forks")
	fs.full.Store(true)
	r.RefreshBase()
	await(t, "base refused", func() bool { return strings.Contains(r.Status().BaseError, store.ErrNoRoom.Error()) })
	if n := number(t, master, "total_forks"); n != forks {
		t.Errorf("the master forked %d times for a disk without room", n-forks)
	}
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	r.awaitOffset(t, master)
	judge(t, r.st, master)
}

// A master that can only be asked for a full resync is not asked while the disk
// takes nothing: it would fork each time.
func TestNoFullResyncWhileDiskFull(t *testing.T) {
	fs := &stuckFS{}
	master := startRedis(t, localredis.Options{})
	do(t, master, "ACL", "SETUSER", "blind", "on", ">secret", "+psync", "+replconf", "+ping")
	if err := newLoad(t, master).Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	fs.set(nil, syscall.ENOSPC)
	defer fs.set(nil, nil) // for Close
	r := startLink(t, t.TempDir(), master.Addr(), Options{User: "blind", Password: "secret", BackoffMax: 200 * time.Millisecond},
		store.Options{FS: fs, RetryEvery: time.Hour})
	await(t, "full disk", func() bool { return r.st.State() == store.StateDiskFull })
	n := r.counters.attempts.Load()
	await(t, "more attempts", func() bool { return r.counters.attempts.Load() >= n+4 })
	if got := number(t, master, "sync_full"); got != 1 {
		t.Errorf("the master did %d full resyncs for a disk that is full", got)
	}
	if e := r.Status().Error; !strings.Contains(e, "put off") {
		t.Errorf("the link says %q", e)
	}
}

// Killed while the second base comes: the first is still served.
func TestFault08KillMidBase(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	startReplica(t, master, "--rdb-key-save-delay", "3000")
	l := newLoad(t, master)
	for range 5 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	var first repl.Offset
	p := startProcess(t, dir, master)
	awaitStore(t, dir, func(st *store.Store) bool {
		if st.Current() == nil {
			return false
		}
		first = st.Current().Bases()[0].Offset
		return true
	})
	l.Start()
	await(t, "another base is coming", func() bool {
		return strings.Contains(readDir(t, dir), ".tmp")
	})
	p.kill()
	l.Stop()
	st := openStore(t, dir, store.Options{})
	defer func() { _ = st.Close() }() // where the test ends early
	b := st.Current().Bases()
	if b[len(b)-1].Offset != first {
		t.Fatalf("bases are %+v, the first was at %d", b, first)
	}
	r, err := st.Current().OpenBase(context.Background(), b[0])
	if err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	if strings.Contains(readDir(t, dir), "rdb.tmp") {
		t.Error("the part of a base is still there")
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	full := number(t, master, "sync_full")
	link := startLink(t, dir, master.Addr(), Options{BaseRefreshMin: 1 << 30}, store.Options{}) // with the base that there is
	link.awaitOffset(t, master)
	judge(t, link.st, master)
	if f := number(t, master, "sync_full") - full; f != 0 || len(link.st.Generations()) != 1 {
		t.Errorf("%d full resyncs, %d generations", f, len(link.st.Generations()))
	}
}

// readDir returns the names of the bases in all generations.
func readDir(t *testing.T, dir string) string {
	t.Helper()
	var names []string
	err := fsWalk(dir, func(name string) { names = append(names, name) })
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Join(names, " ")
}

func fsWalk(dir string, f func(name string)) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.IsDir() {
			if err := fsWalk(dir+"/"+e.Name(), f); err != nil {
				return err
			}
		} else if strings.HasPrefix(e.Name(), "base-") {
			f(e.Name())
		}
	}
	return err
}

// The replica is promoted while its snapshot is asked for: what it then gives
// is of another history, and is not taken.
func TestFault23ReplicaPromotedMidBase(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startReplica(t, master, "--repl-diskless-sync-delay", "2")
	l := newLoad(t, master)
	if err := l.Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := startLink(t, t.TempDir(), master.Addr(), Options{BaseFrom: BaseReplica}, store.Options{})
	// It waits for repl-diskless-sync-delay; its id changes in between.
	await(t, "snapshot asked for", func() bool { return strings.Contains(do(t, replica, "INFO", "replication"), "state=wait_bgsave") })
	do(t, replica, "REPLICAOF", "NO", "ONE")
	await(t, "a refusal", func() bool { return r.Status().BaseError != "" })
	if e := r.Status().BaseError; len(r.st.Head().Bases()) != 0 || r.st.Current() != nil {
		t.Errorf("a base was taken; %s", e)
	}
	if r.counters.bases.Load() != 0 || r.State() != StateConnected {
		t.Errorf("%+v", r.Status())
	}
}

// It is promoted after we have looked and before we ask: what it announces is of
// an id that is not ours, at an offset that could be.
func TestFault23ReplicaPromotedBeforePSync(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	replica := startReplica(t, master)
	if err := newLoad(t, master).Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	promoted := make(chan struct{})
	var once sync.Once
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		if err != nil || addr != replica.Addr() {
			return c, err
		}
		return &hookedConn{c, func(b []byte) {
			if strings.Contains(string(b), "PSYNC") {
				once.Do(func() {
					defer close(promoted)
					if got, err := localredis.Do(replica.Addr(), "REPLICAOF", "NO", "ONE"); err != nil || got != "+OK" {
						t.Errorf("promote: %q, %v", got, err)
					}
				})
			}
		}}, nil
	}
	r := startLink(t, t.TempDir(), master.Addr(), Options{BaseFrom: BaseReplica, Dial: dial}, store.Options{})
	select {
	case <-promoted:
	case <-time.After(testTimeout):
		t.Fatal("no snapshot was asked for")
	}
	await(t, "a refusal", func() bool { return r.Status().BaseError != "" })
	if e := r.Status().BaseError; !strings.Contains(e, store.ErrForeignBase.Error()) || len(r.st.Head().Bases()) != 0 || r.st.Current() != nil {
		t.Errorf("%d bases; %s", len(r.st.Head().Bases()), e)
	}
	if r.State() != StateConnected {
		t.Errorf("%+v", r.Status())
	}
}

// hookedConn tells of what is written before it is.
type hookedConn struct {
	net.Conn
	before func([]byte)
}

func (c *hookedConn) Write(b []byte) (int, error) {
	c.before(b)
	return c.Conn.Write(b)
}

// Another master is set while a snapshot comes on the link: what was received
// of the old one is dropped, and offsets are the new one's.
func TestFault24RepointMidTransfer(t *testing.T) {
	m := psynctest.NewMaster(t)
	sent := make(chan struct{})
	m.Script(func(s *psynctest.Session) {
		handshake(s)
		s.Send(string(psync.AppendFullResync(nil, repl.Pos{ReplID: idA, Offset: 5000})) + "$100\r\nREDIS0010")
		close(sent)
		s.AwaitClose()
	})
	pos := repl.Pos{ReplID: idB, Offset: 70}
	stream := command("SET", "a", "b")
	m.Script(func(s *psynctest.Session) {
		if w := handshake(s); !w.IsZero() && w.ReplID != idA {
			t.Errorf("PSYNC %v", w)
		}
		s.FullResync(pos, psync.PayloadHeader{Size: int64(len(emptyRDB))}, emptyRDB)
		s.Send(stream)
		s.AwaitClose()
	})
	r := startScripted(t, m, Options{}, store.Options{})
	<-sent
	await(t, "transfer", func() bool { return r.State() == StateTransfer })
	r.SetMaster("other:6379")
	await(t, "generation of the other", func() bool { return r.st.Current() != nil })
	r.awaitCommitted(t, pos.Offset+repl.Offset(len(stream)))
	if b := r.st.Head().Bases(); len(b) != 1 || b[0].Pos() != pos || r.st.Head().First() != pos.Offset+1 || len(r.st.Generations()) != 1 {
		t.Errorf("bases %+v, log from %d, %d generations", b, r.st.Head().First(), len(r.st.Generations()))
	}
	r.stop(t)
	m.Wait()
}
