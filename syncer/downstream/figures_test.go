package downstream

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
)

// The figures of these tests mean something on a quiet machine only, so that they
// run when they are asked for:
//
//	SLUICE_FIGURES=1 go test ./syncer/downstream -run TestFigures -v -timeout 60m
//
// SLUICE_FIGURES_MB is the size of the data set, 860 if not given.
func figures(t *testing.T) (megabytes int) {
	if os.Getenv("SLUICE_FIGURES") == "" {
		t.Skip("SLUICE_FIGURES is not set")
	}
	megabytes = 860
	if s := os.Getenv("SLUICE_FIGURES_MB"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		megabytes = n
	}
	return megabytes
}

// fill writes so many megabytes of values that do not compress.
func fill(t *testing.T, s *localredis.Server, megabytes int) {
	t.Helper()
	if megabytes > 0 {
		relaytest.Do(t, s, "DEBUG", "POPULATE", strconv.Itoa(megabytes*1000), "key", "900")
	}
}

// cpu returns the seconds of CPU that a server and its children have used.
func cpu(t *testing.T, s *localredis.Server) float64 {
	t.Helper()
	sum := 0.0
	for _, key := range []string{"used_cpu_user", "used_cpu_sys", "used_cpu_user_children", "used_cpu_sys_children"} {
		v, err := strconv.ParseFloat(relaytest.Info(t, s, key), 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += v
	}
	return sum
}

// cost is what something has cost a master.
type cost struct {
	forks, fulls int64
	cpu          float64
}

func costOf(t *testing.T, s *localredis.Server) cost {
	return cost{relaytest.Number(t, s, "total_forks"), relaytest.Number(t, s, "sync_full"), cpu(t, s)}
}

func (c cost) since(b cost) string {
	return fmt.Sprintf("%d forks, %d full syncs, %.2f s of CPU", c.forks-b.forks, c.fulls-b.fulls, c.cpu-b.cpu)
}

// startRelayProcess starts a relay as a process of its own and waits for its base.
func startRelayProcess(t *testing.T, master *localredis.Server) *relayProcess {
	t.Helper()
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p := &relayProcess{t: t, dir: t.TempDir(), master: master.Addr(), listen: fmt.Sprintf("127.0.0.1:%d", port)}
	p.start()
	t.Cleanup(p.kill)
	relaytest.Await(t, "base", func() bool {
		info, err := localredis.Do(p.listen, "INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
	return p
}

func (p *relayProcess) port() int {
	_, s, _ := strings.Cut(p.listen, ":")
	n, _ := strconv.Atoi(s)
	return n
}

// rss returns the resident memory of the relay in megabytes, and its highest.
func (p *relayProcess) rss(t *testing.T) (now, peak int) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Skip(err) // not Linux
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 {
			kb, _ := strconv.Atoi(f[1])
			switch f[0] {
			case "VmRSS:":
				now = kb >> 10
			case "VmHWM:":
				peak = kb >> 10
			}
		}
	}
	return now, peak
}

// join starts n replicas of a port, a pause apart, and returns how long each took
// until its link was up, and all together.
func join(t *testing.T, port, n int, pause time.Duration) (each []time.Duration, all time.Duration, replicas []*localredis.Server) {
	t.Helper()
	each = make([]time.Duration, n)
	begin := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		s := startBehind(t, port)
		replicas = append(replicas, s)
		at := time.Now()
		wg.Go(func() {
			for deadline := at.Add(10 * time.Minute); time.Now().Before(deadline); {
				if info, err := localredis.Do(s.Addr(), "INFO", "replication"); err == nil && strings.Contains(info, "master_link_status:up") {
					each[i] = time.Since(at).Round(time.Millisecond)
					return
				}
				time.Sleep(20 * time.Millisecond)
			}
			t.Error("replica is not up after ten minutes")
		})
		if i < n-1 {
			time.Sleep(pause)
		}
	}
	wg.Wait()
	return each, time.Since(begin).Round(time.Millisecond), replicas
}

// Four replicas that join eight seconds apart, and four at once: what it costs the
// master, and how long it takes, by stock replication and through the relay.
func TestFiguresJoin(t *testing.T) {
	mb := figures(t)
	master := relaytest.StartRedis(t, localredis.Options{Args: []string{"--repl-diskless-sync-delay", "5"}})
	fill(t, master, mb)
	relay := startRelayProcess(t, master)
	for _, who := range []struct {
		name string
		port int
	}{{"stock", master.Port()}, {"relay", relay.port()}} {
		for _, pause := range []time.Duration{8 * time.Second, 0} {
			before := costOf(t, master)
			each, all, replicas := join(t, who.port, 4, pause)
			t.Logf("%s, four replicas %s apart, %d MB: %s at the master; each %v, all %s", who.name, pause, mb, costOf(t, master).since(before), each, all)
			want := relaytest.Digest(t, master)
			for _, s := range replicas {
				catchUp(t, master, s)
				if got := relaytest.Digest(t, s); got != want {
					t.Errorf("digest of %s differs", s.Addr())
				}
				s.Stop()
			}
		}
	}
}

// Twenty replicas at once: the memory of the relay, and the data.
func TestFiguresTwenty(t *testing.T) {
	mb := min(figures(t), 200) // of which there are twenty-one
	master := relaytest.StartRedis(t, localredis.Options{})
	fill(t, master, mb)
	relay := startRelayProcess(t, master)
	before := costOf(t, master)
	_, all, replicas := join(t, relay.port(), 20, 0)
	round(t, relaytest.NewLoad(t, master), 3)
	sameData(t, master, replicas...)
	now, peak := relay.rss(t)
	t.Logf("twenty replicas at once, %d MB: all up after %s, equal digests; relay %d MB resident, %d MB at most; %s at the master", mb, all, now, peak, costOf(t, master).since(before))
	if peak > 300 {
		t.Errorf("the relay took %d MB", peak)
	}
}

// Eight replicas directly at the master, and eight behind the relay: CPU of the
// master for each SET, and how long after PUBLISH at the master a message is at a
// replica (PUBLISH is in the stream as any write).
func TestFiguresStream(t *testing.T) {
	figures(t)
	for _, name := range []string{"direct", "relay"} {
		master := relaytest.StartRedis(t, localredis.Options{})
		relaytest.Do(t, master, "SET", "k", "v")
		port := master.Port()
		var relay *relayProcess
		if name == "relay" {
			relay = startRelayProcess(t, master)
			port = relay.port()
		}
		_, _, replicas := join(t, port, 8, 0)
		for _, s := range replicas {
			catchUp(t, master, s)
		}
		const sets = 400_000
		before := cpu(t, master)
		begin := time.Now()
		setMany(t, master, sets, 100)
		for _, s := range replicas {
			catchUp(t, master, s)
		}
		took := time.Since(begin)
		perSet := (cpu(t, master) - before) / sets * 1e6
		lags := publishLags(t, master, replicas[0], 2000)
		t.Logf("%s, eight replicas: %.2f us of master CPU for each SET, %.0f SET/s until the last replica had all; lag of a message p50 %s, p99 %s",
			name, perSet, sets/took.Seconds(), lags[len(lags)/2], lags[len(lags)*99/100])
		for _, s := range replicas {
			s.Stop()
		}
		if relay != nil {
			relay.kill()
		}
		master.Stop()
	}
}

// setMany writes n values of 100 bytes, in pipelines.
func setMany(t *testing.T, s *localredis.Server, n, depth int) {
	t.Helper()
	c := relaytest.NewClient(t, s.Addr(), 0)
	value := strings.Repeat("v", 100)
	for done := 0; done < n; done += depth {
		pipe := c.Pipeline()
		for i := range depth {
			pipe.Set(context.Background(), "key"+strconv.Itoa((done+i)%10_000), value, 0)
		}
		if _, err := pipe.Exec(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
}

// publishLags returns how long each of n messages took from the master to a
// replica, sorted. One is sent each millisecond.
func publishLags(t *testing.T, master, replica *localredis.Server, n int) []time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*relaytest.Timeout)
	defer cancel()
	sub := relaytest.NewClient(t, replica.Addr(), 0).Subscribe(ctx, "lag")
	defer func() { _ = sub.Close() }()
	if _, err := sub.Receive(ctx); err != nil {
		t.Fatal(err)
	}
	pub := relaytest.NewClient(t, master.Addr(), 0)
	lags := make([]time.Duration, 0, n)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for len(lags) < n {
			m, err := sub.Receive(ctx)
			if err != nil {
				t.Error(err)
				return
			}
			if m, ok := m.(*redis.Message); ok {
				sent, _ := strconv.ParseInt(m.Payload, 10, 64)
				lags = append(lags, time.Since(time.Unix(0, sent)))
			}
		}
	}()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range n {
		<-tick.C
		if err := pub.Publish(ctx, "lag", strconv.FormatInt(time.Now().UnixNano(), 10)).Err(); err != nil {
			t.Fatal(err)
		}
	}
	<-done
	slices.Sort(lags)
	return lags
}
