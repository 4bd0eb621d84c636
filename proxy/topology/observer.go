package topology

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"go.uber.org/zap"
)

const (
	minRoundGap = 10 * time.Millisecond // between rounds, however often one is asked for
	minBackoff  = 20 * time.Millisecond // before the first attempt to reconnect
	maxBackoff  = time.Second           // before any other
)

// observer watches one node: one goroutine, one connection.
type observer struct {
	cfg    *Config
	dial   dialFunc
	addr   string
	askNow <-chan struct{} // a round is wanted at once
	sink   chan<- observation

	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned

	asked time.Time // when the last round began; run's alone
}

// stop ends the observer and waits for it.
func (o *observer) stop() {
	o.cancel()
	<-o.done
}

// run observes until ctx is done. A session that ends is reported as the node
// being down, once per attempt, and begun again after a backoff; unless only its
// connection has ended, see again.
func (o *observer) run(ctx context.Context) {
	defer close(o.done)
	backoff := minBackoff
	for {
		answered := false
		c, err := connect(ctx, o.cfg, o.dial, o.addr)
		for err == nil {
			var heard bool
			heard, err = o.session(ctx, c)
			answered = answered || heard
			if heard && ctx.Err() == nil {
				c, err = o.again(ctx, c.runID, err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		if answered {
			backoff = minBackoff
		}
		if !o.report(ctx, observation{addr: o.addr, at: time.Now(), err: err}) {
			return
		}
		if !wait(ctx, jitter(backoff)) {
			return
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// again connects anew to the process runID, whose connection has ended by cause.
// Somebody may have closed just that connection: CLIENT KILL, a Sentinel that
// changes a node's role, a firewall. That the same process answers on another one
// shows that the node is not down, and what others have there need not end. The
// error is cause, for which the node is down, where another process answers or
// none: at once, or by the time at which the last round had to be answered.
func (o *observer) again(ctx context.Context, runID string, cause error) (*connection, error) {
	if runID == "" || errors.Is(cause, os.ErrDeadlineExceeded) || errors.Is(cause, context.DeadlineExceeded) {
		return nil, cause
	}
	cfg := *o.cfg
	cfg.ConnectTimeout = min(cfg.ConnectTimeout, time.Until(o.asked.Add(cfg.HealthTimeout)))
	c, err := connect(ctx, &cfg, o.dial, o.addr)
	if err != nil {
		return nil, cause
	}
	if c.runID != runID {
		c.close()
		return nil, cause
	}
	o.cfg.Logger.Debug("connection of the observer was closed; the node is up", zap.String("node", o.addr), zap.Error(cause))
	return c, nil
}

// session asks round after round on c until something fails, and closes it.
// answered says that the node answered at least one.
func (o *observer) session(ctx context.Context, c *connection) (answered bool, err error) {
	defer c.close()
	var last roleReply
	var infoAt time.Time // when INFO was last asked
	asked := true        // not only was it time for a round
	for {
		began := time.Now()
		o.asked = began
		seen, err := o.round(ctx, c, began)
		if err != nil {
			return answered, err
		}
		// INFO tells whom the node belongs to. It is asked at its own pace,
		// and when ROLE shows that it may say something new; while a replica's
		// link is down each time, see member.held.
		if r := seen.role; asked || began.Sub(infoAt) >= o.cfg.DiscoverEvery || r != nil &&
			(r.role != last.role || r.masterAddr != last.masterAddr || r.link != last.link ||
				r.role == RoleReplica && r.link != linkConnected) {
			if err := o.info(ctx, c, &seen); err != nil {
				return answered, err
			}
			if infoAt = began; seen.info == nil {
				infoAt = time.Time{} // refused: each round until it is not
			}
		}
		if seen.role != nil {
			last = *seen.role
		}
		answered = true
		if !o.report(ctx, seen) || !wait(ctx, min(minRoundGap, o.cfg.ObserveEvery)-time.Since(began)) {
			return answered, ctx.Err()
		}
		select {
		case <-o.askNow:
			asked = true
		case <-time.After(o.cfg.ObserveEvery - time.Since(began)):
			asked = false
		case <-ctx.Done():
			return answered, ctx.Err()
		}
	}
}

// round asks PING and ROLE: whether clients get answers, and how far the node is.
func (o *observer) round(ctx context.Context, c *connection, at time.Time) (observation, error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.limits().HealthTimeout)
	defer cancel()
	seen := observation{addr: o.addr, at: at, runID: c.runID}
	replies, err := c.ask(ctx, []any{"PING"}, []any{"ROLE"})
	if err != nil {
		return seen, fmt.Errorf("ask ROLE: %w", err)
	}
	seen.took = time.Since(at)
	seen.ping, seen.refusal = replies[0].refusal, replies[1].refusal
	if seen.refusal != "" {
		return seen, nil
	}
	role, err := parseRole(replies[1].value)
	if err != nil {
		return seen, err
	}
	seen.role = &role
	return seen, nil
}

// info asks INFO replication and adds it to seen. ROLE is asked once more in
// the same breath, and takes the place of the one in seen: a node runs commands
// that arrive together before it looks at its links again, while between the
// round's ROLE and this INFO it may have changed sides. An offset, or the word
// "master", of one history must not be taken for the other's.
func (o *observer) info(ctx context.Context, c *connection, seen *observation) error {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.limits().HealthTimeout)
	defer cancel()
	at := time.Now()
	replies, err := c.ask(ctx, []any{"INFO", "replication"}, []any{"ROLE"})
	if err != nil {
		return fmt.Errorf("ask INFO: %w", err)
	}
	for _, r := range replies {
		if r.refusal != "" {
			seen.refusal = r.refusal
			return nil
		}
	}
	role, err := parseRole(replies[1].value)
	if err != nil {
		return err
	}
	seen.at, seen.role = at, &role
	text, _ := replies[0].value.(string)
	info, err := parseReplication(text)
	if err != nil {
		return err
	}
	seen.info = &info
	return nil
}

// report hands an observation to the coordinator; false if ctx is done.
func (o *observer) report(ctx context.Context, seen observation) bool {
	select {
	case o.sink <- seen:
		return true
	case <-ctx.Done():
		return false
	}
}

// wait waits for d, or for ctx; false if ctx is done.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter spreads d over its upper half, so that observers that lost a host
// together do not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
