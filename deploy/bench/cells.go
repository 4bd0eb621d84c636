package main

import (
	"fmt"
	"slices"
)

// The contestants, in the table's order. direct is Redis' master itself.
const (
	direct    = "direct"
	haproxy   = "haproxy"
	twemproxy = "twemproxy"
	bare      = "bare" // the yardstick, see the command of that name
	sluice    = "sluice"
)

var allContestants = []string{direct, haproxy, twemproxy, bare, sluice}

// Ways to reach a contestant.
const (
	viaTCP  = "tcp"
	viaUnix = "unix"
)

// keys is how many keys there are of each size; every command takes one of
// them at random.
const keys = 10000

// cell is one line-up of the matrix: everything but who is measured.
type cell struct {
	command  string // GET or SET
	pipeline int    // requests sent at once by each client
	clients  int
	bytes    int // of a value
	via      string
}

// String is what -only is matched against.
func (c cell) String() string {
	return fmt.Sprintf("%s P=%d c=%d d=%d %s", c.command, c.pipeline, c.clients, c.bytes, c.via)
}

// among returns those of the contestants that can take part: the bare forwarder
// knows one size of request and reply, and no unix socket.
func (c cell) among(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool {
		return name == bare && (c.command != "GET" || c.bytes != sizes[0] || c.via != viaTCP)
	})
}

// warmUp returns how many requests tell the speed roughly, and not less than
// some dozens for each client.
func (c cell) warmUp() int {
	return max(5000, c.clients*c.pipeline*10, c.pipeline*3000)
}

// key returns the key as redis-benchmark takes it: it puts a random number of
// 12 digits for __rand_int__.
func (c cell) key() string { return keyPrefix(c.bytes) + "__rand_int__" }

func keyPrefix(bytes int) string { return fmt.Sprintf("bench%d:", bytes) }

var sizes = []int{32, 4096}

// chooseCells returns the matrix less what the options leave out. The
// transport changes fastest, so that the two runs whose ratio is shown are
// next to each other in time.
func chooseCells(opt options) []cell {
	var cells []cell
	for _, bytes := range sizes {
		for _, clients := range []int{50, 500} {
			for _, pipeline := range []int{1, 16} {
				for _, command := range []string{"GET", "SET"} {
					for _, via := range []string{viaTCP, viaUnix} {
						c := cell{command, pipeline, clients, bytes, via}
						if (!opt.quick || c.quick()) && opt.only.MatchString(c.String()) {
							cells = append(cells, c)
						}
					}
				}
			}
		}
	}
	return cells
}

// quick says whether a goal is about this cell.
func (c cell) quick() bool {
	if c.clients != 50 || c.bytes != 32 {
		return false
	}
	return c.via == viaTCP || c.command == "GET" && c.pipeline == 1
}

// goal is something that sluice is meant to show in the results.
type goal struct {
	text string
	// value is what was measured; false if it was not.
	value func(r *results) (float64, bool)
	limit float64
	most  bool // limit is the most that value may be, else the least
}

func small(command string, pipeline int, via string) cell {
	return cell{command, pipeline, 50, 32, via}
}

// ratioGoal is about sluice's throughput by that of another.
func ratioGoal(text string, c cell, other string, otherVia string, limit float64) goal {
	base := c
	base.via = otherVia
	return goal{text, func(r *results) (float64, bool) {
		return r.ratio(c, sluice, base, other)
	}, limit, false}
}

// goals are for one event loop, 50 clients and values of 32 bytes.
var goals = []goal{
	ratioGoal("GET P=1, throughput by twemproxy's", small("GET", 1, viaTCP), twemproxy, viaTCP, 1.0),
	ratioGoal("GET P=1, by direct", small("GET", 1, viaTCP), direct, viaTCP, 0.85),
	ratioGoal("GET P=16, by direct", small("GET", 16, viaTCP), direct, viaTCP, 0.92),
	ratioGoal("GET P=16, by twemproxy's", small("GET", 16, viaTCP), twemproxy, viaTCP, 2),
	ratioGoal("GET P=16, by the bare forwarder's", small("GET", 16, viaTCP), bare, viaTCP, 0.95),
	ratioGoal("SET P=1, by direct", small("SET", 1, viaTCP), direct, viaTCP, 0.85),
	ratioGoal("SET P=16, by direct", small("SET", 16, viaTCP), direct, viaTCP, 0.85),
	ratioGoal("GET P=1 through a unix socket, by direct TCP", small("GET", 1, viaUnix), direct, viaTCP, 1.0),
	{"GET P=16, user CPU of sluice per command, us", func(r *results) (float64, bool) {
		return r.median(small("GET", 16, viaTCP), sluice, func(s sample) float64 { return s.userUS })
	}, 0.2, true},
	{"GET P=1, Redis' CPU per command by direct's", func(r *results) (float64, bool) {
		c := small("GET", 1, viaTCP)
		behind, ok1 := r.median(c, sluice, func(s sample) float64 { return s.redisUS })
		alone, ok2 := r.median(c, direct, func(s sample) float64 { return s.redisUS })
		return behind / alone, ok1 && ok2
	}, 0.5, true},
}
