package downstream

import (
	"crypto/subtle"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/psync"
)

// maxQueued bounds a MULTI. A Sentinel's has five commands.
const maxQueued = 64

// client is what a session is before PSYNC.
type client struct {
	out        []byte // replies that were not sent yet
	multi      bool
	queued     [][]string
	failed     bool // EXEC is to be refused
	subscribed map[string]struct{}
	outbox     chan []byte // what was published; nil before the first SUBSCRIBE
}

// command is a command of operators and Sentinels. min and max are the numbers of
// its arguments, its name included; max 0 means any number. It returns true if
// the connection is to be closed.
type command struct {
	min, max   int
	run        func(c *session, args []string) bool
	subscriber bool // allowed to a subscriber in RESP2
	immediate  bool // not queued by MULTI
}

var commands map[string]command

func init() { // it refers to itself by COMMAND and EXEC
	commands = map[string]command{
		"info":         {1, 0, (*session).info, false, false},
		"role":         {1, 1, (*session).role, false, false},
		"hello":        {1, 0, (*session).hello, false, true},
		"echo":         {2, 2, (*session).echo, false, false},
		"select":       {2, 2, (*session).selectDB, false, false},
		"command":      {1, 0, (*session).command, false, false},
		"client":       {2, 0, (*session).clientCommand, false, false},
		"config":       {2, 0, (*session).config, false, false},
		"publish":      {3, 3, (*session).publish, false, false},
		"slaveof":      {3, 3, (*session).replicaOf, false, false},
		"replicaof":    {3, 3, (*session).replicaOf, false, false},
		"failover":     {1, 0, (*session).failover, false, false},
		"multi":        {1, 1, (*session).begins, false, true},
		"exec":         {1, 1, (*session).exec, false, true},
		"discard":      {1, 1, (*session).discard, false, true},
		"time":         {1, 1, (*session).time, false, false},
		"sluice":       {3, 3, (*session).sluice, false, false},
		"quit":         {1, 1, (*session).quit, true, true},
		"psubscribe":   {2, 0, (*session).noPatterns, true, true},
		"punsubscribe": {1, 0, (*session).noPatterns, true, true},
	}
}

func (c *session) ok()             { c.out = append(c.out, psync.ReplyOK...) }
func (c *session) err(text string) { c.out = resp.AppendError(c.out, text) }
func (c *session) wrongArity(name string) {
	c.err("ERR wrong number of arguments for '" + name + "' command")
}

// words copies the arguments.
func words(args resp.Args) []string {
	w := make([]string, args.Len())
	for i := range w {
		w[i] = string(args.At(i))
	}
	return w
}

// handle answers one request of one that is no replica yet. done means that the
// connection is to be closed behind the replies.
func (c *session) handle(args resp.Args) (done bool, err error) {
	req, bad := psync.ParseRequest(args)
	if _, isAuth := req.(psync.Auth); !isAuth && !c.isAuthed() && args.Len() > 0 && !freeOfAuth(args) {
		c.err("NOAUTH Authentication required.")
		return false, nil
	}
	if bad != nil {
		c.err(bad.Error())
		return false, nil
	}
	switch r := req.(type) {
	case psync.Ignored, psync.AckRequest:
	case psync.Ping:
		c.ping("")
	case psync.Auth:
		c.auth(r.Username, r.Password)
	case psync.Replconf:
		if err := c.announced.Apply(r); err != nil {
			c.err(err.Error())
		} else {
			c.ok()
		}
	case psync.Sync:
		c.err("ERR SYNC is not possible with a Sluice relay: it loses the place in the history. The replica uses it after an error that it does not know; its log tells")
	case psync.PSync:
		if c.outbox != nil { // what is published must not get into a stream
			c.err("ERR PSYNC is not possible on a connection that has subscribed to something")
			return false, nil
		}
		if err := c.flush(); err != nil { // they belong in front of the answer
			return false, err
		}
		c.out = append(c.out, c.psync(r)...)
		if c.isReplica() {
			c.out = c.out[:0]
		}
	case psync.Other:
		return c.other(r.Args), nil
	}
	return false, nil
}

// freeOfAuth reports whether a command is allowed before AUTH.
func freeOfAuth(args resp.Args) bool {
	name := strings.ToLower(string(args.At(0)))
	return name == "hello" || name == "quit"
}

// other answers a command of an operator or a Sentinel.
func (c *session) other(args resp.Args) bool {
	name := strings.ToLower(string(args.At(0)))
	if name == "subscribe" || name == "unsubscribe" {
		c.subscribe(args)
		return false
	}
	if name == "ping" && args.Len() == 2 {
		c.ping(string(args.At(1)))
		return false
	}
	cmd, known := commands[name]
	switch {
	case !known:
		c.failed = c.multi
		c.err(fmt.Sprintf("ERR unknown command '%.128s'. This is a Sluice relay, which serves replicas: it holds no data to read or write", name))
	case args.Len() < cmd.min || cmd.max > 0 && args.Len() > cmd.max:
		c.failed = c.multi
		c.wrongArity(name)
	case len(c.subscribed) > 0 && !cmd.subscriber:
		c.err("ERR Can't execute '" + name + "': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context")
	case c.multi && !cmd.immediate:
		if len(c.queued) == maxQueued {
			c.failed = true
			c.err("ERR too many commands in MULTI")
			return false
		}
		c.queued = append(c.queued, words(args))
		c.out = resp.AppendSimple(c.out, "QUEUED")
	default:
		return cmd.run(c, words(args))
	}
	return false
}

func (c *session) ping(message string) {
	switch {
	case len(c.subscribed) > 0:
		c.out = resp.AppendArrayHeader(c.out, 2)
		c.out = resp.AppendBulkString(resp.AppendBulkString(c.out, "pong"), message)
	case c.multi:
		c.queued = append(c.queued, []string{"echo", "PONG"})
		c.out = resp.AppendSimple(c.out, "QUEUED")
	case message != "":
		c.out = resp.AppendBulkString(c.out, message)
	default:
		c.out = append(c.out, psync.ReplyPong...)
	}
}

func (c *session) auth(user, password string) {
	o := &c.srv.opt
	switch {
	case o.Password == "" && user == "":
		c.err("ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?")
	case c.login(user, password):
		c.ok()
	default:
		c.err("WRONGPASS invalid username-password pair or user is disabled.")
	}
}

// login authenticates the session if the password is right.
func (c *session) login(user, password string) bool {
	o := &c.srv.opt
	known := user == "" || user == "default" || user == o.User
	right := o.Password == "" && (user == "" || user == "default") ||
		subtle.ConstantTimeCompare([]byte(password), []byte(o.Password)) == 1 && o.Password != ""
	if !known || !right {
		return false
	}
	c.mu.Lock()
	c.authed = true
	c.mu.Unlock()
	return true
}

// hello is HELLO [version [AUTH user password] [SETNAME name]]. There is RESP2
// only, which clients fall back to.
func (c *session) hello(args []string) bool {
	if len(args) > 1 {
		if v, err := strconv.Atoi(args[1]); err != nil || v != 2 {
			c.err("NOPROTO unsupported protocol version")
			return false
		}
	}
	for i := 2; i < len(args); i++ {
		switch left := len(args) - i - 1; {
		case strings.EqualFold(args[i], "AUTH") && left >= 2:
			if !c.login(args[i+1], args[i+2]) {
				c.err("WRONGPASS invalid username-password pair or user is disabled.")
				return false
			}
			i += 2
		case strings.EqualFold(args[i], "SETNAME") && left >= 1:
			c.setName(args[i+1])
			i++
		default:
			c.err(fmt.Sprintf("ERR Syntax error in HELLO option '%.128s'", args[i]))
			return false
		}
	}
	if !c.isAuthed() {
		c.err("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time")
		return false
	}
	c.out = resp.AppendArrayHeader(c.out, 14)
	for _, kv := range [][2]string{{"server", "redis"}, {"version", compatVersion}} {
		c.out = resp.AppendBulkString(resp.AppendBulkString(c.out, kv[0]), kv[1])
	}
	c.out = resp.AppendInt(resp.AppendBulkString(c.out, "proto"), 2)
	c.out = resp.AppendInt(resp.AppendBulkString(c.out, "id"), c.id)
	c.out = resp.AppendBulkString(resp.AppendBulkString(c.out, "mode"), "standalone")
	c.out = resp.AppendBulkString(resp.AppendBulkString(c.out, "role"), "replica")
	c.out = resp.AppendArrayHeader(resp.AppendBulkString(c.out, "modules"), 0)
	return false
}

func (c *session) echo(args []string) bool {
	c.out = resp.AppendBulkString(c.out, args[1])
	return false
}

func (c *session) time([]string) bool {
	now := time.Now()
	c.out = resp.AppendArrayHeader(c.out, 2)
	c.out = resp.AppendBulkString(c.out, strconv.FormatInt(now.Unix(), 10))
	c.out = resp.AppendBulkString(c.out, strconv.Itoa(now.Nanosecond()/1000))
	return false
}

func (c *session) selectDB(args []string) bool {
	if n, err := strconv.Atoi(args[1]); err != nil || n < 0 {
		c.err("ERR invalid DB index")
		return false
	}
	c.ok() // there is nothing in any
	return false
}

func (c *session) quit([]string) bool {
	c.ok()
	return true
}

func (c *session) noPatterns([]string) bool {
	c.err("ERR a Sluice relay has no pattern subscriptions")
	return false
}

// command is COMMAND; redis-cli asks for COMMAND DOCS when it starts.
func (c *session) command(args []string) bool {
	if len(args) > 1 && strings.EqualFold(args[1], "COUNT") {
		c.out = resp.AppendInt(c.out, int64(len(commands)))
	} else {
		c.out = resp.AppendArrayHeader(c.out, 0)
	}
	return false
}

// config is CONFIG: REWRITE, which a Sentinel sends behind SLAVEOF, does nothing.
// After a restart the configured master is asked, and if that is a replica, its
// master.
func (c *session) config(args []string) bool {
	switch strings.ToLower(args[1]) {
	case "rewrite", "resetstat":
		c.ok()
	case "get":
		c.out = resp.AppendArrayHeader(c.out, 0)
	default:
		c.err("ERR a Sluice relay is configured by its own file and flags")
	}
	return false
}

func (c *session) publish(args []string) bool {
	c.out = resp.AppendInt(c.out, int64(c.srv.hub.publish([]byte(args[1]), []byte(args[2]))))
	return false
}

// failover is FAILOVER, which only a master has.
func (c *session) failover([]string) bool {
	c.err("ERR FAILOVER is for the master; a Sluice relay holds no data set and cannot become one")
	return false
}

// replicaOf is SLAVEOF and REPLICAOF: the relay goes over to another master.
func (c *session) replicaOf(args []string) bool {
	host, port := args[1], args[2]
	if strings.EqualFold(host, "NO") && strings.EqualFold(port, "ONE") {
		c.err("ERR a Sluice relay holds no data set and cannot become a master: promote a replica, then REPLICAOF that one")
		return false
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
		c.err("ERR Invalid master port")
		return false
	}
	addr := net.JoinHostPort(host, port)
	if c.srv.feeds(addr) {
		c.err("ERR " + addr + " is a replica of this relay, which would wait for itself. Promote it first (REPLICAOF NO ONE)")
		return false
	}
	c.srv.log.Info("told to go over to another master", logAddr("master", addr), logAddr("by", c.conn.RemoteAddr().String()))
	c.srv.up.SetMaster(addr)
	c.ok()
	return false
}

// feeds reports whether addr is one of our replicas.
func (s *Server) feeds(addr string) bool {
	for _, r := range s.Status().Replicas {
		if r.Address == addr {
			return true
		}
	}
	return false
}

// sluice is SLUICE RESYNC host:port: the replica that says it can be reached there
// is synced in full when it comes next; if it is here, it is disconnected for that.
// SLUICE PENDING host:port tells whether that is still to come.
func (c *session) sluice(args []string) bool {
	what, addr := strings.ToUpper(args[1]), args[2]
	if _, _, err := net.SplitHostPort(addr); err != nil || what != "RESYNC" && what != "PENDING" {
		c.err("ERR syntax error: SLUICE RESYNC|PENDING host:port")
		return false
	}
	if what == "PENDING" {
		c.out = resp.AppendInt(c.out, int64(boolInt(c.srv.peers.isForced(addr))))
		return false
	}
	c.srv.peers.force(addr, time.Now())
	for _, o := range c.srv.list() {
		if o.isReplica() && o.peerAddr() == addr {
			o.drop(errKilled)
		}
	}
	c.ok()
	return false
}

func (c *session) begins([]string) bool {
	if c.multi {
		c.err("ERR MULTI calls can not be nested")
		return false
	}
	c.multi = true
	c.ok()
	return false
}

func (c *session) discard([]string) bool {
	if !c.multi {
		c.err("ERR DISCARD without MULTI")
		return false
	}
	c.multi, c.failed, c.queued = false, false, nil
	c.ok()
	return false
}

func (c *session) exec([]string) (done bool) {
	if !c.multi {
		c.err("ERR EXEC without MULTI")
		return false
	}
	queued, failed := c.queued, c.failed
	c.multi, c.failed, c.queued = false, false, nil
	if failed {
		c.err("EXECABORT Transaction discarded because of previous errors.")
		return false
	}
	c.out = resp.AppendArrayHeader(c.out, len(queued))
	for _, args := range queued {
		done = commands[strings.ToLower(args[0])].run(c, args) || done
	}
	return done
}
