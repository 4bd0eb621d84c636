package psync

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
)

// maxReplicaArgBytes is the longest argument that a replica or a Sentinel has a
// reason to send.
const maxReplicaArgBytes = 16 << 10

// ReplicaLimits bound what a replica, or a Sentinel, may send to a relay. Not
// to be changed.
var ReplicaLimits = resp.Limits{MaxBulkBytes: maxReplicaArgBytes, MaxElements: 1024, MaxInlineBytes: maxReplicaArgBytes}

// ErrRequestTooLarge says that a request is longer than [ReaderSize]: no
// replica sends such a one.
var ErrRequestTooLarge = errors.New("request longer than 64 KiB")

// RequestReader reads requests, arrays or inline, one by one or pipelined.
type RequestReader struct {
	// Limits may be changed between two requests: to
	// resp.UnauthenticatedLimits until a client has authenticated.
	Limits *resp.Limits

	r     *bufio.Reader
	last  int // bytes of r's buffer that the last request took
	spans []resp.Span
	line  []byte // an inline request as an array
}

// NewRequestReader returns a reader of requests, within [ReplicaLimits].
func NewRequestReader(r io.Reader) *RequestReader {
	return &RequestReader{r: NewReader(r), Limits: &ReplicaLimits}
}

// Buffered returns how many bytes have arrived behind the last request:
// while there are some, replies may wait to be sent together.
func (q *RequestReader) Buffered() int { return q.r.Buffered() - q.last }

// Next reads one request. It is valid until the next call. One without
// arguments is an empty line or array, to be ignored; a replica that is busy
// loading sends an empty line every second as a sign of life
// (replicationSendNewlineToMaster).
//
// The error is io.EOF between two requests, io.ErrUnexpectedEOF within one, a
// [resp.ProtocolError] or [ErrRequestTooLarge] for what is not to be
// answered but by it and a close, or what reading failed with.
func (q *RequestReader) Next() (resp.Args, error) {
	if _, err := q.r.Discard(q.last); err != nil {
		return resp.Args{}, err // cannot be: they are in the buffer
	}
	q.last = 0
	for have := 0; ; have = q.r.Buffered() {
		if have == q.r.Size() {
			return resp.Args{}, ErrRequestTooLarge
		}
		// Not for all that is needed at least: what is malformed must be refused
		// when it is seen, or both sides would wait.
		if _, err := q.r.Peek(have + 1); err != nil {
			if err == io.EOF && have > 0 {
				err = io.ErrUnexpectedEOF
			}
			return resp.Args{}, err
		}
		buf, _ := q.r.Peek(q.r.Buffered())
		n, _, spans, err := resp.ScanRequest(buf, q.Limits, q.spans[:0])
		q.spans = spans
		if err != nil {
			return resp.Args{}, err
		}
		if n > 0 {
			q.last = n
			if buf[0] != '*' {
				return q.inline(buf[:n])
			}
			return resp.Args{Buf: buf[:n:n], Spans: spans}, nil
		}
	}
}

// inline makes an array of an inline request, so that quotes are resolved.
func (q *RequestReader) inline(line []byte) (resp.Args, error) {
	var err error
	if q.line, err = resp.NormalizeInline(q.line[:0], line); err != nil {
		return resp.Args{}, err
	}
	if len(q.line) == 0 {
		return resp.Args{}, nil
	}
	// Limits are for what arrives; this has arrived.
	_, _, q.spans, err = resp.ScanRequest(q.line, &resp.DefaultLimits, q.spans[:0])
	return resp.Args{Buf: q.line, Spans: q.spans}, err
}

// Request is what a replica asks of a master: [Ignored], [Ping], [Auth],
// [Replconf], [AckRequest], [PSync], [Sync] or [Other].
type Request interface{ isRequest() }

// Ignored is what gets no reply and means nothing but a sign of life: an empty
// line, REPLCONF GETACK, an ACK that is not a number.
type Ignored struct{}

// Ping is PING without an argument.
type Ping struct{}

// Auth is AUTH. The username is empty in the form of one argument.
type Auth struct{ Username, Password string }

// Replconf is REPLCONF with anything but ACK and GETACK. See [Announced.Apply].
type Replconf struct{ Options []ReplconfOption }

// ReplconfOption is one pair of arguments of REPLCONF.
type ReplconfOption struct{ Name, Value string }

// AckRequest is REPLCONF ACK. It is never replied to.
type AckRequest struct{ Ack }

// PSync is PSYNC.
type PSync struct {
	// Want is what the replica wants; zero for "?".
	Want repl.Want
	// Malformed: it asked by an id that cannot be any server's. Want is zero
	// then. Redis compares and finds no match: a full resync.
	Malformed bool
	// Failover: PSYNC … FAILOVER, the order of a master in FAILOVER to take its
	// place.
	Failover bool
}

// Sync is SYNC, which Redis's replicas fall back to when PSYNC was answered by
// an error that they do not know.
type Sync struct{}

// Other is any other command, for instance one of Sentinel's. Its arguments
// are valid as long as those that it was parsed from.
type Other struct{ Args resp.Args }

func (Ignored) isRequest()    {}
func (Ping) isRequest()       {}
func (Auth) isRequest()       {}
func (Replconf) isRequest()   {}
func (AckRequest) isRequest() {}
func (PSync) isRequest()      {}
func (Sync) isRequest()       {}
func (Other) isRequest()      {}

// ReplyError is what a request is refused for: the text of the error reply
// without its '-'. See [resp.AppendError].
type ReplyError string

// Error returns the text.
func (e ReplyError) Error() string { return string(e) }

// What Redis says of malformed requests.
const (
	errSyntax     ReplyError = "ERR syntax error"
	errNotInteger ReplyError = "ERR value is not an integer or out of range"
)

func errArity(name string) ReplyError {
	return ReplyError("ERR wrong number of arguments for '" + name + "' command")
}

// ParseRequest parses one request. The error is a [ReplyError]; the connection
// goes on.
func ParseRequest(args resp.Args) (Request, error) {
	if args.Len() == 0 {
		return Ignored{}, nil
	}
	name := args.At(0)
	switch {
	case fold(name, "REPLCONF"):
		return parseReplconf(args)
	case fold(name, "PING"):
		if args.Len() == 1 {
			return Ping{}, nil
		}
	case fold(name, "AUTH"):
		switch args.Len() {
		case 1:
			return nil, errArity("auth")
		case 2:
			return Auth{Password: string(args.At(1))}, nil
		case 3:
			return Auth{Username: string(args.At(1)), Password: string(args.At(2))}, nil
		}
		return nil, errSyntax
	case fold(name, "PSYNC"):
		return parsePSync(args)
	case fold(name, "SYNC"):
		if args.Len() != 1 {
			return nil, errArity("sync")
		}
		return Sync{}, nil
	}
	return Other{Args: args}, nil
}

func parsePSync(args resp.Args) (Request, error) {
	if args.Len() < 3 {
		return nil, errArity("psync")
	}
	next, ok := resp.ParseLongLong(args.At(2))
	if !ok {
		return nil, errNotInteger
	}
	p := PSync{Failover: args.Len() > 3 && fold(args.At(3), "FAILOVER")}
	id := args.At(1)
	if len(id) > 0 && id[0] == '?' {
		return p, nil
	}
	replid, err := repl.ParseReplID(strings.ToLower(string(id))) // strcasecmp in masterTryPartialResynchronization
	if err != nil {
		p.Malformed = true
		return p, nil
	}
	p.Want = repl.Want{ReplID: replid, Next: repl.Offset(next)}
	return p, nil
}

func parseReplconf(args resp.Args) (Request, error) {
	if args.Len() == 1 {
		return nil, errArity("replconf")
	}
	if args.Len()%2 == 0 {
		return nil, errSyntax
	}
	switch option := args.At(1); {
	case fold(option, "GETACK"):
		return Ignored{}, nil
	case fold(option, "ACK"):
		ack, ok := parseAck(args)
		if !ok {
			return Ignored{}, nil
		}
		return AckRequest{ack}, nil
	}
	var r Replconf
	for i := 1; i+1 < args.Len(); i += 2 {
		r.Options = append(r.Options, ReplconfOption{Name: strings.ToLower(string(args.At(i))), Value: string(args.At(i + 1))})
	}
	return r, nil
}

// parseAck parses REPLCONF ACK offset [FACK fsynced].
func parseAck(args resp.Args) (Ack, bool) {
	a := Ack{Fsynced: repl.UnknownOffset}
	offset, ok := resp.ParseLongLong(args.At(2))
	if !ok || offset < 0 {
		return a, false
	}
	a.Offset = repl.Offset(offset)
	if args.Len() >= 5 && fold(args.At(3), "FACK") {
		if fsynced, ok := resp.ParseLongLong(args.At(4)); ok && fsynced >= 0 {
			a.Fsynced = repl.Offset(fsynced)
		}
	}
	return a, true
}

// Announced is what a replica has told about itself by REPLCONF.
type Announced struct {
	ListeningPort int       // 0: not told
	IPAddress     string    // empty: not told; the connection's address holds
	Capa          Capa      // those that we know
	Version       string    // of a Valkey; empty: not told
	RDBOnly       bool      // wants a snapshot and no stream
	RDBChannel    bool      // this connection is for the snapshot (dual channel)
	Filter        RDBFilter // wants a part of the snapshot
}

// maxAddress is NET_HOST_STR_LEN: what an announced address must be below.
const maxAddress = 256

// Apply takes the options of one REPLCONF in their order (replconfCommand).
// Without an error the reply is OK. The error is a [ReplyError] in Redis's
// words; what stood in front of the option that it is about has been taken.
func (a *Announced) Apply(r Replconf) error {
	for _, o := range r.Options {
		if err := a.apply(o); err != nil {
			return err
		}
	}
	return nil
}

func (a *Announced) apply(o ReplconfOption) error {
	switch o.Name {
	case "listening-port":
		port, ok := resp.ParseLongLong([]byte(o.Value))
		if !ok || port < 0 || port > 65535 {
			return errNotInteger
		}
		a.ListeningPort = int(port)
	case "ip-address":
		if len(o.Value) >= maxAddress {
			return ReplyError(fmt.Sprintf("ERR REPLCONF ip-address provided by replica instance is too long: %d bytes", len(o.Value)))
		}
		a.IPAddress = o.Value
	case "capa":
		for _, known := range capaNames {
			if strings.EqualFold(o.Value, known.name) {
				a.Capa |= known.capa
			}
		}
	case "version":
		a.Version = o.Value
	case "rdb-only":
		return parseFlag(&a.RDBOnly, o.Value)
	case "rdb-channel":
		return parseFlag(&a.RDBChannel, o.Value)
	case "rdb-filter-only":
		return a.applyFilter(o.Value)
	default:
		return ReplyError("ERR Unrecognized REPLCONF option: " + o.Name)
	}
	return nil
}

func parseFlag(flag *bool, value string) error {
	switch value {
	case "0", "1":
		*flag = value == "1"
		return nil
	}
	return ReplyError("ERR value is out of range, value must between 0 and 1")
}

func (a *Announced) applyFilter(value string) error {
	words, err := resp.SplitInline([]byte(value))
	if err != nil {
		return ReplyError("ERR Missing rdb-filter-only values")
	}
	filter := EmptyRDB
	for _, w := range words {
		if !fold(w, "FUNCTIONS") {
			return ReplyError("ERR Unsupported rdb-filter-only option: " + string(w))
		}
		filter = FunctionsOnly
	}
	a.Filter = filter
	return nil
}
