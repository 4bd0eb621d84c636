package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Deadlines. A loaded machine is no reason to fail.
const (
	stepTimeout = 5 * time.Minute // lab.sh builds sluice
	waitTimeout = time.Minute     // until what was started shows what it should
	stopTimeout = time.Minute
	againAfter  = 100 * time.Millisecond // the pace of what is run again
)

// runner does the steps. Commands run in bash, one for each block; what a block
// exports holds for those after it, as in a terminal.
type runner struct {
	dir       string
	env       string // the file that has the exports
	terminals map[string][]*terminal
}

// terminal is where something runs until Ctrl-C.
type terminal struct {
	command string
	typed   bool // by the reader: it must end well
	cmd     *exec.Cmd
	out     shown
	ended   chan struct{} // closed once cmd has ended
	err     error         // why; valid once ended is closed
}

// shown is what a command has printed so far.
type shown struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced by each write
}

func (s *shown) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		close(s.changed)
		s.changed = nil
	}
	return s.text.Write(p)
}

// get returns what was printed, and a channel that is closed when more is.
func (s *shown) get() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.text.String(), s.changed
}

func newRunner(dir string) (*runner, error) {
	f, err := os.CreateTemp("", "readme-env-")
	if err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	return &runner{dir: abs, env: f.Name(), terminals: map[string][]*terminal{}}, f.Close()
}

// close ends what still runs, without waiting for a good end.
func (r *runner) close() {
	for _, list := range r.terminals {
		for _, t := range list {
			_ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGKILL) // its group: it may have ended
			<-t.ended
		}
	}
	_ = os.Remove(r.env)
}

// do does a step and returns the verdict.
func (r *runner) do(ctx context.Context, s *step) (verdict string, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	switch s.kind {
	case kindElsewhere, kindNone:
		return string(s.kind), nil
	case kindHosts:
	case kindFile:
		err = os.WriteFile(filepath.Join(r.dir, s.args[0]), []byte(s.body+"\n"), 0o600)
	case kindRun, kindFails:
		err = r.typed(ctx, s)
	case kindUntil:
		err = r.again(ctx, s)
	case kindStart:
		err = r.start(ctx, s)
	case kindOutput:
		err = r.output(ctx, s)
	case kindStop:
		err = r.stop(ctx, s)
	}
	return "ok", err
}

// typed runs the commands of a step, and compares what they print.
func (r *runner) typed(ctx context.Context, s *step) error {
	commands, printed := s.commands()
	script := "set -eo pipefail\n. " + r.env + "\n" + strings.Join(commands, "\n") + "\nexport -p >" + r.env + "\n"
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = r.dir
	var out shown
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = stopTimeout
	err := cmd.Run()
	text, _ := out.get()
	if s.kind == kindFails {
		var status *exec.ExitError
		if !errors.As(err, &status) || ctx.Err() != nil {
			return errors.Join(fmt.Errorf("it should fail, and does not; it printed\n%s", text), err, ctx.Err())
		}
	} else if err != nil {
		return fmt.Errorf("%w; it printed\n%s", err, text)
	}
	if lost := missing(printed, text); len(lost) > 0 {
		return fmt.Errorf("the page says that it prints\n%s\nit printed\n%s", strings.Join(lost, "\n"), text)
	}
	return nil
}

// again is typed, until it succeeds.
func (r *runner) again(ctx context.Context, s *step) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	tick := time.NewTicker(againAfter)
	defer tick.Stop()
	for {
		one, cancel := context.WithTimeout(context.WithoutCancel(ctx), waitTimeout)
		err := r.typed(one, s)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("after %s of trying: %w", waitTimeout, err)
		}
	}
}

// start opens a terminal for each command, and waits until all together show
// what they are to show.
func (r *runner) start(ctx context.Context, s *step) error {
	name := s.args[0]
	commands, _ := s.commands()
	for _, c := range commands {
		t := &terminal{command: c, typed: s.shown, ended: make(chan struct{})}
		t.cmd = exec.Command("bash", "-c", ". "+r.env+"\n"+c)
		t.cmd.Dir, t.cmd.Stdout, t.cmd.Stderr = r.dir, &t.out, &t.out
		t.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches the group
		if err := t.cmd.Start(); err != nil {
			return err
		}
		go func() {
			defer close(t.ended)
			t.err = t.cmd.Wait()
		}()
		r.terminals[name] = append(r.terminals[name], t)
		if err := t.await(ctx, func(text string) bool { return strings.Contains(text, s.until) }); err != nil {
			return fmt.Errorf("%q is not shown: %w", s.until, err)
		}
	}
	return nil
}

// await waits until what is shown is as it should be.
func (t *terminal) await(ctx context.Context, good func(string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	for {
		text, changed := t.out.get()
		if good(text) {
			return nil
		}
		select {
		case <-changed:
		case <-t.ended:
			if text, _ := t.out.get(); good(text) {
				return nil
			}
			return fmt.Errorf("%s has ended: %w; it printed\n%s", t.command, errors.Join(t.err, errEnded), text)
		case <-ctx.Done():
			return fmt.Errorf("%w; %s printed\n%s", ctx.Err(), t.command, text)
		}
	}
}

var errEnded = errors.New("nothing is left to wait for")

// output compares what the terminals show with the page.
func (r *runner) output(ctx context.Context, s *step) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	list := r.terminals[s.args[0]]
	if len(list) != 1 {
		return fmt.Errorf("%d terminals are called %s", len(list), s.args[0])
	}
	printed := strings.Split(s.body, "\n")
	if err := list[0].await(ctx, func(text string) bool { return len(missing(printed, text)) == 0 }); err != nil {
		return fmt.Errorf("the page says that it shows\n%s\n%w", s.body, err)
	}
	return nil
}

// stop ends what was started under the names, the last first. What the reader
// has started must end well at a Ctrl-C: by itself, with 0.
func (r *runner) stop(ctx context.Context, s *step) error {
	ctx, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	for _, name := range s.args {
		list := r.terminals[name]
		if len(list) == 0 {
			return fmt.Errorf("nothing was started as %s", name)
		}
		for i := len(list) - 1; i >= 0; i-- {
			t := list[i]
			_ = syscall.Kill(-t.cmd.Process.Pid, syscall.SIGINT) // it may have ended
			select {
			case <-t.ended:
			case <-ctx.Done():
				text, _ := t.out.get()
				return fmt.Errorf("%s does not end; it printed\n%s", t.command, text)
			}
			if t.err != nil && t.typed {
				text, _ := t.out.get()
				return fmt.Errorf("%s ended with %w; it printed\n%s", t.command, t.err, text)
			}
		}
		delete(r.terminals, name)
	}
	return nil
}
