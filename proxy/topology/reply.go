package topology

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/sluice-io/sluice/syncer/repl"
)

// Link states of a replica as ROLE words them (roleCommand in Redis's
// replication.c). "none", "connect", "connecting", "handshake" and "unknown"
// are all a link that is down.
const (
	linkConnected = "connected"
	linkSync      = "sync"
)

// roleReply is the answer to ROLE.
type roleReply struct {
	role       Role
	offset     repl.Offset // of the stream on a master, applied on a replica; unknown while the link is down
	replicas   int         // attached to a master
	masterAddr string      // HOST:PORT that a replica follows
	link       string      // a replica's link to it
}

// parseRole reads the answer to ROLE as go-redis gives it: "master", offset,
// replicas; or "slave", host, port, link state, offset.
func parseRole(reply any) (roleReply, error) {
	bad := func() (roleReply, error) {
		return roleReply{}, fmt.Errorf("parse ROLE: unexpected reply %.200v", reply)
	}
	list, _ := reply.([]any)
	if len(list) == 0 {
		return bad()
	}
	name, _ := list[0].(string)
	switch {
	case name == "master" && len(list) >= 3:
		offset, ok := list[1].(int64)
		replicas, ok2 := list[2].([]any)
		if !ok || !ok2 || offset < 0 {
			return bad()
		}
		return roleReply{role: RoleMaster, offset: repl.Offset(offset), replicas: len(replicas)}, nil
	case name == "slave" && len(list) >= 5:
		host, ok := list[1].(string)
		port, ok2 := list[2].(int64)
		link, ok3 := list[3].(string)
		offset, ok4 := list[4].(int64)
		if !ok || !ok2 || !ok3 || !ok4 || offset < -1 {
			return bad()
		}
		return roleReply{
			role: RoleReplica, offset: repl.Offset(offset), link: link,
			masterAddr: net.JoinHostPort(host, strconv.FormatInt(port, 10)),
		}, nil
	case name == "sentinel":
		return roleReply{role: RoleUnknown, offset: repl.UnknownOffset}, nil
	}
	return bad()
}

// replicationInfo is what we use of INFO replication (genRedisInfoString in
// Redis's server.c).
type replicationInfo struct {
	replID      repl.ReplID // master_replid
	replID2     repl.ReplID // master_replid2; zero on a node that was never promoted
	replicas    []string    // HOST:PORT of the slaveN lines that can be connected to
	slaveOffset repl.Offset // slave_repl_offset; where the link is down, that of the cached master, or 1 where there is none
	unannounced bool        // replica_announced:0
	relay       bool        // sluice_relay:1: it has no data to read
}

// parseReplication reads INFO replication.
func parseReplication(text string) (replicationInfo, error) {
	info := replicationInfo{slaveOffset: repl.UnknownOffset}
	var err error
	for line := range strings.Lines(text) {
		key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":")
		if !ok {
			continue
		}
		switch key {
		case "master_replid":
			if info.replID, err = repl.ParseReplID(value); err != nil {
				return info, fmt.Errorf("parse INFO replication: %w", err)
			}
		case "master_replid2":
			if strings.Trim(value, "0") == "" {
				continue // clearReplicationId2: no second id
			}
			if info.replID2, err = repl.ParseReplID(value); err != nil {
				return info, fmt.Errorf("parse INFO replication: %w", err)
			}
		case "slave_repl_offset":
			if info.slaveOffset, err = repl.ParseOffset(value); err != nil {
				return info, fmt.Errorf("parse INFO replication: %w", err)
			}
		case "sluice_relay":
			info.relay = value == "1"
		case "replica_announced":
			info.unannounced = value == "0"
		default:
			if addr, ok := slaveLine(key, value); ok {
				info.replicas = append(info.replicas, addr)
			}
		}
	}
	if info.replID.IsZero() {
		return info, fmt.Errorf("parse INFO replication: no master_replid in %.200q", text)
	}
	return info, nil
}

// slaveLine reads slaveN:ip=…,port=…,state=…,offset=…,lag=…. A replica that
// never told its port (a tool that reads the stream) has port 0 and cannot be
// connected to.
func slaveLine(key, value string) (addr string, ok bool) {
	number, ok := strings.CutPrefix(key, "slave")
	if !ok {
		return "", false
	}
	if _, err := strconv.ParseUint(number, 10, 32); err != nil {
		return "", false
	}
	var ip, port string
	for field := range strings.SplitSeq(value, ",") {
		switch name, v, _ := strings.Cut(field, "="); name {
		case "ip":
			ip = v
		case "port":
			port = v
		}
	}
	if p, err := strconv.ParseUint(port, 10, 16); err != nil || p == 0 || ip == "" {
		return "", false
	}
	return net.JoinHostPort(ip, port), true
}

// infoField returns the value of one field of INFO, empty if it is not there.
func infoField(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimRight(line, "\r\n"), ":"); ok && key == name {
			return value
		}
	}
	return ""
}
