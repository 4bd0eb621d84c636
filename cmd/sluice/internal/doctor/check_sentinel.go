package doctor

import "fmt"

// checkSentinel looks for Sentinels that cannot fail over, or do so too easily.
// It has nothing to say where none are configured.
func checkSentinel(f *Facts) (out []Finding) {
	const name = "sentinel"
	if f.Sentinel == nil {
		return nil
	}
	add := func(s Severity, node, message, action string, numbers map[string]float64) {
		out = append(out, Finding{Severity: s, Check: name, Node: node, Message: message, Action: action, Numbers: numbers})
	}
	up, total := 0, 0
	for _, s := range f.Sentinel.Members {
		if s.Err != "" {
			add(Problem, s.Addr, "this Sentinel does not answer: "+s.Err, "Start it, or take it from the configuration", nil)
			continue
		}
		up++
		total = max(total, s.Others+1)
	}
	total = max(total, len(f.Sentinel.Members))
	quorum := 0
	for _, s := range f.Sentinel.Members {
		if s.Err != "" {
			continue
		}
		if f.Master != nil && s.Master != f.Master.Addr {
			add(Problem, s.Addr, fmt.Sprintf("this Sentinel holds %s for the master of %s, and %s says that it is", s.Master, f.Sentinel.Name, f.Master.Addr),
				"If no failover is going on: SENTINEL RESET "+f.Sentinel.Name+", one Sentinel after the other", nil)
		}
		if quorum != 0 && s.Quorum != quorum {
			add(Warning, s.Addr, fmt.Sprintf("this Sentinel has a quorum of %d, another one of %d", s.Quorum, quorum), "SENTINEL SET "+f.Sentinel.Name+" quorum N on each", nil)
		}
		quorum = max(quorum, s.Quorum)
	}
	numbers := map[string]float64{"quorum": float64(quorum), "sentinels": float64(total), "sentinels_up": float64(up)}
	majority := total/2 + 1
	switch {
	case up == 0:
		return out
	case quorum > total:
		add(Problem, "", fmt.Sprintf("a quorum of %d of %d Sentinels can never be reached: there will be no failover", quorum, total),
			fmt.Sprintf("SENTINEL SET %s quorum %d on each", f.Sentinel.Name, majority), numbers)
	case up < max(quorum, majority):
		add(Problem, "", fmt.Sprintf("%d of %d Sentinels answer; a failover needs %d: there will be none now", up, total, max(quorum, majority)),
			"Bring the Sentinels back", numbers)
	case total < 3:
		add(Warning, "", fmt.Sprintf("there are %d Sentinels: with the loss of one there is no majority, and no failover", total),
			"Run three, on machines that fail apart", numbers)
	case quorum == 1:
		add(Warning, "", fmt.Sprintf("with a quorum of 1 of %d a single Sentinel's view is enough to begin a failover", total),
			fmt.Sprintf("SENTINEL SET %s quorum %d on each", f.Sentinel.Name, majority), numbers)
	}
	return out
}
