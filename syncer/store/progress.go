package store

import (
	"context"
	"sync/atomic"

	"github.com/sluice-io/sluice/syncer/repl"
)

// progress is an offset that only rises and that others wait for. One goroutine
// at a time advances it; any may load and wait.
type progress struct {
	v    atomic.Int64
	wake atomic.Pointer[chan struct{}] // made by who waits, closed by advance
}

func (p *progress) load() repl.Offset { return repl.Offset(p.v.Load()) }

// advance sets the offset and wakes who waits. It costs two atomic operations
// when nobody does.
func (p *progress) advance(to repl.Offset) {
	p.v.Store(int64(to))
	if ch := p.wake.Swap(nil); ch != nil {
		close(*ch)
	}
}

// next returns a channel that is closed by the next advance. Load after it, so
// that no advance is missed.
func (p *progress) next() <-chan struct{} {
	for {
		if ch := p.wake.Load(); ch != nil {
			return *ch
		}
		ch := make(chan struct{})
		if p.wake.CompareAndSwap(nil, &ch) {
			return ch
		}
	}
}

// wait returns nil once the offset is at least target, else the context's cause
// or the error that over stands for.
func (p *progress) wait(ctx context.Context, target repl.Offset, over <-chan struct{}, overErr func() error) error {
	for {
		ch := p.next()
		if p.load() >= target {
			return nil
		}
		select {
		case <-ch:
		case <-over:
			if p.load() >= target {
				return nil
			}
			return overErr()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
