package command

import "github.com/sluice-io/sluice/resp"

// keyPlan is how AppendKeys finds the keys of one command.
type keyPlan struct {
	specs  []KeySpec      // without those that are no keys
	proc   movableKeyProc // instead of specs where they cannot say it
	opaque bool           // keys exist or may exist that specs do not show

	// The shortcut for most commands with keys, whose only spec is a range at a
	// fixed place: as FirstKey, LastKey and Step. step 0: not one of them.
	first, last, step int
}

// planKeys decides once, when a table is built, what AppendKeys does.
func planKeys(c *Command) keyPlan {
	p := planSpecs(c)
	if len(p.specs) != 1 || c.Flags.Has(NoMandatoryKeys) {
		return p
	}
	s := p.specs[0]
	if s.Begin == BeginIndex && s.Pos >= 1 && s.Find == FindRange && s.Step >= 1 &&
		(s.LastKey >= 0 || s.Limit <= 1) && !s.Flags.Has(KeyIncomplete) {
		p.first, p.last, p.step = s.Pos, s.LastKey, s.Step
		if s.LastKey >= 0 {
			p.last += s.Pos
		}
	}
	return p
}

func planSpecs(c *Command) keyPlan {
	touchesData := c.Flags&(Write|ReadOnly) != 0
	if proc := movableKeyProcs[c.Name]; proc != nil && !c.Flags.Has(Module) {
		return keyPlan{proc: proc}
	}
	if len(c.KeySpecs) == 0 {
		if c.FirstKey <= 0 {
			// FLUSHALL, KEYS, SCAN, FUNCTION LOAD: no key is named, any may be meant.
			return keyPlan{opaque: touchesData || c.Flags.Has(MovableKeys)}
		}
		legacy := KeySpec{Begin: BeginIndex, Pos: c.FirstKey, Find: FindRange, LastKey: c.LastKey, Step: c.Step}
		if c.LastKey >= 0 {
			legacy.LastKey -= c.FirstKey
		}
		return keyPlan{specs: []KeySpec{legacy}, opaque: c.Flags.Has(MovableKeys)}
	}
	var p keyPlan
	variable := false
	for _, s := range c.KeySpecs {
		if !s.Flags.Has(KeyNotKey) {
			p.specs = append(p.specs, s)
			variable = variable || s.Flags.Has(KeyVariableFlags)
		}
	}
	// A module with a getkeys callback: its spec is a guess that the server made
	// from first, last and step (RM_CreateCommand), only the callback knows.
	p.opaque = len(p.specs) == 0 && touchesData || c.Flags.Has(Module|MovableKeys) && variable
	return p
}

// AppendKeys appends the indexes of those arguments of a that are keys, as
// COMMAND GETKEYS reports them, and returns the extended slice. c must be what
// [Table.Resolve] returned for a, or its container.
//
// complete is false where a may touch keys that are not among them:
//   - commands that touch the data set without naming keys (FLUSHALL, SCAN);
//   - key specs that are unknown or incomplete, and module commands whose keys
//     only the module can tell;
//   - SORT and SORT_RO with a BY or GET pattern, which reads keys named by data;
//   - malformed requests: too few arguments, a number of keys that is none or
//     exceeds the arguments, an unknown subcommand.
//
// Keys that a script uses without declaring them are not considered: the
// declared keys of EVAL and FCALL are complete. AppendKeys allocates only if dst
// has to grow, and reads nothing outside a whatever a holds.
func (c *Command) AppendKeys(dst []int, a resp.Args) (keys []int, complete bool) {
	if c.subs != nil {
		s := c.sub(a)
		if s == nil && a.Len() > 1 {
			return dst, false
		}
		if s != nil {
			c = s
		}
	}
	if p := &c.keys; p.step > 0 {
		last := p.last
		if last < 0 {
			last += a.Len()
		}
		if last < p.first || last >= a.Len() {
			return dst, false
		}
		for i := p.first; i <= last; i += p.step {
			dst = append(dst, i)
		}
		return dst, !p.opaque
	}
	if c.keys.proc != nil {
		return c.keys.proc(dst, a)
	}
	complete = !c.keys.opaque
	if len(c.keys.specs) == 0 {
		return dst, complete
	}
	before := len(dst)
	for i := range c.keys.specs {
		var ok bool
		dst, ok = c.keys.specs[i].appendKeys(dst, a, c.Flags.Has(NoMandatoryKeys))
		complete = complete && ok
	}
	if len(dst) == before && !c.Flags.Has(NoMandatoryKeys) {
		return dst, false
	}
	return dst, complete
}

// appendKeys appends the keys of one spec. ok is false where the spec cannot
// tell all of its keys. noneAllowed says that a number of keys may be 0.
func (s *KeySpec) appendKeys(dst []int, a resp.Args, noneAllowed bool) (keys []int, ok bool) {
	n := a.Len()
	var first int
	switch s.Begin {
	case BeginIndex:
		first = s.Pos
	case BeginKeyword:
		if first = s.afterKeyword(a); first == 0 {
			return dst, true // the optional clause is not there
		}
	default:
		return dst, false
	}
	if first < 1 || s.Step < 1 {
		return dst, false // no server says so; following it would not end
	}
	var last int
	switch s.Find {
	case FindRange:
		if last = s.lastOfRange(first, n); s.LastKey < 0 && first >= n {
			return dst, true // an optional tail that is not there: PFMERGE dst
		}
	case FindKeyNum:
		if first > n || s.KeyNumIdx < 0 || first+s.KeyNumIdx >= n {
			return dst, false
		}
		count := parseCount(a.At(first+s.KeyNumIdx), n)
		if count == 0 {
			return dst, noneAllowed
		}
		first += s.FirstKey
		last = first + (count-1)*s.Step
		if count < 0 {
			return dst, false
		}
	default:
		return dst, false
	}
	if first < 1 || last < first || last >= n {
		return dst, false
	}
	for i := first; i <= last; i += s.Step {
		dst = append(dst, i)
	}
	return dst, !s.Flags.Has(KeyIncomplete)
}

// lastOfRange returns the last argument of a FindRange that begins at first, of
// n arguments; it may lie outside of them.
func (s *KeySpec) lastOfRange(first, n int) int {
	switch {
	case s.LastKey >= 0:
		return first + s.LastKey
	case s.Limit > 1:
		return first + (n-first)/s.Limit + s.LastKey
	default:
		return n + s.LastKey
	}
}

// afterKeyword returns the index of the argument behind the keyword, 0 if the
// keyword is not there. Like getKeysUsingKeySpecs it does not take the last
// argument for the keyword when it searches forwards, nor the first two when it
// searches backwards.
func (s *KeySpec) afterKeyword(a resp.Args) int {
	n := a.Len()
	if s.StartFrom > 0 {
		for i := s.StartFrom; i < n-1; i++ {
			if isWord(a.At(i), s.Keyword) {
				return i + 1
			}
		}
		return 0
	}
	for i := min(n+s.StartFrom, n-1); i > 1; i-- {
		if isWord(a.At(i), s.Keyword) {
			return i + 1
		}
	}
	return 0
}

// isWord says whether b is the ASCII word, in any case.
func isWord(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		w := word[i]
		if c != w && (c|0x20 != w|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// parseCount reads a number of keys as string2ll does, which the commands
// themselves use: decimal digits without sign, space or leading zero. It
// returns -1 for anything else and for more than limit.
func parseCount(b []byte, limit int) int {
	if len(b) == 0 || len(b) > 9 || b[0] == '0' && len(b) > 1 {
		return -1
	}
	n := 0
	for _, c := range b {
		if c < '0' || c > '9' {
			return -1
		}
		n = n*10 + int(c-'0')
	}
	if n > limit {
		return -1
	}
	return n
}
