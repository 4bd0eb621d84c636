package tail

// Match reports whether s matches a pattern as KEYS takes it: * ? [abc] [^a]
// [a-z] and \ before a character that is meant as it is. It takes time in the
// product of the lengths at most.
func Match(pattern string, s []byte) bool {
	p, i := 0, 0
	star, resume := -1, 0 // behind the last *, and where it ends in s for now
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, resume = p, i
			continue
		}
		if p < len(pattern) {
			if n, ok := matchOne(pattern[p:], s[i]); ok {
				p, i = p+n, i+1
				continue
			}
		}
		if star < 0 {
			return false
		}
		resume++ // let the * have one more
		p, i = star, resume
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches one character with the first element of a pattern, which is
// n bytes long.
func matchOne(pattern string, c byte) (n int, ok bool) {
	switch {
	case pattern[0] == '?':
		return 1, true
	case pattern[0] == '\\' && len(pattern) > 1:
		return 2, pattern[1] == c
	case pattern[0] != '[':
		return 1, pattern[0] == c
	}
	n = 1
	not := n < len(pattern) && pattern[n] == '^'
	if not {
		n++
	}
	for n < len(pattern) && pattern[n] != ']' {
		switch {
		case pattern[n] == '\\' && n+1 < len(pattern):
			ok = ok || pattern[n+1] == c
			n += 2
		case n+2 < len(pattern) && pattern[n+1] == '-':
			lo, hi := min(pattern[n], pattern[n+2]), max(pattern[n], pattern[n+2])
			ok = ok || (lo <= c && c <= hi)
			n += 3
		default:
			ok = ok || pattern[n] == c
			n++
		}
	}
	return min(n+1, len(pattern)), ok != not // a class that is not closed ends with the pattern
}
