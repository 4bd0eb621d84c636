package proxy

import (
	"errors"
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
)

// latencyBounds are the upper bounds of the buckets of
// sluice_proxy_command_seconds.
var latencyBounds = [...]time.Duration{
	50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond,
	25 * time.Millisecond, 50 * time.Millisecond, 100 * time.Millisecond, 250 * time.Millisecond,
	500 * time.Millisecond, time.Second, 2500 * time.Millisecond, 5 * time.Second, 10 * time.Second,
}

// workerStats are the counters of one worker. Its loop's goroutine counts in
// plain fields; a scrape copies them by Post.
type workerStats struct {
	latency    [len(latencyBounds) + 1]uint64 // the last has no bound
	latencySum int64                          // nanoseconds
	routed     [route.NumReasons]uint64
	nodes      []nodeCounts // by Node.Index

	accepted, refused, protocolErrors, authFailures  uint64
	closedOutput, closedIdle, closedLost, closedAuth uint64

	detached uint64 // connections that a large reply has taken from the lanes

	errors [len(errorCodes)]uint64 // those of ours that clients were given
	held   int                     // sessions that wait for a master; filled in by a snapshot
}

// nodeCounts are the replies of one node, by the role it had on the connection.
type nodeCounts struct {
	node            *topology.Node
	master, replica *[backend.NumClasses]uint64
	stalls          uint64 // how often its reads were taken from it
}

func (s *workerStats) answered(n *topology.Node, master bool) *[backend.NumClasses]uint64 {
	for len(s.nodes) <= n.Index {
		s.nodes = append(s.nodes, nodeCounts{})
	}
	c := &s.nodes[n.Index]
	if c.node == nil {
		*c = nodeCounts{n, new([backend.NumClasses]uint64), new([backend.NumClasses]uint64), 0}
	}
	if master {
		return c.master
	}
	return c.replica
}

// stalled counts that reads were taken from a replica that did not answer.
func (s *workerStats) stalled(n *topology.Node) {
	s.answered(n, false)
	s.nodes[n.Index].stalls++
}

// observe counts n commands whose replies took ns nanoseconds.
func (s *workerStats) observe(ns int64, n uint64) {
	s.latencySum += ns * int64(n)
	for i, b := range latencyBounds {
		if ns <= int64(b) {
			s.latency[i] += n
			return
		}
	}
	s.latency[len(latencyBounds)] += n
}

// closed counts why a client's connection ended, where it was not its wish.
func (s *workerStats) closed(err error) {
	switch {
	case errors.Is(err, eventloop.ErrOutputLimit), errors.Is(err, errReplyLimit), errors.Is(err, errLinger):
		s.closedOutput++
	case errors.Is(err, errIdle):
		s.closedIdle++
	case errors.Is(err, errAuthTimeout):
		s.closedAuth++
	case errors.Is(err, errHalfReply):
		s.closedLost++
	}
}

// failed counts an error that a client is given, if it is one of ours.
func (s *workerStats) failed(text string) {
	if i := codeOf(text); i >= 0 {
		s.errors[i]++
	}
}

// add sums o into s.
func (s *workerStats) add(o *workerStats) {
	for i, n := range o.latency {
		s.latency[i] += n
	}
	s.latencySum += o.latencySum
	for i, n := range o.routed {
		s.routed[i] += n
	}
	for _, c := range o.nodes {
		if c.node == nil {
			continue
		}
		m, r := s.answered(c.node, true), s.answered(c.node, false)
		for i := range m {
			m[i] += c.master[i]
			r[i] += c.replica[i]
		}
		s.nodes[c.node.Index].stalls += c.stalls
	}
	s.accepted += o.accepted
	s.refused += o.refused
	s.protocolErrors += o.protocolErrors
	s.authFailures += o.authFailures
	s.closedOutput += o.closedOutput
	s.closedIdle += o.closedIdle
	s.closedLost += o.closedLost
	s.closedAuth += o.closedAuth
	s.detached += o.detached
	for i, n := range o.errors {
		s.errors[i] += n
	}
	s.held += o.held
}

// snapshotTimeout bounds how long a scrape waits for a busy loop.
const snapshotTimeout = 2 * time.Second

// snapshot sums the counters of all workers. A worker that does not answer in
// time is left out.
func (s *Server) snapshot() *workerStats {
	sum := new(workerStats)
	parts := make(chan *workerStats, len(s.workers))
	asked := 0
	for _, w := range s.workers {
		if w.loop.Post(func() {
			c := new(workerStats)
			c.add(&w.stats)
			c.held = len(w.held)
			parts <- c
		}) {
			asked++
		}
	}
	timeout := time.NewTimer(snapshotTimeout)
	defer timeout.Stop()
	for range asked {
		select {
		case p := <-parts:
			sum.add(p)
		case <-timeout.C:
			return sum
		}
	}
	return sum
}
