package admin

import "time"

// columns is the history as the page gets it: a list for each figure, since
// numbers without names are a quarter of the bytes. -1 is unknown.
type columns struct {
	Step  float64       `json:"step"`  // seconds between two points, about
	Span  float64       `json:"span"`  // seconds that are remembered
	Times []int64       `json:"times"` // of the ends of the steps, Unix milliseconds
	Read  []float64     `json:"read"`  // per second
	Write []float64     `json:"write"`
	Other []float64     `json:"other"`
	P50   []float64     `json:"p50"` // seconds
	P99   []float64     `json:"p99"`
	Nodes []nodeColumns `json:"nodes"`
}

type nodeColumns struct {
	Address    string    `json:"address"`
	Commands   []float64 `json:"commands"`
	LagBytes   []int64   `json:"lag_bytes"`
	LagSeconds []float64 `json:"lag_seconds"`
}

// columns returns the history, the oldest point first, of the nodes that are in
// the last one.
func (r *recorder) columns() columns {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.points)
	c := columns{
		Step: historyStep.Seconds(), Span: historySpan.Seconds(), Times: make([]int64, n), Nodes: []nodeColumns{},
		Read: make([]float64, n), Write: make([]float64, n), Other: make([]float64, n), P50: make([]float64, n), P99: make([]float64, n),
	}
	if n == 0 {
		return c
	}
	place := make(map[string]int)
	for i, np := range r.points[(r.next+n-1)%n].Nodes {
		place[np.Address] = i
		col := nodeColumns{Address: np.Address, Commands: make([]float64, n), LagBytes: make([]int64, n), LagSeconds: make([]float64, n)}
		for j := range n {
			col.Commands[j], col.LagBytes[j], col.LagSeconds[j] = unknown, unknown, unknown
		}
		c.Nodes = append(c.Nodes, col)
	}
	for j := range n {
		p := &r.points[(r.next+j)%n]
		c.Times[j] = p.Time.Round(time.Millisecond).UnixMilli()
		c.Read[j], c.Write[j], c.Other[j], c.P50[j], c.P99[j] = p.Read, p.Write, p.Other, p.P50, p.P99
		for _, np := range p.Nodes {
			if i, ok := place[np.Address]; ok {
				c.Nodes[i].Commands[j] = round(np.Read+np.Write+np.Other, 10)
				c.Nodes[i].LagBytes[j], c.Nodes[i].LagSeconds[j] = np.LagBytes, np.LagSeconds
			}
		}
	}
	return c
}
