package main

import (
	"bufio"
	"encoding/json"
	"fmt"
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

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// The tests here watch a whole process from outside, by /proc: its memory, its
// descriptors and its goroutines, with many clients.

const (
	idleClients   = 10_000
	idleMemory    = 60 << 20 // bytes resident with so many idle clients
	clientsPerSec = 1_000
	churnFor      = 5 * time.Second
	churnForLong  = time.Minute // with SLUICE_LONG set
)

// plainBinary builds sluice without the race detector, which multiplies memory.
var plainBinary = sync.OnceValues(func() (string, error) {
	if !raceEnabled {
		return binary()
	}
	if _, err := binary(); err != nil { // makes the directory
		return "", err
	}
	path := filepath.Join(binaryDir, "sluice-plain")
	if out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// process is `sluice serve` in a process of its own, before a master and a replica.
type process struct {
	t           *testing.T
	pid         int
	addr, admin string
	http        *http.Client
}

func startProcess(t *testing.T) *process {
	t.Helper()
	if testing.Short() {
		t.Skip("integration test: not with -short")
	}
	path, err := plainBinary()
	if err != nil {
		t.Fatal(err)
	}
	master := startRedis(t, localredis.Options{})
	startRedis(t, localredis.Options{ReplicaOf: master})
	cmd := exec.Command(path, "serve", "--master", master.Addr(), "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json")
	log := newOutput()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("sluice ended with %v: %s", err, log)
		}
	})
	var l listening
	if err := json.Unmarshal([]byte(log.waitFor(t, "sluice is listening")), &l); err != nil {
		t.Fatal(err)
	}
	p := &process{
		t: t, pid: cmd.Process.Pid, addr: strings.TrimPrefix(l.Listeners[0], "tcp "), admin: l.Admin,
		http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testTimeout},
	}
	within(t, "a replica gets reads", func() bool {
		st := p.status()
		return st.Ready && len(st.Nodes) == 2 && st.Nodes[1].Reads
	})
	return p
}

func (p *process) page(path string) string {
	p.t.Helper()
	resp, err := p.http.Get("http://" + p.admin + path)
	if err != nil {
		p.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b strings.Builder
	if _, err := bufio.NewReader(resp.Body).WriteTo(&b); err != nil {
		p.t.Fatal(err)
	}
	return b.String()
}

func (p *process) status() (st proxy.Status) {
	p.t.Helper()
	if err := json.Unmarshal([]byte(p.page("/api/status")), &st); err != nil {
		p.t.Fatal(err)
	}
	return st
}

// usage is what a process holds.
type usage struct {
	resident   int // bytes
	files      int
	goroutines int
}

// String gives u for people.
func (u usage) String() string {
	return fmt.Sprintf("%.1f MB resident, %d descriptors, %d goroutines", float64(u.resident)/(1<<20), u.files, u.goroutines)
}

var (
	vmRSS      = regexp.MustCompile(`(?m)^VmRSS:\s+(\d+) kB$`)
	goroutines = regexp.MustCompile(`^goroutine profile: total (\d+)`)
)

func (p *process) usage() usage {
	p.t.Helper()
	number := func(re *regexp.Regexp, text string) int {
		m := re.FindStringSubmatch(text)
		if m == nil {
			p.t.Fatalf("no %s in %.200q", re, text)
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			p.t.Fatal(err)
		}
		return n
	}
	u := usage{goroutines: number(goroutines, p.page("/debug/pprof/goroutine?debug=1"))}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	u.resident = number(vmRSS, string(status)) << 10
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.pid))
	if err != nil {
		p.t.Fatal(err)
	}
	u.files = len(files)
	return u
}

// quiet waits until no client is connected and returns what the process holds.
func (p *process) quiet() usage {
	p.t.Helper()
	within(p.t, "all clients have gone", func() bool { return p.status().Clients == 0 })
	return p.usage()
}

// dial connects from one of many addresses, since one has too few ports.
func (p *process) dial(i int) (*net.TCPConn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(2+i%50))}, Timeout: testTimeout}
	c, err := d.Dial("tcp", p.addr)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), c.SetDeadline(time.Now().Add(testTimeout))
}

// needFiles raises the limit of open files of this process and skips the test
// where it stays too low; sluice raises its own in the same way.
func needFiles(t *testing.T, n uint64) {
	t.Helper()
	limit, err := raiseFileLimit()
	if limit < n {
		t.Skipf("the hard limit of open files is %d, and %d are needed (%v): raise it (ulimit -Hn) to make this check", limit, n, err)
	}
}

func TestIdleClientsNeedLittleMemory(t *testing.T) {
	needFiles(t, idleClients+200)
	p := startProcess(t)
	before := p.usage()
	conns := make([]*net.TCPConn, idleClients)
	defer func() {
		for _, c := range conns {
			if c != nil {
				_ = c.Close()
			}
		}
	}()
	var wg sync.WaitGroup
	const dialers = 8
	for d := range dialers {
		wg.Go(func() {
			for i := d; i < idleClients; i += dialers {
				c, err := p.dial(i)
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = c
				// Half of them have been of use before they rest.
				if i/dialers%2 == 0 {
					if err := exchange(c, "SET k v\r\nGET k\r\n", "+OK\r\n$1\r\nv\r\n"); err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	within(t, "all are connected", func() bool { return p.status().Clients == idleClients })
	with := p.usage()
	t.Logf("without clients: %s", before)
	t.Logf("%d idle clients: %s; %.2f KB each", idleClients, with, float64(with.resident-before.resident)/idleClients/1024)
	if with.resident >= idleMemory {
		t.Errorf("%d bytes are resident, want fewer than %d", with.resident, idleMemory)
	}
	if with.goroutines > before.goroutines+10 {
		t.Errorf("%d goroutines with clients, %d without: a client must not cost one", with.goroutines, before.goroutines)
	}
	for i := 0; i < idleClients; i += 97 { // they are still served
		if err := exchange(conns[i], "PING\r\n", "+PONG\r\n"); err != nil {
			t.Fatalf("client %d: %v", i, err)
		}
	}
}

// exchange sends something and expects exactly the answer.
func exchange(c net.Conn, send, want string) error {
	if _, err := c.Write([]byte(send)); err != nil {
		return err
	}
	got := make([]byte, len(want))
	for n := 0; n < len(got); {
		k, err := c.Read(got[n:])
		if n += k; err != nil {
			return fmt.Errorf("after %q: %w", got[:n], err)
		}
	}
	if string(got) != want {
		return fmt.Errorf("answer %q, want %q", got, want)
	}
	return nil
}

// visits are the ways of clients that come and go.
var visits = []struct {
	send, want string
	reset      bool // leaves by RST
}{
	{send: "SET k v\r\nGET k\r\n", want: "+OK\r\n$1\r\nv\r\n"},
	{send: "GET k\r\n", want: "$1\r\nv\r\n"},
	{send: "PING\r\n", want: "+PONG\r\n"},
	{send: "GET k\r\nGET k\r\n", want: "$1\r\nv\r\n$1\r\nv\r\n", reset: true},
	{},                                      // says nothing
	{send: "*2\r\n$3\r\nGET\r\n$1"},         // half a command
	{send: "GET k\r\n"},                     // does not wait
	{send: "GET k\r\n", reset: true},        // nor say goodbye
	{send: "SELECT 3\r\n", want: "+OK\r\n"}, // leaves right after
	{send: "MULTI\r\nSET t v\r\n", want: "+OK\r\n+QUEUED\r\n"},
	{send: "SUBSCRIBE a\r\n", want: "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"},
	{send: "BLPOP nothing 0\r\n"},
	{send: "*x\r\n", want: "-ERR Protocol error: invalid multibulk length\r\n"},
	{send: "CLIENT NO-EVICT on\r\n", want: "+OK\r\n", reset: true},
}

func (p *process) visit(i int) error {
	c, err := p.dial(i)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	v := visits[0]
	if i%4 == 0 {
		v = visits[i/4%len(visits)]
	}
	if err := exchange(c, v.send, v.want); err != nil {
		return fmt.Errorf("%q: %w", v.send, err)
	}
	if v.reset {
		return c.SetLinger(0)
	}
	return nil
}

// churn has clients come and go for a while, clientsPerSec in each second.
func (p *process) churn(d time.Duration) (clients int) {
	p.t.Helper()
	const workers = 20
	var wg sync.WaitGroup
	counts := make([]int, workers)
	for w := range workers {
		wg.Go(func() {
			pace := time.NewTicker(time.Second * workers / clientsPerSec)
			defer pace.Stop()
			for end := time.Now().Add(d); time.Now().Before(end); <-pace.C {
				i := counts[w]*workers + w
				counts[w]++
				if err := p.visit(i); err != nil {
					p.t.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	for _, n := range counts {
		clients += n
	}
	return clients
}

// Clients that come and go, in order or not, must leave nothing behind.
func TestClientsThatComeAndGoLeaveNothing(t *testing.T) {
	p := startProcess(t)
	d := churnFor
	if os.Getenv("SLUICE_LONG") != "" {
		d = churnForLong
	}
	if err := p.visit(0); err != nil { // sets the key that others read
		t.Fatal(err)
	}
	p.churn(d / 2) // until buffers, pools and heap have their sizes
	settled := p.quiet()
	n := p.churn(d)
	after := p.quiet()
	t.Logf("settled: %s", settled)
	t.Logf("after %d more clients in %s: %s", n, d, after)
	if margin := max(8<<20, settled.resident/5); after.resident > settled.resident+margin {
		t.Errorf("memory has grown from %d to %d bytes", settled.resident, after.resident)
	}
	// Connections to the master that are kept for reuse come and go.
	if after.files > settled.files+32 {
		t.Errorf("descriptors have grown from %d to %d", settled.files, after.files)
	}
	if after.goroutines > settled.goroutines+5 {
		t.Errorf("goroutines have grown from %d to %d", settled.goroutines, after.goroutines)
	}
}
