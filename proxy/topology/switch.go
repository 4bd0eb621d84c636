package topology

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"
)

// switchEvery is how often a failover under way is looked at.
const switchEvery = 5 * time.Millisecond

// Switch is a planned failover: from the master to one of its replicas, by
// Redis's own FAILOVER (6.2 and later), or by Sentinel where that names the
// master. It belongs to one goroutine.
type Switch struct {
	s        *Static
	From     string // HOST:PORT of the master
	To       string // HOST:PORT of the replica that is to take its place; "" where Sentinel chooses
	old      *Node
	sentinel string // HOST:PORT of the one that is asked
}

// PlanSwitch checks that a failover to the replica to is possible now, and
// chooses the furthest replica where to is "". It changes nothing.
func (s *Static) PlanSwitch(ctx context.Context, to string) (*Switch, error) {
	v := s.View()
	if v.Master == nil {
		return nil, errors.New("there is no master that answers; there is nothing to switch from")
	}
	sw := &Switch{s: s, From: v.Master.Addr, old: v.Master}
	if s.cfg.Sentinel.Name != "" {
		if to != "" {
			return nil, errors.New("the sentinels choose the replica, so --to cannot be had; set replica-priority 0 on the others for that")
		}
		for _, st := range s.Sentinels() {
			if st.Up {
				sw.sentinel = st.Addr
			}
		}
		if sw.sentinel == "" {
			return nil, errors.New("no sentinel answers; a failover behind their back would be undone by them")
		}
	}
	info, err := s.askInfo(ctx, sw.From)
	if err != nil {
		return nil, err
	}
	listed := make(map[string]bool)
	for _, addr := range info.replicas {
		listed[addr] = true
	}
	var best *Node
	for _, n := range v.Readable {
		if listed[n.Addr] && (best == nil || n.Offset() > best.Offset()) && (to == "" || n.Addr == to) {
			best = n
		}
	}
	switch {
	case best == nil && to != "":
		return nil, fmt.Errorf("%s is no replica of %s that is up and in step; its INFO lists: %s", to, sw.From, strings.Join(info.replicas, ", "))
	case best == nil:
		return nil, fmt.Errorf("%s has no replica that is up and in step", sw.From)
	case sw.sentinel == "":
		sw.To = best.Addr
	}
	return sw, nil
}

func (s *Static) askInfo(ctx context.Context, addr string) (info replicationInfo, err error) {
	c, err := connect(ctx, &s.cfg, s.dial, addr)
	if err != nil {
		return info, err
	}
	defer c.close()
	replies, err := c.ask(ctx, []any{"INFO", "replication"})
	switch {
	case err != nil:
		return info, err
	case replies[0].refusal != "":
		return info, errors.New(replies[0].refusal)
	}
	text, _ := replies[0].value.(string)
	return parseReplication(text)
}

// The replica tells how far it is once a second (replicationCron), and FAILOVER
// waits for that.
const (
	ackEvery = time.Second
	ackLead  = 60 * time.Millisecond // for writes to be drained, and for clocks that drift
)

// Approach returns shortly before the replica is going to tell how far it is, so
// that writes need not be held for most of a second. Where nothing can be seen
// of that it returns after little more than a second.
func (w *Switch) Approach(ctx context.Context) {
	if w.sentinel != "" {
		return
	}
	c, err := connect(ctx, &w.s.cfg, w.s.dial, w.From)
	if err != nil {
		return // Run will say so
	}
	defer c.close()
	last := ""
	for began := time.Now(); time.Since(began) < ackEvery+ackEvery/4; {
		replies, err := c.ask(ctx, []any{"INFO", "replication"})
		if err != nil {
			return
		}
		text, _ := replies[0].value.(string)
		told := ackOf(text, w.To)
		if last != "" && told != last {
			wait(ctx, ackEvery-ackLead)
			return
		}
		last = told
		if !wait(ctx, switchEvery) {
			return
		}
	}
}

// ackOf returns the offset that the replica at addr has told its master, as it
// stands in the master's INFO.
func ackOf(info, addr string) string {
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if a, ok := slaveLine(key, value); ok && a == addr {
			_, rest, _ := strings.Cut(value, "offset=")
			offset, _, _ := strings.Cut(rest, ",")
			return offset
		}
	}
	return ""
}

// Run carries it out and returns once the View has the new master, whose address
// it returns. Nobody may write meanwhile for whom an error would matter. ctx
// must have a deadline. After an error the old master goes on as before, unless
// the error says otherwise.
func (w *Switch) Run(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := make(chan string, 1)
	unsubscribe := w.s.Subscribe(func(v *View) {
		if m := v.Master; m != nil && m != w.old {
			select {
			case done <- m.Addr:
			default:
			}
		}
	})
	defer unsubscribe()
	c, err := connect(ctx, &w.s.cfg, w.s.dial, w.From)
	if err != nil {
		return "", err
	}
	defer c.close()
	if w.sentinel != "" {
		err = w.askSentinel(ctx, c)
	} else {
		err = w.askMaster(ctx, c)
	}
	if err != nil {
		return "", err
	}
	tick := time.NewTicker(switchEvery)
	defer tick.Stop()
	for {
		select {
		case addr := <-done:
			return addr, nil
		case <-tick.C:
			if over, err := w.look(ctx, c); over {
				return "", err
			}
			for _, n := range w.s.View().Nodes {
				n.askNow()
			}
		case <-ctx.Done():
			return "", w.abort(c, context.Cause(ctx))
		}
	}
}

// askMaster sends FAILOVER. Redis itself gives up after the time that ctx has
// left, less some for us to see it.
func (w *Switch) askMaster(ctx context.Context, c *connection) error {
	deadline, ok := ctx.Deadline()
	left := time.Until(deadline) * 3 / 4
	if !ok || left < time.Millisecond {
		return context.DeadlineExceeded
	}
	host, port, err := net.SplitHostPort(w.To)
	if err != nil {
		return err
	}
	return c.order(ctx, "FAILOVER", "TO", host, port, "TIMEOUT", strconv.FormatInt(left.Milliseconds(), 10))
}

// askSentinel has Sentinel switch once every replica has all of the master's
// stream: Sentinel waits for nothing.
func (w *Switch) askSentinel(ctx context.Context, c *connection) error {
	for {
		replies, err := c.ask(ctx, []any{"INFO", "replication"})
		if err != nil {
			return err
		}
		text, _ := replies[0].value.(string)
		end := infoField(text, "master_repl_offset")
		behind := false
		for line := range strings.Lines(text) {
			if key, value, _ := strings.Cut(line, ":"); strings.HasPrefix(key, "slave") && strings.Contains(value, "ip=") {
				behind = behind || !strings.Contains(value, "offset="+end+",")
			}
		}
		if end != "" && !behind {
			break
		}
		if !wait(ctx, switchEvery) {
			return fmt.Errorf("the replicas did not get in step with %s: %w", w.From, context.Cause(ctx))
		}
	}
	conn := newSentinelWatcher(&w.s.cfg, w.s.dial, w.sentinel, nil).conn
	sc, err := connect(ctx, &conn, w.s.dial, w.sentinel)
	if err != nil {
		return err
	}
	defer sc.close()
	return sc.order(ctx, "SENTINEL", "FAILOVER", w.s.cfg.Sentinel.Name)
}

// order sends a command that is answered by +OK.
func (c *connection) order(ctx context.Context, words ...any) error {
	replies, err := c.ask(ctx, words)
	switch {
	case err != nil:
		return fmt.Errorf("send %v: %w", words[0], err)
	case replies[0].refusal != "":
		return fmt.Errorf("%v was answered with: %s", words[0], replies[0].refusal)
	}
	return nil
}

// look reports whether the master has given the failover up.
func (w *Switch) look(ctx context.Context, c *connection) (over bool, err error) {
	if w.sentinel != "" {
		return false, nil // Sentinel kills connections, and tells by the View
	}
	replies, err := c.ask(ctx, []any{"INFO", "replication"})
	if err != nil {
		return false, nil // gone as it was demoted, or lost: the View tells, or the deadline
	}
	text, _ := replies[0].value.(string)
	if infoField(text, "role") == "master" && infoField(text, "master_failover_state") == "no-failover" {
		if m := w.s.View().Master; m == nil || m == w.old {
			return true, fmt.Errorf("%s gave the failover up: %s did not get in step in time", w.From, w.To)
		}
	}
	return false, nil
}

// abort takes a failover back that has not begun to change roles. Later that
// could make two masters.
func (w *Switch) abort(c *connection, cause error) error {
	if w.sentinel != "" {
		return fmt.Errorf("the sentinels have not switched in time, and may yet; sluice follows them: %w", cause)
	}
	ctx, cancel := context.WithTimeout(context.Background(), w.s.cfg.limits().HealthTimeout)
	defer cancel()
	fresh, err := connect(ctx, &w.s.cfg, w.s.dial, w.From)
	if err != nil {
		return fmt.Errorf("%w; %s cannot be asked whether it still fails over: %w", cause, w.From, err)
	}
	defer fresh.close()
	replies, err := fresh.ask(ctx, []any{"INFO", "replication"})
	if err != nil {
		return fmt.Errorf("%w; %s cannot be asked whether it still fails over: %w", cause, w.From, err)
	}
	text, _ := replies[0].value.(string)
	switch state := infoField(text, "master_failover_state"); state {
	case "waiting-for-sync":
		return errors.Join(fmt.Errorf("the failover was taken back: %w", cause), fresh.order(ctx, "FAILOVER", "ABORT"))
	case "failover-in-progress":
		return fmt.Errorf("%s hands over to %s and cannot take it back; sluice follows when it is done: %w", w.From, w.To, cause)
	}
	return cause
}
