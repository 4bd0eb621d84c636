package psync

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
)

// Capa is a set of capabilities that a replica announces by REPLCONF capa.
// Those that nothing here implements have no name: a master must not be told
// of them, and from a replica they are ignored, as Redis does.
type Capa uint8

const (
	// CapaEOF is eof: takes a payload that ends by a mark ($EOF:).
	CapaEOF Capa = 1 << iota
	// CapaPSYNC2 is psync2: takes a new id in +CONTINUE.
	CapaPSYNC2
)

// String returns the words of REPLCONF, comma-separated.
func (c Capa) String() string {
	var words []string
	for _, known := range capaNames {
		if c&known.capa != 0 {
			words = append(words, known.name)
		}
	}
	return strings.Join(words, ",")
}

var capaNames = []struct {
	capa Capa
	name string
}{{CapaEOF, "eof"}, {CapaPSYNC2, "psync2"}}

// RDBFilter says what a snapshot holds (REPLCONF rdb-filter-only, Redis 7.0).
type RDBFilter uint8

const (
	// WholeRDB is everything, without a filter.
	WholeRDB RDBFilter = iota
	// FunctionsOnly is the function libraries and no keys.
	FunctionsOnly
	// EmptyRDB is neither: only the header, with replid and offset.
	EmptyRDB
)

// String returns the filter's name.
func (f RDBFilter) String() string { return [...]string{"whole", "functions", "empty"}[f] }

// Handshake is what a replica tells a master before PSYNC. The zero value
// tells nothing but PING and its capabilities.
type Handshake struct {
	Username string // of an ACL user; empty for the default user
	Password string // empty: no AUTH
	// ListeningPort and IPAddress are what the master shows of us in INFO and
	// ROLE, and what Sentinel connects to. Not sent if zero.
	ListeningPort int
	IPAddress     string
	// Capa is what the reader of the answers implements; normally
	// CapaEOF | CapaPSYNC2.
	Capa Capa
	// Version is announced by REPLCONF version unless empty: Valkey 9 gives no
	// diskless snapshot of hashes with field TTLs to a replica whose version it
	// does not know. Redis has no such option; its error is ignored.
	Version string
	// RDBOnly asks for a snapshot and no stream (REPLCONF rdb-only, Redis
	// 6.2): the master keeps no output buffer for us and closes behind the
	// snapshot.
	RDBOnly bool
	// Filter narrows the snapshot; it needs CapaEOF.
	Filter RDBFilter
}

// step is one command of the handshake.
type step struct {
	name string // for errors: without secrets
	args []string
	// optional: an -ERR means that this master does not know it, and is ignored.
	optional bool
}

// steps returns what follows PING, in the order of Redis's syncWithMaster.
func (h *Handshake) steps() []step {
	var steps []step
	add := func(name string, optional bool, args ...string) {
		steps = append(steps, step{name: name, args: args, optional: optional})
	}
	switch {
	case h.Password == "":
	case h.Username == "":
		add("AUTH", false, "AUTH", h.Password)
	default:
		add("AUTH", false, "AUTH", h.Username, h.Password)
	}
	if h.ListeningPort != 0 {
		add("REPLCONF listening-port", true, "REPLCONF", "listening-port", strconv.Itoa(h.ListeningPort))
	}
	if h.IPAddress != "" {
		add("REPLCONF ip-address", true, "REPLCONF", "ip-address", h.IPAddress)
	}
	if h.Capa != 0 {
		args := []string{"REPLCONF"}
		for _, known := range capaNames {
			if h.Capa&known.capa != 0 {
				args = append(args, "capa", known.name)
			}
		}
		add("REPLCONF capa", true, args...)
	}
	if h.Version != "" {
		add("REPLCONF version", true, "REPLCONF", "version", h.Version)
	}
	// A master that does not know these would send what was not asked for.
	if h.RDBOnly {
		add("REPLCONF rdb-only", false, "REPLCONF", "rdb-only", "1")
	}
	switch h.Filter {
	case FunctionsOnly:
		add("REPLCONF rdb-filter-only", false, "REPLCONF", "rdb-filter-only", "functions")
	case EmptyRDB:
		add("REPLCONF rdb-filter-only", false, "REPLCONF", "rdb-filter-only", "")
	case WholeRDB:
	}
	return steps
}

// Run performs the handshake up to the point where PSYNC may be sent: PING,
// and when it is answered the rest in one piece, as Redis has done since 6.2.
// It reads every reply, because a master refuses PSYNC while one is pending
// (clientHasPendingReplies in syncCommand).
//
// The error wraps a [Retry], a [Refused], or what reading or writing failed
// with, and names the command. The connection is of no more use then.
func (h *Handshake) Run(w io.Writer, r *bufio.Reader) error {
	if _, err := w.Write(resp.AppendCommand(nil, "PING")); err != nil {
		return fmt.Errorf("send PING: %w", err)
	}
	line, err := readReply(r)
	if err != nil {
		return fmt.Errorf("PING: %w", err)
	}
	if err := h.judgePing(line); err != nil {
		return fmt.Errorf("PING: %w", err)
	}
	steps := h.steps()
	var out []byte
	for _, s := range steps {
		out = resp.AppendCommand(out, s.args...)
	}
	if len(out) == 0 {
		return nil
	}
	if _, err := w.Write(out); err != nil {
		return fmt.Errorf("send %s: %w", steps[0].name, err)
	}
	for _, s := range steps {
		line, err := readReply(r)
		if err == nil {
			err = s.judge(line)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// judgePing accepts a reply to PING: PONG, or that we may not yet (NOAUTH; up
// to Redis 2.6 "operation not permitted") or never (NOPERM) send PING.
func (h *Handshake) judgePing(line string) error {
	if line[0] == '+' || strings.HasPrefix(line, "-NOPERM") {
		return nil
	}
	if h.Password != "" && (strings.HasPrefix(line, "-NOAUTH") || strings.HasPrefix(line, "-ERR operation not permitted")) {
		return nil
	}
	return parseError(line)
}

// judge accepts a reply to one of the steps.
func (s *step) judge(line string) error {
	if line[0] == '+' {
		return nil
	}
	err := parseError(line)
	var refused Refused
	if s.optional && errors.As(err, &refused) && refused.Code == "ERR" {
		return nil
	}
	return err
}

// AppendPSync appends the request for what w wants: the stream from w.Next on,
// or for the zero value a full resync.
func AppendPSync(dst []byte, w repl.Want) []byte {
	id, next := w.Args()
	return resp.AppendCommand(dst, "PSYNC", id, next)
}

// Ack is what a replica acknowledges, by REPLCONF ACK, every second and when
// asked to by GETACK. One after a payload that ends by a mark starts the stream
// (see [PayloadHeader]).
type Ack struct {
	// Offset is that of the last byte processed.
	Offset repl.Offset
	// Fsynced is that of the last byte on disk, for WAITAOF (FACK, Redis 7.2);
	// repl.UnknownOffset: not told. Masters before 7.2 ignore it.
	Fsynced repl.Offset
}

// AppendAck appends REPLCONF ACK offset [FACK fsynced] (replicationSendAck).
func AppendAck(dst []byte, a Ack) []byte {
	args := 3
	if a.Fsynced.IsKnown() {
		args = 5
	}
	dst = resp.AppendArrayHeader(dst, args)
	dst = resp.AppendBulkString(dst, "REPLCONF")
	dst = resp.AppendBulkString(dst, "ACK")
	dst = appendBulkOffset(dst, a.Offset)
	if a.Fsynced.IsKnown() {
		dst = resp.AppendBulkString(dst, "FACK")
		dst = appendBulkOffset(dst, a.Fsynced)
	}
	return dst
}

func appendBulkOffset(dst []byte, o repl.Offset) []byte {
	var digits [20]byte
	return resp.AppendBulk(dst, strconv.AppendInt(digits[:0], int64(o), 10))
}
