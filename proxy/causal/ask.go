package causal

import (
	"bytes"
	"fmt"
	"net"
	"time"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
)

// asker puts questions to a node over a blocking connection.
type asker struct {
	conn    net.Conn
	timeout func() time.Duration
	in      []byte
	args    [][]byte // elements of the last reply to ROLE
}

var (
	askRole = resp.AppendCommand(nil, "ROLE")
	askInfo = resp.AppendCommand(nil, "INFO", "replication")
	askBoth = append(append([]byte(nil), askInfo...), askRole...)
)

// ask sends questions in one piece and returns their n replies, valid until the
// next call.
func (c *asker) ask(questions []byte, n int) ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout())); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(questions); err != nil {
		return nil, err
	}
	c.in = c.in[:0]
	for pos := 0; n > 0; {
		k, _, err := resp.ScanReply(c.in[pos:])
		switch {
		case err != nil:
			return nil, err
		case k > 0:
			if c.in[pos] == '-' {
				return nil, fmt.Errorf("node answered: %s", bytes.TrimRight(c.in[pos+1:pos+k], "\r\n"))
			}
			pos += k
			n--
			continue
		}
		if cap(c.in)-len(c.in) < 1024 {
			c.in = append(make([]byte, 0, max(4096, 2*cap(c.in))), c.in...)
		}
		k, err = c.conn.Read(c.in[len(c.in):cap(c.in)])
		if err != nil {
			return nil, err
		}
		c.in = c.in[:len(c.in)+k]
	}
	return c.in, nil
}

// split returns the elements of a reply to ROLE (roleCommand in replication.c).
func (c *asker) split(reply []byte) ([][]byte, error) {
	c.args = c.args[:0]
	head := bytes.IndexByte(reply, '\n') + 1
	for rest := reply[head:]; len(rest) > 0; {
		n, _, err := resp.ScanReply(rest)
		if err != nil || n == 0 {
			return nil, fmt.Errorf("ask ROLE: answer is not understood: %.100q", reply)
		}
		c.args = append(c.args, rest[:n])
		rest = rest[n:]
	}
	return c.args, nil
}

// masterOffset returns what the master has written to its stream.
func (c *asker) masterOffset() (repl.Offset, error) {
	reply, err := c.ask(askRole, 1)
	if err != nil {
		return repl.UnknownOffset, fmt.Errorf("ask ROLE: %w", err)
	}
	e, err := c.split(reply)
	if err != nil {
		return repl.UnknownOffset, err
	}
	if len(e) < 2 || string(text(e[0])) != "master" {
		return repl.UnknownOffset, fmt.Errorf("ask ROLE: the node is no master any more")
	}
	return offset(e[1])
}

// report is what a replica tells of itself.
type report struct {
	master []byte      // whom it follows; valid until the next question
	link   link        // the state of that link
	offset repl.Offset // applied, where the link is up

	// Of INFO, asked for in the same breath: the node runs both commands before
	// it looks at its link again.
	replID repl.ReplID
	// kept is slave_repl_offset, which where the link is down is what the
	// replica would resume from; unknown without a backlog, which it drops
	// before its data (replicationAttachToNewMaster).
	kept repl.Offset
}

// link is the state of a replica's link as far as its data is concerned.
type link uint8

const (
	linkDown link = iota // it has what it had, unless a full sync has failed since
	linkSync             // its data is about to be replaced
	linkUp
)

// replica asks a replica for its report; the fields of INFO only if full.
func (c *asker) replica(full bool) (r report, err error) {
	questions, n := askRole, 1
	if full {
		questions, n = askBoth, 2
	}
	reply, err := c.ask(questions, n)
	if err != nil {
		return r, fmt.Errorf("ask ROLE: %w", err)
	}
	if full {
		end, _, _ := resp.ScanReply(reply)
		if r.replID, err = replID(reply[:end]); err != nil {
			return r, err
		}
		r.kept = repl.UnknownOffset
		n, ok := resp.ParseLongLong(infoField(reply[:end], "slave_repl_offset"))
		if ok && string(infoField(reply[:end], "repl_backlog_active")) == "1" {
			r.kept = repl.Offset(n)
		}
		reply = reply[end:]
	}
	e, err := c.split(reply)
	if err != nil {
		return r, err
	}
	if len(e) < 5 || string(text(e[0])) != "slave" {
		return r, fmt.Errorf("ask ROLE: the node is no replica any more")
	}
	r.master = reply[len(reply)-len(e[1])-len(e[2])-len(e[3])-len(e[4]) : len(reply)-len(e[3])-len(e[4])]
	switch string(text(e[3])) {
	case "connected":
		r.link = linkUp
	case "connect", "connecting", "handshake":
	default:
		r.link = linkSync
	}
	r.offset, err = offset(e[4])
	return r, err
}

// replID asks for the node's replication id.
func (c *asker) replID() (repl.ReplID, error) {
	reply, err := c.ask(askInfo, 1)
	if err != nil {
		return "", fmt.Errorf("ask INFO: %w", err)
	}
	return replID(reply)
}

// replID returns master_replid of INFO.
func replID(info []byte) (repl.ReplID, error) {
	id := infoField(info, "master_replid")
	if id == nil {
		return "", fmt.Errorf("ask INFO: no master_replid in the answer")
	}
	return repl.ParseReplID(string(id))
}

// infoField returns the value of a field of INFO, nil without it.
func infoField(info []byte, name string) []byte {
	for line := range bytes.SplitSeq(info, []byte("\r\n")) {
		if k, v, ok := bytes.Cut(line, []byte(":")); ok && string(k) == name {
			return v
		}
	}
	return nil
}

// text returns what stands in a bulk or simple string.
func text(e []byte) []byte {
	if e[0] == '$' {
		_, e, _ = bytes.Cut(e, []byte("\r\n"))
		return bytes.TrimSuffix(e, []byte("\r\n"))
	}
	return bytes.TrimRight(e[1:], "\r\n")
}

func offset(e []byte) (repl.Offset, error) {
	n, ok := resp.ParseInt(e)
	if !ok {
		return repl.UnknownOffset, fmt.Errorf("ask ROLE: offset %.40q is no number", e)
	}
	return repl.Offset(n), nil
}
