package proxy

import (
	"testing"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp/command"
)

func TestOneKey(t *testing.T) {
	one := command.Command{FirstKey: 1, LastKey: 1, Step: 1, KeySpecs: make([]command.KeySpec, 1)}
	if !oneKey(&one) {
		t.Error("a command with one key at a fixed place is not seen as such")
	}
	module := one
	module.Flags = command.Module | command.MovableKeys
	if oneKey(&module) {
		t.Error("the key that a module's command shows is taken for its only one, though it says that there are others")
	}
	for i := range command.Builtin().Len() {
		if c := command.Builtin().At(i); oneKey(c) {
			for _, s := range c.KeySpecs {
				if s.Flags&command.KeyIncomplete != 0 || s.Begin != command.BeginIndex {
					t.Errorf("%s has keys beside the first argument", c.Name)
				}
			}
		}
	}
}

// TestDoubtsEndOneByOne: a connection ends the doubts about what was lost
// before it was begun. What was lost since waits for another one; it does not
// make all of them wait, which would have no end where clients leave often.
func TestDoubtsEndOneByOne(t *testing.T) {
	master := &topology.Node{Addr: "127.0.0.1:1"}
	w := &worker{fences: causal.NewFences(), view: &topology.View{Master: master}}
	for b := range causal.Bucket(3) {
		w.fences.Begin(b)
		w.doubted = append(w.doubted, doubt{bucket: b, at: 10 * int64(b)})
	}
	left := func(node *topology.Node, dialedAt int64) (n int) {
		w.connected(&backend.Pipeline{Node: node, Master: true, DialedAt: dialedAt})
		return len(w.doubted)
	}
	for _, step := range []struct {
		node     *topology.Node
		dialedAt int64
		want     int
	}{
		{&topology.Node{Index: 1}, 100, 3}, // some other node
		{master, 0, 3},                     // as late as the first
		{master, 15, 1},
		{master, 20, 1},
		{master, 21, 0},
	} {
		if got := left(step.node, step.dialedAt); got != step.want {
			t.Errorf("after a connection begun at %d %d doubts are left, want %d", step.dialedAt, got, step.want)
		}
	}
}
