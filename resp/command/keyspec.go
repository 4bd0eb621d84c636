package command

// BeginSearch is how a key spec finds the argument where its keys begin.
type BeginSearch uint8

const (
	// BeginUnknown is a position that cannot be described.
	BeginUnknown BeginSearch = iota
	// BeginIndex is at argument Pos.
	BeginIndex
	// BeginKeyword is after the first Keyword, in any case, searched from
	// argument StartFrom on; a negative StartFrom counts from the end and searches
	// backwards. Without the keyword the spec has no keys.
	BeginKeyword
)

// FindKeys is how a key spec finds its keys from where they begin.
type FindKeys uint8

const (
	// FindUnknown is keys that cannot be described.
	FindUnknown FindKeys = iota
	// FindRange is every Step-th argument up to LastKey, which counts from where
	// the keys begin or, if negative, from the end: -1 is the last argument.
	// With LastKey -1, a Limit of 2 or more leaves only the first 1/Limit of the
	// arguments: the keys of XREAD STREAMS, which as many ids follow.
	FindRange
	// FindKeyNum is as many keys as the argument says that stands KeyNumIdx behind
	// where they begin; the first stands FirstKey behind the same place, the next
	// Step further.
	FindKeyNum
)

// KeySpec is a key specification of Redis 7.0 and later: it locates some of a
// command's keys. The protocol page is "Key specifications" of the Redis
// documentation.
type KeySpec struct {
	Flags KeyFlags

	Begin     BeginSearch
	Pos       int    // BeginIndex
	Keyword   string // BeginKeyword
	StartFrom int    // BeginKeyword

	Find      FindKeys
	LastKey   int // FindRange
	Limit     int // FindRange; 0 and 1 mean none
	KeyNumIdx int // FindKeyNum
	FirstKey  int // FindKeyNum
	Step      int // FindRange and FindKeyNum
}
