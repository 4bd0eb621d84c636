package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-io/sluice/proxy/topology"
)

// Bounds of the walk over the nodes.
const (
	maxHops  = 16  // from the node that was named up to its master
	maxNodes = 256 // more than that is no deployment but a loop
)

// Target says what to look at.
type Target struct {
	Sentinel SentinelTarget // asked for the master where its Name is set
	Master   string         // HOST:PORT of the master, or of a node that knows it
	Replicas []string       // HOST:PORT of those that INFO does not show
	Login    Login

	Sample time.Duration // how long to measure the write rate
	Outage time.Duration // see [Facts]
	Rate   float64       // see [Facts]
	Reads  bool          // see [Facts]
}

// Collect looks at the deployment; it takes the target's Sample and some round
// trips. A node that does not answer is a fact, and so is what a node refuses.
// The error says that there is nothing to look at: no node could be asked.
func Collect(ctx context.Context, t Target) (*Facts, error) {
	f := &Facts{Sample: t.Sample, Outage: t.Outage, Rate: t.Rate, Reads: t.Reads}
	w := &walk{login: t.Login, clients: map[*Node]*client{}, begun: map[*Node]time.Time{},
		byAddr: map[string]*Node{}, byID: map[string]*Node{}, listed: map[*Node][]string{}}
	defer w.close()
	if t.Sentinel.Name != "" {
		f.Sentinel = collectSentinel(ctx, t.Sentinel)
		if t.Master = f.Sentinel.masterOf(); t.Master == "" {
			return nil, fmt.Errorf("no Sentinel says where %s is; %s: %s", t.Sentinel.Name, f.Sentinel.Members[0].Addr, f.Sentinel.Members[0].Err)
		}
	}
	if err := w.discover(ctx, f, t); err != nil {
		return nil, err
	}
	timer := time.NewTimer(t.Sample)
	defer timer.Stop()
	w.each(f, func(n *Node, c *client) {
		if err := c.look(ctx, n); err != nil {
			n.Err = err.Error()
		}
	})
	select {
	case <-timer.C:
	case <-ctx.Done():
		return nil, fmt.Errorf("look at the deployment: %w", context.Cause(ctx))
	}
	w.each(f, func(n *Node, c *client) { w.again(ctx, n, c) })
	return f, nil
}

// walk holds the connections while Collect runs.
type walk struct {
	login   Login
	clients map[*Node]*client
	begun   map[*Node]time.Time // when a node's first INFO came
	byAddr  map[string]*Node    // as asked for
	byID    map[string]*Node    // by run_id: one server may have several addresses
	queue   []*Node             // each server once, in the order found
	listed  map[*Node][]string  // the replicas that its INFO shows
}

func (w *walk) close() {
	for _, c := range w.clients {
		c.close()
	}
}

// each calls do for all nodes that answer, at the same time, and waits.
func (w *walk) each(f *Facts, do func(*Node, *client)) {
	var wg sync.WaitGroup
	for _, n := range f.Nodes() {
		if c := w.clients[n]; c != nil && n.Err == "" && n.Info != nil {
			wg.Go(func() { do(n, c) })
		}
	}
	wg.Wait()
}

// visit connects to addr and reads its first INFO, unless that was done before.
func (w *walk) visit(ctx context.Context, addr string) (n *Node, fresh bool) {
	if n := w.byAddr[addr]; n != nil {
		return n, false
	}
	n = &Node{Addr: addr, Role: RoleUnknown, WriteRate: -1}
	w.byAddr[addr] = n
	c, err := w.login.connect(ctx, addr)
	if err != nil {
		n.Err = err.Error()
		w.queue = append(w.queue, n)
		return n, true
	}
	w.clients[n] = c
	text, err := c.info(ctx)
	switch {
	case refused(err):
		n.InfoErr = reason(err)
	case err != nil:
		n.Err = reason(err)
	default:
		w.begun[n] = time.Now()
		n.setInfo(text)
		w.listed[n] = topology.ListedReplicas(text)
	}
	if id := n.Info["run_id"]; id != "" {
		if known := w.byID[id]; known != nil {
			w.byAddr[addr] = known
			return known, false
		}
		w.byID[id] = n
	}
	w.queue = append(w.queue, n)
	return n, true
}

// reason is an error without what Finding.Node says already.
func reason(err error) string {
	if inner := errors.Unwrap(err); inner != nil {
		return inner.Error()
	}
	return err.Error()
}

// setInfo takes over what INFO says.
func (n *Node) setInfo(text string) {
	n.Info = parseInfo(text)
	n.Relay = n.Info.Is("sluice_relay", "1")
	n.Role, n.Follows = RoleMaster, ""
	if n.Info.Is("role", "slave") {
		n.Role = RoleReplica
		n.Follows = net.JoinHostPort(n.Info["master_host"], n.Info["master_port"])
	}
}

// discover finds the master, from the named nodes upwards, and from there down
// all replicas.
func (w *walk) discover(ctx context.Context, f *Facts, t Target) error {
	for _, addr := range append([]string{t.Master}, t.Replicas...) {
		for range maxHops {
			n, fresh := w.visit(ctx, addr)
			if n.Role == RoleMaster && f.Master == nil {
				f.Master = n
			}
			if n.Role != RoleReplica || !fresh {
				break
			}
			addr = n.Follows
		}
	}
	if err := w.anybody(); err != nil {
		return err
	}
	for i := 0; i < len(w.queue) && len(w.queue) < maxNodes; i++ { // it grows
		parent := w.queue[i]
		for _, addr := range w.listed[parent] {
			// A replica's own word for its master may be another address of it.
			if n, _ := w.visit(ctx, addr); n.Role != RoleMaster {
				n.Follows = parent.Addr
			}
		}
	}
	for _, n := range w.queue {
		if n != f.Master {
			f.Replicas = append(f.Replicas, n)
		}
	}
	slices.SortFunc(f.Replicas, func(a, b *Node) int { return strings.Compare(a.Addr, b.Addr) })
	return nil
}

// anybody returns an error if no node that was visited has told anything.
func (w *walk) anybody() error {
	var errs []error
	for _, n := range w.queue {
		switch {
		case n.Info != nil:
			return nil
		case n.InfoErr != "":
			errs = append(errs, fmt.Errorf("%s refuses INFO, without which nothing is known: %s (ACL SETUSER <user> +info)", n.Addr, n.InfoErr))
		default:
			errs = append(errs, fmt.Errorf("%s cannot be asked: %s", n.Addr, n.Err))
		}
	}
	return errors.Join(errs...)
}

// again reads INFO at the end of the sample and what has changed since.
func (w *walk) again(ctx context.Context, n *Node, c *client) {
	text, err := c.info(ctx)
	if err != nil {
		n.Err = reason(err)
		return
	}
	elapsed, before, parent := time.Since(w.begun[n]).Seconds(), n.Info, n.Follows
	n.setInfo(text)
	if n.Role == RoleReplica {
		n.Follows = parent // by the address that discover found
	}
	if !n.Info.Is("run_id", before["run_id"]) || !n.Info.Is("master_replid", before["master_replid"]) {
		return // restarted or promoted meanwhile
	}
	from, ok := before.Int("master_repl_offset")
	to, ok2 := n.Info.Int("master_repl_offset")
	if ok && ok2 && to >= from && elapsed > 0 {
		n.WriteRate = float64(to-from) / elapsed
	}
	syncs, _ := before.Int("sync_full")
	now, _ := n.Info.Int("sync_full")
	n.FullSyncs = now - syncs
}
