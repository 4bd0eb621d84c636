package topology

import (
	"slices"
	"strings"
	"time"
)

// sentinelReport is what one sentinel said of our master when it was asked last.
type sentinelReport struct {
	addr string // the sentinel's
	err  error  // no answer, or it does not know the master; the rest is empty

	master   string // HOST:PORT
	epoch    uint64 // config-epoch, in which the sentinels agreed on it
	replicas []sentinelReplica
	others   []otherSentinel
}

// otherSentinel is a sentinel as another one sees it.
type otherSentinel struct {
	addr string
	down bool // s_down, o_down or disconnected
}

// sentinelReplica is a replica as one sentinel sees it.
type sentinelReplica struct {
	addr string
	down bool // s_down, o_down or disconnected
}

// hint is what the sentinels say together.
type hint struct {
	master   string // "" while none of them has answered
	epoch    uint64
	replicas map[string]bool // all that any of them lists; true: most of those that do cannot reach it

	lowerSince time.Time // since when most sentinels have an epoch below this one; zero while they do not
}

// lowerEpochAfter is for how long most sentinels must have an epoch below the
// last before it is believed. The one that leads a failover is alone with the
// new epoch until its hello, sent every 2 s (SENTINEL_PUBLISH_PERIOD), has
// reached the others; if it does not answer us meanwhile, they are not to bring
// back the old master. Only sentinels that were set up anew stay behind.
const lowerEpochAfter = 10 * time.Second

// mergeReports makes one hint of the last reports of all sentinels that are
// known, known in number. The highest epoch wins, since a sentinel that was cut
// off has an old one; among equals the address that most of them name. was is
// the hint so far: a lower epoch replaces it only where most of the known
// sentinels have said so for lowerEpochAfter (they were set up anew), for some
// that are late must not bring back an old master.
func mergeReports(reports map[string]*sentinelReport, known int, was hint, now time.Time) hint {
	h := hint{master: was.master, epoch: was.epoch, replicas: make(map[string]bool)}
	type claim struct {
		master string
		epoch  uint64
	}
	claims := make(map[claim]int)
	lists, downs := make(map[string]int), make(map[string]int)
	for _, r := range reports {
		if r.err != nil {
			continue
		}
		claims[claim{r.master, r.epoch}]++
		for _, replica := range r.replicas {
			lists[replica.addr]++
			if replica.down {
				downs[replica.addr]++
			}
		}
	}
	for addr, n := range lists {
		h.replicas[addr] = 2*downs[addr] > n
	}
	var best claim
	for c, n := range claims {
		better := best.master == "" || c.epoch > best.epoch || c.epoch == best.epoch &&
			(n > claims[best] || n == claims[best] && c.master < best.master)
		if better {
			best = c
		}
	}
	switch {
	case best.master == "": // nobody answers
	case was.master == "" || best.epoch >= was.epoch:
		h.master, h.epoch = best.master, best.epoch
	case 2*claims[best] <= known:
	case was.lowerSince.IsZero():
		h.lowerSince = now
	case now.Sub(was.lowerSince) < lowerEpochAfter:
		h.lowerSince = was.lowerSince
	default:
		h.master, h.epoch = best.master, best.epoch
	}
	return h
}

// obey takes in what the sentinels say and returns whom to ask at once. They
// name the master; that it is one, and that it serves, only its ROLE can tell.
// The master so far is deposed: whatever it says of itself, it gets no writes
// before it has been seen as a replica, or is named again.
//
// Between two hints the rules of elect hold. So a replica that was promoted
// after the master died is followed at once, some time before Sentinel has
// noticed that its order was carried out.
func (t *tracker) obey(h hint, now time.Time) (ask []*member) {
	for addr := range h.replicas {
		t.add(addr, false, now)
	}
	for _, m := range t.members {
		m.vetoed = h.replicas[m.node.Addr]
	}
	if h.master == "" {
		return nil
	}
	m := t.primary(t.add(h.master, false, now))
	if h.master == t.hinted {
		return nil
	}
	t.hinted, t.configured = h.master, m
	m.deposed = false
	if t.master != nil && t.master != m {
		t.master.deposed = t.master.role == RoleMaster
		t.master = m
		t.clock.Reset()
	}
	t.follow(now)
	t.learn(now)
	return t.members
}

// sentinels keeps the reports and the hint that they make.
type sentinels struct {
	reports map[string]*sentinelReport
	hint    hint
}

// SentinelState is whether a sentinel answers.
type SentinelState struct {
	Addr string
	Up   bool
	Err  error // why it is not up; nil before the first answer
}

// displaced returns the sentinel that makes room for another, "" for none: one
// that does not answer, and that is not configured but was named by others, who
// go on naming those that are gone for ever until SENTINEL RESET.
func (s *sentinels) displaced(configured []string) string {
	gone := ""
	for addr, r := range s.reports {
		if r.err != nil && !slices.Contains(configured, addr) && (gone == "" || addr < gone) {
			gone = addr
		}
	}
	return gone
}

// states lists the sentinels that are known, by address.
func (s *sentinels) states(known []string) []SentinelState {
	out := make([]SentinelState, 0, len(known))
	for _, addr := range known {
		st := SentinelState{Addr: addr}
		if r := s.reports[addr]; r != nil {
			st.Up, st.Err = r.err == nil, r.err
		}
		out = append(out, st)
	}
	slices.SortFunc(out, func(a, b SentinelState) int { return strings.Compare(a.Addr, b.Addr) })
	return out
}
