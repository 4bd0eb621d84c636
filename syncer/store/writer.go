package store

import (
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
)

const (
	// A commit gets a record of its own if it is so far from the last one that
	// has: fine enough to find a time or an offset, and one percent of the log.
	recordEveryBytes = 4 << 10
	recordEvery      = 10 * time.Millisecond

	// maxCarry is how many uncommitted bytes are carried over into a new
	// segment; with more of them it waits for the next commit.
	maxCarry = 1 << 20
)

// openFiles are the two files of a segment that is being written or was, until
// the keeper has fsynced and closed them.
type openFiles struct {
	seg       *segment
	data, idx File
	long      bool // the data file has bytes after the segment's end
}

func (f *openFiles) close() error { return errors.Join(f.data.Close(), f.idx.Close()) }

// logWriter appends to the log of the head generation. The writer goroutine and
// the keeper share it under mu, which is never held across an fsync.
type logWriter struct {
	s *Store
	g *Generation

	syncMu sync.Mutex // held by who fsyncs or closes the files; before mu

	mu      sync.Mutex
	active  openFiles    // seg is nil before the first append
	seed    uint32       // of the active index's records
	idxSize int64        // written of the active index
	written int64        // highest byte ever written to the active data file
	done    []*openFiles // full segments that the keeper has not fsynced
	newFile bool         // the directory has entries that are not fsynced
	kicked  bool         // the keeper knows that there is something to fsync

	mark     Mark        // last commit
	markSum  uint32      // CRC32C of its block up to it
	recorded repl.Offset // of the last commit that has a record
	recTime  int64       // of that commit
	pending  []byte      // records not written yet

	appended repl.Offset // offset of the last byte written; >= mark.Offset
	// Sums of the bytes between mark and appended: of the blocks completed
	// since mark, and of the block that appended is in, up to it.
	fullSums []uint32
	tailSum  uint32

	finished bool // the files are closed
	suspect  bool // an fsync failed: what was written since the last good one must be written again
}

// rel returns how many bytes of the active segment are up to off.
func (w *logWriter) rel(off repl.Offset) int64 { return int64(off - w.active.seg.first + 1) }

// append writes p after what was appended.
func (w *logWriter) append(p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.prepare(); err != nil {
		return err
	}
	at := w.rel(w.appended)
	n, err := w.active.data.WriteAt(p, at)
	w.written = max(w.written, at+int64(n))
	if err != nil {
		return w.s.health.BecomeDegraded("write", w.active.seg.dataPath(), err)
	}
	w.appended += repl.Offset(len(p))
	for len(p) > 0 {
		room := int(BlockBytes - at%BlockBytes)
		if len(p) < room {
			w.tailSum = crc32.Update(w.tailSum, castagnoli, p)
			break
		}
		w.fullSums = append(w.fullSums, crc32.Update(w.tailSum, castagnoli, p[:room]))
		w.tailSum, p, at = 0, p[room:], at+int64(room)
	}
	return nil
}

// prepare makes sure that there is an active segment with room. A segment ends
// at a commit point; bytes after it are carried over.
func (w *logWriter) prepare() error {
	seg := w.active.seg
	if seg == nil {
		return w.begin(nil)
	}
	carry := int64(w.appended - w.mark.Offset)
	if w.rel(w.appended) < w.s.opt.SegmentBytes || seg.last() < seg.first || carry > maxCarry {
		return nil
	}
	w.record()
	if err := w.flush(); err != nil {
		return err
	}
	end := w.rel(w.mark.Offset)
	tail, err := readUpTo(w.active.data, end, carry)
	if err == nil && int64(len(tail)) < carry {
		err = errLostWrites
	}
	if err != nil {
		return w.s.health.BecomeDegraded("read", seg.dataPath(), err)
	}
	return w.begin(tail)
}

// begin starts a segment at mark with the uncommitted bytes tail.
func (w *logWriter) begin(tail []byte) (err error) {
	seg := newSegment(w.s.fs, w.g.dir, w.mark.Offset+1, true)
	seg.time.Store(w.mark.nano())
	h := indexHeader{generation: w.g.id, first: seg.first, db: w.mark.DB, time: w.mark.nano(), replid: w.g.History().Current()}
	head := h.encode()
	var f openFiles
	file := seg.dataPath()
	f.data, err = w.s.fs.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_RDWR, fileMode)
	if err == nil {
		if _, err = f.data.WriteAt(tail, 0); err == nil {
			file = seg.indexPath()
			f.idx, err = w.s.fs.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_RDWR, fileMode)
		}
		if err == nil {
			if _, err = f.idx.WriteAt(head, 0); err != nil {
				_ = f.idx.Close()
			}
		}
		if err != nil { // the next try truncates what is there
			_ = f.data.Close()
		}
	}
	if err != nil {
		return w.s.health.BecomeDegraded("create", file, err)
	}
	f.seg = seg
	if w.active.seg != nil {
		full := w.active
		full.long = w.written > w.rel(w.mark.Offset)
		w.done = append(w.done, &full)
	}
	w.active, w.seed, w.idxSize, w.written, w.newFile = f, h.crc, headerSize, int64(len(tail)), true
	w.recorded, w.recTime, w.markSum = w.mark.Offset, w.mark.nano(), 0
	w.cutToMark()
	for b := range slices.Chunk(tail, BlockBytes) {
		w.tailSum = checksum(b)
		if len(b) == BlockBytes {
			w.fullSums, w.tailSum = append(w.fullSums, w.tailSum), 0
		}
	}
	w.appended += repl.Offset(len(tail))
	w.g.addSegment(seg)
	w.s.keeper.retain()
	return nil
}

// cutToMark forgets what was appended after the last commit.
func (w *logWriter) cutToMark() {
	w.appended = w.mark.Offset
	w.fullSums, w.tailSum = w.fullSums[:0], w.markSum
}

// commit makes m the last commit point.
func (w *logWriter) commit(m Mark) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case m.Offset == w.mark.Offset:
		return nil
	case m.Offset < w.mark.Offset || m.Offset > w.appended:
		return fmt.Errorf("commit offset %d: not between the last commit %d and what was appended, %d",
			m.Offset, w.mark.Offset, w.appended)
	case m.DB < -1:
		return fmt.Errorf("commit offset %d: db %d is negative", m.Offset, m.DB)
	}
	nano := max(m.nano(), w.mark.nano())
	m = markOf(m.Offset, m.DB, nano)
	if err := w.advanceSums(m, nano); err != nil {
		return err
	}
	w.mark = m
	w.active.seg.time.Store(nano)
	w.active.seg.end.Store(int64(m.Offset))
	var err error
	if len(w.pending) > 0 || m.Offset-w.recorded >= recordEveryBytes || nano-w.recTime >= int64(recordEvery) {
		w.record()
		err = w.flush()
	}
	w.g.committed.advance(m.Offset)
	if !w.kicked {
		w.kicked = true
		w.s.keeper.kick()
	}
	return err
}

// advanceSums moves the sums from mark to m and notes the blocks that are
// complete by then.
func (w *logWriter) advanceSums(m Mark, nano int64) error {
	blockOf := func(off repl.Offset) int64 { return w.rel(off) / BlockBytes }
	full := blockOf(m.Offset) - blockOf(w.mark.Offset)
	sum := w.tailSum
	if m.Offset < w.appended {
		// The commit is in the middle of what was appended: the bytes before it
		// are read back from the page cache.
		begin, seed := blockOf(m.Offset)*BlockBytes, uint32(0)
		if full == 0 {
			begin, seed = w.rel(w.mark.Offset), w.markSum
		}
		n := w.rel(m.Offset) - begin
		b, err := readUpTo(w.active.data, begin, n)
		if err == nil && int64(len(b)) < n {
			err = errLostWrites
		}
		if err != nil {
			return w.s.health.BecomeDegraded("read", w.active.seg.dataPath(), err)
		}
		sum = crc32.Update(seed, castagnoli, b)
	}
	for i := range full {
		r := record{
			kind: recordBlock, offset: w.active.seg.first - 1 + repl.Offset((blockOf(w.mark.Offset)+i+1)*BlockBytes),
			time: nano, fsynced: w.g.fsynced.load(), sum: w.fullSums[i],
		}
		w.pending = r.append(w.pending, w.seed)
	}
	w.fullSums = slices.Delete(w.fullSums, 0, int(full))
	w.markSum = sum
	return nil
}

// record adds a record for the last commit to those to be written.
func (w *logWriter) record() {
	if w.recorded == w.mark.Offset {
		return
	}
	r := record{
		kind: recordCommit, db: w.mark.DB, offset: w.mark.Offset, time: w.mark.nano(),
		fsynced: w.g.fsynced.load(), sum: w.markSum,
	}
	w.pending = r.append(w.pending, w.seed)
	w.recorded, w.recTime = w.mark.Offset, r.time
}

// flush writes the records that wait. After an error they wait on.
func (w *logWriter) flush() error {
	if len(w.pending) == 0 {
		return nil
	}
	if _, err := w.active.idx.WriteAt(w.pending, w.idxSize); err != nil {
		return w.s.health.BecomeDegraded("write", w.active.seg.indexPath(), err)
	}
	w.idxSize += int64(len(w.pending))
	w.pending = w.pending[:0]
	return nil
}

// truncate forgets what is not committed and returns the last commit. The bytes
// stay in the file until others take their place or Open or close cuts them:
// no record vouches for them.
func (w *logWriter) truncate() Mark {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutToMark()
	return w.mark
}

// trim cuts the uncommitted bytes off the file and writes the last record.
func (w *logWriter) trim() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cutToMark()
	if w.active.seg == nil {
		return nil
	}
	if end := w.rel(w.mark.Offset); w.written > end {
		if err := w.active.data.Truncate(end); err != nil {
			return w.s.health.BecomeDegraded("truncate", w.active.seg.dataPath(), err)
		}
		w.written = end
	}
	w.record()
	return w.flush()
}
