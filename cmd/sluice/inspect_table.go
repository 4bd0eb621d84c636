package main

import (
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-io/sluice/rdbstream/inspect"
)

// human returns a number of bytes as INFO does: 1.50M is 1.5 times 1,048,576.
func human(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%dB", n)
	}
	v, unit := float64(n)/(1<<10), 0
	for v >= 1<<10 && unit < 4 {
		v /= 1 << 10
		unit++
	}
	return fmt.Sprintf("%.2f%c", v, "KMGTP"[unit])
}

// table collects rows; the first is the head.
type table [][]string

func (t *table) row(cells ...any) {
	row := make([]string, len(cells))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	*t = append(*t, row)
}

// String renders the table with a blank line before it.
func (t table) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, row := range t {
		_, _ = fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // a strings.Builder does not fail
	return "\n" + b.String()
}

// percent returns the share of part in whole.
func percent(part, whole int64) string {
	if whole == 0 {
		return "-"
	}
	return strconv.FormatFloat(100*float64(part)/float64(whole), 'f', 1, 64) + "%"
}

// when returns a time to the second, "-" for none.
func when(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// inspectTables renders a report for people.
func inspectTables(r *inspect.Report) string {
	var b strings.Builder
	b.WriteString(inspectHead(r))
	if r.Keys == 0 {
		return b.String()
	}
	types := table{{"TYPE", "STORED AS", "KEYS", "BYTES", "SHARE", "LARGEST"}}
	for _, t := range r.Types {
		types.row(t.Type, t.Form, t.Keys, human(t.Bytes), percent(t.Bytes, r.Bytes), human(t.Largest))
	}
	dbs := table{{"DB", "KEYS", "EXPIRES", "EXPIRED", "BYTES", "SHARE"}}
	for _, d := range r.Databases {
		dbs.row(d.DB, d.Keys, d.Expires, d.Expired, human(d.Bytes), percent(d.Bytes, r.Bytes))
	}
	ttl := table{{"EXPIRES WITHIN", "KEYS", "SHARE", "BYTES"}}
	for _, t := range r.TTL {
		ttl.row(t.Within, t.Keys, percent(t.Keys, r.Keys), human(t.Bytes))
	}
	b.WriteString(types.String() + dbs.String() + ttl.String())
	if len(r.Top) > 0 {
		top := table{{"BYTES", "ELEMENTS", "TYPE", "STORED AS", "DB", "EXPIRES AT", "LARGEST KEYS"}}
		for _, k := range r.Top {
			top.row(human(k.Bytes), known(k.Elements), k.Type, k.Form, k.DB, when(k.ExpireAt), k.Name)
		}
		b.WriteString(top.String())
	}
	if len(r.Prefixes) > 0 {
		prefixes := table{{"BYTES", "SHARE", "KEYS", "LARGEST PREFIXES"}}
		for _, p := range r.Prefixes {
			missed := ""
			if p.Missed > 0 {
				missed = fmt.Sprintf(" (and up to %s more)", human(p.Missed))
			}
			prefixes.row(human(p.Bytes), percent(p.Bytes, r.Bytes), p.Keys, p.Prefix.String()+missed)
		}
		b.WriteString(prefixes.String())
	}
	return b.String()
}

// inspectHead says what the file is and sums it up.
func inspectHead(r *inspect.Report) string {
	var b strings.Builder
	_, _ = fmt.Fprintf(&b, "%s RDB %d   %s (%d bytes)   checksum %s", r.File.Format, r.File.Version, human(r.File.Size), r.File.Size, r.File.Checksum)
	for _, name := range []string{"valkey-ver", "redis-ver", "repl-id", "repl-offset", "repl-stream-db"} {
		if v, ok := r.File.Aux[name]; ok {
			_, _ = fmt.Fprintf(&b, "   %s %s", name, inspect.Text(v))
		}
	}
	if s, err := strconv.ParseInt(r.File.Aux["ctime"], 10, 64); err == nil {
		_, _ = fmt.Fprintf(&b, "   written %s", when(time.Unix(s, 0)))
	}
	_, _ = fmt.Fprintf(&b, "\n%d keys in %s   %d expire, %d have expired (%s of all)   %d function libraries\n",
		r.Keys, human(r.Bytes), r.Expires, r.Expired, percent(r.Expired, r.Keys), r.Functions)
	return b.String()
}

// keyText renders keys with their values for people.
func keyText(found *inspect.Result) string {
	var b strings.Builder
	for i, f := range found.Keys {
		if i > 0 {
			b.WriteByte('\n')
		}
		_, _ = fmt.Fprintf(&b, "db %d   %s   %s, stored as %s   %d bytes   elements %s   expires %s\n",
			f.DB, f.Name, f.Type, f.Form, f.Bytes, known(f.Elements), when(f.ExpireAt))
		if f.Error != "" {
			_, _ = fmt.Fprintf(&b, "not shown: %s\n", f.Error)
			continue
		}
		valueText(&b, f.Value)
	}
	return b.String()
}

func valueText(b *strings.Builder, v *inspect.Value) {
	if v.Text != nil {
		_, _ = fmt.Fprintln(b, v.Text)
	}
	for _, i := range v.Items {
		switch {
		case i.Score != nil:
			_, _ = fmt.Fprintf(b, "  %s  %s", strconv.FormatFloat(*i.Score, 'g', -1, 64), i.Value)
		case i.Field != nil:
			_, _ = fmt.Fprintf(b, "  %s  %s", i.Field, i.Value)
		default:
			_, _ = fmt.Fprintf(b, "  %s", i.Value)
		}
		if !i.ExpireAt.IsZero() {
			_, _ = fmt.Fprintf(b, "  expires %s", when(i.ExpireAt))
		}
		b.WriteByte('\n')
	}
	if v.More > 0 {
		_, _ = fmt.Fprintf(b, "  and %d more\n", v.More)
	}
	for _, n := range v.Notes {
		_, _ = fmt.Fprintf(b, "note: %s\n", n)
	}
}
