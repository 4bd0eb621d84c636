package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/tail"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// tailCmd is `sluice tail`.
type tailCmd struct {
	Dir        string `arg:"" help:"The store's directory; a running sluice may use it."`
	From       string `help:"Begin at this offset, or at this time: 2006-01-02 15:04:05 (local), RFC 3339, 15:04, or 10m for ten minutes ago. Without it all that is stored is shown; with --follow only what comes." placeholder:"OFFSET|TIME"`
	Follow     bool   `help:"Wait for more until Ctrl-C." short:"f"`
	Match      string `help:"Only commands with a key like this, as KEYS has it; and those whose keys cannot be told, such as FLUSHALL." placeholder:"GLOB"`
	DB         *int   `name:"db" help:"Only commands in this database." placeholder:"N"`
	JSON       bool   `name:"json" help:"Print one JSON object per line."`
	MaxArg     int    `help:"Bytes to show of each argument; 0 for all up to 1 MB per command. Not with --json, which has all of that." default:"256" placeholder:"N"`
	Generation uint64 `help:"Read this generation and not the current one; sluice store ls shows them." placeholder:"N"`
}

// Run prints the stream until its end, or with --follow until a signal.
func (c *tailCmd) Run(e *env) error {
	from, err := parseFrom(c.From, time.Now())
	if err != nil {
		return usageError{fmt.Errorf("--from %s: %w", c.From, err)}
	}
	if c.MaxArg < 0 || (c.DB != nil && *c.DB < 0) {
		return usageError{errors.New("--max-arg, --db: must not be negative")}
	}
	ctx, stop := e.untilSignal()
	defer stop()
	t := &tailer{cmd: c, env: e, out: bufio.NewWriter(e.stdout), filter: tail.Filter{Match: c.Match, DB: psync.UnknownDB}}
	if c.DB != nil {
		t.filter.DB = *c.DB
	}
	for after := uint64(0); ; {
		after, err = t.generation(ctx, from, after)
		if ferr := t.out.Flush(); err == nil {
			err = ferr
		}
		switch {
		case ctx.Err() != nil: // how --follow ends
			return nil
		case !errors.Is(err, store.ErrGenerationOver) || c.Generation != 0:
			return err
		}
		from = tailFrom{set: true} // the begin of the next generation
	}
}

// tailer is what one run of tail holds.
type tailer struct {
	cmd    *tailCmd
	env    *env
	out    *bufio.Writer
	filter tail.Filter
	line   []byte
}

// note tells something beside the output.
func (t *tailer) note(format string, args ...any) {
	_, _ = fmt.Fprintf(t.env.stderr, "sluice tail: "+format+"\n", args...)
}

// generation prints one generation, one that is newer than after, and returns
// its number. [store.ErrGenerationOver] says that it was followed to its end.
func (t *tailer) generation(ctx context.Context, from tailFrom, after uint64) (id uint64, err error) {
	st, err := store.OpenReadOnly(t.cmd.Dir, store.Options{})
	if err != nil {
		return after, err
	}
	defer func() { _ = st.Close() }() // only read from
	for _, r := range st.Repairs() {
		t.note("%s (left behind by a crash, or just being written)", r)
	}
	g, err := t.pick(st)
	if err != nil {
		return after, err
	}
	if after != 0 {
		t.note("generation %d is over; generation %d begins with offset %d", after, g.ID(), g.First())
	}
	mark, skip, err := t.locate(g, from)
	if err != nil {
		return g.ID(), err
	}
	r, err := tail.NewReader(g, mark)
	if err != nil {
		return g.ID(), err
	}
	defer func() { _ = r.Close() }()
	return g.ID(), t.print(ctx, r, skip)
}

// pick chooses the generation.
func (t *tailer) pick(st *store.Store) (*store.Generation, error) {
	if id := t.cmd.Generation; id != 0 {
		for _, g := range st.Generations() {
			if g.ID() == id {
				return g, nil
			}
		}
		return nil, fmt.Errorf("there is no generation %d in %s; sluice store ls shows those there are", id, t.cmd.Dir)
	}
	if g := st.Current(); g != nil {
		return g, nil
	}
	return st.Head(), nil // no base yet; a store that opens has a generation
}

// locate returns the commit point to read from, and the offset before which
// commands are not shown.
func (t *tailer) locate(g *store.Generation, from tailFrom) (m store.Mark, skip repl.Offset, err error) {
	first, last := g.First(), g.Committed()
	switch {
	case !from.set && t.cmd.Follow:
		m, err = g.CommitBefore(last)
		return m, last + 1, err
	case !from.time.IsZero():
		if m, err = g.CommitAt(from.time); err == nil && m.Time.After(from.time) {
			t.note("the log begins at offset %d, %s", m.Offset+1, m.Time.Local().Format(time.DateTime))
		}
		return m, 0, err
	case from.offset == 0:
		m, err = g.CommitBefore(first - 1)
		return m, 0, err
	case from.offset < first:
		return m, 0, fmt.Errorf("offset %d is no longer stored: the log has %d to %d: %w", from.offset, first, last, store.ErrOffsetGone)
	case from.offset > last+1 && !t.cmd.Follow:
		return m, 0, fmt.Errorf("offset %d is not stored yet: the log has %d to %d; --follow waits for it: %w", from.offset, first, last, store.ErrOffsetAhead)
	}
	m, err = g.CommitBefore(min(from.offset-1, last))
	return m, from.offset, err
}

// print shows the commands from offset skip on, until there are no more; with
// --follow until ctx is done.
func (t *tailer) print(ctx context.Context, r *tail.Reader, skip repl.Offset) error {
	render := func(c *tail.Command) []byte {
		if t.cmd.JSON {
			t.line = tail.JSON(t.line[:0], c)
		} else {
			t.line = tail.Text(t.line[:0], c, t.cmd.MaxArg)
		}
		return t.line
	}
	var failed error
	write := func(b []byte) {
		if _, err := t.out.Write(b); err != nil {
			failed = err
		}
	}
	for ctx.Err() == nil && failed == nil {
		c, err := r.Next()
		switch {
		case err == nil && c.First >= skip:
			t.filter.Write(c, render, write)
		case err == nil:
		case !errors.Is(err, io.EOF):
			return err
		case !t.cmd.Follow:
			return nil
		default:
			if err := t.out.Flush(); err != nil {
				return err
			}
			if err := r.Wait(ctx); err != nil {
				return err
			}
		}
	}
	return failed
}

// tailFrom is where to begin: an offset, a time, or, both being zero, the begin.
type tailFrom struct {
	set    bool
	offset repl.Offset
	time   time.Time
}

// Layouts of --from; the last ones are of today.
var (
	dayLayouts  = []string{time.RFC3339Nano, "2006-01-02T15:04:05", time.DateTime, "2006-01-02 15:04", time.DateOnly}
	timeLayouts = []string{time.TimeOnly, "15:04"}
)

// parseFrom parses --from.
func parseFrom(s string, now time.Time) (tailFrom, error) {
	if s == "" {
		return tailFrom{}, nil
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return tailFrom{set: true, offset: repl.Offset(n)}, nil
	}
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return tailFrom{set: true, time: now.Add(-d)}, nil
	}
	for _, l := range dayLayouts {
		if at, err := time.ParseInLocation(l, s, now.Location()); err == nil {
			return tailFrom{set: true, time: at}, nil
		}
	}
	for _, l := range timeLayouts {
		if at, err := time.ParseInLocation(l, s, now.Location()); err == nil {
			y, m, d := now.Date()
			return tailFrom{set: true, time: time.Date(y, m, d, at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), now.Location())}, nil
		}
	}
	return tailFrom{}, errors.New("must be an offset, a time such as 2006-01-02 15:04:05, or a duration such as 10m")
}
