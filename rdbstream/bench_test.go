package rdbstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/sluice-io/sluice/rdbstream"
)

// smallKeys is a file of n strings of 100 bytes, as Redis writes them.
func smallKeys(n int) []byte {
	f := newFile("REDIS0011").aux("redis-ver", "7.2.0").selectDB(0)
	value := bytes.Repeat([]byte("0123456789"), 10)
	for i := range n {
		if i%4 == 0 {
			f.expireMS(1e12 + int64(i))
		}
		f.key(rdbstream.TypeString, fmt.Sprintf("key:%012d", i)).str(string(value))
	}
	return f.bytes()
}

func BenchmarkScanner(b *testing.B) {
	file := smallKeys(100_000)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		s := rdbstream.NewScanner(bytes.NewReader(file))
		for {
			if _, err := s.Next(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkWriter(b *testing.B) {
	file := smallKeys(100_000)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		w := rdbstream.NewWriter(nil)
		for p := file; len(p) > 0; {
			n := min(len(p), 64<<10)
			if _, err := w.Write(p[:n]); err != nil {
				b.Fatal(err)
			}
			p = p[n:]
		}
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkChecksum(b *testing.B) {
	p := make([]byte, 256<<10)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		rdbstream.Checksum(0, p)
	}
}
