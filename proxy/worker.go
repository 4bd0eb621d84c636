package proxy

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
)

// sweepEvery is how often a worker looks for idle clients and connections.
const sweepEvery = time.Second

// lanesIdle is how long shared connections of an identity that no session has
// are kept, but for those that are always ready.
const lanesIdle = time.Minute

// maxIdlePinned bounds the pinned connections that a worker keeps for reuse.
const maxIdlePinned = 16

// worker is one event loop with the sessions and the upstream connections it
// owns. All its fields belong to the loop's goroutine.
type worker struct {
	srv  *Server
	opt  *Options
	loop *eventloop.Loop
	env  backend.Env

	view  *topology.View
	table *route.Table

	fences  *causal.Fences // nil where no listener needs them
	sampler *causal.Sampler
	doubted []doubt
	epoch   uint64 // in which the last need was found
	indexed indexQueue
	stalls  stallWatch
	near    near

	held       map[*session]struct{} // that wait for a master
	holdTimer  *eventloop.Timer
	paused     bool  // a planned failover: nothing is sent to the master
	masterLost int64 // loop time at which the master was first missed; 0 while there is one

	sessions map[*session]struct{}
	lanes    map[backend.Identity]*lanes
	pinned   map[backend.Identity][]*backend.Pipeline // idle ones
	nPinned  int                                      // how many in pinned
	spares   map[backend.Identity]struct{}            // for which one is being made
	unused   *request
	nUnused  int
	draining bool

	batch    []item      // requests of the read that is being handled
	spans    []resp.Span // their arguments
	scripted bool        // a script is among them
	again    []resp.Span // arguments of a request that is sent again
	keys     []int       // of the request that is being handled
	last     lastCommand
	run      run    // the request that is being put together
	norm     []byte // an inline request as an array

	stats workerStats
	acked atomic.Uint64 // bytes of the writes that were acknowledged; read by the sampler
}

// item is one request of a batch.
type item struct {
	off, n       int // in the session's data
	first, after int // its part of worker.spans
	cmd          *command.Command
	kind         route.Kind
	inline       bool // not an array: must be made one
}

// lastCommand remembers the command that was looked up last: in a pipeline the
// next is often the same.
type lastCommand struct {
	name []byte
	cmd  *command.Command
	kind route.Kind
}

// lookup finds the command of a request.
func (w *worker) lookup(a resp.Args) (*command.Command, route.Kind) {
	l := &w.last
	if name := a.At(0); string(name) == string(l.name) {
		return l.cmd, l.kind
	}
	cmd, kind := w.table.Lookup(a)
	if kind == route.Read || kind == route.Write {
		// A container, one of its subcommands, and what may block: the arguments decide.
		if !cmd.HasSubcommands() && len(cmd.Name) == len(a.At(0)) && cmd.Flags&command.Blocking == 0 {
			l.name = append(l.name[:0], a.At(0)...)
			l.cmd, l.kind = cmd, kind
		}
	}
	return cmd, kind
}

// arityOK says whether the server accepts the number of arguments.
func (it *item) arityOK() bool { return it.cmd.ArityOK(it.after - it.first) }

func (s *Server) newWorker(ctx context.Context, dials *sync.WaitGroup) (*worker, error) {
	loop, err := eventloop.NewLoop()
	if err != nil {
		return nil, err
	}
	w := &worker{
		srv: s, opt: &s.opt, loop: loop,
		view:     &topology.View{},
		table:    s.table.Load(),
		fences:   s.fences,
		sampler:  s.sampler,
		held:     make(map[*session]struct{}),
		sessions: make(map[*session]struct{}),
		lanes:    make(map[backend.Identity]*lanes),
		pinned:   make(map[backend.Identity][]*backend.Pipeline),
		spares:   make(map[backend.Identity]struct{}),
	}
	w.env = backend.Env{
		Loop:      loop,
		Dialer:    s.dialer(),
		Ctx:       ctx,
		Dials:     dials,
		OnReady:   w.connected,
		OnFailure: w.failed,
	}
	loop.Every(sweepEvery, w.sweep)
	w.holdTimer = loop.After(holdEvery, w.releaseHeld)
	w.stalls.timer = loop.After(stallEvery, w.lookForStalls)
	w.near.zone, w.near.zones = s.opt.Zone, s.opt.Zones
	w.indexed.look = w.lookAtIndexed
	w.indexed.timer = loop.After(0, w.lookAtIndexed)
	return w, nil
}

// newPipeline makes a connection whose replies are counted with the node's.
func (w *worker) newPipeline(n *topology.Node, id backend.Identity, master bool) *backend.Pipeline {
	p := backend.New(&w.env, n, id, master, nil)
	p.Answered = w.stats.answered(n, master)
	return p
}

// setView takes a new picture of the nodes; an older one than the last is not
// taken.
func (w *worker) setView(v *topology.View) {
	if v.Epoch < w.view.Epoch {
		return
	}
	w.view = v
	w.near.setView(v)
	for _, ln := range w.lanes {
		ln.apply(v)
		ln.open()
	}
	w.keepReady()
	for id, idle := range w.pinned {
		kept := idle[:0]
		for _, p := range idle {
			if p.Node == v.Master {
				kept = append(kept, p)
			} else {
				w.nPinned--
				p.Close(backend.ErrNodeDown)
			}
		}
		w.pinned[id] = kept
	}
	w.releaseHeld()
	for s := range w.sessions {
		if s.pin != nil && s.pin.Node != v.Master {
			s.pin.Close(backend.ErrNodeDown)
		}
		s.applyDetached(v)
	}
}

// takePinned returns a connection to the master that is the session's alone,
// nil where there is no master.
func (w *worker) takePinned(id backend.Identity, t backend.Tunnel) *backend.Pipeline {
	if w.view.Master == nil || w.paused {
		return nil
	}
	idle := w.pinned[id]
	for len(idle) > 0 {
		p := idle[len(idle)-1]
		idle = idle[:len(idle)-1]
		w.nPinned--
		if p.State() == backend.Ready {
			w.pinned[id] = idle
			p.SetTunnel(t)
			if len(idle) == 0 {
				w.openSpare(id)
			}
			return p
		}
	}
	delete(w.pinned, id)
	p := w.newPipeline(w.view.Master, id, true)
	p.SetTunnel(t)
	p.WhenReady(func(err error) {
		if err == nil {
			w.openSpare(id)
		}
	})
	return p
}

// openSpare makes a connection ahead for the next session of this identity that
// needs one of its own: where one did, others do, and then what they send
// reaches the node as soon as a command on a shared connection would. It is begun
// a little later: what this one is for goes first, see ownConns.setUp.
func (w *worker) openSpare(id backend.Identity) {
	w.loop.Post(func() { w.dialSpare(id) })
}

func (w *worker) dialSpare(id backend.Identity) {
	_, ok := w.spares[id]
	if ok || w.view.Master == nil || w.paused || w.nPinned+len(w.spares) >= maxIdlePinned || w.draining {
		return
	}
	w.spares[id] = struct{}{}
	p := w.newPipeline(w.view.Master, id, true)
	p.WhenReady(func(err error) {
		delete(w.spares, id)
		if err != nil || w.draining {
			p.Close(backend.ErrRelease)
			return
		}
		w.givePinned(id, p)
	})
}

// givePinned keeps a connection without state for the next session.
func (w *worker) givePinned(id backend.Identity, p *backend.Pipeline) {
	p.SetTunnel(nil) // or the session, pinned anew by then, would be told of the close
	if w.nPinned >= maxIdlePinned || p.State() != backend.Ready || p.InFlight() > 0 || p.Node != w.view.Master {
		p.Close(backend.ErrRelease)
		return
	}
	w.pinned[id] = append(w.pinned[id], p)
	w.nPinned++
}

// sweep closes what has been idle for too long.
func (w *worker) sweep() {
	now := w.loop.Now()
	if len(w.doubted) > 0 {
		w.askForDoubts()
	}
	for s := range w.sessions {
		s.sweep(now)
	}
	w.keepReady()
	for _, ln := range w.lanes {
		if now-ln.lastUsed > int64(lanesIdle) {
			w.dropLanes(ln)
		}
	}
	for id, idle := range w.pinned {
		if len(idle) > 0 && now-idle[0].LastUsed > int64(lanesIdle) {
			idle[0].Close(backend.ErrRelease)
			w.nPinned--
			w.pinned[id] = idle[1:]
		}
		if len(w.pinned[id]) == 0 {
			delete(w.pinned, id)
		}
	}
}

// dropLanes closes shared connections that no session has.
func (w *worker) dropLanes(ln *lanes) {
	if ln.sessions == 0 {
		ln.close(backend.ErrRelease)
		delete(w.lanes, ln.id)
	}
}

// askForDoubts makes a connection to the master, whose answer ends the doubts.
func (w *worker) askForDoubts() {
	if m := w.view.Master; m != nil {
		p := w.newPipeline(m, backend.Identity{Proto: 2}, true)
		p.WhenReady(func(error) { p.Close(backend.ErrRelease) })
	}
}

// drain lets every session finish what is in flight and closes it.
func (w *worker) drain() {
	w.draining = true
	w.releaseHeld() // what waits for a master is not in flight: it can be sent again to another proxy
	for s := range w.sessions {
		s.drain()
	}
}
