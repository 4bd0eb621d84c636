package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// kind says what is done with a step.
type kind string

// The kinds, as a mark names them.
const (
	kindRun       kind = "run"       // the commands are typed, and what they print is compared
	kindFails     kind = "fails"     // the same, and the last command ends with an error
	kindUntil     kind = "until"     // the same, and again until the output is as printed
	kindStart     kind = "start"     // start NAME [until TEXT]: each command in a terminal of its own
	kindOutput    kind = "output"    // output NAME: what the terminals of NAME show
	kindStop      kind = "stop"      // stop NAME...: Ctrl-C there
	kindFile      kind = "file"      // file NAME: an editor saves it
	kindElsewhere kind = "elsewhere" // elsewhere PATH: another test runs it
	kindNone      kind = "none"      // none WHY: there is nothing to run
	kindHosts     kind = "hosts"     // hosts begin, hosts end: in between hosts and folders of the reader's own are named
)

// ofBlocks are the kinds that a mark before a block can have; those of a mark
// that is a step by itself are ofComments. `start` can be both: with commands in
// the mark it starts what the reader has running already.
var (
	ofBlocks   = map[kind]bool{kindFails: true, kindUntil: true, kindStart: true, kindOutput: true, kindFile: true, kindElsewhere: true, kindNone: true}
	ofComments = map[kind]bool{kindRun: true, kindUntil: true, kindStart: true, kindStop: true, kindHosts: true}
)

// step is something to do: a block of README.md, or a mark.
type step struct {
	line  int // of the block or the mark, from 1
	kind  kind
	args  []string
	until string // of kindStart
	body  string
	shown bool // the reader sees it
	hosts bool // it is between hosts begin and hosts end
}

// A mark is <!-- test: KIND ARGUMENTS -->, and may have commands on the lines
// that follow its first.
const markBegin, markEnd = "<!-- test: ", "-->"

var fence = regexp.MustCompile("^(\\s*)```(\\w*)$")

// parse finds the steps of a page. It is an error if it is not known what to do
// with a block: a block in sh or console is run, any other needs a mark.
func parse(page string) (steps []step, err error) {
	lines := strings.Split(page, "\n")
	var mark *step // that belongs to the next block
	hosts := false
	for i := 0; i < len(lines); i++ {
		line := i + 1
		switch m := fence.FindStringSubmatch(lines[i]); {
		case strings.HasPrefix(strings.TrimSpace(lines[i]), markBegin):
			if mark != nil {
				return nil, fmt.Errorf("line %d: the mark %s has no block", mark.line, mark.kind)
			}
			var text string
			text, i = collect(lines, i, func(l string) bool { return strings.HasSuffix(strings.TrimSpace(l), markEnd) })
			s, own, err := parseMark(line, text)
			if err != nil {
				return nil, err
			}
			if s.kind == kindHosts {
				hosts = s.args[0] == "begin"
			}
			if s.hosts = hosts; own {
				steps = append(steps, s)
			} else {
				mark = &s
			}
		case m != nil:
			var text string
			text, i = collect(lines, i, func(l string) bool { return strings.TrimSpace(l) == "```" })
			s := step{line: line, kind: kindRun, hosts: hosts}
			if mark != nil {
				s, mark = *mark, nil
			} else if m[2] != "sh" && m[2] != "console" {
				return nil, fmt.Errorf("line %d: a block of %q is not run, and no mark says why; begin it with ```sh or ```console, or put %s... %s before it", line, m[2], markBegin, markEnd)
			}
			s.line, s.shown, s.body = line, true, dedent(text, m[1])
			steps = append(steps, s)
		}
	}
	if mark != nil {
		return nil, fmt.Errorf("line %d: the mark %s has no block", mark.line, mark.kind)
	}
	if hosts {
		return nil, fmt.Errorf("hosts begin is without hosts end")
	}
	return steps, nil
}

// collect returns the lines from i up to the first that ends what begins there,
// and where that is. What begins on line i may end there only if it is a mark.
func collect(lines []string, i int, ends func(string) bool) (text string, last int) {
	if strings.Contains(lines[i], markBegin) && ends(lines[i]) {
		return lines[i], i
	}
	for last = i + 1; last < len(lines) && !ends(lines[last]); last++ {
		continue
	}
	first := i
	if !strings.Contains(lines[i], markBegin) {
		first++ // without the fences
		return strings.Join(lines[first:min(last, len(lines))], "\n"), last
	}
	return strings.Join(lines[first:min(last+1, len(lines))], "\n"), last
}

// parseMark reads a mark; own reports that it is a step by itself.
func parseMark(line int, text string) (s step, own bool, err error) {
	text = strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(text), markBegin), markEnd)
	head, body, _ := strings.Cut(text, "\n")
	words := strings.Fields(head)
	if len(words) == 0 {
		return s, false, fmt.Errorf("line %d: a mark without a word", line)
	}
	s = step{line: line, kind: kind(words[0]), args: words[1:], body: strings.TrimSpace(body)}
	own = s.body != "" || s.kind == kindStop || s.kind == kindHosts
	if own && !ofComments[s.kind] || !own && !ofBlocks[s.kind] {
		return s, own, fmt.Errorf("line %d: a mark cannot be %q here", line, words[0])
	}
	if s.kind == kindStart {
		for i, w := range s.args {
			if w == "until" {
				s.args, s.until = s.args[:i], strings.Join(s.args[i+1:], " ")
				break
			}
		}
	}
	switch s.kind {
	case kindRun, kindFails, kindUntil:
		if len(s.args) > 0 {
			return s, own, fmt.Errorf("line %d: %s takes no arguments", line, s.kind)
		}
	default:
		if len(s.args) == 0 {
			return s, own, fmt.Errorf("line %d: %s needs an argument", line, s.kind)
		}
	}
	return s, own, nil
}

// dedent takes the indentation of a block in a list from its lines.
func dedent(text, indent string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], indent)
	}
	return strings.Join(lines, "\n")
}

// check looks at what names something: where a block is tested elsewhere there
// must be such a test.
func (s *step) check(root string) error {
	if s.kind != kindElsewhere {
		return nil
	}
	if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(s.args[0], ":"))); err != nil {
		return fmt.Errorf("line %d: tested elsewhere, but: %w", s.line, err)
	}
	return nil
}

// commands returns what is to be typed, each with the lines that continue it,
// and the lines that the page says are printed. In a session the commands are
// those behind a $; else all lines are, and nothing is printed.
func (s *step) commands() (typed, printed []string) {
	session := false
	var current []string
	more := false // the command goes on
	for line := range strings.Lines(s.body) {
		line = strings.TrimRight(line, "\n")
		rest, prompt := strings.CutPrefix(line, "$ ")
		session = session || prompt
		switch {
		case more:
			current[len(current)-1] += "\n" + line
		case prompt:
			current = append(current, rest)
		case session:
			printed = append(printed, line)
			continue
		default:
			current = append(current, line)
		}
		more = strings.HasSuffix(line, "\\")
	}
	return current, printed
}
