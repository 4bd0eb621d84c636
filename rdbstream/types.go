package rdbstream

import "fmt"

// Type is the type of a value in an RDB file (RDB_TYPE_* in Redis's rdb.h). Its
// lower byte is what stands in the file.
type Type uint16

// foreign marks the types of Valkey whose code Redis uses for another.
const foreign = 0x100

// The types. The comment is the command's type and how the value is stored.
const (
	TypeString              Type = 0
	TypeList                Type = 1  // elements
	TypeSet                 Type = 2  // members
	TypeZset                Type = 3  // members, scores as text
	TypeHash                Type = 4  // fields and values
	TypeZset2               Type = 5  // members, scores in binary
	TypeModulePreGA         Type = 6  // refused: 4.0 release candidates
	TypeModule2             Type = 7  // a module's own
	TypeHashZipmap          Type = 9  // up to Redis 2.4
	TypeListZiplist         Type = 10 // up to 3.0
	TypeSetIntset           Type = 11
	TypeZsetZiplist         Type = 12 // up to 6.2
	TypeHashZiplist         Type = 13 // up to 6.2
	TypeListQuicklist       Type = 14 // ziplists, up to 6.2
	TypeStreamListpacks     Type = 15 // from 5.0
	TypeHashListpack        Type = 16 // from 7.0
	TypeZsetListpack        Type = 17 // from 7.0
	TypeListQuicklist2      Type = 18 // listpacks and plain nodes, from 7.0
	TypeStreamListpacks2    Type = 19 // from 7.0
	TypeSetListpack         Type = 20 // from 7.2
	TypeStreamListpacks3    Type = 21 // from 7.2
	TypeHashMetadataPreGA   Type = 22 // fields with TTLs, 7.4 release candidates
	TypeHashListpackExPreGA Type = 23
	TypeHashMetadata        Type = 24 // fields with TTLs, from 7.4
	TypeHashListpackEx      Type = 25
	TypeStreamListpacks4    Type = 26           // from 8.6
	TypeHash2               Type = foreign | 22 // fields with TTLs, Valkey from 9.0
)

const numTypes = 27

// What the command TYPE answers.
const (
	nameString = "string"
	nameList   = "list"
	nameSet    = "set"
	nameZset   = "zset"
	nameHash   = "hash"
	nameStream = "stream"
	nameModule = "module"
)

// typeInfo is what is known of a type.
type typeInfo struct {
	command string  // what the command TYPE answers
	form    string  // how it is stored
	value   []instr // nil: refused
}

// typeTable is indexed by the code in the file; typeHash2Info stands apart.
var typeTable = [numTypes]typeInfo{
	TypeString:              {nameString, "string", valueString},
	TypeList:                {nameList, "list", valueList},
	TypeSet:                 {nameSet, "set", valueList},
	TypeZset:                {nameZset, "zset", valueZset},
	TypeHash:                {nameHash, "hash", valueHash},
	TypeZset2:               {nameZset, "zset-2", valueZset2},
	TypeModulePreGA:         {nameModule, "module-pre-ga", nil},
	TypeModule2:             {nameModule, "module-2", valueModule2},
	TypeHashZipmap:          {nameHash, "hash-zipmap", valueString},
	TypeListZiplist:         {nameList, "list-ziplist", valueString},
	TypeSetIntset:           {nameSet, "set-intset", valueString},
	TypeZsetZiplist:         {nameZset, "zset-ziplist", valueString},
	TypeHashZiplist:         {nameHash, "hash-ziplist", valueString},
	TypeListQuicklist:       {nameList, "list-quicklist", valueQuicklist},
	TypeStreamListpacks:     {nameStream, "stream-listpacks", streamProgram(1)},
	TypeHashListpack:        {nameHash, "hash-listpack", valueString},
	TypeZsetListpack:        {nameZset, "zset-listpack", valueString},
	TypeListQuicklist2:      {nameList, "list-quicklist-2", valueQuicklist2},
	TypeStreamListpacks2:    {nameStream, "stream-listpacks-2", streamProgram(2)},
	TypeSetListpack:         {nameSet, "set-listpack", valueString},
	TypeStreamListpacks3:    {nameStream, "stream-listpacks-3", streamProgram(3)},
	TypeHashMetadataPreGA:   {nameHash, "hash-metadata-pre-ga", valueHashPreGA},
	TypeHashListpackExPreGA: {nameHash, "hash-listpack-ex-pre-ga", valueString},
	TypeHashMetadata:        {nameHash, "hash-metadata", valueHashMetadata},
	TypeHashListpackEx:      {nameHash, "hash-listpack-ex", valueHashListpackEx},
	TypeStreamListpacks4:    {nameStream, "stream-listpacks-4", streamProgram(4)},
}

var typeHash2Info = typeInfo{nameHash, "hash-2", valueHash2}

// lastValkeyType is the last code that Valkey shares with Redis.
const lastValkeyType = byte(TypeStreamListpacks3)

func (t Type) info() *typeInfo {
	switch {
	case t == TypeHash2:
		return &typeHash2Info
	case t < numTypes && typeTable[t].form != "":
		return &typeTable[t]
	}
	return nil
}

// Code returns the byte that stands in the file.
func (t Type) Code() byte { return byte(t) }

// Command returns what the command TYPE answers for such a key: "string",
// "list", "set", "zset", "hash" or "stream"; "module" for a module's type, whose
// own name TYPE would answer.
func (t Type) Command() string {
	if i := t.info(); i != nil {
		return i.command
	}
	return "unknown"
}

// String returns how the value is stored, as Redis's rdb.h names it:
// "hash-listpack".
func (t Type) String() string {
	if i := t.info(); i != nil {
		return i.form
	}
	return fmt.Sprintf("type-%d", t.Code())
}

// typeOf returns the type that code stands for in a file of dialect d.
func typeOf(d Dialect, code byte) (Type, *typeInfo) {
	t := Type(code)
	if d == Valkey && code > lastValkeyType {
		t |= foreign
	}
	return t, t.info()
}

// ModuleName returns the name of a module's type from its 64-bit id: nine
// characters of six bits above ten bits of version (moduleTypeNameByID in
// Redis's module.c).
func ModuleName(id uint64) string {
	const set = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var name [9]byte
	id >>= 10
	for i := len(name) - 1; i >= 0; i-- {
		name[i] = set[id&63]
		id >>= 6
	}
	return string(name[:])
}
