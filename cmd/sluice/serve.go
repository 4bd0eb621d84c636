package main

import (
	"slices"
	"syscall"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
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
	for {
		select {
		case sig := <-e.signals:
			if sig == syscall.SIGHUP {
				c.reload(in)
				continue
			}
			in.log.Info("draining: no new clients, requests in flight are finished", zap.Stringer("signal", sig))
			return in.close(e.signals)
		case <-in.proxy.Done():
		case <-in.admin.Done():
		}
		err := in.failure()
		in.log.Error("stopping after a failure", zap.Error(err))
		_ = in.close(e.signals) // what failed first is what counts
		return err
	}
}

// reload applies what can change while running: the log level. For the rest it
// says what needs a restart. A bad configuration changes nothing.
func (c *serveCmd) reload(in *instance) {
	next, err := config.Load(c.Config, c.Flags)
	if err != nil {
		in.log.Error("reload failed: the old configuration stays in force", zap.Error(err))
		return
	}
	keys := config.Changed(in.cfg, next)
	if i := slices.Index(keys, "log.level"); i >= 0 {
		level, err := zap.ParseAtomicLevel(next.Log.Level)
		if err != nil {
			in.log.Error("reload failed: the old configuration stays in force", zap.Error(err))
			return
		}
		in.log.Info("reload: log level changed", zap.String("from", in.cfg.Log.Level), zap.String("to", next.Log.Level))
		in.level.SetLevel(level.Level())
		in.cfg.Log.Level = next.Log.Level
		if keys = slices.Delete(keys, i, i+1); len(keys) == 0 {
			return
		}
	}
	if len(keys) == 0 {
		in.log.Info("reload: nothing has changed", zap.String("config", c.Config))
		return
	}
	in.log.Warn("reload: these keys have changed and need a restart; until then their old values stay in force", zap.Strings("keys", keys))
}
