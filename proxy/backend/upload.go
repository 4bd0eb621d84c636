package backend

// streamHighWater is how many bytes of a streamed request may wait for the
// node before its client is held back.
const streamHighWater = 1 << 20

// BeginStream queues a request whose bytes follow by Stream. The pipeline must
// be pinned and Ready, and nothing else in flight. The bytes are not kept; drained
// is called when Congested has ended.
func (p *Pipeline) BeginStream(r *Request, drained func()) {
	p.conn.Retain = false
	p.conn.HighWater = streamHighWater
	p.drained = drained
	p.Send(r, nil)
	r.end = ^uint64(0) // not whole before the last byte
}

// Stream sends the next part of the request; last says that it is the end.
func (p *Pipeline) Stream(data []byte, last bool) {
	if p.conn == nil || p.conn.Closed() {
		return
	}
	p.conn.Write(data)
	if last && p.tail != nil {
		p.tail.end = p.conn.Appended()
	}
}

// Pristine reports whether nothing was ever streamed on p, so that it can serve
// other sessions.
func (p *Pipeline) Pristine() bool { return p.conn != nil && p.conn.Retain }

// Congested reports whether the node takes a streamed request too slowly.
func (p *Pipeline) Congested() bool { return p.conn != nil && p.conn.Congested() }
