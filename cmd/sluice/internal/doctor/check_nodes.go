package doctor

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// checkNodes tells of nodes that are missing.
func checkNodes(f *Facts) (out []Finding) {
	if f.Master == nil {
		out = append(out, Finding{Severity: Problem, Check: "master",
			Message: "no master was found: nothing can be written, and most could not be checked",
			Action:  "Promote a replica (REPLICAOF NO ONE), or correct --master"})
	}
	for _, n := range f.Nodes() {
		if n.Err != "" {
			out = append(out, Finding{Severity: Problem, Check: "node", Node: n.Addr,
				Message: "it cannot be asked, and nothing of it was checked: " + n.Err,
				Action:  "Start it, open the way to it, or create the user there; if it is gone for good, take it from the configuration. Behind NAT or in containers set replica-announce-ip and replica-announce-port"})
		} else if n.Role == RoleMaster && n != f.Master {
			out = append(out, Finding{Severity: Problem, Check: "master", Node: n.Addr,
				Message: "it says that it is a master too, beside " + f.Master.Addr + ": what is written to one is not on the other",
				Action:  "Find out which is right; REPLICAOF at the other one, which then loses what was written to it"})
		}
	}
	if f.Master != nil && f.Master.Err == "" && len(f.Replicas) == 0 {
		out = append(out, Finding{Severity: Warning, Check: "replicas", Node: f.Master.Addr,
			Message: "the master has no replica: its loss is the loss of the service, and all reads are on it",
			Action:  "Add one: redis-server --replicaof HOST PORT"})
	}
	return out
}

// checkLinks tells of replicas that do not follow.
func checkLinks(f *Facts) (out []Finding) {
	for _, n := range f.Replicas {
		if n.Err != "" {
			continue
		}
		switch {
		case n.Info == nil:
			out = append(out, n.noInfo("replication-link"))
		case n.Info.Is("master_sync_in_progress", "1") || n.Info.Is("loading", "1"):
			out = append(out, Finding{Severity: Warning, Check: "replication-link", Node: n.Addr,
				Message: "it is in a full sync now and serves no reads",
				Action:  "Wait for its end and run doctor again; if it never ends, that is the dead loop"})
		case n.Info.Is("master_link_status", "down"):
			since, _ := n.Info.Int("master_link_down_since_seconds")
			out = append(out, Finding{Severity: Problem, Check: "replication-link", Node: n.Addr,
				Message: fmt.Sprintf("its link to %s is down since %s: it falls behind and serves no reads", n.Follows, seconds(float64(max(0, since)))),
				Action:  "Read the replica's log; check the address, masteruser and masterauth, and the way to the master",
				Numbers: map[string]float64{"link_down_seconds": float64(since)}})
		}
	}
	return out
}

// checkUsers compares the ACL users: they are not replicated.
func checkUsers(f *Facts) (out []Finding) {
	const name = "acl"
	m, ok := f.server()
	if !ok {
		return nil
	}
	lacks := func(n *Node) Finding {
		return Finding{Severity: Unknown, Check: name, Node: n.Addr, Message: "ACL LIST is not to be had: " + n.ACLErr,
			Action: "Allow it to the user that doctor logs in as: ACL SETUSER <user> +acl|list (before 7.0: +acl)"}
	}
	if m.Users == nil {
		if m.ACLErr != "" {
			out = append(out, lacks(m))
		}
		return out
	}
	version, _ := m.Version()
	for _, n := range f.servers() {
		if n == m {
			continue
		}
		if n.Users == nil {
			if n.ACLErr != "" {
				out = append(out, lacks(n))
			}
			continue
		}
		var missing, other []string
		same, _ := n.Version()
		for user, rules := range m.Users {
			switch theirs, ok := n.Users[user]; {
			case !ok:
				missing = append(missing, user)
			case theirs != rules && same == version: // other versions word them otherwise
				other = append(other, user)
			}
		}
		const action = "ACLs are not replicated: ACL SETUSER on each node, or one aclfile for all and ACL LOAD"
		if slices.Sort(missing); len(missing) > 0 {
			out = append(out, Finding{Severity: Problem, Check: name, Node: n.Addr, Action: action,
				Message: fmt.Sprintf("users of the master are missing here: %s; their reads all go to the master, and after a failover to this node they cannot log in", strings.Join(missing, ", "))})
		}
		if slices.Sort(other); len(other) > 0 {
			out = append(out, Finding{Severity: Warning, Check: name, Node: n.Addr, Action: action,
				Message: "users have other rules or passwords here than on the master: " + strings.Join(other, ", ")})
		}
	}
	return out
}

// checkClock compares the clocks: each node expires keys by its own.
func checkClock(f *Facts) (out []Finding) {
	const name, warn, bad = "clock", 100 * time.Millisecond, time.Second
	m, ok := f.server()
	if !ok {
		return nil
	}
	for _, n := range f.servers() {
		if !n.ClockKnown {
			out = append(out, Finding{Severity: Unknown, Check: name, Node: n.Addr, Message: "TIME is not to be had",
				Action: "Allow it to the user that doctor logs in as: ACL SETUSER <user> +time"})
			continue
		}
		if n == m || !m.ClockKnown {
			continue
		}
		skew, slack := n.Clock-m.Clock, n.ClockError+m.ClockError
		surely := skew.Abs() - slack
		if surely < warn {
			continue
		}
		x := Finding{Severity: Warning, Check: name, Node: n.Addr,
			Message: fmt.Sprintf("its clock is %s %s the master's (give or take %s): a key with a time to live is gone here so much %s",
				seconds(skew.Abs().Seconds()), map[bool]string{true: "ahead of", false: "behind"}[skew > 0], seconds(slack.Seconds()),
				map[bool]string{true: "earlier", false: "later"}[skew > 0]),
			Action:  "Run an NTP client on all nodes",
			Numbers: map[string]float64{"skew_seconds": skew.Seconds(), "error_seconds": slack.Seconds()}}
		if surely >= bad {
			x.Severity = Problem
		}
		out = append(out, x)
	}
	return out
}

// checkVersions compares versions, and looks for those with known faults.
func checkVersions(f *Facts) (out []Finding) {
	const name = "version"
	m, haveMaster := f.server()
	var master Version
	if haveMaster {
		master, haveMaster = m.Version()
	}
	for _, n := range f.servers() {
		v, ok := n.Version()
		if !ok {
			out = append(out, n.noInfo(name))
			continue
		}
		add := func(s Severity, message, action string) {
			out = append(out, Finding{Severity: s, Check: name, Node: n.Addr, Message: message, Action: action})
		}
		switch {
		case !v.Valkey && v.Major == 6 && v.Less(6, 0, 4):
			add(Problem, fmt.Sprintf("%s can rewind its replication offset (\"meaningful offset\", 6.0.0 to 6.0.3): replicas can diverge unseen", v), "Upgrade")
		case !v.Valkey && v.Major == 7 && v.Less(7, 0, 8):
			add(Warning, fmt.Sprintf("%s: one command larger than the replicas' output buffer alone ends in a loop of full syncs (redis#11667, 7.0.0 to 7.0.7)", v), "Upgrade to 7.0.8 or later")
		}
		if n == m || !haveMaster || v == master {
			continue
		}
		ours, theirs := master.RDB(), v.RDB()
		if master.Valkey != v.Valkey && math.Max(float64(ours), float64(theirs)) > 11 {
			add(Problem, fmt.Sprintf("%s follows %s: from Redis 7.4 and Valkey 9 on, neither loads the other's snapshots; the next full sync fails", v, master), "Use one product")
			continue
		}
		switch {
		case theirs < ours:
			add(Problem, fmt.Sprintf("%s is older than the master (%s) and cannot load its snapshots (RDB version %d, it reads up to %d): the next full sync fails, over and over", v, master, ours, theirs), "Upgrade the replica first, then the master")
		case theirs > ours:
			add(Warning, fmt.Sprintf("%s is newer than the master (%s): once promoted, the older nodes cannot follow it (RDB version %d, they read up to %d)", v, master, theirs, ours), "Finish the upgrade: the replicas, then the master by a failover")
		}
	}
	return out
}
