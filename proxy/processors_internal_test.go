package proxy

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy/eventloop"
)

// A loop that never rests leaves a processor to the other goroutines: they are
// not woken only as the runtime takes the loop off its own, after 10 ms.
func TestBusyLoopLeavesAProcessor(t *testing.T) {
	before := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(before)
	s, err := New(Options{
		Master: "127.0.0.1:1", Loops: 1, // nobody is there
		Listeners: []Listener{{Network: "tcp", Address: "127.0.0.1:0"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close(t.Context()) }()
	var stop atomic.Bool
	defer stop.Store(true)
	loop := s.workers[0].loop
	loop.Post(func() {
		var spin *eventloop.Timer // each iteration has something to do, and waits in no call
		spin = loop.After(0, func() {
			if !stop.Load() {
				spin.Reset(0)
			}
		})
	})
	const wakes = 100
	best := time.Hour
	for deadline := time.Now().Add(30 * time.Second); best > wakes*5*time.Millisecond; { // the machine may have other work too
		if time.Now().After(deadline) {
			t.Fatalf("%d wake-ups took %v at best beside a busy loop", wakes, best)
		}
		began := time.Now()
		for range wakes {
			time.Sleep(time.Microsecond)
		}
		best = min(best, time.Since(began))
	}
}
