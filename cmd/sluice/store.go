package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-io/sluice/syncer/store"
)

// storeTime is how times are shown to people.
const storeTime = "2006-01-02 15:04:05"

// storeCmd is `sluice store`.
type storeCmd struct {
	Ls     storeLsCmd     `cmd:"" help:"Show what is stored: generations, bases, the range of the log with times."`
	Verify storeVerifyCmd `cmd:"" help:"Read everything that is stored and compare it with its checksums."`
}

// storeLsCmd is `sluice store ls`.
type storeLsCmd struct {
	Dir  string `arg:"" help:"The store's directory; a running sluice may use it."`
	JSON bool   `name:"json" help:"Print it as JSON, with the segments."`
}

// Run prints what is stored.
func (c *storeLsCmd) Run(e *env) error {
	s, err := store.OpenReadOnly(c.Dir, store.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }() // only read from
	l, err := s.List()
	if err != nil {
		return err
	}
	if c.JSON {
		return e.printJSON(l)
	}
	e.printf("%s", storeTable(l))
	return nil
}

// printJSON writes v, indented.
func (e *env) printJSON(v any) error {
	out, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	e.printf("%s\n", out)
	return nil
}

// storeTable renders a listing for people, one paragraph per generation.
func storeTable(l store.Listing) string {
	var b strings.Builder
	for i, g := range l.Generations {
		if i > 0 {
			b.WriteByte('\n')
		}
		_, _ = fmt.Fprintf(&b, "generation %d (%s)   begun %s   replid %s\n",
			g.ID, generationRole(g), showTime(g.Created), g.History.Current())
		for _, a := range g.History.Ancestors() {
			_, _ = fmt.Fprintf(&b, "  before offset %d   replid %s\n", a.End+1, a.ReplID)
		}
		if g.LogBytes == 0 {
			_, _ = fmt.Fprintf(&b, "log   empty, goes on at offset %d\n", g.LogLast+1)
		} else {
			_, _ = fmt.Fprintf(&b, "log   offsets %d to %d   %d bytes in %s   %s to %s   durable up to %d\n",
				g.LogFirst, g.LogLast, g.LogBytes, count(len(g.Segments), "segment"), showTime(g.LogFrom), showTime(g.LogTo), g.Fsynced)
		}
		if len(g.Bases) == 0 {
			b.WriteString("no base\n")
			continue
		}
		w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
		_, _ = fmt.Fprintln(w, "BASE OFFSET\tDB\tBYTES\tCRC32C\tCOMPLETE\tFROM")
		for _, base := range g.Bases {
			_, _ = fmt.Fprintf(w, "%d\t%s\t%d\t%08x\t%s\t%s\n",
				base.Offset, known(int64(base.DB)), base.Size, base.CRC32C, showTime(base.Time), base.Source)
		}
		_ = w.Flush() // a strings.Builder does not fail
	}
	return b.String()
}

func generationRole(g store.GenerationListing) string {
	switch {
	case g.Current && g.Head:
		return "current"
	case g.Current:
		return "current; the next one waits for its base"
	case g.Head:
		return "waits for its base"
	default:
		return "old, replaced " + showTime(g.Retired)
	}
}

// showTime returns a local time, "-" for none.
func showTime(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(storeTime)
}

// storeVerifyCmd is `sluice store verify`.
type storeVerifyCmd struct {
	Dir  string `arg:"" help:"The store's directory; a running sluice may use it."`
	JSON bool   `name:"json" help:"Print the result as JSON."`
}

// Run verifies until done or until a signal. Damage is an error.
func (c *storeVerifyCmd) Run(e *env) error {
	ctx, stop := e.untilSignal()
	defer stop()
	var progress func(int64)
	if isTerminal(e.stderr) {
		shown := int64(-1)
		progress = func(n int64) {
			if mb := n >> 20; mb/64 != shown {
				shown = mb / 64
				_, _ = fmt.Fprintf(e.stderr, "\r%d MB read ", mb)
			}
		}
		defer func() { _, _ = fmt.Fprint(e.stderr, "\r") }()
	}
	v, err := store.Verify(ctx, c.Dir, store.Options{}, progress)
	if err != nil {
		return err
	}
	if c.JSON {
		err = e.printJSON(v)
	} else {
		e.printf("%s", verifyReport(v))
	}
	if err == nil && len(v.Damage) > 0 {
		err = fmt.Errorf("%s is damaged in %s; restore the files from a copy, or move the directory away and start with a full resync",
			c.Dir, count(len(v.Damage), "place"))
	}
	return err
}

// verifyReport renders the result for people.
func verifyReport(v store.Verification) string {
	var b strings.Builder
	for _, d := range v.Damage {
		_, _ = fmt.Fprintf(&b, "DAMAGED   %s at byte %d: %s\n", filepath.Join(d.Dir, d.File), d.Offset, d.Reason)
	}
	for _, l := range v.Leftovers {
		_, _ = fmt.Fprintf(&b, "leftover  %s\n", l)
	}
	result := "all as it was written"
	if n := len(v.Damage); n > 0 {
		result = fmt.Sprintf("%d damaged", n)
	}
	_, _ = fmt.Fprintf(&b, "%s, %s, %s, %d bytes read: %s\n",
		count(v.Generations, "generation"), count(v.Segments, "segment"), count(v.Bases, "base"), v.Bytes, result)
	return b.String()
}

// count returns a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
