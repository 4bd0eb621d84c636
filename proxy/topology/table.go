package topology

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// tableFetch is the state of fetching COMMAND; owned by Run.
type tableFetch struct {
	running  bool
	of       string    // the run that it was asked from last
	failures int       // in that run; above 0 it has to be tried again
	tried    time.Time // when it last failed
	done     chan tableResult
}

type tableResult struct {
	addr string
	err  error
}

// fetchTable asks a master's COMMAND once per run of its process and gives it
// to Config.OnMaster. It is asked on a connection of its own: the answer
// is long, and the observer's next sample must not wait for it. A failure is
// logged once and tried again at the pace of discovery.
func (s *Static) fetchTable(ctx context.Context) {
	m, f := s.tracker.master, &s.table
	if s.cfg.OnMaster == nil || f.running || m == nil || !m.serves() {
		return
	}
	run := m.node.Addr + " " + m.runID
	retry := f.failures > 0 && time.Since(f.tried) >= s.cfg.DiscoverEvery
	switch {
	case run != f.of:
		f.failures = 0
	case !retry:
		return
	}
	f.running, f.of = true, run
	go func() {
		info, err := askCommand(ctx, &s.cfg, s.dial, m.node.Addr)
		if err == nil {
			s.cfg.OnMaster(info)
		}
		f.done <- tableResult{m.node.Addr, err}
	}()
}

// tableFetched notes how it went.
func (s *Static) tableFetched(r tableResult) {
	f := &s.table
	f.running = false
	if r.err == nil {
		f.failures = 0
		return
	}
	if f.failures, f.tried = f.failures+1, time.Now(); f.failures == 1 {
		s.cfg.Logger.Warn("COMMAND of the master failed and will be tried again; the built-in command table stays in use",
			zap.String("node", r.addr), zap.Error(r.err))
	}
}

func askCommand(ctx context.Context, cfg *Config, dial dialFunc, addr string) (MasterInfo, error) {
	c, err := connect(ctx, cfg, dial, addr)
	if err != nil {
		return MasterInfo{}, err
	}
	defer c.close()
	ctx, cancel := context.WithTimeout(ctx, cfg.limits().HealthTimeout)
	defer cancel()
	replies, err := c.ask(ctx, []any{"COMMAND"}, []any{"HELLO"})
	if err != nil {
		return MasterInfo{}, err
	}
	if replies[0].refusal != "" {
		return MasterInfo{}, errors.New(replies[0].refusal)
	}
	return MasterInfo{Addr: addr, Version: c.version, Command: replies[0].value, Hello: replies[1].value}, nil
}
