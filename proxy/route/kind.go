package route

import (
	"strings"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
)

// Kind says how the proxy treats a command. It is computed once per command
// from the flags of COMMAND and the exceptions below.
type Kind uint8

// The kinds.
const (
	Other       Kind = iota // administration, scripts, unknown commands: the master
	Write                   // flagged write: the master
	Script                  // may write to the keys it names: the master
	Read                    // flagged readonly: any node that is far enough
	MasterRead              // readonly, but its answer depends on the node: the master
	Kill                    // ends a script that another connection waits for: a connection apart
	Blocking                // may wait: a pinned connection for its duration
	Wait                    // WAIT, WAITAOF: refers to the writes of its connection
	Multi                   // begins a transaction: pinned until Exec or Discard
	Exec                    // ends it
	Discard                 // ends it
	Watch                   // pinned until Exec, Discard or Unwatch
	Unwatch                 // ends it
	Subscribe               // pinned until nothing is subscribed to
	Unsubscribe             // may end it
	Sticky                  // leaves state on the connection: pinned until RESET or the end
	Denied                  // refused, see Options.DeniedCommands
	Hello                   // from here on: answered by the proxy itself
	Auth
	Select
	Client
	Quit
	Reset
	Ping // as MasterRead while there is a master: a busy or failing one is to be seen
	Echo
	NumKinds
)

// ReadOnly reports whether a request changes nothing, neither data nor the state
// of its session, so that other reads need not stay behind it.
func (k Kind) ReadOnly() bool { return k == Read || k == MasterRead || k == Ping || k == Echo }

// byName holds the commands whose treatment does not follow from their flags.
var byName = map[string]Kind{
	// The cursor of SCAN depends on the hash seed of the process, that of
	// HSCAN, SSCAN and ZSCAN on its hash tables' sizes.
	"scan": MasterRead, "hscan": MasterRead, "sscan": MasterRead, "zscan": MasterRead,
	// Access times and frequencies are kept per node.
	"touch": MasterRead, "object|freq": MasterRead, "object|idletime": MasterRead,
	// Counts and picks keys that have expired but not been deleted yet.
	"dbsize": MasterRead, "randomkey": MasterRead,
	"xinfo|consumers": MasterRead, "memory|usage": MasterRead,
	// The counters of consumer groups are not replicated whole: entries-read and
	// lag are unknown on a replica where the master knows them.
	"xinfo|stream": MasterRead, "xinfo|groups": MasterRead,
	// The script cache is not replicated.
	"evalsha_ro": MasterRead,

	// Not flagged as what they are.
	"eval": Script, "evalsha": Script, "fcall": Script,

	"script|kill": Kill, "function|kill": Kill,
	"wait": Wait, "waitaof": Wait,
	"multi": Multi, "exec": Exec, "discard": Discard, "watch": Watch, "unwatch": Unwatch,
	"subscribe": Subscribe, "psubscribe": Subscribe, "ssubscribe": Subscribe,
	"unsubscribe": Unsubscribe, "punsubscribe": Unsubscribe, "sunsubscribe": Unsubscribe,
	"monitor": Sticky, "script|debug": Sticky,
	"hello": Hello, "auth": Auth, "select": Select, "client": Client,
	"quit": Quit, "reset": Reset, "ping": Ping, "echo": Echo,
}

// Table joins a command table with the kinds of its commands. It is immutable.
type Table struct {
	cmds  *command.Table
	kinds []Kind // by Command.Index
}

// NewTable computes the kinds. denied holds lower-case names of commands, or
// of subcommands as "config|set".
func NewTable(cmds *command.Table, denied []string) *Table {
	t := &Table{cmds: cmds, kinds: make([]Kind, cmds.Len())}
	deny := make(map[string]bool, len(denied))
	for _, d := range denied {
		deny[d] = true
	}
	for i := range cmds.Len() {
		c := cmds.At(i)
		container, _, _ := strings.Cut(c.Name, "|")
		if deny[c.Name] || deny[container] {
			t.kinds[c.Index] = Denied
			continue
		}
		t.kinds[c.Index] = kindOf(c, container)
	}
	return t
}

func kindOf(c *command.Command, container string) Kind {
	if k, ok := byName[c.Name]; ok {
		return k
	}
	if container == "client" {
		return Client
	}
	switch f := c.Flags; {
	case f&command.Blocking != 0:
		return Blocking
	case f&command.Write != 0:
		return Write
	case f&command.Admin != 0:
		return Other
	case f&command.ReadOnly != 0:
		return Read
	default:
		return Other
	}
}

// Lookup finds the command of a request. cmd is nil for an unknown one.
func (t *Table) Lookup(a resp.Args) (cmd *command.Command, k Kind) {
	cmd = t.cmds.Lookup(a.At(0))
	if cmd == nil {
		return nil, Other
	}
	if cmd.HasSubcommands() && a.Len() > 1 {
		cmd = t.cmds.Resolve(a)
	}
	k = t.kinds[cmd.Index]
	if k == Blocking && !mayBlock(cmd, a) {
		k = plainKind(cmd)
	}
	return cmd, k
}

// mayBlock tells XREAD and XREADGROUP without BLOCK from those that wait.
func mayBlock(cmd *command.Command, a resp.Args) bool {
	if cmd.Name != "xread" && cmd.Name != "xreadgroup" {
		return true
	}
	for i := 1; i < a.Len(); i++ {
		switch w := a.At(i); {
		case equalFold(w, "block"):
			return true
		case equalFold(w, "streams"):
			return false
		}
	}
	return false
}

func plainKind(cmd *command.Command) Kind {
	if cmd.Flags&command.ReadOnly != 0 {
		return Read
	}
	return Write
}

// equalFold reports whether w is the lower-case ASCII word s in any case.
func equalFold(w []byte, s string) bool {
	if len(w) != len(s) {
		return false
	}
	for i := range w {
		if w[i]|0x20 != s[i] {
			return false
		}
	}
	return true
}
