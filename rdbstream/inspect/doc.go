// Package inspect says what is in an RDB file: how many keys of which type, in
// which database, how large, when they expire, which are the largest and which
// prefixes they share. All figures come from the scanner of package rdbstream,
// and are exact but for prefixes when there are very many of them (see
// [Prefix]). Sizes are bytes in the file, which is compressed and says little
// about a server's memory.
//
// [Lookup] shows single values to people. It alone uses the decoder
// github.com/hdt3213/rdb, one key at a time, whose panics are contained and
// whose results are compared with what the scanner knows.
package inspect
