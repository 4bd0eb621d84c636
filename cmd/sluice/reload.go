package main

import (
	"crypto/tls"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
	"github.com/sluice-io/sluice/proxy"
)

// reload applies what can change while running, certificates first, and says by
// name what needs a restart. A bad configuration, or a certificate that cannot
// be loaded, changes nothing.
func (c *serveCmd) reload(in *instance) {
	failed := func(err error) {
		in.log.Error("reload failed: the old configuration stays in force", zap.Error(err))
	}
	next, err := config.Load(c.Config, c.Flags)
	if err != nil {
		failed(err)
		return
	}
	live := in.cfg.WithLive(next)
	opt, err := live.ProxyOptions(in.log, nil)
	if err != nil {
		failed(err)
		return
	}
	level, err := zap.ParseAtomicLevel(live.Log.Level)
	if err != nil {
		failed(err)
		return
	}
	applied := config.Changed(in.cfg, live)
	if in.proxy != nil {
		if err := in.proxy.Reload(opt); err != nil {
			failed(err)
			return
		}
	}
	in.nodeTLS.Store(&live.Upstream.TLS)
	if i := slices.Index(applied, "log.level"); i >= 0 {
		in.log.Info("reload: log level changed", zap.String("from", in.cfg.Log.Level), zap.String("to", live.Log.Level))
		in.level.SetLevel(level.Level())
		applied = slices.Delete(applied, i, i+1)
		if len(applied) == 0 && len(config.Changed(live, next)) == 0 {
			in.cfg = live
			return
		}
	}
	in.cfg = live
	certs := certificates(opt)
	if len(certs) > 0 {
		in.log.Info("reload: certificates have been read again; they hold for new connections", zap.Strings("certificates", certs))
	}
	if len(applied) > 0 {
		in.log.Info("reload: applied", zap.Strings("keys", applied))
	}
	restart := config.Changed(live, next)
	if len(restart) > 0 {
		in.log.Warn("reload: these keys have changed and need a restart; until then their old values stay in force", zap.Strings("keys", restart))
	}
	if len(applied)+len(restart)+len(certs) == 0 {
		in.log.Info("reload: nothing has changed", zap.String("config", c.Config))
	}
}

// certificates describes those of all listeners and of the connections to the
// nodes.
func certificates(o proxy.Options) (out []string) {
	add := func(where string, cfg *tls.Config) {
		if cfg == nil {
			return
		}
		for _, c := range cfg.Certificates {
			if c.Leaf != nil {
				out = append(out, fmt.Sprintf("%s: %s until %s", where, c.Leaf.Subject, c.Leaf.NotAfter.UTC().Format(time.RFC3339)))
			}
		}
	}
	for _, l := range o.Listeners {
		add(l.Address, l.TLS)
	}
	add("to the nodes", o.TLS)
	if o.Sentinel.TLS != nil {
		add("to the sentinels", o.Sentinel.TLS())
	}
	return out
}
