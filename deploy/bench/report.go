package main

import (
	"context"
	"encoding/csv"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"
)

// results are all samples of a run.
type results struct {
	cells       []cell
	contestants []string
	samples     []sample
}

// of returns the samples of one contestant in one cell, by round.
func (r *results) of(c cell, name string) map[int]sample {
	m := map[int]sample{}
	for _, s := range r.samples {
		if s.cell == c && s.contestant == name {
			m[s.round] = s
		}
	}
	return m
}

// median of one figure over the rounds; false if there is none.
func (r *results) median(c cell, name string, figure func(sample) float64) (float64, bool) {
	var v []float64
	for _, s := range r.of(c, name) {
		v = append(v, figure(s))
	}
	return median(v)
}

// ratio is the median, over the rounds, of one throughput by another of the
// same round, so that drift between rounds does not count.
func (r *results) ratio(c cell, name string, base cell, baseName string) (float64, bool) {
	var v []float64
	bases := r.of(base, baseName)
	for round, s := range r.of(c, name) {
		if b, ok := bases[round]; ok && b.rps > 0 {
			v = append(v, s.rps/b.rps)
		}
	}
	return median(v)
}

func median(v []float64) (float64, bool) {
	if len(v) == 0 {
		return 0, false
	}
	slices.Sort(v)
	mid := len(v) / 2
	if len(v)%2 == 1 {
		return v[mid], true
	}
	return (v[mid-1] + v[mid]) / 2, true
}

// report is everything that table.md holds.
func (r *results) report(head string) string {
	var b strings.Builder
	b.WriteString(head)
	b.WriteString("\n| command | P | clients | bytes | via | contestant | krps | by direct | by direct TCP | p50 ms | p99 ms | proxy CPU us/cmd, user + sys | Redis CPU us/cmd |\n")
	b.WriteString("|---|--:|--:|--:|---|---|--:|--:|--:|--:|--:|--:|--:|\n")
	for _, c := range r.cells {
		for _, name := range c.among(r.contestants) {
			b.WriteString(r.row(c, name))
		}
	}
	if part, ok := r.replicaReads(); ok {
		fmt.Fprintf(&b, "\nReads through sluice that replicas served: %.1f %%.\n", part*100)
	}
	b.WriteString(r.budgets())
	b.WriteString(r.goals())
	return b.String()
}

func (r *results) row(c cell, name string) string {
	figure := func(f func(sample) float64) float64 {
		v, _ := r.median(c, name, f)
		return v
	}
	tcp := c
	tcp.via = viaTCP
	toDirect, _ := r.ratio(c, name, c, direct)
	toTCP := ""
	if v, ok := r.ratio(c, name, tcp, direct); ok && c.via != viaTCP {
		toTCP = fmt.Sprintf("%.2f", v)
	}
	cpu := ""
	if name != direct {
		cpu = fmt.Sprintf("%.2f + %.2f", figure(func(s sample) float64 { return s.userUS }), figure(func(s sample) float64 { return s.sysUS }))
	}
	return fmt.Sprintf("| %s | %d | %d | %d | %s | %s | %.1f | %.2f | %s | %.2f | %.2f | %s | %.2f |\n",
		c.command, c.pipeline, c.clients, c.bytes, c.via, name,
		figure(func(s sample) float64 { return s.rps / 1000 }), toDirect, toTCP,
		figure(func(s sample) float64 { return s.p50 }), figure(func(s sample) float64 { return s.p99 }),
		cpu, figure(func(s sample) float64 { return s.redisUS }))
}

// replicaReads is the part of all of sluice's GETs that went to replicas.
func (r *results) replicaReads() (float64, bool) {
	var all, replicas float64
	for _, s := range r.samples {
		if s.contestant == sluice && s.cell.command == "GET" {
			all += float64(s.requests)
			replicas += float64(s.requests) * s.replicaReads
		}
	}
	return replicas / max(all, 1), all > 0
}

// goals is a table of those goals that were measured, or nothing.
func (r *results) goals() string {
	var b strings.Builder
	for _, g := range goals {
		v, ok := g.value(r)
		if !ok {
			continue
		}
		sign, met := ">=", v >= g.limit
		if g.most {
			sign, met = "<=", v <= g.limit
		}
		verdict := "yes"
		if !met {
			verdict = "**no**"
		}
		fmt.Fprintf(&b, "| %s | %s %.2f | %.2f | %s |\n", g.text, sign, g.limit, v, verdict)
	}
	if b.Len() == 0 {
		return ""
	}
	return "\n| goal (sluice, 50 clients, 32 bytes) | wanted | measured | met |\n|---|--:|--:|---|\n" + b.String()
}

// describe names the machine and the programs: figures mean nothing without.
func describe(ctx context.Context, opt options, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s, %d CPUs, %s %s. ", cpuModel(), runtime.NumCPU(), runtime.GOOS, firstLine(os.ReadFile("/proc/sys/kernel/osrelease")))
	fmt.Fprintf(&b, "Everything on this one machine. Medians of %d alternating rounds, %s in all, on %s.\n\n",
		opt.rounds, took.Round(time.Second), time.Now().UTC().Format(time.DateOnly))
	commands := map[string][]string{
		direct:    {"redis-server", "--version"},
		haproxy:   {"haproxy", "-v"},
		twemproxy: {"nutcracker", "--version"},
		sluice:    {opt.sluice, "version"},
	}
	for _, name := range opt.contestants {
		argv, ok := commands[name]
		if !ok {
			continue // the bare forwarder has no version
		}
		line := firstLine(exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput())
		if words := strings.Fields(line); name == direct && len(words) > 2 {
			line = strings.Join(words[:3], " ") // the rest is of its build
		}
		fmt.Fprintf(&b, "- %s: %s\n", name, line)
	}
	return b.String()
}

func firstLine(b []byte, err error) string {
	if err != nil && len(b) == 0 {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

func cpuModel() string {
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return runtime.GOARCH
	}
	for line := range strings.Lines(string(b)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH
}

// csvFile takes every sample as it comes, so that a run that is cut short
// leaves what it measured.
type csvFile struct {
	f *os.File
	w *csv.Writer
}

func createCSV(path string) (*csvFile, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("create raw figures: %w", err)
	}
	c := &csvFile{f: f, w: csv.NewWriter(f)}
	return c, c.row([]string{"round", "command", "pipeline", "clients", "bytes", "via", "contestant", "requests", "rps",
		"p50_ms", "p99_ms", "proxy_user_us", "proxy_sys_us", "redis_us", "replica_reads", "client_us"})
}

func (c *csvFile) write(s sample) error {
	num := func(v float64) string { return strconv.FormatFloat(v, 'f', 3, 64) }
	return c.row([]string{strconv.Itoa(s.round), s.cell.command, strconv.Itoa(s.cell.pipeline), strconv.Itoa(s.cell.clients),
		strconv.Itoa(s.cell.bytes), s.cell.via, s.contestant, strconv.Itoa(s.requests), num(s.rps),
		num(s.p50), num(s.p99), num(s.userUS), num(s.sysUS), num(s.redisUS), num(s.replicaReads), num(s.clientUS)})
}

func (c *csvFile) row(fields []string) error {
	_ = c.w.Write(fields) // kept by the writer until Error
	c.w.Flush()
	if err := c.w.Error(); err != nil {
		return fmt.Errorf("write raw figures: %w", err)
	}
	return nil
}

func (c *csvFile) close() error { return c.f.Close() }
