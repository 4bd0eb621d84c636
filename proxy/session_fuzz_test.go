package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/localredis"
)

// A session through the proxy must be, byte for byte, what it is without one.
// The tests here play the same random session to a bare redis-server and to a
// proxy in front of another, and compare.

// sessionRig is a bare server and one behind two proxies.
type sessionRig struct {
	bare, behind *localredis.Server
	control      *raw     // to bare
	proxies      []string // addresses: usual limits, and limits that are reached at once
	runs         int
	commands     int // that were played
}

func newSessionRig(t testing.TB, binary string) *sessionRig {
	t.Helper()
	g := &sessionRig{bare: startRedis(t, localredis.Options{Binary: binary}), behind: startRedis(t, localredis.Options{Binary: binary})}
	for _, o := range []proxy.Options{{}, {MaxInFlight: 2, OutputHighWater: 1 << 10}} {
		o.Master, o.Loops, o.HealthTimeout, o.ConnectTimeout = g.behind.Addr(), 1, time.Minute, time.Minute
		o.Listeners = []proxy.Listener{{Network: "tcp", Address: "127.0.0.1:0", Consistency: proxy.ConsistencyMaster}}
		c := &cluster{master: g.behind}
		var err error
		if c.srv, err = proxy.New(o); err != nil {
			t.Fatal(err)
		}
		if err := c.srv.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			done, cancel := context.WithTimeout(context.Background(), 2*time.Second)
			defer cancel()
			_ = c.srv.Close(done)
		})
		c.await(t, "the master", func(s proxy.Status) bool { return s.Ready })
		addr := c.srv.Addrs()[0].String()
		g.proxies = append(g.proxies, addr)
		awaitVersion(t, addr, g.bare.Addr())
	}
	g.control = dialRaw(t, g.bare.Addr())
	return g
}

// awaitVersion waits until HELLO of the proxy tells the version of the server.
func awaitVersion(t testing.TB, addr, bare string) {
	t.Helper()
	want := helloOf(t, bare)
	for deadline := time.Now().Add(10 * time.Second); helloOf(t, addr) != want; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("HELLO is answered with %q, want %q", helloOf(t, addr), want)
		}
	}
}

func helloOf(t testing.TB, addr string) string {
	t.Helper()
	r := dialRaw(t, addr)
	defer func() { _ = r.Close() }()
	r.cmd("HELLO")
	got, err := r.reply()
	if err != nil {
		t.Fatal(err)
	}
	return string(alike([]byte(got)))
}

var (
	helloID      = regexp.MustCompile(`(\$2\r\nid\r\n):\d+`)
	unsubscribed = regexp.MustCompile(`(unsubscribe\r\n)\$\d+\r\n(c\d+(:\d)?\*?|extra)\r\n`)
)

// alike makes replies alike that differ between any two servers: HELLO tells
// the number of a client, and UNSUBSCRIBE without arguments takes the channels
// in the order of a hash table.
func alike(b []byte) []byte {
	return unsubscribed.ReplaceAll(helloID.ReplaceAll(b, []byte("$1:0")), []byte("$1"))
}

// play sends the session to the bare server and to the proxy and compares.
func (g *sessionRig) play(t *testing.T, input []byte) {
	t.Helper()
	g.runs++
	g.control.t = t
	src := &source{b: input, run: g.runs}
	addr := g.proxies[src.n(len(g.proxies))]
	steps := src.script()
	for _, s := range steps {
		g.commands += len(s.notes)
	}
	want := g.playBare(t, steps)
	var all []byte
	for _, w := range want {
		all = append(all, w...)
	}
	got, err := playProxy(addr, steps, want)
	all, got = alike(all), alike(got)
	if err != nil || !bytes.Equal(got, all) {
		at := 0
		for at < min(len(got), len(all)) && got[at] == all[at] {
			at++
		}
		from := max(0, at-200)
		t.Fatalf("%v\nthe proxy's replies differ from byte %d on\nredis: …%.600q\nproxy: …%.600q\nsession:\n%s",
			err, at, all[min(from, len(all)):], got[min(from, len(got)):], describe(steps))
	}
	g.canary(t, addr, steps)
}

// canary is a session that must find everything fresh, whatever the one before
// has done to the connections that it shared or gave back.
func (g *sessionRig) canary(t *testing.T, addr string, steps []step) {
	r := dialRaw(t, addr)
	defer func() { _ = r.Close() }()
	r.cmd("WATCH", "canary")
	r.cmd("UNWATCH")
	r.cmd("SET", "canary", "1")
	r.cmd("WATCH", "canary")
	r.cmd("MULTI")
	r.cmd("CLIENT", "GETNAME")
	r.cmd("CLIENT", "INFO")
	r.cmd("EXEC")
	r.cmd("PING")
	r.cmd("GET", "canary")
	var got strings.Builder
	for range 10 {
		s, err := r.reply()
		if err != nil {
			t.Fatalf("the canary: %v after %q; session before:\n%s", err, got.String(), describe(steps))
		}
		got.WriteString(s)
	}
	want := regexp.MustCompile(`(?s)^\+OK\r\n\+OK\r\n\+OK\r\n\+OK\r\n\+OK\r\n\+QUEUED\r\n\+QUEUED\r\n` +
		`\*2\r\n(\$-1|\$0\r\n)\r\n\$\d+\r\n.* name= .* flags=x (capa= )?db=0 sub=0 psub=0 (ssub=0 )?multi=2 .* user=default redir=-1 resp=2.*\n\r\n` +
		`\+PONG\r\n\$1\r\n1\r\n$`)
	if !want.MatchString(got.String()) {
		t.Fatalf("the canary got %q; session before:\n%s", got.String(), describe(steps))
	}
}

// step is a part of a session's bytes that is sent in one write.
type step struct {
	data   []byte
	blocks bool // may block the client for a moment
	settle bool // the replies so far are awaited before the next step
	notes  []string
}

func describe(steps []step) string {
	var b strings.Builder
	for i, s := range steps {
		fmt.Fprintf(&b, "%d:", i)
		for _, n := range s.notes {
			fmt.Fprintf(&b, " [%s]", n)
		}
		fmt.Fprintf(&b, " %.300q settle=%v\n", s.data, s.settle)
	}
	return b.String()
}

// playBare plays to the bare server and returns the replies to each step. A
// reply is known to be there once a later command of another client has been
// answered twice: Redis writes the replies of one round of its loop before it
// begins the next.
func (g *sessionRig) playBare(t *testing.T, steps []step) [][]byte {
	t.Helper()
	c, err := net.Dial("tcp", g.bare.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	deadline := time.Now().Add(30 * time.Second)
	_ = g.control.SetDeadline(deadline)
	var out [][]byte
	for _, s := range steps {
		if _, err := c.Write(s.data); err != nil && !isGone(err) {
			t.Fatal(err)
		}
		for range 2 + len(s.data)/8192 {
			g.control.do("+PONG\r\n", "PING")
		}
		if s.blocks {
			awaitInfo(t, g.bare, "blocked_clients:0\r\n")
			g.control.do("+PONG\r\n", "PING")
		}
		got := available(t, c)
		for len(got) >= redisWritesAtOnce && g.owes(t, c) {
			got = append(got, available(t, c)...)
			if time.Now().After(deadline) {
				t.Fatalf("Redis does not write its replies: %d bytes have come", len(got))
			}
		}
		out = append(out, append(got, available(t, c)...))
	}
	_ = c.(*net.TCPConn).CloseWrite()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	rest, err := io.ReadAll(c)
	if err != nil && !isGone(err) {
		t.Fatal(err)
	}
	out[len(out)-1] = append(out[len(out)-1], rest...)
	return out
}

// redisWritesAtOnce is how many bytes Redis writes to a client in one round of
// its loop (NET_MAX_WRITES_PER_EVENT); what is left it drops when the client's
// half of the connection ends.
const redisWritesAtOnce = 64 << 10

// owes reports whether the bare server has replies for c that it has not written.
func (g *sessionRig) owes(t *testing.T, c net.Conn) bool {
	t.Helper()
	g.control.cmd("CLIENT", "LIST")
	list, err := g.control.reply()
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(list, " addr="+c.LocalAddr().String()+" ")
	line, _, _ = strings.Cut(line, "\n")
	return line != "" && !strings.Contains(line, " obl=0 oll=0 ")
}

func isGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// available reads what the kernel has received for c.
func available(t *testing.T, c net.Conn) []byte {
	t.Helper()
	rc, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	buf := make([]byte, 64<<10)
	err = rc.Read(func(fd uintptr) bool {
		for {
			n, err := syscall.Read(int(fd), buf)
			if n <= 0 || err != nil {
				return true
			}
			out = append(out, buf[:n]...)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// playProxy plays to the proxy, awaiting what the bare server has answered.
func playProxy(addr string, steps []step, want [][]byte) ([]byte, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	p := &collector{c: c}
	values, blocks := 0, false
	var due []byte
	for i, s := range steps {
		n, size := countValues(append(due, want[i]...))
		values += n
		due = append(due, want[i]...)[size:]
		blocks = blocks || s.blocks
		if _, err := c.Write(s.data); err != nil && !isGone(err) {
			return p.got, err
		}
		if s.settle {
			if err := p.await(values); err != nil {
				return p.got, fmt.Errorf("replies to step %d: %w", i, err)
			}
		}
	}
	// A client that ends its half of the connection gets what is due, unless
	// it may be blocked, since then there is nobody to pop for.
	if blocks {
		if err := p.await(values); err != nil {
			return p.got, fmt.Errorf("last replies: %w", err)
		}
	}
	_ = c.(*net.TCPConn).CloseWrite()
	rest, err := io.ReadAll(c)
	p.got = append(p.got, rest...)
	if err != nil && !isGone(err) {
		return p.got, fmt.Errorf("read to the end: %w", err)
	}
	return p.got, nil
}

// collector gathers replies and counts values.
type collector struct {
	c       net.Conn
	got     []byte
	scanned int
	values  int
}

func (p *collector) await(values int) error {
	buf := make([]byte, 64<<10)
	for {
		for p.scanned < len(p.got) {
			n, _, err := resp.ScanReply(p.got[p.scanned:])
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			p.scanned += n
			p.values++
		}
		if p.values >= values {
			return nil
		}
		n, err := p.c.Read(buf)
		p.got = append(p.got, buf[:n]...)
		if err != nil {
			return fmt.Errorf("%d of %d values: %w", p.values, values, err)
		}
	}
}

// countValues returns the number of complete values in b and their length.
func countValues(b []byte) (values, size int) {
	for size < len(b) {
		n, _, err := resp.ScanReply(b[size:])
		if err != nil || n == 0 {
			break
		}
		size += n
		values++
	}
	return values, size
}

// source makes a session of random bytes.
type source struct {
	b     []byte
	run   int
	multi bool // between MULTI and EXEC, as far as one can tell without the replies
	skip  bool // CLIENT REPLY SKIP was among the commands
}

// n returns a number below limit, 0 once the bytes are used up.
func (s *source) n(limit int) int {
	if len(s.b) == 0 {
		return 0
	}
	v := int(s.b[0])
	s.b = s.b[1:]
	return v % limit
}

func (s *source) pick(words ...string) string { return words[s.n(len(words))] }

// key names are new in each run, so that no run sees what is left of another.
func (s *source) key() string     { return fmt.Sprintf("k%d:%d", s.run, s.n(3)) }
func (s *source) list() string    { return fmt.Sprintf("l%d:%d", s.run, s.n(2)) }
func (s *source) channel() string { return fmt.Sprintf("c%d:%d", s.run, s.n(3)) }
func (s *source) value() string {
	switch s.n(24) {
	case 0:
		return strings.Repeat("v", 5000)
	case 1:
		return strings.Repeat("w", 70_000)
	case 2:
		if s.n(8) == 0 {
			return strings.Repeat("u", 1_200_000)
		}
		return "-LOADING x\r\n"
	case 3:
		return ""
	case 4:
		return "+\r\n:"
	}
	return strconv.Itoa(s.n(100))
}

const maxCommands = 80

// script makes the steps of a session.
func (s *source) script() []step {
	var steps []step
	cur := step{}
	cut := func() {
		cur.settle = s.n(2) == 0
		steps = append(steps, cur)
		cur = step{}
	}
	for count := 0; len(s.b) > 0 && count < maxCommands; count++ {
		cmds := s.commands()
		for _, cmd := range cmds {
			data := s.encode(cmd)
			cur.notes = append(cur.notes, fmt.Sprintf("%.60q", cmd))
			cur.blocks = cur.blocks || mayBlock(cmd[0])
			if len(data) > 1 && s.n(4) == 0 { // inside the command
				at := 1 + (s.n(256)<<8|s.n(256))%(len(data)-1)
				cur.data = append(cur.data, data[:at]...)
				cut()
				cur.blocks = mayBlock(cmd[0])
				data = data[at:]
			}
			cur.data = append(cur.data, data...)
		}
		if s.n(3) == 0 || len(cur.data) > 8<<10 {
			cut()
		}
		if cmds[len(cmds)-1][0] == "QUIT" {
			break // what follows would make the kernel reset the connection, with any server
		}
		if s.n(60) == 59 {
			cur.data = append(cur.data, s.pick("*x\r\n", "*1\r\n!x\r\n", "*1\r\n$-5\r\n", "get \"a\r\n", "*2\r\n$3\r\nGET\r\n$x\r\n")...)
			cur.notes = append(cur.notes, "malformed")
			break
		}
	}
	steps = append(steps, cur)
	return steps
}

func mayBlock(name string) bool {
	switch strings.ToLower(name) {
	case "blpop", "brpop", "blmove", "bzpopmin", "wait", "xread":
		return true
	}
	return false
}

// encode makes an array, or an inline request where that is possible.
func (s *source) encode(cmd []string) []byte {
	if s.n(5) == 0 {
		plain := true
		for _, a := range cmd {
			plain = plain && a != "" && len(a) < 200 && !strings.ContainsAny(a, " \"'\r\n\t\x00")
		}
		if plain && cmd[0][0] != '*' {
			before := s.pick("", "\r\n", "*0\r\n", "  ")
			if s.skip && strings.HasSuffix(before, "\n") {
				before = "" // Redis takes the empty request for the one whose reply is skipped
			}
			return []byte(before + strings.Join(cmd, s.pick(" ", "  ")) + s.pick("\r\n", "\n", " \r\n"))
		}
		quoted := make([]string, len(cmd))
		for i, a := range cmd {
			quoted[i] = strconv.Quote(a)
			if len(a) > 200 {
				return resp.AppendCommand(nil, cmd...)
			}
		}
		return []byte(strings.Join(quoted, " ") + "\r\n")
	}
	return resp.AppendCommand(nil, cmd...)
}

// commands returns the next command, or a few that belong together.
func (s *source) commands() [][]string {
	one := func(words ...string) [][]string { return [][]string{words} }
	cmds := s.group(one)
	if s.n(40) == 39 { // wrong arity
		c := &cmds[s.n(len(cmds))]
		if strings.EqualFold((*c)[0], "hello") {
			return cmds // its options fail in another order
		}
		if len(*c) > 1 && s.n(2) == 0 {
			*c = (*c)[:len(*c)-1]
		} else {
			*c = append(*c, "extra")
		}
	}
	for _, c := range cmds {
		switch strings.ToLower(c[0]) {
		case "multi":
			s.multi = true
		case "exec":
			s.multi = false
		case "discard", "reset":
			s.multi = s.multi && len(c) > 1
		}
	}
	return cmds
}

func (s *source) group(one func(...string) [][]string) [][]string {
	switch s.n(16) {
	case 0, 1, 2:
		return one("SET", s.key(), s.value())
	case 3, 4, 5:
		return one("GET", s.key())
	case 6:
		return s.other(one)
	case 7:
		return s.transaction(one)
	case 8:
		return s.connection(one)
	case 9:
		return s.pubsub(one)
	case 10:
		return s.lists(one)
	case 11:
		return one(s.pick("INCR", "incr", "DECR", "Strlen", "TYPE", "DEL", "EXISTS", "GETDEL", "TTL"), s.key())
	case 12:
		return one("MGET", s.key(), s.key(), s.list())
	case 13:
		return one(s.pick("PING", "PING", "ECHO"), s.pick("a", "", "x y"))
	case 14:
		return one("PING")
	default:
		return s.replyMode(one)
	}
}

func (s *source) lists(one func(...string) [][]string) [][]string {
	switch s.n(7) {
	case 0, 1:
		return one(s.pick("LPUSH", "RPUSH"), s.list(), s.value(), s.value())
	case 2:
		return one("LRANGE", s.list(), s.pick("0", "1", "x"), "-1")
	case 3:
		return one(s.pick("LPOP", "RPOP"), s.list())
	case 4:
		return one(s.pick("BLPOP", "BRPOP"), s.list(), s.list(), "0.01")
	case 5:
		l := s.list()
		return [][]string{{"RPUSH", l, "1", "2", "3"}, {"BLPOP", l, "0.01"}}
	default:
		return one("BLMOVE", s.list(), s.list(), "LEFT", "RIGHT", "0.01")
	}
}

func (s *source) other(one func(...string) [][]string) [][]string {
	switch s.n(16) {
	case 14:
		return one("SCRIPT", s.pick("LOAD", "EXISTS", "NOPE"), s.pick("return 1", "return KEYS", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db"))
	case 15:
		return one("EVALSHA", s.pick("e0e1f9fabfc9d4800c877a703b823ac0578ff8db", "E0E1F9FABFC9D4800C877A703B823AC0578FF8DB", "ffff"), s.pick("0", "x"), s.key())
	case 0:
		return one(s.pick("NOPE", "get2", "sluice", "EXECX"), s.pick("a", "b c"))
	case 1:
		return one("EVAL", s.pick("return 1", "return {1,'a',{2}}", "return redis.error_reply('MY err')", "return redis.status_reply('fine')",
			"return nil", "redis.setresp(3); return redis.call('hgetall',KEYS[1])", "return redis.call('get',KEYS[1])"), "1", s.key())
	case 2:
		return one("HSET", "h"+s.key(), "f", s.value())
	case 3:
		return one("HGETALL", "h"+s.key())
	case 4:
		return one("ZADD", "z"+s.key(), s.pick("1", "1.5", "inf", "x"), "m")
	case 5:
		return one("ZRANGE", "z"+s.key(), "0", "-1", "WITHSCORES")
	case 6:
		return one("ZSCORE", "z"+s.key(), "m")
	case 7:
		return one("SADD", "s"+s.key(), "m")
	case 8:
		return one("SMEMBERS", "s"+s.key())
	case 9:
		return one("OBJECT", s.pick("ENCODING", "HELP", "NOPE"), s.key())
	case 10:
		return one("XADD", "x"+s.key(), s.pick("1-1", "2-1", "0"), "f", s.value())
	case 11:
		return one("XREAD", "BLOCK", "10", "STREAMS", "x"+s.key(), s.pick("0", "1-1"))
	case 12:
		return one("SETRANGE", s.key(), "3", s.value())
	default:
		return one("COMMAND", s.pick("COUNT", "GETKEYS", "NOPE"), s.pick("get", "nope"), s.key())
	}
}

func (s *source) transaction(one func(...string) [][]string) [][]string {
	switch s.n(12) {
	case 0, 1:
		return one("MULTI")
	case 2, 3:
		return one("EXEC")
	case 4:
		return one("DISCARD")
	case 5:
		return one("WATCH", s.key(), s.list())
	case 6:
		return one("UNWATCH")
	case 7:
		k := s.key()
		return [][]string{{"WATCH", k}, {"GET", k}, {"MULTI"}, {"SET", k, s.value()}, {"EXEC"}}
	case 8:
		k := s.key()
		return [][]string{{"WATCH", k}, {"SET", k, "mine"}, {"MULTI"}, {"GET", k}, {"EXEC"}}
	case 9, 10:
		cmds := one("MULTI")
		s.multi = true
		for range s.n(4) {
			cmds = append(cmds, s.group(one)...)
		}
		return append(cmds, []string{s.pick("EXEC", "EXEC", "EXEC", "DISCARD")})
	default:
		return one(s.pick("MULTI", "EXEC", "DISCARD", "UNWATCH"), "x")
	}
}

func (s *source) connection(one func(...string) [][]string) [][]string {
	kind := s.n(16)
	if s.multi && 2 <= kind && kind <= 7 {
		kind = 0 // HELLO within a transaction changes the protocol in the middle of EXEC's reply
	}
	switch kind {
	case 0, 1:
		return one("SELECT", s.pick("0", "1", "2", "15", "16", "x", "-1", "3000000000"))
	case 2, 3:
		return one("HELLO", s.pick("2", "3", "3", "4", "x"))
	case 4:
		return one("HELLO", s.pick("2", "3"), "SETNAME", s.pick("me", "you", "a b"))
	case 5:
		return one("HELLO", "3", s.pick("NOPE", "AUTH", "SETNAME"))
	case 6:
		return one("HELLO", s.pick("2", "3"), "AUTH", s.pick("default", "nobody"), "x")
	case 7:
		return one("HELLO")
	case 8, 9:
		return one("CLIENT", "SETNAME", s.pick("me", "you", "", "a b"))
	case 10, 11:
		return one("CLIENT", "GETNAME")
	case 12:
		if s.n(2) == 0 {
			return one("CLIENT", s.pick("NO-EVICT", "NO-TOUCH"), s.pick("x", "on", "off"))
		}
		return one("CLIENT", s.pick("NOPE", "SETNAME", "GETNAME", "REPLY"), s.pick("x", "y"))
	case 13:
		return one("AUTH", s.pick("x", "default"), s.pick("x", "y"))
	case 14:
		return one(s.pick("AUTH", "CLIENT", "SELECT"))
	default:
		if s.n(6) == 0 {
			return one("QUIT")
		}
		return one("RESET")
	}
}

// pubsub leaves transactions alone: what SUBSCRIBE, or PUBLISH to oneself, adds
// to EXEC's reply there its header does not count, and the proxy does not
// follow it.
func (s *source) pubsub(one func(...string) [][]string) [][]string {
	if s.multi {
		return one("PING")
	}
	switch s.n(10) {
	case 0:
		return one("SUBSCRIBE", s.channel())
	case 1:
		return one("SUBSCRIBE", s.channel(), s.channel(), s.channel())
	case 2:
		return one("PSUBSCRIBE", fmt.Sprintf("c%d*", s.run)) // of two that match, Redis tells in any order
	case 3:
		return one("SSUBSCRIBE", s.channel())
	case 4:
		return one(s.pick("UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"))
	case 5:
		return one(s.pick("UNSUBSCRIBE", "SUNSUBSCRIBE"), s.channel(), s.channel())
	case 6:
		return one("PUNSUBSCRIBE", s.channel()+"*", fmt.Sprintf("c%d*", s.run))
	case 7:
		return one("SPUBLISH", s.channel(), s.value())
	default:
		return one("PUBLISH", s.channel(), s.value())
	}
}

// replyMode leaves transactions alone: there CLIENT REPLY makes EXEC's reply
// lack what its header promises.
func (s *source) replyMode(one func(...string) [][]string) [][]string {
	if s.multi {
		return one("PING")
	}
	mode := s.pick("ON", "ON", "ON", "OFF", "SKIP", "SKIP", "skip", "NOPE")
	s.skip = s.skip || strings.EqualFold(mode, "skip")
	return one("CLIENT", "REPLY", mode)
}

// longRun asks for the long form of a test, one minute and more.
func longRun() bool { return os.Getenv("SLUICE_LONG") != "" }

func randomSession(seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, 20+rng.IntN(400))
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// longCommands is how many commands the long form plays at least.
const longCommands = 100_000

// TestSessionsAreAsWithoutAProxy plays random pipelined sessions, which go to
// and fro between shared and pinned connections. SLUICE_SEED=n plays that of
// one failure again.
func TestSessionsAreAsWithoutAProxy(t *testing.T) {
	g := newSessionRig(t, "")
	from, n := uint64(1), uint64(150)
	if v := os.Getenv("SLUICE_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		from, n = seed, 1
	}
	deadline := time.Now()
	if longRun() {
		deadline = deadline.Add(time.Minute)
		from = uint64(deadline.UnixNano())
	}
	for seed := from; seed < from+n || time.Now().Before(deadline) || longRun() && g.commands < longCommands; seed++ {
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { g.play(t, randomSession(seed)) }) {
			return
		}
	}
	t.Logf("%d sessions, %d commands", g.runs, g.commands)
}

// FuzzSession lets the fuzzer look for sessions that differ.
func FuzzSession(f *testing.F) {
	for seed := range uint64(20) {
		f.Add(randomSession(seed))
	}
	g := newSessionRig(f, "")
	var busy atomic.Bool
	f.Fuzz(func(t *testing.T, b []byte) {
		if !busy.CompareAndSwap(false, true) {
			t.Fatal("two sessions at a time")
		}
		defer busy.Store(false)
		g.play(t, b)
	})
}
