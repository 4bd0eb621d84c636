package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// testTimeout bounds every wait of the tests; none should come near it.
const testTimeout = 60 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	if binaryDir != "" {
		_ = os.RemoveAll(binaryDir)
	}
	os.Exit(code)
}

// output collects what a command prints and lets a test wait for a line.
type output struct {
	mu      sync.Mutex
	buf     bytes.Buffer
	changed chan struct{} // closed and replaced by each Write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// waitFor returns the first whole line that contains text, once it is there.
func (o *output) waitFor(t testing.TB, text string) string {
	t.Helper()
	deadline := time.After(testTimeout)
	for {
		o.mu.Lock()
		all, changed := o.buf.String(), o.changed
		o.mu.Unlock()
		for s := bufio.NewScanner(strings.NewReader(all[:strings.LastIndexByte(all, '\n')+1])); s.Scan(); {
			if strings.Contains(s.Text(), text) {
				return s.Text()
			}
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%q was not printed within %s; printed: %s", text, testTimeout, all)
		}
	}
}

// inProcess is a command that runs in this process.
type inProcess struct {
	stdout, stderr *output
	signals        chan os.Signal
	code           chan int
}

// start runs the command in a goroutine; wait must be called.
func start(args ...string) *inProcess {
	p := &inProcess{newOutput(), newOutput(), make(chan os.Signal, 8), make(chan int, 1)}
	go func() { p.code <- run(args, &env{stdout: p.stdout, stderr: p.stderr, signals: p.signals}) }()
	return p
}

// wait returns the exit code.
func (p *inProcess) wait(t testing.TB) int {
	t.Helper()
	select {
	case code := <-p.code:
		return code
	case <-time.After(testTimeout):
		t.Fatalf("still running after %s; stdout: %s; stderr: %s", testTimeout, p.stdout, p.stderr)
		return -1
	}
}

func TestUsage(t *testing.T) {
	for _, tc := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"", exitUsage, "", `expected one of "serve", "lab"`},
		{"--help", exitOK, "sluice <command>", ""},
		{"serve --help", exitOK, "--password-file", ""},
		{"lab --help", exitOK, "(default 2)", ""},
		{"nosuch", exitUsage, "", "nosuch"},
		{"serve --sentinel x", exitUsage, "", "must be NAME@HOST:PORT"},
		{"serve --loops many --master h:1", exitUsage, "", "--loops"},
		{"serve", exitUsage, "", "master: is missing; give HOST:PORT"},
		{"serve --help", exitOK, "causal, linearizable, eventual, master", ""},
		{"serve --master h:1 --consistency strict", exitUsage, "", `consistency: "strict": is not supported; allowed: causal, linearizable, eventual, master`},
		{"serve --config /nonexistent.yml", exitUsage, "", "/nonexistent.yml"},
		{"lab --replicas=-1", exitUsage, "", "--replicas -1: must be 0 to 50"},
		{"lab --port 65535", exitUsage, "", "--port 65535"},
		{"lab --read-from slave", exitUsage, "", `read_from: "slave"`},
		{"status --admin 127.0.0.1:1", exitRuntime, "", "no answer from sluice at 127.0.0.1:1"},
		{"status --admin :%zz", exitUsage, "", "must be HOST:PORT"},
		{"version", exitOK, "sluice dev\nrevision ", ""},
	} {
		t.Run(tc.args, func(t *testing.T) {
			p := start(strings.Fields(tc.args)...)
			if code := p.wait(t); code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if got := p.stdout.String(); !strings.Contains(got, tc.stdout) {
				t.Errorf("stdout %q lacks %q", got, tc.stdout)
			}
			if got := p.stderr.String(); !strings.Contains(got, tc.stderr) || (tc.stderr == "" && got != "") {
				t.Errorf("stderr %q lacks %q", got, tc.stderr)
			}
		})
	}
}

func TestHints(t *testing.T) {
	for err, want := range map[error]string{
		syscall.EADDRINUSE:    "--listen",
		syscall.EADDRNOTAVAIL: "does not have that address",
		syscall.EACCES:        "No permission",
		syscall.EPIPE:         "",
	} {
		if got := hint(fmt.Errorf("listen on x: %w", err)); !strings.Contains(got, want) || (want == "" && got != "") {
			t.Errorf("hint(%v) = %q, want %q", err, got, want)
		}
	}
}

func TestRaiseFileLimit(t *testing.T) {
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	low := was
	low.Cur = was.Max / 2
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	got, err := raiseFileLimit()
	if err != nil || got != was.Max {
		t.Errorf("raiseFileLimit() = %d, %v, want the hard limit %d", got, err, was.Max)
	}
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil || now.Cur != was.Max {
		t.Errorf("the limit is %d (%v), want %d", now.Cur, err, was.Max)
	}
}
