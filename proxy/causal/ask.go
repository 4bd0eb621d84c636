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
	timeout time.Duration
	in      []byte
	args    [][]byte // elements of the last reply
}

var (
	askRole = resp.AppendCommand(nil, "ROLE")
	askInfo = resp.AppendCommand(nil, "INFO", "replication")
)

// ask sends one command and returns its reply, valid until the next call.
func (c *asker) ask(command []byte) ([]byte, error) {
	if err := c.conn.SetDeadline(time.Now().Add(c.timeout)); err != nil {
		return nil, err
	}
	if _, err := c.conn.Write(command); err != nil {
		return nil, err
	}
	c.in = c.in[:0]
	for {
		if cap(c.in)-len(c.in) < 1024 {
			c.in = append(make([]byte, 0, max(4096, 2*cap(c.in))), c.in...)
		}
		n, err := c.conn.Read(c.in[len(c.in):cap(c.in)])
		if err != nil {
			return nil, err
		}
		c.in = c.in[:len(c.in)+n]
		n, _, err = resp.ScanReply(c.in)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			continue
		}
		if c.in[0] == '-' {
			return nil, fmt.Errorf("node answered: %s", bytes.TrimRight(c.in[1:n], "\r\n"))
		}
		return c.in[:n], nil
	}
}

// role asks ROLE (roleCommand in replication.c) and splits the answer.
func (c *asker) role() ([][]byte, error) {
	reply, err := c.ask(askRole)
	if err != nil {
		return nil, fmt.Errorf("ask ROLE: %w", err)
	}
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
	e, err := c.role()
	if err != nil {
		return repl.UnknownOffset, err
	}
	if len(e) < 2 || string(text(e[0])) != "master" {
		return repl.UnknownOffset, fmt.Errorf("ask ROLE: the node is no master any more")
	}
	return offset(e[1])
}

// replicaOffset returns what the replica has applied, and the state of its link.
func (c *asker) replicaOffset() (repl.Offset, []byte, error) {
	e, err := c.role()
	if err != nil {
		return repl.UnknownOffset, nil, err
	}
	if len(e) < 5 || string(text(e[0])) != "slave" {
		return repl.UnknownOffset, nil, fmt.Errorf("ask ROLE: the node is no replica any more")
	}
	o, err := offset(e[4])
	return o, text(e[3]), err
}

// replID returns the node's replication id (master_replid of INFO).
func (c *asker) replID() (repl.ReplID, error) {
	reply, err := c.ask(askInfo)
	if err != nil {
		return "", fmt.Errorf("ask INFO: %w", err)
	}
	_, rest, ok := bytes.Cut(reply, []byte("\nmaster_replid:"))
	if !ok {
		return "", fmt.Errorf("ask INFO: no master_replid in the answer")
	}
	line, _, _ := bytes.Cut(rest, []byte("\r"))
	return repl.ParseReplID(string(line))
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
