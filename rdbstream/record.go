package rdbstream

import (
	"math"
	"time"
)

// Kind is what a record is.
type Kind uint8

// The kinds of records. What fields of [Record] each has stands behind it.
const (
	KindAux        Kind = iota + 1 // a field about the file: Name, Value
	KindSelectDB                   // the keys that follow are in DB
	KindResizeDB                   // how many keys DB has: Keys, Expires
	KindSlotInfo                   // how many keys a cluster slot has: Slot, Keys, Expires
	KindSlotImport                 // a slot import under way (Valkey)
	KindFunction                   // a function library: payload
	KindModuleAux                  // data of a module outside keys: Module, payload
	KindKey                        // a key: all but Value, Keys, Expires, Slot; payload
)

// String returns the kind's name.
func (k Kind) String() string {
	names := [...]string{"attribute", "aux", "selectdb", "resizedb", "slot-info", "slot-import",
		"function", "module-aux", "key"}
	if int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// What the fields of [Record] hold where the file says nothing.
const (
	NoExpiry       = math.MinInt64 // ExpireAt: the key does not expire
	Unknown  int64 = -1            // Idle, Freq, Elements
)

// maxNameSize bounds names, in bytes: that of a key is a string, which Redis
// bounds by proto-max-bulk-len (512 MB).
const maxNameSize = 512 << 20

// Record is one record of a file. It and what it points to are valid until the
// next one is asked for.
type Record struct {
	Kind   Kind
	Offset int64  // of its first byte in the file: of a key's expiry, if it has one
	DB     int    // the database that it is in
	Name   []byte // of a key or an aux field, decompressed
	Value  []byte // of an aux field, decompressed

	Type     Type
	ExpireAt int64 // when the key expires, Unix time in milliseconds; NoExpiry
	Idle     int64 // seconds without access (maxmemory-policy lru); Unknown
	Freq     int64 // logarithmic frequency of access, 0 to 255 (lfu); Unknown
	HasMeta  bool  // modules have attached metadata to the key, which is not in the payload

	Slot    uint64
	Keys    uint64
	Expires uint64

	// Known once the payload has been read or skipped:

	Elements int64  // elements, members, fields or stream entries; Unknown where they are packed into one string
	Module   string // nine characters, of a module's value
	Size     int64  // bytes in the file from Offset to the end of the payload
	Payload  int64  // bytes of the payload
}

// Expired tells whether the key has expired at now. Redis keeps such a key in
// the file; a master drops it when it loads, a replica keeps it.
func (r *Record) Expired(now time.Time) bool {
	return r.ExpireAt != NoExpiry && r.ExpireAt < now.UnixMilli()
}

// Expiry returns when the key expires, the zero time if never.
func (r *Record) Expiry() time.Time {
	if r.ExpireAt == NoExpiry {
		return time.Time{}
	}
	return time.UnixMilli(r.ExpireAt)
}
