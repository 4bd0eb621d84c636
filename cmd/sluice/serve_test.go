package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/resp/localredis"
)

// startRedis starts a redis-server for the test.
func startRedis(t testing.TB, o localredis.Options) *localredis.Server {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	s, err := localredis.Start(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s
}

// listening is the log line that says that serve is up.
type listening struct {
	Listeners []string `json:"listeners"`
	Admin     string   `json:"admin"`
	Relay     string   `json:"relay"`
	Loops     int      `json:"loops"`
	CPUs      int      `json:"cpus"`
}

// startServe runs serve on free ports and returns what it listens on.
func startServe(t testing.TB, args ...string) (*inProcess, listening) {
	t.Helper()
	p := start(append([]string{"serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0", "--log-format", "json"}, args...)...)
	return p, awaitListening(t, p)
}

// awaitListening reads from the log, which must be JSON, what serve listens on.
func awaitListening(t testing.TB, p *inProcess) (l listening) {
	t.Helper()
	if err := json.Unmarshal([]byte(p.stderr.waitFor(t, "sluice is listening")), &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// get returns the status code of an admin page.
func get(t *testing.T, url string) int {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: testTimeout}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// within polls ok, which asks another process, until it holds.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(testTimeout); !ok(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", testTimeout, what)
		}
	}
}

func TestServeUntilSIGTERM(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	p, l := startServe(t, "--master", master.Addr(), "--loops", "1")
	if l.Loops != 1 || l.CPUs < 1 || len(l.Listeners) != 1 {
		t.Errorf("logged %+v", l)
	}
	within(t, "/readyz is 200", func() bool { return get(t, "http://"+l.Admin+"/readyz") == http.StatusOK })
	client := redis.NewClient(&redis.Options{Addr: strings.TrimPrefix(l.Listeners[0], "tcp ")})
	if err := client.Set(context.Background(), "hello", "ahri", 0).Err(); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	if got, err := localredis.Do(master.Addr(), "GET", "hello"); err != nil || got != "ahri" {
		t.Errorf("the master has %q, %v", got, err)
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d after SIGTERM: %s", code, p.stderr)
	}
	p.stderr.waitFor(t, "draining")
	p.stderr.waitFor(t, "sluice has stopped")
	for _, addr := range []string{l.Admin, strings.TrimPrefix(l.Listeners[0], "tcp ")} {
		if c, err := net.Dial("tcp", addr); err == nil {
			_ = c.Close()
			t.Errorf("%s still accepts connections", addr)
		}
	}
}

// Without a master serve runs all the same, alive and not ready.
func TestServeWithoutMaster(t *testing.T) {
	port, err := localredis.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	p, l := startServe(t, "--master", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
	if code := get(t, "http://"+l.Admin+"/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d, want 200", code)
	}
	if code := get(t, "http://"+l.Admin+"/readyz"); code != http.StatusServiceUnavailable {
		t.Errorf("/readyz: %d, want 503", code)
	}
	p.signals <- syscall.SIGINT
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d after SIGINT: %s", code, p.stderr)
	}
}

func TestServeReload(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	file := filepath.Join(t.TempDir(), "sluice.yml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	good := "master: " + master.Addr() + "\nupstream: {password: \"\"}\n"
	write(good)
	p, _ := startServe(t, "--config", file)
	hup := func(want ...string) {
		t.Helper()
		p.signals <- syscall.SIGHUP
		line := p.stderr.waitFor(t, want[0])
		for _, w := range want[1:] {
			if !strings.Contains(line, w) {
				t.Errorf("%s\nlacks %s", line, w)
			}
		}
	}
	hup("nothing has changed")
	write("no such key: 1\n" + good)
	hup("the old configuration stays in force", "sluice.yml:1:1", "unknown key")
	write(good + "loops: 3\nlimits: {max_clients: 7}\n")
	hup("need a restart", `"keys":["loops"]`)
	p.stderr.waitFor(t, `"keys":["limits.max_clients"]`)
	write(good + "log: {level: error}\n")
	hup("log level changed", `"from":"info","to":"error"`)
	write(good + "loops: 2\nlog: {level: error}\n")
	p.signals <- syscall.SIGHUP // says so by a warning, which is not logged now
	write(good + "bad: 1\n")
	hup(`unknown key \"bad\"`)
	write(good)
	p.signals <- syscall.SIGHUP
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if got := strings.Count(p.stderr.String(), "need a restart"); got != 1 {
		t.Errorf("%d warnings, want 1: the level error was not applied\n%s", got, p.stderr)
	}
	p.stderr.waitFor(t, "sluice has stopped") // info again
}

func TestServeAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	addr := taken.Addr().String()
	for _, args := range [][]string{
		{"--listen", addr, "--admin-listen", "127.0.0.1:0"},
		{"--listen", "127.0.0.1:0", "--admin-listen", addr},
	} {
		p := start(append([]string{"serve", "--master", "127.0.0.1:1"}, args...)...)
		if code := p.wait(t); code != exitRuntime {
			t.Errorf("%v: exit code %d, want %d", args, code, exitRuntime)
		}
		for _, want := range []string{addr, "address already in use", "choose another address: --listen for clients, --relay-listen"} {
			if got := p.stderr.String(); !strings.Contains(got, want) {
				t.Errorf("%v: stderr %q lacks %q", args, got, want)
			}
		}
	}
}

func TestLowFileLimitIsSaid(t *testing.T) {
	p, _ := startServe(t, "--master", "127.0.0.1:1", "--config", writeConfig(t, "limits: {max_clients: 2000000000}\n"))
	p.stderr.waitFor(t, "the limit of open files is below limits.max_clients")
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

func TestTooManyLoopsIsSaid(t *testing.T) {
	p, _ := startServe(t, "--master", "127.0.0.1:1", "--loops", "64")
	p.stderr.waitFor(t, "more event loops than processors")
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
}

func writeConfig(t *testing.T, text string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "sluice.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestPasswordStaysOutOfTheLog(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	if got, err := localredis.Do(master.Addr(), "CONFIG", "SET", "requirepass", "hunter2"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	t.Setenv(config.PasswordEnv, "hunter2")
	p, l := startServe(t, "--master", master.Addr(), "--log-level", "debug")
	for _, page := range []string{"/readyz", "/metrics", "/api/status"} {
		get(t, "http://"+l.Admin+page)
	}
	p.signals <- syscall.SIGHUP
	p.stderr.waitFor(t, "nothing has changed")
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	if strings.Contains(p.stderr.String(), "hunter2") {
		t.Errorf("the log shows the password: %s", p.stderr)
	}
}

func TestLogFormats(t *testing.T) {
	for format, want := range map[string]string{config.FormatJSON: `"level":"warn"`, config.FormatConsole: "\tWARN\tm\t"} {
		out := newOutput()
		log, level, err := newLogger(config.Log{Level: "warn", Format: format}, out)
		if err != nil {
			t.Fatal(err)
		}
		log.Info("unseen")
		log.Warn("m", zap.Int("n", 1))
		level.SetLevel(zap.InfoLevel)
		log.Info("seen")
		got := out.String()
		if !strings.Contains(got, want) || strings.Contains(got, "unseen") || !strings.Contains(got, "seen") {
			t.Errorf("%s: %q, want %q", format, got, want)
		}
	}
}

// A drain waits for a write in flight, not ready meanwhile; a second signal ends
// it. The master pauses writes, so that the write stays in flight.
func TestSecondSignalEndsTheDrain(t *testing.T) {
	master := startRedis(t, localredis.Options{})
	p, l := startServe(t, "--master", master.Addr(), "--config", writeConfig(t, "timeouts: {drain: 5m}\n"))
	within(t, "/readyz is 200", func() bool { return get(t, "http://"+l.Admin+"/readyz") == http.StatusOK })
	if got, err := localredis.Do(master.Addr(), "CLIENT", "PAUSE", "300000", "WRITE"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	client := redis.NewClient(&redis.Options{
		Addr: strings.TrimPrefix(l.Listeners[0], "tcp "), MaxRetries: -1, ReadTimeout: -1})
	written := make(chan error, 1)
	go func() { written <- client.Set(context.Background(), "k", "v", 0).Err() }()
	within(t, "the master holds the write back", func() bool {
		info, err := localredis.Do(master.Addr(), "INFO", "clients")
		return err == nil && strings.Contains(info, "blocked_clients:1\r\n")
	})
	p.signals <- syscall.SIGTERM
	p.stderr.waitFor(t, "draining")
	within(t, "/readyz is 503", func() bool { return get(t, "http://"+l.Admin+"/readyz") == http.StatusServiceUnavailable })
	p.signals <- syscall.SIGHUP // is no reason to hurry
	select {
	case err := <-written:
		t.Errorf("the write in flight got %v during the drain, want it waited for", err)
	case code := <-p.code:
		t.Fatalf("ended with %d during the drain: %s", code, p.stderr)
	default:
	}
	p.signals <- syscall.SIGTERM
	if code := p.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, p.stderr)
	}
	p.stderr.waitFor(t, "a second signal")
	p.stderr.waitFor(t, "requests were still in flight when the drain ended")
	if err := <-written; err == nil {
		t.Error("the write was answered, want its connection closed")
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
}
