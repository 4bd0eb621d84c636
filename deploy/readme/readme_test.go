package main

import (
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestPage: it is known what is to be done with each block of README.md. What
// comes of it is the step `readme` of deploy/test.sh.
func TestPage(t *testing.T) {
	src, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parse(string(src))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		if err := s.check("../.."); err != nil {
			t.Error(err)
		}
	}
	if len(steps) < 20 {
		t.Errorf("%d steps", len(steps))
	}
}

// TestParse reads a page with one of everything.
func TestParse(t *testing.T) {
	steps, err := parse(strings.Join([]string{
		"```sh", "a \\", "  -b", "c", "```",
		"<!-- test: start lab until it is up -->", "```console", "$ d", "out", "```",
		"<!-- test: hosts begin -->", "<!-- test: until", "e", "-->", "<!-- test: hosts end -->",
		"  <!-- test: none a picture -->", "  ```text", "  x", "  ```", "<!-- test: stop lab -->", "<!-- a comment -->",
	}, "\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := []step{
		{line: 1, kind: kindRun, body: "a \\\n  -b\nc", shown: true},
		{line: 7, kind: kindStart, args: []string{"lab"}, until: "it is up", body: "$ d\nout", shown: true},
		{line: 11, kind: kindHosts, args: []string{"begin"}, hosts: true},
		{line: 12, kind: kindUntil, args: []string{}, body: "e", hosts: true},
		{line: 15, kind: kindHosts, args: []string{"end"}},
		{line: 17, kind: kindNone, args: []string{"a", "picture"}, body: "x", shown: true},
		{line: 20, kind: kindStop, args: []string{"lab"}},
	}
	if d := cmp.Diff(want, steps, cmp.AllowUnexported(step{})); d != "" {
		t.Error(d)
	}
	typed, printed := steps[0].commands()
	if d := cmp.Diff([]string{"a \\\n  -b", "c"}, typed); d != "" || printed != nil {
		t.Error(d, printed)
	}
	typed, printed = steps[1].commands()
	if d := cmp.Diff([][]string{{"d"}, {"out"}}, [][]string{typed, printed}); d != "" {
		t.Error(d)
	}
}

// TestParseRefuses: a block that nobody runs, and marks that say nothing.
func TestParseRefuses(t *testing.T) {
	for page, want := range map[string]string{
		"```\na\n```":                             "no mark says why",
		"```yaml\na: b\n```":                      "no mark says why",
		"<!-- test: none -->\n```yaml\n```":       "needs an argument",
		"<!-- test: later -->\n```sh\n```":        `cannot be "later"`,
		"<!-- test: run -->\n```sh\n```":          `cannot be "run"`,
		"<!-- test: none why -->\n":               "has no block",
		"<!-- test: none why -->\n<!-- test: x -": "has no block",
		"<!-- test: hosts begin -->":              "without hosts end",
	} {
		if _, err := parse(page); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", page, err, want)
		}
	}
	s := step{kind: kindElsewhere, args: []string{"no-such-test.sh"}}
	if err := s.check("."); err == nil {
		t.Error("a test that does not exist is taken for one")
	}
}

// TestMissing: numbers may differ, words, addresses and how often a line comes may not.
func TestMissing(t *testing.T) {
	for _, tc := range []struct {
		printed, output string
		lost            int
	}{
		{"OK", "OK\n", 0},
		{"OK", "ERR\n", 1},
		{"OK\nOK", "OK\n", 1},
		{"a   12 ms  b", "x\na 3.5µs b and more\n", 0},
		{"at 10.0.0.1:6379", "at 10.0.0.2:6379\n", 1},
		{"offset:85   <- how far", "role:slave\noffset:171\n", 0},
		{"...\n\nb", "a\nb\n", 0},
		{"/tmp/sluice-lab-1/sluice.sock  2  x", "/tmp/other/sluice-lab-77/sluice.sock 3 x\n", 0},
		{"-READONLY", "READONLY\n", 1},
	} {
		if lost := missing(strings.Split(tc.printed, "\n"), tc.output); len(lost) != tc.lost {
			t.Errorf("%q in %q lacks %q, want %d", tc.printed, tc.output, lost, tc.lost)
		}
	}
}

// TestRunner: what is run as printed passes, and what does not is told.
func TestRunner(t *testing.T) {
	for page, want := range map[string]string{
		"```sh\nexport A=b\n```\n```console\n$ echo $A\nb\n```":  "",
		"```console\n$ echo a\nb\n```":                           "the page says that it prints\nb",
		"```sh\nfalse\ntrue\n```":                                "exit status 1",
		"<!-- test: fails -->\n```sh\ntrue\n```":                 "it should fail, and does not",
		"<!-- test: start x until up -->\n```sh\necho down\n```": "has ended",
		"<!-- test: start x until up -->\n```sh\ntrap 'exit 3' INT; echo up; while :; do sleep 0.01; done\n```\n<!-- test: stop x -->":                                        "exit status 3",
		"<!-- test: start x until up -->\n```sh\ntrap 'exit 0' INT; echo up; while :; do sleep 0.01; done\n```\n<!-- test: output x -->\n```\nup\n```\n<!-- test: stop x -->": "",
		"<!-- test: file f -->\n```yaml\na: b\n```\n```console\n$ cat f\na: b\n```":                                                                                           "",
		"<!-- test: until -->\n```console\n$ echo x >>g; wc -l <g\n3\n```\n":                                                                                                  "",
	} {
		steps, err := parse(page)
		if err != nil {
			t.Fatal(err)
		}
		r, err := newRunner(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		for i := range steps {
			if _, err = r.do(ctx, &steps[i]); err != nil {
				break
			}
		}
		cancel()
		r.close()
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", page, err, want)
		}
	}
}
