package command

import (
	"fmt"
	"math"
	"strings"
)

// Parse makes a table of the reply of COMMAND (or COMMAND INFO, whose nils are
// skipped) as go-redis decodes it: arrays and sets as []any, maps as map[any]any,
// strings as string, integers as int64. It takes the replies of RESP2 and RESP3,
// and the six-element entries of servers older than 7.0, which have neither key
// specs nor subcommands. What a newer server adds is ignored. An error names
// the command.
func Parse(reply any) (*Table, error) {
	list, ok := reply.([]any)
	if !ok {
		return nil, fmt.Errorf("parse COMMAND: reply is %T, want an array", reply)
	}
	entries := make([]Command, 0, 2*len(list))
	for i, e := range list {
		if e == nil {
			continue
		}
		var err error
		if entries, err = appendEntry(entries, e, ""); err != nil {
			return nil, fmt.Errorf("parse COMMAND: entry %d: %w", i, err)
		}
	}
	return newTable(entries), nil
}

// appendEntry parses one entry and its subcommands. container is "" at the top.
func appendEntry(entries []Command, entry any, container string) ([]Command, error) {
	e, ok := entry.([]any)
	if !ok || len(e) < 6 {
		return nil, fmt.Errorf("%T is no command of six elements or more", entry)
	}
	name, ok := e[0].(string)
	if !ok || name == "" {
		return nil, fmt.Errorf("name is %T, want a string", e[0])
	}
	c := Command{Name: strings.ToLower(name), predates70: len(e) < 9}
	if container != "" && !strings.HasPrefix(c.Name, container+"|") {
		return nil, fmt.Errorf("%s: subcommand of %s has not its prefix", c.Name, container)
	}
	var err error
	for i, to := range map[int]*int{1: &c.Arity, 3: &c.FirstKey, 4: &c.LastKey, 5: &c.Step} {
		if *to, err = toInt(e[i]); err != nil {
			return nil, fmt.Errorf("%s: element %d: %w", c.Name, i, err)
		}
	}
	if err := eachString(e[2], func(s string) { c.Flags |= parseFlag(s) }); err != nil {
		return nil, fmt.Errorf("%s: flags: %w", c.Name, err)
	}
	if len(e) < 9 {
		return append(entries, c), nil
	}
	specs, ok := e[8].([]any)
	if !ok {
		return nil, fmt.Errorf("%s: key specs are %T, want an array", c.Name, e[8])
	}
	for i, s := range specs {
		spec, err := parseKeySpec(s)
		if err != nil {
			return nil, fmt.Errorf("%s: key spec %d: %w", c.Name, i, err)
		}
		c.KeySpecs = append(c.KeySpecs, spec)
	}
	entries = append(entries, c)
	if len(e) < 10 {
		return entries, nil
	}
	subs, ok := e[9].([]any)
	if !ok {
		return nil, fmt.Errorf("%s: subcommands are %T, want an array", c.Name, e[9])
	}
	for i, s := range subs {
		if entries, err = appendEntry(entries, s, c.Name); err != nil {
			return nil, fmt.Errorf("%s: subcommand %d: %w", c.Name, i, err)
		}
	}
	return entries, nil
}

func parseKeySpec(v any) (KeySpec, error) {
	var s KeySpec
	m, err := toMap(v)
	if err != nil {
		return s, err
	}
	if err := eachString(m["flags"], func(f string) { s.Flags |= parseKeyFlag(f) }); err != nil {
		return s, fmt.Errorf("flags: %w", err)
	}
	kind, spec, err := toSearch(m["begin_search"])
	if err != nil {
		return s, fmt.Errorf("begin_search: %w", err)
	}
	switch kind {
	case "index":
		s.Begin = BeginIndex
		err = spec.ints(map[string]*int{"index": &s.Pos})
	case "keyword":
		s.Begin = BeginKeyword
		s.Keyword, _ = spec["keyword"].(string)
		if s.Keyword == "" {
			err = fmt.Errorf("keyword is %T, want a string", spec["keyword"])
			break
		}
		err = spec.ints(map[string]*int{"startfrom": &s.StartFrom})
	default: // "unknown", and what a newer server may call its own
	}
	if err != nil {
		return s, fmt.Errorf("begin_search: %w", err)
	}
	if kind, spec, err = toSearch(m["find_keys"]); err != nil {
		return s, fmt.Errorf("find_keys: %w", err)
	}
	switch kind {
	case "range":
		s.Find = FindRange
		err = spec.ints(map[string]*int{"lastkey": &s.LastKey, "keystep": &s.Step, "limit": &s.Limit})
	case "keynum":
		s.Find = FindKeyNum
		err = spec.ints(map[string]*int{"keynumidx": &s.KeyNumIdx, "firstkey": &s.FirstKey, "keystep": &s.Step})
	default:
	}
	if err != nil {
		return s, fmt.Errorf("find_keys: %w", err)
	}
	return s, nil
}

// fields is a map of the reply: RESP3 sends a map, RESP2 the same flattened.
type fields map[string]any

func toMap(v any) (fields, error) {
	m := fields{}
	switch v := v.(type) {
	case map[any]any:
		for k, e := range v {
			name, ok := k.(string)
			if !ok {
				return nil, fmt.Errorf("key is %T, want a string", k)
			}
			m[name] = e
		}
	case map[string]any:
		return v, nil
	case []any:
		if len(v)%2 != 0 {
			return nil, fmt.Errorf("%d elements, want pairs", len(v))
		}
		for i := 0; i < len(v); i += 2 {
			name, ok := v[i].(string)
			if !ok {
				return nil, fmt.Errorf("key is %T, want a string", v[i])
			}
			m[name] = v[i+1]
		}
	default:
		return nil, fmt.Errorf("%T, want a map", v)
	}
	return m, nil
}

// toSearch takes begin_search or find_keys apart: its type and that type's fields.
func toSearch(v any) (kind string, spec fields, err error) {
	m, err := toMap(v)
	if err != nil {
		return "", nil, err
	}
	kind, ok := m["type"].(string)
	if !ok {
		return "", nil, fmt.Errorf("type is %T, want a string", m["type"])
	}
	spec, err = toMap(m["spec"])
	return kind, spec, err
}

// ints reads integer fields, all of which must be there.
func (m fields) ints(to map[string]*int) error {
	for name, p := range to {
		n, err := toInt(m[name])
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		*p = n
	}
	return nil
}

// toInt takes what fits in 16 bits only: every position is one in a command
// line's description, and sums of them cannot overflow anywhere.
func toInt(v any) (int, error) {
	n, ok := v.(int64)
	if !ok {
		return 0, fmt.Errorf("%T, want an integer", v)
	}
	if n < math.MinInt16 || n > math.MaxInt16 {
		return 0, fmt.Errorf("%d is out of range", n)
	}
	return int(n), nil
}

// eachString calls f with each string of an array or a set, which go-redis may
// give as a slice or as the keys of a map.
func eachString(v any, f func(string)) error {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			s, ok := e.(string)
			if !ok {
				return fmt.Errorf("%T, want a string", e)
			}
			f(s)
		}
	case map[any]any:
		for k := range v {
			s, ok := k.(string)
			if !ok {
				return fmt.Errorf("%T, want a string", k)
			}
			f(s)
		}
	default:
		return fmt.Errorf("%T, want an array or a set", v)
	}
	return nil
}
