package rdbstream

import "slices"

// What a record consists of is written as a program, which a machine runs over
// the bytes as they come. A type or an opcode is one line here.

// op is what an instruction reads.
type op uint8

const (
	opEnd       op = iota // nothing: the record is complete
	opPayload             // nothing: what follows is the record's payload
	opLen                 // a length, of no interest
	opReg                 // a length, kept in register arg
	opElements            // a length, kept as Record.Elements
	opFixed               // arg bytes
	opFixedReg            // arg bytes, up to 8, kept little endian in register 0
	opString              // a string in any encoding
	opName                // a string, kept as Record.Name
	opValue               // a string, kept as Record.Value
	opDouble              // a length byte and a number as text, or 253..255 for nan, inf, -inf
	opContainer           // a length that is 1 or 2: a node of a quicklist is plain or packed
	opModuleID            // a length, kept as Record.Module
	opModule              // a module's opcodes and values, up to opcode 0
	opLoop                // a length: how often what follows up to opNext is repeated
	opNext                // nothing: the end of a loop's body
)

// instr is one instruction.
type instr struct {
	op   op
	arg  uint8
	jump uint8  // opLoop: how far behind it the loop ends
	what string // for errors: "reading " what
}

// String tells what is being read.
func (i *instr) String() string { return "reading " + i.what }

// loop repeats body as often as the length before it says.
func loop(what string, body ...instr) []instr {
	head := instr{op: opLoop, jump: uint8(len(body) + 2), what: what}
	return append(append([]instr{head}, body...), instr{op: opNext, what: what})
}

// elements is a loop whose count is the number of elements of the key.
func elements(what string, body ...instr) []instr {
	l := loop(what, body...)
	l[0].arg = 1
	return l
}

func str(what string) instr            { return instr{op: opString, what: what} }
func num(what string) instr            { return instr{op: opLen, what: what} }
func reg(n uint8, what string) instr   { return instr{op: opReg, arg: n, what: what} }
func fixed(n uint8, what string) instr { return instr{op: opFixed, arg: n, what: what} }

// The values of keys (rdbLoadObject in Redis's rdb.c).
var (
	valueString     = []instr{str("the value")}
	valueList       = elements("the number of elements", str("an element"))
	valueZset       = elements("the number of members", str("a member"), instr{op: opDouble, what: "a score"})
	valueZset2      = elements("the number of members", str("a member"), fixed(8, "a score"))
	valueHash       = elements("the number of fields", str("a field"), str("a field's value"))
	valueQuicklist  = loop("the number of nodes", str("a node"))
	valueQuicklist2 = loop("the number of nodes", instr{op: opContainer, what: "the kind of a node"}, str("a node"))
	valueModule2    = []instr{
		{op: opModuleID, what: "a module's type"},
		{op: opModule, what: "a module's value"},
	}
	valueHashPreGA = elements("the number of fields",
		num("a field's expiry"), str("a field"), str("a field's value"))
	valueHashMetadata   = slices.Concat([]instr{fixed(8, "the earliest expiry")}, valueHashPreGA)
	valueHashListpackEx = []instr{fixed(8, "the earliest expiry"), str("the value")}
	// Valkey: an expiry of -1 is none.
	valueHash2 = elements("the number of fields",
		str("a field"), str("a field's value"), fixed(8, "a field's expiry"))
)

// streamProgram returns the program of a stream of one of four generations.
func streamProgram(generation int) []instr {
	from := func(g int, in ...instr) []instr {
		if generation < g {
			return nil
		}
		return in
	}
	consumer := slices.Concat(
		[]instr{str("a consumer's name"), fixed(8, "a consumer's seen-time")},
		from(3, fixed(8, "a consumer's active-time")),
		loop("the number of a consumer's pending entries", fixed(16, "a pending entry's id")),
	)
	group := slices.Concat(
		[]instr{str("a group's name"), num("a group's last id"), num("a group's last id")},
		from(2, num("a group's entries-read")),
		loop("the number of pending entries",
			fixed(16, "a pending entry's id"), fixed(8, "a delivery time"), num("a delivery count")),
		loop("the number of consumers", consumer...),
	)
	return slices.Concat(
		loop("the number of stream nodes", str("a node's id"), str("a node's listpack")),
		[]instr{
			{op: opElements, what: "the stream's length"},
			num("the stream's last id"), num("the stream's last id"),
		},
		from(2, num("the stream's first id"), num("the stream's first id"),
			num("the highest deleted id"), num("the highest deleted id"), num("the entries added")),
		loop("the number of groups", group...),
		// Idempotent production (XADD IDMP).
		from(4, slices.Concat(
			[]instr{num("the IDMP duration"), num("the IDMP limit")},
			loop("the number of producers", slices.Concat(
				[]instr{str("a producer's id")},
				loop("the number of a producer's entries",
					str("an idempotency id"), num("an entry's id"), num("an entry's id")),
			)...),
			[]instr{num("the idempotency ids added"), num("the duplicates")},
		)...),
	)
}

// opcode is what a byte between two keys stands for (RDB_OPCODE_* in Redis's
// rdb.h).
type opcode struct {
	kind Kind
	name string
	code []instr // nil: refused
}

const (
	opcodeKeyMeta      = 243 // Redis from 8.6
	opcodeSlotImport   = 243 // Valkey from 9.0
	opcodeSlotInfo     = 244 // cluster mode: Redis from 7.4; Valkey writes none
	opcodeFunction2    = 245
	opcodeFunctionPre  = 246
	opcodeModuleAux    = 247
	opcodeIdle         = 248
	opcodeFreq         = 249
	opcodeAux          = 250
	opcodeResizeDB     = 251
	opcodeExpireTimeMS = 252
	opcodeExpireTime   = 253
	opcodeSelectDB     = 254
	opcodeEOF          = 255
)

// kindAttribute marks opcodes that belong to the key after them.
const kindAttribute Kind = 0

var end = instr{op: opEnd, what: "the end of a record"}

// opcodes are those of both dialects, without 243 and EOF.
var opcodes = map[byte]*opcode{
	opcodeSlotInfo: {KindSlotInfo, "SLOT_INFO", []instr{
		reg(0, "a slot"), reg(1, "a slot's number of keys"), reg(2, "a slot's number of expires"), end}},
	opcodeFunction2: {KindFunction, "FUNCTION2", []instr{
		{op: opPayload}, str("a function library"), end}},
	opcodeFunctionPre: {KindFunction, "FUNCTION_PRE_GA", nil},
	opcodeModuleAux: {KindModuleAux, "MODULE_AUX", []instr{
		{op: opPayload}, {op: opModuleID, what: "a module's type"}, num("when_opcode"), num("when"),
		{op: opModule, what: "a module's auxiliary data"}, end}},
	opcodeIdle: {kindAttribute, "IDLE", []instr{reg(0, "an idle time"), end}},
	opcodeFreq: {kindAttribute, "FREQ", []instr{{op: opFixedReg, arg: 1, what: "an access frequency"}, end}},
	opcodeAux: {KindAux, "AUX", []instr{
		{op: opName, what: "an aux field's name"}, {op: opValue, what: "an aux field's value"}, end}},
	opcodeResizeDB: {KindResizeDB, "RESIZEDB", []instr{
		reg(1, "a database's number of keys"), reg(2, "a database's number of expires"), end}},
	opcodeExpireTimeMS: {kindAttribute, "EXPIRETIME_MS", []instr{{op: opFixedReg, arg: 8, what: "an expiry"}, end}},
	opcodeExpireTime:   {kindAttribute, "EXPIRETIME", []instr{{op: opFixedReg, arg: 4, what: "an expiry"}, end}},
	opcodeSelectDB:     {KindSelectDB, "SELECTDB", []instr{reg(0, "a database number"), end}},
}

var keyMeta = &opcode{kindAttribute, "KEY_META", append(
	loop("the number of metadata classes", fixed(4, "a metadata class"), instr{op: opModule, what: "metadata"}), end)}

var slotImport = &opcode{KindSlotImport, "SLOT_IMPORT", slices.Concat(
	[]instr{str("a slot import's job")},
	loop("the number of slot ranges", num("a first slot"), num("a last slot")),
	[]instr{end})}

// lookup is what each byte between two keys means in a dialect; nil is unknown.
type lookup [256]*opcode

var lookups = [...]lookup{Redis: newLookup(Redis), Valkey: newLookup(Valkey)}

func newLookup(d Dialect) (t lookup) {
	for code := range 256 {
		typ, info := typeOf(d, byte(code))
		if info == nil {
			continue
		}
		o := &opcode{kind: KindKey, name: typ.String()}
		if info.value != nil {
			o.code = slices.Concat([]instr{{op: opName, what: "a key's name"}, {op: opPayload}}, info.value, []instr{end})
		}
		t[code] = o
	}
	for code, o := range opcodes {
		t[code] = o
	}
	t[opcodeKeyMeta] = keyMeta
	if d == Valkey {
		t[opcodeSlotImport] = slotImport
	}
	return t
}
