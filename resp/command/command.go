package command

import "github.com/sluice-io/sluice/resp"

// Command is one command or subcommand of a [Table], as COMMAND describes it.
// It is immutable: callers must not write to its fields.
type Command struct {
	Name  string // lower case; a subcommand is "config|get"
	Index int    // position in its table, dense from 0: for arrays of facts per command
	Arity int    // number of arguments with the name; negative: at least -Arity
	Flags Flags

	// FirstKey, LastKey and Step are the positions of the keys where all are
	// in one range; a negative LastKey counts from the end (-1 is the last
	// argument); FirstKey 0 means no keys in a range. [Command.AppendKeys]
	// follows KeySpecs where there are any.
	FirstKey, LastKey, Step int
	KeySpecs                []KeySpec

	// predates70 marks the six-element entry of a server older than 7.0, which
	// says nothing about key specs and subcommands.
	predates70 bool

	// Derived by Table when it is built.
	subs *nameIndex // by the subcommand's own name; nil without subcommands
	keys keyPlan
}

// ArityOK says whether n arguments, the name counted, are a number that the
// server accepts.
func (c *Command) ArityOK(n int) bool {
	if c.Arity < 0 {
		return n >= -c.Arity
	}
	return n == c.Arity
}

// HasSubcommands says whether the command is a container such as CONFIG.
func (c *Command) HasSubcommands() bool { return c.subs != nil }

// sub returns the subcommand that a names, nil if it names none.
func (c *Command) sub(a resp.Args) *Command {
	if c.subs == nil || a.Len() < 2 {
		return nil
	}
	return c.subs.lookup(a.At(1))
}
