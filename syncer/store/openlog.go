package store

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"

	"github.com/sluice-io/sluice/syncer/repl"
)

// logFiles says which files of a segment are in the directory.
type logFiles struct {
	first     repl.Offset
	data, idx bool
}

// listLogs returns the segments among names, oldest first.
func listLogs(names []string) []logFiles {
	found := map[repl.Offset]*logFiles{}
	add := func(n uint64) *logFiles {
		first := repl.Offset(n)
		if found[first] == nil {
			found[first] = &logFiles{first: first}
		}
		return found[first]
	}
	for _, name := range names {
		if n, ok := parseHexName(name, "log-", ".seg"); ok {
			add(n).data = true
		} else if n, ok := parseHexName(name, "log-", ".idx"); ok {
			add(n).idx = true
		}
	}
	var logs []logFiles
	for _, l := range found {
		logs = append(logs, *l)
	}
	slices.SortFunc(logs, func(a, b logFiles) int { return cmp.Compare(a.first, b.first) })
	return logs
}

// logRecovery finds out what of a generation's log is good. It only reads. The
// rule: bytes that are known to have been durable (known) must be there as they
// were written, or the log is corrupt; of the others a crash may have left any
// part, and the log is cut at the last commit that is good.
type logRecovery struct {
	fs  FS
	dir string
	cat *catalog
	// Without full only segments are compared with their index that may hold
	// bytes that were not durable, and the last; of the others the sizes, the
	// header and the last record are looked at.
	full bool
	// damage, if not nil, is told of corruption, and the search goes on; else
	// the first corruption is the error of run.
	damage func(*CorruptionError)
	// segmentDone, if not nil, is told of each segment that was compared, with
	// its size in bytes; its error ends the search.
	segmentDone func(size int64) error

	known    repl.Offset // durable for sure
	segments []*segment
	scans    map[*segment]scannedFiles // of those compared
	mark     Mark                      // last good commit
	sum      uint32                    // of its block up to it
	remove   []string                  // files to be removed
	notes    []string                  // what a crash left, in words
	indexes  map[repl.Offset]*index
}

// scannedFiles is what is needed to write on where a scan ended.
type scannedFiles struct {
	indexLength int64  // of what is valid of the index file, in bytes
	seed        uint32 // of its records
}

// fail passes corruption on; nil means that the search goes on.
func (r *logRecovery) fail(c *CorruptionError) error {
	if r.damage == nil {
		return c
	}
	r.damage(c)
	return nil
}

func (r *logRecovery) corrupt(file string, at int64, format string, args ...any) *CorruptionError {
	return &CorruptionError{Dir: r.dir, File: file, Offset: at, Reason: fmt.Sprintf(format, args...)}
}

// missing is also the word for what another process has removed meanwhile; see
// [outdated].
func (r *logRecovery) missing(file string) *CorruptionError {
	return r.corrupt(file, 0, "file is missing")
}

// run does it; names are those in the directory.
func (r *logRecovery) run(names []string) error {
	r.mark = Mark{Offset: r.cat.LogFirst - 1, DB: -1}
	r.scans, r.indexes = map[*segment]scannedFiles{}, map[repl.Offset]*index{}
	logs := listLogs(names)
	for len(logs) > 0 && logs[0].first < r.cat.LogFirst { // retention was about to remove them
		r.drop(logs[:1])
		logs = logs[1:]
	}
	if err := r.findKnown(logs); err != nil {
		return err
	}
	for i, l := range logs {
		if next := r.mark.Offset + 1; l.first != next {
			if l.first > next && r.known < next {
				r.cut(logs[i:], next-1, "the files between were not durable")
				return nil
			}
			why := r.corrupt(segmentFile(next), 0, "file is missing; the next segment begins at offset %d", l.first)
			if l.first < next {
				why = r.corrupt(segmentFile(l.first), 0, "file overlaps the one before it, which ends at offset %d", next-1)
			}
			if err := r.fail(why); err != nil {
				return err
			}
			r.mark = Mark{Offset: l.first - 1, DB: -1}
		}
		done, err := r.one(logs[i:])
		if err != nil || done {
			return err
		}
	}
	if r.mark.Offset < r.known {
		return r.short()
	}
	return nil
}

// short tells what is wrong with a log that ends before what was durable: its
// last index has lost records, or the next segment is gone.
func (r *logRecovery) short() error {
	if n := len(r.segments); n > 0 {
		seg := r.segments[n-1]
		if size, err := r.fs.Size(seg.dataPath()); err != nil {
			return err
		} else if size > seg.size() {
			return r.fail(r.corrupt(indexFile(seg.first), r.scans[seg].indexLength,
				"it ends at offset %d; the log was durable up to %d", r.mark.Offset, r.known))
		}
	}
	return r.fail(r.corrupt(segmentFile(r.mark.Offset+1), 0,
		"file is missing; the log was durable up to offset %d and ends at %d", r.known, r.mark.Offset))
}

// findKnown takes the highest offset that the catalog or an index says is
// durable. The newest index with a record has the highest of all.
func (r *logRecovery) findKnown(logs []logFiles) error {
	r.known = r.cat.Fsynced
	for _, l := range slices.Backward(logs) {
		x, _, err := r.index(l)
		if err != nil {
			return err
		}
		if x != nil && x.fsynced > 0 {
			r.known = max(r.known, x.fsynced)
			return nil
		}
	}
	return nil
}

// index returns the parsed index of a segment, or what is wrong with its head.
func (r *logRecovery) index(l logFiles) (*index, *CorruptionError, error) {
	if x := r.indexes[l.first]; x != nil {
		return x, nil, nil
	}
	if !l.idx {
		return nil, r.missing(indexFile(l.first)), nil
	}
	data, err := readFile(r.fs, filepath.Join(r.dir, indexFile(l.first)), maxIndexSize)
	if isGone(err) {
		return nil, r.missing(indexFile(l.first)), nil
	}
	if err != nil {
		return nil, nil, err
	}
	x, err := parseIndex(data)
	if err == nil {
		err = r.checkHeader(&x.header, l.first)
	}
	if err != nil {
		return nil, r.corrupt(indexFile(l.first), 0, "%v", err), nil
	}
	r.indexes[l.first] = x
	return x, nil, nil
}

// checkHeader tells whether the header belongs to this generation and name.
func (r *logRecovery) checkHeader(h *indexHeader, first repl.Offset) error {
	if h.first != first || h.generation != r.cat.ID {
		return fmt.Errorf("header is that of the segment at offset %d of generation %d", h.first, h.generation)
	}
	if h.replid == r.cat.History.Current() {
		return nil
	}
	for _, a := range r.cat.History.Ancestors() {
		if a.ReplID == h.replid {
			return nil
		}
	}
	return fmt.Errorf("header has replid %s, which is not in this history", h.replid)
}

// one looks at the first of rest. It reports whether the log ends there.
func (r *logRecovery) one(rest []logFiles) (done bool, err error) {
	l, end := rest[0], repl.Offset(math.MaxInt64)
	if len(rest) > 1 {
		end = rest[1].first - 1
	}
	seg := newSegment(r.fs, r.dir, l.first, false)
	var bad *CorruptionError
	// Before bytes of the next segment are durable, this one has been fsynced at
	// its final size.
	durable := end < r.known
	if durable && !r.full {
		bad, err = r.glance(l, seg, end)
	} else {
		bad, err = r.scan(l, seg, end)
	}
	if err != nil {
		return false, err
	}
	if bad == nil {
		r.segments = append(r.segments, seg)
		return false, nil
	}
	if durable || r.mark.Offset < r.known { // bytes that were durable are not good
		if err := r.fail(bad); err != nil {
			return false, err
		}
		r.segments = append(r.segments, seg)
		r.mark = Mark{Offset: min(end, max(r.known, r.mark.Offset)), DB: -1}
		return len(rest) == 1, nil
	}
	why := fmt.Sprintf("%s at byte %d: %s", bad.File, bad.Offset, bad.Reason)
	if r.mark.Offset >= l.first {
		r.segments = append(r.segments, seg)
		rest = rest[1:]
	}
	r.cut(rest, r.mark.Offset, why)
	return true, nil
}

// glance checks what can be checked without reading the segment.
func (r *logRecovery) glance(l logFiles, seg *segment, end repl.Offset) (*CorruptionError, error) {
	if !l.data {
		return r.missing(segmentFile(l.first)), nil
	}
	if !l.idx {
		return r.missing(indexFile(l.first)), nil
	}
	size, err := r.fs.Size(seg.dataPath())
	if isGone(err) {
		return r.missing(segmentFile(l.first)), nil
	}
	if err != nil {
		return nil, err
	}
	f, err := r.fs.OpenFile(seg.indexPath(), os.O_RDONLY, 0)
	if isGone(err) {
		return r.missing(indexFile(l.first)), nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	head, err := readUpTo(f, 0, headerSize)
	if err != nil {
		return nil, err
	}
	h, err := decodeHeader(head)
	if err == nil {
		err = r.checkHeader(&h, l.first)
	}
	if err != nil {
		return r.corrupt(indexFile(l.first), 0, "%v", err), nil
	}
	at := fi.Size() - recordSize
	if at < headerSize || (at-headerSize)%recordSize != 0 {
		return r.corrupt(indexFile(l.first), max(at, 0), "file has %d bytes: not a header and whole records", fi.Size()), nil
	}
	tail, err := readUpTo(f, at, recordSize)
	if err != nil {
		return nil, err
	}
	if len(tail) < recordSize {
		return r.corrupt(indexFile(l.first), at, "file ends early"), nil
	}
	rec, ok := decodeRecord(tail, h.crc)
	length := func(last repl.Offset) int64 { return int64(last - l.first + 1) }
	switch {
	case !ok || rec.kind != recordCommit || rec.offset != end && size != length(rec.offset):
		return r.corrupt(indexFile(l.first), at, "last record is not that of offset %d, where the next segment follows", end), nil
	case size != length(rec.offset):
		return r.corrupt(segmentFile(l.first), min(size, length(end)), "file has %d bytes, want %d", size, length(end)), nil
	}
	r.take(seg, rec.mark(), rec.sum) // if it is not where the next begins, run sees it
	return nil, nil
}

// scan compares the segment with its index.
func (r *logRecovery) scan(l logFiles, seg *segment, end repl.Offset) (*CorruptionError, error) {
	x, bad, err := r.index(l)
	if err != nil || bad != nil {
		return bad, err
	}
	if !l.data {
		return r.missing(segmentFile(l.first)), nil
	}
	f, err := seg.acquire()
	if isGone(err) {
		return r.missing(segmentFile(l.first)), nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = seg.release() }() // only read from
	res, err := scanSegment(r.dir, f, x)
	if err != nil {
		return nil, err
	}
	if r.segmentDone != nil {
		if err := r.segmentDone(int64(res.mark.Offset - l.first + 1)); err != nil {
			return nil, err
		}
	}
	length := int64(headerSize + res.records*recordSize)
	r.scans[seg] = scannedFiles{length, x.header.crc}
	delete(r.indexes, l.first) // large
	if res.records > 0 {
		r.take(seg, res.mark, res.sum)
	}
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	switch {
	case res.damage != nil:
		return res.damage, nil
	case end == math.MaxInt64:
		if r.full && fi.Size() > seg.size() {
			r.notes = append(r.notes, fmt.Sprintf("%s has %d bytes after the last commit", segmentFile(l.first), fi.Size()-seg.size()))
		}
		if res.records == 0 {
			return r.corrupt(indexFile(l.first), length, "it has no commit"), nil
		}
	case res.mark.Offset < end && fi.Size() != seg.size():
		return r.corrupt(indexFile(l.first), length, "its last commit is at offset %d, the next segment begins at %d", res.mark.Offset, end+1), nil
	case end < r.known && fi.Size() != seg.size():
		return r.corrupt(segmentFile(l.first), seg.size(), "file has %d bytes, want %d", fi.Size(), seg.size()), nil
	}
	return nil, nil // if mark is not where the next begins, run sees it
}

func (r *logRecovery) take(seg *segment, m Mark, sum uint32) {
	seg.end.Store(int64(m.Offset))
	seg.time.Store(m.nano())
	r.mark, r.sum = m, sum
}

// cut ends the log at offset off and drops what follows.
func (r *logRecovery) cut(rest []logFiles, off repl.Offset, why string) {
	r.notes = append(r.notes, fmt.Sprintf("log cut after offset %d: %s", off, why))
	r.drop(rest)
}

func (r *logRecovery) drop(logs []logFiles) {
	for _, l := range logs {
		if l.data {
			r.remove = append(r.remove, segmentFile(l.first))
		}
		if l.idx {
			r.remove = append(r.remove, indexFile(l.first))
		}
	}
}

// repair does what run found to be necessary and makes it durable. It returns
// the files of the last segment, open for appending, nil if there is none.
func (r *logRecovery) repair() (last *openFiles, err error) {
	for _, name := range r.remove {
		if err := removeIfThere(r.fs, filepath.Join(r.dir, name)); err != nil {
			return nil, err
		}
	}
	for i, seg := range r.segments {
		scan, ok := r.scans[seg]
		if !ok {
			continue
		}
		f, err := r.trim(seg, scan.indexLength)
		if err != nil {
			return nil, err
		}
		seg.trusted = true
		if i == len(r.segments)-1 {
			last = f
		} else if err := f.close(); err != nil {
			return nil, err
		}
	}
	if err := r.fs.SyncDir(r.dir); err != nil && last != nil {
		return nil, errors.Join(err, last.close())
	} else if err != nil {
		return nil, err
	}
	return last, nil
}

// trim cuts both files of a segment to what is good and makes that durable. What
// was not known to be is written again: an fsync of the process before may have
// failed, after which the kernel calls pages clean that are not on the disk.
func (r *logRecovery) trim(seg *segment, indexLength int64) (_ *openFiles, err error) {
	f := &openFiles{seg: seg}
	if f.data, err = r.fs.OpenFile(seg.dataPath(), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	if f.idx, err = r.fs.OpenFile(seg.indexPath(), os.O_RDWR, 0); err != nil {
		return nil, errors.Join(err, f.data.Close())
	}
	durable, indexDurable := min(max(int64(r.known-seg.first+1), 0), seg.size()), indexLength
	if durable < seg.size() {
		indexDurable = 0
	}
	for _, t := range []struct {
		file          File
		name          string
		durable, size int64
	}{{f.data, segmentFile(seg.first), durable, seg.size()}, {f.idx, indexFile(seg.first), indexDurable, indexLength}} {
		var fi os.FileInfo
		if fi, err = t.file.Stat(); err != nil {
			break
		}
		if fi.Size() != t.size {
			r.notes = append(r.notes, fmt.Sprintf("%s cut from %d to %d bytes", t.name, fi.Size(), t.size))
			if err = t.file.Truncate(t.size); err != nil {
				break
			}
		}
		if err = writeAgain(t.file, t.durable, t.size); err != nil {
			break
		}
		if err = t.file.Sync(); err != nil {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, f.close())
	}
	return f, nil
}
