package repl

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var (
	idA = ReplID(strings.Repeat("a", ReplIDLen))
	idB = ReplID(strings.Repeat("b", ReplIDLen))
	idC = ReplID(strings.Repeat("c", ReplIDLen))
	idD = ReplID(strings.Repeat("d", ReplIDLen))
)

func TestPosText(t *testing.T) {
	for text, want := range map[string]Pos{
		"?:-1":                               {},
		string(idA) + ":0":                   {idA, 0},
		string(idA) + ":100":                 {idA, 100},
		string(idB) + ":9223372036854775807": {idB, math.MaxInt64},
	} {
		got, err := ParsePos(text)
		if err != nil || got != want {
			t.Errorf("ParsePos(%q) = %v, %v; want %v", text, got, err, want)
		}
		if got.String() != text {
			t.Errorf("ParsePos(%q).String() = %q", text, got)
		}
	}
	for _, text := range []string{
		"", ":", "?", "?:0", ":5", string(idA), string(idA) + ":", string(idA) + ":-1", string(idA) + ":x",
		string(idA) + ":1:2", string(idA[1:]) + ":1", strings.ToUpper(string(idA)) + ":1", string(idA) + ":9223372036854775808",
	} {
		if got, err := ParsePos(text); err == nil {
			t.Errorf("ParsePos(%q) = %v, want an error", text, got)
		}
	}
}

// The one place where "have" and "want" meet.
func TestPosWant(t *testing.T) {
	tests := []struct {
		have     Pos
		want     Want
		id, next string
	}{
		{Pos{}, Want{}, "?", "-1"},
		{Pos{idA, 0}, Want{idA, 1}, string(idA), "1"},
		{Pos{idA, 100}, Want{idA, 101}, string(idA), "101"},
	}
	for _, tt := range tests {
		if got := tt.have.Want(); got != tt.want {
			t.Errorf("%v.Want() = %v, want %v", tt.have, got, tt.want)
		}
		if got := tt.want.Have(); got != tt.have {
			t.Errorf("%v.Have() = %v, want %v", tt.want, got, tt.have)
		}
		if id, next := tt.want.Args(); id != tt.id || next != tt.next {
			t.Errorf("Args() = %q, %q, want %q, %q", id, next, tt.id, tt.next)
		}
		if tt.have.IsZero() != tt.want.IsZero() {
			t.Errorf("IsZero of %v and %v differ", tt.have, tt.want)
		}
	}
}

func TestPosJSON(t *testing.T) {
	type meta struct{ At, None Pos }
	in := meta{At: Pos{idA, 7}}
	data, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"At":"` + string(idA) + `:7","None":"?:-1"}`; string(data) != want {
		t.Errorf("JSON is %s, want %s", data, want)
	}
	var out meta
	if err := json.Unmarshal(data, &out); err != nil || out != in {
		t.Errorf("read back %v, %v", out, err)
	}
	if err := json.Unmarshal([]byte(`{"At":"x:7"}`), &out); err == nil {
		t.Error("a malformed position was read")
	}
}

func TestParseOffset(t *testing.T) {
	for text, want := range map[string]Offset{"-1": UnknownOffset, "0": 0, "9223372036854775807": math.MaxInt64} {
		if got, err := ParseOffset(text); err != nil || got != want {
			t.Errorf("ParseOffset(%q) = %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "-2", "x", "1 ", "9223372036854775808"} {
		if got, err := ParseOffset(text); err == nil {
			t.Errorf("ParseOffset(%q) = %d, want an error", text, got)
		}
	}
	if diff := cmp.Diff([]bool{false, true, true}, []bool{UnknownOffset.IsKnown(), Offset(0).IsKnown(), Offset(1).IsKnown()}); diff != "" {
		t.Error(diff)
	}
}
