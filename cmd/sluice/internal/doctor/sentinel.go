package doctor

import (
	"context"
	"fmt"
	"net"
	"strconv"
)

// maxSentinels bounds the walk over Sentinels that name each other.
const maxSentinels = 64

// SentinelTarget says which Sentinels to look at.
type SentinelTarget struct {
	Name  string   // of the master, as they know it
	Addrs []string // HOST:PORT of one or more; the others are found by asking
	Login Login
}

// collectSentinel asks all Sentinels. One that does not answer is a fact.
func collectSentinel(ctx context.Context, t SentinelTarget) *Sentinel {
	s := &Sentinel{Name: t.Name}
	seen := map[string]bool{} // addresses and run ids
	for queue := t.Addrs; len(queue) > 0 && len(s.Members) < maxSentinels; queue = queue[1:] {
		addr := queue[0]
		if seen[addr] {
			continue
		}
		seen[addr] = true
		m, id, others := askSentinel(ctx, t, addr)
		if id != "" && seen[id] {
			continue // the same one by another address
		}
		seen[id] = id != ""
		s.Members = append(s.Members, m)
		queue = append(queue, others...)
	}
	return s
}

// askSentinel asks one Sentinel for its run id, its view of the master and the
// other Sentinels.
func askSentinel(ctx context.Context, t SentinelTarget, addr string) (m SentinelMember, id string, others []string) {
	m.Addr = addr
	fail := func(err error) (SentinelMember, string, []string) {
		m.Err = err.Error()
		return m, id, nil
	}
	c, err := t.Login.connect(ctx, addr)
	if err != nil {
		return fail(err)
	}
	defer c.close()
	text, err := c.info(ctx)
	if err != nil {
		return fail(err)
	}
	id = parseInfo(text)["run_id"]
	master, err := c.redis.Do(ctx, "SENTINEL", "MASTER", t.Name).StringSlice()
	if err != nil {
		return fail(fmt.Errorf("SENTINEL MASTER %s: %w", t.Name, err))
	}
	at, err := c.redis.Do(ctx, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", t.Name).StringSlice()
	if err != nil || len(at) != 2 {
		return fail(fmt.Errorf("SENTINEL GET-MASTER-ADDR-BY-NAME %s: %d values, %w", t.Name, len(at), err))
	}
	list, err := c.redis.Do(ctx, "SENTINEL", "SENTINELS", t.Name).Slice()
	if err != nil {
		return fail(fmt.Errorf("SENTINEL SENTINELS %s: %w", t.Name, err))
	}
	m.Master = net.JoinHostPort(at[0], at[1])
	f := pairs(master)
	m.Quorum, _ = strconv.Atoi(f["quorum"])
	m.Others, _ = strconv.Atoi(f["num-other-sentinels"])
	for _, entry := range list {
		values, _ := entry.([]any)
		words := make([]string, len(values))
		for i, v := range values {
			words[i] = fmt.Sprint(v)
		}
		if f := pairs(words); f["ip"] != "" && f["port"] != "" {
			others = append(others, net.JoinHostPort(f["ip"], f["port"]))
		}
	}
	return m, id, others
}

func pairs(words []string) Fields {
	f := Fields{}
	for i := 0; i+1 < len(words); i += 2 {
		f[words[i]] = words[i+1]
	}
	return f
}

// masterOf returns the address that most Sentinels hold for the master, "" if
// none answers.
func (s *Sentinel) masterOf() string {
	votes, best := map[string]int{}, ""
	for _, m := range s.Members {
		if m.Err == "" {
			if votes[m.Master]++; votes[m.Master] > votes[best] {
				best = m.Master
			}
		}
	}
	return best
}
