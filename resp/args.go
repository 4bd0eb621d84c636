package resp

// Span is a part of a request: Len bytes that begin Off bytes after the
// request's first byte.
type Span struct {
	Off uint32 // bytes
	Len uint32 // bytes
}

// Args are the arguments of one scanned request, the command's name included.
// They are a view: valid as long as the buffer is.
type Args struct {
	Buf   []byte // begins at the request's first byte
	Spans []Span // one for each argument
}

// Len returns the number of arguments, Redis's argc.
func (a Args) Len() int { return len(a.Spans) }

// At returns argument i, Redis's argv[i], without copying it. It panics unless
// 0 <= i < Len.
func (a Args) At(i int) []byte {
	s := a.Spans[i]
	end := s.Off + s.Len
	return a.Buf[s.Off:end:end]
}
