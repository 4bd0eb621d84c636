// Command sluice stands in front of stock Redis: writes go to the master, reads
// to replicas. See `sluice --help` and deploy/sluice.example.yml.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], &env{stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr, signals: signals}))
}
