package inspect

import (
	"cmp"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/sluice-io/sluice/rdbstream"
)

// Defaults of [Options].
const (
	DefaultTop         = 10
	DefaultSeparator   = ":"
	DefaultDepth       = 3
	DefaultMaxPrefixes = 20_000
)

// None as Options.Top lists no keys and no prefixes.
const None = -1

// Options of [Run]. The zero value takes the defaults.
type Options struct {
	Top         int       // how many of the largest keys and prefixes are listed; or None
	Separator   string    // what ends a prefix
	Depth       int       // a name a:b:c:d has the prefixes a:, a:b: and a:b:c: at depth 3
	MaxPrefixes int       // how many are counted at a time: the memory it costs is some 200 bytes each
	Now         time.Time // against which keys are judged expired; default: the time of the call
}

func (o Options) withDefaults() Options {
	o.Top = cmp.Or(o.Top, DefaultTop)
	o.Separator = cmp.Or(o.Separator, DefaultSeparator)
	o.Depth = cmp.Or(o.Depth, DefaultDepth)
	o.Top = max(o.Top, 0)
	o.MaxPrefixes = max(cmp.Or(o.MaxPrefixes, DefaultMaxPrefixes), o.Top)
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	return o
}

// form is what TypeStat sums over.
type form struct {
	typ    rdbstream.Type
	module string
}

// inspector sums up.
type inspector struct {
	opt      Options
	report   Report
	types    map[form]*TypeStat
	lastForm form // of which lastType is the sum
	lastType *TypeStat
	dbs      map[int]*DBStat
	ttl      ttlHistogram
	top      topKeys
	prefixes prefixes
}

// Run reads a whole file and returns what is in it. Its memory is bounded by
// the options, whatever the file. A file that is damaged is an error of package
// rdbstream and no report.
func Run(r io.Reader, o Options) (*Report, error) {
	o = o.withDefaults()
	in := &inspector{
		opt: o, types: map[form]*TypeStat{}, dbs: map[int]*DBStat{},
		top: topKeys{n: o.Top}, prefixes: newPrefixes(o),
	}
	s := rdbstream.NewScanner(r)
	for {
		rec, err := s.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return in.finish(s.Info()), nil
		}
		if err != nil {
			return nil, err
		}
		switch rec.Kind {
		case rdbstream.KindKey:
			if err := s.Skip(); err != nil {
				return nil, err
			}
			in.key(rec)
		case rdbstream.KindFunction:
			in.report.Functions++
		}
	}
}

// key adds a key.
func (in *inspector) key(r *rdbstream.Record) {
	t, db := in.typeOf(r), in.dbOf(r.DB)
	in.report.Keys++
	in.report.Bytes += r.Size
	t.Keys++
	t.Bytes += r.Size
	t.Largest = max(t.Largest, r.Size)
	db.Keys++
	db.Bytes += r.Size
	if r.ExpireAt != rdbstream.NoExpiry {
		db.Expires++
		if r.Expired(in.opt.Now) {
			db.Expired++
		}
	}
	in.ttl.add(r, in.opt.Now)
	in.top.add(r)
	in.prefixes.add(r)
}

func (in *inspector) typeOf(r *rdbstream.Record) *TypeStat {
	f := form{r.Type, r.Module}
	if f != in.lastForm || in.lastType == nil {
		t := in.types[f]
		if t == nil {
			t = &TypeStat{Type: r.Type.Command(), Form: formOf(r)}
			in.types[f] = t
		}
		in.lastForm, in.lastType = f, t
	}
	return in.lastType
}

func (in *inspector) dbOf(n int) *DBStat {
	db := in.dbs[n]
	if db == nil {
		db = &DBStat{DB: n}
		in.dbs[n] = db
	}
	return db
}

// finish makes the report.
func (in *inspector) finish(info rdbstream.Info) *Report {
	r := &in.report
	r.File = fileOf(info)
	r.Time = in.opt.Now
	r.OtherBytes = info.Size - r.Bytes
	r.Types, r.Databases = []TypeStat{}, []DBStat{}
	for _, t := range in.types {
		r.Types = append(r.Types, *t)
	}
	slices.SortFunc(r.Types, func(a, b TypeStat) int { return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.Form, b.Form)) })
	for _, db := range in.dbs {
		r.Expires += db.Expires
		r.Expired += db.Expired
		r.Databases = append(r.Databases, *db)
	}
	slices.SortFunc(r.Databases, func(a, b DBStat) int { return cmp.Compare(a.DB, b.DB) })
	r.TTL = in.ttl.buckets()
	r.Top = in.top.sorted()
	r.Prefixes = in.prefixes.largest()
	return r
}
