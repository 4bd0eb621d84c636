package proxy

import (
	"context"
	"crypto/tls"
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

	started time.Time         // set by Start
	journal *topology.Journal // of what happened to the nodes

	live     atomic.Pointer[Options] // opt with what has been reloaded
	tableMu  sync.Mutex
	commands *command.Table // guarded by tableMu
	table    atomic.Pointer[route.Table]
	version  atomic.Pointer[string]
	hello    atomic.Pointer[[]any] // what HELLO tells, see hello.go
	scripts  *scripts
	own      *ownConns

	fences  *causal.Fences  // nil where no listener is causal or linearizable
	sampler *causal.Sampler // of the master, and with fences of the replicas
	gate    viewGate
	losses  lossCounts

	switching atomic.Bool // a planned failover is under way

	workers []*worker

	listenMu  sync.Mutex
	listeners []*boundListener // guarded by listenMu
	binds     int              // guarded by listenMu: listeners that were bound so far
	closing   bool             // guarded by listenMu: no more are

	clients atomic.Int64  // connected now
	nextID  atomic.Uint64 // of a session
	empty   chan struct{} // told when the last client has left; capacity 1

	upstreamTLS  atomic.Pointer[tls.Config] // to the nodes; nil: plain
	sentinelTLS  atomic.Pointer[tls.Config] // to the sentinels, likewise
	clientTLS    tlsCounts
	nodeTLS      tlsCounts
	greetLog     rateLog
	headerLog    rateLog
	headerFaults headerCounts
	authLog      rateLog
	waitLog      rateLog
	refusals     refusals
	nodeTLSLog   rateLog

	cancel      context.CancelCauseFunc // ends topology and dials
	greeting    context.Context         // of clients that have no session yet
	stopGreeted context.CancelFunc
	dials       sync.WaitGroup // also greetings
	wg          sync.WaitGroup // loops and topology
	done        chan struct{}
	fatal       atomic.Pointer[error]
	once        sync.Once
}

// New checks o and returns a server that does not listen yet. It does no I/O.
func New(o Options) (*Server, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	s := &Server{opt: o, log: o.Logger, journal: topology.NewJournal(), scripts: newScripts(), own: newOwnConns(), empty: make(chan struct{}, 1), done: make(chan struct{})}
	s.live.Store(&o)
	s.commands = command.Builtin()
	s.table.Store(route.NewTable(s.commands, o.DeniedCommands))
	if slices.ContainsFunc(o.Listeners, func(l Listener) bool { return l.fenced() }) {
		s.fences = causal.NewFences()
	}
	v := unknownVersion
	s.version.Store(&v)
	s.noteHello(nil, v)
	s.greetLog.log, s.headerLog.log, s.nodeTLSLog.log, s.authLog.log, s.waitLog.log = s.log, s.log, s.log, s.log, s.log
	var nodeTLS func() *tls.Config
	if o.TLS != nil {
		s.upstreamTLS.Store(sealWhole(o.TLS))
		nodeTLS = s.upstreamTLS.Load
	}
	sentinel := o.Sentinel
	if sentinel.TLS != nil {
		s.sentinelTLS.Store(sentinel.TLS())
		sentinel.TLS = s.sentinelTLS.Load
	}
	s.topo = topology.NewStatic(topology.Config{
		Master: o.Master, Replicas: o.Replicas, Sentinel: sentinel,
		User: o.User, Password: o.Password, TLS: nodeTLS, OnError: s.nodeError,
		ObserveEvery: o.ObserveEvery, DiscoverEvery: o.DiscoverEvery,
		HealthTimeout: o.HealthTimeout, ConnectTimeout: o.ConnectTimeout,
		MaxLagBytes: o.MaxLagBytes, MaxLag: o.MaxLag,
		OnMaster: s.masterKnown, OnConn: s.own.asks,
		Logger: o.Logger.Named("topology"),
	})
	return s, nil
}

// Start binds the listeners and starts the loops and the topology. It raises
// GOMAXPROCS above the number of loops, if it is not. It returns
// once clients can connect; it does not wait for a node.
func (s *Server) Start(ctx context.Context) (err error) {
	run, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	s.cancel, s.started = cancel, time.Now()
	s.greeting, s.stopGreeted = context.WithCancel(run)
	s.newSampler(run)
	if n := s.opt.Loops + 1; runtime.GOMAXPROCS(0) < n { // see eventloop.Loop.Run
		runtime.GOMAXPROCS(n)
	}
	for range s.opt.Loops {
		w, err := s.newWorker(run, &s.dials)
		if err != nil {
			return errors.Join(err, s.abort())
		}
		s.workers = append(s.workers, w)
	}
	listeners, err := s.bind(ctx, s.opt.Listeners)
	if err != nil {
		return errors.Join(err, s.abort())
	}
	s.setListeners(listeners)
	for _, w := range s.workers {
		s.wg.Go(func() {
			if err := w.loop.Run(); err != nil {
				s.fail(err)
			}
		})
	}
	for _, b := range listeners {
		s.serve(b)
	}
	s.topo.Subscribe(s.spread)
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
	for _, b := range s.bound() {
		a = append(a, b.ln.Addr())
	}
	return a
}

// Close stops accepting, lets clients have the replies they wait for until ctx
// is done or the drain timeout is over, and ends everything that Start began.
// It returns [ErrNotDrained] where clients were cut off.
func (s *Server) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.live.Load().DrainTimeout)
	defer cancel()
	for _, b := range s.closeListeners() {
		b.w.loop.Post(b.ln.Close)
	}
	s.stopGreeted()
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
	s.sampler.Wait()
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

// accept takes a new client. It runs on the loop of the listener and owns sock.
func (s *Server) accept(b *boundListener, sock eventloop.Socket) {
	if s.clients.Add(1) > int64(s.live.Load().MaxClients) {
		s.clientGone()
		b.w.stats.refused++
		if b.tls.Load() != nil {
			sock.Close() // as Redis: before the handshake nothing can be said
		} else {
			sock.Refuse("-ERR max number of clients reached\r\n")
		}
		return
	}
	num := s.nextID.Add(1)
	if b.greets() {
		s.dials.Go(func() { s.greet(s.greeting, b, sock, num) })
		return
	}
	w := s.idlest()
	if w == b.w {
		w.adopt(b, sock, num, "")
		return
	}
	if !w.loop.Post(func() { w.adopt(b, sock, num, "") }) {
		s.clientGone()
		sock.Close()
	}
}

// idlest returns the worker with the fewest connections.
func (s *Server) idlest() *worker {
	w := s.workers[0]
	for _, o := range s.workers[1:] {
		if o.loop.Conns() < w.loop.Conns() {
			w = o
		}
	}
	return w
}

// adopt makes a session of a socket. addr is the client's address where
// something in between has told it.
func (w *worker) adopt(b *boundListener, sock eventloop.Socket, num uint64, addr string) {
	sess := w.newSession(b, num)
	sess.addr = addr
	if err := w.loop.Attach(sess.conn, sock); err != nil {
		sock.Close()
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
	s.scripts.newMaster()
	if m.Version != "" {
		s.version.Store(&m.Version)
	}
	s.noteHello(m.Hello, s.serverVersion())
	over, err := command.Parse(m.Command)
	if err != nil {
		s.log.Warn("the master's answer to COMMAND is not understood; the built-in command table stays in use", zap.Error(err))
		return
	}
	s.setTable(command.Builtin().Overlay(over))
}

// WatchMaster has fn called with the address, HOST:PORT, of the master and of
// each that takes its place, until cancel is called. fn is called by the
// topology's goroutine and must not block. Any goroutine may call both.
func (s *Server) WatchMaster(fn func(addr string)) (cancel func()) {
	var last string
	return s.topo.Subscribe(func(v *topology.View) {
		if v.Master != nil && v.Master.Addr != last {
			last = v.Master.Addr
			fn(last)
		}
	})
}

func (s *Server) serverVersion() string { return *s.version.Load() }

// sampled is told by the sampler of each sample.
func (s *Server) sampled() {
	for _, w := range s.workers {
		w.sampled()
	}
}

// dialer makes connections to the nodes as the options say.
func (s *Server) dialer() *backend.Dialer {
	return &backend.Dialer{
		Timeout: func() time.Duration { return s.live.Load().ConnectTimeout }, User: s.opt.User, Password: s.opt.Password, TLS: s.upstreamTLS.Load,
		OnSetup: s.own.setUp,
	}
}

// nodeFailed is told by the loops of connections that failed.
func (s *Server) nodeFailed(n *topology.Node, err error) {
	s.topo.ReportFailure(n)
	s.nodeError(n.Addr, err)
	s.log.Debug("connection to node failed", zap.String("node", n.Addr), zap.Error(err))
}

// failed is told of a connection that could not be made or has died.
func (w *worker) failed(p *backend.Pipeline, err error) {
	if !w.setupRefused(p, err) { // else the node is well
		w.srv.nodeFailed(p.Node, err)
	}
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
	if o.Master == "" && o.Sentinel.Name == "" {
		return errors.New("check options: no master: give HOST:PORT of the master, or sentinels")
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
	setDefault(&o.RefusalRest, DefaultRefusalRest)
	if o.AuthTimeout == 0 {
		o.AuthTimeout = DefaultAuthTimeout
	}
	setDefault(&o.IndexWait, DefaultIndexWait)
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
		if err := l.checkTrust(i); err != nil {
			return err
		}
	}
	return o.checkAuth()
}

func setDefault[T int | int64 | time.Duration](v *T, dflt T) {
	if *v <= 0 {
		*v = dflt
	}
}
