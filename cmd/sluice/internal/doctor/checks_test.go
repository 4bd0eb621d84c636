package doctor

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// tuned returns the facts of a deployment that nothing is to be said of: a
// master of 7.0.15 with 400 MiB of data and 1 MiB/s of writes, and two replicas.
func tuned() *Facts {
	node := func(addr string, role Role) *Node {
		n := &Node{Addr: addr, Role: role, WriteRate: mib, ClockKnown: true, ClockError: time.Millisecond,
			Users: map[string]string{"default": "a", "app": "b"},
			Info: Fields{
				"redis_version": "7.0.15", "uptime_in_seconds": "864000", "role": "master", "process_supervised": "systemd",
				"used_memory": "500000000", "used_memory_dataset": "419430400", "maxmemory": "1000000000", "maxmemory_policy": "noeviction",
				"rdb_last_bgsave_time_sec": "4", "rdb_last_bgsave_status": "ok", "aof_enabled": "1", "loading": "0", "evicted_keys": "0",
				"sync_full": "2", "sync_partial_err": "0", "repl_backlog_size": "134217728", "min_slaves_good_slaves": "2",
			},
			Settings: Fields{
				"client-output-buffer-limit": "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60",
				"min-replicas-to-write":      "1", "repl-diskless-sync": "yes", "repl-diskless-sync-delay": "5",
				"repl-ping-replica-period": "10", "repl-timeout": "60", "replica-serve-stale-data": "yes", "save": "",
			},
		}
		if role == RoleReplica {
			n.Follows, n.Info["role"], n.Info["master_link_status"], n.Info["slave_read_only"] = "m:1", "slave", "up", "1"
		}
		return n
	}
	return &Facts{Sample: 5 * time.Second, Outage: time.Minute, Reads: true, Master: node("m:1", RoleMaster),
		Replicas: []*Node{node("r:1", RoleReplica), node("r:2", RoleReplica)}}
}

func TestTunedIsQuiet(t *testing.T) {
	if r := Examine(tuned()); len(r.Findings) != 0 {
		t.Errorf("a well-tuned deployment has findings:\n%s", r.Text())
	}
}

// TestChecks changes one thing of a well-tuned deployment each, and wants that
// one finding.
func TestChecks(t *testing.T) {
	for _, tc := range []struct {
		name     string
		change   func(f *Facts)
		severity Severity // "" for no finding
		check    string
		node     string
		says     string // in message or action
	}{
		// 20 MiB/s x (4 s snapshot + 4 s load) = 160 MiB of 256; twice that is too much.
		{"close to the dead loop", func(f *Facts) { f.Rate = 20 * mib; f.Outage = time.Second }, Warning, "client-output-buffer-limit", "m:1", "at twice that rate the hard limit of 256.0 MiB"},
		{"dead loop by the hard limit", func(f *Facts) { f.Rate = 40 * mib; f.Outage = time.Second }, Problem, "client-output-buffer-limit", "m:1", "after 6.4 s by the hard limit of 256.0 MiB"},
		{"it says how much is needed", func(f *Facts) { f.Rate = 40 * mib; f.Outage = time.Second }, Problem, "client-output-buffer-limit", "m:1", "replica 1gb 1gb 60"},
		{"dead loop by the soft limit", func(f *Facts) {
			f.Master.Info["rdb_last_bgsave_time_sec"] = "150"
			f.Master.Info["repl_backlog_size"], f.Outage = "1048576", time.Second
		}, Problem, "client-output-buffer-limit", "m:1", "after 2m4s by the soft limit of 64.0 MiB for 60 s"},
		{"the backlog covers a kill during the load", func(f *Facts) {
			f.Master.Settings["client-output-buffer-limit"] = "slave 0 1048576 5"
		}, "", "", "", ""},
		{"a short backlog does not", func(f *Facts) {
			f.Master.Settings["client-output-buffer-limit"] = "slave 0 1048576 5"
			f.Master.Info["repl_backlog_size"], f.Outage = "5242880", time.Second
		}, Problem, "client-output-buffer-limit", "m:1", "after 6.0 s by the soft limit of 1.0 MiB for 5 s"},
		{"from 7.0 on the hard limit is at least the backlog", func(f *Facts) {
			f.Master.Settings["client-output-buffer-limit"] = "slave 1048576 0 0"
		}, "", "", "", ""},
		{"before 7.0 it is not", func(f *Facts) {
			for _, n := range f.Nodes() {
				n.Info["redis_version"] = "6.2.16"
			}
			f.Master.Settings["client-output-buffer-limit"] = "slave 1048576 0 0"
		}, Problem, "client-output-buffer-limit", "m:1", "after 1.0 s"},
		{"no limit is no dead loop", func(f *Facts) {
			f.Rate, f.Outage = 1000*mib, time.Millisecond
			f.Master.Settings["client-output-buffer-limit"] = "slave 0 0 0"
		}, "", "", "", ""},
		{"a running snapshot that is slower", func(f *Facts) {
			f.Master.Info["rdb_current_bgsave_time_sec"] = "30"
			f.Master.Info["current_save_keys_processed"], f.Master.Info["current_save_keys_total"] = "2000", "20000"
			f.Outage = time.Second
		}, Problem, "client-output-buffer-limit", "m:1", "the running snapshot will take 5m0s"},
		{"a snapshot's progress is some seconds old", func(f *Facts) {
			f.Master.Info["rdb_current_bgsave_time_sec"], f.Master.Info["current_cow_size_age"] = "34", "4"
			f.Master.Info["current_save_keys_processed"], f.Master.Info["current_save_keys_total"] = "2000", "20000"
			f.Outage = time.Second
		}, Problem, "client-output-buffer-limit", "m:1", "the running snapshot will take 5m0s"},
		{"a snapshot that has told nothing yet", func(f *Facts) {
			f.Master.Info["rdb_current_bgsave_time_sec"] = "1"
			f.Master.Info["current_save_keys_processed"], f.Master.Info["current_save_keys_total"] = "1", "1000000"
		}, "", "", "", ""},
		{"only relays take full syncs of nobody", func(f *Facts) {
			f.Rate, f.Outage = 100*mib, time.Millisecond
			f.Replicas[0].Relay, f.Replicas[1].Relay = true, true
		}, "", "", "", ""},

		{"a backlog that is too short", func(f *Facts) { f.Master.Info["repl_backlog_size"] = "1048576" }, Problem, "repl-backlog-size", "m:1", "holds 1.0 s of writes at 1.0 MiB/s"},
		{"what it should be", func(f *Facts) { f.Master.Info["repl_backlog_size"] = "1048576" }, Problem, "repl-backlog-size", "m:1", "repl-backlog-size 128mb"},
		{"a longer outage", func(f *Facts) { f.Outage = time.Hour }, Problem, "repl-backlog-size", "m:1", "1h0m0s are to be survived"},
		{"no writes", func(f *Facts) { f.Master.WriteRate = 20 }, Unknown, "client-output-buffer-limit, repl-backlog-size", "m:1", "no writes were seen within 5.0 s"},
		{"no replica ever", func(f *Facts) { f.Master.WriteRate = 0; f.Master.Info["repl_backlog_active"] = "0" }, Unknown, "client-output-buffer-limit, repl-backlog-size", "m:1", "only from its first replica on"},
		{"no offset", func(f *Facts) { f.Master.WriteRate = -1 }, Unknown, "client-output-buffer-limit, repl-backlog-size", "m:1", "could not be measured"},

		{"full syncs now", func(f *Facts) { f.Master.FullSyncs = 3 }, Problem, "full-syncs", "m:1", "3 full syncs began within the 5.0 s"},
		{"full syncs before", func(f *Facts) { f.Master.Info["sync_full"] = "300"; f.Master.Info["sync_partial_err"] = "298" }, Warning, "full-syncs", "m:1", "300 full syncs in 240h0m0s, for 2 replicas; 298"},
		{"a few in ten days", func(f *Facts) { f.Master.Info["sync_full"] = "20" }, "", "", "", ""},

		{"repl-timeout below the ping", func(f *Facts) { f.Replicas[0].Settings["repl-timeout"] = "10" }, Problem, "repl-timeout", "r:1", "is not above repl-ping-replica-period (10 s)"},
		{"short repl-timeout", func(f *Facts) {
			f.Master.Settings["repl-timeout"], f.Master.Settings["repl-ping-replica-period"] = "5", "1"
		}, Warning, "repl-timeout", "m:1", "5 s"},
		{"long repl-timeout", func(f *Facts) { f.Master.Settings["repl-timeout"] = "3600" }, Warning, "repl-timeout", "m:1", "noticed only after"},

		{"snapshots by the disk", func(f *Facts) { f.Master.Settings["repl-diskless-sync"] = "no" }, Warning, "repl-diskless-sync", "m:1", "repl-diskless-sync yes"},
		{"no delay", func(f *Facts) { f.Master.Settings["repl-diskless-sync-delay"] = "0" }, Warning, "repl-diskless-sync", "m:1", "of 2 replicas"},

		{"a master that is cut off goes on", func(f *Facts) { f.Master.Settings["min-replicas-to-write"] = "0" }, Warning, "min-replicas-to-write", "m:1", "1.0 MiB for each second"},
		{"every replica is needed", func(f *Facts) { f.Master.Settings["min-replicas-to-write"] = "2" }, Warning, "min-replicas-to-write", "m:1", "2 of 2 replicas"},
		{"writes are refused", func(f *Facts) { f.Master.Info["min_slaves_good_slaves"] = "0" }, Problem, "min-replicas-to-write", "m:1", "0 replicas follow closely enough"},

		{"no stale data", func(f *Facts) { f.Replicas[1].Settings["replica-serve-stale-data"] = "no" }, Warning, "replica-serve-stale-data", "r:2", "MASTERDOWN"},
		{"no stale data, no reads", func(f *Facts) { f.Replicas[1].Settings["replica-serve-stale-data"] = "no"; f.Reads = false }, "", "", "", ""},
		{"replica takes writes", func(f *Facts) { f.Replicas[1].Info["slave_read_only"] = "0" }, Problem, "replica-read-only", "r:2", "takes writes"},

		{"LRU with reads from replicas", func(f *Facts) { f.Master.Info["maxmemory_policy"] = "allkeys-lru" }, Warning, "maxmemory-policy", "m:1", "looks unused"},
		{"LFU that evicts", func(f *Facts) {
			f.Master.Info["maxmemory_policy"], f.Master.Info["evicted_keys"] = "volatile-lfu", "12"
		}, Problem, "maxmemory-policy", "m:1", "evicted 12 keys"},
		{"LRU without a limit", func(f *Facts) {
			f.Master.Info["maxmemory_policy"], f.Master.Info["maxmemory"] = "allkeys-lru", "0"
		}, "", "", "", ""},
		{"LRU, reads from the master", func(f *Facts) { f.Master.Info["maxmemory_policy"] = "allkeys-lru"; f.Reads = false }, "", "", "", ""},

		{"no persistence, supervised", func(f *Facts) { f.Master.Info["aof_enabled"] = "0" }, Problem, "persistence", "m:1", "supervised by systemd"},
		{"no persistence", func(f *Facts) {
			f.Master.Info["aof_enabled"], f.Master.Info["process_supervised"] = "0", "no"
		}, Warning, "persistence", "m:1", "comes back empty"},
		{"snapshots are persistence", func(f *Facts) { f.Master.Info["aof_enabled"] = "0"; f.Master.Settings["save"] = "3600 1" }, "", "", "", ""},

		{"a user is missing", func(f *Facts) { delete(f.Replicas[0].Users, "app") }, Problem, "acl", "r:1", "missing here: app"},
		{"a user has other rules", func(f *Facts) { f.Replicas[0].Users["app"] = "c" }, Warning, "acl", "r:1", "other rules or passwords here than on the master: app"},
		{"ACL refused", func(f *Facts) { f.Replicas[0].Users, f.Replicas[0].ACLErr = nil, "NOPERM x" }, Unknown, "acl", "r:1", "NOPERM x"},
		{"before 6.0 there are none", func(f *Facts) {
			for _, n := range f.Nodes() {
				n.Users = nil
			}
		}, "", "", "", ""},

		{"clock ahead", func(f *Facts) { f.Replicas[0].Clock = 2 * time.Second }, Problem, "clock", "r:1", "2.0 s ahead of the master's"},
		{"clock behind", func(f *Facts) { f.Replicas[0].Clock = -300 * time.Millisecond }, Warning, "clock", "r:1", "0.3 s behind the master's"},
		{"clock of a slow answer", func(f *Facts) { f.Replicas[0].Clock, f.Replicas[0].ClockError = time.Second, time.Second }, "", "", "", ""},
		{"no TIME", func(f *Facts) { f.Replicas[0].ClockKnown = false }, Unknown, "clock", "r:1", "+time"},

		{"older replica", func(f *Facts) { f.Replicas[0].Info["redis_version"] = "6.2.14" }, Problem, "version", "r:1", "RDB version 10, it reads up to 9"},
		{"newer replica", func(f *Facts) { f.Replicas[0].Info["redis_version"] = "7.2.1" }, Warning, "version", "r:1", "newer than the master"},
		{"another patch", func(f *Facts) { f.Replicas[0].Info["redis_version"] = "7.0.12" }, "", "", "", ""},
		{"valkey 9 behind redis", func(f *Facts) {
			f.Replicas[0].Info["redis_version"], f.Replicas[0].Info["valkey_version"] = "7.2.4", "9.0.0"
		}, Problem, "version", "r:1", "neither loads"},
		{"meaningful offset", func(f *Facts) {
			for _, n := range f.Nodes()[1:] {
				n.Relay = true
			}
			f.Master.Info["redis_version"] = "6.0.2"
		}, Problem, "version", "m:1", "rewind"},

		{"node is gone", func(f *Facts) {
			f.Replicas[0] = &Node{Addr: "r:1", Role: RoleReplica, Follows: "m:1", Err: "connection refused"}
		}, Problem, "node", "r:1", "connection refused"},
		{"link is down", func(f *Facts) {
			f.Replicas[0].Info["master_link_status"], f.Replicas[0].Info["master_link_down_since_seconds"] = "down", "33"
		}, Problem, "replication-link", "r:1", "down since 33 s"},
		{"full sync", func(f *Facts) { f.Replicas[0].Info["master_sync_in_progress"] = "1" }, Warning, "replication-link", "r:1", "full sync now"},
		{"no replica", func(f *Facts) { f.Replicas = nil }, Warning, "replicas", "m:1", "has no replica"},

		{"CONFIG refused", func(f *Facts) { f.Replicas[0].Settings, f.Replicas[0].ConfErr = nil, "NOPERM no config" }, Unknown, "repl-timeout, replica-serve-stale-data", "r:1", "NOPERM no config"},
		{"CONFIG refused by the master", func(f *Facts) { f.Master.Settings, f.Master.ConfErr = nil, "NOPERM no config" }, Unknown,
			"client-output-buffer-limit, repl-timeout, repl-diskless-sync, min-replicas-to-write", "m:1", "+config|get"},
		{"INFO refused by a replica", func(f *Facts) { f.Replicas[0].Info, f.Replicas[0].InfoErr = nil, "NOPERM no info" }, Unknown, "replication-link, version", "r:1", "NOPERM no info"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := tuned()
			tc.change(f)
			wantOne(t, Examine(f), tc.severity, tc.check, tc.node, tc.says)
		})
	}
}

func wantOne(t *testing.T, r *Report, severity Severity, check, node, says string) {
	t.Helper()
	if severity == "" {
		if len(r.Findings) != 0 {
			t.Errorf("want no finding:\n%s", r.Text())
		}
		return
	}
	if len(r.Findings) != 1 {
		t.Fatalf("want one finding:\n%s", r.Text())
	}
	x := r.Findings[0]
	if x.Severity != severity || x.Check != check || x.Node != node || !strings.Contains(x.Message+"\n"+x.Action, says) {
		t.Errorf("got %s of %s at %s, want %s of %s at %s with %q:\n%s", x.Severity, x.Check, x.Node, severity, check, node, says, r.Text())
	}
}

func TestSentinel(t *testing.T) {
	for _, tc := range []struct {
		name     string
		change   func(s *Sentinel)
		severity Severity
		says     string
	}{
		{"three with a quorum of two", func(*Sentinel) {}, "", ""},
		{"quorum above their number", func(s *Sentinel) { each(s, func(m *SentinelMember) { m.Quorum = 4 }) }, Problem, "a quorum of 4 of 3"},
		{"quorum of one", func(s *Sentinel) { each(s, func(m *SentinelMember) { m.Quorum = 1 }) }, Warning, "quorum of 1 of 3"},
		{"other quorum", func(s *Sentinel) { s.Members[1].Quorum = 3 }, Warning, "quorum of 3, another one of 2"},
		{"other master", func(s *Sentinel) { s.Members[2].Master = "r:1" }, Problem, "holds r:1 for the master of mymaster, and m:1"},
		{"two", func(s *Sentinel) {
			s.Members = s.Members[:2]
			each(s, func(m *SentinelMember) { m.Others = 1 })
		}, Warning, "there are 2 Sentinels"},
		{"one of three answers", func(s *Sentinel) {
			s.Members = s.Members[:1]
			s.Members = append(s.Members, SentinelMember{Addr: "s:2", Err: "refused"}, SentinelMember{Addr: "s:3", Err: "refused"})
		}, Problem, "1 of 3 Sentinels answer; a failover needs 2"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := tuned()
			f.Sentinel = &Sentinel{Name: "mymaster"}
			for _, addr := range []string{"s:1", "s:2", "s:3"} {
				f.Sentinel.Members = append(f.Sentinel.Members, SentinelMember{Addr: addr, Master: "m:1", Quorum: 2, Others: 2})
			}
			tc.change(f.Sentinel)
			r := Examine(f)
			if tc.severity == "" && len(r.Findings) != 0 || tc.severity != "" && !found(r, "sentinel", tc.severity, tc.says) {
				t.Errorf("want %s %q:\n%s", tc.severity, tc.says, r.Text())
			}
		})
	}
}

func each(s *Sentinel, change func(*SentinelMember)) {
	for i := range s.Members {
		change(&s.Members[i])
	}
}

// found reports whether there is such a finding.
func found(r *Report, check string, severity Severity, says string) bool {
	for _, x := range r.Findings {
		if x.Check == check && x.Severity == severity && strings.Contains(x.Message+"\n"+x.Action, says) {
			return true
		}
	}
	return false
}

func TestSecondMaster(t *testing.T) {
	f := tuned()
	f.Replicas[1].Role, f.Replicas[1].Follows = RoleMaster, ""
	if r := Examine(f); !found(r, "master", Problem, "a master too, beside m:1") {
		t.Errorf("with a second master:\n%s", r.Text())
	}
}

// TestSlowLoad: a load that goes on now tells how long one takes.
func TestSlowLoad(t *testing.T) {
	f := tuned()
	for k, v := range map[string]string{"loading": "1", "loading_total_bytes": "1000", "loading_loaded_bytes": "100", "loading_eta_seconds": "270"} {
		f.Replicas[0].Info[k] = v
	}
	if r := Examine(f); !found(r, "client-output-buffer-limit", Problem, "r:1 will have loaded it in 5m0s") {
		t.Errorf("with a load of five minutes:\n%s", r.Text())
	}
}

func TestNoMaster(t *testing.T) {
	f := tuned()
	f.Master = nil
	r := Examine(f)
	if !found(r, "master", Problem, "no master was found") || r.Problems != 1 {
		t.Errorf("without a master:\n%s", r.Text())
	}
}

func TestReportOrderAndJSON(t *testing.T) {
	f := tuned()
	f.Master.Settings, f.Master.ConfErr = nil, "NOPERM"
	f.Master.Info["repl_backlog_size"] = "1048576"
	f.Replicas[0].Clock = 300 * time.Millisecond
	r := Examine(f)
	var order []Severity
	for _, x := range r.Findings {
		order = append(order, x.Severity)
	}
	if len(order) != 3 || order[0] != Problem || order[1] != Warning || order[2] != Unknown || r.Problems != 1 || r.Warnings != 1 || r.Unknowns != 1 {
		t.Errorf("order %v, counts %d %d %d", order, r.Problems, r.Warnings, r.Unknowns)
	}
	b, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(b, &back); err != nil || back.Findings[0].Numbers["survives_seconds"] != 1 {
		t.Errorf("JSON %s: %v", b, err)
	}
	for _, want := range []string{"PROBLEM  repl-backlog-size  at m:1", "NOT CHECKED", "1 problem, 1 warning, 1 not checked"} {
		if !strings.Contains(r.Text(), want) {
			t.Errorf("the text lacks %q:\n%s", want, r.Text())
		}
	}
}

func TestWords(t *testing.T) {
	for got, want := range map[string]string{
		size(3): "3 B", size(1536): "1.5 KiB", size(256 * mib): "256.0 MiB", size(2 * gib): "2.0 GiB",
		setting(1): "1mb", setting(90 * mib): "128mb", setting(900 * mib): "1gb",
		seconds(0.025): "25 ms", seconds(0.25): "0.2 s", seconds(59.6): "60 s", seconds(3700): "1h1m40s", seconds(1e9): "weeks",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for text, want := range map[string]struct {
		v   Version
		rdb int
	}{
		"7.0.15":    {Version{Major: 7, Patch: 15}, 10},
		"6.2.0":     {Version{Major: 6, Minor: 2}, 9},
		"7.2.4":     {Version{Major: 7, Minor: 2, Patch: 4}, 11},
		"8.0.0-rc1": {Version{Major: 8}, 12},
	} {
		if v, ok := parseVersion(text); !ok || v != want.v || v.RDB() != want.rdb {
			t.Errorf("%s: %v %v, RDB %d", text, v, ok, v.RDB())
		}
	}
	for _, bad := range []string{"", "x.y.z", "255.x"} {
		if v, ok := parseVersion(bad); ok {
			t.Errorf("%q is %v", bad, v)
		}
	}
}
