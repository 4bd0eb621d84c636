package rdbstream_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/sluice-io/sluice/rdbstream"
)

// file builds an RDB file by hand, for what no server at hand writes.
type file struct{ b []byte }

func newFile(magic string) *file { return &file{b: []byte(magic)} }

func (f *file) raw(p ...byte) *file {
	f.b = append(f.b, p...)
	return f
}

func (f *file) num(n uint64) *file {
	switch {
	case n < 1<<6:
		return f.raw(byte(n))
	case n < 1<<14:
		return f.raw(byte(n>>8)|0x40, byte(n))
	case n < 1<<32:
		f.b = binary.BigEndian.AppendUint32(append(f.b, 0x80), uint32(n))
	default:
		f.b = binary.BigEndian.AppendUint64(append(f.b, 0x81), n)
	}
	return f
}

func (f *file) str(s string) *file {
	f.num(uint64(len(s)))
	f.b = append(f.b, s...)
	return f
}

func (f *file) aux(name, value string) *file { return f.raw(250).str(name).str(value) }
func (f *file) selectDB(n uint64) *file      { return f.raw(254).num(n) }

func (f *file) expireMS(ms int64) *file {
	f.b = binary.LittleEndian.AppendUint64(append(f.b, 252), uint64(ms))
	return f
}

func (f *file) key(t rdbstream.Type, name string) *file { return f.raw(t.Code()).str(name) }

// unchecked ends the file without a checksum.
func (f *file) unchecked() []byte {
	return append(append([]byte(nil), f.b...), 255, 0, 0, 0, 0, 0, 0, 0, 0)
}

// bytes ends the file with its checksum.
func (f *file) bytes() []byte {
	p := append(append([]byte(nil), f.b...), 255)
	return binary.LittleEndian.AppendUint64(p, rdbstream.Checksum(0, p))
}

// scanned is what a scan says of one record.
type scanned struct {
	Rec     rdbstream.Record
	Payload []byte
}

// scan scans a file by a Scanner, with payloads.
func scan(p []byte) (all []scanned, info rdbstream.Info, err error) {
	s := rdbstream.NewScanner(bytes.NewReader(p))
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return all, s.Info(), nil
		}
		if err != nil {
			return all, s.Info(), err
		}
		payload, err := payloadOf(s)
		if err != nil {
			return all, s.Info(), err
		}
		all = append(all, scanned{copyOf(rec), payload})
	}
}

func copyOf(r *rdbstream.Record) rdbstream.Record {
	c := *r
	c.Name, c.Value = bytes.Clone(r.Name), bytes.Clone(r.Value)
	return c
}

// collector is a Handler that keeps everything.
type collector struct {
	all  []scanned
	open bool
}

func (c *collector) Record(r *rdbstream.Record) error {
	if c.open {
		return fmt.Errorf("record %v begins inside another", r.Kind)
	}
	c.all = append(c.all, scanned{Rec: copyOf(r)})
	c.open = r.Kind == rdbstream.KindKey || r.Kind == rdbstream.KindFunction || r.Kind == rdbstream.KindModuleAux
	return nil
}

func (c *collector) Payload(p []byte) error {
	if !c.open || len(p) == 0 {
		return fmt.Errorf("%d bytes of payload, inside a record: %t", len(p), c.open)
	}
	c.all[len(c.all)-1].Payload = append(c.all[len(c.all)-1].Payload, p...)
	return nil
}

func (c *collector) End(r *rdbstream.Record) error {
	c.all[len(c.all)-1].Rec = copyOf(r)
	c.open = false
	return nil
}

// push writes a file to a Writer in pieces of the given sizes, the last one
// repeated.
func push(p []byte, sizes ...int) (all []scanned, info rdbstream.Info, err error) {
	c := &collector{}
	w := rdbstream.NewWriter(c)
	for len(p) > 0 {
		n := min(len(p), sizes[0])
		if len(sizes) > 1 {
			sizes = sizes[1:]
		}
		if k, err := w.Write(p[:n]); err != nil {
			return c.all, w.Info(), err
		} else if k != n {
			return c.all, w.Info(), fmt.Errorf("Write returned %d of %d without an error", k, n)
		}
		p = p[n:]
	}
	return c.all, w.Info(), w.Close()
}

func mustScan(t *testing.T, p []byte) ([]scanned, rdbstream.Info) {
	t.Helper()
	all, info, err := scan(p)
	if err != nil {
		t.Fatal(err)
	}
	return all, info
}

// payloadOf reads the payload; nil if there is none.
func payloadOf(s *rdbstream.Scanner) ([]byte, error) {
	var b bytes.Buffer
	_, err := b.ReadFrom(struct{ io.Reader }{s})
	return append([]byte(nil), b.Bytes()...), err
}
