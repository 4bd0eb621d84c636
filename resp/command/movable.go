package command

import (
	"bytes"

	"github.com/sluice-io/sluice/resp"
)

// movableKeyProc is AppendKeys for a command whose keys no key spec can
// describe.
type movableKeyProc func(dst []int, a resp.Args) (keys []int, complete bool)

// movableKeyProcs are the commands for which stock servers have code of their
// own (getkeys_proc) because their key specs are unknown, incomplete or take
// the wrong one of two clauses. All the others follow their key specs.
var movableKeyProcs = map[string]movableKeyProc{
	"sort":              sortKeys,
	"sort_ro":           sortROKeys,
	"migrate":           migrateKeys,
	"georadius":         georadiusKeys(6),
	"georadiusbymember": georadiusKeys(5),
	"stralgo":           stralgoKeys,
	"xread":             xreadKeys(false),
	"xreadgroup":        xreadKeys(true),
}

// sortKeys: the key, and the destination of the last STORE, as SORT itself
// takes it (sortCommandGeneric).
func sortKeys(dst []int, a resp.Args) ([]int, bool) {
	if a.Len() < 2 {
		return dst, false
	}
	dst = append(dst, 1)
	store, complete := scanSort(a)
	if store > 0 {
		dst = append(dst, store)
	}
	return dst, complete
}

// sortROKeys: as SORT, which has no STORE here.
func sortROKeys(dst []int, a resp.Args) ([]int, bool) {
	if a.Len() < 2 {
		return dst, false
	}
	_, complete := scanSort(a)
	return append(dst, 1), complete
}

// scanSort returns the destination of the last STORE, 0 without one, and
// whether all keys that are read are named: a BY or GET pattern with an
// asterisk reads keys that the elements name (lookupKeyByPattern).
func scanSort(a resp.Args) (store int, complete bool) {
	n, complete := a.Len(), true
	for i := 2; i < n; i++ {
		switch w := a.At(i); {
		case isWord(w, "limit"):
			i += 2
		case isWord(w, "by"), isWord(w, "get"):
			i++
			if i < n && bytes.IndexByte(a.At(i), '*') >= 0 {
				complete = false
			}
		case isWord(w, "store"):
			i++
			if i < n {
				store = i
			}
		}
	}
	return store, complete
}

// migrateKeys: argument 3, or if that is empty all that follows KEYS. The
// key spec searches KEYS backwards and would stop at a key of that name.
func migrateKeys(dst []int, a resp.Args) ([]int, bool) {
	n := a.Len()
	if n < 6 {
		return dst, false
	}
	for i := 6; i < n; i++ {
		switch w := a.At(i); {
		case isWord(w, "auth"):
			i++
		case isWord(w, "auth2"):
			i += 2
		case isWord(w, "keys"):
			if len(a.At(3)) > 0 || i+1 >= n {
				return append(dst, 3), false // refused by the server
			}
			for k := i + 1; k < n; k++ {
				dst = append(dst, k)
			}
			return dst, true
		}
	}
	return append(dst, 3), true
}

// georadiusKeys: the key, and the destination of the last STORE or STOREDIST,
// which is the one that GEORADIUS writes (georadiusGeneric). By its key specs
// it would be the first of each, which is what COMMAND GETKEYS says before
// Valkey 9. The options begin at argument options.
func georadiusKeys(options int) movableKeyProc {
	return func(dst []int, a resp.Args) ([]int, bool) {
		n := a.Len()
		if n < 2 {
			return dst, false
		}
		dst = append(dst, 1)
		store := 0
		for i := options; i < n-1; i++ {
			if w := a.At(i); isWord(w, "store") || isWord(w, "storedist") {
				i++
				store = i
			}
		}
		if store > 0 {
			dst = append(dst, store)
		}
		return dst, true
	}
}

// stralgoKeys: the two keys of STRALGO LCS KEYS k1 k2; none after STRINGS.
// STRALGO exists in 6.0 and 6.2 only.
func stralgoKeys(dst []int, a resp.Args) ([]int, bool) {
	for i := 1; i < a.Len(); i++ {
		switch w := a.At(i); {
		case isWord(w, "strings"):
			return dst, true
		case isWord(w, "keys") && i+2 < a.Len():
			return append(dst, i+1, i+2), true
		}
	}
	return dst, false
}

// xreadKeys: the first half of what follows STREAMS, after the options
// (xreadCommand). The key specs take a group of that name, and what they find in
// it, for the keyword and the keys; servers that know call them incomplete.
// After an option that is not known here, whose value may be of that name too,
// keys are found, but not for certain the right ones.
func xreadKeys(grouped bool) movableKeyProc {
	return func(dst []int, a resp.Args) ([]int, bool) {
		n, group, complete := a.Len(), false, true
		for i := 1; i < n; i++ {
			switch w := a.At(i); {
			case isWord(w, "block"), isWord(w, "count"):
				i++
			case grouped && isWord(w, "noack"):
			case grouped && isWord(w, "group"):
				group = true
				i += 2
			case isWord(w, "streams"):
				count := n - i - 1
				if count == 0 || count%2 != 0 || group != grouped {
					return dst, false // refused by the server
				}
				for k := i + 1; k <= i+count/2; k++ {
					dst = append(dst, k)
				}
				return dst, complete
			default:
				complete = false
			}
		}
		return dst, false
	}
}
