// Command bench compares sluice with what else can stand in front of Redis, and
// with nothing in front of it, on one machine: throughput, latency, and the CPU
// time that a command costs in the proxy and in Redis. README.md says how to
// read what it prints; run.sh installs what it needs and starts it.
//
// All contestants alternate within each round, since machines drift: compare
// the ratios of one run, never the figures of two.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

type options struct {
	rounds      int
	seconds     float64
	requests    int
	only        *regexp.Regexp
	contestants []string
	quick       bool
	out         string
	sluice      string
	bare        string
	loops       int
	list        bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	opt, err := parseFlags(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		err = run(ctx, opt)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic // nothing is left for stop to undo
	}
}

func parseFlags(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.IntVar(&o.rounds, "rounds", 5, "measured rounds; the table shows their medians")
	fs.Float64Var(&o.seconds, "seconds", 1.2, "how long one run is to take, in `seconds`")
	fs.IntVar(&o.requests, "n", 0, "requests per run, instead of -seconds")
	only := fs.String("only", "", "only cells that match this `regexp`, e.g. 'GET P=1 .*tcp' (see -list)")
	contestants := fs.String("contestants", strings.Join(allContestants, ","), "comma-separated; direct is always in")
	fs.BoolVar(&o.quick, "quick", false, "only the cells that the goals are about: two to three minutes")
	fs.StringVar(&o.out, "out", "deploy/bench/out", "`directory` for table.md and raw.csv")
	fs.StringVar(&o.sluice, "sluice", "bin/sluice", "`path` of the sluice binary")
	fs.StringVar(&o.bare, "bare", "bin/bare", "`path` of the bare forwarder")
	fs.IntVar(&o.loops, "loops", 1, "event loops of sluice; HAProxy gets as many threads, twemproxy has one")
	fs.BoolVar(&o.list, "list", false, "print the cells and end")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.rounds < 1 || o.seconds <= 0 || o.loops < 1 || o.requests < 0 {
		return o, errors.New("-rounds, -seconds and -loops must be positive")
	}
	var err error
	if o.only, err = regexp.Compile(*only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	o.contestants = []string{direct}
	for name := range strings.SplitSeq(*contestants, ",") {
		if !slices.Contains(allContestants, name) {
			return o, fmt.Errorf("-contestants: %q is none of %s", name, strings.Join(allContestants, ", "))
		}
		if !slices.Contains(o.contestants, name) {
			o.contestants = append(o.contestants, name)
		}
	}
	return o, nil
}

func run(ctx context.Context, opt options) error {
	cells := chooseCells(opt)
	if opt.list {
		for _, c := range cells {
			fmt.Println(c)
		}
		return nil
	}
	if len(cells) == 0 {
		return fmt.Errorf("no cell matches -only %q", opt.only)
	}
	if err := os.MkdirAll(opt.out, 0o755); err != nil {
		return fmt.Errorf("create output directory: %w", err)
	}
	st, err := startStage(ctx, opt)
	if err != nil {
		return err
	}
	defer st.stop()
	raw, err := createCSV(filepath.Join(opt.out, "raw.csv"))
	if err != nil {
		return err
	}
	begin := time.Now()
	results, err := measure(ctx, opt, st, cells, raw)
	if cerr := raw.close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	report := results.report(describe(ctx, opt, time.Since(begin)))
	fmt.Print(report)
	path := filepath.Join(opt.out, "table.md")
	if err := os.WriteFile(path, []byte(report), 0o644); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	fmt.Fprintf(os.Stderr, "bench: %s and raw.csv beside it\n", path)
	return nil
}

// measure runs every cell against every contestant: once to warm up and to
// learn how many requests make a run of the wanted length, then in rounds.
func measure(ctx context.Context, opt options, st *stage, cells []cell, raw *csvFile) (*results, error) {
	res := &results{cells: cells, contestants: opt.contestants}
	requests := map[string]int{}
	for round := 0; round <= opt.rounds; round++ {
		for i, c := range cells {
			order := c.among(opt.contestants)
			if round%2 == 0 { // so that nobody always runs after the same other
				slices.Reverse(order)
			}
			for _, name := range order {
				key := c.String() + " " + name
				n := c.warmUp()
				if round > 0 {
					n = requests[key]
				}
				s, err := st.run(ctx, c, name, n)
				if err != nil {
					return nil, fmt.Errorf("%s, %s: %w", c, name, err)
				}
				if round == 0 {
					requests[key] = max(c.warmUp(), int(s.rps*opt.seconds))
					if opt.requests > 0 {
						requests[key] = opt.requests
					}
					continue
				}
				s.round = round
				res.samples = append(res.samples, s)
				if err := raw.write(s); err != nil {
					return nil, err
				}
			}
			fmt.Fprintf(os.Stderr, "\rround %d of %d, cell %d of %d  ", round, opt.rounds, i+1, len(cells))
		}
	}
	fmt.Fprintln(os.Stderr)
	return res, nil
}
