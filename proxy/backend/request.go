package backend

import "github.com/sluice-io/sluice/proxy/eventloop"

// Class sorts requests for retries and metrics.
type Class uint8

// The classes.
const (
	Read  Class = iota // flagged readonly: may be sent again
	Write              // flagged write, or may_replicate: sent again only if it cannot have run
	Other              // neither: administration, connection state; treated as a write
	NumClasses
)

// String returns the metric label.
func (c Class) String() string {
	switch c {
	case Read:
		return "read"
	case Write:
		return "write"
	default:
		return "other"
	}
}

// Sink receives what becomes of a request. Its methods are called on the
// loop's goroutine.
type Sink interface {
	// Reply delivers the next part of r's reply as it came. values is the number
	// of complete values that end in data; r.Left has been lowered by it. Where
	// it is 0 the reply comes too large to be kept, in parts. An error reply
	// comes alone. At r.Left == 0 r is the sink's again. data is valid during
	// the call.
	Reply(r *Request, data []byte, values int)
	// Lost says that the connection ended before the reply was complete; r is
	// the sink's again.
	Lost(r *Request, l Loss)
}

// Loss says what is known of a request whose connection ended.
type Loss struct {
	// Raw is the request, all its commands, valid during the call. It is nil
	// for one that was streamed.
	Raw []byte
	// Sent is how many bytes of it left this process: a command that ends
	// behind them cannot have run.
	Sent int
	// Whole says that all of it left.
	Whole bool
	Cause error
}

// Request is one command in flight, or several that one session sent in a row
// to one node. It belongs to its sink, and from Send to the last Reply, or
// Lost, to the pipeline.
type Request struct {
	Sink  Sink
	Class Class
	// Left is how many values are still to come: one for each command, and for
	// SUBSCRIBE one for each channel.
	Left int
	// SentAt is the loop's time at Send.
	SentAt int64
	// Via is the pipeline that carries the request.
	Via *Pipeline

	next  *Request // in the pipeline
	chunk *eventloop.Chunk
	off   int
	size  int
	end   uint64 // stream position after the last byte
}

// Size returns how many bytes the request has; 0 for one that is streamed. It
// is valid from Send on, in the sink's last Reply too.
func (r *Request) Size() int { return r.size }

// Raw returns the bytes of a request in flight. They are valid until the
// pipeline has delivered the last part of the reply and the sink has returned.
func (r *Request) Raw() []byte { return r.chunk.Bytes(r.off, r.size) }
