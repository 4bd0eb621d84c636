package downstream

import (
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
	"github.com/sluice-io/sluice/syncer/upstream"
)

// compatVersion is what clients are told: the version whose INFO and ROLE these
// are like. Snapshots are those of the master, whatever its version.
const compatVersion = "7.0.0"

type linkStatus = upstream.Status

// isUp reports whether the stream comes.
func isUp(s linkStatus) bool { return s.State == upstream.StateConnected.String() }

// info is INFO [section …].
func (c *session) info(args []string) bool {
	want := map[string]bool{}
	for _, a := range args[1:] {
		want[strings.ToLower(a)] = true
	}
	all := len(want) == 0 || want["all"] || want["default"] || want["everything"]
	var b strings.Builder
	for _, s := range []struct {
		name  string
		write func(b *strings.Builder)
	}{{"server", c.srv.infoServer}, {"clients", c.srv.infoClients}, {"stats", c.srv.infoStats}, {"replication", c.srv.infoReplication}} {
		if !all && !want[s.name] {
			continue
		}
		if b.Len() > 0 {
			b.WriteString("\r\n")
		}
		fmt.Fprintf(&b, "# %s%s\r\n", strings.ToUpper(s.name[:1]), s.name[1:])
		s.write(&b)
	}
	c.out = resp.AppendBulkString(c.out, b.String())
	return false
}

func field(b *strings.Builder, name string, value any) { fmt.Fprintf(b, "%s:%v\r\n", name, value) }

func (s *Server) infoServer(b *strings.Builder) {
	_, port, _ := net.SplitHostPort(s.ln.Addr().String())
	up := time.Since(s.begun)
	field(b, "redis_version", compatVersion)
	field(b, "redis_mode", "standalone")
	field(b, "run_id", s.runID)
	field(b, "process_id", os.Getpid())
	field(b, "tcp_port", port)
	field(b, "uptime_in_seconds", int64(up.Seconds()))
	field(b, "uptime_in_days", int64(up.Hours()/24))
	field(b, "sluice_relay", 1)
}

func (s *Server) infoClients(b *strings.Builder) {
	st := s.Status()
	field(b, "connected_clients", st.Clients)
	field(b, "maxclients", s.opt.MaxClients)
}

func (s *Server) infoStats(b *strings.Builder) {
	full := uint64(0)
	for _, n := range s.counters.full {
		full += n.Load()
	}
	field(b, "sync_full", full)
	field(b, "sync_partial_ok", s.counters.partial.Load())
	field(b, "total_forks", 0) // there is nothing to fork for
}

// infoReplication is the section as a replica has it (genRedisInfoString), with
// sluice_relay to tell us from one. The priority of 0 keeps Sentinels from
// promoting us; not being announced, from telling clients to read from us.
func (s *Server) infoReplication(b *strings.Builder) {
	v := s.view(time.Now())
	status := "down"
	if v.serving {
		status = "up"
	}
	field(b, "role", "slave")
	field(b, "master_host", v.host)
	field(b, "master_port", v.port)
	field(b, "master_link_status", status)
	field(b, "master_last_io_seconds_ago", v.lastIO)
	field(b, "master_sync_in_progress", boolInt(v.syncing))
	field(b, "slave_read_repl_offset", max(v.offset, 0))
	field(b, "slave_repl_offset", max(v.offset, 0))
	if !v.serving {
		field(b, "master_link_down_since_seconds", v.down)
	}
	field(b, "slave_priority", 0)
	field(b, "slave_read_only", 1)
	field(b, "replica_announced", 0)
	field(b, "sluice_relay", 1)
	shown := 0
	var lines strings.Builder
	for _, r := range s.Status().Replicas {
		host, port, err := net.SplitHostPort(r.Address)
		word := infoState(r.State)
		if err != nil || word == "" {
			continue
		}
		fmt.Fprintf(&lines, "slave%d:ip=%s,port=%s,state=%s,offset=%d,lag=%d\r\n", shown, host, port, word, max(r.Offset, 0), int64(r.Silent))
		shown++
	}
	field(b, "connected_slaves", shown)
	b.WriteString(lines.String())
	field(b, "master_failover_state", "no-failover")
	second, secondOff := v.history.Second()
	id := string(v.history.Current())
	if v.history.IsZero() {
		id = strings.Repeat("0", repl.ReplIDLen)
	}
	field(b, "master_replid", id)
	field(b, "master_replid2", second)
	field(b, "master_repl_offset", max(v.offset, 0))
	field(b, "second_repl_offset", secondOff)
	field(b, "repl_backlog_active", boolInt(v.gen != nil))
	field(b, "repl_backlog_size", v.backlog)
	field(b, "repl_backlog_first_byte_offset", v.first)
	field(b, "repl_backlog_histlen", v.backlog)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func infoState(state string) string {
	for s := StateWait; s < StateClosed; s++ {
		if s.String() == state {
			return s.info()
		}
	}
	return ""
}

// view is what INFO and ROLE tell of the link and of what is served.
type view struct {
	gen        *store.Generation
	history    repl.History
	host, port string
	serving    bool // the stream comes, and what it brings is what is served
	syncing    bool // the stream comes, and the base for it is on its way
	offset     repl.Offset
	first      repl.Offset
	backlog    int64 // bytes of the log
	lastIO     int64 // seconds ago, -1 if not known
	down       int64 // seconds since when it is not served from
	state      string
}

func (s *Server) view(now time.Time) view {
	up := s.up.Status()
	v := view{offset: repl.UnknownOffset, lastIO: -1, state: up.State}
	v.host, v.port, _ = net.SplitHostPort(up.Master) // Status gives HOST:PORT
	v.gen = s.st.Current()
	head := s.st.Head()
	if v.gen == nil {
		v.gen = head
	}
	current := v.gen != nil && v.gen == head && s.st.Current() == head
	v.serving, v.syncing = isUp(up) && current, up.State == upstream.StateTransfer.String() || isUp(up) && !current
	if g := v.gen; g != nil {
		v.history, v.first, v.offset = g.History(), g.First(), g.Committed()
		v.backlog = int64(v.offset - v.first + 1)
	}
	if at := s.link.lastIO.Load(); at != 0 && isUp(up) {
		v.lastIO = max(int64(now.Sub(time.Unix(0, at)).Seconds()), 0)
	}
	if at := s.link.downSince.Load(); at != 0 {
		v.down = max(int64(now.Sub(time.Unix(0, at)).Seconds()), 0)
	}
	return v
}

// role is ROLE as a replica answers it (roleCommand).
func (c *session) role([]string) bool {
	v := c.srv.view(time.Now())
	state := "connect"
	switch {
	case v.serving:
		state = "connected"
	case v.syncing:
		state = "sync"
	case v.state == upstream.StateHandshake.String(), v.state == upstream.StateAttach.String():
		state = "connecting"
	}
	offset := v.offset
	if !v.serving {
		offset = repl.UnknownOffset
	}
	port, ok := resp.ParseLongLong([]byte(v.port))
	if !ok {
		port = 0
	}
	c.out = resp.AppendArrayHeader(c.out, 5)
	c.out = resp.AppendBulkString(resp.AppendBulkString(c.out, "slave"), v.host)
	c.out = resp.AppendInt(c.out, port)
	c.out = resp.AppendBulkString(c.out, state)
	c.out = resp.AppendInt(c.out, int64(offset))
	return false
}
