package resp_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/resp"
)

func TestSplitInline(t *testing.T) {
	for line, want := range map[string][]string{
		"":                                   nil,
		" \t\r\n":                            nil,
		"get k":                              {"get", "k"},
		"get k\r\n":                          {"get", "k"},
		"get \"\" ''":                        {"get", "", ""},
		`set k "a \x41\x6a\n\r\t\b\a\q\"\\"`: {"set", "k", "a Aj\n\r\t\b\aq\"\\"},
		`set k "\x4" "\xg1"`:                 {"set", "k", "x4", "xg1"},
		`set k 'it\'s \n'`:                   {"set", "k", `it's \n`},
		`set k pre"fix ed" \n`:               {"set", "k", "prefix ed", `\n`},
		"\v\fa\vb c":                         {"a\vb", "c"},
		"get k\x00 more":                     {"get", "k"},
	} {
		words, err := resp.SplitInline([]byte(line))
		var got []string
		for _, w := range words {
			got = append(got, string(w))
		}
		if d := cmp.Diff(want, got); d != "" || err != nil {
			t.Errorf("%q: err=%v (-want +got):\n%s", line, err, d)
		}
		// The array form, scanned, gives the same words.
		array, err := resp.NormalizeInline(nil, []byte(line))
		if err != nil || (len(array) == 0) != (len(want) == 0) {
			t.Errorf("%q: %q, %v", line, array, err)
		}
		if len(array) > 0 {
			n, _, spans, err := resp.ScanRequest(array, &resp.DefaultLimits, nil)
			if d := cmp.Diff(want, strs(array, spans)); d != "" || n != len(array) || err != nil {
				t.Errorf("%q: array %q: n=%d err=%v (-want +got):\n%s", line, array, n, err, d)
			}
		}
	}
}

func TestUnbalancedQuotes(t *testing.T) {
	for _, line := range []string{`"`, `'`, `a"`, `"a`, `"a"b`, `'a'b`, `"a\"`, `'a\'`, `"a"'b'`, `"\`, `ok "x`, "\"a\r\n"} {
		if words, err := resp.SplitInline([]byte(line)); !errors.Is(err, resp.ErrUnbalancedQuotes) || words != nil {
			t.Errorf("SplitInline(%q) = %q, %v", line, words, err)
		}
		if out, err := resp.NormalizeInline([]byte("kept"), []byte(line)); !errors.Is(err, resp.ErrUnbalancedQuotes) || string(out) != "kept" {
			t.Errorf("NormalizeInline(%q) = %q, %v", line, out, err)
		}
	}
}
