package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// binaryDir holds the binary under test once it is built; TestMain removes it.
var binaryDir string

// binary builds sluice once and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-test-")
	if err != nil {
		return "", err
	}
	binaryDir = dir
	path := filepath.Join(dir, "sluice")
	args := []string{"build", "-ldflags", "-X main.version=v0.0.0-test", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

func sluice(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("integration test: not with -short")
	}
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// labNode is one row of the lab's table.
type labNode struct {
	role, addr string
	pid        int
}

// labProcess is a running `sluice lab`.
type labProcess struct {
	cmd         *exec.Cmd
	stdout      *output
	stderr      *output
	done        chan error // what Wait returned
	addr        string     // of the proxy
	socket      string     // of the proxy
	admin       string
	nodes       []labNode // the master first
	interrupted bool
}

var labRow = regexp.MustCompile(`(?m)^(sluice|master|replica) +(\S+) +(\d+) +(.*)$`)

// startLab runs `sluice lab` on free ports until the test ends.
func startLab(t *testing.T, args ...string) *labProcess {
	t.Helper()
	path := sluice(t)
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	args = append([]string{"lab", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--port", strconv.Itoa(min(port, 60000))}, args...)
	l := &labProcess{cmd: exec.Command(path, args...), stdout: newOutput(), stderr: newOutput(), done: make(chan error, 1)}
	l.cmd.Stdout, l.cmd.Stderr = l.stdout, l.stderr
	if err := l.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { l.done <- l.cmd.Wait() }()
	t.Cleanup(func() {
		if !l.interrupted {
			l.interrupt(t)
		}
		if t.Failed() {
			t.Logf("lab's stdout:\n%s\nlab's stderr:\n%s", l.stdout, l.stderr)
		}
	})
	l.stdout.waitFor(t, labReady)
	for _, m := range labRow.FindAllStringSubmatch(l.stdout.String(), -1) {
		pid, err := strconv.Atoi(m[3])
		if err != nil {
			t.Fatal(err)
		}
		path, isSocket := strings.CutPrefix(m[2], "unix:")
		switch {
		case m[1] != "sluice":
			l.nodes = append(l.nodes, labNode{m[1], m[2], pid})
		case isSocket:
			l.socket = path
		case strings.Contains(m[4], "metrics"):
			l.admin = m[2]
		default:
			l.addr = m[2]
		}
	}
	if l.addr == "" || l.socket == "" || l.admin == "" || len(l.nodes) == 0 || l.nodes[0].role != "master" {
		t.Fatalf("the lab's table was not understood: %+v", l)
	}
	return l
}

// interrupt sends Ctrl-C and checks that all is gone and the exit code is 0.
func (l *labProcess) interrupt(t *testing.T) {
	t.Helper()
	l.interrupted = true
	if err := l.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Errorf("interrupt the lab: %v", err)
	}
	select {
	case err := <-l.done:
		if err != nil {
			t.Errorf("the lab ended with %v after SIGINT", err)
		}
	case <-time.After(testTimeout):
		_ = l.cmd.Process.Kill()
		t.Fatalf("the lab still runs %s after SIGINT; wait: %v", testTimeout, <-l.done)
	}
	for _, n := range l.nodes {
		if err := syscall.Kill(n.pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s %s, pid %d, is still there: %v", n.role, n.addr, n.pid, err)
		}
	}
	if l.socket != "" {
		if _, err := os.Stat(filepath.Dir(l.socket)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the lab's directory is still there: %v", err)
		}
	}
}

func (l *labProcess) page(t *testing.T, path string) string {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testTimeout}
	resp, err := client.Get("http://" + l.admin + path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("GET %s: %s, %v: %s", path, resp.Status, err, b)
	}
	return string(b)
}

// status runs `sluice status --json`.
func (l *labProcess) status(t *testing.T) proxy.Status {
	t.Helper()
	out, err := exec.Command(sluice(t), "status", "--json", "--admin", l.admin).Output()
	if err != nil {
		t.Fatalf("sluice status: %v", err)
	}
	var st proxy.Status
	if err := json.Unmarshal(out, &st); err != nil {
		t.Fatal(err)
	}
	return st
}

// calls returns how often the node itself has run a command (INFO commandstats).
func (n labNode) calls(t *testing.T, command string) int {
	t.Helper()
	info, err := localredis.Do(n.addr, "INFO", "commandstats")
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`cmdstat_` + command + `:calls=(\d+)`).FindStringSubmatch(info)
	if m == nil {
		return 0
	}
	calls, err := strconv.Atoi(m[1])
	if err != nil {
		t.Fatal(err)
	}
	return calls
}

// replicaCalls is calls over all replicas.
func (l *labProcess) replicaCalls(t *testing.T, command string) (n int) {
	t.Helper()
	for _, r := range l.nodes[1:] {
		n += r.calls(t, command)
	}
	return n
}

// program returns its path or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed (apt-get install redis-tools): this check was not made", name)
	}
	return path
}

func TestLab(t *testing.T) {
	l := startLab(t)
	if len(l.nodes) != 3 {
		t.Fatalf("%d redis-servers, want a master and two replicas", len(l.nodes))
	}
	t.Run("go-redis", l.testGoRedis)
	t.Run("unix socket", l.testUnixSocket)
	t.Run("metrics", l.testMetrics)
	t.Run("status", l.testStatus)
	t.Run("redis-cli", l.testRedisCLI)
	t.Run("redis-benchmark", l.testRedisBenchmark)
	t.Run("python3-redis", l.testPython)
	l.interrupt(t)
	for _, want := range []string{"Stopping sluice", "Stopping the master " + l.nodes[0].addr, "All stopped."} {
		l.stdout.waitFor(t, want)
	}
}

// testGoRedis uses the client's defaults: HELLO 3, CLIENT SETINFO and the rest
// of its chatter.
func (l *labProcess) testGoRedis(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	c := redis.NewClient(&redis.Options{Addr: l.addr})
	defer func() { _ = c.Close() }()
	if err := c.Set(ctx, "hello", "ahri", 0).Err(); err != nil {
		t.Fatal(err)
	}
	// The master answers until a replica is known to have the SET; each answer
	// sees it.
	within(t, "a replica answers GET", func() bool {
		if got, err := c.Get(ctx, "hello").Result(); err != nil || got != "ahri" {
			t.Fatalf("GET behind the SET: %q, %v", got, err)
		}
		return l.replicaCalls(t, "get") > 0
	})
	if n := l.nodes[0].calls(t, "set"); n != 1 {
		t.Errorf("the master has run %d SETs, want 1", n)
	}
}

func (l *labProcess) testUnixSocket(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	c := redis.NewClient(&redis.Options{Network: "unix", Addr: l.socket})
	defer func() { _ = c.Close() }()
	if err := c.Set(ctx, "by", "socket", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got, err := localredis.Do(l.nodes[0].addr, "GET", "by"); err != nil || got != "socket" {
		t.Errorf("the master has %q, %v", got, err)
	}
}

// testMetrics checks the names and labels that dashboards rely on.
func (l *labProcess) testMetrics(t *testing.T) {
	text := l.page(t, "/metrics")
	master := regexp.QuoteMeta(l.nodes[0].addr)
	want := []string{
		`sluice_node_up\{node="` + master + `",role="master"\} 1`,
		`sluice_node_repl_offset\{node="` + master + `",role="master"\} [1-9]`,
		`sluice_proxy_commands_total\{class="write",node="` + master + `",role="master"\} [1-9]`,
		`sluice_proxy_commands_total\{class="read",node="[^"]+",role="replica"\} [1-9]`,
		`sluice_proxy_command_seconds_bucket\{.*le="\+Inf"\} [1-9]`,
		`sluice_proxy_command_seconds_count(\{.*\})? [1-9]`,
		`sluice_proxy_clients \d`,
		`sluice_proxy_routed_total\{reason="[^"]+"\} [1-9]`,
		`sluice_build_info\{.*version="v0\.0\.0-test"\} 1`,
		`go_goroutines \d`,
		`process_resident_memory_bytes \d`,
	}
	for _, n := range l.nodes[1:] {
		addr := regexp.QuoteMeta(n.addr)
		want = append(want,
			`sluice_node_up\{node="`+addr+`",role="replica"\} 1`,
			`sluice_node_repl_offset\{node="`+addr+`",role="replica"\} [1-9]`,
			`sluice_replica_lag_bytes\{node="`+addr+`"\} \d`,
			`sluice_replica_lag_seconds\{node="`+addr+`"\} \d`)
	}
	for _, w := range want {
		if !regexp.MustCompile(`(?m)^` + w).MatchString(text) {
			t.Errorf("/metrics lacks %s", w)
		}
	}
	if t.Failed() {
		t.Logf("of sluice it has:\n%s", strings.Join(regexp.MustCompile(`(?m)^sluice_.*$`).FindAllString(text, -1), "\n"))
	}
}

func (l *labProcess) testStatus(t *testing.T) {
	st := l.status(t)
	if !st.Ready || len(st.Nodes) != len(l.nodes) {
		t.Fatalf("%+v", st)
	}
	byAddr := map[string]proxy.NodeStatus{}
	for _, n := range st.Nodes {
		byAddr[n.Address] = n
	}
	for i, n := range l.nodes {
		got := byAddr[n.addr]
		if got.Role != n.role || !got.Up || got.Offset <= 0 || (i > 0 && !got.Reads) {
			t.Errorf("%s %s: %+v", n.role, n.addr, got)
		}
	}
	if st.Nodes[0].Commands == 0 {
		t.Errorf("no command of the master is counted: %+v", st.Nodes[0])
	}
	for _, want := range []string{"tcp " + l.addr, "unix " + l.socket} {
		if !strings.Contains(strings.Join(st.Listeners, "\n"), want) {
			t.Errorf("listeners %q lack %q", st.Listeners, want)
		}
	}
}

func (l *labProcess) testRedisCLI(t *testing.T) {
	cli := program(t, "redis-cli")
	_, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(cli, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("redis-cli %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	for _, protocol := range []string{"-2", "-3"} {
		value := "ahri" + protocol
		if got := run(protocol, "-p", port, "set", "hello", value); got != "OK" {
			t.Errorf("set says %q", got)
		}
		if got := run(protocol, "-p", port, "get", "hello"); got != value {
			t.Errorf("get behind the set of %s says %q", value, got)
		}
	}
	if got := run("-s", l.socket, "ping"); got != "PONG" {
		t.Errorf("ping by the unix socket says %q", got)
	}
}

func (l *labProcess) testRedisBenchmark(t *testing.T) {
	bench := program(t, "redis-benchmark")
	_, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	const requests = 4000
	run := func(test string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
		defer cancel()
		out, err := exec.CommandContext(ctx, bench, "-p", port, "-n", strconv.Itoa(requests), "-c", "20", "-P", "4", "-t", test, "--csv").CombinedOutput()
		if err != nil {
			t.Fatalf("redis-benchmark: %v: %s", err, out)
		}
		if want := `"` + strings.ToUpper(test) + `",`; !strings.Contains(string(out), want) {
			t.Errorf("redis-benchmark has not printed %s: %s", want, out)
		}
	}
	before := l.nodes[0].calls(t, "set")
	run("set")
	if n := l.nodes[0].calls(t, "set") - before; n != requests {
		t.Errorf("the master has run %d SETs, want %d", n, requests)
	}
	// Once the replicas are known to have what was written, the master is not
	// read any more.
	within(t, "all GETs of a run are answered by replicas", func() bool {
		before := l.replicaCalls(t, "get")
		run("get")
		return l.replicaCalls(t, "get")-before == requests
	})
}

// pythonScript writes and reads by TCP and by the unix socket; a read sees what
// was written before, whoever answers it.
const pythonScript = `
import sys, redis
port, path, key = int(sys.argv[1]), sys.argv[2], "python"
for r in (redis.Redis(port=port), redis.Redis(unix_socket_path=path)):
    r.delete(key)
    assert r.set(key, "ahri") is True
    p = r.pipeline(transaction=False)
    p.rpush(key + ":list", 1, 2, 3)
    p.delete(key + ":list")
    assert p.execute() == [3, 1]
    assert r.get(key) == b"ahri"
    assert r.incr(key + ":n") >= 1
    r.close()
print("fine")
`

func (l *labProcess) testPython(t *testing.T) {
	var python string
	for _, name := range []string{"python3", "/usr/bin/python3"} { // the first may be without Debian's packages
		if exec.Command(name, "-c", "import redis").Run() == nil {
			python = name
			break
		}
	}
	if python == "" {
		t.Skip("python3 with redis is not installed (apt-get install python3-redis): this check was not made")
	}
	_, port, err := net.SplitHostPort(l.addr)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, python, "-c", pythonScript, port, l.socket).CombinedOutput()
	if err != nil || strings.TrimSpace(string(out)) != "fine" {
		t.Errorf("%v: %s", err, out)
	}
}

// A lab is for killing nodes: it says so and goes on.
func TestLabGoesOnWhenAReplicaDies(t *testing.T) {
	l := startLab(t)
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	c := redis.NewClient(&redis.Options{Addr: l.addr})
	defer func() { _ = c.Close() }()
	if err := c.Set(ctx, "k", "v", 0).Err(); err != nil {
		t.Fatal(err)
	}
	within(t, "the write is read", func() bool { return c.Get(ctx, "k").Val() == "v" })
	dead := l.nodes[2]
	if err := syscall.Kill(dead.pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	l.stdout.waitFor(t, fmt.Sprintf("The replica %s (pid %d) has ended", dead.addr, dead.pid))
	within(t, "status shows the replica down or gone", func() bool {
		if got, err := c.Get(ctx, "k").Result(); err != nil || got != "v" {
			t.Fatalf("GET while a replica is dead: %q, %v", got, err)
		}
		for _, n := range l.status(t).Nodes {
			if n.Address == dead.addr && (n.Up || n.Reads) {
				return false
			}
		}
		return true
	})
	l.interrupt(t)
}

// One replica at the master and one behind the relay: both are read from, and the
// master serves one of them and the relay.
func TestLabRelay(t *testing.T) {
	l := startLab(t, "--relay")
	if len(l.nodes) != 3 {
		t.Fatalf("%d redis-servers, want a master and two replicas", len(l.nodes))
	}
	st := relayStatus(t, l.admin)
	if st.Relay == nil || st.Relay.Downstream == nil || len(st.Relay.Downstream.Replicas) != 1 || st.Relay.Downstream.Replicas[0].Address != l.nodes[2].addr {
		t.Fatalf("relay is %+v", st.Relay)
	}
	reads := map[string]bool{}
	for _, n := range st.Nodes {
		reads[n.Address] = n.Reads
	}
	if !reads[l.nodes[1].addr] || !reads[l.nodes[2].addr] || reads[st.Relay.Downstream.Address] {
		t.Errorf("reads go to %v", reads)
	}
	info, err := localredis.Do(l.nodes[0].addr, "INFO", "replication")
	if err != nil || !strings.Contains(info, "connected_slaves:2") {
		t.Errorf("INFO of the master: %v\n%s", err, info)
	}
	l.interrupt(t)
}

func TestLabTakesFreePortsForTakenOnes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	port := taken.Addr().(*net.TCPAddr).Port
	l := startLab(t, "--replicas", "0", "--port", strconv.Itoa(port))
	if len(l.nodes) != 1 || l.nodes[0].addr == taken.Addr().String() {
		t.Errorf("nodes %+v, want one, not on %s", l.nodes, taken.Addr())
	}
}

func TestLabAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	out, err := exec.Command(sluice(t), "lab", "--replicas", "0", "--listen", taken.Addr().String(), "--admin-listen", "127.0.0.1:0").CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitRuntime {
		t.Errorf("%v, want exit code %d", err, exitRuntime)
	}
	for _, want := range []string{taken.Addr().String(), "choose another address: --listen", "Stopping the master"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%s\nlacks %q", out, want)
		}
	}
}

func TestLabWithoutRedisServer(t *testing.T) {
	cmd := exec.Command(sluice(t), "lab")
	cmd.Env = append(os.Environ(), "PATH="+t.TempDir())
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitRuntime || !strings.Contains(string(out), "apt-get install redis-server") {
		t.Errorf("%v: %s", err, out)
	}
}
