package localredis

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// SentinelOptions are those of [StartSentinel].
type SentinelOptions struct {
	Name            string  // what the master is called
	Master          *Server // whom to watch
	Quorum          int     // sentinels that must agree that it is down
	DownAfter       time.Duration
	FailoverTimeout time.Duration
	Config          []string // further lines of sentinel.conf
	Host            string   // address to listen on; default 127.0.0.1
	Port            int      // TCP port; 0 for a free one
}

// StartSentinel starts redis-server as a sentinel and waits until it answers
// PING. Sentinels of one master find each other by way of it. Restart takes up
// the state in which the sentinel ended.
func StartSentinel(ctx context.Context, o SentinelOptions) (*Server, error) {
	conf := fmt.Sprintf("sentinel monitor %s %s %d %d\n", o.Name, o.Master.Host(), o.Master.Port(), o.Quorum) +
		fmt.Sprintf("sentinel down-after-milliseconds %s %d\n", o.Name, o.DownAfter.Milliseconds()) +
		fmt.Sprintf("sentinel failover-timeout %s %d\n", o.Name, o.FailoverTimeout.Milliseconds()) +
		strings.Join(o.Config, "\n") + "\n"
	return start(ctx, Options{Host: o.Host, Port: o.Port}, conf)
}

// confFile is where a sentinel keeps its configuration and its state.
func (s *Server) confFile() string { return filepath.Join(s.opt.Dir, "sentinel.conf") }

// configure writes a sentinel's first configuration.
func (s *Server) configure() error {
	if s.conf == "" {
		return nil
	}
	head := fmt.Sprintf("port %d\nbind %s\nprotected-mode no\ndir %q\nlogfile %q\n", s.port, s.opt.Host, s.opt.Dir, s.LogFile())
	if err := os.WriteFile(s.confFile(), []byte(head+s.conf), 0o600); err != nil {
		return fmt.Errorf("write configuration of sentinel: %w", err)
	}
	return nil
}
