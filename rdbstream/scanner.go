package rdbstream

import (
	"errors"
	"io"
)

// scanBuffer is how much is read at a time, in bytes: as much as the checksum
// needs to run at full speed, and still in a processor's cache when it does.
const scanBuffer = 128 << 10

// maxEmptyReads bounds how often in a row a reader may return nothing.
const maxEmptyReads = 100

// Scanner reads a file record by record: Next, then Read or WriteTo for the
// payload. It holds a buffer of 128 KiB and the names of one record. Not to be
// used by two goroutines at a time.
type Scanner struct {
	r     io.Reader
	m     machine
	buf   []byte
	pos   int // buf[pos:end] has yet to be scanned
	end   int
	crc   uint64
	crcAt int    // buf[crcAt:pos] is not in crc yet
	chunk []byte // payload that Read has yet to return
	err   error  // final, io.EOF if all is well
	ended bool   // all is well
}

var (
	_ io.Reader   = (*Scanner)(nil)
	_ io.WriterTo = (*Scanner)(nil)
)

// NewScanner returns a scanner of r. It reads beyond the end of the file, which
// must be r's end.
func NewScanner(r io.Reader) *Scanner { return newScanner(r, make([]byte, scanBuffer)) }

func newScanner(r io.Reader, buf []byte) *Scanner { return &Scanner{r: r, buf: buf} }

// Info returns what the file has said about itself so far.
func (s *Scanner) Info() Info { return s.m.info }

// Next returns the next record, which is valid until the next call. What has
// not been read of the last one's payload is skipped. At the end of the file,
// once its checksum has been compared and nothing follows, it returns io.EOF;
// other errors are [*Error] and final.
func (s *Scanner) Next() (*Record, error) {
	s.chunk = nil
	s.m.quiet = true // nobody waits for the end of what is skipped
	for s.err == nil {
		_, ev, err := s.advance()
		if err != nil {
			break
		}
		if ev == evRecord {
			s.m.quiet = false
			return &s.m.rec, nil
		}
	}
	return nil, s.err
}

// Record returns the record that Next returned last. After its payload has
// been read, the fields that it ends with are known.
func (s *Scanner) Record() *Record { return &s.m.rec }

// Skip skips what has not been read of the payload, so that all fields of the
// record are known.
func (s *Scanner) Skip() error {
	s.chunk = nil
	for s.m.inPayload && s.err == nil {
		_, _, _ = s.advance()
	}
	return s.failure()
}

// Read reads the payload of the current record: the value of a key as it stands
// in the file, without its type. It returns io.EOF at its end.
func (s *Scanner) Read(p []byte) (int, error) {
	for len(s.chunk) == 0 {
		if err := s.failure(); err != nil {
			return 0, err
		}
		if !s.m.inPayload {
			return 0, io.EOF
		}
		s.chunk, _, _ = s.advance()
	}
	n := copy(p, s.chunk)
	s.chunk = s.chunk[n:]
	return n, nil
}

// WriteTo writes what has not been read of the payload to w.
func (s *Scanner) WriteTo(w io.Writer) (n int64, err error) {
	for {
		if len(s.chunk) > 0 {
			k, err := w.Write(s.chunk)
			n += int64(k)
			if s.chunk = nil; err != nil {
				return n, err
			}
		}
		if err := s.failure(); err != nil {
			return n, err
		}
		if !s.m.inPayload {
			return n, nil
		}
		s.chunk, _, _ = s.advance()
	}
}

// failure returns the final error unless it is the regular end.
func (s *Scanner) failure() error {
	if s.ended {
		return nil
	}
	return s.err
}

// advance scans up to the next event or to the end of the buffer, after reading
// more where needed. It returns what it scanned, which is valid until it is
// called again.
func (s *Scanner) advance() (chunk []byte, ev event, err error) {
	for {
		n, ev, err := s.m.step(s.buf[s.pos:s.end])
		chunk := s.buf[s.pos : s.pos+n]
		s.pos += n
		if err != nil {
			s.err = err
			return nil, ev, err
		}
		switch ev {
		case evChecksum:
			s.sum()
		case evEOF:
			s.err = s.finish()
			return nil, ev, s.err
		case evRecord, evEnd:
			return chunk, ev, nil
		case evMore:
			if n > 0 && s.m.inPayload {
				return chunk, ev, nil
			}
			if err := s.fill(); err != nil {
				s.err = s.m.fail(s.end-s.pos, err)
				return nil, ev, s.err
			}
		}
	}
}

// sum brings the checksum up to pos.
func (s *Scanner) sum() {
	s.crc = Checksum(s.crc, s.buf[s.crcAt:s.pos])
	s.crcAt = s.pos
}

// fill reads more behind what has yet to be scanned.
func (s *Scanner) fill() error {
	if s.m.phase < phaseChecksum {
		s.sum()
	}
	copy(s.buf, s.buf[s.pos:s.end])
	s.end -= s.pos
	s.pos, s.crcAt = 0, 0
	for range maxEmptyReads {
		n, err := s.r.Read(s.buf[s.end:])
		s.end += n
		if n > 0 {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return ErrTruncated
		}
		if err != nil {
			return err
		}
	}
	return io.ErrNoProgress
}

// finish judges the end of the file; io.EOF is well.
func (s *Scanner) finish() error {
	if err := s.m.compare(s.crc); err != nil {
		return err
	}
	if s.pos == s.end {
		switch err := s.fill(); {
		case errors.Is(err, ErrTruncated):
			s.ended = true
			return io.EOF
		case err != nil:
			return s.m.fail(0, err)
		}
	}
	return s.m.trailing()
}

// compare compares the checksum of the file with what has passed.
func (m *machine) compare(crc uint64) error {
	m.info.Checksum, m.info.Checked = m.crc, m.crc != 0
	if m.crc != 0 && m.crc != crc {
		return &Error{Offset: m.off - checksumLen, Doing: "comparing the checksum",
			Err: errChecksum(m.crc, crc)}
	}
	return nil
}

// trailing is the error for bytes after the end.
func (m *machine) trailing() error {
	return &Error{Offset: m.off, Doing: "looking for the end", Err: ErrTrailing}
}
