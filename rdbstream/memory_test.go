package rdbstream_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"testing"

	"github.com/sluice-io/sluice/rdbstream"
)

// large is a file that is made while it is read: head, body times over, tail.
func large(head, body, tail []byte, times int) (r io.Reader, size int64) {
	crc := rdbstream.Checksum(0, head)
	readers := []io.Reader{bytes.NewReader(head)}
	for range times {
		crc = rdbstream.Checksum(crc, body)
		readers = append(readers, bytes.NewReader(body))
	}
	tail = append(bytes.Clone(tail), 255)
	crc = rdbstream.Checksum(crc, tail)
	tail = binary.LittleEndian.AppendUint64(tail, crc)
	return io.MultiReader(append(readers, bytes.NewReader(tail))...), int64(len(head) + times*len(body) + len(tail))
}

// However large a key is, the memory is that of the buffer.
func TestBoundedMemory(t *testing.T) {
	megabyte := bytes.Repeat([]byte{'x'}, 1<<20)
	fields := newFile("")
	for range 1 << 12 {
		fields.str("a field").str("its value, of some thirty bytes")
	}
	for _, tc := range []struct {
		name  string
		head  []byte
		body  []byte
		tail  []byte
		times int
	}{
		{"string of 40 MB", newFile("REDIS0011").key(rdbstream.TypeString, "k").num(40 << 20).b, megabyte, nil, 40},
		{"string of 1 GB", newFile("REDIS0011").key(rdbstream.TypeString, "k").num(1 << 30).b, megabyte, nil, 1 << 10},
		{"hash of 7 MB", newFile("REDIS0011").key(rdbstream.TypeHash, "k").num(40 << 12).b, fields.b, nil, 40},
		{"module of 20 MB", newFile("REDIS0011").key(rdbstream.TypeModule2, "k").num(moduleID).b,
			newFile("").num(5).str(string(megabyte)).b, []byte{0}, 20},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.times > 100 && os.Getenv("SLUICE_LONG") != "1" {
				t.Skip("set SLUICE_LONG=1")
			}
			pull, size := large(tc.head, tc.body, tc.tail, tc.times)
			toPush, _ := large(tc.head, tc.body, tc.tail, tc.times)
			var payload int64
			used := allocated(func() {
				s := rdbstream.NewScanner(pull)
				if _, err := s.Next(); err != nil {
					t.Fatal(err)
				}
				n, err := s.WriteTo(io.Discard)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := s.Next(); !errors.Is(err, io.EOF) {
					t.Fatal(err)
				}
				payload = n
				if info := s.Info(); info.Size != size || info.Keys != 1 || !info.Checked {
					t.Errorf("%+v, want %d bytes", info, size)
				}
			})
			if payload < size-100 {
				t.Errorf("%d bytes of payload in a file of %d", payload, size)
			}
			if used > 1<<20 {
				t.Errorf("the Scanner allocated %d bytes for a file of %d", used, size)
			}
			w := rdbstream.NewWriter(nil)
			buf := make([]byte, 32<<10)
			used = allocated(func() {
				if _, err := io.CopyBuffer(w, struct{ io.Reader }{toPush}, buf); err != nil {
					t.Fatal(err)
				}
			})
			if err := w.Close(); err != nil || used > 1<<18 {
				t.Errorf("the Writer allocated %d bytes for a file of %d: %v", used, size, err)
			}
		})
	}
}

// allocated returns how many bytes f allocates, freed or not.
func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

// A length is not believed before its bytes have come.
func TestNoAllocationForAnnouncedLengths(t *testing.T) {
	p := newFile("REDIS0011").raw(0).num(500 << 20).fixed("short").bytes()
	used := allocated(func() {
		if _, _, err := push(p, len(p)); !errors.Is(err, rdbstream.ErrTruncated) {
			t.Errorf("got %v", err)
		}
	})
	if used > 1<<16 {
		t.Errorf("%d bytes allocated for a name that is announced with 500 MB", used)
	}
}

// Keys cost no allocation.
func TestNoAllocationPerKey(t *testing.T) {
	p := smallKeys(10_000)
	used := allocated(func() {
		s := rdbstream.NewScanner(bytes.NewReader(p))
		for {
			if _, err := s.Next(); err != nil {
				break
			}
		}
	})
	if used > 300<<10 {
		t.Errorf("%d bytes allocated for 10,000 keys", used)
	}
}
