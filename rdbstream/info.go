package rdbstream

import (
	"errors"
	"io"
	"strconv"
)

// Dialect is whose format a file has. The two agree up to RDB version 11.
type Dialect uint8

// The dialects.
const (
	Redis  Dialect = iota // and Valkey up to 8
	Valkey                // from 9.0
)

// String returns the dialect's name.
func (d Dialect) String() string {
	if d == Valkey {
		return "Valkey"
	}
	return "Redis"
}

// versions returns the lowest and the highest RDB version that is known: Redis
// 2.6 wrote 6, 8.6 writes 13, Valkey 9 writes 80.
func (d Dialect) versions() (lowest, highest int) {
	if d == Valkey {
		return 80, 80
	}
	return 6, 13
}

// The aux fields that replication needs (rdbSaveInfoAuxFields in Redis's rdb.c).
const (
	AuxReplStreamDB = "repl-stream-db"
	AuxReplID       = "repl-id"
	AuxReplOffset   = "repl-offset"
)

// Aux fields are kept up to these limits. Redis writes about ten, of some
// bytes; up to 6.2 it also wrote whole Lua scripts.
const (
	maxAuxFields = 256
	maxAuxSize   = 4096 // bytes of name and value
)

// Aux is a field about the file.
type Aux struct{ Name, Value string }

// Info is what a file says about itself.
type Info struct {
	Dialect Dialect
	Version int   // of the RDB format
	Aux     []Aux // in the order of the file, without overlong ones

	// Known once the whole file has passed:

	Keys     int64
	Size     int64 // bytes
	Checked  bool  // the file has a checksum; it was compared
	Checksum uint64
}

func (i *Info) setAux(name, value string) {
	if len(i.Aux) < maxAuxFields && len(name)+len(value) <= maxAuxSize {
		i.Aux = append(i.Aux, Aux{name, value})
	}
}

// Lookup returns the value of an aux field.
func (i *Info) Lookup(name string) (value string, ok bool) {
	for _, a := range i.Aux {
		if a.Name == name {
			return a.Value, true
		}
	}
	return "", false
}

// ReplID returns the replid that the file's offset belongs to, "" if there is
// none. It is written for replication and by masters with a backlog.
func (i *Info) ReplID() string {
	id, _ := i.Lookup(AuxReplID)
	return id
}

// ReplOffset returns the offset of the last byte of the replication stream that
// the file includes, false if there is none.
func (i *Info) ReplOffset() (int64, bool) { return i.number(AuxReplOffset) }

// ReplStreamDB returns the database that the stream after the file has
// selected, false if there is none: then the stream begins with SELECT.
func (i *Info) ReplStreamDB() (int, bool) {
	n, ok := i.number(AuxReplStreamDB)
	return int(n), ok
}

func (i *Info) number(name string) (int64, bool) {
	v, ok := i.Lookup(name)
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseInt(v, 10, 32)
	if name == AuxReplOffset {
		n, err = strconv.ParseInt(v, 10, 64)
	}
	return n, err == nil && n >= 0
}

// ReadInfo reads the version and the aux fields at the beginning of a file,
// up to the first record of another kind. It may read further than that.
func ReadInfo(r io.Reader) (Info, error) {
	s := newScanner(r, make([]byte, 4096))
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) {
			return s.Info(), nil
		}
		if err != nil {
			return Info{}, err
		}
		if rec.Kind != KindAux {
			return s.Info(), nil
		}
	}
}
