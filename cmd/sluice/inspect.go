package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sluice-io/sluice/rdbstream/inspect"
	"github.com/sluice-io/sluice/syncer/store"
)

// inspectCmd is `sluice inspect`.
type inspectCmd struct {
	File      string  `arg:"" help:"The RDB file, or the directory of a store for its newest base; - for standard input."`
	JSON      bool    `name:"json" help:"Print JSON, with all numbers exact."`
	Top       int     `help:"How many of the largest keys and prefixes to show." default:"10" placeholder:"N"`
	PrefixSep string  `help:"What ends a prefix of a key's name." default:":" placeholder:"TEXT"`
	Key       *string `help:"Show this key with its value instead, from every database that has it." placeholder:"NAME"`
}

const clearLine = "\r\x1b[K"

var errInterrupted = errors.New("interrupted")

// errNoKey says that --key names no key of the file.
var errNoKey = errors.New("the file has no such key")

// Run reads the file to its end, checks it and prints what is in it.
func (c *inspectCmd) Run(e *env) error {
	if c.Top < 0 {
		return usageError{fmt.Errorf("--top %d: must not be negative", c.Top)}
	}
	if c.PrefixSep == "" {
		return usageError{errors.New("--prefix-sep: must not be empty")}
	}
	ctx, stop := e.untilSignal()
	defer stop()
	f, size, err := c.open(ctx, e)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	r := &progressReader{ctx: ctx, r: f, size: size, start: time.Now()}
	if isTerminal(e.stderr) {
		r.out = e.stderr
	}
	type result struct {
		out string
		err error
	}
	done := make(chan result, 1)
	go func() {
		out, err := c.report(r)
		r.clear()
		done <- result{out, err}
	}()
	select {
	case res := <-done:
		if res.err != nil {
			return fmt.Errorf("%s: %w", c.File, res.err)
		}
		e.printf("%s", res.out)
		return nil
	case <-ctx.Done():
		if r.out != nil {
			_, _ = fmt.Fprint(r.out, clearLine)
		}
		// Whoever is to write to standard input may never do so, and a read that
		// waits for it cannot be ended: it ends with the process.
		return fmt.Errorf("%s: %w", c.File, errInterrupted)
	}
}

// open opens the file and returns its size in bytes, 0 if that is not known.
func (c *inspectCmd) open(ctx context.Context, e *env) (io.ReadCloser, int64, error) {
	if c.File == "-" {
		return io.NopCloser(e.stdin), 0, nil
	}
	f, err := os.Open(c.File)
	if err != nil {
		return nil, 0, err // which names the file
	}
	st, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return nil, 0, err
	}
	if st.IsDir() {
		_ = f.Close()
		return openBase(ctx, c.File)
	}
	return f, st.Size(), nil
}

// openBase opens the newest base of the store in dir, which a running sluice may
// use.
func openBase(ctx context.Context, dir string) (io.ReadCloser, int64, error) {
	st, err := store.OpenReadOnly(dir, store.Options{})
	if errors.Is(err, os.ErrNotExist) {
		err = usageError{fmt.Errorf("%s is a directory without a store: name an RDB file, or a relay's directory", dir)}
	}
	if err != nil {
		return nil, 0, err
	}
	g := st.Current()
	if g == nil || len(g.Bases()) == 0 {
		return nil, 0, errors.Join(fmt.Errorf("%s: the store has no base yet", dir), st.Close())
	}
	b := g.Bases()[0]
	r, err := g.OpenBase(ctx, b)
	if err != nil {
		return nil, 0, errors.Join(err, st.Close())
	}
	return storedBase{r, st}, b.Size, nil
}

// storedBase is an open base together with its store.
type storedBase struct {
	*store.BaseReader
	st *store.Store
}

// Close closes both.
func (s storedBase) Close() error { return errors.Join(s.BaseReader.Close(), s.st.Close()) }

// report returns what to print.
func (c *inspectCmd) report(r io.Reader) (string, error) {
	if c.Key != nil {
		found, err := inspect.Lookup(r, *c.Key)
		switch {
		case err != nil:
			return "", err
		case len(found.Keys) == 0:
			return "", fmt.Errorf("%w: %s", errNoKey, inspect.Text(*c.Key))
		case c.JSON:
			return indented(found)
		}
		return keyText(found), nil
	}
	o := inspect.Options{Top: c.Top, Separator: c.PrefixSep}
	if c.Top == 0 {
		o.Top = inspect.None
	}
	rep, err := inspect.Run(r, o)
	switch {
	case err != nil:
		return "", err
	case c.JSON:
		return indented(rep)
	}
	return inspectTables(rep), nil
}

func indented(v any) (string, error) {
	b, err := json.MarshalIndent(v, "", "  ")
	return string(b) + "\n", err
}

// The line of a progressReader is drawn no sooner and no more often than these.
const (
	progressAfter = 500 * time.Millisecond
	progressEvery = 200 * time.Millisecond
)

// progressReader shows on out how far reading has come, and ends it when ctx
// does.
type progressReader struct {
	ctx   context.Context
	r     io.Reader
	size  int64     // 0: not known
	out   io.Writer // nil: show nothing
	start time.Time
	drawn time.Time // zero: nothing is shown
	n     int64
}

// Read reads.
func (p *progressReader) Read(b []byte) (int, error) {
	if err := p.ctx.Err(); err != nil {
		return 0, errInterrupted
	}
	n, err := p.r.Read(b)
	p.n += int64(n)
	if p.out != nil {
		if now := time.Now(); now.Sub(p.start) >= progressAfter && now.Sub(p.drawn) >= progressEvery {
			p.drawn = now
			_, _ = fmt.Fprintf(p.out, clearLine+"%s", p.line(now.Sub(p.start)))
		}
	}
	return n, err
}

func (p *progressReader) line(took time.Duration) string {
	speed := human(int64(float64(p.n)/took.Seconds())) + "/s"
	if p.size <= 0 {
		return fmt.Sprintf("read %s, %s", human(p.n), speed)
	}
	return fmt.Sprintf("%3d%%  read %s of %s, %s", p.n*100/p.size, human(p.n), human(p.size), speed)
}

// clear removes the line.
func (p *progressReader) clear() {
	if !p.drawn.IsZero() {
		_, _ = fmt.Fprint(p.out, clearLine)
	}
}
