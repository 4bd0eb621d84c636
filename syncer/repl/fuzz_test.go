package repl

import (
	"encoding/json"
	"testing"
)

// What is parsed is written as it was, and what is not valid is not parsed.
func FuzzPos(f *testing.F) {
	f.Add("?:-1")
	f.Add(string(idA) + ":5")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParsePos(s)
		if err != nil {
			if !p.IsZero() {
				t.Fatalf("%v with %v", p, err)
			}
			return
		}
		again, err := ParsePos(p.String())
		if err != nil || again != p || p.Want().Have() != p {
			t.Fatalf("%q is %v, then %v, %v", s, p, again, err)
		}
	})
}

func FuzzHistoryJSON(f *testing.F) {
	f.Add([]byte("null"))
	f.Add([]byte(`{"replid":"` + string(idA) + `","ancestors":[{"replid":"` + string(idB) + `","end":5}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var h, again History
		if json.Unmarshal(data, &h) != nil {
			return
		}
		if !h.IsZero() && h.validate() != nil {
			t.Fatalf("%q was read as %v", data, h)
		}
		out, err := json.Marshal(h)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil || !again.Equal(h) {
			t.Fatalf("%v is written as %s and read as %v, %v", h, out, again, err)
		}
	})
}
