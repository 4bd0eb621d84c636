package doctor

import (
	"fmt"
	"slices"
)

// checkMinReplicas looks at what a master does that is cut off.
func checkMinReplicas(f *Facts) []Finding {
	const name = "min-replicas-to-write"
	m, ok := f.server()
	if !ok || len(f.Replicas) == 0 {
		return nil
	}
	want, ok := m.Settings.Int(name)
	if !ok {
		return []Finding{m.noSetting(name, name)}
	}
	direct := int64(len(f.direct()))
	good, counted := m.Info.Int("min_slaves_good_slaves") // there while the setting is above 0
	x := Finding{Check: name, Node: m.Addr, Severity: Warning,
		Numbers: map[string]float64{"min_replicas": float64(want), "replicas": float64(direct)}}
	switch {
	case want == 0:
		x.Message = "a master that has lost its replicas goes on taking writes; when a replica is promoted meanwhile, all of them are lost"
		if rate, ok := f.writes(); ok {
			x.Message += fmt.Sprintf(", %s for each second", size(rate))
		}
		x.Action = "CONFIG SET min-replicas-to-write 1 and min-replicas-max-lag 10, on the replicas too; writes then fail with NOREPLICAS where no replica follows"
	case counted && good < want:
		x.Severity = Problem
		x.Message = fmt.Sprintf("writes are refused now (NOREPLICAS): %d replicas follow closely enough, and %d are asked for", good, want)
		x.Action = "Bring the replicas back, or lower min-replicas-to-write"
	case want >= direct && direct > 0:
		x.Message = fmt.Sprintf("%d of %d replicas are asked for: the loss of one stops all writes (NOREPLICAS)", want, direct)
		x.Action = "Add a replica"
		if direct > 1 {
			x.Action += fmt.Sprintf(", or lower it: CONFIG SET min-replicas-to-write %d", direct-1)
		}
	default:
		return nil
	}
	return []Finding{x}
}

// checkStaleData looks at what a replica says while its link is down.
func checkStaleData(f *Facts) (out []Finding) {
	const name = "replica-serve-stale-data"
	for _, n := range f.servers() {
		if n.Role != RoleReplica {
			continue
		}
		switch v := n.Settings[name]; {
		case v == "":
			out = append(out, n.noSetting(name, name))
		case v == "no" && f.Reads:
			out = append(out, Finding{Severity: Warning, Check: name, Node: n.Addr,
				Message: "the replica refuses reads (MASTERDOWN) while its link is down: when the master is lost, reads fail with the writes until there is a new one",
				Action:  "CONFIG SET replica-serve-stale-data yes; sluice reads from a replica only as far as consistency permits"})
		}
	}
	return out
}

// checkReadOnly looks for replicas that can be written to.
func checkReadOnly(f *Facts) (out []Finding) {
	for _, n := range f.servers() {
		if n.Info.Is("slave_read_only", "0") {
			out = append(out, Finding{Severity: Problem, Check: "replica-read-only", Node: n.Addr,
				Message: "the replica takes writes: its data can differ from the master's, and what is written there is lost with the next full sync",
				Action:  "CONFIG SET replica-read-only yes, and compare its data (DEBUG DIGEST) or sync it anew"})
		}
	}
	return out
}

// recency are the policies that evict by use.
var recency = []string{"allkeys-lru", "volatile-lru", "allkeys-lfu", "volatile-lfu"}

// checkEviction looks for a master that evicts by a use that it does not see.
func checkEviction(f *Facts) []Finding {
	const name = "maxmemory-policy"
	m, ok := f.server()
	if !ok || !f.Reads || len(f.Replicas) == 0 {
		return nil
	}
	limit, ok := m.Info.Int("maxmemory")
	policy, used := m.Info["maxmemory_policy"], int64(0)
	if !ok || policy == "" {
		return []Finding{m.noInfo(name)}
	}
	if limit == 0 || !slices.Contains(recency, policy) {
		return nil
	}
	used, _ = m.Info.Int("used_memory")
	evicted, _ := m.Info.Int("evicted_keys")
	x := Finding{Severity: Warning, Check: name, Node: m.Addr,
		Message: fmt.Sprintf("%s with reads from replicas: a key that is read there looks unused to the master, which evicts it once %s are full (%s, %.0f%%, are used)",
			policy, size(float64(limit)), size(float64(used)), 100*float64(used)/float64(limit)),
		Action: "Raise maxmemory so that nothing is evicted, or evict by what the master sees (volatile-ttl, allkeys-random), or read such keys with consistency: master",
		Numbers: map[string]float64{"maxmemory_bytes": float64(limit), "used_memory_bytes": float64(used),
			"evicted_keys": float64(evicted)},
	}
	if evicted > 0 {
		x.Severity = Problem
		x.Message += fmt.Sprintf("; it has evicted %d keys", evicted)
	}
	return []Finding{x}
}

// checkPersistence looks for a master that comes back empty and takes its
// replicas with it.
func checkPersistence(f *Facts) []Finding {
	const name = "persistence"
	m, ok := f.server()
	if !ok || len(f.Replicas) == 0 {
		return nil
	}
	if m.Info == nil {
		return []Finding{m.noInfo(name)}
	}
	save, ok := m.Settings["save"]
	switch {
	case m.Info.Is("aof_enabled", "1") || (ok && save != ""):
		return nil
	case !ok:
		return []Finding{m.noSetting(name, "save")}
	}
	x := Finding{Severity: Warning, Check: name, Node: m.Addr,
		Message: "the master keeps nothing on disk: if anything starts it again before a replica is promoted (systemd, a container's restart policy), it comes back empty, and its replicas copy that",
		Action:  `CONFIG SET save "3600 1 300 100 60 10000" or CONFIG SET appendonly yes, on all nodes; or make sure that nothing starts it again by itself`}
	if by := m.Info["process_supervised"]; by != "" && by != "no" {
		x.Severity = Problem
		x.Message = fmt.Sprintf("the master keeps nothing on disk and is supervised by %s: started again before a replica is promoted, it comes back empty, and its replicas copy that", by)
	}
	return []Finding{x}
}
