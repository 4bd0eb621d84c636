package command

import "strings"

// Flags of a command as COMMAND reports them, one bit each. Flags without a
// bit here are ignored by [Parse].
type Flags uint64

// The command flags. The text beside a bit is its name in COMMAND.
const (
	Write           Flags = 1 << iota // write: may change the data set
	ReadOnly                          // readonly: reads keys and changes nothing
	DenyOOM                           // denyoom: refused above maxmemory
	Module                            // module: comes from a module
	Admin                             // admin
	PubSub                            // pubsub
	NoScript                          // noscript: refused inside scripts
	Random                            // random: before 7.0, when it became a tip
	SortForScript                     // sort_for_script: before 7.0
	Blocking                          // blocking: may block its connection
	Loading                           // loading: allowed while the data set is loaded
	Stale                             // stale: allowed on a replica that lost its master
	SkipMonitor                       // skip_monitor
	SkipSlowlog                       // skip_slowlog; skip_commandlog in Valkey 8.1 and later
	Asking                            // asking
	Fast                              // fast
	NoAuth                            // no_auth: allowed before authentication
	MayReplicate                      // may_replicate: 6.2 only, hidden later
	NoMandatoryKeys                   // no_mandatory_keys: correct without any key, as EVAL is
	Protected                         // protected: hidden by stock servers
	NoAsyncLoading                    // no_async_loading
	NoMulti                           // no_multi: refused inside MULTI
	MovableKeys                       // movablekeys: first, last and step do not give all keys
	AllowBusy                         // allow_busy: allowed while a script runs too long
)

// flagBits are in the order of the bits; the first name of a bit is the one
// that String prints.
var flagBits = []struct {
	bit  Flags
	name string
}{
	{Write, "write"}, {ReadOnly, "readonly"}, {DenyOOM, "denyoom"}, {Module, "module"},
	{Admin, "admin"}, {PubSub, "pubsub"}, {NoScript, "noscript"}, {Random, "random"},
	{SortForScript, "sort_for_script"}, {Blocking, "blocking"}, {Loading, "loading"},
	{Stale, "stale"}, {SkipMonitor, "skip_monitor"}, {SkipSlowlog, "skip_slowlog"},
	{SkipSlowlog, "skip_commandlog"}, {Asking, "asking"}, {Fast, "fast"}, {NoAuth, "no_auth"},
	{MayReplicate, "may_replicate"}, {NoMandatoryKeys, "no_mandatory_keys"},
	{Protected, "protected"}, {NoAsyncLoading, "no_async_loading"}, {NoMulti, "no_multi"},
	{MovableKeys, "movablekeys"}, {AllowBusy, "allow_busy"},
}

// Has says whether all bits of f are set.
func (f Flags) Has(bits Flags) bool { return f&bits == bits }

// String lists the flags by their COMMAND names: "readonly|fast".
func (f Flags) String() string {
	var names []string
	for _, b := range flagBits {
		if f.Has(b.bit) {
			names = append(names, b.name)
			f &^= b.bit
		}
	}
	return strings.Join(names, "|")
}

// KeyFlags say what a command does with the keys of a [KeySpec].
type KeyFlags uint16

// The key spec flags. The text beside a bit is its name in COMMAND.
const (
	KeyRO            KeyFlags = 1 << iota // RO: read only
	KeyRW                                 // RW: read and written
	KeyOW                                 // OW: overwritten
	KeyRM                                 // RM: removed
	KeyAccess                             // access: the value's data is returned or copied
	KeyUpdate                             // update: depends on and changes the data
	KeyInsert                             // insert: adds data without reading any
	KeyDelete                             // delete: removes data from the value
	KeyNotKey                             // not_key: routed as a key in a cluster, yet none (SPUBLISH)
	KeyIncomplete                         // incomplete: the spec misses keys
	KeyVariableFlags                      // variable_flags: the other flags depend on the arguments
)

var keyFlagBits = []struct {
	bit  KeyFlags
	name string
}{
	{KeyRO, "ro"}, {KeyRW, "rw"}, {KeyOW, "ow"}, {KeyRM, "rm"}, {KeyAccess, "access"},
	{KeyUpdate, "update"}, {KeyInsert, "insert"}, {KeyDelete, "delete"}, {KeyNotKey, "not_key"},
	{KeyIncomplete, "incomplete"}, {KeyVariableFlags, "variable_flags"},
}

// Has says whether all bits of f are set.
func (f KeyFlags) Has(bits KeyFlags) bool { return f&bits == bits }

// String lists the flags by their COMMAND names in lower case: "rw|update".
func (f KeyFlags) String() string {
	var names []string
	for _, b := range keyFlagBits {
		if f.Has(b.bit) {
			names = append(names, b.name)
		}
	}
	return strings.Join(names, "|")
}

// parseFlag returns the bit of a flag as COMMAND names it, 0 for an unknown one.
func parseFlag(name string) Flags {
	for _, b := range flagBits {
		if strings.EqualFold(b.name, name) {
			return b.bit
		}
	}
	return 0
}

func parseKeyFlag(name string) KeyFlags {
	for _, b := range keyFlagBits {
		if strings.EqualFold(b.name, name) {
			return b.bit
		}
	}
	return 0
}
