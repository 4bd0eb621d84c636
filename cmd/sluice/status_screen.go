package main

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// style is how a piece of text looks on a terminal.
type style string

// The styles, as SGR parameters (ECMA-48). What they say is said in words too.
const (
	styleNone style = ""
	styleDim  style = "2"
	styleBold style = "1"
	styleGood style = "32"
	styleWarn style = "33"
	styleBad  style = "1;31"
	styleInfo style = "36"
)

// span is a piece of a line.
type span struct {
	text string
	style
}

// screen collects lines for a terminal or a pipe.
type screen struct {
	b      strings.Builder
	width  int  // longer lines are cut; 0 for any length
	colour bool // styles are shown
}

// line writes the pieces as one line, without blanks at its end.
func (s *screen) line(spans ...span) {
	for len(spans) > 0 {
		last := &spans[len(spans)-1]
		if last.text = strings.TrimRight(last.text, " "); last.text != "" {
			break
		}
		spans = spans[:len(spans)-1]
	}
	left := s.width
	for _, sp := range spans {
		text := sp.text
		if s.width > 0 {
			if n := utf8.RuneCountInString(text); n > left {
				text = cut(text, left)
			}
			left -= utf8.RuneCountInString(text)
		}
		if s.colour && sp.style != styleNone && text != "" {
			text = "\x1b[" + string(sp.style) + "m" + text + "\x1b[0m"
		}
		s.b.WriteString(text)
	}
	s.b.WriteByte('\n')
}

// cut shortens text to n runes, the last of which says so.
func cut(text string, n int) string {
	if n <= 0 {
		return ""
	}
	return string([]rune(text)[:n-1]) + "…"
}

// column is one column of a table.
type column struct {
	head  string
	right bool // numbers
	spare int  // the column with the highest is left out first where the width does not do; 0 never
	cells []span
}

func (c *column) width() int {
	w := utf8.RuneCountInString(c.head)
	for _, x := range c.cells {
		w = max(w, utf8.RuneCountInString(x.text))
	}
	return w
}

// gap is between two columns.
const gap = 2

// table writes columns of the same length below their heads.
func (s *screen) table(columns []column) {
	columns = slices.DeleteFunc(columns, func(c column) bool { // nothing in it
		return !slices.ContainsFunc(c.cells, func(x span) bool { return x.text != "" })
	})
	for s.width > 0 && tableWidth(columns) > s.width {
		worst := slices.MaxFunc(columns, func(a, b column) int { return a.spare - b.spare }).spare
		if worst == 0 {
			break
		}
		columns = slices.DeleteFunc(columns, func(c column) bool { return c.spare == worst })
	}
	if len(columns) == 0 {
		return
	}
	row := func(of func(*column) span) {
		var spans []span
		for i := range columns {
			c := &columns[i]
			x := of(c)
			pad := strings.Repeat(" ", c.width()-utf8.RuneCountInString(x.text))
			if c.right {
				spans = append(spans, span{text: pad}, x)
			} else {
				spans = append(spans, x, span{text: pad})
			}
			spans = append(spans, span{text: strings.Repeat(" ", gap)})
		}
		s.line(spans...)
	}
	row(func(c *column) span { return span{c.head, styleDim} })
	for i := range columns[0].cells {
		row(func(c *column) span { return c.cells[i] })
	}
}

func tableWidth(columns []column) int {
	w := 0
	for i := range columns {
		w += columns[i].width() + gap
	}
	return w - gap
}
