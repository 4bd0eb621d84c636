package proxy_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// startRelay starts a Sluice that is only a relay and returns where replicas sync
// from. It is a process of its own: what is below the relay is none of the
// proxy's business.
func startRelay(t testing.TB, master string) string {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "sluice")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/sluice-io/sluice/cmd/sluice").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v: %s", err, out)
	}
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	listen := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	config := fmt.Sprintf("master: %s\nlisteners: []\nadmin: {listen: \"127.0.0.1:0\"}\nrelay: {dir: %s, listen: %q}\n",
		master, filepath.Join(dir, "store"), listen)
	file := filepath.Join(dir, "relay.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "serve", "--config", file)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		err := cmd.Wait()
		_ = log.Close()
		if text, _ := os.ReadFile(log.Name()); err != nil || t.Failed() {
			t.Errorf("the relay ended: %v; its log ends:\n%s", err, text[max(0, len(text)-4000):])
		}
	})
	return listen
}

// TestReadsBehindTheRelayAreNeverStale is TestCausalReadsAreNeverStale with all
// replicas behind a relay, at slow links, so that they have the stream from it
// and their offsets are known through it.
func TestReadsBehindTheRelayAreNeverStale(t *testing.T) {
	var relay string
	f := newFoeOf(t, func(t testing.TB, delays []delay, set func(*proxy.Options)) *cluster {
		master := startRedis(t, localredis.Options{})
		relay = startRelay(t, master.Addr())
		return newClusterBehind(t, master, relay, delays, set)
	}, proxy.ConsistencyCausal, proxy.ConsistencyEventual)
	_, port, err := net.SplitHostPort(relay)
	if err != nil {
		t.Fatal(err)
	}
	if s := f.srv.Status(); len(s.Nodes) != 4 {
		t.Fatalf("master, relay and two replicas are wanted: %+v", s.Nodes)
	}
	for _, n := range f.srv.Status().Nodes {
		if _, p, _ := net.SplitHostPort(n.Address); p == port && n.Reads {
			t.Error("the relay is read from")
		}
	}
	hurt := f.startFaults(t, 5)
	eventual := f.srv.Addrs()[1].String()
	f.hunt(t, "causal", f.addr, f.addr, longEnough).mustHold(t)
	f.hunt(t, "eventual", eventual, eventual, caught).mustFail(t)
	hurt.end(t)
	if n := infoNumber(t, f.master, "replication", "connected_slaves:"); n != 1 {
		t.Errorf("the master has %.0f replicas, the relay alone is wanted", n)
	}
	// A replica that was just restarted counts from 0, so it is both together.
	one, two, own := calls(t, f.replicas[0], "get"), calls(t, f.replicas[1], "get"), calls(t, f.master, "get")
	if t.Logf("GETs since they were started: %d and %d at the replicas, %d at the master", one, two, own); one+two == 0 {
		t.Error("the replicas have served no GET")
	}
}
