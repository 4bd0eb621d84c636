// Command readme does what README.md says, from top to bottom, and compares what
// is printed with what the page says is printed. ../readme-test.sh gives it a
// clean environment.
//
// A block in ```sh or ```console is run as it stands, line by line in one bash; in
// ```console what follows a command is what it prints. Every other block, and
// every command that does not end by itself, needs a mark before it, a comment
// that a reader does not see:
//
//	<!-- test: start NAME until TEXT -->    each command in a terminal of its own, until TEXT is shown
//	<!-- test: output NAME -->              the block is what is shown there
//	<!-- test: stop NAME -->                Ctrl-C there; it must end well
//	<!-- test: until -->                    run it again until it prints what it should
//	<!-- test: fails -->                    its last command is to end with an error
//	<!-- test: file NAME -->                save the block as NAME
//	<!-- test: elsewhere PATH -->           PATH tests it, since it cannot be run here
//	<!-- test: none WHY -->                 nothing is to be run
//	<!-- test: hosts begin -->, hosts end   addresses and folders of the reader's own: only with -hosts
//
// A mark with commands of its own (run, until, start) does what the reader of a
// real site has done already: a master and its replicas, say.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

func main() {
	page := flag.String("page", "README.md", "the page; its directory is where commands run")
	hosts := flag.Bool("hosts", false, "10.0.0.x are addresses of this machine, and /run and /var/lib its own")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *page, *hosts); err != nil {
		fmt.Fprintln(os.Stderr, "readme:", err)
		os.Exit(1) //nolint:gocritic // nothing is left for stop to undo
	}
}

func run(ctx context.Context, page string, hosts bool) error {
	src, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	steps, err := parse(string(src))
	if err != nil {
		return fmt.Errorf("%s: %w", page, err)
	}
	root := filepath.Dir(page)
	for i := range steps {
		if err := steps[i].check(root); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	r, err := newRunner(root)
	if err != nil {
		return err
	}
	defer r.close()
	tally := map[string]int{}
	for i := range steps {
		s := &steps[i]
		begin := time.Now()
		verdict, err := "", error(nil)
		if s.hosts && !hosts && s.kind != kindNone && s.kind != kindElsewhere {
			verdict = "not run"
		} else if verdict, err = r.do(ctx, s); err != nil {
			return fmt.Errorf("%s:%d: %s: %w", page, s.line, title(s), err)
		}
		if took := time.Since(begin); !s.shown {
			if took > time.Second {
				fmt.Printf("%-9s %s:%-4d %5.1f s  %s\n", "(mark)", page, s.line, took.Seconds(), title(s))
			}
			continue
		}
		tally[verdict]++
		fmt.Printf("%-9s %s:%-4d %5.1f s  %s\n", verdict, page, s.line, time.Since(begin).Seconds(), title(s))
	}
	fmt.Printf("readme: %d blocks ran, %d are tested elsewhere, %d have nothing to run", tally["ok"], tally["elsewhere"], tally["none"])
	if n := tally["not run"]; n > 0 {
		fmt.Printf(", %d were not run: this machine gives no namespace with the page's hosts", n)
	}
	fmt.Println()
	return nil
}

// title is what the log says of a step.
func title(s *step) string {
	switch s.kind {
	case kindElsewhere, kindNone, kindFile, kindOutput, kindStop, kindHosts:
		return string(s.kind) + " " + strings.Join(s.args, " ")
	}
	typed, _ := s.commands()
	text := strings.Join(typed, "; ")
	if r := []rune(text); len(r) > 90 {
		text = string(r[:90]) + "…"
	}
	return strings.ReplaceAll(text, "\n", " ")
}
