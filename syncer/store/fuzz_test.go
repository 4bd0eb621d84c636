package store

import (
	"bytes"
	"testing"

	"github.com/sluice-io/sluice/syncer/repl"
)

// FuzzIndex: whatever is in an index file, parsing it neither fails badly nor
// gives records that do not follow each other.
func FuzzIndex(f *testing.F) {
	fs, _ := sample(f, true)
	for _, name := range []string{idx11, idx21, idx23} {
		f.Add(fs.content("/s/" + name))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		x, err := parseIndex(data)
		if err != nil {
			return
		}
		last := x.header.first - 1
		for i := range x.records {
			r := &x.records[i]
			if r.offset < last || r.kind == recordBlock && (r.offset-x.header.first+1)%BlockBytes != 0 {
				t.Fatalf("record %d: %+v after offset %d", i, r, last)
			}
			last = r.offset
			at := headerSize + i*recordSize
			if !bytes.Equal(r.append(nil, x.header.crc), data[at:at+recordSize]) {
				t.Fatalf("record %d: %+v is written otherwise", i, r)
			}
		}
		if n := len(data) - headerSize; x.bad < 0 && n != len(x.records)*recordSize {
			t.Fatalf("%d records of %d bytes, and nothing bad", len(x.records), n)
		}
		h := x.header
		if again, err := decodeHeader(h.encode()); err != nil || again != x.header {
			t.Fatalf("header %+v became %+v, %v", x.header, again, err)
		}
		if res, err := scanSegment("", bytes.NewReader(data), x); err != nil || res.mark.Offset > last {
			t.Fatalf("scan: %+v, %v", res, err)
		}
	})
}

// FuzzRecords builds valid checksums around any content, which fuzzing alone
// would not find.
func FuzzRecords(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint64(BlockBytes), uint64(0), uint8(2), uint64(BlockBytes), uint64(5))
	f.Add(uint64(1<<63-2), uint8(2), uint64(1<<63-1), uint64(9), uint8(1), uint64(1<<63-1), uint64(5))
	f.Fuzz(func(t *testing.T, first uint64, k1 uint8, off1, t1 uint64, k2 uint8, off2, t2 uint64) {
		h := indexHeader{generation: 1, first: repl.Offset(first), replid: idA}
		data := h.encode()
		for _, r := range []record{
			{kind: recordKind(k1), offset: repl.Offset(off1), time: int64(t1)},
			{kind: recordKind(k2), offset: repl.Offset(off2), time: int64(t2)},
		} {
			data = r.append(data, h.crc)
		}
		x, err := parseIndex(data)
		if err != nil {
			return
		}
		last := record{kind: recordCommit, offset: x.header.first - 1}
		for _, r := range x.records {
			if r.offset < last.offset || r.time < last.time || r.offset-last.offset > BlockBytes {
				t.Fatalf("%+v after %+v", r, last)
			}
			last = r
		}
	})
}

// FuzzMeta: a metadata file is what was written or is refused.
func FuzzMeta(f *testing.F) {
	fs, _ := sample(f, true)
	f.Add(fs.content("/s/manifest"))
	f.Add(fs.content("/s/" + gen2 + "catalog"))
	for _, body := range []string{"{}\n", `{"current":1,"head":0}` + "\n", `{"history":null,"log_first":-5}`, "null", "[]"} {
		for _, kind := range []string{manifestFile, catalogFile} {
			data, err := encodeMeta(kind, nil)
			must(f, err)
			head, _, _ := bytes.Cut(data, []byte("\n"))
			f.Add(append(append(head, '\n'), body...))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for kind, v := range map[string]interface{ validate() error }{manifestFile: &manifest{}, catalogFile: &catalog{}} {
			at, err := decodeMeta(kind, data, v)
			if at < 0 || at > int64(len(data)) {
				t.Fatalf("offset %d of %d bytes", at, len(data))
			}
			if err != nil || v.validate() != nil {
				continue
			}
			if _, err := encodeMeta(kind, v); err != nil {
				t.Fatalf("cannot be written again: %v", err)
			}
		}
	})
}

// FuzzMetaBody does the same for any JSON with a right checksum.
func FuzzMetaBody(f *testing.F) {
	f.Add([]byte(`{"current":0,"head":1,"generations":[{"id":1,"created":"2026-01-01T00:00:00Z"}]}`))
	f.Add([]byte(`{"id":1,"created":"2026-01-01T00:00:00Z","history":{"replid":"` + string(idA) + `"},"log_first":1,"fsynced":0,"bases":[]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		for kind, v := range map[string]interface{ validate() error }{manifestFile: &manifest{}, catalogFile: &catalog{}} {
			head := []byte(metaHead(kind, body))
			at, err := decodeMeta(kind, append(head, body...), v)
			if at < 0 || at > int64(len(head)+len(body)) {
				t.Fatalf("offset %d of %d bytes", at, len(head)+len(body))
			}
			if err == nil && v.validate() == nil {
				if m, ok := v.(*manifest); ok && m.Current != 0 && m.entry(m.Current) == nil {
					t.Fatalf("current generation %d is not listed", m.Current)
				}
			}
		}
	})
}
