package proxy

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp/command"
)

// unknownVersion is what HELLO tells until a master has told its version.
const unknownVersion = "7.0.0"

// ErrNotDrained says that Close ended clients that still waited for replies.
var ErrNotDrained = errors.New("clients were disconnected before all their replies had come")

// Server is the proxy: listeners, event loops and the view of the nodes. Its
// methods may be called by any goroutine, Start and Close once each.
type Server struct {
	opt  Options
	log  *zap.Logger
	topo *topology.Static

	table   atomic.Pointer[route.Table]
	version atomic.Pointer[string]

	fences  *causal.Fences  // nil where no listener is causal
	sampler *causal.Sampler // likewise

	workers   []*worker
	listeners []*boundListener

	clients atomic.Int64  // connected now
	nextID  atomic.Uint64 // of a session
	empty   chan struct{} // told when the last client has left; capacity 1

	cancel context.CancelCauseFunc // ends topology and dials
	dials  sync.WaitGroup
	wg     sync.WaitGroup // loops and topology
	done   chan struct{}
	fatal  atomic.Pointer[error]
	once   sync.Once
}

// boundListener is a Listener with its socket.
type boundListener struct {
	Listener
	ln *eventloop.Listener
	w  *worker // whose loop accepts
}

// New checks o and returns a server that does not listen yet. It does no I/O.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{opt: o, log: o.Logger, empty: make(chan struct{}, 1), done: make(chan struct{})}
	s.table.Store(route.NewTable(command.Builtin(), o.DeniedCommands))
	if slices.ContainsFunc(o.Listeners, func(l Listener) bool { return l.Consistency == ConsistencyCausal }) {
		s.fences = causal.NewFences()
	}
	v := unknownVersion
	s.version.Store(&v)
	s.topo = topology.NewStatic(topology.Config{
		Master: o.Master, Replicas: o.Replicas,
		User: o.User, Password: o.Password,
		ObserveEvery: o.ObserveEvery, DiscoverEvery: o.DiscoverEvery,
		HealthTimeout: o.HealthTimeout, ConnectTimeout: o.ConnectTimeout,
		MaxLagBytes: o.MaxLagBytes, MaxLag: o.MaxLag,
		OnMaster: s.masterKnown,
		Logger:   o.Logger.Named("topology"),
	})
	return s, nil
}

// Start binds the listeners and starts the loops and the topology. It returns
// once clients can connect; it does not wait for a node.
func (s *Server) Start(ctx context.Context) (err error) {
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cancel = cancel
	if s.fences != nil {
		d := &backend.Dialer{Timeout: s.opt.ConnectTimeout, User: s.opt.User, Password: s.opt.Password}
		s.sampler = causal.NewSampler(run, s.fences, causal.Config{
			Dial: d.Connect, Timeout: s.opt.HealthTimeout, Logger: s.log.Named("sampler"),
		})
	}
	for range s.opt.Loops {
		w, err := s.newWorker(run, &s.dials)
		if err != nil {
			return errors.Join(err, s.abort())
		}
		s.workers = append(s.workers, w)
	}
	for i, l := range s.opt.Listeners {
		ln, err := eventloop.Listen(ctx, l.Network, l.Address)
		if err != nil {
			return errors.Join(fmt.Errorf("listen on %s %s: %w", l.Network, l.Address, err), s.abort())
		}
		b := &boundListener{Listener: l, ln: ln, w: s.workers[i%len(s.workers)]}
		s.listeners = append(s.listeners, b)
	}
	for _, w := range s.workers {
		s.wg.Go(func() {
			if err := w.loop.Run(); err != nil {
				s.fail(err)
			}
		})
	}
	for _, b := range s.listeners {
		b.w.loop.Post(func() {
			if err := b.w.loop.Serve(b.ln, func(fd int) { s.accept(b, fd) }); err != nil {
				s.fail(err)
			}
		})
	}
	s.topo.Subscribe(func(v *topology.View) {
		if s.sampler != nil {
			s.sampler.Update(v)
		}
		for _, w := range s.workers {
			w.loop.Post(func() { w.setView(v) })
		}
	})
	s.wg.Go(func() {
		if err := s.topo.Run(run); err != nil {
			s.fail(err)
		}
	})
	if s.opt.Registerer != nil {
		return s.opt.Registerer.Register(newCollector(s))
	}
	return nil
}

// abort undoes a Start that failed before any loop ran.
func (s *Server) abort() error {
	s.cancel(eventloop.ErrClosed)
	for _, b := range s.listeners {
		b.ln.Close()
	}
	var err error
	for _, w := range s.workers {
		w.loop.Stop()
		err = errors.Join(err, w.loop.Run())
	}
	return err
}

// fail ends the server's usefulness: Done is closed and Err tells why.
func (s *Server) fail(err error) {
	s.once.Do(func() {
		s.fatal.Store(&err)
		close(s.done)
	})
}

// Done is closed when the server has failed and must be closed.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns why Done is closed, nil before.
func (s *Server) Err() error {
	if p := s.fatal.Load(); p != nil {
		return *p
	}
	return nil
}

// Addrs returns the addresses of the listeners, in the order of the options.
func (s *Server) Addrs() []net.Addr {
	var a []net.Addr
	for _, b := range s.listeners {
		a = append(a, b.ln.Addr())
	}
	return a
}

// Close stops accepting, lets clients have the replies they wait for until ctx
// is done or the drain timeout is over, and ends everything that Start began.
// It returns [ErrNotDrained] where clients were cut off.
func (s *Server) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.opt.DrainTimeout)
	defer cancel()
	for _, b := range s.listeners {
		b.w.loop.Post(b.ln.Close)
	}
	for _, w := range s.workers {
		w.loop.Post(w.drain)
	}
	err := s.awaitEmpty(ctx)
	s.cancel(eventloop.ErrClosed)
	for _, w := range s.workers {
		w.loop.Stop()
	}
	s.wg.Wait()
	s.dials.Wait()
	if s.sampler != nil {
		s.sampler.Wait()
	}
	return err
}

func (s *Server) awaitEmpty(ctx context.Context) error {
	for s.clients.Load() > 0 {
		select {
		case <-s.empty:
		case <-s.done:
			return s.Err()
		case <-ctx.Done():
			return ErrNotDrained
		}
	}
	return nil
}

// accept takes a new client. It runs on the loop of the listener and owns fd.
func (s *Server) accept(b *boundListener, fd int) {
	if s.clients.Add(1) > int64(s.opt.MaxClients) {
		s.clients.Add(-1)
		b.w.stats.refused++
		eventloop.Refuse(fd, "-ERR max number of clients reached\r\n")
		return
	}
	w := s.workers[0]
	for _, o := range s.workers[1:] {
		if o.loop.Conns() < w.loop.Conns() {
			w = o
		}
	}
	num := s.nextID.Add(1)
	if w == b.w {
		w.adopt(b, fd, num)
		return
	}
	if !w.loop.Post(func() { w.adopt(b, fd, num) }) {
		s.clientGone()
		eventloop.CloseFD(fd)
	}
}

// adopt makes a session of a descriptor.
func (w *worker) adopt(b *boundListener, fd int, num uint64) {
	sess := w.newSession(b, num)
	if err := w.loop.Attach(sess.conn, fd); err != nil {
		eventloop.CloseFD(fd)
		sess.conn.Close(err)
		return
	}
	w.stats.accepted++
	if w.draining {
		sess.drain()
	}
}

func (s *Server) clientGone() {
	if s.clients.Add(-1) == 0 {
		select {
		case s.empty <- struct{}{}:
		default:
		}
	}
}

// masterKnown is called by the topology for each run of a master.
func (s *Server) masterKnown(m topology.MasterInfo) {
	if m.Version != "" {
		s.version.Store(&m.Version)
	}
	over, err := command.Parse(m.Command)
	if err != nil {
		s.log.Warn("the master's answer to COMMAND is not understood; the built-in command table stays in use", zap.Error(err))
		return
	}
	t := route.NewTable(command.Builtin().Overlay(over), s.opt.DeniedCommands)
	s.table.Store(t)
	for _, w := range s.workers {
		w.loop.Post(func() { w.table, w.last = t, lastCommand{} })
	}
}

func (s *Server) serverVersion() string { return *s.version.Load() }

// nodeFailed is told by the loops of connections that failed.
func (s *Server) nodeFailed(n *topology.Node, err error) {
	s.topo.ReportFailure(n)
	s.log.Debug("connection to node failed", zap.String("node", n.Addr), zap.Error(err))
}

// Status describes the server.
func (s *Server) Status() Status {
	v := s.topo.View()
	st := Status{Ready: v.Master != nil, Epoch: v.Epoch, Clients: int(s.clients.Load())}
	for _, b := range s.listeners {
		st.Listeners = append(st.Listeners, b.Network+" "+b.ln.Addr().String())
	}
	counts := s.snapshot().byNode()
	for _, ns := range v.States {
		n := ns.Node
		st.Nodes = append(st.Nodes, NodeStatus{
			Address: n.Addr, Role: ns.Role.String(), Up: ns.Up, Reads: ns.Reads, Reason: ns.Reason,
			Offset: int64(n.Offset()), LagBytes: n.LagBytes(), LagSeconds: n.LagSeconds(),
			Commands: counts[n.Index],
		})
	}
	return st
}

// DefaultDeniedCommands are refused unless the options say otherwise: they
// would change a node's role, stop it, or begin a replication stream.
func DefaultDeniedCommands() []string {
	return []string{
		"shutdown", "replicaof", "slaveof", "failover", "sync", "psync", "replconf", "module", "debug",
		"cluster|addslots", "cluster|addslotsrange", "cluster|bumpepoch", "cluster|delslots", "cluster|delslotsrange",
		"cluster|failover", "cluster|flushslots", "cluster|forget", "cluster|meet", "cluster|replicate",
		"cluster|reset", "cluster|saveconfig", "cluster|set-config-epoch", "cluster|setslot",
	}
}

// complete checks the options and fills in the defaults.
func (o *Options) complete() error {
	if o.Master == "" {
		return errors.New("check options: no master: give HOST:PORT of the master")
	}
	if len(o.Listeners) == 0 {
		o.Listeners = []Listener{{Network: "tcp", Address: DefaultListen}}
	}
	setDefault(&o.Loops, runtime.GOMAXPROCS(0))
	setDefault(&o.MaxClients, DefaultMaxClients)
	setDefault(&o.MaxInFlight, DefaultMaxInFlight)
	setDefault(&o.OutputHighWater, DefaultOutputHighWater)
	setDefault(&o.OutputHardLimit, DefaultOutputHardLimit)
	setDefault(&o.MaxLagBytes, DefaultMaxLagBytes)
	setDefault(&o.MaxLag, DefaultMaxLag)
	setDefault(&o.ObserveEvery, DefaultObserveEvery)
	setDefault(&o.DiscoverEvery, DefaultDiscoverEvery)
	setDefault(&o.HealthTimeout, DefaultHealthTimeout)
	setDefault(&o.ConnectTimeout, DefaultConnectTimeout)
	setDefault(&o.DrainTimeout, DefaultDrainTimeout)
	if o.FailoverHold == 0 {
		o.FailoverHold = DefaultFailoverHold
	}
	if o.DeniedCommands == nil {
		o.DeniedCommands = DefaultDeniedCommands()
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	for i := range o.Listeners {
		l := &o.Listeners[i]
		if l.Consistency == "" {
			l.Consistency = DefaultConsistency
		}
		if l.Network != "tcp" && l.Network != "unix" {
			return fmt.Errorf("check options: listener %d: network %q: want tcp or unix", i, l.Network)
		}
	}
	return nil
}

func setDefault[T int | int64 | time.Duration](v *T, dflt T) {
	if *v <= 0 {
		*v = dflt
	}
}

// policy says where the listener's reads go.
func (l *Listener) policy() route.Policy {
	switch {
	case l.Consistency == ConsistencyMaster || l.ReadFrom == ReadFromMaster:
		return route.OnlyMaster
	case l.ReadFrom == ReadFromNearest:
		return route.Nearest
	}
	return route.PreferReplica
}

// openAccess reports whether clients need not authenticate: our own
// credentials are never lent to a client.
func (o *Options) openAccess() bool { return o.Password == "" }
