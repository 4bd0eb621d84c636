package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/syncer"
)

// adminCloseTimeout bounds how long a running scrape or profile holds up the end.
const adminCloseTimeout = 2 * time.Second

// instance is the proxy, the relay, or both, and their admin server, as serve and
// lab run them.
type instance struct {
	cfg   *config.Config // what is in force
	log   *zap.Logger
	level zap.AtomicLevel
	cpus  int           // as Go has it: of the cgroup, not of the machine
	proxy *proxy.Server // nil: no listeners
	relay *syncer.Relay // nil: no relay.dir
	admin *admin.Server

	nodeTLS atomic.Pointer[config.UpstreamTLS] // of cfg, for the relay's goroutines
}

// startInstance starts them; when it returns without an error they listen. It
// logs to stderr.
func startInstance(cfg *config.Config, stderr io.Writer) (*instance, error) {
	log, level, err := newLogger(cfg.Log, stderr)
	if err != nil {
		return nil, err
	}
	in := &instance{cfg: cfg, log: log, level: level, cpus: runtime.GOMAXPROCS(0)}
	in.nodeTLS.Store(&cfg.Upstream.TLS)
	in.checkFileLimit()
	reg := admin.NewRegistry(version, revision(), runtime.Version())
	if err := in.start(reg); err != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nothing to drain
		return nil, errors.Join(err, in.closeParts(ctx))
	}
	in.logStart()
	return in, nil
}

// start starts the parts. What it has started when it fails is to be closed.
func (in *instance) start(reg *prometheus.Registry) error {
	if in.cfg.HasRelay() { // first: a store that is not fit to use keeps clients away
		o, err := in.cfg.RelayOptions(in.log, reg)
		if err != nil {
			return usageError{err}
		}
		if in.cfg.Upstream.TLS.Enabled { // by what is in force then, after a reload
			o.Upstream.Dial = func(ctx context.Context, network, addr string) (net.Conn, error) {
				return in.nodeTLS.Load().Dial(ctx, network, addr)
			}
		}
		r, err := syncer.New(o)
		if err != nil {
			return usageError{err}
		}
		if err := r.Start(); err != nil {
			return err
		}
		in.relay = r
	}
	if in.cfg.HasProxy() {
		o, err := in.cfg.ProxyOptions(in.log, reg)
		if err != nil {
			return usageError{err}
		}
		p, err := proxy.New(o)
		if err != nil {
			return usageError{err}
		}
		if in.relay != nil {
			p.WatchMaster(in.relay.SetMaster) // for as long as it runs; the relay ends after it
		}
		// Not a context that a signal cancels: Start does not wait for the
		// network, and the proxy is ended by Close alone.
		if err := p.Start(context.Background()); err != nil {
			return err
		}
		in.proxy = p
	}
	o := admin.Options{Listen: in.cfg.Admin.Listen, Status: in.status, Gatherer: reg, Version: version, Logger: in.log}
	if in.proxy != nil {
		o.Failover = in.proxy.Failover
	}
	a := admin.New(o)
	if err := a.Start(); err != nil {
		return err
	}
	in.admin = a
	return nil
}

// status is what /api/status shows.
func (in *instance) status() (st admin.Status) {
	if in.relay != nil {
		r := in.relay.Status()
		st.Relay, st.Ready = &r, r.Ready
	}
	if in.proxy != nil {
		st.Status = in.proxy.Status()
	}
	return st
}

func (in *instance) checkFileLimit() {
	limit, err := raiseFileLimit()
	if err != nil {
		in.log.Warn("cannot raise the limit of open files", zap.Error(err))
	}
	if want := uint64(in.cfg.Limits.MaxClients) + reservedFiles; limit < want {
		in.log.Warn("the limit of open files is below limits.max_clients: clients beyond it cannot connect; raise it (ulimit -Hn, LimitNOFILE) or lower limits.max_clients",
			zap.Uint64("limit", limit), zap.Uint64("wanted", want))
	}
}

// relayAddr returns where replicas are served, empty where they are not.
func (in *instance) relayAddr() string {
	if in.relay == nil || in.relay.Server() == nil {
		return ""
	}
	return in.relay.Server().Addr().String()
}

func (in *instance) logStart() {
	loops := in.cfg.Loops
	if loops == 0 {
		loops = in.cpus
	}
	var listeners []string
	if in.proxy != nil {
		for _, a := range in.proxy.Addrs() {
			listeners = append(listeners, a.Network()+" "+a.String())
		}
	}
	in.log.Info("sluice is listening",
		zap.String("version", version), zap.Strings("listeners", listeners),
		zap.Stringer("admin", in.admin.Addr()), zap.String("master", in.cfg.Master),
		zap.String("sentinel", in.cfg.Sentinel.Name), zap.String("relay_dir", in.cfg.Relay.Dir), zap.String("relay", in.relayAddr()),
		zap.Int("loops", loops), zap.Int("cpus", in.cpus), zap.Int("pid", os.Getpid()))
	if loops > in.cpus {
		in.log.Warn("more event loops than processors: they take turns; lower loops or raise GOMAXPROCS",
			zap.Int("loops", loops), zap.Int("cpus", in.cpus))
	}
}

// failed is closed when a part has ended that the process is of no use without.
// A relay beside a proxy is none of these: clients go on being served.
func (in *instance) failed() <-chan struct{} {
	if in.proxy != nil {
		return in.proxy.Done()
	}
	return in.relay.Done()
}

// failure says why the process is of no use any more. Call it when failed or
// Done of the admin server is closed.
func (in *instance) failure() error {
	select {
	case <-in.failed():
		if in.proxy == nil {
			return in.relay.Err()
		}
		if err := in.proxy.Err(); err != nil {
			return fmt.Errorf("the proxy has failed: %w", err)
		}
		return errors.New("the proxy has ended by itself")
	default:
		return in.admin.Err()
	}
}

// relayFailed is closed when the relay beside a proxy has failed; nil where there
// are not both.
func (in *instance) relayFailed() <-chan struct{} {
	if in.relay == nil || in.proxy == nil {
		return nil
	}
	return in.relay.Done()
}

// close drains the proxy and ends all. Another SIGINT or SIGTERM ends the drain.
func (in *instance) close(signals <-chan os.Signal) error {
	in.admin.Drain()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- in.closeParts(ctx) }()
	var err error
	for waiting := true; waiting; {
		select {
		case err = <-closed:
			waiting = false
		case sig := <-signals:
			if sig != syscall.SIGHUP {
				in.log.Warn("a second signal: clients are disconnected without waiting", zap.Stringer("signal", sig))
				cancel()
			}
		}
	}
	in.log.Info("sluice has stopped")
	_ = in.log.Sync() // a terminal or pipe cannot be synced; nothing is lost
	return err
}

// closeParts ends what was started: the proxy once clients have their replies or
// ctx is done, then the relay, whose store takes what came meanwhile, and the
// admin server last, so that all of it can be watched.
func (in *instance) closeParts(ctx context.Context) (err error) {
	if in.proxy != nil {
		err = in.proxy.Close(ctx)
		if err != nil && drained(err) == nil {
			in.log.Warn("requests were still in flight when the drain ended", zap.Error(err))
		}
		err = drained(err)
	}
	if in.relay != nil {
		err = errors.Join(err, in.relay.Close())
	}
	if in.admin != nil {
		ctx, cancel := context.WithTimeout(context.Background(), adminCloseTimeout)
		defer cancel()
		err = errors.Join(err, in.admin.Close(ctx))
	}
	return err
}

// drained drops the error that says that a drain was cut short: whoever asked
// for the end has got it.
func drained(err error) error {
	if errors.Is(err, proxy.ErrNotDrained) {
		return nil
	}
	return err
}
