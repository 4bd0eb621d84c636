package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/alecthomas/kong"

	"github.com/sluice-io/sluice/cmd/sluice/internal/config"
)

// The exit codes.
const (
	exitOK      = 0
	exitRuntime = 1 // something failed while running
	exitUsage   = 2 // the command line or the configuration is wrong
)

// cli is the command line.
type cli struct {
	Serve    serveCmd    `cmd:"" help:"Run sluice in front of a Redis master and its replicas."`
	Lab      labCmd      `cmd:"" help:"Start local redis-servers with sluice in front, to try it and to kill nodes."`
	Doctor   doctorCmd   `cmd:"" help:"Look at a live master with its replicas and say what will hurt, with the setting to change."`
	Status   statusCmd   `cmd:"" help:"Show the nodes of a running sluice: roles, offsets, lag, reads."`
	Failover failoverCmd `cmd:"" help:"Hand the master's role to a replica, with writes held meanwhile: no error at any client."`
	Inspect  inspectCmd  `cmd:"" help:"Show what is in an RDB file: keys by type, database, expiry, size and prefix."`
	Tail     tailCmd     `cmd:"" help:"Show the replication stream that a relay has captured, command by command."`
	Resync   resyncCmd   `cmd:"" help:"Sync a lagging or diverged replica in full from a relay, in place of the master."`
	Store    storeCmd    `cmd:"" help:"Look into a directory that a relay has captured to: list it, verify it."`
	Version  versionCmd  `cmd:"" help:"Show the version."`
}

// env is what a command has of the outside world.
type env struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	signals <-chan os.Signal // SIGINT, SIGTERM, SIGHUP
}

// printf writes to standard output; there is nobody to tell if that fails.
func (e *env) printf(format string, args ...any) { _, _ = fmt.Fprintf(e.stdout, format, args...) }

// untilSignal returns a context that the next signal cancels. Signals that come
// after stop are left to the next reader.
func (e *env) untilSignal() (ctx context.Context, stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer cancel()
		select {
		case <-e.signals:
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(); <-done }
}

// usageError is a mistake on the command line or in the configuration.
type usageError struct{ error }

// Unwrap returns the cause.
func (e usageError) Unwrap() error { return e.error }

// exitNow carries an exit code that kong asks for (after --help) up to run.
type exitNow int

// run runs one command line and returns its exit code.
func run(args []string, e *env) (code int) {
	defer func() {
		if r := recover(); r != nil {
			now, ok := r.(exitNow)
			if !ok {
				panic(r)
			}
			code = int(now)
		}
	}()
	parser, err := kong.New(&cli{},
		kong.Name("sluice"),
		kong.Description("A proxy in front of stock Redis: writes to the master, reads to the replicas."),
		kong.Vars(config.Vars()),
		kong.Writers(e.stdout, e.stderr),
		kong.Exit(func(code int) { panic(exitNow(code)) }),
		kong.Bind(e),
	)
	if err != nil {
		panic(err) // the tags above are wrong
	}
	command, err := parser.Parse(args)
	if err != nil {
		_, _ = fmt.Fprintf(e.stderr, "sluice: %v\nsluice --help shows the commands, sluice COMMAND --help their flags.\n", err)
		return exitUsage
	}
	err = command.Run()
	if err == nil {
		return exitOK
	}
	_, _ = fmt.Fprintf(e.stderr, "sluice %s: %v\n", command.Command(), err)
	if h := hint(err); h != "" {
		_, _ = fmt.Fprintln(e.stderr, h)
	}
	if errors.As(err, &usageError{}) {
		return exitUsage
	}
	return exitRuntime
}

// hint says what to do about an error whose text comes from the system.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return "Another process listens there. Stop it, or choose another address: --listen for clients, --relay-listen for replicas, --admin-listen for metrics and status."
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "This machine does not have that address. Choose another: --listen for clients, --relay-listen for replicas, --admin-listen for metrics and status."
	case errors.Is(err, syscall.EACCES):
		return "No permission. A port below 1024 needs privileges; a file or a unix socket needs a directory that this user may use."
	}
	return ""
}
