package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/resp/localredis/tlstest"
	"github.com/sluice-io/sluice/syncer/relaytest"
)

// patience bounds every wait; none should come near it.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		println(err.Error())
		code = 1
	}
	os.Exit(code)
}

func startRedis(t *testing.T, of *localredis.Server, args ...string) *localredis.Server {
	t.Helper()
	if testing.Short() {
		t.Skip("starts redis-servers: not with -short")
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := localredis.Start(ctx, localredis.Options{ReplicaOf: of, Args: args})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

func do(t *testing.T, s *localredis.Server, words ...string) string {
	t.Helper()
	reply, err := localredis.Do(s.Addr(), words...)
	if err != nil || strings.HasPrefix(reply, "-") {
		t.Fatalf("%v at %s: %s %v", words, s.Addr(), reply, err)
	}
	return reply
}

// infoOf returns INFO of s.
func infoOf(t *testing.T, s *localredis.Server) Fields {
	t.Helper()
	return parseInfo(do(t, s, "INFO"))
}

func (f Fields) int(t *testing.T, name string) int64 {
	t.Helper()
	v, ok := f.Int(name)
	if !ok {
		t.Fatalf("no %s in %v", name, f)
	}
	return v
}

func (f Fields) atLeast(name string, n int64) bool {
	v, ok := f.Int(name)
	return ok && v >= n
}

// within asks, as only the server knows, until it holds.
func within(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// write writes value over and over, every 10 ms, until the test ends or stop is
// called.
func write(t *testing.T, s *localredis.Server, value string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*patience)
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), MaxRetries: -1})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for ctx.Err() == nil {
			_ = client.Set(ctx, "written", value, 0).Err() // refused while min-replicas-to-write is not met
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}()
	stop = func() {
		cancel()
		<-done
		_ = client.Close()
	}
	t.Cleanup(stop)
	return stop
}

// look runs the doctor.
func look(t *testing.T, target Target) *Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if target.Sample == 0 {
		target.Sample = 500 * time.Millisecond
	}
	if target.Outage == 0 {
		target.Outage = time.Second
	}
	target.Login.Timeout, target.Reads = patience/4, true
	f, err := Collect(ctx, target)
	if err != nil {
		t.Fatal(err)
	}
	return Examine(f)
}

func linkUp(t *testing.T, s *localredis.Server) func() bool {
	return func() bool {
		info, err := localredis.Do(s.Addr(), "INFO", "replication")
		return err == nil && parseInfo(info).Is("master_link_status", "up")
	}
}

// TestDeadLoop: doctor foretells the dead loop of a master under writes whose
// snapshots take long, while its replica is away; then that comes back, and the
// loop turns; then doctor's advice is followed, and the sync ends.
func TestDeadLoop(t *testing.T) {
	master := startRedis(t, nil, "--client-output-buffer-limit", "replica 2mb 2mb 60", "--rdb-key-save-delay", "2000")
	replica := startRedis(t, master) // from now on the master counts what is written
	within(t, "the replica follows", linkUp(t, replica))
	replica.Kill()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: master.Addr()})
	pipe := client.Pipeline()
	for i := range 1500 { // at 2 ms a key a snapshot takes three seconds
		pipe.Set(ctx, "key"+strconv.Itoa(i), "v", 0)
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	_ = client.Close()
	within(t, "the snapshot of the first sync is over", func() bool {
		return infoOf(t, master).Is("rdb_bgsave_in_progress", "0")
	})
	do(t, master, "BGSAVE")
	within(t, "the snapshot is done", func() bool {
		info := infoOf(t, master)
		return info.Is("rdb_bgsave_in_progress", "0") && info.atLeast("rdb_last_bgsave_time_sec", 2)
	})
	write(t, master, strings.Repeat("x", 30_000)) // up to 3 MB/s
	before := infoOf(t, master)
	within(t, "the backlog has lost what the replica would need", func() bool {
		return infoOf(t, master).atLeast("repl_backlog_first_byte_offset", before.int(t, "master_repl_offset"))
	})

	r := look(t, Target{Master: master.Addr()})
	i := slices.IndexFunc(r.Findings, func(x Finding) bool { return x.Check == "client-output-buffer-limit" })
	if i < 0 || r.Findings[i].Severity != Problem {
		t.Fatalf("the dead loop was not foretold:\n%s", r.Text())
	}
	foretold := r.Findings[i]
	t.Logf("foretold: %s\n%s", foretold.Message, foretold.Action)

	begin := time.Now()
	if err := replica.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	within(t, "the replica was cut off and began anew, twice", func() bool {
		log, err := os.ReadFile(master.LogFile())
		return err == nil && infoOf(t, master).atLeast("sync_full", 1+3) &&
			strings.Count(string(log), "scheduled to be closed ASAP for overcoming of output buffer limits") >= 2
	})
	if linkUp(t, replica)() {
		t.Error("the replica's link is up: that was no dead loop")
	}
	t.Logf("three full syncs begun within %s", time.Since(begin).Round(time.Millisecond))

	advice := regexp.MustCompile(`CONFIG SET client-output-buffer-limit "([^"]+)"`).FindStringSubmatch(foretold.Action)
	if advice == nil {
		t.Fatalf("no setting in the advice: %s", foretold.Action)
	}
	do(t, master, "CONFIG", "SET", "client-output-buffer-limit", strconv.Quote(advice[1])) // an inline command
	within(t, "the sync ends with the advised limit", linkUp(t, replica))
	if r := look(t, Target{Master: master.Addr()}); found(r, "client-output-buffer-limit", Problem, "") {
		t.Errorf("with the advised limit of %s:\n%s", advice[1], r.Text())
	}
}

// TestForetellsTheLoopThatTheRelayEnds: doctor says it of the servers with which
// TestDeadLoop of syncer/downstream shows that a stock replica never comes
// online, and behind the relay at once.
func TestForetellsTheLoopThatTheRelayEnds(t *testing.T) {
	settings, slow := relaytest.DeadLoop()
	master := startRedis(t, nil, settings...)
	fill(t, master, relaytest.DeadLoopKeys)
	write(t, master, strings.Repeat("x", 100_000)) // up to 10 MB/s; 1 MB/s is enough
	replica := startRedis(t, nil, slow...)
	do(t, replica, "REPLICAOF", "127.0.0.1", strconv.Itoa(master.Port()))
	var r *Report
	within(t, "the dead loop is foretold while the replica loads", func() bool {
		r = look(t, Target{Master: master.Addr(), Replicas: []string{replica.Addr()}})
		return found(r, "client-output-buffer-limit", Problem, "will have loaded it in")
	})
	t.Log(r.Text())
	within(t, "the replica begins anew", func() bool { return infoOf(t, master).atLeast("sync_full", 3) })
	if linkUp(t, replica)() {
		t.Error("the replica's link is up: that was no dead loop")
	}
}

// TestForetellsTheLoopOfTheDefaults: with the limits that 7.0 ships and a
// snapshot that takes a quarter of an hour, some megabytes per second are
// enough. The numbers are those of the formula.
func TestForetellsTheLoopOfTheDefaults(t *testing.T) {
	master := startRedis(t, nil)
	replica := startRedis(t, master) // from now on the master counts what is written
	within(t, "the replica follows", linkUp(t, replica))
	shipped(t, master, map[string]string{
		"client-output-buffer-limit": "slave 268435456 67108864 60", "repl-backlog-size": "1048576", "repl-diskless-sync": "yes",
	})
	fill(t, master, 300_000)
	do(t, master, "CONFIG", "SET", "rdb-key-save-delay", "3000")
	do(t, master, "BGSAVE")
	write(t, master, strings.Repeat("x", 30_000)) // up to 3 MB/s
	within(t, "the snapshot is on its way", func() bool { return projectedSave(infoOf(t, master)) > 800 })

	r := look(t, Target{Master: master.Addr()})
	i := slices.IndexFunc(r.Findings, func(x Finding) bool { return x.Check == "client-output-buffer-limit" })
	if i < 0 || r.Findings[i].Severity != Problem || !strings.Contains(r.Findings[i].Message, "the running snapshot will take") {
		t.Fatalf("the dead loop was not foretold:\n%s", r.Text())
	}
	x := r.Findings[i]
	t.Logf("%s\n%s", x.Message, x.Action)
	rate, n := r.Rate, x.Numbers
	if n["hard_limit_bytes"] != 256*mib || n["soft_limit_bytes"] != 64*mib || n["soft_limit_seconds"] != 60 || n["write_bytes_per_second"] != rate {
		t.Errorf("it rests on %v at %.0f B/s", n, rate)
	}
	if want := min(256*mib/rate, 64*mib/rate+60); math.Abs(n["seconds_to_kill"]-want) > 0.01*want || want >= n["full_sync_seconds"] {
		t.Errorf("the connection is closed after %.1f of %.1f s; from the rate it follows %.1f", n["seconds_to_kill"], n["full_sync_seconds"], want)
	}
	if need := rate * n["full_sync_seconds"]; math.Abs(n["need_bytes"]-need) > 0.01*need {
		t.Errorf("%.0f bytes are needed, of %.0f", n["need_bytes"], need)
	}
}

// shipped skips the test unless the server has these settings.
func shipped(t *testing.T, s *localredis.Server, settings map[string]string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: s.Addr()})
	defer func() { _ = client.Close() }()
	for name, want := range settings {
		got, err := client.ConfigGet(context.Background(), name).Result()
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(got[name], want) {
			t.Skipf("this server's %s is %q, not as 7.0 ships it", name, got[name])
		}
	}
}

// fill writes n small keys.
func fill(t *testing.T, s *localredis.Server, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: s.Addr()})
	defer func() { _ = client.Close() }()
	const script = "for i = 1, ARGV[1] do redis.call('SET', 'key' .. i, 'v') end"
	if err := client.Eval(ctx, script, nil, n).Err(); err != nil && !errors.Is(err, redis.Nil) {
		t.Fatal(err)
	}
}

// TestTunedServersAreQuiet: nothing is said of servers that are set up well and
// written to.
func TestTunedServersAreQuiet(t *testing.T) {
	settings := []string{"--appendonly", "yes", "--repl-backlog-size", "64mb", "--repl-diskless-sync", "yes",
		"--repl-diskless-sync-delay", "1", "--min-replicas-to-write", "1"}
	master := startRedis(t, nil, settings...)
	replicas := []*localredis.Server{startRedis(t, master, settings...), startRedis(t, master, settings...)}
	for _, s := range replicas {
		within(t, "the replica follows", linkUp(t, s))
	}
	within(t, "the master takes writes", func() bool {
		reply, err := localredis.Do(master.Addr(), "SET", "k", "v")
		return err == nil && reply == "+OK"
	})
	write(t, master, strings.Repeat("x", 1000))
	// Asked at a replica: it leads to the master, and that to the other.
	r := look(t, Target{Master: replicas[0].Addr(), Outage: time.Minute})
	if len(r.Findings) != 0 {
		t.Errorf("well-tuned servers have findings:\n%s", r.Text())
	}
	if r.Master != master.Addr() || len(r.Replicas) != 2 {
		t.Errorf("found the master %s and the replicas %v", r.Master, r.Replicas)
	}
	if r.Rate < 1000 || r.Rate > 150_000 { // a hundred times about 1040 bytes, or far less on a busy machine
		t.Errorf("writes of about 100 KB/s were measured as %.0f B/s", r.Rate)
	}
}

// TestRefusedIsSaidNotGuessed: a user that may only do what serve needs.
func TestRefusedIsSaidNotGuessed(t *testing.T) {
	master := startRedis(t, nil)
	replica := startRedis(t, master)
	within(t, "the replica follows", linkUp(t, replica))
	for _, s := range []*localredis.Server{master, replica} {
		do(t, s, "ACL", "SETUSER", "sluice", "on", ">secret", "+ping", "+role", "+info", "+command")
		do(t, s, "ACL", "SETUSER", "blind", "on", ">secret", "+ping", "+role")
	}
	login := Login{User: "sluice", Password: "secret"}
	r := look(t, Target{Master: master.Addr(), Login: login, Rate: 1000})
	for _, x := range r.Findings {
		if x.Severity != Unknown {
			t.Errorf("guessed: %+v", x)
		}
		if !strings.Contains(x.Action, "ACL SETUSER <user> +") {
			t.Errorf("what to allow is not said: %+v", x)
		}
	}
	for _, check := range []string{"client-output-buffer-limit", "repl-timeout", "min-replicas-to-write", "persistence", "acl", "clock"} {
		if !slices.ContainsFunc(r.Findings, func(x Finding) bool {
			return slices.Contains(strings.Split(x.Check, ", "), check) && x.Node == master.Addr()
		}) {
			t.Errorf("that %s was not checked is not said:\n%s", check, r.Text())
		}
	}

	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	login = Login{User: "blind", Password: "secret", Timeout: patience}
	if _, err := Collect(ctx, Target{Master: master.Addr(), Login: login, Sample: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "ACL SETUSER <user> +info") {
		t.Errorf("without INFO: %v", err)
	}
	login.Password = "hunter2"
	if _, err := Collect(ctx, Target{Master: master.Addr(), Login: login, Sample: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "WRONGPASS") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("with a wrong password: %v", err)
	}
}

// TestSentinelsAreAsked: three Sentinels, of which one is named, by an alias; with
// the quorum that they have nothing is to be said, with a higher one there is.
func TestSentinelsAreAsked(t *testing.T) {
	master := startRedis(t, nil)
	replica := startRedis(t, master)
	within(t, "the replica follows", linkUp(t, replica))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var sentinels []*localredis.Server
	for range 3 {
		s, err := localredis.StartSentinel(ctx, localredis.SentinelOptions{
			Name: "mymaster", Master: master, Quorum: 2, DownAfter: patience, FailoverTimeout: patience,
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Stop)
		sentinels = append(sentinels, s)
	}
	for _, s := range sentinels {
		within(t, "the Sentinels know each other", func() bool {
			reply, err := localredis.Do(s.Addr(), "SENTINEL", "SENTINELS", "mymaster")
			return err == nil && reply == "*2"
		})
	}
	alias := strings.Replace(sentinels[0].Addr(), "127.0.0.1", "localhost", 1)
	target := Target{Sentinel: SentinelTarget{Name: "mymaster", Addrs: []string{alias}, Login: Login{Timeout: patience}}, Rate: 1000}
	r := look(t, target)
	if r.Master != master.Addr() || len(r.Replicas) != 1 || found(r, "sentinel", Problem, "") || found(r, "sentinel", Warning, "") {
		t.Errorf("three healthy Sentinels:\n%s", r.Text())
	}
	for _, s := range sentinels {
		do(t, s, "SENTINEL", "SET", "mymaster", "quorum", "4")
	}
	if r := look(t, target); !found(r, "sentinel", Problem, "a quorum of 4 of 3 Sentinels") {
		t.Errorf("a quorum of four:\n%s", r.Text())
	}
	sentinels[2].Kill()
	if r := look(t, target); !found(r, "sentinel", Problem, "does not answer") {
		t.Errorf("one Sentinel is gone:\n%s", r.Text())
	}
	target.Sentinel.Name = "nosuch"
	target.Sample, target.Login.Timeout = time.Millisecond, patience
	if _, err := Collect(ctx, target); err == nil || !strings.Contains(err.Error(), "no Sentinel says where nosuch is") {
		t.Errorf("an unknown name: %v", err)
	}
}

// TestTLS: nodes that demand TLS and a certificate are asked with both.
func TestTLS(t *testing.T) {
	ca := tlstest.NewCA(t, "authority")
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	startRedis(t, nil, ca.Issue(t, "localhost").RedisArgs(ca, strconv.Itoa(port))...)
	addr := "localhost:" + strconv.Itoa(port)
	login := Login{TLS: &tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{ca.Issue(t, "doctor").Certificate}}}
	if r := look(t, Target{Master: addr, Login: login, Rate: 1000}); r.Master != addr || !found(r, "replicas", Warning, "has no replica") {
		t.Errorf("over TLS:\n%s", r.Text())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	login.TLS, login.Timeout = &tls.Config{RootCAs: tlstest.NewCA(t, "other").Pool()}, patience
	if _, err := Collect(ctx, Target{Master: addr, Login: login, Sample: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with the wrong authority: %v", err)
	}
}

// TestFindsEveryServerOnce: a chain of replicas, one of them named by another
// address too, one without a user of the master, and one that is gone.
func TestFindsEveryServerOnce(t *testing.T) {
	master := startRedis(t, nil)
	middle := startRedis(t, master)
	last := startRedis(t, middle)
	within(t, "the chain stands", func() bool { return linkUp(t, middle)() && linkUp(t, last)() })
	do(t, master, "ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
	do(t, middle, "ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all")
	free, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	gone := "127.0.0.1:" + strconv.Itoa(free)
	alias := strings.Replace(last.Addr(), "127.0.0.1", "localhost", 1)
	r := look(t, Target{Master: master.Addr(), Replicas: []string{alias, gone}})
	if len(r.Replicas) != 3 || !slices.Contains(r.Replicas, middle.Addr()) || !slices.Contains(r.Replicas, gone) ||
		!slices.Contains(r.Replicas, alias) {
		t.Errorf("found %v", r.Replicas)
	}
	if !found(r, "node", Problem, "connection refused") {
		t.Errorf("that %s is gone is not said:\n%s", gone, r.Text())
	}
	if !found(r, "acl", Problem, "missing here: app") {
		t.Errorf("that a user is missing is not said:\n%s", r.Text())
	}
}
