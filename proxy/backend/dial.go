package backend

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/resp"
)

// Identity is the connection state that shared requests depend on. Requests
// share a connection only where it is equal.
type Identity struct {
	DB       int
	Proto    int    // RESP version, 2 or 3
	User     string // ACL user of the client; "" with no Password: not authenticated
	Password string
	// Control is for commands that a node takes while it is busy with a script:
	// such a node refuses ROLE and SELECT, so neither is asked.
	Control bool
	// SelectFirst has the database selected before the client's user logs in:
	// it was the session's before, and the user need not be allowed to SELECT.
	SelectFirst bool
	// NoteOffset has the node note the replication offset for WAIT, by our own
	// user.
	NoteOffset bool
}

// How the replication offset is noted for a connection: Redis does with each of
// its commands that goes to the replicas. This one does and changes nothing: to
// the channel nobody subscribes, and patterns do not match sharded channels.
const (
	OffsetCommand = "SPUBLISH"
	OffsetChannel = "__sluice__:wait"
)

// NoteOffset is that command.
func NoteOffset() [][]byte { return [][]byte{[]byte(OffsetCommand), []byte(OffsetChannel), nil} }

// Authenticated reports whether the identity carries credentials.
func (id Identity) Authenticated() bool { return id.Password != "" || id.User != "" }

// ReplyError is an error reply that a node gave while a connection was set up.
type ReplyError struct {
	Command string // AUTH, HELLO, SELECT, ROLE
	Line    string // without the leading '-'
}

// Error implements error.
func (e *ReplyError) Error() string { return e.Command + " was answered with: " + e.Line }

// ErrWrongRole says that a node does not have the role the connection is for.
var ErrWrongRole = errors.New("node has another role")

// Dialer makes connections to Redis nodes. It may be used by any goroutine.
type Dialer struct {
	Timeout func() time.Duration // for a connection with its handshake
	// User and Password are ours; ROLE is asked with them, since a client's ACL
	// user need not be allowed to.
	User, Password string
	// TLS is asked for each connection; where it, or what it returns, is nil the
	// connection is plain.
	TLS func() *tls.Config
	// OnSetup, if set, is told of each connection before its handshake: from which
	// address the node will get n commands that are ours, without logins. failed is
	// called if it comes to nothing.
	OnSetup func(node string, local net.Addr, n int) (failed func())
}

// Dial connects to addr (HOST:PORT), sets the connection up for id and checks
// that the node is a master, or is a replica, as wanted. The caller
// owns the socket.
func (d *Dialer) Dial(ctx context.Context, addr string, id Identity, wantMaster bool) (eventloop.Socket, error) {
	c, err := d.connect(ctx, addr, d.steps(id), func(role []byte) error {
		if id.Control {
			return nil
		}
		return checkRole(role, wantMaster)
	})
	if err != nil {
		return eventloop.Socket{}, err
	}
	return eventloop.Take(c)
}

// Connect connects to addr with our own credentials, for questions to the node
// itself. The caller owns the connection.
func (d *Dialer) Connect(ctx context.Context, addr string) (net.Conn, error) {
	return d.connect(ctx, addr, d.steps(Identity{}), func([]byte) error { return nil })
}

func (d *Dialer) connect(ctx context.Context, addr string, steps []step, check func(role []byte) error) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.Timeout())
	defer cancel()
	var nd net.Dialer
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	c, err := nd.DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	sock := c // c becomes TLS over it
	stop := context.AfterFunc(ctx, func() { _ = sock.SetDeadline(time.Unix(1, 0)) })
	if d.TLS != nil {
		if cfg := d.TLS(); cfg != nil {
			c = eventloop.ClientTLS(c, cfg, addr)
		}
	}
	failed := func() {}
	if d.OnSetup != nil {
		failed = d.OnSetup(addr, c.LocalAddr(), ours(steps))
	}
	role, err := greet(ctx, c, steps)
	if err == nil {
		err = check(role)
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		failed()
		_ = c.Close()
		return nil, fmt.Errorf("set up connection to %s: %w", addr, err)
	}
	return c, nil
}

// greet makes the TLS handshake, if c has TLS, and that of Redis.
func greet(ctx context.Context, c net.Conn, steps []step) (role []byte, err error) {
	if t, ok := c.(*eventloop.TLS); ok {
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, fmt.Errorf("TLS handshake: %w", err)
		}
	}
	return handshake(c, steps)
}

// step is one command of the handshake.
type step struct {
	name string
	args []string
}

// ours counts the steps that are no login.
func ours(steps []step) (n int) {
	for _, s := range steps {
		if s.name != "AUTH" {
			n++
		}
	}
	return n
}

func (d *Dialer) steps(id Identity) []step {
	var s []step
	auth := func(user, password string) {
		args := []string{"AUTH", user, password}
		if user == "" {
			args = []string{"AUTH", password}
		}
		s = append(s, step{"AUTH", args})
	}
	if d.Password != "" {
		auth(d.User, d.Password)
	}
	role := func() {
		if !id.Control {
			s = append(s, step{"ROLE", []string{"ROLE"}})
		}
	}
	role()
	if id.NoteOffset {
		s = append(s, step{OffsetCommand, []string{OffsetCommand, OffsetChannel, ""}})
	}
	selectDB := func() { s = append(s, step{"SELECT", []string{"SELECT", strconv.Itoa(id.DB)}}) }
	if id.SelectFirst {
		selectDB()
	}
	if id.Authenticated() {
		auth(id.User, id.Password)
		if d.Password == "" { // the first ROLE may have been refused
			role()
		}
	}
	if id.Proto == 3 {
		s = append(s, step{"HELLO", []string{"HELLO", "3"}})
	}
	if id.DB != 0 && !id.SelectFirst {
		selectDB()
	}
	return s
}

// handshake takes the steps and returns the reply of ROLE.
func handshake(c net.Conn, steps []step) (role []byte, err error) {
	h := shaking{c: c}
	for len(steps) > 0 {
		n := together(steps)
		if err := h.take(steps[:n]); err != nil {
			return nil, err
		}
		steps = steps[n:]
	}
	if h.role == nil && h.roleErr != nil {
		return nil, h.roleErr
	}
	return h.role, nil
}

// together returns how many steps can be sent at once. AUTH must be the first:
// Redis 7.2 to 8.0 and Valkey 7.2 to 8.1 say nothing to one that fails while
// replies to other commands wait to be written (addAuthErrReply).
func together(steps []step) int {
	n := 1
	for n < len(steps) && steps[n].name != "AUTH" {
		n++
	}
	return n
}

// shaking is a handshake under way.
type shaking struct {
	c       net.Conn
	role    []byte // the reply of ROLE
	roleErr error  // or why there is none
}

// take sends steps at once and reads exactly their replies.
func (h *shaking) take(steps []step) error {
	var out []byte
	for _, s := range steps {
		out = resp.AppendCommand(out, s.args...)
	}
	if _, err := h.c.Write(out); err != nil {
		return err
	}
	var in []byte
	buf := make([]byte, 4096)
	for _, s := range steps {
		n, _, err := resp.ScanReply(in)
		for ; n == 0 && err == nil; n, _, err = resp.ScanReply(in) {
			k, rerr := h.c.Read(buf)
			if rerr != nil {
				return fmt.Errorf("read reply of %s: %w", s.name, rerr)
			}
			in = append(in, buf[:k]...)
		}
		if err != nil {
			return fmt.Errorf("reply of %s: %w", s.name, err)
		}
		reply := in[:n]
		in = in[n:]
		switch {
		case reply[0] == '-':
			err := &ReplyError{Command: s.name, Line: strings.TrimRight(string(reply[1:]), "\r\n")}
			if s.name != "ROLE" {
				return err
			}
			h.roleErr = err
		case s.name == "ROLE":
			h.role = bytes.Clone(reply)
		}
	}
	if len(in) > 0 {
		return fmt.Errorf("%d bytes behind the last reply of the handshake", len(in))
	}
	return nil
}

// checkRole looks at the first element of ROLE's reply (roleCommand).
func checkRole(role []byte, wantMaster bool) error {
	isMaster := bytes.Contains(role[:min(len(role), 24)], []byte("\r\nmaster\r\n"))
	if isMaster == wantMaster {
		return nil
	}
	have := "replica"
	if isMaster {
		have = "master"
	}
	return fmt.Errorf("%w: it is a %s", ErrWrongRole, have)
}
