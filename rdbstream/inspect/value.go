package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hdt3213/rdb/core"
	"github.com/hdt3213/rdb/model"

	"github.com/sluice-io/sluice/rdbstream"
)

// Value is a decoded value, for people to read.
type Value struct {
	Text  *Text    `json:"text,omitempty"`  // of a string
	Items []Item   `json:"items,omitempty"` // of other types, the first ones
	More  int64    `json:"more"`            // how many items follow
	Notes []string `json:"notes,omitempty"` // what the decoder cannot be trusted with
}

// Item is an element, a member, a field or an entry.
type Item struct {
	Field    *Text     `json:"field,omitempty"` // of a hash; of a stream, the entry's id
	Value    Text      `json:"value"`
	Score    *float64  `json:"score,omitempty"`
	ExpireAt time.Time `json:"expire_at,omitzero"`
}

// maxDecoderVersion is the highest RDB version of Redis that the library
// accepts. The values of the types that it knows are the same in later ones.
const maxDecoderVersion = 12

// errDecoder says that the library failed on a value that the scanner found to
// be in order.
var errDecoder = errors.New("the decoder failed")

// decoder decodes values one by one by github.com/hdt3213/rdb.
type decoder struct {
	panics int // how many were contained
	limit  int // items of a value
}

// decode decodes the payload of r, which the scanner has checked: so the library
// meets no length that is not covered by bytes. It is given a file of that one
// key.
func (d *decoder) decode(info rdbstream.Info, r *rdbstream.Record, payload []byte) (v *Value, err error) {
	if r.Type == rdbstream.TypeModule2 { // the library prints to standard output
		return nil, fmt.Errorf("%w: values of modules (%s) are not decoded", rdbstream.ErrUnsupported, r.Module)
	}
	if r.Type == rdbstream.TypeSetIntset { // the library allocates what the count says
		if err := rdbstream.CheckIntset(payload); err != nil {
			return nil, err
		}
	}
	file := []byte("VALKEY080")
	if info.Dialect == rdbstream.Redis {
		file = fmt.Appendf(nil, "REDIS%04d", min(info.Version, maxDecoderVersion))
	}
	file = append(file, r.Type.Code(), 1, 'k')
	file = append(append(file, payload...), 0xFF)
	file = binary.LittleEndian.AppendUint64(file, rdbstream.Checksum(0, file))
	obj, err := d.parse(file)
	if err != nil {
		return nil, err
	}
	v, n, err := d.value(obj)
	if err != nil {
		return nil, err
	}
	if r.Elements >= 0 && n >= 0 && n != r.Elements {
		v.Notes = append(v.Notes, fmt.Sprintf("decoded %d of %d elements", n, r.Elements))
	}
	if r.Elements < 0 && n*width(r.Type) >= maxPacked {
		v.Notes = append(v.Notes, "so many elements in one listpack: there may be more than were decoded")
	}
	return v, nil
}

// maxPacked is the number of entries above which the library loses some: a
// listpack counts no further in its head.
const maxPacked = 65534

// width returns how many entries of a listpack an element is at least.
func width(t rdbstream.Type) int64 {
	switch t.Command() {
	case "hash", "zset":
		return 2
	}
	return 1
}

// parse returns the one key of file.
func (d *decoder) parse(file []byte) (obj model.RedisObject, err error) {
	defer func() {
		if r := recover(); r != nil {
			d.panics++
			obj, err = nil, fmt.Errorf("%w: panic: %v", errDecoder, r)
		}
	}()
	dec := core.NewDecoder(bytes.NewReader(file))
	err = dec.Parse(func(o model.RedisObject) bool {
		obj = o
		return true
	})
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "panic"): // contained by the library itself
		d.panics++
		return nil, fmt.Errorf("%w: %w", errDecoder, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errDecoder, err)
	case obj == nil || dec.GetReadCount() != len(file):
		return nil, fmt.Errorf("%w: it read %d bytes of %d", errDecoder, dec.GetReadCount(), len(file))
	}
	return obj, nil
}

// value turns what the library returns into a Value, and says how many items
// there were, -1 if that is no number to compare.
func (d *decoder) value(obj model.RedisObject) (v *Value, n int64, err error) {
	switch o := obj.(type) {
	case *model.StringObject:
		t := Text(o.Value)
		return &Value{Text: &t}, -1, nil
	case *model.ListObject:
		return d.plain(o.Values), int64(len(o.Values)), nil
	case *model.SetObject:
		return d.plain(o.Members), int64(len(o.Members)), nil
	case *model.ZSetObject:
		v = &Value{}
		for _, e := range o.Entries {
			d.add(v, Item{Value: Text(e.Member), Score: &e.Score})
		}
		return v, int64(len(o.Entries)), nil
	case *model.HashObject:
		return d.hash(o), int64(len(o.Hash)), nil
	case *model.StreamObject:
		v, n = d.stream(o)
		return v, n, nil
	}
	return nil, 0, fmt.Errorf("%w: it returned a %s", errDecoder, obj.GetType())
}

func (d *decoder) add(v *Value, i Item) {
	if len(v.Items) < d.limit {
		v.Items = append(v.Items, i)
	} else {
		v.More++
	}
}

func (d *decoder) plain(values [][]byte) *Value {
	v := &Value{}
	for _, e := range values {
		d.add(v, Item{Value: Text(e)})
	}
	return v
}

// hash lists fields by name: the library has lost their order.
func (d *decoder) hash(o *model.HashObject) *Value {
	names := make([]string, 0, len(o.Hash))
	for name := range o.Hash {
		names = append(names, name)
	}
	slices.Sort(names)
	v := &Value{}
	for _, name := range names {
		field := Text(name)
		i := Item{Field: &field, Value: Text(o.Hash[name])}
		if at := o.FieldExpirations[name]; at > 0 {
			i.ExpireAt = time.UnixMilli(at)
		}
		d.add(v, i)
	}
	return v
}

// stream lists the entries that are not deleted, with their fields by name.
func (d *decoder) stream(o *model.StreamObject) (v *Value, n int64) {
	v = &Value{}
	for _, node := range o.Entries {
		for _, m := range node.Msgs {
			if m.Deleted {
				continue
			}
			n++
			names := make([]string, 0, len(m.Fields))
			for name := range m.Fields {
				names = append(names, name)
			}
			slices.Sort(names)
			var b strings.Builder
			for i, name := range names {
				if i > 0 {
					b.WriteByte(' ')
				}
				fmt.Fprintf(&b, "%s=%s", Text(name), Text(m.Fields[name]))
			}
			id := Text(fmt.Sprintf("%d-%d", m.Id.Ms, m.Id.Sequence))
			d.add(v, Item{Field: &id, Value: Text(b.String())})
		}
	}
	for _, g := range o.Groups {
		v.Notes = append(v.Notes, fmt.Sprintf("group %s: last id %d-%d, %d pending, %d consumers",
			Text(g.Name), g.LastId.Ms, g.LastId.Sequence, len(g.Pending), len(g.Consumers)))
	}
	v.Notes = append(v.Notes, "fields are sorted by name; a field that an entry has twice is shown once")
	return v, n
}
