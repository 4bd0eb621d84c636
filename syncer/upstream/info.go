package upstream

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// maxInfoBytes bounds a reply to INFO: a section with thousands of replicas.
const maxInfoBytes = 1 << 20

// nodeInfo is what INFO tells about a node (genRedisInfoString).
type nodeInfo struct {
	slave      bool   // role:slave
	relay      bool   // sluice_relay:1: it says slave, and serves replicas at no cost to anybody
	masterAddr string // of a slave
	linkUp     bool   // master_link_status:up
	readOnly   bool   // slave_read_only:1
	pos        repl.Pos
	second     repl.Ancestor // zero where there is none
	backlog    bool          // repl_backlog_active
	first      repl.Offset   // of the backlog's first byte
	last       repl.Offset   // of its last byte
	replicas   []replicaInfo // most caught-up first
	redis      version       // redis_version; zero where it is not told
	valkey     version       // valkey_version, likewise
}

type replicaInfo struct {
	addr   string
	offset repl.Offset
}

// version is major and minor; RDB versions change with them only.
type version struct{ major, minor int }

func (v version) less(o version) bool {
	return v.major < o.major || (v.major == o.major && v.minor < o.minor)
}

func parseVersion(s string) (v version) {
	major, rest, _ := strings.Cut(s, ".")
	minor, _, _ := strings.Cut(rest, ".")
	var err error
	if v.major, err = strconv.Atoi(major); err != nil {
		return version{}
	}
	v.minor, _ = strconv.Atoi(minor) // a development version may have none
	return v
}

// hasRDBOnly reports whether the node knows REPLCONF rdb-only (6.2). One that
// does not tell its version is taken to.
func (i *nodeInfo) hasRDBOnly() bool { return i.redis == version{} || !i.redis.less(version{6, 2}) }

// newerThan reports whether the node's snapshots may be of an RDB version that a
// server like o cannot load.
func (i *nodeInfo) newerThan(o *nodeInfo) bool {
	// Until 8 Valkey writes what Redis 7.2 does, which it then calls itself in
	// redis_version; from 9 on it writes a version of its own.
	if i.valkey != (version{}) && o.valkey == (version{}) && o.redis != (version{}) && !i.valkey.less(version{9, 0}) {
		return true
	}
	return (o.redis != version{} && o.redis.less(i.redis)) || (o.valkey != version{} && o.valkey.less(i.valkey))
}

// verdict says what the node will answer to PSYNC w.
func (i *nodeInfo) verdict(w repl.Want) repl.Verdict {
	if !i.backlog {
		return repl.TooOld
	}
	var ancestors []repl.Ancestor
	if !i.second.ReplID.IsZero() {
		ancestors = append(ancestors, i.second)
	}
	h, err := repl.NewHistory(i.pos.ReplID, ancestors...)
	if err != nil {
		return repl.UnknownReplID
	}
	return h.Accepts(w, i.first, i.last)
}

// askInfo sends INFO server and INFO replication and reads both replies. An
// error reply is a [psync.Refused].
func askInfo(w io.Writer, r *bufio.Reader) (*nodeInfo, error) {
	if _, err := io.WriteString(w, "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n"); err != nil {
		return nil, fmt.Errorf("send INFO: %w", err)
	}
	server, errServer := readBulk(r)
	if _, refused := asRefused(errServer); errServer != nil && !refused {
		return nil, fmt.Errorf("read INFO server: %w", errServer)
	}
	replication, err := readBulk(r)
	if err != nil {
		return nil, fmt.Errorf("read INFO replication: %w", err)
	}
	i := parseInfo(server + "\r\n" + replication)
	if i.pos.ReplID.IsZero() {
		return nil, fmt.Errorf("read INFO replication: it has no master_replid; Redis 4 or later is needed")
	}
	return i, nil
}

// readBulk reads one bulk string.
func readBulk(r *bufio.Reader) (string, error) {
	line, err := psync.ReadLine(r)
	if err != nil {
		return "", err
	}
	size, ok := strings.CutPrefix(line, "$")
	n, errNum := strconv.Atoi(size)
	switch {
	case strings.HasPrefix(line, "-"):
		if busy, ok := psync.ParseAnswer(line).(psync.Retry); ok {
			return "", busy // it would answer later, and then PSYNC need not be a guess
		}
		code, _, _ := strings.Cut(line[1:], " ")
		return "", psync.Refused{Code: code, Line: line}
	case !ok || errNum != nil || n < 0 || n > maxInfoBytes:
		return "", psync.Refused{Line: line}
	}
	b := make([]byte, n+2)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

// parseInfo parses the fields it knows; others are left out, malformed ones are
// as if they were not there.
func parseInfo(text string) *nodeInfo {
	fields := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		if k, v, ok := strings.Cut(strings.TrimSuffix(line, "\r"), ":"); ok {
			fields[k] = v
		}
	}
	offset := func(key string) repl.Offset {
		o, err := repl.ParseOffset(fields[key])
		if err != nil {
			return repl.UnknownOffset
		}
		return o
	}
	id := func(key string) repl.ReplID {
		v, err := repl.ParseReplID(fields[key])
		if err != nil || v == repl.ReplID(strings.Repeat("0", repl.ReplIDLen)) {
			return ""
		}
		return v
	}
	i := &nodeInfo{
		slave:    fields["role"] == "slave",
		relay:    fields["sluice_relay"] == "1",
		linkUp:   fields["master_link_status"] == "up",
		readOnly: fields["slave_read_only"] == "1",
		pos:      repl.Pos{ReplID: id("master_replid"), Offset: offset("master_repl_offset")},
		backlog:  fields["repl_backlog_active"] == "1",
		first:    offset("repl_backlog_first_byte_offset"),
		redis:    parseVersion(fields["redis_version"]),
		valkey:   parseVersion(fields["valkey_version"]),
	}
	i.last = i.first + offset("repl_backlog_histlen") - 1
	if i.slave {
		i.masterAddr = net.JoinHostPort(fields["master_host"], fields["master_port"])
	}
	if end := offset("second_repl_offset"); end > 0 {
		i.second = repl.Ancestor{ReplID: id("master_replid2"), End: end - 1}
	}
	for n := 0; ; n++ {
		v, ok := fields["slave"+strconv.Itoa(n)]
		if !ok {
			break
		}
		if r, ok := parseReplica(v); ok {
			i.replicas = append(i.replicas, r)
		}
	}
	slices.SortStableFunc(i.replicas, func(a, b replicaInfo) int { return cmp.Compare(b.offset, a.offset) })
	return i
}

// parseReplica parses "ip=…,port=…,state=online,offset=…,lag=…". Those that are
// not online, or have announced no port, cannot be asked.
func parseReplica(s string) (replicaInfo, bool) {
	fields := map[string]string{}
	for f := range strings.SplitSeq(s, ",") {
		if k, v, ok := strings.Cut(f, "="); ok {
			fields[k] = v
		}
	}
	off, err := repl.ParseOffset(fields["offset"])
	if err != nil || fields["state"] != "online" || fields["ip"] == "" || fields["port"] == "" || fields["port"] == "0" {
		return replicaInfo{}, false
	}
	return replicaInfo{addr: net.JoinHostPort(fields["ip"], fields["port"]), offset: off}, true
}
