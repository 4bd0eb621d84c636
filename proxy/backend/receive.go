package backend

import (
	"fmt"

	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/resp"
)

// streamFrom is the size in bytes from which a reply is passed on in parts. A
// smaller one is kept until it is complete, so that a read whose connection
// dies in the middle can be answered by another node.
const streamFrom = 64 << 10

// OnData implements eventloop.Handler.
func (p *Pipeline) OnData(c *eventloop.Conn, data []byte) int {
	used := 0
	p.heard = p.env.Loop.Now()
	for used < len(data) && !c.Closed() {
		var n int
		switch {
		case p.streaming:
			n = p.stream(data[used:])
		case p.tunnel != nil:
			n = p.tunnelled(data[used:])
		default:
			n = p.replies(data[used:])
		}
		used += n
		if n == 0 {
			break
		}
	}
	if p.head == nil {
		c.Release(c.Written())
		if p.state == Retiring {
			p.Fail(p.retired)
		}
	} else {
		c.Release(p.head.end - uint64(p.head.size))
	}
	return used
}

// replies delivers the values at the beginning of data that belong to the
// request at the head, together where they can be, and returns how many bytes
// it took.
func (p *Pipeline) replies(data []byte) int {
	r := p.head
	values, size := 0, 0
	for size < len(data) && (r == nil || values < r.Left) {
		t := data[size]
		if values > 0 && (t == '-' || t == '>') {
			break // comes alone
		}
		n, need, err := resp.ScanReply(data[size:])
		if err != nil {
			p.Fail(fmt.Errorf("read reply of %s: %w", p.Node.Addr, err))
			return 0
		}
		if n == 0 {
			if values == 0 {
				return p.incomplete(data, need)
			}
			break
		}
		if t == '>' {
			return n // nothing is subscribed to on a shared connection: drop it
		}
		if r == nil {
			p.Fail(ErrUnsolicited)
			return 0
		}
		size += n
		values++
		if t == '-' {
			break
		}
	}
	p.deliver(r, data[:size], values)
	return size
}

// incomplete decides what to do with the beginning of a value: wait for more,
// or pass it on in parts.
func (p *Pipeline) incomplete(data []byte, need int64) int {
	if need <= streamFrom && len(data) < streamFrom {
		return 0
	}
	if p.pushing = data[0] == '>'; !p.pushing && p.head == nil {
		p.Fail(ErrUnsolicited)
		return 0
	}
	p.streaming = true
	return p.stream(data)
}

// tunnelled delivers one value of a pinned connection, after its owner has had
// a look at it.
func (p *Pipeline) tunnelled(data []byte) int {
	n, need, err := resp.ScanReply(data)
	if err != nil {
		p.Fail(fmt.Errorf("read reply of %s: %w", p.Node.Addr, err))
		return 0
	}
	if n == 0 && need <= streamFrom && len(data) < streamFrom {
		return 0
	}
	value := data
	if n > 0 {
		value = data[:n]
	}
	p.pushing = p.tunnel.Push(value, p.head)
	switch {
	case !p.pushing && p.head == nil:
		p.Fail(ErrUnsolicited)
		return 0
	case n == 0:
		p.streaming = true
		return p.stream(data)
	case p.pushing:
		p.pushing = false
		p.tunnel.Pushed(value)
	default:
		p.deliver(p.head, value, 1)
	}
	return n
}

// stream passes on a part of a large value.
func (p *Pipeline) stream(data []byte) int {
	n, done, err := p.scan.Scan(data)
	if err != nil {
		p.Fail(fmt.Errorf("read reply of %s: %w", p.Node.Addr, err))
		return 0
	}
	if done {
		p.streaming = false
	}
	switch {
	case !p.pushing:
		values := 0
		if done {
			values = 1
		}
		p.deliver(p.head, data[:n], values)
	case p.tunnel != nil:
		p.tunnel.Pushed(data[:n])
	}
	return n
}

// deliver gives a part of a reply to its request.
func (p *Pipeline) deliver(r *Request, data []byte, values int) {
	r.Left -= values
	p.inFlight -= values
	p.Answered[r.Class] += uint64(values)
	if r.Left == 0 {
		p.Answers = r.SentAt
		p.head = r.next
		if p.head == nil {
			p.tail = nil
		}
		r.next = nil
	}
	r.Sink.Reply(r, data, values)
}
