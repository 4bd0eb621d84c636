package tail

import (
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
	"github.com/sluice-io/sluice/syncer/psync"
)

// Filter chooses commands. The zero value, but for DB, chooses all.
type Filter struct {
	Match string // a key must match this pattern of Redis's; empty: any
	DB    int    // the command must run in this database; psync.UnknownDB: any

	keys  []int
	spans []resp.Span
	buf   []byte
	multi []byte // the MULTI that was held back, as rendered; nil: none, or it was written
	begun bool   // the MULTI of the present transaction was written
}

// Any reports whether the filter chooses all.
func (f *Filter) Any() bool { return f.Match == "" && f.DB == psync.UnknownDB }

// Write gives to out what is to be shown of c, as render has it. Of a
// transaction MULTI and EXEC are shown if something between them is.
func (f *Filter) Write(c *Command, render func(*Command) []byte, out func([]byte)) {
	switch {
	case f.Any():
		out(render(c))
		return
	case c.Kind == psync.KindMulti:
		f.multi, f.begun = append(f.multi[:0], render(c)...), false
		return
	case c.Kind == psync.KindExec || c.Kind == psync.KindDiscard:
		if f.begun {
			out(render(c))
		}
		f.begun = false
		return
	case c.Kind != psync.KindCommand || !f.chooses(c):
		return
	}
	if c.In && !f.begun && len(f.multi) > 0 {
		out(f.multi)
		f.begun = true
	}
	out(render(c))
}

// chooses tells of a command that is no part of the stream's own business. What
// cannot be ruled out is chosen: a database that is not known, keys that cannot
// be told, or lie where a very long command was cut.
func (f *Filter) chooses(c *Command) bool {
	if f.DB != psync.UnknownDB && c.DB != psync.UnknownDB && c.DB != f.DB {
		return false
	}
	if f.Match == "" {
		return true
	}
	f.buf, f.spans = f.buf[:0], f.spans[:0]
	for _, a := range c.Args {
		f.spans = append(f.spans, resp.Span{Off: uint32(len(f.buf)), Len: uint32(len(a))})
		f.buf = append(f.buf, a...)
	}
	args := resp.Args{Buf: f.buf, Spans: f.spans}
	cmd := command.Builtin().Resolve(args)
	if cmd == nil {
		return true // of a module
	}
	keys, complete := cmd.AppendKeys(f.keys[:0], args)
	f.keys = keys
	for _, i := range keys {
		if Match(f.Match, args.At(i)) {
			return true
		}
	}
	return !complete || c.Cut() && int64(len(c.Args)) < c.Argc
}
