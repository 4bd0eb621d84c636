package proxy

import (
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp/command"
)

// Reload takes from o what can change while the server runs; the rest of o is
// not looked at. Nobody is disconnected:
//   - Listeners, by their network and address: new ones are opened, and those that
//     are missing closed, which ends no client. What reads may return and who may
//     answer them, at once for clients of whom nothing is in flight.
//   - TLS of the listeners, to the nodes and to the sentinels, the PROXY
//     protocol, auth and users: for new connections. Whether there is TLS to the
//     nodes, or the sentinels, at all does not change.
//   - The denied commands, the limits of clients and the timeouts for idle
//     clients, logins, failover and drain, the limits on lag, the timeouts for
//     connections to nodes and for their answers: at once; the limits of output
//     for new connections.
//
// On an error nothing has changed. One goroutine at a time may call it.
func (s *Server) Reload(o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	next := *s.live.Load()
	next.Auth, next.Users = o.Auth, o.Users
	next.DeniedCommands = o.DeniedCommands
	next.MaxClients, next.MaxInFlight = o.MaxClients, o.MaxInFlight
	next.OutputHighWater, next.OutputHardLimit = o.OutputHighWater, o.OutputHardLimit
	next.IdleTimeout, next.AuthTimeout = o.IdleTimeout, o.AuthTimeout
	next.FailoverHold, next.DrainTimeout = o.FailoverHold, o.DrainTimeout
	next.MaxLagBytes, next.MaxLag = o.MaxLagBytes, o.MaxLag
	next.HealthTimeout, next.ConnectTimeout = o.HealthTimeout, o.ConnectTimeout
	if err := s.reloadListeners(&o); err != nil {
		return err
	}
	s.live.Store(&next)
	s.topo.SetLimits(topology.Limits{
		HealthTimeout: o.HealthTimeout, ConnectTimeout: o.ConnectTimeout, MaxLagBytes: o.MaxLagBytes, MaxLag: o.MaxLag,
	})
	if o.TLS != nil && s.opt.TLS != nil {
		s.upstreamTLS.Store(sealWhole(o.TLS))
	}
	if o.Sentinel.TLS != nil && s.opt.Sentinel.TLS != nil {
		s.sentinelTLS.Store(o.Sentinel.TLS())
	}
	for _, w := range s.workers {
		w.loop.Post(func() { w.opt = &next })
	}
	s.setTable(nil)
	return nil
}

// setTable gives the loops a new table: of these commands, nil for those that
// are known, without those that are denied now.
func (s *Server) setTable(commands *command.Table) {
	s.tableMu.Lock()
	defer s.tableMu.Unlock()
	if commands != nil {
		s.commands = commands
	}
	t := route.NewTable(s.commands, s.live.Load().DeniedCommands)
	s.table.Store(t)
	for _, w := range s.workers {
		w.loop.Post(func() { w.table, w.last = t, lastCommand{} })
	}
}
