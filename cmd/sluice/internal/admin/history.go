package admin

import (
	"math"
	"slices"
	"sync"
	"time"

	"github.com/sluice-io/sluice/proxy"
)

// What is remembered, so that a page opened later shows the past. With three
// nodes it is about 100 kB.
const (
	historyStep   = 2 * time.Second
	historySpan   = 15 * time.Minute
	historyPoints = int(historySpan / historyStep)
	historyNodes  = 64 // the first ones of proxy.Status.Nodes; the others have no past
	routedSpan    = time.Minute
)

// unknown stands for what is not known, as in proxy.NodeStatus.
const unknown = -1

// Point is what passed within one step.
type Point struct {
	Time    time.Time   `json:"time"`    // the end of the step
	Seconds float64     `json:"seconds"` // its length
	Read    float64     `json:"read"`    // commands per second that nodes have answered
	Write   float64     `json:"write"`
	Other   float64     `json:"other"`
	P50     float64     `json:"p50_seconds"` // of the time at the nodes; -1 where no command was answered
	P99     float64     `json:"p99_seconds"`
	Nodes   []NodePoint `json:"nodes"`
}

// NodePoint is the part that one node had in a [Point].
type NodePoint struct {
	Address    string  `json:"address"`
	Read       float64 `json:"read"` // per second
	Write      float64 `json:"write"`
	Other      float64 `json:"other"`
	LagBytes   int64   `json:"lag_bytes"`   // the most that was seen within the step, -1 unknown
	LagSeconds float64 `json:"lag_seconds"` // likewise
}

// Lately is what passed in the last step, and why it went where.
type Lately struct {
	Point
	Routed        map[string]float64 `json:"routed"`         // decisions per second by reason
	RoutedSeconds float64            `json:"routed_seconds"` // over how long; a minute at most
}

// counted is one look at the counters.
type counted struct {
	at      time.Time
	routed  map[string]uint64
	latency []uint64
	nodes   []proxy.NodeStatus
}

// recorder makes points out of what it is shown. Its methods may be called by
// any goroutine.
type recorder struct {
	mu     sync.Mutex
	points []Point // a ring once it is full
	next   int     // where the next one goes
	recent []counted
	lag    map[string]NodePoint // the worst since the last step
	bounds []float64
}

// observe is shown the status of now, once a second or so.
func (r *recorder) observe(st *proxy.Status, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	nodes := st.Nodes[:min(len(st.Nodes), historyNodes)]
	r.noteLag(nodes)
	c := counted{at: now, routed: st.Traffic.Routed, latency: st.Traffic.Latency.Counts, nodes: nodes}
	r.bounds = st.Traffic.Latency.Bounds
	if len(r.recent) == 0 {
		r.recent = append(r.recent, c)
		return
	}
	last := &r.recent[len(r.recent)-1]
	// Ticks come a little early or late. Where a loop was too busy to tell its
	// counts, the step goes on until it does.
	if now.Sub(last.at) < historyStep*3/4 || c.below(last) {
		return
	}
	r.push(c.since(last, r.bounds, r.lag))
	clear(r.lag)
	r.recent = append(r.recent, c)
	for len(r.recent) > 2 && now.Sub(r.recent[0].at) > routedSpan+historyStep/2 {
		r.recent = slices.Delete(r.recent, 0, 1)
	}
}

func (r *recorder) noteLag(nodes []proxy.NodeStatus) {
	if r.lag == nil {
		r.lag = make(map[string]NodePoint)
	}
	for _, n := range nodes {
		worst, ok := r.lag[n.Address]
		if !ok {
			worst = NodePoint{LagBytes: unknown, LagSeconds: unknown}
		}
		worst.LagBytes = max(worst.LagBytes, n.LagBytes)
		worst.LagSeconds = max(worst.LagSeconds, n.LagSeconds)
		r.lag[n.Address] = worst
	}
}

func (r *recorder) push(p Point) {
	if len(r.points) < historyPoints {
		r.points = append(r.points, p)
		return
	}
	r.points[r.next] = p
	r.next = (r.next + 1) % historyPoints
}

// lately returns the last step, nil before the first one has ended.
func (r *recorder) lately() *Lately {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.points) == 0 {
		return nil
	}
	first, last := &r.recent[0], &r.recent[len(r.recent)-1]
	l := &Lately{
		Point:         r.points[(r.next+len(r.points)-1)%len(r.points)],
		Routed:        make(map[string]float64, len(last.routed)),
		RoutedSeconds: round(last.at.Sub(first.at).Seconds(), 1000),
	}
	for reason, n := range last.routed {
		l.Routed[reason] = rate(first.routed[reason], n, last.at.Sub(first.at))
	}
	return l
}

// below reports whether some counter is lower than in o.
func (c *counted) below(o *counted) bool {
	for reason, n := range o.routed {
		if c.routed[reason] < n {
			return true
		}
	}
	for i, n := range o.latency {
		if i >= len(c.latency) || c.latency[i] < n {
			return true
		}
	}
	for i := range o.nodes {
		if n := c.node(o.nodes[i].Address); n != nil && n.Commands < o.nodes[i].Commands {
			return true
		}
	}
	return false
}

func (c *counted) node(addr string) *proxy.NodeStatus {
	for i := range c.nodes {
		if c.nodes[i].Address == addr {
			return &c.nodes[i]
		}
	}
	return nil
}

// since makes the point between before and c.
func (c *counted) since(before *counted, bounds []float64, lag map[string]NodePoint) Point {
	took := c.at.Sub(before.at)
	p := Point{Time: c.at, Seconds: round(took.Seconds(), 1000), Nodes: make([]NodePoint, 0, len(c.nodes))}
	for _, n := range c.nodes {
		var was proxy.ClassCounts
		if o := before.node(n.Address); o != nil {
			was = o.ByClass
		} else {
			was = n.ByClass // its past is not known
		}
		worst := lag[n.Address]
		np := NodePoint{
			Address: n.Address, LagBytes: worst.LagBytes, LagSeconds: round(worst.LagSeconds, 1000),
			Read:  rate(was.Read, n.ByClass.Read, took),
			Write: rate(was.Write, n.ByClass.Write, took),
			Other: rate(was.Other, n.ByClass.Other, took),
		}
		p.Read, p.Write, p.Other = p.Read+np.Read, p.Write+np.Write, p.Other+np.Other
		p.Nodes = append(p.Nodes, np)
	}
	p.Read, p.Write, p.Other = round(p.Read, 10), round(p.Write, 10), round(p.Other, 10)
	counts := make([]uint64, len(c.latency))
	for i := range counts {
		counts[i] = c.latency[i]
		if i < len(before.latency) {
			counts[i] -= before.latency[i]
		}
	}
	p.P50, p.P99 = quantile(bounds, counts, 0.5), quantile(bounds, counts, 0.99)
	return p
}

// quantile estimates the value below which the share q of what counts holds
// lies, evenly spread within a bucket as Prometheus has it. What is above the
// last bound counts as that bound.
func quantile(bounds []float64, counts []uint64, q float64) float64 {
	var total uint64
	for _, n := range counts {
		total += n
	}
	if total == 0 {
		return unknown
	}
	rank, below := q*float64(total), 0.0
	for i, n := range counts {
		if n == 0 || below+float64(n) < rank {
			below += float64(n)
			continue
		}
		if i >= len(bounds) {
			break
		}
		low := 0.0
		if i > 0 {
			low = bounds[i-1]
		}
		return round(low+(bounds[i]-low)*(rank-below)/float64(n), 1e6)
	}
	return bounds[len(bounds)-1]
}

// rate is per second.
func rate(from, to uint64, took time.Duration) float64 {
	if to <= from || took <= 0 {
		return 0
	}
	return round(float64(to-from)/took.Seconds(), 10)
}

// round keeps what is worth sending: parts is 10 for one decimal place.
func round(v, parts float64) float64 { return math.Round(v*parts) / parts }
