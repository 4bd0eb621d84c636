package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// testTimeout bounds every wait of the tests; none should come near it.
const testTimeout = 60 * time.Second

func TestMain(m *testing.M) {
	if dir := os.Getenv(captureEnv); dir != "" {
		os.Exit(capture(dir, os.Getenv(masterEnv)))
	}
	goleak.VerifyTestMain(m)
}

// startRedis starts a server that forks without delay and may be asked for its
// digest, until the test ends.
func startRedis(t testing.TB, o localredis.Options) *localredis.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	o.Args = append([]string{"--enable-debug-command", "yes", "--repl-diskless-sync-delay", "0", "--repl-backlog-size", "256mb"}, o.Args...)
	s, err := localredis.Start(ctx, o)
	if errors.Is(err, localredis.ErrNoBinary) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func do(t testing.TB, s *localredis.Server, words ...string) string {
	t.Helper()
	v, err := localredis.Do(s.Addr(), words...)
	if err != nil || strings.HasPrefix(v, "-") {
		t.Fatalf("%s: %q, %v", words, v, err)
	}
	return v
}

// info returns a field of INFO.
func info(t testing.TB, s *localredis.Server, key string) string {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + key + `:([^\r\n]*)`).FindStringSubmatch(do(t, s, "INFO", "all"))
	if m == nil {
		t.Fatalf("INFO has no %s", key)
	}
	return m[1]
}

func number(t testing.TB, s *localredis.Server, key string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(info(t, s, key), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// await polls what no channel tells: the state of another process.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(testTimeout)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("after %s still not: %s", testTimeout, what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func startReplica(t testing.TB, master *localredis.Server, args ...string) *localredis.Server {
	t.Helper()
	r := startRedis(t, localredis.Options{ReplicaOf: master, Args: args})
	await(t, "replica up", func() bool { return info(t, r, "master_link_status") == "up" })
	await(t, "replica online at the master", func() bool { return strings.Contains(do(t, master, "INFO", "replication"), "state=online") })
	return r
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

// judge has a stock server load base, log and nothing else, and compares its
// data with the master's.
func judge(t testing.TB, st *store.Store, master *localredis.Server) {
	t.Helper()
	want := do(t, master, "DEBUG", "DIGEST")
	g := st.Current()
	if g == nil {
		t.Fatal("there is no base")
	}
	dir := t.TempDir()
	aof := filepath.Join(dir, "appendonlydir")
	if err := os.Mkdir(aof, 0o755); err != nil {
		t.Fatal(err)
	}
	base, err := g.OpenBase(context.Background(), g.Bases()[0])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = base.Close() }()
	writeFile(t, filepath.Join(aof, "a.1.base.rdb"), base)
	log, err := g.NewReader(base.Offset)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	db := strconv.Itoa(max(base.DB, 0))
	sel := fmt.Sprintf("*2\r\n$6\r\nSELECT\r\n$%d\r\n%s\r\n", len(db), db)
	writeFile(t, filepath.Join(aof, "a.1.incr.aof"), io.MultiReader(strings.NewReader(sel), io.LimitReader(log, int64(g.Committed()-base.Offset))))
	writeFile(t, filepath.Join(aof, "a.manifest"), strings.NewReader("file a.1.base.rdb seq 1 type b\nfile a.1.incr.aof seq 1 type i\n"))
	s := startRedis(t, localredis.Options{Dir: dir, Args: []string{"--appendonly", "yes", "--appendfilename", "a", "--aof-load-truncated", "no"}})
	defer s.Stop()
	await(t, "judge has loaded", func() bool { return info(t, s, "loading") == "0" })
	if got := do(t, s, "DEBUG", "DIGEST"); got != want || strings.Trim(got, "+0") == "" {
		t.Fatalf("digest of base at %d (db %d) and log to %d in %v is %s, the master has %s",
			base.Offset, base.DB, g.Committed(), g.History(), got, want)
	}
}

func writeFile(t testing.TB, path string, r io.Reader) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		_, err = io.Copy(f, r)
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}

func newClient(t testing.TB, addr string, db int) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, DB: db, Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// load writes to several databases until stopped, in ways that tell when
// something is missing or comes twice.
type load struct {
	t       testing.TB
	clients []*redis.Client
	rng     *rand.Rand
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

func newLoad(t testing.TB, s *localredis.Server) *load {
	l := &load{t: t, rng: rand.New(rand.NewPCG(1, 2))}
	for _, db := range []int{0, 3, 11} {
		l.clients = append(l.clients, newClient(t, s.Addr(), db))
	}
	return l
}

func (l *load) start() {
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(func() {
		for l.ctx.Err() == nil {
			if err := l.round(context.Background()); err != nil {
				l.t.Errorf("load: %v", err)
				return
			}
		}
	})
}

func (l *load) stop() {
	l.cancel()
	l.wg.Wait()
}

// round writes some commands.
func (l *load) round(ctx context.Context) error {
	for _, c := range l.clients {
		key := func() string { return "k" + strconv.Itoa(l.rng.IntN(300)) }
		pipe := c.Pipeline()
		for range 20 {
			pipe.Append(ctx, "s"+key(), "x")
			pipe.Set(ctx, key(), strings.Repeat("v", l.rng.IntN(2000)), time.Hour)
			pipe.LPush(ctx, "l"+key(), l.rng.IntN(1000))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		tx := c.TxPipeline()
		for range 5 {
			tx.Incr(ctx, "counter")
			tx.RPopLPush(ctx, "l"+key(), "l"+key())
			tx.HSet(ctx, "h"+key(), key(), l.rng.IntN(1000))
		}
		if _, err := tx.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if l.rng.IntN(10) == 0 {
			if err := c.Set(ctx, "large", strings.Repeat(key(), 200_000), 0).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
