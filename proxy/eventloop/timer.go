package eventloop

import (
	"container/heap"
	"time"
)

// Timer is a function that a loop calls once, later. Its methods may be called
// only on the loop's goroutine.
type Timer struct {
	loop  *Loop
	at    int64
	fn    func()
	index int // in the heap, -1 outside
}

// After calls fn after d, on the loop's goroutine.
func (l *Loop) After(d time.Duration, fn func()) *Timer {
	t := &Timer{loop: l, fn: fn, index: -1}
	t.Reset(d)
	return t
}

// Every calls fn every d until the loop stops.
func (l *Loop) Every(d time.Duration, fn func()) {
	var t *Timer
	t = l.After(d, func() {
		fn()
		t.Reset(d)
	})
}

// Reset makes the timer fire after d from now, whether it is waiting or not.
func (t *Timer) Reset(d time.Duration) {
	t.Stop()
	t.at = int64(time.Since(t.loop.start)) + int64(d)
	heap.Push(&t.loop.timers, t)
}

// Stop keeps the timer from firing.
func (t *Timer) Stop() {
	if t.index >= 0 {
		heap.Remove(&t.loop.timers, t.index)
	}
}

// timeout is how long the loop may wait: negative for ever.
func (l *Loop) timeout() time.Duration {
	if l.stopping || l.awake.Load() {
		return 0
	}
	if len(l.timers) == 0 {
		return -1
	}
	return max(0, time.Duration(l.timers[0].at-l.now))
}

func (l *Loop) runTimers() {
	for len(l.timers) > 0 && l.timers[0].at <= l.now {
		t := heap.Pop(&l.timers).(*Timer)
		t.fn()
	}
}

// timerHeap orders timers by time; container/heap calls its methods.
type timerHeap []*Timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is for container/heap.
func (h *timerHeap) Push(x any) {
	t := x.(*Timer)
	t.index = len(*h)
	*h = append(*h, t)
}

// Pop is for container/heap.
func (h *timerHeap) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = -1
	return t
}
