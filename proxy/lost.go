package proxy

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/causal"
)

// lossCounts are what failovers cost, for the metrics.
type lossCounts struct {
	failovers atomic.Uint64 // times that another node took the master's place
	bytes     atomic.Uint64
	uncertain atomic.Uint64
	unknown   atomic.Uint64 // times that the new master's history did not tell

	lastHold, longestHold atomic.Int64 // nanoseconds
}

// held notes for how long writes have waited for a master. One goroutine at a
// time calls it.
func (c *lossCounts) held(d time.Duration) {
	c.lastHold.Store(int64(d))
	c.longestHold.Store(max(c.longestHold.Load(), int64(d)))
}

// newSampler makes the sampler. Without fences it asks the master alone, ten
// times a second: what a failover costs is told in every mode.
func (s *Server) newSampler(ctx context.Context) {
	fences := s.fences
	if fences == nil {
		fences = causal.NewFences()
	}
	dialer := s.dialer()
	s.sampler = causal.NewSampler(ctx, fences, causal.Config{
		Dial: func(ctx context.Context, addr string) (net.Conn, error) {
			c, err := dialer.Connect(ctx, addr)
			if err != nil {
				return nil, err
			}
			return s.own.asks(addr, c), nil
		},
		Timeout: func() time.Duration { return s.live.Load().HealthTimeout }, OnSample: s.sampled,
		Acked: s.acked, OnLost: s.lostWrites, Logger: s.log.Named("sampler"),
	})
}

// lostWrites counts and tells what the new master lacks.
func (s *Server) lostWrites(l causal.Lost) {
	c := &s.losses
	c.bytes.Add(uint64(l.Bytes))
	c.uncertain.Add(uint64(l.Uncertain))
	f := []zap.Field{
		zap.String("node", l.Node), zap.String("old_replid", string(l.Old)), zap.String("new_replid", string(l.New)),
		zap.Int64("old_offset", int64(l.Seen)), zap.Int64("survived_to", int64(l.Survived)),
		zap.Int64("lost_bytes", l.Bytes), zap.Int64("uncertain_bytes", l.Uncertain),
	}
	switch {
	case !l.Survived.IsKnown():
		c.unknown.Add(1)
		s.log.Error("the new master's history does not tell what it has of the old one: "+
			"acknowledged writes may be lost, up to all of them", f...)
	case l.Bytes > 0:
		s.log.Error("the failover has lost acknowledged writes: the new master had not received them", f...)
	default:
		s.log.Warn("the failover may have lost writes that were acknowledged after the old master's last sample", f...)
	}
}
