// Package repl holds the positions of Redis replication: replication ids,
// offsets and histories. It is the only package that both proxy and syncer
// use, and it imports nothing of ours.
//
// Redis counts the bytes of a history from 1 and names a place among them in
// two ways, one apart. Both have a type here, so that they cannot be confused,
// and the conversions and comparisons between them are in this package alone:
//
//	bytes:     1   2   3  …  98  99  100 | 101  102  …
//	                                ^        ^
//	 Pos, "last byte included" -----+        +----- Want, "next byte wanted"
//
//	Pos  (have)  +FULLRESYNC id 100, REPLCONF ACK 100, master_repl_offset:100,
//	             ROLE, an RDB file's repl-offset
//	Want (next)  PSYNC id 101, second_repl_offset:101
//
// All types are values: they may be copied and used by any goroutine.
package repl

import (
	"fmt"
	"strconv"
)

// ReplIDLen is the length of a replication id in bytes
// (CONFIG_RUN_ID_SIZE in Redis's server.h).
const ReplIDLen = 40

// ReplID is a replication id: 40 hexadecimal characters that name one history
// of writes. The zero value is no id.
type ReplID string

// ParseReplID checks that s is a replication id.
func ParseReplID(s string) (ReplID, error) {
	if len(s) != ReplIDLen {
		return "", fmt.Errorf("parse replid %q: want %d hexadecimal characters, have %d", s, ReplIDLen, len(s))
	}
	for i := range len(s) {
		c := s[i]
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("parse replid %q: character %d is not lower-case hexadecimal", s, i)
		}
	}
	return ReplID(s), nil
}

// IsZero reports whether no id is known.
func (id ReplID) IsZero() bool { return id == "" }

// Offset counts the bytes of one replication history. Redis's
// master_repl_offset is the offset of the last byte included; it is -1 where
// none is known (ROLE of a replica whose link is down).
type Offset int64

// UnknownOffset is what Redis reports where it has no offset.
const UnknownOffset Offset = -1

// ParseOffset parses a decimal offset as Redis prints it, -1 included.
func ParseOffset(s string) (Offset, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < -1 {
		return UnknownOffset, fmt.Errorf("parse offset %q: not a replication offset", s)
	}
	return Offset(n), nil
}

// IsKnown reports whether o is a real position.
func (o Offset) IsKnown() bool { return o >= 0 }
