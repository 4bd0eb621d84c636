package repl

import (
	"encoding/json"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func mustHistory(t testing.TB, current ReplID, ancestors ...Ancestor) History {
	t.Helper()
	h, err := NewHistory(current, ancestors...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// A log that holds the bytes 50 to 300 of C, known before as A up to 100 and
// as B up to 250. What a real master says at such edges is asked in
// psync/history_redis_test.go.
func TestAcceptsEdges(t *testing.T) {
	h := mustHistory(t, idC, Ancestor{idA, 100}, Ancestor{idB, 250})
	const first, last = 50, 300
	tests := []struct {
		name string
		want Want
		v    Verdict
	}{
		{"no id", Want{}, FullRequested},
		{"unknown id", Want{idD, 60}, UnknownReplID},
		{"current, before the first byte", Want{idC, first - 1}, TooOld},
		{"current, the first byte", Want{idC, first}, Accepted},
		{"current, where B was", Want{idC, 200}, Accepted},
		{"current, the last byte", Want{idC, last}, Accepted},
		{"current, the next byte", Want{idC, last + 1}, Accepted},
		{"current, one ahead", Want{idC, last + 2}, Ahead},
		{"newest ancestor, its last byte", Want{idB, 250}, Accepted},
		{"newest ancestor, has all of it", Want{idB, 251}, Accepted},
		{"newest ancestor, has one byte more", Want{idB, 252}, Diverged},
		{"newest ancestor, in the oldest's range", Want{idB, 51}, Accepted},
		{"oldest ancestor, the first byte", Want{idA, first}, Accepted},
		{"oldest ancestor, before the first byte", Want{idA, first - 1}, TooOld},
		{"oldest ancestor, has all of it", Want{idA, 101}, Accepted},
		{"oldest ancestor, has one byte more", Want{idA, 102}, Diverged},
		{"zero", Want{idC, 0}, TooOld},
		{"lowest number", Want{idC, math.MinInt64}, TooOld},
		{"highest number", Want{idC, math.MaxInt64}, Ahead},
		{"highest number of an ancestor", Want{idA, math.MaxInt64}, Diverged},
	}
	for _, tt := range tests {
		if got := h.Accepts(tt.want, first, last); got != tt.v {
			t.Errorf("%s: Accepts(%v) = %v, want %v", tt.name, tt.want, got, tt.v)
		}
	}
}

func TestAcceptsShortLogs(t *testing.T) {
	h := mustHistory(t, idC, Ancestor{idB, 250})
	tests := []struct {
		name        string
		first, last Offset
		want        Want
		v           Verdict
	}{
		{"empty log at 100, has 100", 101, 100, Want{idC, 101}, Accepted},
		{"empty log at 100, has 99", 101, 100, Want{idC, 100}, TooOld},
		{"empty log at 100, has 101", 101, 100, Want{idC, 102}, Ahead},
		{"empty log at 0, has nothing", 1, 0, Want{idC, 1}, Accepted},
		{"log lost its tail below the ancestor's end", 1, 200, Want{idB, 202}, Ahead},
		{"log lost its tail, has 200", 1, 200, Want{idB, 201}, Accepted},
		{"log begins behind the ancestor's end, has all of it", 251, 300, Want{idB, 251}, Accepted},
		{"log begins one later", 252, 300, Want{idB, 251}, TooOld},
		{"ends at the highest number", 1, math.MaxInt64, Want{idC, math.MaxInt64}, Accepted},
	}
	for _, tt := range tests {
		if got := h.Accepts(tt.want, tt.first, tt.last); got != tt.v {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.v)
		}
	}
}

func TestContainsEdges(t *testing.T) {
	h := mustHistory(t, idC, Ancestor{idA, 100}, Ancestor{idB, 250})
	for p, want := range map[Pos]bool{
		{}: false, {idD, 0}: false,
		{idC, 0}: true, {idC, 1000}: true,
		{idA, 0}: true, {idA, 100}: true, {idA, 101}: false,
		{idB, 250}: true, {idB, 251}: false,
	} {
		if got := h.Contains(p); got != want {
			t.Errorf("Contains(%v) = %v", p, got)
		}
	}
	if (History{}).Contains(Pos{}) {
		t.Error("no history contains no position")
	}
}

func TestAppend(t *testing.T) {
	one := mustHistory(t, idA)
	two, err := one.Append(idB, 100)
	if err != nil {
		t.Fatal(err)
	}
	three, err := two.Append(idC, 250)
	if err != nil {
		t.Fatal(err)
	}
	if want := mustHistory(t, idC, Ancestor{idA, 100}, Ancestor{idB, 250}); !three.Equal(want) {
		t.Errorf("got %v, want %v", three, want)
	}
	if want := mustHistory(t, idA); !one.Equal(want) {
		t.Errorf("Append changed its receiver: %v", one)
	}
	for _, id := range []ReplID{"", idC} {
		same, err := three.Append(id, 300)
		if err != nil || !same.Equal(three) {
			t.Errorf("Append(%q) = %v, %v; want no change", id, same, err)
		}
	}
	if _, err := three.Append(idA, 300); !errors.Is(err, ErrReplIDReused) {
		t.Errorf("Append of an ancestor: %v", err)
	}
	if _, err := three.Append("xyz", 300); err == nil {
		t.Error("a malformed id was appended")
	}
	if _, err := three.Append(idD, UnknownOffset); err == nil {
		t.Error("an unknown end was appended")
	}
	// The log was cut to 80 after B had been written down as beginning at 100.
	short, err := two.Append(idC, 80)
	if err != nil {
		t.Fatal(err)
	}
	if want := mustHistory(t, idC, Ancestor{idA, 80}, Ancestor{idB, 80}); !short.Equal(want) {
		t.Errorf("got %v, want %v", short, want)
	}
}

func TestForget(t *testing.T) {
	h := mustHistory(t, idC, Ancestor{idA, 100}, Ancestor{idB, 250})
	for first, want := range map[Offset]int{1: 2, 100: 2, 101: 2, 102: 1, 251: 1, 252: 0} {
		got := h.Forget(first)
		if len(got.Ancestors()) != want || got.Current() != idC {
			t.Errorf("Forget(%d) = %v, want %d ancestors", first, got, want)
		}
		// What it forgot was of no use.
		for _, id := range []ReplID{idA, idB} {
			for next := Offset(0); next < 400; next++ {
				w := Want{id, next}
				if before, after := h.Accepts(w, first, 300), got.Accepts(w, first, 300); (before == Accepted) != (after == Accepted) {
					t.Fatalf("first %d, %v: %v became %v", first, w, before, after)
				}
			}
		}
	}
}

func TestSecond(t *testing.T) {
	h := mustHistory(t, idC, Ancestor{idA, 100}, Ancestor{idB, 250})
	if id, off := h.Second(); id != idB || off != 251 {
		t.Errorf("Second() = %v, %v", id, off)
	}
	if id, off := mustHistory(t, idA).Second(); id != zeroReplID || off != -1 {
		t.Errorf("Second() = %v, %v", id, off)
	}
}

func TestHistoryJSON(t *testing.T) {
	for _, h := range []History{{}, mustHistory(t, idA), mustHistory(t, idC, Ancestor{idA, 100}, Ancestor{idB, 250})} {
		data, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		var got History
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatalf("%s: %v", data, err)
		}
		if diff := cmp.Diff(h, got); diff != "" {
			t.Error(diff)
		}
	}
	a, b := string(idA), string(idB)
	for _, bad := range []string{
		`{}`, `[]`, `{"replid":"x"}`,
		`{"replid":"` + a + `","ancestors":[{"replid":"` + a + `","end":1}]}`,
		`{"replid":"` + a + `","ancestors":[{"replid":"` + b + `","end":-1}]}`,
		`{"replid":"` + a + `","ancestors":[{"replid":"` + b + `","end":1},{"replid":"` + b + `","end":2}]}`,
		`{"replid":"` + a + `","ancestors":[{"replid":"` + b + `","end":5},{"replid":"` + string(idC) + `","end":4}]}`,
	} {
		h := mustHistory(t, idD)
		if err := json.Unmarshal([]byte(bad), &h); err == nil {
			t.Errorf("%s was read as %v", bad, h)
		} else if h.Current() != idD {
			t.Errorf("%s: an error changed the history to %v", bad, h)
		}
	}
}

// A replica is a prefix of some timeline. It can go on iff its bytes are a
// prefix of ours and what follows is stored; here both are compared byte by
// byte.
func TestAcceptsModel(t *testing.T) {
	ids := []ReplID{idA, idB, idC, idD}
	rapid.Check(t, func(t *rapid.T) {
		// bytes[i] tells who wrote the byte at offset i+1.
		var bytes []ReplID
		h, err := NewHistory(idA)
		if err != nil {
			t.Fatal(err)
		}
		timeline := map[ReplID][]ReplID{}
		for i, id := range ids[:rapid.IntRange(1, len(ids)).Draw(t, "ids")] {
			if i > 0 {
				// The former master wrote on after we left it.
				old := ids[i-1]
				rest := rapid.IntRange(0, 4).Draw(t, "diverged")
				timeline[old] = append(append([]ReplID{}, bytes...), slicesRepeat(old+"x", rest)...)
				if h, err = h.Append(id, Offset(len(bytes))); err != nil {
					t.Fatal(err)
				}
			}
			bytes = append(bytes, slicesRepeat(id, rapid.IntRange(0, 6).Draw(t, "bytes"))...)
			timeline[id] = append(append([]ReplID{}, bytes...), slicesRepeat(id, 3)...)
		}
		first := Offset(rapid.IntRange(1, len(bytes)+1).Draw(t, "first"))
		id := rapid.SampledFrom(ids).Draw(t, "id")
		theirs := timeline[id]
		have := Offset(rapid.IntRange(0, len(theirs)).Draw(t, "have"))

		prefix := theirs != nil && int(have) <= len(bytes)
		for i := 0; prefix && i < int(have); i++ {
			prefix = theirs[i] == bytes[i]
		}
		possible := prefix && have+1 >= first
		v := h.Accepts(Pos{id, have}.Want(), first, Offset(len(bytes)))
		if (v == Accepted) != possible {
			t.Fatalf("%v has %v of %v: %v, but possible is %v; history %v", id, have, theirs, v, possible, h)
		}
	})
}

func slicesRepeat(id ReplID, n int) []ReplID {
	out := make([]ReplID, n)
	for i := range out {
		out[i] = id
	}
	return out
}
