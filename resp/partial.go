package resp

// PartialArgs returns the arguments of an incomplete array request that have
// arrived whole, the command's name among the first. buf begins with the
// request; spans is used for the result.
func PartialArgs(buf []byte, lim *Limits, spans []Span) Args {
	args := Args{Buf: buf, Spans: spans[:0]}
	left, pos, err := scanMultibulkHeader(buf, lim)
	for ; err == nil && pos > 0 && left > 0; left-- {
		size, head, err := scanBulkHeader(buf[pos:], lim)
		end := int64(pos) + int64(head) + size + 2
		if err != nil || head == 0 || end > int64(len(buf)) {
			break
		}
		args.Spans = append(args.Spans, Span{Off: uint32(pos + head), Len: uint32(size)})
		pos = int(end)
	}
	return args
}
