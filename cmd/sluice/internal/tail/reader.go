package tail

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// MaxCommand is how much of a command is kept, in bytes as it is in the stream.
// Of a longer one the beginning is shown.
const MaxCommand = 1 << 20

// chunkBytes are read from the log at a time.
const chunkBytes = 64 << 10

// Command is one command of the stream. It is valid until the next.
type Command struct {
	First repl.Offset // of its first byte
	Last  repl.Offset // of its last byte
	Time  time.Time   // not later than this it had come: the commit that the index has after it
	DB    int         // psync.UnknownDB before the first SELECT of a log that began without one
	Kind  psync.StreamKind
	In    bool // within a transaction; neither MULTI nor EXEC themselves

	Args    [][]byte // name and arguments; the last one may be cut short
	Argc    int64    // how many it has
	LastLen int64    // length in bytes of the last one in Args
}

// Cut reports whether Args are not all there is.
func (c *Command) Cut() bool {
	return int64(len(c.Args)) < c.Argc || (len(c.Args) > 0 && int64(len(c.Args[len(c.Args)-1])) < c.LastLen)
}

// Reader reads commands from the log of a generation. It is for one goroutine.
type Reader struct {
	g     *store.Generation
	log   *store.Reader
	scan  *psync.StreamScanner
	chunk []byte
	rest  []byte // of chunk, not scanned yet
	cur   []byte // of the present command, at most MaxCommand
	marks []store.Mark
	cmd   Command
}

// NewReader returns a reader whose first command is the one behind from, which is
// a commit point.
func NewReader(g *store.Generation, from store.Mark) (*Reader, error) {
	log, err := g.NewReader(from.Offset)
	if err != nil {
		return nil, err
	}
	return &Reader{g: g, log: log, scan: psync.NewStreamScanner(from.Offset, from.DB), chunk: make([]byte, chunkBytes)}, nil
}

// Wait waits for more to read; see [store.Reader.Wait].
func (r *Reader) Wait(ctx context.Context) error { return r.log.Wait(ctx) }

// Close releases the file.
func (r *Reader) Close() error { return r.log.Close() }

// Next returns the next command; io.EOF means: not yet. Other errors are final.
func (r *Reader) Next() (*Command, error) {
	for {
		if len(r.rest) == 0 {
			n, err := r.log.Read(r.chunk)
			if r.rest = r.chunk[:n]; n == 0 {
				return nil, err
			}
		}
		inside := r.scan.InTransaction()
		c, n, ok, err := r.scan.Next(r.rest)
		if err != nil {
			var se *psync.StreamError
			if errors.As(err, &se) {
				err = fmt.Errorf("the bytes are as they came, but are no commands: %w", err)
			}
			return nil, err
		}
		r.cur = append(r.cur, r.rest[:min(n, MaxCommand-len(r.cur))]...)
		r.rest = r.rest[n:]
		if !ok {
			continue
		}
		r.cmd.First, r.cmd.Last, r.cmd.DB, r.cmd.Kind = c.First, c.Last, c.DB, c.Kind
		r.cmd.In = inside && c.Kind != psync.KindExec && c.Kind != psync.KindDiscard
		parse(r.cur, &r.cmd)
		r.cur = r.cur[:0]
		if r.cmd.Time, err = r.timeOf(c.Last); err != nil {
			return nil, err
		}
		return &r.cmd, nil
	}
}

// timeOf returns when the byte at off had come: the time of the first indexed
// commit that is not before it.
func (r *Reader) timeOf(off repl.Offset) (time.Time, error) {
	for len(r.marks) > 0 && r.marks[0].Offset < off {
		r.marks = r.marks[1:]
	}
	if len(r.marks) == 0 {
		var err error
		if r.marks, err = r.g.CommitsAfter(off - 1); err != nil || len(r.marks) == 0 {
			return time.Time{}, err
		}
	}
	return r.marks[0].Time, nil
}

// parse finds the arguments in b, the beginning of a command or all of it. What
// it holds was scanned before, so there is nothing malformed in it.
func parse(b []byte, c *Command) {
	c.Args, c.Argc, c.LastLen = c.Args[:0], 0, 0
	var ok bool
	if c.Argc, b, ok = number(b, '*'); !ok {
		c.Argc = 0 // an empty line
		return
	}
	for int64(len(c.Args)) < c.Argc {
		var n int64
		if n, b, ok = number(b, '$'); !ok {
			return
		}
		c.LastLen = n
		have := min(n, int64(len(b)))
		c.Args = append(c.Args, b[:have:have])
		b = b[min(int64(len(b)), n+2):]
	}
}

// number reads a line that begins with mark and holds a number.
func number(b []byte, mark byte) (n int64, rest []byte, ok bool) {
	end := bytes.IndexByte(b, '\n')
	if end < 2 || b[0] != mark {
		return 0, b, false
	}
	n, err := strconv.ParseInt(string(b[1:end-1]), 10, 64)
	return n, b[end+1:], err == nil
}

var _ io.Closer = (*Reader)(nil)
