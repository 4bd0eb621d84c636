// Package rdbstream reads the snapshot files of Redis 5 to 8 and Valkey 7.2 to
// 9 (RDB versions 6 to 13 and VALKEY080) as a stream, in bounded memory
// whatever the size of a key. It scans: it finds where each key begins and
// ends, of what type it is and when it expires, and hands its value on as raw
// bytes. It decodes no values.
//
// A file, as Redis's rdbSaveRio writes it:
//
//	magic      "REDIS" and four digits, or "VALKEY" and three: the RDB version
//	records    an opcode and what belongs to it, in DESIGN.md
//	EOF        one byte, 0xFF
//	checksum   CRC-64/Jones of all bytes before it, little endian; 0: none was made
//
// [Scanner] pulls from a reader, like archive/tar: Next, then Read. [Writer] is
// pushed to, so that whoever receives a file can check it while it passes by.
// Both refuse a file that is cut short, that has bytes behind its end, whose
// checksum is wrong or that has a type or an opcode whose structure they do not
// know, with an [Error] that says where and what. [ReadInfo] reads the
// beginning of a file only.
//
// The package imports nothing of ours and starts no goroutines.
package rdbstream
