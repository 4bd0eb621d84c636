package rdbstream

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
)

// event is what a machine stops at.
type event uint8

const (
	evMore     event = iota // more bytes are needed
	evMagic                 // the version is known
	evRecord                // rec is known; its payload follows, if its kind has one
	evEnd                   // rec's payload is over
	evChecksum              // the checksum follows; what has passed is what it covers
	evEOF                   // the checksum has passed
)

// phase is where in a file a machine is.
type phase uint8

const (
	phaseMagic    phase = iota
	phaseOpcode         // between two records, or a key and its attributes
	phaseProgram        // inside a record
	phaseChecksum       // behind EOF
	phaseDone
)

// frame is a loop under way.
type frame struct {
	start int    // of its body
	left  uint64 // rounds to come, the present one included
}

const (
	maxDepth     = 3       // loops in loops: a stream's groups, consumers, pending entries
	keepBuffer   = 1 << 20 // bytes; a larger buffer for names is not kept
	magicLen     = 9
	checksumLen  = 8
	maxNameInErr = 64 // bytes of a key's name that an error shows
)

// machine follows a file as its bytes pass by. It keeps names and nothing else,
// and does no I/O. The zero value expects the first byte.
type machine struct {
	phase phase
	off   int64 // of the next byte
	info  Info
	rec   Record
	crc   uint64 // the checksum that the file says, in phaseDone

	ops     *lookup
	op      byte
	code    []instr // the program of op
	pc      int
	stack   [maxDepth]frame
	depth   int
	reg     [3]uint64
	skip    uint64     // bytes of the token that are still to pass
	capture *[]byte    // where a string goes that is kept, nil if it is not
	head    stringHead // of that string
	body    []byte     // what has passed of it

	quiet        bool // do not stop at evEnd
	attributes   bool // opcodes of the next key have been read
	inPayload    bool
	payloadStart int64
	moduleID     uint64 // of which moduleName is the name
	moduleName   string
}

// step consumes bytes of p up to the next event: n of them. With evMore, n may
// be less than len(p), by less than maxToken: the rest has to come again with
// more behind it. The bytes p[:n] are payload if inPayload was set before.
// After an error, n is how many bytes were in order.
func (m *machine) step(p []byte) (n int, ev event, err error) {
	if m.phase != phaseOpcode && m.phase != phaseProgram {
		return m.rim(p)
	}
	for {
		if m.phase == phaseOpcode {
			if n == len(p) {
				break
			}
			if err := m.dispatch(p[n], int64(n)); err != nil {
				return n, evMore, m.fail(n, err)
			}
			n++
			if m.phase == phaseChecksum {
				ev = evChecksum
				break
			}
		}
		if n, ev, err = m.run(p, n); err != nil {
			return n, evMore, m.fail(n, err)
		}
		if ev == evEnd && m.quiet {
			ev = evMore
		}
		if ev != evMore || m.phase == phaseProgram {
			break
		}
	}
	m.off += int64(n)
	return n, ev, nil
}

// rim is step at the beginning and at the end of a file.
func (m *machine) rim(p []byte) (n int, ev event, err error) {
	switch m.phase {
	case phaseMagic:
		n, err = m.magic(p)
		if n == 0 || err != nil {
			return 0, evMore, m.fail(0, err)
		}
		m.off += int64(n)
		return n, evMagic, nil
	case phaseChecksum:
		if len(p) < checksumLen {
			return 0, evMore, nil
		}
		m.crc = binary.LittleEndian.Uint64(p)
		m.off += checksumLen
		m.info.Size = m.off
		m.phase = phaseDone
		return checksumLen, evEOF, nil
	}
	return 0, evEOF, nil
}

// magic reads the first bytes and the version.
func (m *machine) magic(p []byte) (n int, err error) {
	if len(p) < magicLen {
		return 0, nil
	}
	redis, isRedis := cutPrefix(p[:magicLen], "REDIS")
	valkey, isValkey := cutPrefix(p[:magicLen], "VALKEY")
	digits := redis
	if isValkey {
		m.info.Dialect, digits = Valkey, valkey
	}
	version, err := strconv.ParseUint(string(digits), 10, 16)
	if !isRedis && !isValkey || err != nil {
		return 0, fmt.Errorf("%w: it begins with %q", ErrNotRDB, p[:magicLen])
	}
	m.info.Version = int(version)
	lowest, highest := m.info.Dialect.versions()
	if m.info.Version < lowest || m.info.Version > highest {
		return 0, unsupportedf("RDB version %d of %s; known are %d to %d", version, m.info.Dialect, lowest, highest)
	}
	m.ops = &lookups[m.info.Dialect]
	m.phase = phaseOpcode
	m.nextRecord()
	return magicLen, nil
}

func cutPrefix(p []byte, prefix string) (rest []byte, ok bool) {
	if string(p[:len(prefix)]) != prefix {
		return nil, false
	}
	return p[len(prefix):], true
}

// nextRecord forgets the last record.
func (m *machine) nextRecord() {
	name, value := m.rec.Name[:0], m.rec.Value[:0]
	if cap(name) > keepBuffer {
		name = nil
	}
	if cap(value) > keepBuffer {
		value = nil
	}
	if cap(m.body) > keepBuffer {
		m.body = nil
	}
	m.rec = Record{DB: m.rec.DB, Name: name, Value: value,
		ExpireAt: NoExpiry, Idle: Unknown, Freq: Unknown, Elements: Unknown}
	m.attributes = false
}

// dispatch begins the record whose first byte is b, at bytes into the step.
func (m *machine) dispatch(b byte, at int64) error {
	m.op = b
	if b == opcodeEOF {
		if m.attributes {
			return corruptf("the file ends between a key's attributes and the key")
		}
		m.phase = phaseChecksum
		return nil
	}
	o := m.ops[b]
	if o == nil || o.code == nil {
		name := "of no known meaning"
		if o != nil {
			name = o.name
		}
		return unsupportedf("type or opcode %d (%s) in RDB version %d of %s", b, name, m.info.Version, m.info.Dialect)
	}
	if !m.attributes {
		if m.rec.Kind != 0 {
			m.nextRecord()
		}
		m.rec.Offset = m.off + at
	} else if o.kind != KindKey && o.kind != kindAttribute {
		return corruptf("%s between a key's attributes and the key", o.name)
	}
	m.attributes = o.kind == kindAttribute
	m.rec.Kind = o.kind
	if o.kind == KindKey {
		m.rec.Type, _ = typeOf(m.info.Dialect, b)
	}
	m.code, m.pc, m.depth = o.code, 0, 0
	m.phase = phaseProgram
	return nil
}

// run runs the program over p[n:] and returns up to where it came.
func (m *machine) run(p []byte, n int) (int, event, error) {
	for {
		if m.capture != nil {
			k, err := m.keep(p[n:])
			n += k
			if m.capture != nil || err != nil {
				return n, evMore, err
			}
		} else if m.skip > 0 {
			k := min(m.skip, uint64(len(p)-n))
			n += int(k)
			if m.skip -= k; m.skip > 0 {
				return n, evMore, nil
			}
		}
		in := &m.code[m.pc]
		switch in.op {
		case opString:
			if n < len(p) && p[n] < 1<<6 { // most are short
				m.skip = uint64(p[n])
				n++
				m.pc++
				continue
			}
			h, used, err := readStringHead(p[n:])
			if used == incomplete {
				return n, evMore, err
			}
			n += used
			m.skip = h.body
			m.pc++
		case opName:
			if n < len(p) && p[n] < 1<<6 && int(p[n]) < len(p)-n {
				from := n + 1
				n = from + int(p[n])
				m.rec.Name = append(m.rec.Name[:0], p[from:n]...)
				m.pc++
				continue
			}
			used, err := m.captured(in, p[n:])
			if used == incomplete {
				return n, evMore, err
			}
			n += used
		case opFixed:
			m.skip = uint64(in.arg)
			m.pc++
		case opNext:
			f := &m.stack[m.depth-1]
			if f.left--; f.left > 0 {
				m.pc = f.start
			} else {
				m.depth--
				m.pc++
			}
		case opPayload:
			m.pc++
			m.inPayload = true
			m.payloadStart = m.off + int64(n)
			return n, evRecord, nil
		case opEnd:
			return n, m.finish(m.off + int64(n)), nil
		default:
			used, err := m.token(in, p[n:])
			if used == incomplete {
				return n, evMore, err
			}
			n += used
		}
	}
}

// token runs an instruction that looks at bytes. It returns how many it took, 0
// if more are needed or there is an error.
func (m *machine) token(in *instr, p []byte) (n int, err error) {
	switch in.op {
	case opValue:
		return m.captured(in, p)
	case opModule:
		return m.moduleOpcode(p)
	case opDouble:
		if len(p) == 0 {
			return incomplete, nil
		}
		if m.skip = uint64(p[0]); m.skip > 252 {
			m.skip = 0
		}
		m.pc++
		return 1, nil
	case opFixedReg:
		if len(p) < int(in.arg) {
			return incomplete, nil
		}
		var b [8]byte
		copy(b[:], p[:in.arg])
		m.reg[0] = binary.LittleEndian.Uint64(b[:])
		m.pc++
		return int(in.arg), nil
	}
	v, n, err := length(p)
	if n == incomplete {
		return incomplete, err
	}
	switch in.op {
	case opReg:
		if m.op == opcodeSelectDB && v > math.MaxInt32 {
			return incomplete, corruptf("database %d", v)
		}
		m.reg[in.arg] = v
	case opElements:
		m.rec.Elements = int64(min(v, math.MaxInt64))
	case opContainer:
		if v != 1 && v != 2 {
			return incomplete, corruptf("%d, which is neither plain (1) nor packed (2)", v)
		}
	case opModuleID:
		if v != m.moduleID {
			m.moduleID, m.moduleName = v, ModuleName(v)
		}
		m.rec.Module = m.moduleName
	case opLoop:
		if in.arg == 1 {
			m.rec.Elements = int64(min(v, math.MaxInt64))
		}
		if v == 0 {
			m.pc += int(in.jump)
			return n, nil
		}
		m.stack[m.depth] = frame{start: m.pc + 1, left: v}
		m.depth++
	}
	m.pc++
	return n, nil
}

// captured begins a string that is kept.
func (m *machine) captured(in *instr, p []byte) (n int, err error) {
	h, n, err := readStringHead(p)
	if n == incomplete {
		return incomplete, err
	}
	if h.body > maxNameSize || h.size > maxNameSize {
		return incomplete, corruptf("a name of %d bytes, more than 512 MB", max(h.body, h.size))
	}
	m.head, m.skip, m.body = h, h.body, m.body[:0]
	if m.capture = &m.rec.Name; in.op == opValue {
		m.capture = &m.rec.Value
	}
	m.pc++
	return n, nil
}

// keep takes bytes of a string that is kept; it is whole when capture is nil.
func (m *machine) keep(p []byte) (n int, err error) {
	n = int(min(m.skip, uint64(len(p))))
	m.skip -= uint64(n)
	body := p[:n]
	if m.skip > 0 || len(m.body) > 0 { // it grows with what has passed, not with what was announced
		m.body = append(m.body, body...)
		body = m.body
	}
	if m.skip > 0 {
		return n, nil
	}
	*m.capture, err = m.head.decode((*m.capture)[:0], body)
	if err == nil {
		m.capture = nil
	}
	return n, err
}

// The opcodes in what a module writes (RDB_MODULE_OPCODE_* in Redis's rdb.h).
const (
	moduleEOF = iota
	moduleSint
	moduleUint
	moduleFloat
	moduleDouble
	moduleString
)

// moduleOpcode reads an opcode of a module and the head of its value.
func (m *machine) moduleOpcode(p []byte) (n int, err error) {
	v, n, err := length(p)
	if n == incomplete {
		return incomplete, err
	}
	switch v {
	case moduleEOF:
		m.pc++
		return n, nil
	case moduleSint, moduleUint:
		_, used, err := length(p[n:])
		if used == incomplete {
			return incomplete, err
		}
		return n + used, nil
	case moduleFloat:
		m.skip = 4
		return n, nil
	case moduleDouble:
		m.skip = 8
		return n, nil
	case moduleString:
		h, used, err := readStringHead(p[n:])
		if used == incomplete {
			return incomplete, err
		}
		m.skip = h.body
		return n + used, nil
	}
	return incomplete, corruptf("module opcode %d", v)
}

// finish takes what the program of a record has read, which ends at off.
func (m *machine) finish(off int64) event {
	m.phase = phaseOpcode
	r := &m.rec
	switch m.op {
	case opcodeExpireTimeMS:
		r.ExpireAt = int64(m.reg[0])
	case opcodeExpireTime:
		r.ExpireAt = int64(int32(m.reg[0])) * 1000
	case opcodeIdle:
		r.Idle = int64(min(m.reg[0], math.MaxInt64))
	case opcodeFreq:
		r.Freq = int64(m.reg[0])
	case opcodeKeyMeta:
		r.HasMeta = r.Kind == kindAttribute
	case opcodeSelectDB:
		r.DB = int(m.reg[0])
	case opcodeResizeDB:
		r.Keys, r.Expires = m.reg[1], m.reg[2]
	case opcodeSlotInfo:
		r.Slot, r.Keys, r.Expires = m.reg[0], m.reg[1], m.reg[2]
	case opcodeAux:
		m.info.setAux(string(r.Name), string(r.Value))
	}
	if r.Kind == kindAttribute {
		return evMore
	}
	r.Size = off - r.Offset
	if !m.inPayload {
		return evRecord
	}
	m.inPayload = false
	r.Payload = off - m.payloadStart
	if r.Kind == KindKey {
		m.info.Keys++
	}
	return evEnd
}

// fail makes an Error of err, which happened n bytes into a step.
func (m *machine) fail(n int, err error) error {
	if err == nil {
		return nil
	}
	return &Error{Offset: m.off + int64(n), Doing: m.doing(), Err: err}
}

// doing says what is being read.
func (m *machine) doing() string {
	switch m.phase {
	case phaseMagic:
		return "reading the magic and version"
	case phaseOpcode:
		return "reading the type of a record"
	case phaseChecksum, phaseDone:
		return "reading the checksum"
	}
	pc := m.pc
	if m.skip > 0 || m.capture != nil { // the instruction has moved on, its bytes have not passed
		pc--
	}
	for pc > 0 && m.code[pc].what == "" {
		pc--
	}
	what := m.code[pc].String()
	switch {
	case m.rec.Kind == KindKey && m.inPayload:
		return fmt.Sprintf("%s of key %q (%s, db %d)", what, m.rec.Name[:min(len(m.rec.Name), maxNameInErr)], m.rec.Type, m.rec.DB)
	case m.rec.Kind == KindKey:
		return fmt.Sprintf("%s (%s, db %d)", what, m.rec.Type, m.rec.DB)
	}
	return fmt.Sprintf("%s (%s)", what, m.ops[m.op].name)
}
