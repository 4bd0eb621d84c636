package store

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

// BlockBytes is the size of the blocks of a segment that have a checksum each.
const BlockBytes = 64 << 10

const (
	indexMagic   = "SLUICEIX"
	indexVersion = 1
	headerSize   = 96
	recordSize   = 40
)

// indexHeader is the head of an index file (drawn in DESIGN.md).
type indexHeader struct {
	generation uint64
	first      repl.Offset // of the segment's first byte
	db         int         // selected before the first byte
	time       int64       // of the commit before it, Unix nanoseconds; 0 if unknown
	replid     repl.ReplID // current when the segment was begun

	crc uint32 // of the header; seeds those of the records
}

func (h *indexHeader) encode() []byte {
	b := make([]byte, headerSize)
	copy(b, indexMagic)
	le := binary.LittleEndian
	le.PutUint16(b[8:], indexVersion)
	le.PutUint32(b[12:], BlockBytes)
	le.PutUint64(b[16:], h.generation)
	le.PutUint64(b[24:], uint64(h.first))
	le.PutUint32(b[32:], uint32(int32(h.db)))
	le.PutUint64(b[40:], uint64(h.time))
	copy(b[48:88], h.replid)
	h.crc = checksum(b[:headerSize-4])
	le.PutUint32(b[headerSize-4:], h.crc)
	return b
}

func decodeHeader(b []byte) (indexHeader, error) {
	le := binary.LittleEndian
	switch {
	case len(b) < headerSize:
		return indexHeader{}, fmt.Errorf("header has %d bytes, want %d", len(b), headerSize)
	case string(b[:8]) != indexMagic:
		return indexHeader{}, fmt.Errorf("header begins with %q, want %q", b[:8], indexMagic)
	case le.Uint32(b[headerSize-4:]) != checksum(b[:headerSize-4]):
		return indexHeader{}, fmt.Errorf("header has a wrong checksum")
	case le.Uint16(b[8:]) != indexVersion || le.Uint32(b[12:]) != BlockBytes:
		return indexHeader{}, fmt.Errorf("format is %d with blocks of %d bytes, this program knows %d with %d",
			le.Uint16(b[8:]), le.Uint32(b[12:]), indexVersion, BlockBytes)
	}
	h := indexHeader{
		generation: le.Uint64(b[16:]),
		first:      repl.Offset(le.Uint64(b[24:])),
		db:         int(int32(le.Uint32(b[32:]))),
		time:       int64(le.Uint64(b[40:])),
		replid:     repl.ReplID(b[48:88]),
		crc:        le.Uint32(b[headerSize-4:]),
	}
	if _, err := repl.ParseReplID(string(h.replid)); err != nil {
		return indexHeader{}, fmt.Errorf("header: %w", err)
	}
	if h.first < 1 || h.db < -1 || h.time < 0 {
		return indexHeader{}, fmt.Errorf("header has first offset %d, db %d, time %d", h.first, h.db, h.time)
	}
	return h, nil
}

// start returns the commit point that the segment continues.
func (h *indexHeader) start() Mark { return markOf(h.first-1, h.db, h.time) }

// recordKind tells the two kinds of records apart.
type recordKind uint8

const (
	recordBlock  recordKind = 1 // a block is full: sum covers all of it
	recordCommit recordKind = 2 // a commit point: sum covers its block up to it
)

// record is one entry of an index.
type record struct {
	kind    recordKind
	db      int         // selected at the commit point; -1 if unknown; 0 in a block record
	offset  repl.Offset // of the last byte covered
	time    int64       // of the commit, Unix nanoseconds; in a block record that of the one after it
	fsynced repl.Offset // known to be durable when the record was written
	sum     uint32      // CRC32C from the begin of the block to offset
}

func (r *record) append(b []byte, seed uint32) []byte {
	at := len(b)
	le := binary.LittleEndian
	b = append(b, byte(r.kind), 0, 0, 0)
	b = le.AppendUint32(b, uint32(int32(r.db)))
	b = le.AppendUint64(b, uint64(r.offset))
	b = le.AppendUint64(b, uint64(r.time))
	b = le.AppendUint64(b, uint64(r.fsynced))
	b = le.AppendUint32(b, r.sum)
	return le.AppendUint32(b, crc32.Update(seed, castagnoli, b[at:]))
}

// decodeRecord returns false for what is no record of the index with this seed.
func decodeRecord(b []byte, seed uint32) (record, bool) {
	le := binary.LittleEndian
	if le.Uint32(b[recordSize-4:]) != crc32.Update(seed, castagnoli, b[:recordSize-4]) {
		return record{}, false
	}
	r := record{
		kind:    recordKind(b[0]),
		db:      int(int32(le.Uint32(b[4:]))),
		offset:  repl.Offset(le.Uint64(b[8:])),
		time:    int64(le.Uint64(b[16:])),
		fsynced: repl.Offset(le.Uint64(b[24:])),
		sum:     le.Uint32(b[32:]),
	}
	if r.kind != recordBlock && r.kind != recordCommit || !bytes.Equal(b[1:4], []byte{0, 0, 0}) {
		return record{}, false
	}
	return r, true
}

func (r *record) mark() Mark { return markOf(r.offset, r.db, r.time) }

// index is a parsed index file.
type index struct {
	header  indexHeader
	records []record // the valid ones before the first that is not
	// bad is where in the file the first invalid record is, -1 if none; why
	// tells what is wrong with it.
	bad int64
	why string
	// fsynced is the highest that any valid record tells, also one after bad.
	fsynced repl.Offset
}

// parseIndex reads an index file. It fails if the header is invalid; damage
// after it is in the result, as only the caller can tell a crash's work from
// corruption.
func parseIndex(data []byte) (*index, error) {
	h, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	x := &index{header: h, bad: -1}
	prev := record{kind: recordCommit, offset: h.first - 1, time: h.time}
	for at := headerSize; at < len(data); at += recordSize {
		var r record
		ok := at+recordSize <= len(data)
		if ok {
			r, ok = decodeRecord(data[at:at+recordSize], h.crc)
		}
		if ok {
			x.fsynced = max(x.fsynced, r.fsynced)
		}
		if x.bad >= 0 {
			continue
		}
		if !ok {
			x.bad, x.why = int64(at), "index record is torn or changed"
		} else if why := r.follows(&prev, h.first); why != "" {
			x.bad, x.why = int64(at), why
		} else {
			x.records = append(x.records, r)
			prev = r
		}
	}
	return x, nil
}

// follows says what is wrong with r after prev, "" if nothing. Blocks have to
// be complete: no record may skip the end of one.
func (r *record) follows(prev *record, first repl.Offset) string {
	blockEnd := prev.offset - (prev.offset-first+1)%BlockBytes + BlockBytes
	switch {
	case r.kind == recordBlock && r.offset != blockEnd:
		return fmt.Sprintf("index record for a block that ends at %d, want %d", r.offset, blockEnd)
	case r.kind == recordCommit && r.offset >= blockEnd:
		return fmt.Sprintf("index record for offset %d skips the block that ends at %d", r.offset, blockEnd)
	case r.kind == recordCommit && (r.offset < prev.offset || r.offset == prev.offset && prev.kind == recordCommit):
		return fmt.Sprintf("index record for offset %d follows that for %d", r.offset, prev.offset)
	case r.time < prev.time:
		return fmt.Sprintf("index record for offset %d goes back in time", r.offset)
	case r.db < -1 || r.fsynced < 0:
		return fmt.Sprintf("index record for offset %d has db %d, fsynced offset %d", r.offset, r.db, r.fsynced)
	}
	return ""
}

// lastCommit returns the number of records up to and including the last commit
// and its mark; 0 and the header's if there is none.
func (x *index) lastCommit() (n int, m Mark) { return x.lastCommitBefore(math.MaxInt64) }

// lastCommitBefore is lastCommit of those that are not after off.
func (x *index) lastCommitBefore(off repl.Offset) (n int, m Mark) {
	for n = len(x.records); n > 0; n-- {
		if x.records[n-1].kind == recordCommit && x.records[n-1].offset <= off {
			return n, x.records[n-1].mark()
		}
	}
	return 0, x.header.start()
}

// Mark is a commit point: the end of a command outside of a transaction, or of
// a transaction.
type Mark struct {
	Offset repl.Offset // of the last byte included
	DB     int         // selected there, -1 if unknown
	Time   time.Time   // when the bytes before it had come; never before that of an earlier mark
}

func markOf(off repl.Offset, db int, nano int64) Mark {
	m := Mark{Offset: off, DB: db}
	if nano > 0 {
		m.Time = time.Unix(0, nano)
	}
	return m
}

// nano returns the time as stored: 0 for none.
func (m Mark) nano() int64 {
	if m.Time.IsZero() {
		return 0
	}
	return max(m.Time.UnixNano(), 0)
}
