package doctor

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// What is assumed where nothing was measured, in bytes of the data set per
// second. The slow end of what is usual: a prediction that comes too early is
// the cheaper mistake.
const (
	assumedSave     = 100 * mib
	assumedTransfer = 100 * mib // about 1 Gbit/s
	assumedLoad     = 100 * mib
)

// fullSync is how long a full sync of a new replica takes, in seconds.
type fullSync struct {
	save, transfer, load float64
	basis                string // how it is known
}

func (s fullSync) total() float64 { return s.save + s.transfer + s.load }

// estimateFullSync reads it from what the master's last or running snapshot and
// the replicas' running loads took.
func (f *Facts) estimateFullSync() fullSync {
	info := f.Master.Info
	data, ok := info.Int("used_memory_dataset")
	if !ok {
		data, _ = info.Int("used_memory")
	}
	size1 := float64(data)
	var s fullSync
	last, _ := info.Int("rdb_last_bgsave_time_sec") // whole seconds, -1 before the first
	switch {
	case last >= 1:
		s.save, s.basis = float64(last), fmt.Sprintf("the last snapshot took %d s", last)
	case last == 0 && info.Is("rdb_last_bgsave_status", "ok"):
		s.save, s.basis = math.Min(1, size1/assumedSave), "the last snapshot took less than a second"
	default:
		s.save, s.basis = size1/assumedSave, fmt.Sprintf("no snapshot was taken yet: %s/s assumed", size(assumedSave))
	}
	if running := projectedSave(info); running > s.save {
		s.save, s.basis = running, fmt.Sprintf("the running snapshot will take %s", seconds(running))
	}
	if f.Master.Settings.Is("repl-diskless-sync", "yes") {
		s.save = math.Max(s.save, size1/assumedTransfer) // written to the replica as it is made
	} else {
		s.transfer = size1 / assumedTransfer
	}
	s.load = size1 / assumedLoad
	for _, r := range f.direct() {
		if measured := loading(r); measured > s.load {
			s.load = measured
			s.basis += fmt.Sprintf(", %s will have loaded it in %s", r.Addr, seconds(measured))
		}
	}
	return s
}

// firstCount is how many keys a snapshot's child has saved before it tells
// anything but 1 (rdbSaveDb in Redis's rdb.c).
const firstCount = 1024

// projectedSave returns how long the running snapshot will have taken by its
// end; 0 where there is none, or where that is too early to tell.
func projectedSave(info Fields) float64 {
	now, ok := info.Int("rdb_current_bgsave_time_sec")
	done, ok2 := info.Int("current_save_keys_processed")
	all, ok3 := info.Int("current_save_keys_total")
	if !ok || !ok2 || !ok3 || now < 1 || done < firstCount || all < done {
		return 0
	}
	age, _ := info.Int("current_cow_size_age") // of what the child has told, in seconds
	return float64(max(now-age, 1)) * float64(all) / float64(done)
}

// loading returns how long the load that a replica is at will have taken by its
// end; 0 where it loads nothing.
func loading(r *Node) float64 {
	total, ok := r.Info.Int("loading_total_bytes")
	done, ok2 := r.Info.Int("loading_loaded_bytes")
	eta, ok3 := r.Info.Int("loading_eta_seconds")
	if !r.Info.Is("loading", "1") || !ok || !ok2 || !ok3 || done < 1 || total <= done || eta < 1 {
		return 0
	}
	// The estimate is for what is left, at the pace so far.
	return float64(eta) * float64(total) / float64(total-done)
}

// outputLimit is client-output-buffer-limit of replicas; 0 is no limit.
type outputLimit struct {
	hard, soft  float64 // bytes
	softSeconds float64
}

// parseOutputLimit reads "normal 0 0 0 slave 268435456 67108864 60 pubsub ...".
func parseOutputLimit(s string) (l outputLimit, ok bool) {
	words := strings.Fields(s)
	for i := 0; i+3 < len(words); i += 4 {
		if words[i] != "slave" && words[i] != "replica" {
			continue
		}
		var n [3]float64
		for j := range n {
			v, err := strconv.ParseUint(words[i+1+j], 10, 63)
			if err != nil {
				return l, false
			}
			n[j] = float64(v)
		}
		return outputLimit{n[0], n[1], n[2]}, true
	}
	return l, false
}

// kill returns after how many seconds of a full sync a buffer that grows by
// rate bytes/s is cut off, and by which limit; +Inf for never.
func (l outputLimit) kill(rate float64) (after float64, limit string) {
	after = math.Inf(1)
	if l.hard > 0 {
		after, limit = l.hard/rate, "hard limit of "+size(l.hard)
	}
	if soft := l.soft/rate + l.softSeconds; l.soft > 0 && soft < after {
		after, limit = soft, fmt.Sprintf("soft limit of %s for %.0f s", size(l.soft), l.softSeconds)
	}
	return after, limit
}

// checkDeadLoop predicts whether a full sync can end under the write rate. The
// package comment has the reasoning.
func checkDeadLoop(f *Facts) []Finding {
	const name = "client-output-buffer-limit"
	m, ok := f.server()
	if !ok || f.fedByRelays() {
		return nil
	}
	if m.Info == nil {
		return []Finding{m.noInfo(name)}
	}
	limit, ok := parseOutputLimit(m.Settings[name])
	if !ok {
		return []Finding{m.noSetting(name, name)}
	}
	rate, ok := f.writes()
	if !ok {
		return []Finding{f.noRate(name)}
	}
	backlog, _ := m.Info.Int("repl_backlog_size")
	version, known := m.Version()
	shared := known && !version.Less(7, 0, 0) // backlog and output buffers are one
	if shared && limit.hard > 0 {
		limit.hard = math.Max(limit.hard, float64(backlog))
	}
	sync := f.estimateFullSync()
	need := rate * sync.total()
	after, which := limit.kill(rate)
	if shared && float64(backlog) >= need && after > sync.save+sync.transfer {
		return nil // cut off while it loads, it goes on from the backlog
	}
	x := Finding{Check: name, Node: m.Addr, Numbers: map[string]float64{
		"write_bytes_per_second": rate, "full_sync_seconds": sync.total(), "need_bytes": need,
		"hard_limit_bytes": limit.hard, "soft_limit_bytes": limit.soft, "soft_limit_seconds": limit.softSeconds,
	}}
	facts := fmt.Sprintf("a full sync takes %s (snapshot %s, transfer %s, load %s; %s), and %s/s are written meanwhile, %s in all",
		seconds(sync.total()), seconds(sync.save), seconds(sync.transfer), seconds(sync.load), sync.basis, size(rate), size(need))
	x.Action = fmt.Sprintf(`CONFIG SET client-output-buffer-limit "replica %s %s 60" (memory beside maxmemory, for each replica that syncs%s), or let a sluice relay feed the replicas`,
		setting(2*need), setting(2*need), map[bool]string{true: "; all share it from 7.0 on"}[shared])
	switch twice, _ := limit.kill(2 * rate); {
	case after < sync.total():
		x.Severity, x.Numbers["seconds_to_kill"] = Problem, after
		x.Message = fmt.Sprintf("the dead loop of full syncs: %s; the master closes the replica's connection after %s by the %s, and the sync begins anew, with a fork of the master each time",
			facts, seconds(after), which)
	case twice < sync.total():
		x.Severity = Warning
		x.Message = fmt.Sprintf("close to the dead loop of full syncs: %s; at twice that rate the %s ends each full sync before it is done", facts, which)
	default:
		return nil
	}
	return []Finding{x}
}

// fedByRelays reports whether the master feeds relays alone: they attach
// without a full sync.
func (f *Facts) fedByRelays() bool {
	direct := f.direct()
	for _, r := range direct {
		if !r.Relay {
			return false
		}
	}
	return len(direct) > 0
}

// checkFullSyncs tells of full syncs that are more than a replica's first.
func checkFullSyncs(f *Facts) []Finding {
	const name, manyPerHour = "full-syncs", 1.0
	m, ok := f.server()
	if !ok {
		return nil
	}
	if m.Info == nil {
		return []Finding{m.noInfo(name)}
	}
	all, _ := m.Info.Int("sync_full")
	uptime, _ := m.Info.Int("uptime_in_seconds")
	refused, _ := m.Info.Int("sync_partial_err")
	x := Finding{Check: name, Node: m.Addr, Numbers: map[string]float64{"sync_full": float64(all), "uptime_seconds": float64(uptime)},
		Action: "Read the master's log: \"scheduled to be closed ASAP for overcoming of output buffer limits\" is the dead loop (raise client-output-buffer-limit), \"Unable to partial resync\" a short backlog (raise repl-backlog-size)"}
	if m.FullSyncs >= 2 {
		x.Severity = Problem
		x.Message = fmt.Sprintf("%d full syncs began within the %s of the sample: replicas start anew again and again", m.FullSyncs, seconds(f.Sample.Seconds()))
		return []Finding{x}
	}
	again := float64(all) - float64(len(f.direct())) // each replica's first is as it must be
	if hours := float64(uptime) / 3600; again >= 5 && again > manyPerHour*math.Max(1, hours) {
		x.Severity = Warning
		x.Message = fmt.Sprintf("%d full syncs in %s, for %s; %d requests for a partial one were refused", all, seconds(float64(uptime)), count(len(f.direct()), "replica"), refused)
		return []Finding{x}
	}
	return nil
}

// checkBacklog compares the backlog with what is written during the longest
// outage to survive.
func checkBacklog(f *Facts) []Finding {
	const name = "repl-backlog-size"
	m, ok := f.server()
	if !ok {
		return nil
	}
	backlog, ok := m.Info.Int("repl_backlog_size")
	if !ok {
		return []Finding{m.noInfo(name)}
	}
	rate, ok := f.writes()
	if !ok {
		return []Finding{f.noRate(name)}
	}
	lasts := float64(backlog) / rate
	if lasts >= f.Outage.Seconds() {
		return nil
	}
	need := rate * f.Outage.Seconds()
	return []Finding{{Severity: Problem, Check: name, Node: m.Addr,
		Message: fmt.Sprintf("the backlog of %s holds %s of writes at %s/s; a replica that is away for longer needs a full sync, and %s are to be survived",
			size(float64(backlog)), seconds(lasts), size(rate), seconds(f.Outage.Seconds())),
		Action: fmt.Sprintf("CONFIG SET repl-backlog-size %s, on the replicas too, as each may become master (%s are needed, and half as much again for bursts)", setting(1.5*need), size(need)),
		Numbers: map[string]float64{"repl_backlog_bytes": float64(backlog), "write_bytes_per_second": rate,
			"survives_seconds": lasts, "outage_seconds": f.Outage.Seconds()},
	}}
}

// checkReplTimeout looks for a timeout that cuts healthy links, or notices dead
// ones late.
func checkReplTimeout(f *Facts) (out []Finding) {
	const name, short, long = "repl-timeout", 10, 300
	for _, n := range f.servers() {
		timeout, ok := n.Settings.Int(name)
		ping, ok2 := n.Settings.Int("repl-ping-replica-period")
		if !ok || !ok2 {
			out = append(out, n.noSetting(name, name))
			continue
		}
		x := Finding{Check: name, Node: n.Addr, Severity: Warning, Action: "CONFIG SET repl-timeout 60",
			Numbers: map[string]float64{"repl_timeout_seconds": float64(timeout), "ping_period_seconds": float64(ping)}}
		switch {
		case timeout <= ping:
			x.Severity = Problem
			x.Message = fmt.Sprintf("repl-timeout (%d s) is not above repl-ping-replica-period (%d s): an idle link is taken for dead between two PINGs", timeout, ping)
		case timeout < short:
			x.Message = fmt.Sprintf("repl-timeout is %d s: a fork, a slow command or a full disk that takes longer cuts the link", timeout)
		case timeout > long:
			x.Message = fmt.Sprintf("repl-timeout is %d s: a link that is dead without a word is noticed only after that", timeout)
		default:
			continue
		}
		out = append(out, x)
	}
	return out
}

// checkDiskless looks at how a full sync travels.
func checkDiskless(f *Facts) []Finding {
	const name = "repl-diskless-sync"
	m, ok := f.server()
	if !ok || f.fedByRelays() {
		return nil
	}
	mode := m.Settings[name]
	delay, ok := m.Settings.Int("repl-diskless-sync-delay")
	switch {
	case mode == "" || !ok:
		return []Finding{m.noSetting(name, name)}
	case mode == "no" && len(f.Replicas) > 0:
		return []Finding{{Severity: Warning, Check: name, Node: m.Addr,
			Message: "a full sync writes the snapshot to the master's disk before the first byte is sent; writes wait in the replica's buffer for so much longer",
			Action:  "CONFIG SET repl-diskless-sync yes (the default from 7.0 on), unless the network is slower than the disk"}}
	case mode == "yes" && delay == 0 && len(f.direct()) > 1:
		return []Finding{{Severity: Warning, Check: name, Node: m.Addr,
			Message: fmt.Sprintf("repl-diskless-sync-delay is 0: of %d replicas that come back together, the first gets a fork of the master to itself, and the others wait for the next", len(f.direct())),
			Action:  "CONFIG SET repl-diskless-sync-delay 5 (the default)"}}
	}
	return nil
}
