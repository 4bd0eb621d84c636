package rdbstream_test

import (
	"bytes"
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-io/sluice/rdbstream"
)

// moduleID is that of a type named "ReJSON-RL", version 3.
const moduleID = 0x45e24e20be4b<<16 | 0x2c03

// id16, at8 are what has a fixed length in streams.
const (
	id16 = "0123456789abcdef"
	at8  = "\x01\x02\x03\x04\x05\x06\x07\x08"
)

func (f *file) fixed(s string) *file {
	f.b = append(f.b, s...)
	return f
}

// stream appends the value of a stream of a generation: two nodes, two groups.
func (f *file) stream(generation int) *file {
	f.num(2).str(id16).str("listpack 1").str(id16).str("listpack 2")
	f.num(77).num(1 << 40).num(1)
	if generation >= 2 {
		f.num(1 << 40).num(0).num(3).num(4).num(100)
	}
	f.num(2)
	for _, group := range []string{"g1", "g2"} {
		f.str(group).num(1 << 40).num(9)
		if generation >= 2 {
			f.num(5)
		}
		f.num(2).fixed(id16 + at8).num(1).fixed(id16 + at8).num(20000)
		f.num(2)
		for range 2 {
			f.str("consumer").fixed(at8)
			if generation >= 3 {
				f.fixed(at8)
			}
			f.num(2).fixed(id16 + id16)
		}
	}
	if generation >= 4 {
		f.num(100).num(1000).num(2).str("p1").num(0).str("p2").num(1).str("iid").num(1 << 40).num(2).num(7).num(8)
	}
	return f
}

// values has a value of each type, in each form that the file can give it.
var values = []struct {
	t        rdbstream.Type
	elements int64
	put      func(f *file) *file
}{
	{rdbstream.TypeString, -1, func(f *file) *file { return f.str("plain") }},
	{rdbstream.TypeString, -1, func(f *file) *file { return f.str("") }},
	{rdbstream.TypeString, -1, func(f *file) *file { return f.str(strings.Repeat("x", 17000)) }},
	{rdbstream.TypeString, -1, func(f *file) *file { return f.raw(0xC0, 0x85) }},
	{rdbstream.TypeString, -1, func(f *file) *file { return f.raw(0xC1, 0x39, 0x30) }},
	{rdbstream.TypeString, -1, func(f *file) *file { return f.raw(0xC2, 1, 2, 3, 4) }},
	{rdbstream.TypeString, -1, func(f *file) *file { return f.raw(0xC3, 6, 20, 1, 'a', 'a', 0xE0, 0x09, 0x00) }},
	{rdbstream.TypeString, -1, func(f *file) *file { return f.raw(0x81, 0, 0, 0, 0, 0, 0, 0, 3).fixed("abc") }},
	{rdbstream.TypeList, 2, func(f *file) *file { return f.num(2).str("a").raw(0xC0, 1) }},
	{rdbstream.TypeList, 0, func(f *file) *file { return f.num(0) }},
	{rdbstream.TypeSet, 1, func(f *file) *file { return f.num(1).str("a") }},
	{rdbstream.TypeZset, 4, func(f *file) *file {
		return f.num(4).str("a").raw(3).fixed("1.5").str("b").raw(253).str("c").raw(254).str("d").raw(255)
	}},
	{rdbstream.TypeHash, 2, func(f *file) *file { return f.num(2).str("a").str("1").str("b").str("2") }},
	{rdbstream.TypeZset2, 2, func(f *file) *file { return f.num(2).str("a").fixed(at8).str("b").fixed(at8) }},
	{rdbstream.TypeModule2, -1, func(f *file) *file {
		return f.num(moduleID).num(1).num(5).num(2).num(1 << 33).num(3).fixed("1234").num(4).fixed(at8).num(5).str("text").num(0)
	}},
	{rdbstream.TypeHashZipmap, -1, func(f *file) *file { return f.str("zipmap") }},
	{rdbstream.TypeListZiplist, -1, func(f *file) *file { return f.str("ziplist") }},
	{rdbstream.TypeSetIntset, -1, func(f *file) *file { return f.str("intset") }},
	{rdbstream.TypeZsetZiplist, -1, func(f *file) *file { return f.str("ziplist") }},
	{rdbstream.TypeHashZiplist, -1, func(f *file) *file { return f.str("ziplist") }},
	{rdbstream.TypeListQuicklist, -1, func(f *file) *file { return f.num(2).str("ziplist").str("ziplist") }},
	{rdbstream.TypeStreamListpacks, 77, func(f *file) *file { return f.stream(1) }},
	{rdbstream.TypeHashListpack, -1, func(f *file) *file { return f.str("listpack") }},
	{rdbstream.TypeZsetListpack, -1, func(f *file) *file { return f.str("listpack") }},
	{rdbstream.TypeListQuicklist2, -1, func(f *file) *file { return f.num(2).num(1).str("plain").num(2).str("packed") }},
	{rdbstream.TypeStreamListpacks2, 77, func(f *file) *file { return f.stream(2) }},
	{rdbstream.TypeSetListpack, -1, func(f *file) *file { return f.str("listpack") }},
	{rdbstream.TypeStreamListpacks3, 77, func(f *file) *file { return f.stream(3) }},
	{rdbstream.TypeHashMetadataPreGA, 2, func(f *file) *file {
		return f.num(2).num(0).str("a").str("1").num(1 << 41).str("b").str("2")
	}},
	{rdbstream.TypeHashListpackExPreGA, -1, func(f *file) *file { return f.str("listpack") }},
	{rdbstream.TypeHashMetadata, 2, func(f *file) *file {
		return f.fixed(at8).num(2).num(0).str("a").str("1").num(7).str("b").str("2")
	}},
	{rdbstream.TypeHashListpackEx, -1, func(f *file) *file { return f.fixed(at8).str("listpack") }},
	{rdbstream.TypeStreamListpacks4, 77, func(f *file) *file { return f.stream(4) }},
	{rdbstream.TypeHash2, 2, func(f *file) *file { return f.num(2).str("a").str("1").fixed(at8).str("b").str("2").fixed(at8) }},
}

// everything is a file of each dialect with all there is, and what a scan must
// say of its keys.
func everything(magic string) (p []byte, want []scanned) {
	f := newFile(magic).aux("redis-ver", "8.6.0").aux(rdbstream.AuxReplStreamDB, "2").aux(rdbstream.AuxReplID, strings.Repeat("ab", 20))
	f.raw(250).str(rdbstream.AuxReplOffset).raw(0xC2, 0x15, 0xCD, 0x5B, 0x07) // 123456789
	f.raw(247).num(moduleID).num(2).num(1).num(5).str("aux").num(0)
	f.raw(245).str("#!lua name=lib\nredis.register_function('f', function() end)")
	valkey := magic[0] == 'V'
	if valkey {
		f.raw(243).str(strings.Repeat("j", 40)).num(2).num(0).num(99).num(200).num(16383)
	}
	f.selectDB(3).raw(251).num(100).num(20).raw(244).num(5).num(10).num(2)
	for i, v := range values {
		foreign := v.t == rdbstream.TypeHash2
		if foreign != valkey && v.t&0xFF > rdbstream.TypeStreamListpacks3 {
			continue
		}
		w := rdbstream.Record{Kind: rdbstream.KindKey, Offset: int64(len(f.b)), DB: 3, Type: v.t, Elements: v.elements,
			Name: []byte("key " + v.t.String()), ExpireAt: rdbstream.NoExpiry, Idle: rdbstream.Unknown, Freq: rdbstream.Unknown}
		switch i % 4 {
		case 1:
			f.expireMS(1_700_000_000_123).raw(249, 200)
			w.ExpireAt, w.Freq = 1_700_000_000_123, 200
		case 2:
			f.raw(253, 0x00, 0x00, 0x00, 0x60).raw(248).num(70000)
			w.ExpireAt, w.Idle = 0x60000000*1000, 70000
		case 3:
			if !valkey {
				f.raw(243).num(2).fixed("spec").num(5).str("meta").num(0).fixed("spec").num(0)
				w.HasMeta = true
			}
		}
		if v.t == rdbstream.TypeModule2 {
			w.Module = rdbstream.ModuleName(moduleID)
		}
		f.key(v.t, string(w.Name))
		start := len(f.b)
		v.put(f)
		w.Size, w.Payload = int64(len(f.b))-w.Offset, int64(len(f.b)-start)
		want = append(want, scanned{w, bytes.Clone(f.b[start:])})
	}
	return f.bytes(), want
}

func TestEveryType(t *testing.T) {
	for _, magic := range []string{"REDIS0013", "VALKEY080"} {
		t.Run(magic, func(t *testing.T) {
			p, want := everything(magic)
			all, info := mustScan(t, p)
			var keys []scanned
			kinds := map[string]int{}
			for _, r := range all {
				if kinds[r.Rec.Kind.String()]++; r.Rec.Kind == rdbstream.KindKey {
					r.Rec.Value = nil // a buffer that aux fields have used
					keys = append(keys, r)
				}
			}
			if d := cmp.Diff(want, keys); d != "" {
				t.Errorf("keys (-want +got):\n%s", d)
			}
			wantKinds := map[string]int{"aux": 4, "selectdb": 1, "resizedb": 1, "slot-info": 1, "function": 1, "module-aux": 1, "key": len(want)}
			if magic[0] == 'V' {
				wantKinds["slot-import"] = 1
			}
			if d := cmp.Diff(wantKinds, kinds); d != "" {
				t.Errorf("kinds (-want +got):\n%s", d)
			}
			checkInfo(t, info, len(want), len(p))
		})
	}
}

func checkInfo(t *testing.T, info rdbstream.Info, keys, size int) {
	t.Helper()
	db, okDB := info.ReplStreamDB()
	offset, okOffset := info.ReplOffset()
	if !okDB || !okOffset || db != 2 || offset != 123456789 || info.ReplID() != strings.Repeat("ab", 20) {
		t.Errorf("replication: db %d, offset %d, id %q", db, offset, info.ReplID())
	}
	if info.Keys != int64(keys) || info.Size != int64(size) || !info.Checked {
		t.Errorf("%d keys, %d bytes, checked %t; want %d, %d", info.Keys, info.Size, info.Checked, keys, size)
	}
}

func TestReadInfo(t *testing.T) {
	p, _ := everything("REDIS0013")
	info, err := rdbstream.ReadInfo(iotest.OneByteReader(bytes.NewReader(p[:len(p)/2])))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := info.Lookup("redis-ver"); !ok || v != "8.6.0" || info.Version != 13 || info.Dialect != rdbstream.Redis || len(info.Aux) != 4 {
		t.Errorf("%+v", info)
	}
	info, err = rdbstream.ReadInfo(bytes.NewReader(newFile("VALKEY080").bytes()))
	if _, ok := info.ReplOffset(); err != nil || ok || info.Dialect != rdbstream.Valkey || info.Version != 80 {
		t.Errorf("empty file: %+v, %v", info, err)
	}
	if _, err = rdbstream.ReadInfo(bytes.NewReader(p[:30])); !errors.Is(err, rdbstream.ErrTruncated) {
		t.Errorf("cut in the aux fields: %v", err)
	}
}

// A Writer agrees with a Scanner, wherever the pieces are cut.
func TestWriterSplits(t *testing.T) {
	for _, magic := range []string{"REDIS0013", "VALKEY080"} {
		p, _ := everything(magic)
		want, wantInfo := mustScan(t, p)
		check := func(sizes ...int) {
			t.Helper()
			got, info, err := push(p, sizes...)
			if err != nil {
				t.Fatalf("sizes %v: %v", sizes, err)
			}
			if !reflect.DeepEqual(want, got) || !reflect.DeepEqual(wantInfo, info) { // cmp.Diff is slow
				t.Fatalf("sizes %v (-Scanner +Writer):\n%s%s", sizes, cmp.Diff(want, got), cmp.Diff(wantInfo, info))
			}
		}
		for size := range 40 {
			check(size + 1)
		}
		check(len(p))
		// One cut at each byte but inside the one long string.
		for cut := 1; cut < len(p); cut++ {
			if cut > 1500 && cut < 17000 {
				continue
			}
			c := &collector{}
			w := rdbstream.NewWriter(c)
			for _, piece := range [][]byte{p[:cut], p[cut:]} {
				if n, err := w.Write(piece); n != len(piece) || err != nil {
					t.Fatalf("cut at %d: %d, %v", cut, n, err)
				}
			}
			if err := w.Close(); err != nil || !w.Done() || len(c.all) != len(want) {
				t.Fatalf("cut at %d: %d of %d records, %v", cut, len(c.all), len(want), err)
			}
		}
	}
}

func TestScannerReadsInPieces(t *testing.T) {
	p, _ := everything("REDIS0013")
	want, _ := mustScan(t, p)
	for name, r := range map[string]io.Reader{
		"one byte": iotest.OneByteReader(bytes.NewReader(p)),
		"half":     iotest.HalfReader(bytes.NewReader(p)),
		"data+EOF": iotest.DataErrReader(bytes.NewReader(p)),
	} {
		s := rdbstream.NewScanner(r)
		for i := range want {
			rec, err := s.Next()
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if i%3 == 0 { // left to Next
				continue
			}
			var payload bytes.Buffer
			one := make([]byte, 1)
			for range i % 5 { // some by Read, the rest by WriteTo
				if n, _ := s.Read(one); n == 1 {
					payload.Write(one)
				}
			}
			if _, err := s.WriteTo(&payload); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if d := cmp.Diff(want[i], scanned{copyOf(rec), append([]byte(nil), payload.Bytes()...)}); d != "" {
				t.Fatalf("%s: record %d (-want +got):\n%s", name, i, d)
			}
		}
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: at the end: %v", name, err)
		}
		if _, err := s.Next(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the end: %v", name, err)
		}
	}
}

func TestNames(t *testing.T) {
	f := newFile("REDIS0011")
	f.raw(0).raw(0xC0, 0xFB).str("v")
	f.raw(0).raw(0xC1, 0x39, 0x30).str("v")
	f.raw(0).raw(0xC2, 0x00, 0x00, 0x00, 0x80).str("v")
	f.raw(0).raw(0xC3, 6, 20, 1, 'a', 'b', 0xE0, 0x09, 0x01).str("v")
	f.key(0, strings.Repeat("n", 1<<20)).str("v")
	f.key(0, "").str("v")
	all, _ := mustScan(t, f.bytes())
	want := []string{"-5", "12345", "-2147483648", strings.Repeat("ab", 10), strings.Repeat("n", 1<<20), ""}
	for i, r := range all {
		if string(r.Rec.Name) != want[i] {
			t.Errorf("name %d: %.40q, want %.40q", i, r.Rec.Name, want[i])
		}
	}
}

func TestExpired(t *testing.T) {
	now := time.UnixMilli(1000)
	for _, tc := range []struct {
		at   int64
		want bool
	}{{rdbstream.NoExpiry, false}, {999, true}, {1000, false}, {0, true}, {-1, true}} {
		if r := (rdbstream.Record{ExpireAt: tc.at}); r.Expired(now) != tc.want {
			t.Errorf("expiry at %d: expired %t at 1000", tc.at, !tc.want)
		}
	}
}

func TestModuleName(t *testing.T) {
	// The example of Redis's documentation of modules' types: a name of nine
	// characters in 54 bits, the version in ten.
	var id uint64
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for _, c := range "hello-_09" {
		id = id<<6 | uint64(strings.IndexRune(set, c))
	}
	if got := rdbstream.ModuleName(id<<10 | 1023); got != "hello-_09" {
		t.Errorf("got %q", got)
	}
}
