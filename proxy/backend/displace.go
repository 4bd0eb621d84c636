package backend

import "iter"

// Displace takes requests from p, of those behind the one at the head, and has
// them Lost with cause, as if the connection had ended: they are free to go
// elsewhere. standIn is asked for each, in order; it returns the request that
// takes the reply in its place, or nil for one that stays. p must be Ready.
func (p *Pipeline) Displace(cause error, standIn func(*Request) *Request) {
	if p.head == nil {
		return
	}
	var displaced []*Request
	for prev := p.head; prev.next != nil; prev = prev.next {
		r := prev.next
		if o := standIn(r); o != nil {
			o.takeOver(r)
			prev.next = o
			if p.tail == r {
				p.tail = o
			}
			displaced = append(displaced, r)
		}
	}
	for _, r := range displaced {
		r.Sink.Lost(r, r.loss(p.conn, cause))
	}
}

// Behind yields the requests in flight behind the one at the head, in order.
// None may be sent or answered meanwhile.
func (p *Pipeline) Behind() iter.Seq[*Request] {
	return func(yield func(*Request) bool) {
		if p.head == nil {
			return
		}
		for r := p.head.next; r != nil && yield(r); r = r.next {
		}
	}
}

// takeOver puts r into the place of old, which is in flight.
func (r *Request) takeOver(old *Request) {
	r.Left, r.SentAt, r.Via = old.Left, old.SentAt, old.Via
	r.chunk, r.off, r.size, r.end = old.chunk, old.off, old.size, old.end
	r.next, old.next = old.next, nil
}
