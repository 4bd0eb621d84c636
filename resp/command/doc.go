// Package command is the table of Redis commands: their flags, their arity and
// where their keys are.
//
// The table comes from the COMMAND reply of real servers, never from a list
// written by hand: a proxy that guesses which commands write sends writes to
// replicas. [Builtin] is the union over the servers of [Sources], made by
// `go generate`. At run time the master's own COMMAND is parsed by [Parse] and
// laid over it by [Table.Overlay], so that modules, newer commands and an older
// server's narrower flags are seen as that server sees them.
//
//	t := command.Builtin().Overlay(live)
//	c := t.Resolve(args)              // nil: the server does not know it either
//	keys, complete := c.AppendKeys(buf[:0], args)
//
// A [Table] and its commands are immutable and may be used by any goroutine.
//
// What COMMAND does not say: the flags may_replicate, protected and
// touches_arbitrary_keys are hidden by Redis 7.0 and later
// (addReplyFlagsForCommand), and a command that rename-command renamed is
// listed under its original name, so its new name stays unknown here.
package command

//go:generate go run ./gen -o table_gen.go
