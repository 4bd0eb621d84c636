package resp

import "math"

// Limits bound what a client may send. They must not change while a request is
// being followed by a [RequestSkimmer].
type Limits struct {
	// MaxBulkBytes is the longest argument, in bytes (proto-max-bulk-len).
	MaxBulkBytes int64
	// MaxElements is the largest number of arguments.
	MaxElements int
	// MaxInlineBytes is how long, in bytes, an inline request or the line that
	// holds a length may be without its end being there (PROTO_INLINE_MAX_SIZE).
	MaxInlineBytes int
	// Unauthenticated says that the limits are those of a client that has yet
	// to authenticate, so that exceeding them is refused in other words.
	Unauthenticated bool
}

const (
	// DefaultMaxBulkBytes is the default of Redis's proto-max-bulk-len.
	DefaultMaxBulkBytes = 512 << 20
	// DefaultMaxElements is the limit of Redis up to 6.2. Redis 7 raised it to
	// the largest int, which lets one header ask for 16 GB.
	DefaultMaxElements = 1 << 20
	// DefaultMaxInlineBytes is Redis's PROTO_INLINE_MAX_SIZE.
	DefaultMaxInlineBytes = 64 << 10

	unauthMaxBulkBytes = 16 << 10
	unauthMaxElements  = 10
)

// DefaultLimits are those of an authenticated client. Not to be changed.
var DefaultLimits = Limits{
	MaxBulkBytes:   DefaultMaxBulkBytes,
	MaxElements:    DefaultMaxElements,
	MaxInlineBytes: DefaultMaxInlineBytes,
}

// UnauthenticatedLimits are those of a client that has yet to authenticate
// (authRequired in Redis's processMultibulkBuffer, since 6.2.6). Not to be
// changed.
var UnauthenticatedLimits = Limits{
	MaxBulkBytes:    unauthMaxBulkBytes,
	MaxElements:     unauthMaxElements,
	MaxInlineBytes:  DefaultMaxInlineBytes,
	Unauthenticated: true,
}

// ProtocolError says why a request is malformed, in the words of Redis. Redis
// replies "-ERR " followed by them and closes the connection.
type ProtocolError string

// Error returns Redis's text, without the code ERR.
func (e ProtocolError) Error() string { return string(e) }

// What can be wrong with a request, from Redis's processInlineBuffer and
// processMultibulkBuffer. One more has no constant:
// "Protocol error: expected '$', got 'x'".
const (
	ErrTooBigInline           ProtocolError = "Protocol error: too big inline request"
	ErrUnbalancedQuotes       ProtocolError = "Protocol error: unbalanced quotes in request"
	ErrTooBigMultibulkCount   ProtocolError = "Protocol error: too big mbulk count string"
	ErrInvalidMultibulkLength ProtocolError = "Protocol error: invalid multibulk length"
	ErrUnauthMultibulkLength  ProtocolError = "Protocol error: unauthenticated multibulk length"
	ErrTooBigBulkCount        ProtocolError = "Protocol error: too big bulk count string"
	ErrInvalidBulkLength      ProtocolError = "Protocol error: invalid bulk length"
	ErrUnauthBulkLength       ProtocolError = "Protocol error: unauthenticated bulk length"
)

// errExpectedBulk is the error for an argument that begins with c. Redis
// replaces line ends in errors by spaces (addReplyErrorFormat).
func errExpectedBulk(c byte) error {
	if c == '\r' || c == '\n' {
		c = ' '
	}
	return ProtocolError("Protocol error: expected '$', got '" + string([]byte{c}) + "'")
}

// multibulkLength judges the header of a request: digits is what stands
// between '*' and CR.
func (lim *Limits) multibulkLength(digits []byte) (int64, error) {
	n, ok := ParseLongLong(digits)
	switch {
	case !ok || n > math.MaxInt32:
		return 0, ErrInvalidMultibulkLength
	case n <= int64(lim.MaxElements):
		return n, nil
	case lim.Unauthenticated:
		return 0, ErrUnauthMultibulkLength
	default:
		return 0, ErrInvalidMultibulkLength
	}
}

// bulkLength judges the header of an argument: line is what stands before CR.
func (lim *Limits) bulkLength(line []byte) (int64, error) {
	if len(line) == 0 {
		return 0, errExpectedBulk('\r')
	}
	if line[0] != '$' {
		return 0, errExpectedBulk(line[0])
	}
	n, ok := ParseLongLong(line[1:])
	switch {
	case !ok || n < 0:
		return 0, ErrInvalidBulkLength
	case n <= lim.MaxBulkBytes:
		return n, nil
	case lim.Unauthenticated && n <= DefaultMaxBulkBytes:
		return 0, ErrUnauthBulkLength
	default:
		return 0, ErrInvalidBulkLength
	}
}
