package main

import (
	"syscall"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/cmd/sluice/internal/sdnotify"
)

// serveCmd is `sluice serve`.
type serveCmd struct {
	config.Flags
}

// Run serves until SIGTERM or SIGINT, or until something fails.
func (c *serveCmd) Run(e *env) error {
	cfg, err := config.Load(c.Config, c.Flags)
	if err != nil {
		return usageError{err}
	}
	in, err := startInstance(cfg, e.stderr)
	if err != nil {
		return err
	}
	in.tell(sdnotify.Ready("serving"))
	relayFailed := in.relayFailed()
	for {
		select {
		case sig := <-e.signals:
			if sig == syscall.SIGHUP {
				in.tell(sdnotify.Reloading())
				c.reload(in)
				in.tell(sdnotify.Ready("serving"))
				continue
			}
			in.tell(sdnotify.Stopping())
			in.log.Info("draining: no new clients, requests in flight are finished", zap.Stringer("signal", sig))
			return in.close(e.signals)
		case <-relayFailed:
			relayFailed = nil
			in.log.Error("the master is captured no longer; clients are still served", zap.Error(in.relay.Err()))
			continue
		case <-in.failed():
		case <-in.admin.Done():
		}
		err := in.failure()
		in.log.Error("stopping after a failure", zap.Error(err))
		_ = in.close(e.signals) // what failed first is what counts
		return err
	}
}

// tell logs that the service manager could not be told something: it may then
// stop us, but until then clients are served.
func (in *instance) tell(err error) {
	if err != nil {
		in.log.Warn("the service manager is not told what sluice does; is NOTIFY_SOCKET right, and may it be used?", zap.Error(err))
	}
}
