package downstream

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp"
)

// maxName bounds CLIENT SETNAME in bytes.
const maxName = 256

func logAddr(key, addr string) zap.Field { return zap.String(key, addr) }

func (c *session) setName(name string) {
	c.mu.Lock()
	c.name = name[:min(len(name), maxName)]
	c.mu.Unlock()
}

// clientCommand is CLIENT.
func (c *session) clientCommand(args []string) bool {
	switch sub := strings.ToLower(args[1]); {
	case sub == "setname" && len(args) == 3:
		c.setName(args[2])
		c.ok()
	case sub == "getname" && len(args) == 2:
		c.mu.Lock()
		c.out = resp.AppendBulkString(c.out, c.name)
		c.mu.Unlock()
	case sub == "id" && len(args) == 2:
		c.out = resp.AppendInt(c.out, c.id)
	case sub == "setinfo" && len(args) == 4, sub == "no-evict", sub == "no-touch":
		c.ok()
	case sub == "list":
		var b strings.Builder
		for _, o := range c.srv.list() {
			b.WriteString(o.line())
		}
		c.out = resp.AppendBulkString(c.out, b.String())
	case sub == "info":
		c.out = resp.AppendBulkString(c.out, c.line())
	case sub == "kill":
		return c.kill(args[2:])
	default:
		c.err("ERR a Sluice relay knows CLIENT SETNAME, GETNAME, ID, SETINFO, LIST, INFO and KILL")
	}
	return false
}

// kind is the word of CLIENT KILL TYPE.
func (c *session) kind() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state != StateClient:
		return "replica"
	case c.pubsub:
		return "pubsub"
	}
	return "normal"
}

// line is a line of CLIENT LIST.
func (c *session) line() string {
	kind := c.kind()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	return fmt.Sprintf("id=%d addr=%s laddr=%s name=%s age=%d idle=%d flags=%s type=%s\n", c.id,
		c.conn.RemoteAddr(), c.conn.LocalAddr(), c.name, int(now.Sub(c.begun).Seconds()),
		int(now.Sub(time.Unix(0, c.seen.Load())).Seconds()),
		map[string]string{"replica": "S", "pubsub": "P", "normal": "N"}[kind], kind)
}

// killFilter says whom CLIENT KILL is for.
type killFilter struct {
	kind, addr string
	id         int64
	skipMe     bool
}

func (f *killFilter) matches(c, me *session) bool {
	return (!f.skipMe || c != me) && (f.kind == "" || f.kind == c.kind()) &&
		(f.addr == "" || f.addr == c.conn.RemoteAddr().String()) && (f.id == 0 || f.id == c.id)
}

// kill is CLIENT KILL: a Sentinel sends TYPE normal and TYPE pubsub behind
// SLAVEOF. TYPE replica disconnects the replicas, which come back.
func (c *session) kill(args []string) (me bool) {
	f := killFilter{skipMe: true}
	old := len(args) == 1
	if old {
		f.addr, f.skipMe = args[0], false
	} else if !f.parse(args) {
		c.err("ERR syntax error")
		return false
	}
	n := 0
	for _, o := range c.srv.list() {
		if !f.matches(o, c) {
			continue
		}
		n++
		if o == c {
			me = true
		} else {
			o.drop(errKilled)
		}
	}
	switch {
	case old && n == 0:
		c.err("ERR No such client")
	case old:
		c.ok()
	default:
		c.out = resp.AppendInt(c.out, int64(n))
	}
	return me
}

func (f *killFilter) parse(args []string) bool {
	if len(args) == 0 || len(args)%2 != 0 {
		return false
	}
	for i := 0; i < len(args); i += 2 {
		v := strings.ToLower(args[i+1])
		switch strings.ToLower(args[i]) {
		case "type":
			if v == "slave" {
				v = "replica"
			}
			f.kind = v
		case "addr":
			f.addr = v
		case "id":
			id, err := strconv.ParseInt(v, 10, 64)
			if err != nil || id < 1 {
				return false
			}
			f.id = id
		case "skipme":
			f.skipMe = v != "no"
		default:
			return false
		}
	}
	return true
}
