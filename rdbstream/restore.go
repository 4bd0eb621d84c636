package rdbstream

import (
	"encoding/binary"
	"errors"
	"io"
)

// ErrNoRestore says that the current record cannot be given to RESTORE.
var ErrNoRestore = errors.New("no payload for RESTORE")

// restoreTail is the length of what stands behind the value: the RDB version in
// two bytes, the checksum in eight.
const restoreTail = 2 + checksumLen

// WriteRestore writes the current record to w in the form that RESTORE takes,
// DUMP gives (createDumpPayload in Redis's cluster.c): type, value, RDB
// version, checksum. It must be called before the payload has been read. For a
// function library, it writes what FUNCTION RESTORE takes. A server refuses
// what has a higher RDB version than its own. It returns how many bytes it
// wrote: Record.Payload and eleven more.
func (s *Scanner) WriteRestore(w io.Writer) (int64, error) {
	r := &s.m.rec
	switch {
	case r.Kind != KindKey && r.Kind != KindFunction || !s.m.inPayload:
		return 0, &Error{Offset: s.m.off, Doing: "making a payload for RESTORE", Err: ErrNoRestore}
	case r.HasMeta:
		return 0, &Error{Offset: r.Offset, Doing: "making a payload for RESTORE",
			Err: unsupportedf("modules have attached metadata to the key")}
	}
	code := r.Type.Code()
	if r.Kind == KindFunction {
		code = opcodeFunction2
	}
	sum := &summer{w: w}
	if _, err := sum.Write([]byte{code}); err != nil {
		return sum.n, err
	}
	if _, err := s.WriteTo(sum); err != nil {
		return sum.n, err
	}
	var tail [restoreTail]byte
	binary.LittleEndian.PutUint16(tail[:], uint16(s.m.info.Version))
	if _, err := sum.Write(tail[:2]); err != nil {
		return sum.n, err
	}
	binary.LittleEndian.PutUint64(tail[2:], sum.crc)
	_, err := sum.Write(tail[2:])
	return sum.n, err
}

// summer counts and sums what is written.
type summer struct {
	w   io.Writer
	n   int64
	crc uint64
}

func (s *summer) Write(p []byte) (int, error) {
	n, err := s.w.Write(p)
	s.n += int64(n)
	s.crc = Checksum(s.crc, p[:n])
	return n, err
}
