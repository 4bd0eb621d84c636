package proxy

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// replyMode is the state of CLIENT REPLY.
type replyMode uint8

const (
	replyOn   replyMode = iota
	replyOff            // none is wanted
	replySkip           // that of the next command is not wanted
)

// muted reports whether the client wants no reply to the request at hand. It
// must be called once for each request.
func (s *session) muted() bool {
	switch s.silent {
	case replyOff:
		return true
	case replySkip:
		s.silent = replyOn
		return true
	}
	return false
}

// replyError answers a request with an error.
func (s *session) replyError(text string) {
	s.w.stats.failed(text)
	s.reply(resp.AppendError(nil, text))
}

// replyDenied refuses a command.
func (s *session) replyDenied(name string) {
	text := deniedText(name)
	s.w.stats.failed(text)
	s.answer(resp.AppendError(nil, text), route.ReasonDenied)
}

func (s *session) replyOK() { s.reply([]byte("+OK\r\n")) }

// serveLocal answers what concerns the connection between client and proxy.
// It returns false where the session has to wait first.
func (s *session) serveLocal(raw []byte, args resp.Args, it *item, mixed bool) bool {
	if it.kind != route.Denied && it.cmd != nil && !it.cmd.ArityOK(args.Len()) {
		return s.forwardOther(raw, args, it) // the node words the error
	}
	switch it.kind {
	case route.Denied:
		s.replyDenied(it.cmd.Name)
	case route.Ping:
		return s.ping(raw, args, it, mixed)
	case route.Echo:
		s.reply(resp.AppendBulk(nil, args.At(1)))
	case route.Quit:
		s.replyOK()
		s.end()
	case route.Reset:
		if s.inFlight > 0 {
			s.stall = stallDrained
			return false
		}
		skip := s.silent == replySkip
		s.resetState()
		if !skip {
			s.reply([]byte("+RESET\r\n"))
		}
	case route.Select:
		return s.selectDB(args)
	case route.Auth:
		return s.auth(args)
	case route.Hello:
		return s.hello(args)
	case route.Client:
		return s.client(raw, args, it)
	}
	return true
}

// ping is PING. The master answers, since a client asks thereby whether Redis
// is well: MISCONF, BUSY and a hanging node are to be seen. Where there
// is no master the answer is ours, and tells that the proxy lives.
func (s *session) ping(raw []byte, args resp.Args, it *item, mixed bool) bool {
	switch {
	case args.Len() > 2: // PING takes none or one
		return s.forwardOther(raw, args, it)
	case s.lanes.masterReads() != nil:
		read := *it
		read.kind = route.MasterRead
		return s.forward(raw, args, &read, mixed)
	case args.Len() == 2:
		s.reply(resp.AppendBulk(nil, args.At(1)))
	default:
		s.reply([]byte("+PONG\r\n"))
	}
	return true
}

// kill sends SCRIPT KILL or FUNCTION KILL on a connection that carries nothing
// else: on the shared one it would wait for the very script that it is to end.
func (s *session) kill(raw []byte, it *item) bool {
	if s.inFlight > 0 {
		s.stall = stallDrained
		return false
	}
	p := s.lanes.control()
	if p == nil && s.hold() {
		return false
	}
	r := s.w.newRequest(s)
	r.cmd, r.kind, r.Class = it.cmd, it.kind, backend.Other
	r.mute = s.muted()
	s.push(r)
	if p == nil {
		r.fail(textNoMaster)
		return true
	}
	s.place(r, elsewhere)
	s.w.stats.routed[route.ReasonOther]++
	p.Send(&r.Request, raw)
	return true
}

// forwardOther sends a request that the proxy would answer itself to the
// master, because the answer is an error.
func (s *session) forwardOther(raw []byte, args resp.Args, it *item) bool {
	if !s.authed {
		s.replyError(fmt.Sprintf("ERR wrong number of arguments for '%s' command", it.cmd.Name))
		return true
	}
	other := *it
	other.kind = route.Other
	return s.forward(raw, args, &other, false)
}

// resetState is what RESET does (resetCommand).
func (s *session) resetState() {
	s.name, s.silent = nil, replyOn
	s.noEvict, s.noTouch = false, false
	s.authed = s.access.open()
	s.setIdentity(s.access.fresh())
}

// selectDB is SELECT: shared connections are per database.
func (s *session) selectDB(args resp.Args) bool {
	if s.inFlight > 0 {
		s.stall = stallDrained
		return false
	}
	n, ok := resp.ParseLongLong(args.At(1))
	switch {
	case !ok:
		s.replyError("ERR value is not an integer or out of range")
		return true
	case n != int64(int32(n)):
		s.replyError("ERR value is out of range, value must between -2147483648 and 2147483647")
		return true
	case n < 0:
		s.replyError("ERR DB index is out of range")
		return true
	}
	id := s.id
	id.DB, id.SelectFirst = int(n), false
	ln := s.w.lanesFor(id)
	p := ln.write()
	if n == 0 || ln.verified || p == nil && n < defaultDatabases {
		s.setIdentity(id)
		s.replyOK()
		return true
	}
	if p == nil {
		if s.hold() {
			return false
		}
		s.replyError(textNoMaster)
		return true
	}
	s.await(p, func(err error) {
		if err != nil {
			s.w.dropLanes(ln) // or its rest would answer the next SELECT of this database
			s.replyError(setupError(err))
			return
		}
		ln.verified = true
		s.setIdentity(id)
		s.replyOK()
	})
	return true
}

// defaultDatabases is Redis's default for the setting databases.
const defaultDatabases = 16

// await stalls the session until p is connected or has failed.
func (s *session) await(p *backend.Pipeline, fn func(error)) {
	s.stall = stallAnswer
	p.WhenReady(func(err error) {
		if s.closed || s.stall != stallAnswer {
			return
		}
		s.stall = stallNone
		fn(err)
		s.starved = s.conn.Buffered() == 0 // no OnData may follow to find it out
		s.finish()
		s.update()
	})
}

// setupError words why a connection could not be set up, in the node's own
// words where it gave any.
func setupError(err error) string {
	var re *backend.ReplyError
	if errors.As(err, &re) {
		return re.Line
	}
	return textNoMaster
}

// auth is AUTH [user] password.
func (s *session) auth(args resp.Args) bool {
	if args.Len() > 3 {
		s.replyError("ERR syntax error")
		return true
	}
	var user string
	switch {
	case args.Len() == 3:
		user = string(args.At(1))
	case s.access.mode == AuthNone:
		s.replyError(textNoPassword)
		return true
	case s.access.mode == AuthStatic:
		user = defaultUserName
	}
	return s.login(user, string(args.At(args.Len()-1)), s.replyOK)
}

// login verifies credentials at the master, every time anew, since a password
// may have been changed there. done is called after a success.
func (s *session) login(user, password string, done func()) bool {
	if s.access.mode != AuthPassthrough {
		return s.loginHere(user, password, done)
	}
	if s.inFlight > 0 {
		s.stall = stallDrained
		return false
	}
	m := s.w.view.Master
	if m == nil || s.w.paused {
		if s.hold() {
			return false
		}
		s.replyError(textNoMaster)
		return true
	}
	id := s.id
	// Where it was not a user of its own that chose the database, it need not
	// be the new one that chooses it again.
	id.SelectFirst = id.DB != 0 && (!id.Authenticated() || id.SelectFirst || s.w.opt.Password != "")
	id.User, id.Password = user, password
	p := s.w.newPipeline(m, id, true)
	p.WhenReady(func(error) {
		if s.closed {
			p.Close(backend.ErrRelease) // nobody asks for the answer any more
		}
	})
	s.await(p, func(err error) {
		if err != nil {
			s.authFailed()
			p.Close(backend.ErrRelease)
			s.replyError(setupError(err))
			return
		}
		s.w.givePinned(id, p)
		s.authed = true
		s.setIdentity(id)
		done()
	})
	return true
}

// hello is HELLO [version [AUTH user password] [SETNAME name]] (helloCommand).
func (s *session) hello(args resp.Args) bool {
	id := s.id
	if args.Len() > 1 {
		v, ok := resp.ParseLongLong(args.At(1))
		switch {
		case !ok:
			s.replyError("ERR Protocol version is not an integer or out of range")
			return true
		case v < 2 || v > 3:
			s.replyError("NOPROTO unsupported protocol version")
			return true
		}
		id.Proto = int(v)
	}
	var user, password string
	name, login := s.name, false
	for i := 2; i < args.Len(); i++ {
		switch opt := strings.ToLower(string(args.At(i))); {
		case opt == "auth" && i+2 < args.Len():
			user, password, login = string(args.At(i+1)), string(args.At(i+2)), true
			i += 2
		case opt == "setname" && i+1 < args.Len():
			i++
			name = append([]byte(nil), args.At(i)...)
			if !validName(name) {
				s.replyError(badName)
				return true
			}
		default:
			s.replyError(fmt.Sprintf("ERR Syntax error in HELLO option '%s'", args.At(i)))
			return true
		}
	}
	finish := func() {
		id.User, id.Password, id.SelectFirst = s.id.User, s.id.Password, s.id.SelectFirst
		s.name = name
		s.setIdentity(id)
		s.reply(s.helloReply())
	}
	switch {
	case login:
		return s.login(user, password, finish)
	case !s.authed:
		s.replyError("NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> " +
			"option can be used to authenticate the client and select the RESP protocol version at the same time")
	case s.inFlight > 0:
		s.stall = stallDrained
		return false
	default:
		finish()
	}
	return true
}

const badName = "ERR Client names cannot contain spaces, newlines or special characters."

// validName is validateClientName.
func validName(name []byte) bool {
	for _, c := range name {
		if c < '!' || c > '~' {
			return false
		}
	}
	return true
}

// client serves the subcommands of CLIENT that clients send when they connect;
// the rest concerns a connection of the node and pins.
func (s *session) client(raw []byte, args resp.Args, it *item) bool {
	sub := strings.ToLower(string(args.At(1)))
	switch {
	case sub == "setname" && args.Len() == 3:
		if !validName(args.At(2)) {
			s.replyError(badName)
			return true
		}
		s.noteClient(args)
		s.replyOK()
	case sub == "getname" && args.Len() == 2:
		if len(s.name) == 0 {
			s.reply(resp.AppendNull(nil, s.id.Proto))
		} else {
			s.reply(resp.AppendBulk(nil, s.name))
		}
	case sub == "setinfo" && s.isInfo(args):
		s.replyOK()
	case sub == "capa" && args.Len() > 2 && s.w.srv.isValkey(8, 0):
		// Valkey: a client that could be redirected by a replica. It meets none here.
		s.replyOK()
	case s.keepsFlag(sub, args):
		s.noteClient(args)
		s.replyOK()
	case isNaming(args): // anything else of these is an error, which the node words
		return s.forwardOther(raw, args, it)
	case sub == "maint_notifications":
		// The node would announce its maintenance on this very connection. Clients
		// take this error, a server's that does not know the command, for a no.
		s.replyError(fmt.Sprintf("ERR unknown subcommand '%.128s'. Try CLIENT HELP.", args.At(1)))
	case sub == "reply" && args.Len() == 3:
		if replyModeOf(args) == "" {
			return s.forwardOther(raw, args, it)
		}
		s.clientReply(args)
	default:
		return s.pinFor(raw, args, it)
	}
	return true
}

// replyModeOf returns on, off or skip if a CLIENT command sets the reply mode.
func replyModeOf(args resp.Args) string {
	if args.Len() != 3 || !strings.EqualFold(string(args.At(1)), "reply") {
		return ""
	}
	switch mode := strings.ToLower(string(args.At(2))); mode {
	case "on", "off", "skip":
		return mode
	}
	return ""
}

// clientReply is CLIENT REPLY. It must never reach a node: a connection that
// does not answer cannot be followed.
func (s *session) clientReply(args resp.Args) {
	switch replyModeOf(args) {
	case "on":
		s.silent = replyOn
		s.replyOK()
	case "off":
		s.silent = replyOff
	case "skip":
		if s.silent == replyOn {
			s.silent = replySkip
		}
	}
}

// isNaming reports whether a CLIENT command concerns the name only, which the
// proxy keeps itself.
func isNaming(args resp.Args) bool {
	if args.Len() < 2 {
		return true
	}
	sub := strings.ToLower(string(args.At(1)))
	return sub == "setname" || sub == "getname" || sub == "setinfo" || sub == "no-evict" || sub == "no-touch"
}

// isInfo reports whether a master accepts a CLIENT SETINFO, which changes nothing
// but what CLIENT LIST shows.
func (s *session) isInfo(args resp.Args) bool {
	if v := s.w.srv.serverVersion(); args.Len() != 4 || v != unknownVersion && !versionAtLeast(v, 7, 2) {
		return false
	}
	option := strings.ToLower(string(args.At(2)))
	return (option == "lib-name" || option == "lib-ver") && validName(args.At(3))
}

// keepsFlag reports whether a CLIENT command only sets a flag that is kept for
// the session's own connections. A master that does not know the command says
// so itself.
func (s *session) keepsFlag(sub string, args resp.Args) bool {
	if args.Len() != 3 || !strings.EqualFold(string(args.At(2)), "on") && !strings.EqualFold(string(args.At(2)), "off") {
		return false
	}
	switch sub {
	case "no-evict":
		return versionAtLeast(s.w.srv.serverVersion(), 7, 0)
	case "no-touch":
		return versionAtLeast(s.w.srv.serverVersion(), 7, 2)
	}
	return false
}

// versionAtLeast compares the first two numbers of a version.
func versionAtLeast(v string, major, minor int) bool {
	parts := strings.SplitN(v, ".", 3)
	a, err := strconv.Atoi(parts[0])
	if err != nil || len(parts) < 2 {
		return false
	}
	b, err := strconv.Atoi(parts[1])
	return err == nil && (a > major || a == major && b >= minor)
}

// noteClient remembers what CLIENT SETNAME, NO-EVICT and NO-TOUCH set.
func (s *session) noteClient(args resp.Args) {
	if args.Len() != 3 {
		return
	}
	if sub := strings.ToLower(string(args.At(1))); s.keepsFlag(sub, args) {
		on := strings.EqualFold(string(args.At(2)), "on")
		if sub == "no-evict" {
			s.noEvict = on
		} else {
			s.noTouch = on
		}
		return
	}
	if args.Len() == 3 && strings.EqualFold(string(args.At(1)), "setname") && validName(args.At(2)) {
		s.name = append([]byte(nil), args.At(2)...)
	}
}

// atoi parses what the node is going to check itself.
func atoi(b []byte) int {
	n, _ := strconv.Atoi(string(b))
	return n
}
