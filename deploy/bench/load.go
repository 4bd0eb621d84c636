package main

import (
	"bytes"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
)

// sample is one run of redis-benchmark against one contestant. Latencies are
// in milliseconds, CPU times in microseconds per command.
type sample struct {
	cell         cell
	contestant   string
	round        int
	requests     int
	rps          float64
	p50, p99     float64
	userUS       float64 // of the proxy
	sysUS        float64
	redisUS      float64 // user and system, of all redis-servers together
	clientUS     float64 // user and system, of redis-benchmark
	replicaReads float64 // part of the GETs that replicas served
}

// run makes one run of n requests and checks that the servers saw them all.
func (st *stage) run(ctx context.Context, c cell, name string, n int) (sample, error) {
	to := st.contestants[name]
	n += c.pipeline - n%c.pipeline // redis-benchmark sends whole pipelines
	before, err := st.observe(to)
	if err != nil {
		return sample{}, err
	}
	out, client, err := redisBenchmark(ctx, c, to, n)
	if err != nil {
		return sample{}, err
	}
	after, err := st.observe(to)
	if err != nil {
		return sample{}, err
	}
	s, err := parseBenchmark(out)
	if err != nil {
		return sample{}, err
	}
	seen := after.masterSets - before.masterSets
	if c.command == "GET" {
		master, replicas := after.masterGets-before.masterGets, after.replicaGets-before.replicaGets
		seen = master + replicas
		s.replicaReads = float64(replicas) / float64(max(seen, 1))
		if missed := after.misses - before.misses; missed > 0 {
			return s, fmt.Errorf("%d of %d GETs found no value", missed, n)
		}
	}
	if seen < uint64(n) {
		return s, fmt.Errorf("%d requests were answered, but the servers saw %d", n, seen)
	}
	perCommand := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(n) }
	s.cell, s.contestant, s.requests = c, name, n
	s.userUS = perCommand(after.proxy.user - before.proxy.user)
	s.sysUS = perCommand(after.proxy.sys - before.proxy.sys)
	s.clientUS = perCommand(client)
	s.redisUS = perCommand(after.redis.user + after.redis.sys - before.redis.user - before.redis.sys)
	return s, nil
}

// redisBenchmark returns what `redis-benchmark --csv` prints, and the CPU time
// that it has taken.
func redisBenchmark(ctx context.Context, c cell, to *contestant, n int) (out []byte, cpu time.Duration, err error) {
	args := []string{"--csv", "-n", strconv.Itoa(n), "-c", strconv.Itoa(c.clients),
		"-P", strconv.Itoa(c.pipeline), "-r", strconv.Itoa(keys)}
	if c.via == viaUnix {
		args = append(args, "-s", to.socket)
	} else {
		args = append(args, "-h", "127.0.0.1", "-p", strconv.Itoa(to.port))
	}
	args = append(args, c.command, c.key())
	if c.command == "SET" {
		args = append(args, strings.Repeat("x", c.bytes))
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, "redis-benchmark", args...)
	cmd.Stderr = &stderr
	out, err = cmd.Output()
	if err != nil {
		return nil, 0, fmt.Errorf("redis-benchmark: %w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), nil
}

// parseBenchmark reads the CSV of one test: a heading and a line of figures.
func parseBenchmark(out []byte) (sample, error) {
	// Warnings about CONFIG, which proxies refuse, may stand before it.
	if i := bytes.Index(out, []byte(`"test",`)); i > 0 {
		out = out[i:]
	}
	rows, err := csv.NewReader(bytes.NewReader(out)).ReadAll()
	if err == nil && len(rows) != 2 {
		err = fmt.Errorf("%d rows instead of 2", len(rows))
	}
	if err != nil {
		return sample{}, fmt.Errorf("read redis-benchmark's output %q: %w", out, err)
	}
	var s sample
	for name, to := range map[string]*float64{"rps": &s.rps, "p50_latency_ms": &s.p50, "p99_latency_ms": &s.p99} {
		err := errors.New("there is none")
		for i, heading := range rows[0] {
			if heading == name {
				*to, err = strconv.ParseFloat(rows[1][i], 64)
			}
		}
		if err != nil {
			return sample{}, fmt.Errorf("read %s from redis-benchmark's output %q: %w", name, out, err)
		}
	}
	return s, nil
}

// observation is what the counters say at one moment.
type observation struct {
	proxy, redis                        cpuTime
	masterGets, masterSets, replicaGets uint64
	misses                              uint64
}

func (st *stage) observe(to *contestant) (observation, error) {
	var o observation
	for i, s := range st.servers {
		stats, err := readStats(s)
		if err != nil {
			return o, err
		}
		o.misses += stats.misses
		if i == 0 {
			o.masterGets, o.masterSets = stats.gets, stats.sets
		} else {
			o.replicaGets += stats.gets
		}
		t, err := readCPU(s.Pid())
		if err != nil {
			return o, err
		}
		o.redis.user += t.user
		o.redis.sys += t.sys
	}
	if to.proc != nil {
		var err error
		if o.proxy, err = readCPU(to.proc.cmd.Process.Pid); err != nil {
			return o, fmt.Errorf("%w%s", err, to.proc.logTail())
		}
	}
	return o, nil
}

// serverStats are counters of one redis-server since its start.
type serverStats struct{ gets, sets, misses uint64 }

func readStats(s *localredis.Server) (serverStats, error) {
	commands, err1 := localredis.Do(s.Addr(), "INFO", "commandstats")
	stats, err2 := localredis.Do(s.Addr(), "INFO", "stats")
	if err := errors.Join(err1, err2); err != nil {
		return serverStats{}, fmt.Errorf("INFO of %s: %w", s.Addr(), err)
	}
	return serverStats{
		gets:   infoNumber(commands, "cmdstat_get:calls="),
		sets:   infoNumber(commands, "cmdstat_set:calls="),
		misses: infoNumber(stats, "keyspace_misses:"),
	}, nil
}

// infoNumber returns the number after a line's beginning in INFO's answer, 0
// if there is no such line: a command never called has none.
func infoNumber(info, beginning string) uint64 {
	_, rest, ok := strings.Cut("\n"+info, "\n"+beginning)
	if !ok {
		return 0
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	n, _ := strconv.ParseUint(rest[:end], 10, 64) // digits only
	return n
}

// cpuTime is what a process has used since its start, in ticks of 10 ms:
// precise enough over runs of a second.
type cpuTime struct{ user, sys time.Duration }

// tick is 1/USER_HZ, which Linux has fixed to 100 for all that it shows in
// /proc (proc(5)).
const tick = 10 * time.Millisecond

func readCPU(pid int) (cpuTime, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return cpuTime{}, fmt.Errorf("read CPU time: %w", err)
	}
	return parseCPU(string(b))
}

// parseCPU reads fields 14 and 15 of /proc/PID/stat. The second field, the
// name in parentheses, may hold spaces and parentheses itself.
func parseCPU(stat string) (cpuTime, error) {
	fields := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
	if len(fields) < 13 {
		return cpuTime{}, fmt.Errorf("read CPU time: cannot read %q", stat)
	}
	user, err1 := strconv.ParseInt(fields[11], 10, 64)
	sys, err2 := strconv.ParseInt(fields[12], 10, 64)
	if err := errors.Join(err1, err2); err != nil {
		return cpuTime{}, fmt.Errorf("read CPU time: %w", err)
	}
	return cpuTime{user: time.Duration(user) * tick, sys: time.Duration(sys) * tick}, nil
}
