package main

import (
	"fmt"
	"runtime"
	"strings"
)

// budget is the CPU time of one command, in microseconds, by who spends it.
type budget struct{ client, proxy, redis float64 }

func (s sample) budget() budget { return budget{s.clientUS, s.userUS + s.sysUS, s.redisUS} }

// sum is what a command costs this machine.
func (b budget) sum() float64 { return b.client + b.proxy + b.redis }

// ceiling is the throughput, in commands per second, at which that keeps so
// many CPUs busy without a pause: there can be no more.
func (b budget) ceiling(cpus int) float64 { return float64(cpus) * 1e6 / b.sum() }

// budgets is a table of what each command costs on this machine, and of what the
// CPUs allow: where a contestant is close to that, only less work can make it
// faster; where it is far from it, CPUs have been idle.
func (r *results) budgets() string {
	var b strings.Builder
	b.WriteString("\n| command | P | clients | bytes | via | contestant | client + proxy + Redis = CPU us/cmd | CPUs busy | all CPUs busy, by direct |\n")
	b.WriteString("|---|--:|--:|--:|---|---|--:|--:|--:|\n")
	for _, c := range r.cells {
		for _, name := range c.among(r.contestants) {
			b.WriteString(r.budgetRow(c, name, runtime.NumCPU()))
		}
	}
	return b.String()
}

func (r *results) budgetRow(c cell, name string, cpus int) string {
	figure := func(f func(sample) float64) float64 {
		v, _ := r.median(c, name, f)
		return v
	}
	var ceilings []float64
	bases := r.of(c, direct)
	for round, s := range r.of(c, name) {
		if base, ok := bases[round]; ok {
			ceilings = append(ceilings, s.budget().ceiling(cpus)/base.rps)
		}
	}
	ceiling, _ := median(ceilings)
	return fmt.Sprintf("| %s | %d | %d | %d | %s | %s | %.2f + %.2f + %.2f = %.2f | %.2f of %d | %.2f |\n",
		c.command, c.pipeline, c.clients, c.bytes, c.via, name,
		figure(func(s sample) float64 { return s.budget().client }),
		figure(func(s sample) float64 { return s.budget().proxy }),
		figure(func(s sample) float64 { return s.budget().redis }),
		figure(func(s sample) float64 { return s.budget().sum() }),
		figure(func(s sample) float64 { return s.budget().sum() * s.rps / 1e6 }), cpus, ceiling)
}
