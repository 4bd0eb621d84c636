package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// What a terminal is told, as ECMA-48 and xterm have it.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l" // the alternate screen, without a cursor
	leaveScreen = "\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearRest   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watchTerminal shows the status in place until a signal, or until q is typed.
// What was there before comes back, with the last status below it.
func (c *statusCmd) watchTerminal(ctx context.Context, e *env, client *http.Client, out *os.File) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys, err := readKeys(ctx, e.stdin, cancel)
	if err != nil {
		return err
	}
	defer keys.close()
	e.printf("%s", enterScreen)
	last := ""
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for ctx.Err() == nil {
		l := terminalLook(out)
		_, st, err := fetchStatus(ctx, client, c.Admin)
		switch {
		case ctx.Err() != nil:
			continue
		case err != nil: // a restart, perhaps: go on watching
			last = err.Error() + "\n"
		default:
			last = statusScreen(st, l)
		}
		e.printf("%s", frame(last, l, c.Admin))
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	e.printf("%s%s", leaveScreen, last)
	return nil
}

// frame is text as it replaces what the terminal shows, in one piece and without
// clearing first, so that nothing flickers. It ends with a line about the keys.
func frame(text string, l look, addr string) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if l.height > 1 && len(lines) > l.height-1 {
		lines = lines[:l.height-1]
	}
	s := &screen{width: l.width, colour: l.colour}
	s.line(span{fmt.Sprintf("%s   %s   q ends", time.Now().Format(time.TimeOnly), addr), styleDim})
	lines = append(lines, strings.TrimRight(s.b.String(), "\n"))
	return home + strings.Join(lines, clearRest+"\n") + clearRest + clearBelow
}

// terminalLook is the look for the terminal out; colours are left out where the
// user does not want them (NO_COLOR, as no-color.org has it) or the terminal has none.
func terminalLook(out *os.File) look {
	l := look{events: 1000, colour: wantsColour()}
	if size, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ); err == nil {
		l.width, l.height = int(size.Col), int(size.Row)
	}
	return l
}

func wantsColour() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// terminalOf returns the terminal that w is, nil if it is none.
func terminalOf(w any) *os.File {
	f, ok := w.(*os.File)
	if !ok || f == nil {
		return nil
	}
	if _, err := unix.IoctlGetTermios(int(f.Fd()), termiosGet); err != nil {
		return nil
	}
	return f
}

// keyReader reads single keys from a terminal until it is closed.
type keyReader struct {
	in     *os.File // nil: there is none to read from
	before *unix.Termios
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// readKeys calls quit when q is typed. Where in is no terminal it does nothing.
func readKeys(ctx context.Context, in io.Reader, quit func()) (*keyReader, error) {
	ctx, cancel := context.WithCancel(ctx)
	k := &keyReader{in: terminalOf(in), cancel: cancel}
	if k.in == nil {
		return k, nil
	}
	var err error
	if k.before, err = unix.IoctlGetTermios(int(k.in.Fd()), termiosGet); err != nil {
		cancel()
		return nil, fmt.Errorf("read the terminal's mode: %w", err)
	}
	mode := *k.before
	// Keys as they are typed, unseen; signals as ever. A read ends after a tenth
	// of a second, so that the goroutine sees when it is to end.
	mode.Lflag &^= unix.ICANON | unix.ECHO
	mode.Cc[unix.VMIN], mode.Cc[unix.VTIME] = 0, 1
	if err := unix.IoctlSetTermios(int(k.in.Fd()), termiosSet, &mode); err != nil {
		cancel()
		return nil, fmt.Errorf("set the terminal's mode: %w", err)
	}
	k.wg.Go(func() {
		key := make([]byte, 16)
		for ctx.Err() == nil {
			n, err := k.in.Read(key)
			if strings.ContainsAny(string(key[:n]), "qQ") {
				quit()
				return
			}
			if err != nil && !errors.Is(err, io.EOF) { // EOF is the tenth of a second
				return
			}
		}
	})
	return k, nil
}

// close waits for the reader and gives the terminal its mode back.
func (k *keyReader) close() {
	k.cancel()
	k.wg.Wait()
	if k.in != nil {
		_ = unix.IoctlSetTermios(int(k.in.Fd()), termiosSet, k.before) // a terminal that has gone needs no mode
	}
}
