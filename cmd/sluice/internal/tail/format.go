package tail

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// timeFormat has milliseconds: commits are indexed 10 ms apart.
const timeFormat = "2006-01-02 15:04:05.000"

// Text renders a command in a line for people:
//
//	2026-03-01 12:00:00.123  offset  db  "SET" "key" "value"
//
// Arguments are in quotes with \x escapes, as MONITOR has them. Of each the first
// limit bytes are shown, all if it is 0. Commands in a transaction are indented.
func Text(b []byte, c *Command, limit int) []byte {
	if c.Time.IsZero() {
		b = append(b, "-"...)
	} else {
		b = c.Time.Local().AppendFormat(b, timeFormat)
	}
	db := "-"
	if c.DB != psync.UnknownDB {
		db = strconv.Itoa(c.DB)
	}
	b = fmt.Appendf(b, "  %d  %s  ", c.First, db)
	if c.In {
		b = append(b, "  "...)
	}
	for i, a := range c.Args {
		if i > 0 {
			b = append(b, ' ')
		}
		size := int64(len(a))
		if i == len(c.Args)-1 {
			size = c.LastLen
		}
		if limit > 0 && len(a) > limit {
			a = a[:limit]
		}
		b = quote(b, a)
		if more := size - int64(len(a)); more > 0 {
			b = fmt.Appendf(b, "...(%d more bytes)", more)
		}
	}
	if more := c.Argc - int64(len(c.Args)); more > 0 {
		b = fmt.Appendf(b, " ...(%d more arguments)", more)
	}
	if c.Kind == psync.KindFiller {
		b = append(b, "(empty)"...)
	}
	return append(b, '\n')
}

// quote appends s as sdscatrepr does: printable ASCII as it is, the rest escaped.
func quote(b, s []byte) []byte {
	b = append(b, '"')
	for _, c := range s {
		switch c {
		case '\\', '"':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\a':
			b = append(b, `\a`...)
		case '\b':
			b = append(b, `\b`...)
		default:
			if c < ' ' || c > '~' {
				b = fmt.Appendf(b, `\x%02x`, c)
			} else {
				b = append(b, c)
			}
		}
	}
	return append(b, '"')
}

// line is the form of a command in JSON. Either Args or Base64 is there.
type line struct {
	Offset repl.Offset `json:"offset"` // of the first byte
	End    repl.Offset `json:"end"`    // of the last byte
	Time   *time.Time  `json:"time,omitempty"`
	DB     *int        `json:"db,omitempty"` // absent: not known
	Tx     bool        `json:"tx,omitempty"` // within a transaction
	Args   []string    `json:"args,omitempty"`
	Base64 []string    `json:"args_base64,omitempty"` // where an argument is no UTF-8
	Argc   int64       `json:"argc,omitempty"`        // of one that is cut: how many there are
	Cut    bool        `json:"cut,omitempty"`         // Args are not all there is
}

// JSON renders a command as one line of JSON.
func JSON(b []byte, c *Command) []byte {
	l := line{Offset: c.First, End: c.Last, Tx: c.In, Cut: c.Cut()}
	if !c.Time.IsZero() {
		l.Time = &c.Time
	}
	if c.DB != psync.UnknownDB {
		l.DB = &c.DB
	}
	if l.Cut {
		l.Argc = c.Argc
	}
	text := true
	for _, a := range c.Args {
		text = text && utf8.Valid(a)
	}
	for _, a := range c.Args {
		if text {
			l.Args = append(l.Args, string(a))
		} else {
			l.Base64 = append(l.Base64, base64.StdEncoding.EncodeToString(a))
		}
	}
	out, err := json.Marshal(l)
	if err != nil {
		panic(err) // there is nothing in it that cannot be encoded
	}
	return append(append(b, out...), '\n')
}
