package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/relaytest"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// The links of a chain are cut at random under load: our connection, our
// process, the replica that gives the bases. What is stored is what the master
// has, and it was never sent anew.
func TestFault03RandomKills(t *testing.T) {
	rounds := 6
	if os.Getenv(longEnv) == "1" {
		rounds = 100
	}
	master := startRedis(t, localredis.Options{})
	replica := startReplica(t, master)
	dir := t.TempDir()
	rng := rand.New(rand.NewPCG(3, 3))
	l := newLoad(t, master)
	// Small segments and bases that are due soon.
	o, so := Options{BaseRefresh: 0.2, BaseRefreshMin: 256 << 10, BackoffMin: 10 * time.Millisecond}, store.Options{SegmentBytes: 1 << 20}
	r := startLink(t, dir, master.Addr(), o, so)
	r.awaitBase(t, "replica ")
	for i := range rounds {
		l.Start()
		time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond) // the instant of the kill
		switch rng.IntN(3) {
		case 0:
			do(t, master, "CLIENT", "KILL", "TYPE", "replica")
		case 1:
			r.stop(t)
			p := startProcess(t, dir, master)
			time.Sleep(time.Duration(rng.IntN(300)) * time.Millisecond) // likewise
			p.kill()
			r = startLink(t, dir, master.Addr(), o, so)
		case 2:
			replica.Kill()
			if err := replica.Restart(timeout(t)); err != nil {
				t.Fatal(err)
			}
		}
		l.Stop()
		r.awaitOffset(t, master)
		if n := r.counters.fullResyncs.Load() + r.counters.generations.Load(); i > 0 && n > 1 || len(r.st.Generations()) != 1 {
			t.Fatalf("round %d: %d generations, %d begun or sent anew", i, len(r.st.Generations()), n)
		}
		judge(t, r.st, master)
	}
}

// A replica that takes a snapshot with a mark and then sends no ACK gets nothing
// and is dropped by the master (the control); we are not.
func TestFault05NoAckAfterMark(t *testing.T) {
	master := startRedis(t, localredis.Options{Args: []string{"--repl-timeout", "5", "--repl-diskless-sync", "yes"}})
	// Without INFO the snapshot comes on the link itself.
	do(t, master, "ACL", "SETUSER", "relay", "on", ">secret", "+psync", "+replconf", "+ping")
	do(t, master, "SET", "a", "b")
	r := startLink(t, t.TempDir(), master.Addr(), Options{User: "relay", Password: "secret"}, store.Options{})
	r.awaitBase(t, "master ")

	conn, err := net.Dial("tcp", master.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(testTimeout)); err != nil {
		t.Fatal(err)
	}
	br := psync.NewReader(conn)
	h := psync.Handshake{Username: "relay", Password: "secret", Capa: psync.CapaEOF | psync.CapaPSYNC2}
	if err := h.Run(conn, br); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(psync.AppendPSync(nil, repl.Want{})); err != nil {
		t.Fatal(err)
	}
	if a, err := psync.ReadAnswer(br); err != nil {
		t.Fatal(a, err)
	}
	header, err := psync.ReadPayloadHeader(br)
	if err != nil || !header.Marked() {
		t.Fatal(header, err)
	}
	if _, err := io.Copy(io.Discard, psync.NewPayloadReader(br, header)); err != nil {
		t.Fatal(err)
	}
	do(t, master, "SET", "c", "d")
	if b, err := io.ReadAll(br); len(b) != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("the control got %d bytes, %v; want to be dropped", len(b), err)
	}
	r.awaitOffset(t, master)
	if n := r.counters.attempts.Load(); n != 1 || r.State() != StateConnected {
		t.Errorf("%d connections, %+v", n, r.Status())
	}
	judge(t, r.st, master)
}

// copyDir copies a store as a crash would leave it.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// last returns the last file in dir whose name matches.
func last(t *testing.T, dir, pattern string) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "gen-*", pattern))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %v", pattern, names, err)
	}
	return names[len(names)-1]
}

// A crash has torn segment, index and metadata: the log is cut to what is whole,
// and the rest comes from the master by partial resync. Metadata that is torn
// itself is refused by name.
func TestFault09TornFiles(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	dir := t.TempDir()
	r := startLink(t, dir, master.Addr(), Options{}, store.Options{Fsync: store.FsyncNo})
	r.awaitBase(t, "master ")
	l := newLoad(t, master)
	for range 5 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitOffset(t, master)
	end := r.st.Head().Committed()
	crash := copyDir(t, dir)
	r.stop(t)
	full := number(t, master, "sync_full")
	for _, torn := range []struct {
		file string
		cut  int64
	}{{"log-*.seg", 10_000}, {"log-*.idx", 20}} {
		name := last(t, crash, torn.file)
		fi, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(name, fi.Size()-torn.cut); err != nil {
			t.Fatal(err)
		}
	}
	for _, tmp := range []string{filepath.Join(crash, "manifest.tmp"), filepath.Join(filepath.Dir(last(t, crash, "catalog")), "catalog.tmp")} {
		if err := os.WriteFile(tmp, []byte("sluice-man"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	st := openStore(t, crash, store.Options{})
	cut := st.Head().Committed()
	if repairs := strings.Join(st.Repairs(), "; "); cut >= end || !strings.Contains(repairs, "log cut after offset") || !strings.Contains(repairs, "manifest.tmp") {
		t.Errorf("ends at %d of %d; repairs: %s", cut, end, repairs)
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}
	r = startLink(t, crash, master.Addr(), Options{}, store.Options{})
	r.awaitOffset(t, master)
	judge(t, r.st, master)
	if f := number(t, master, "sync_full") - full; f != 0 || len(r.st.Generations()) != 1 {
		t.Errorf("%d full resyncs, %d generations", f, len(r.st.Generations()))
	}
	r.stop(t)
	for _, name := range []string{filepath.Join(crash, "manifest"), last(t, crash, "catalog")} {
		whole, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, name, whole[:len(whole)/2])
		var ce *store.CorruptionError
		if _, err := store.Open(crash, store.Options{}); !errors.As(err, &ce) || filepath.Join(ce.Dir, ce.File) != name {
			t.Errorf("%s is torn: %v", name, err)
		}
		writeFile(t, name, whole)
	}
}

func writeFile(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// A segment between base and end is deleted: who reads is told which, the store
// is refused at the next start, and with the directory out of the way it starts
// clean.
func TestFault25SegmentDeleted(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	dir := t.TempDir()
	r := startLink(t, dir, master.Addr(), Options{}, store.Options{SegmentBytes: 64 << 10})
	base := r.awaitBase(t, "master ")
	l := newLoad(t, master)
	for range 10 {
		if err := l.Round(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	r.awaitOffset(t, master)
	segments, err := filepath.Glob(filepath.Join(dir, "gen-*", "log-*.seg"))
	if err != nil || len(segments) < 3 {
		t.Fatal(segments, err)
	}
	if err := os.Remove(segments[1]); err != nil {
		t.Fatal(err)
	}
	log, err := r.st.Current().NewReader(base.Offset)
	if err != nil {
		t.Fatal(err)
	}
	n, err := io.Copy(io.Discard, log)
	_ = log.Close()
	if err == nil {
		t.Errorf("%d bytes were read over the gap", n)
	}
	do(t, master, "SET", "still", "captured")
	r.awaitOffset(t, master)
	r.stop(t)
	var ce *store.CorruptionError
	if _, err := store.Open(dir, store.Options{}); !errors.As(err, &ce) || ce.File != filepath.Base(segments[1]) {
		t.Fatalf("%v, want %s to be named", err, segments[1])
	}
	if err := os.Rename(dir, dir+".damaged"); err != nil {
		t.Fatal(err)
	}
	r = startLink(t, dir, master.Addr(), Options{}, store.Options{})
	r.awaitBase(t, "master ")
	r.awaitOffset(t, master)
	judge(t, r.st, master)
}

// The same with real masters: the link is with one in the middle of its snapshot
// when another is set, that has other data under other offsets.
func TestFault24RepointMidSnapshot(t *testing.T) {
	acl := []string{"ACL", "SETUSER", "relay", "on", ">secret", "+psync", "+replconf", "+ping"} // no INFO: it comes on the link
	slow := startRedis(t, localredis.Options{Args: []string{"--rdb-key-save-delay", "20000"}})  // microseconds
	other := startRedis(t, localredis.Options{})
	for _, s := range []*localredis.Server{slow, other} {
		do(t, s, acl...)
	}
	if err := newLoad(t, slow).Round(context.Background()); err != nil {
		t.Fatal(err)
	}
	do(t, other, "SET", "of", "the-other")
	r := startLink(t, t.TempDir(), slow.Addr(), Options{User: "relay", Password: "secret"}, store.Options{})
	await(t, "transfer", func() bool { return r.State() == StateTransfer })
	r.SetMaster(other.Addr())
	base := r.awaitBase(t, "master "+other.Addr())
	do(t, other, "SET", "after", "it")
	r.awaitOffset(t, other)
	judge(t, r.st, other)
	g := r.st.Current()
	if id := info(t, other, "master_replid"); string(g.History().Current()) != id || len(g.History().Ancestors()) != 0 || g.First() != base.Offset+1 || len(r.st.Generations()) != 1 {
		t.Errorf("history %v, log from %d, base at %d, %d generations", g.History(), g.First(), base.Offset, len(r.st.Generations()))
	}
}

// A base is taken while a database is selected, and no SELECT comes after it:
// what follows goes into the right one. So it does after a restart.
func TestFault28SelectAcrossBase(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	startReplica(t, master)
	client := relaytest.NewClient(t, master.Addr(), 7)
	write := func() {
		t.Helper()
		pipe := client.Pipeline()
		for i := range 100 {
			pipe.Append(context.Background(), fmt.Sprint("k", i), strings.Repeat("x", 100))
		}
		if _, err := pipe.Exec(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	write() // the replica's link has the SELECT; nobody sends another
	dir := t.TempDir()
	o := Options{BaseRefresh: 0.01, BaseRefreshMin: 20_000}
	r := startLink(t, dir, master.Addr(), o, store.Options{})
	first := r.awaitBase(t, "replica ")
	for range 2 {
		write()
		r.awaitOffset(t, master)
		write()
		await(t, "a base in the middle of it", func() bool {
			b := r.st.Current().Bases()[0]
			if b.Offset > first.Offset {
				first = b
				return true
			}
			write()
			return false
		})
		write()
		r.awaitOffset(t, master)
		log, err := r.st.Current().NewReader(first.Offset)
		if err != nil {
			t.Fatal(err)
		}
		rest, err := io.ReadAll(log)
		_ = log.Close()
		if err != nil || len(rest) == 0 || strings.Contains(string(rest), "SELECT") {
			t.Fatalf("%d bytes follow the base, %v; want some and no SELECT", len(rest), err)
		}
		if first.DB != 7 {
			t.Errorf("base is of database %d", first.DB)
		}
		judge(t, r.st, master)
		r.stop(t)
		r = startLink(t, dir, master.Addr(), o, store.Options{})
	}
}

// A huge value and a huge transaction pass in bounded memory.
func TestFault29HugeCommands(t *testing.T) {
	value, commands, bound := 96<<20, 50_000, int64(140<<20)
	if os.Getenv(longEnv) == "1" {
		value, commands, bound = 512<<20, 1_000_000, 200<<20
	}
	master := startRedis(t, localredis.Options{Args: []string{"--proto-max-bulk-len", "1gb", "--client-output-buffer-limit", "replica 0 0 0", "--repl-backlog-size", "1gb"}})
	t.Setenv(plainEnv, "1") // a second base, due by now, would be a full resync too
	dir := t.TempDir()
	p := startProcess(t, dir, master)
	awaitStore(t, dir, func(st *store.Store) bool { return st.Current() != nil && len(st.Current().Bases()) > 0 })
	full := number(t, master, "sync_full")
	// A script's effects are one transaction, and a value that it makes is in the
	// stream as long as it is.
	client := relaytest.NewClient(t, master.Addr(), 0)
	client.Options().ReadTimeout = testTimeout
	script := "redis.call('SET', KEYS[1], string.rep('v', tonumber(ARGV[1]))); return 1"
	if err := client.Eval(context.Background(), script, []string{"value"}, value).Err(); err != nil {
		t.Fatal(err)
	}
	script = "for i = 1, tonumber(ARGV[1]) do redis.call('LPUSH', KEYS[1], i) end; return 1"
	if err := client.Eval(context.Background(), script, []string{"list"}, commands).Err(); err != nil {
		t.Fatal(err)
	}
	do(t, master, "SET", "after", "it")
	off := repl.Offset(number(t, master, "master_repl_offset"))
	if off < repl.Offset(value) {
		t.Fatalf("the master's offset is %d: the value is not in the stream", off)
	}
	ro, err := store.OpenReadOnly(dir, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = ro.Current().WaitCommitted(timeout(t), off)
	_ = ro.Close()
	if err != nil {
		t.Fatal(err)
	}
	peak := p.peakMemory(t)
	p.kill()
	t.Logf("a value of %d MB, a transaction of %d commands: peak of memory %d MB", value>>20, commands, peak>>20)
	if peak > bound && !raceEnabled { // the race detector has memory of its own
		t.Errorf("peak of memory is %d MB, want at most %d MB", peak>>20, bound>>20)
	}
	st := openStore(t, dir, store.Options{})
	defer func() { _ = st.Close() }()
	judge(t, st, master)
	if f := number(t, master, "sync_full") - full; f != 0 {
		t.Errorf("%d full resyncs", f)
	}
}
