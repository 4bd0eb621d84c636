package rdbstream_test

import (
	"hash/crc64"
	"math/rand/v2"
	"testing"

	"github.com/sluice-io/sluice/rdbstream"
)

func TestChecksum(t *testing.T) {
	if got := rdbstream.Checksum(0, []byte("123456789")); got != 0xe9c6d914c4b8d9ca {
		t.Errorf("check value %x", got)
	}
	if got := rdbstream.Checksum(0x1234, nil); got != 0x1234 {
		t.Errorf("of nothing: %x", got)
	}
	table := crc64.MakeTable(0x95AC9329AC4BC9B5)
	rnd := rand.NewChaCha8([32]byte{1})
	p := make([]byte, 40<<10)
	_, _ = rnd.Read(p)
	for _, n := range []int{0, 1, 63, 4095, 4096, 4097, 8191, 8192, 12345, len(p)} {
		for _, from := range []int{0, 1, 7} {
			q := p[min(from, n):n]
			want := ^crc64.Update(^uint64(42), table, q)
			if got := rdbstream.Checksum(42, q); got != want {
				t.Errorf("%d bytes: %x, want %x", len(q), got, want)
			}
			cut := rnd.Uint64() % uint64(len(q)+1)
			if got := rdbstream.Checksum(rdbstream.Checksum(42, q[:cut]), q[cut:]); got != want {
				t.Errorf("%d bytes cut at %d: %x, want %x", len(q), cut, got, want)
			}
		}
	}
}
