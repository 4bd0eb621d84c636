package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/proxy"
)

// adminCloseTimeout bounds how long a running scrape or profile holds up the end.
const adminCloseTimeout = 2 * time.Second

// instance is the proxy and its admin server, as serve and lab run them.
type instance struct {
	cfg   *config.Config // what is in force
	log   *zap.Logger
	level zap.AtomicLevel
	proxy *proxy.Server
	admin *admin.Server
}

// startInstance starts both; when it returns without an error they listen. It
// logs to stderr.
func startInstance(cfg *config.Config, stderr io.Writer) (*instance, error) {
	log, level, err := newLogger(cfg.Log, stderr)
	if err != nil {
		return nil, err
	}
	in := &instance{cfg: cfg, log: log, level: level}
	in.checkFileLimit()
	reg := admin.NewRegistry(version, revision(), runtime.Version())
	if in.proxy, err = proxy.New(cfg.ProxyOptions(log, reg)); err != nil {
		return nil, usageError{err}
	}
	// Not a context that a signal cancels: Start does not wait for the network,
	// and the proxy is ended by Close alone.
	if err := in.proxy.Start(context.Background()); err != nil {
		return nil, err
	}
	in.admin = admin.New(admin.Options{Listen: cfg.Admin.Listen, Status: in.proxy.Status, Gatherer: reg, Logger: log})
	if err := in.admin.Start(); err != nil {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // nothing to drain
		return nil, errors.Join(err, drained(in.proxy.Close(ctx)))
	}
	in.logStart()
	return in, nil
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

func (in *instance) logStart() {
	cpus := runtime.GOMAXPROCS(0) // as Go has it: of the cgroup, not of the machine
	loops := in.cfg.Loops
	if loops == 0 {
		loops = cpus
	}
	var listeners []string
	for _, a := range in.proxy.Addrs() {
		listeners = append(listeners, a.Network()+" "+a.String())
	}
	in.log.Info("sluice is listening",
		zap.String("version", version), zap.Strings("listeners", listeners),
		zap.Stringer("admin", in.admin.Addr()), zap.String("master", in.cfg.Master),
		zap.Int("loops", loops), zap.Int("gomaxprocs", cpus), zap.Int("pid", os.Getpid()))
	if loops > cpus {
		in.log.Warn("more event loops than processors: they take turns; lower loops or raise GOMAXPROCS",
			zap.Int("loops", loops), zap.Int("gomaxprocs", cpus))
	}
}

// failure says why the proxy or the admin server has ended by itself. Call it
// when Done of one of them is closed.
func (in *instance) failure() error {
	select {
	case <-in.proxy.Done():
		if err := in.proxy.Err(); err != nil {
			return fmt.Errorf("the proxy has failed: %w", err)
		}
		return errors.New("the proxy has ended by itself")
	default:
		return in.admin.Err()
	}
}

// close drains the proxy and ends both. Another SIGINT or SIGTERM ends the drain.
func (in *instance) close(signals <-chan os.Signal) error {
	in.admin.Drain()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	closed := make(chan error, 1)
	go func() { closed <- in.proxy.Close(ctx) }()
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
	if err != nil && drained(err) == nil {
		in.log.Warn("requests were still in flight when the drain ended", zap.Error(err))
	}
	adminCtx, cancelAdmin := context.WithTimeout(context.Background(), adminCloseTimeout)
	defer cancelAdmin()
	err = errors.Join(drained(err), in.admin.Close(adminCtx))
	in.log.Info("sluice has stopped")
	_ = in.log.Sync() // a terminal or pipe cannot be synced; nothing is lost
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
