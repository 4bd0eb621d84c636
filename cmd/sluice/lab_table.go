package main

import (
	"fmt"
	"net"
	"os"
	"text/tabwriter"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
)

// labReady is the line that says that the lab runs.
const labReady = "Ctrl-C stops everything."

// printTable says who listens where and what to try.
func (l *lab) printTable() {
	w := tabwriter.NewWriter(l.env.stdout, 0, 0, 2, ' ', 0)
	row := func(columns ...any) { _, _ = fmt.Fprintf(w, "%v\t%v\t%v\t%v\n", columns...) }
	row("WHO", "ADDRESS", "PID", "WHAT")
	var first net.Addr
	for _, a := range l.in.proxy.Addrs() {
		if first == nil {
			first = a
		}
		address := a.String()
		if a.Network() == "unix" {
			address = "unix:" + address
		}
		row("sluice", address, os.Getpid(), "clients connect here")
	}
	row("sluice", l.in.admin.Addr(), os.Getpid(), "metrics, health, status")
	if l.relayPort != 0 {
		row("sluice", l.in.cfg.Relay.Listen, os.Getpid(), fmt.Sprintf("replicas sync here: REPLICAOF 127.0.0.1 %d", l.relayPort))
	}
	for _, s := range l.servers {
		what := "reads"
		if l.relayPort != 0 && s.of == l.relayPort {
			what = "reads, behind the relay"
		}
		if s.role == "master" {
			what = "writes"
		}
		row(s.role, s.Addr(), s.Pid(), what)
	}
	_ = w.Flush()
	l.env.printf("\n%s", l.suggestions(first))
	l.env.printf("\nLogs and sockets are in %s\n%s\n", l.dir, labReady)
}

// suggestions is what to try, with first the first address for clients.
func (l *lab) suggestions(first net.Addr) string {
	admin := l.in.admin.Addr().String()
	status := os.Args[0] + " status"
	if admin != config.DefaultAdminListen {
		status += " --admin " + admin
	}
	read := l.servers[len(l.servers)-1] // a replica, if there is one
	lines := [][2]string{
		{cliFor(first) + " set hello ahri", "a write: the master"},
		{cliFor(first) + " get hello", "a read: a replica"},
		{fmt.Sprintf("redis-cli -p %d info commandstats", read.Port()), "what this node has answered"},
		{"curl -s http://" + admin + "/metrics | grep ^sluice_", "lag, nodes, commands"},
		{status + " --watch", "the same for people"},
	}
	if l.relayPort != 0 {
		lines = append(lines, [2]string{fmt.Sprintf("redis-cli -p %d info replication", l.relayPort), "the relay, as a replica would say it"})
	}
	if read.role == "replica" {
		lines = append(lines, [2]string{fmt.Sprintf("kill -9 %d", read.Pid()), "a replica dies: reads go on"})
	}
	out := "Try:\n"
	width := 0
	for _, line := range lines {
		width = max(width, len(line[0]))
	}
	for _, line := range lines {
		out += fmt.Sprintf("  %-*s  # %s\n", width, line[0], line[1])
	}
	return out
}

// cliFor returns the redis-cli command that connects to a.
func cliFor(a net.Addr) string {
	if a.Network() == "unix" {
		return "redis-cli -s " + a.String()
	}
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return "redis-cli"
	}
	if ip := net.ParseIP(host); ip != nil && !ip.IsUnspecified() && host != "127.0.0.1" {
		return "redis-cli -h " + host + " -p " + port
	}
	return "redis-cli -p " + port
}
