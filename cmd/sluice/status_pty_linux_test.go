package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
)

// pty is a terminal of the kernel's (pts(4)): what is written to its screen side
// is collected.
type pty struct {
	keyboard *os.File // the side of the person
	tty      *os.File // the side of the program
	shown    *output
	done     sync.WaitGroup
}

func openPTY(t *testing.T, width, height uint16) *pty {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo-terminals here: %v", err)
	}
	fd := int(keyboard.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{keyboard: keyboard, tty: tty, shown: newOutput()}
	p.resize(t, width, height)
	p.done.Go(func() {
		b := make([]byte, 1<<16)
		for {
			n, err := keyboard.Read(b)
			_, _ = p.shown.Write(b[:n])
			if err != nil { // EIO: the other side is closed
				return
			}
		}
	})
	t.Cleanup(func() {
		_ = tty.Close()
		p.done.Wait()
		_ = keyboard.Close()
	})
	return p
}

func (p *pty) resize(t *testing.T, width, height uint16) {
	t.Helper()
	if err := unix.IoctlSetWinsize(int(p.tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: width, Row: height}); err != nil {
		t.Fatal(err)
	}
}

// watch runs `status --watch` on the terminal.
func (p *pty) watch(t *testing.T, args ...string) *inProcess {
	t.Helper()
	c := &inProcess{p.shown, newOutput(), make(chan os.Signal, 8), make(chan int, 1)}
	go func() {
		c.code <- run(append([]string{"status"}, args...), &env{stdin: p.tty, stdout: p.tty, stderr: c.stderr, signals: c.signals})
	}()
	return c
}

func (p *pty) mode(t *testing.T) unix.Termios {
	t.Helper()
	m, err := unix.IoctlGetTermios(int(p.tty.Fd()), termiosGet)
	if err != nil {
		t.Fatal(err)
	}
	return *m
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[A-Za-z]")

// TestStatusWatchOnATerminal: it redraws in place, within the window as it is
// now, ends on q as on Ctrl-C, and leaves the terminal as it was.
func TestStatusWatchOnATerminal(t *testing.T) {
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	addr := serveStatus(t, func() admin.Status { return someStatus })
	for _, end := range []string{"q", "Ctrl-C"} {
		t.Run(end, func(t *testing.T) {
			p := openPTY(t, 100, 20)
			before := p.mode(t)
			c := p.watch(t, "--watch", "--admin", addr)
			p.shown.waitFor(t, "127.0.0.1:6403")
			p.resize(t, 40, 6)
			within(t, "a frame of the narrow window", func() bool {
				frames := strings.Split(p.shown.String(), home)
				last := frames[len(frames)-1]
				return strings.Contains(last, "q ends") && !strings.Contains(last, "OFFSET")
			})
			frames := strings.Split(p.shown.String(), home)
			lines := strings.Split(escapes.ReplaceAllString(frames[len(frames)-1], ""), "\r\n")
			if len(lines) > 6 {
				t.Errorf("%d lines in a window of 6: %q", len(lines), lines)
			}
			for _, line := range lines {
				if n := len([]rune(line)); n > 40 {
					t.Errorf("%d characters in a window of 40: %q", n, line)
				}
			}
			if end == "q" {
				if _, err := p.keyboard.WriteString("xq"); err != nil {
					t.Fatal(err)
				}
			} else {
				c.signals <- syscall.SIGINT
			}
			if code := c.wait(t); code != exitOK {
				t.Errorf("exit code %d: %s", code, c.stderr)
			}
			if after := p.mode(t); after != before {
				t.Errorf("the terminal's mode is %+v, was %+v", after, before)
			}
			within(t, "the old screen and its cursor are back, with the last status", func() bool {
				_, rest, ok := strings.Cut(p.shown.String(), leaveScreen)
				return ok && strings.Contains(rest, "127.0.0.1:6401")
			})
			all := p.shown.String()
			if !strings.Contains(all, enterScreen) || !strings.Contains(all, "\x1b["+string(styleBad)+"m") || bytes.Contains([]byte(all), []byte("\x1b[2J")) {
				t.Errorf("want the alternate screen, colours and no clearing: %q", all)
			}
		})
	}
}

func TestStatusColours(t *testing.T) {
	addr := serveStatus(t, func() admin.Status { return someStatus })
	for _, tc := range []struct {
		noColour, term string
		want           bool
	}{{"", "xterm", true}, {"1", "xterm", false}, {"", "dumb", false}} {
		t.Setenv("NO_COLOR", tc.noColour)
		t.Setenv("TERM", tc.term)
		p := openPTY(t, 200, 50)
		if code := p.watch(t, "--admin", addr).wait(t); code != exitOK {
			t.Fatalf("exit code %d", code)
		}
		p.shown.waitFor(t, "127.0.0.1:6403")
		if got := strings.Contains(p.shown.String(), "\x1b["); got != tc.want {
			t.Errorf("NO_COLOR=%q TERM=%q: colours %t, want %t: %q", tc.noColour, tc.term, got, tc.want, p.shown)
		}
	}
}
