package inspect

import (
	"bytes"
	"cmp"
	"slices"

	"github.com/sluice-io/sluice/rdbstream"
)

// Prefix sums the keys whose names begin with it. Where a file has more
// prefixes than Options.MaxPrefixes, the smallest are forgotten from time to
// time: one that comes back may have lost up to Missed bytes. A file lists its
// keys in the order of a hash table, so that those of a large prefix are spread
// over it and are not lost.
type Prefix struct {
	Prefix Text  `json:"prefix"` // with the separator
	Keys   int64 `json:"keys"`
	Bytes  int64 `json:"bytes"`
	Missed int64 `json:"missed"` // 0: the sums are exact
}

// maxPrefix is the longest prefix that is counted, in bytes.
const maxPrefix = 256

// prefixes counts prefixes in bounded memory: when there are max of them, the
// smaller half goes (a form of lossy counting).
type prefixes struct {
	n, depth, max int
	separator     []byte
	sums          map[string]*Prefix
	floor         int64 // what a prefix that is new now may have had before, in bytes
}

func newPrefixes(o Options) prefixes {
	return prefixes{n: o.Top, depth: o.Depth, max: o.MaxPrefixes, separator: []byte(o.Separator), sums: map[string]*Prefix{}}
}

func (p *prefixes) add(r *rdbstream.Record) {
	end := 0
	for range p.depth {
		i := bytes.Index(r.Name[end:], p.separator)
		if end += i + len(p.separator); i < 0 || end > maxPrefix {
			return
		}
		name := r.Name[:end]
		sum := p.sums[string(name)]
		if sum == nil {
			if len(p.sums) >= p.max {
				p.prune()
			}
			sum = &Prefix{Prefix: Text(name), Missed: p.floor}
			p.sums[string(name)] = sum
		}
		sum.Keys++
		sum.Bytes += r.Size
	}
}

// prune forgets the smaller half.
func (p *prefixes) prune() {
	all := p.sorted()
	for _, sum := range all[len(all)/2:] {
		p.floor = max(p.floor, sum.Bytes+sum.Missed)
		delete(p.sums, string(sum.Prefix))
	}
}

// sorted returns all, largest first.
func (p *prefixes) sorted() []*Prefix {
	all := make([]*Prefix, 0, len(p.sums))
	for _, sum := range p.sums {
		all = append(all, sum)
	}
	slices.SortFunc(all, func(a, b *Prefix) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Prefix, b.Prefix))
	})
	return all
}

func (p *prefixes) largest() []Prefix {
	list := []Prefix{}
	for _, sum := range p.sorted() {
		if len(list) == p.n {
			break
		}
		list = append(list, *sum)
	}
	return list
}
