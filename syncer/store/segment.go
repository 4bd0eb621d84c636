package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/sluice-io/sluice/syncer/repl"
)

// maxIndexSize bounds an index file in bytes. A commit record stands for four
// kilobytes or ten milliseconds, so that this is reached by no segment.
const maxIndexSize = 1 << 30

// segment is one file of the log with its index, as readers see it.
type segment struct {
	fs    FS
	dir   string
	first repl.Offset // of its first byte

	end  atomic.Int64 // offset of the last committed byte; first-1 if none
	time atomic.Int64 // of the last commit, Unix nanoseconds

	// trusted: every byte was checked by Open or written by this process, so
	// that readers need not check. Else a block is checked when it is first read.
	trusted bool

	mu      sync.Mutex
	file    File // open while refs > 0
	refs    int
	loaded  bool        // what follows was read from the index
	blocks  []uint32    // sums of the complete blocks
	tailEnd repl.Offset // last commit point in the index
	tailSum uint32      // of the bytes from the last complete block to tailEnd
	checked []bool      // blocks found good
}

func newSegment(fs FS, dir string, first repl.Offset, trusted bool) *segment {
	s := &segment{fs: fs, dir: dir, first: first, trusted: trusted}
	s.end.Store(int64(first - 1))
	return s
}

func (s *segment) last() repl.Offset { return repl.Offset(s.end.Load()) }
func (s *segment) size() int64       { return int64(s.last() - s.first + 1) }
func (s *segment) dataPath() string  { return filepath.Join(s.dir, segmentFile(s.first)) }
func (s *segment) indexPath() string { return filepath.Join(s.dir, indexFile(s.first)) }

func (s *segment) corrupt(file string, at int64, format string, args ...any) error {
	return &CorruptionError{Dir: s.dir, File: file, Offset: at, Reason: fmt.Sprintf(format, args...)}
}

// acquire opens the data file for reading, shared by all readers.
func (s *segment) acquire() (File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs == 0 {
		f, err := s.fs.OpenFile(s.dataPath(), os.O_RDONLY, 0)
		if err != nil {
			return nil, err
		}
		s.file = f
	}
	s.refs++
	return s.file, nil
}

// release undoes an acquire.
func (s *segment) release() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs--; s.refs > 0 {
		return nil
	}
	f := s.file
	s.file = nil
	return f.Close()
}

// readIndex reads and parses the index file.
func (s *segment) readIndex() (*index, error) {
	data, err := readFile(s.fs, s.indexPath(), maxIndexSize)
	if err != nil {
		return nil, err
	}
	x, err := parseIndex(data)
	if err == nil && x.header.first != s.first {
		err = fmt.Errorf("header says that the segment begins at %d", x.header.first)
	}
	if err != nil {
		return nil, s.corrupt(indexFile(s.first), 0, "%v", err)
	}
	return x, nil
}

// loadSums reads the sums that the index holds. mu is held.
func (s *segment) loadSums() error {
	x, err := s.readIndex()
	if err != nil {
		return err
	}
	// In a store of OpenReadOnly the index may know more: what was torn off and
	// left out, or has been written since.
	last := s.last()
	n, m := x.lastCommitBefore(last)
	if m.Offset < last {
		at, why := x.bad, x.why
		if at < 0 {
			at, why = int64(headerSize+len(x.records)*recordSize), "index ends early"
		}
		return s.corrupt(indexFile(s.first), at, "%s; the segment is known to reach offset %d", why, last)
	}
	s.blocks = s.blocks[:0]
	for _, r := range x.records[:n] {
		if r.kind == recordBlock {
			s.blocks = append(s.blocks, r.sum)
		}
	}
	s.loaded, s.tailEnd, s.tailSum = true, m.Offset, 0
	if n > 0 {
		s.tailSum = x.records[n-1].sum
	}
	s.checked = append(s.checked, make([]bool, max(len(s.blocks)-len(s.checked), 0))...)
	return nil
}

// check verifies the blocks that hold the committed bytes from+1 to to.
func (s *segment) check(f io.ReaderAt, from, to repl.Offset) error {
	if s.trusted || from >= to {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.loaded || to > s.tailEnd {
		if err := s.loadSums(); err != nil {
			return err
		}
	}
	var buf []byte
	for b := int64(from-s.first+1) / BlockBytes; b <= int64(to-s.first)/BlockBytes; b++ {
		full := b < int64(len(s.blocks))
		if full && s.checked[b] {
			continue
		}
		n, sum := int64(BlockBytes), s.tailSum
		if full {
			sum = s.blocks[b]
		} else {
			n = int64(s.tailEnd-s.first+1) - b*BlockBytes
		}
		if buf == nil {
			buf = make([]byte, BlockBytes)
		}
		if have, err := f.ReadAt(buf[:n], b*BlockBytes); int64(have) < n {
			if !errors.Is(err, io.EOF) {
				return fmt.Errorf("read %s: %w", s.dataPath(), err)
			}
			return s.corrupt(segmentFile(s.first), b*BlockBytes+int64(have), "file ends early")
		}
		if got := checksum(buf[:n]); got != sum {
			return s.corrupt(segmentFile(s.first), b*BlockBytes, "block of %d bytes has CRC32C %08x, the index says %08x", n, got, sum)
		}
		if full {
			s.checked[b] = true
		}
	}
	return nil
}

// scanned is what scanSegment found.
type scanned struct {
	mark    Mark   // last commit whose bytes are all as written
	records int    // records up to and including its own; 0: no commit is good
	sum     uint32 // of the block that mark is in, up to it
	// damage tells what ends the good part; nil if all records hold.
	damage *CorruptionError
}

// scanSegment compares the data of a segment with its index, from the first
// byte to the last commit record. The error is one of the file system.
func scanSegment(dir string, data io.ReaderAt, x *index) (scanned, error) {
	first := x.header.first
	res := scanned{mark: x.header.start()}
	if x.bad >= 0 {
		res.damage = &CorruptionError{Dir: dir, File: indexFile(first), Offset: x.bad, Reason: x.why}
	}
	n, _ := x.lastCommit()
	buf := make([]byte, BlockBytes)
	pos, sum := first-1, uint32(0) // checked up to pos
	for i, r := range x.records[:n] {
		at := int64(pos - first + 1)
		want := buf[:r.offset-pos]
		if have, err := data.ReadAt(want, at); have < len(want) {
			if !errors.Is(err, io.EOF) {
				return res, fmt.Errorf("read %s: %w", filepath.Join(dir, segmentFile(first)), err)
			}
			res.damage = &CorruptionError{Dir: dir, File: segmentFile(first), Offset: at + int64(have),
				Reason: fmt.Sprintf("file ends early; the index tells of bytes up to offset %d", r.offset)}
			return res, nil
		}
		sum = crc32.Update(sum, castagnoli, want)
		pos = r.offset
		if sum != r.sum {
			begin := int64(pos-first) / BlockBytes * BlockBytes
			res.damage = &CorruptionError{Dir: dir, File: segmentFile(first), Offset: begin,
				Reason: fmt.Sprintf("the bytes of the block up to offset %d have CRC32C %08x, the index says %08x", pos, sum, r.sum)}
			return res, nil
		}
		if r.kind == recordBlock {
			sum = 0
			continue
		}
		res.mark, res.records, res.sum = r.mark(), i+1, sum
	}
	return res, nil
}
