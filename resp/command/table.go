package command

import (
	"slices"
	"strings"
	"sync"

	"github.com/sluice-io/sluice/resp"
)

// Table is an immutable set of commands. Its zero value is not usable; tables
// come from [Builtin], [Parse] and [Table.Overlay].
type Table struct {
	cmds []Command // sorted by name, subcommands among them
	top  *nameIndex
}

var builtin = sync.OnceValue(func() *Table { return newTable(generated[:]) })

// Builtin returns the table that was generated from the servers of [Sources].
func Builtin() *Table { return builtin() }

// Sources returns the servers whose COMMAND the built-in table is the union
// of, most trusted first: "Redis 7.0.15".
func Sources() []string { return slices.Clone(generatedSources[:]) }

// newTable builds a table from entries in any order; of two of the same name
// the later one wins. It copies the entries and links subcommands to their
// containers by name.
func newTable(entries []Command) *Table {
	byName := make(map[string]int, len(entries))
	t := &Table{cmds: make([]Command, 0, len(entries))}
	for _, c := range entries {
		if i, ok := byName[c.Name]; ok {
			t.cmds[i] = c
			continue
		}
		byName[c.Name] = len(t.cmds)
		t.cmds = append(t.cmds, c)
	}
	slices.SortFunc(t.cmds, func(a, b Command) int { return strings.Compare(a.Name, b.Name) })

	var top []string
	var topCmds []*Command
	subs := map[string][]*Command{}
	for i := range t.cmds {
		c := &t.cmds[i]
		c.Index, c.subs = i, nil
		c.keys = planKeys(c)
		if container, _, ok := strings.Cut(c.Name, "|"); ok {
			subs[container] = append(subs[container], c)
			continue
		}
		top, topCmds = append(top, c.Name), append(topCmds, c)
	}
	t.top = newNameIndex(top, topCmds)
	for container, list := range subs {
		if c := t.top.lookup([]byte(container)); c != nil {
			names := make([]string, len(list))
			for i, s := range list {
				names[i] = s.Name[len(container)+1:]
			}
			c.subs = newNameIndex(names, list)
		}
	}
	return t
}

// Lookup returns the command that a client calls by name, in any case, or nil.
// Subcommands are not found by it, since "config|get" is not a command that a
// client can send: see [Table.Resolve] and [Table.Find].
func (t *Table) Lookup(name []byte) *Command { return t.top.lookup(name) }

// Resolve returns what a calls: the command, or its subcommand where the second
// argument names one. For a container with an unknown subcommand it is the
// container, for an unknown command or no arguments nil.
func (t *Table) Resolve(a resp.Args) *Command {
	if a.Len() == 0 {
		return nil
	}
	c := t.top.lookup(a.At(0))
	if c == nil || c.subs == nil {
		return c
	}
	if s := c.sub(a); s != nil {
		return s
	}
	return c
}

// Find returns the command or subcommand of a full name as in [Command.Name],
// in any case, or nil. It is for set-up: it allocates.
func (t *Table) Find(name string) *Command {
	i, ok := slices.BinarySearchFunc(t.cmds, strings.ToLower(name),
		func(c Command, name string) int { return strings.Compare(c.Name, name) })
	if !ok {
		return nil
	}
	return &t.cmds[i]
}

// Len returns the number of commands and subcommands.
func (t *Table) Len() int { return len(t.cmds) }

// At returns the command whose Index is i, 0 <= i < Len.
func (t *Table) At(i int) *Command { return &t.cmds[i] }

// Overlay returns a table of the entries of over and of those entries of t
// whose names over lacks: a command that the master has disabled or renamed
// stays known with its flags. An entry of a server older than 7.0 keeps the key
// specs and subcommands that t knows, since such a server cannot tell them.
func (t *Table) Overlay(over *Table) *Table {
	entries := make([]Command, 0, len(t.cmds)+len(over.cmds))
	entries = append(entries, t.cmds...)
	for _, c := range over.cmds {
		if c.predates70 && c.Flags.Has(MovableKeys) && len(c.KeySpecs) == 0 {
			if under := t.Find(c.Name); under != nil {
				c.KeySpecs = under.KeySpecs
				c.Flags |= under.Flags & NoMandatoryKeys // as old as the key specs
			}
		}
		entries = append(entries, c)
	}
	return newTable(entries)
}
