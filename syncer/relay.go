package syncer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/downstream"
	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// ErrClosed means: the relay was closed.
var ErrClosed = errors.New("relay is closed")

// Relay captures from a master into a store. Its methods may be called by any
// goroutine; Start once, and Close after it.
type Relay struct {
	opt Options
	log *zap.Logger

	parts   atomic.Pointer[parts]
	reopens prometheus.Counter
	journal *journal.Journal

	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	done   chan struct{} // closed when it has failed

	mu       sync.Mutex
	master   string        // HOST:PORT that is captured from
	replaced chan struct{} // closed and replaced when parts is
	reopen   error         // why the store cannot be opened again; nil: it is open
	err      error         // why done is closed
	endErr   error         // what closing the last parts has told
}

// parts are an open store and what works on it. When the store has to be opened
// again, all of them are made anew: whatever holds readers or pins of a store
// belongs here.
type parts struct {
	store  *store.Store
	link   *upstream.Link
	server *downstream.Server // nil: no replicas are served
}

// start begins the work. It fails if the address for replicas cannot be listened
// on.
func (p *parts) start() error {
	if p.server != nil {
		if err := p.server.Start(); err != nil {
			return err
		}
	}
	p.link.Start()
	return nil
}

// close ends what works on the store, the last started first, and then the store.
func (p *parts) close() error {
	if p.server != nil {
		p.server.Close()
	}
	p.link.Close()
	return p.store.Close()
}

// New checks o and returns a relay. It does no I/O.
func New(o Options) (*Relay, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	j := &journal.Journal{}
	o.Upstream.Journal, o.Downstream.Journal = j, j
	return &Relay{
		journal: j,
		opt:     o, log: o.Logger.Named("relay"), master: o.Upstream.Master,
		done: make(chan struct{}), replaced: make(chan struct{}),
		reopens: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "sluice_relay_store_reopens_total",
			Help: "How often the store was opened again because what was written could not be read back.",
		}),
	}, nil
}

// Start opens the store and begins to capture. It does not wait for the master.
// An error is that of [store.Open]: a store that another process has, or that
// is corrupt, is not taken.
func (r *Relay) Start() error {
	p, err := r.open()
	if err != nil {
		return err
	}
	if err := p.start(); err != nil {
		return errors.Join(err, p.close())
	}
	if p.server != nil { // when it is made anew it is found where it was
		r.opt.Downstream.Listen = p.server.Addr().String()
	}
	if r.opt.Registerer != nil {
		if err := r.opt.Registerer.Register(r.reopens); err != nil {
			return errors.Join(err, p.close())
		}
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	r.cancel = cancel
	r.wg.Go(func() { r.supervise(ctx, p) })
	return nil
}

// open opens the store and makes what works on it.
func (r *Relay) open() (*parts, error) {
	st, err := store.Open(r.opt.Dir, r.opt.Store)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	o := r.opt.Upstream
	o.Master = r.master
	link, err := upstream.New(st, o)
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	p := &parts{store: st, link: link}
	if r.opt.Downstream.Listen != "" {
		if p.server, err = downstream.New(st, linkOf{link, r}, r.opt.Downstream); err != nil {
			return nil, errors.Join(err, st.Close())
		}
		link.SetReplicas(p.server)
	}
	r.parts.Store(p)
	r.reopen = nil
	close(r.replaced)
	r.replaced = make(chan struct{})
	return p, nil
}

// supervise waits until the relay is closed, and replaces the parts meanwhile
// whenever the store says that it must be opened again.
func (r *Relay) supervise(ctx context.Context, p *parts) {
	was := store.StateWritable
	for p != nil {
		changed := p.store.StateChanged()
		is := p.store.State()
		r.noteStore(was, is, p.store.Err())
		was = is
		if is == store.StateUnsafe {
			p = r.replace(ctx, p)
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			err := p.close()
			r.mu.Lock()
			r.endErr = err
			r.mu.Unlock()
			return
		}
	}
}

// noteStore remembers that the store takes no writes, or takes them again.
func (r *Relay) noteStore(was, is store.State, err error) {
	switch {
	case is == was:
	case is.Degraded():
		r.journal.Add(time.Now(), journal.StoreDown, r.opt.Dir, fmt.Sprintf("%s: nothing is written: %v", is, err))
	case was.Degraded() && is == store.StateWritable:
		r.journal.Add(time.Now(), journal.StoreUp, r.opt.Dir, "the store writes again, after "+was.String())
	}
}

// replace closes p and opens anew until that succeeds. It returns nil when the
// relay is closed or has failed: a store that is corrupt does not get better.
func (r *Relay) replace(ctx context.Context, p *parts) *parts {
	r.log.Error("the store has lost what was written to it: it is opened again, which cuts its log to what is durable; the rest comes from the master once more",
		zap.String("dir", r.opt.Dir), zap.Error(p.store.Err()))
	if err := p.close(); err != nil {
		r.log.Warn("the store was closed with an error, as was to be expected", zap.Error(err))
	}
	for pause := r.opt.ReopenMin; ; pause = min(2*pause, r.opt.ReopenMax) {
		next, err := r.open()
		if err == nil {
			if err = next.start(); err == nil {
				r.reopens.Inc()
				r.log.Info("the store is open again", zap.String("dir", r.opt.Dir))
				return next
			}
			err = errors.Join(err, next.close())
		}
		var corrupt *store.CorruptionError
		if errors.As(err, &corrupt) {
			r.fail(err)
			return nil
		}
		r.log.Error("the store cannot be opened again; it will be tried once more", zap.Error(err), zap.Duration("in", pause))
		r.mu.Lock()
		r.reopen = err
		r.mu.Unlock()
		t := time.NewTimer(pause)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil
		}
	}
}

// fail notes why the relay cannot go on.
func (r *Relay) fail(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.err = fmt.Errorf("the relay has failed: %w", err)
	close(r.done)
}

// Done is closed when the relay has failed; it is to be closed then.
func (r *Relay) Done() <-chan struct{} { return r.done }

// Err returns why Done is closed, nil before.
func (r *Relay) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close ends the capture, makes durable what was received, and waits for both.
// The error tells what is not durable. Start must have succeeded.
func (r *Relay) Close() error {
	r.cancel(ErrClosed)
	r.wg.Wait()
	if r.opt.Registerer != nil {
		r.opt.Registerer.Unregister(r.reopens)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.endErr
}

// Store returns the store that is written to now, nil before Start. After
// Replaced it is another; what was opened of the old one fails with
// [store.ErrClosed].
func (r *Relay) Store() *store.Store {
	if p := r.parts.Load(); p != nil {
		return p.store
	}
	return nil
}

// Link returns the link to the master, nil before Start. After Replaced it is
// another.
func (r *Relay) Link() *upstream.Link {
	if p := r.parts.Load(); p != nil {
		return p.link
	}
	return nil
}

// Server returns the server for replicas, nil before Start and where there is
// none. After Replaced it is another, at the same address.
func (r *Relay) Server() *downstream.Server {
	if p := r.parts.Load(); p != nil {
		return p.server
	}
	return nil
}

// linkOf is what a server for replicas may do with the relay that it is of.
type linkOf struct {
	*upstream.Link
	r *Relay
}

// SetMaster goes over to another master, and remembers it for the next link.
func (l linkOf) SetMaster(addr string) { l.r.SetMaster(addr) }

// Replaced returns a channel that is closed when store and link are replaced.
// Call Store and Link after it, so that no change is missed.
func (r *Relay) Replaced() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.replaced
}

// SetMaster goes over to another master, HOST:PORT; see [upstream.Link.SetMaster].
func (r *Relay) SetMaster(addr string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.master = addr
	if p := r.parts.Load(); p != nil {
		p.link.SetMaster(addr)
	}
}
