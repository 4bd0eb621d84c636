package rdbstream_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/sluice-io/sluice/rdbstream"
)

// small is a file of some hundred bytes with all kinds of records.
func small() []byte {
	f := newFile("REDIS0012").aux("redis-ver", "8.0.0").raw(245).str("#!lua name=l").selectDB(1).raw(251).num(4).num(1)
	f.expireMS(1e12).key(rdbstream.TypeString, "string").raw(0xC1, 1, 2)
	f.key(rdbstream.TypeHash, "hash").num(2).str("f").str("v").str("f2").str("v2")
	f.key(rdbstream.TypeStreamListpacks3, "stream").stream(3)
	f.key(rdbstream.TypeModule2, "module").num(moduleID).num(5).str("text").num(1).num(300).num(0)
	f.key(rdbstream.TypeListQuicklist2, "list").num(2).num(1).str("plain").num(2).str("packed")
	f.raw(0).raw(0xC3, 6, 20, 1, 'a', 'b', 0xE0, 0x09, 0x01).str("v")
	return f.bytes()
}

// refused checks that both readers refuse p, with an Error at a place within it.
func refused(t *testing.T, what string, p []byte, want error) {
	t.Helper()
	_, _, scanErr := scan(p)
	_, _, pushErr := push(p, 7)
	for name, err := range map[string]error{"Scanner": scanErr, "Writer": pushErr} {
		var e *rdbstream.Error
		switch {
		case err == nil:
			t.Errorf("%s: the %s accepts it", what, name)
		case want != nil && !errors.Is(err, want):
			t.Errorf("%s: the %s says %q, not %q", what, name, err, want)
		case !errors.As(err, &e) || e.Offset < 0 || e.Offset > int64(len(p)) || e.Doing == "":
			t.Errorf("%s: the %s says %q (%#v), not where and what", what, name, err, err)
		}
	}
	if scanErr != nil && pushErr != nil && scanErr.Error() != pushErr.Error() {
		t.Errorf("%s: the Scanner says %q, the Writer %q", what, scanErr, pushErr)
	}
}

func TestTruncated(t *testing.T) {
	p := small()
	mustScan(t, p)
	for n := range p {
		refused(t, fmt.Sprintf("cut at %d", n), p[:n], rdbstream.ErrTruncated)
		_, _, err := scan(p[:n])
		var e *rdbstream.Error
		if errors.As(err, &e) && e.Offset != int64(n) {
			t.Errorf("cut at %d: offset %d", n, e.Offset)
		}
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut at %d: %v is no io.ErrUnexpectedEOF", n, err)
		}
	}
}

func TestFlippedBits(t *testing.T) {
	p := small()
	for i := range p {
		for bit := range 8 {
			q := bytes.Clone(p)
			q[i] ^= 1 << bit
			if _, _, err := push(q, len(q)); err == nil {
				t.Errorf("bit %d of byte %d flipped: accepted", bit, i)
			}
		}
		q := bytes.Clone(p)
		q[i] ^= 0xFF
		refused(t, fmt.Sprintf("byte %d flipped", i), q, nil)
	}
}

func TestRefused(t *testing.T) {
	key := func(code byte, rest ...byte) []byte {
		return newFile("REDIS0011").raw(code).str("k").raw(rest...).bytes()
	}
	long := append([]byte{0x81}, binary.BigEndian.AppendUint64(nil, 1<<40)...)
	huge := append([]byte{0x81}, binary.BigEndian.AppendUint64(nil, 1<<63+5)...)
	for _, tc := range []struct {
		name string
		file []byte
		want error
		text string
	}{
		{"empty", nil, rdbstream.ErrTruncated, "magic"},
		{"another file", []byte("PK\x03\x04 something else"), rdbstream.ErrNotRDB, `"PK`},
		{"no digits", newFile("REDIS00x1").bytes(), rdbstream.ErrNotRDB, "REDIS00x1"},
		{"too old", newFile("REDIS0005").bytes(), rdbstream.ErrUnsupported, "version 5 of Redis"},
		{"too new", newFile("REDIS0014").bytes(), rdbstream.ErrUnsupported, "version 14 of Redis"},
		{"Valkey too new", newFile("VALKEY090").bytes(), rdbstream.ErrUnsupported, "version 90 of Valkey"},
		{"pre-GA module", key(6, 0), rdbstream.ErrUnsupported, "module-pre-ga"},
		{"type 8", key(8, 0), rdbstream.ErrUnsupported, "opcode 8"},
		{"type 27", key(27, 0), rdbstream.ErrUnsupported, "opcode 27"},
		{"Redis type in Valkey", newFile("VALKEY080").key(rdbstream.TypeHashMetadata, "k").bytes(), rdbstream.ErrUnsupported, "opcode 24"},
		{"pre-GA functions", newFile("REDIS0010").raw(246).bytes(), rdbstream.ErrUnsupported, "FUNCTION_PRE_GA"},
		{"no length", key(1, 0xC0), rdbstream.ErrCorrupt, "number of elements of key \"k\""},
		{"no length either", key(1, 0x82), rdbstream.ErrCorrupt, "0x82"},
		{"string encoding", key(0, 0xC4), rdbstream.ErrCorrupt, "0xc4"},
		{"string over 2^63", key(0, huge...), rdbstream.ErrCorrupt, "a string of"},
		{"announced terabyte", key(0, long...), rdbstream.ErrTruncated, "the value of key"},
		{"announced elements", key(2, append(long, 1, 'a')...), rdbstream.ErrCorrupt, "of key"},
		{"name of a terabyte", newFile("REDIS0011").raw(0).raw(long...).bytes(), rdbstream.ErrCorrupt, "512 MB"},
		{"LZF bomb", key(0, 0xC3, 1, 0x80, 0xFF, 0, 0, 0), rdbstream.ErrCorrupt, "cannot hold"},
		{"bad LZF name", newFile("REDIS0011").raw(0).raw(0xC3, 3, 20, 0xE0, 0x09, 0x05).bytes(), rdbstream.ErrCorrupt, "LZF"},
		{"node of no kind", key(18, 1, 3), rdbstream.ErrCorrupt, "neither plain"},
		{"module opcode", key(7, 5, 6), rdbstream.ErrCorrupt, "module opcode 6"},
		{"database", newFile("REDIS0011").selectDB(1 << 33).bytes(), rdbstream.ErrCorrupt, "database"},
		{"expiry of nothing", newFile("REDIS0011").expireMS(1).bytes(), rdbstream.ErrCorrupt, "attributes"},
		{"expiry of a database", newFile("REDIS0011").expireMS(1).selectDB(1).bytes(), rdbstream.ErrCorrupt, "SELECTDB"},
		{"trailing byte", append(small(), 0), rdbstream.ErrTrailing, ""},
		{"twice", append(small(), small()...), rdbstream.ErrTrailing, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			refused(t, tc.name, tc.file, tc.want)
			if _, _, err := scan(tc.file); err != nil && !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%q does not say %q", err, tc.text)
			}
		})
	}
}

func TestUnchecked(t *testing.T) {
	p := newFile("REDIS0011").key(0, "k").str("v").unchecked()
	_, info := mustScan(t, p)
	if info.Checked || info.Keys != 1 {
		t.Errorf("%+v", info)
	}
}

var errDisk = errors.New("disk on fire")

func TestReaderFails(t *testing.T) {
	s := rdbstream.NewScanner(io.MultiReader(bytes.NewReader(small()[:60]), iotest.ErrReader(errDisk)))
	var err error
	for err == nil {
		_, err = s.Next()
	}
	var e *rdbstream.Error
	if !errors.Is(err, errDisk) || errors.Is(err, rdbstream.ErrTruncated) || !errors.As(err, &e) || e.Offset != 60 {
		t.Errorf("got %v", err)
	}
	if _, again := s.Next(); !errors.Is(again, err) {
		t.Errorf("again: %v", again)
	}
}

// failing is a Handler that fails at the n-th call.
type failing struct{ n int }

func (f *failing) call() error {
	if f.n--; f.n == 0 {
		return errDisk
	}
	return nil
}
func (f *failing) Record(*rdbstream.Record) error { return f.call() }
func (f *failing) Payload([]byte) error           { return f.call() }
func (f *failing) End(*rdbstream.Record) error    { return f.call() }

func TestHandlerFails(t *testing.T) {
	p := small()
	failed := 0
	for n := 1; ; n++ {
		w := rdbstream.NewWriter(&failing{n})
		k, err := w.Write(p)
		if err == nil {
			break
		}
		failed++
		if !errors.Is(err, errDisk) || k >= len(p) || !errors.Is(w.Close(), errDisk) || w.Done() {
			t.Fatalf("call %d: wrote %d, %v", n, k, err)
		}
	}
	if failed < 15 {
		t.Errorf("only %d calls", failed)
	}
}

// What is not understood passes with AllowUnknown if its end is in order.
func TestAllowUnknown(t *testing.T) {
	ok := map[string][]byte{
		"version": newFile("REDIS0099").fixed(strings.Repeat("anything", 100)).bytes(),
		"type":    newFile("REDIS0013").aux("repl-offset", "5").key(99, "k").fixed("whatever").bytes(),
		"opcode":  newFile("VALKEY080").raw(200).bytes(),
		"short":   newFile("REDIS0099").bytes(),
	}
	write := func(p []byte, size int) (*rdbstream.Writer, error) {
		w := rdbstream.NewWriter(nil)
		w.AllowUnknown = true
		for len(p) > 0 {
			n := min(size, len(p))
			if k, err := w.Write(p[:n]); k != n || err != nil {
				return w, err
			}
			p = p[n:]
		}
		return w, w.Close()
	}
	for name, p := range ok {
		for _, size := range []int{1, 5, 8, 9, 13, len(p)} {
			w, err := write(p, size)
			if err != nil || !errors.Is(w.Unknown(), rdbstream.ErrUnsupported) {
				t.Fatalf("%s in pieces of %d: %v, unknown %v", name, size, err, w.Unknown())
			}
			if info := w.Info(); info.Size != int64(len(p)) || !info.Checked {
				t.Fatalf("%s in pieces of %d: %+v", name, size, info)
			}
			for n := range p {
				if _, err := write(p[:n], size); !errors.Is(err, rdbstream.ErrTruncated) && !errors.Is(err, rdbstream.ErrChecksum) {
					t.Fatalf("%s cut at %d of %d: %v", name, n, len(p), err)
				}
			}
		}
		for i := range p {
			q := bytes.Clone(p)
			q[i] ^= 4
			if _, err := write(q, 64); err == nil {
				t.Errorf("%s: accepted with byte %d flipped", name, i)
			}
		}
	}
	if _, err := write(newFile("REDIS0011").key(0, "k").raw(0xC4).bytes(), 64); !errors.Is(err, rdbstream.ErrCorrupt) {
		t.Errorf("corrupt is not unknown: %v", err)
	}
}
