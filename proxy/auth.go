package proxy

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/resp"
)

// Auth says who vouches for clients.
type Auth string

// The modes.
const (
	// AuthPassthrough has the master check each login; where Options.Password is
	// set a client must log in.
	AuthPassthrough Auth = "passthrough"
	// AuthStatic checks logins by Options.Users; every client must log in.
	AuthStatic Auth = "static"
	// AuthNone lets every client in, with the credentials of the options.
	AuthNone Auth = "none"
)

// AuthModes returns the modes that a [Listener] may have.
func AuthModes() []Auth { return []Auth{AuthPassthrough, AuthStatic, AuthNone} }

// User is a user of [AuthStatic].
type User struct {
	Name   string              // "default" is whom AUTH with a password alone means
	Hashes [][sha256.Size]byte // SHA-256 of the passwords, any of which will do
	// Upstream credentials of this user's connections. Without a password they
	// are those of the options.
	UpstreamUser, UpstreamPassword string
}

// Redis's own words (authCommand, ACLAuthenticateUser).
const (
	textWrongPass    = "WRONGPASS invalid username-password pair or user is disabled."
	textNoPassword   = "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?"
	textAuthInMulti  = "ERR AUTH and HELLO with AUTH are not possible inside a transaction here. Log in before MULTI"
	defaultUserName  = "default"
	resetReply       = "+RESET\r\n"
	unknownUserCheck = "no password has this for its hash"
)

// access is who may use a listener, and as whom. It never changes: a reload
// makes a new one, which holds for new clients.
type access struct {
	mode  Auth
	own   backend.Identity // the options' credentials
	users map[string]*User
}

func newAccess(mode Auth, o *Options) *access {
	a := &access{mode: mode, users: make(map[string]*User, len(o.Users))}
	if o.Password != "" {
		a.own.User, a.own.Password = o.User, o.Password
	}
	for i := range o.Users {
		a.users[o.Users[i].Name] = &o.Users[i]
	}
	return a
}

// open reports whether a client need not log in: our own credentials are lent
// to nobody unless the mode says so.
func (a *access) open() bool {
	return a.mode == AuthNone || a.mode == AuthPassthrough && a.own.Password == ""
}

// fresh is the identity of a client that has not logged in.
func (a *access) fresh() backend.Identity {
	id := backend.Identity{Proto: 2}
	if a.mode == AuthNone {
		id.User, id.Password = a.own.User, a.own.Password
	}
	return id
}

// check judges a login of a mode in which the master does not, and returns the
// credentials for the nodes. It takes as long for an unknown user as for a
// wrong password.
func (a *access) check(user, password string) (up backend.Identity, ok bool) {
	if a.mode == AuthNone { // as Redis with a default user that needs no password
		return a.own, user == defaultUserName
	}
	u := a.users[user]
	hashes := [][sha256.Size]byte{sha256.Sum256([]byte(unknownUserCheck))}
	if u != nil {
		hashes = u.Hashes
	}
	sum, same := sha256.Sum256([]byte(password)), 0
	for i := range hashes {
		same |= subtle.ConstantTimeCompare(hashes[i][:], sum[:])
	}
	switch {
	case u == nil || same == 0:
		return up, false
	case u.UpstreamPassword != "":
		return backend.Identity{User: u.UpstreamUser, Password: u.UpstreamPassword}, true
	}
	return a.own, true
}

// loginHere is login where the proxy itself checks.
func (s *session) loginHere(user, password string, done func()) bool {
	if s.inFlight > 0 {
		s.stall = stallDrained
		return false
	}
	up, ok := s.access.check(user, password)
	if !ok {
		s.authFailed()
		s.replyError(textWrongPass)
		return true
	}
	id := s.id
	id.User, id.Password = up.User, up.Password
	s.authed = true
	s.setIdentity(id)
	done()
	return true
}

// authFailed counts and logs a login that has failed. What the client has sent
// is not logged: people type a password where the user belongs.
func (s *session) authFailed() {
	s.w.stats.authFailures++
	s.w.srv.authLog.warn("a client's login has failed",
		zap.String("client", s.from()), zap.String("listener", s.listener.Address), zap.String("auth", string(s.access.mode)))
}

// authPinned serves what concerns logins on a session's own connection to the
// master, where the node must not judge the client's credentials. It returns
// the request to send on, nil where there is none; ok is false where the
// request has to come again.
func (s *session) authPinned(args resp.Args) (raw []byte, ok bool) {
	if s.inFlight > 0 {
		s.stall = stallDrained
		return nil, false
	}
	reset := strings.EqualFold(string(args.At(0)), "reset")
	if !reset && s.id.Proto == 2 && s.pinning.subs.any() {
		return args.Buf, true // the node refuses it, whatever it says
	}
	words := make([][]byte, 0, args.Len())
	for i := range args.Len() {
		words = append(words, args.At(i))
	}
	var at int // of the credentials, the user first
	switch {
	case reset:
		s.dropPin()
		s.resetState()
		s.reply([]byte(resetReply))
		return nil, true
	case strings.EqualFold(string(words[0]), "hello"):
		if at = helloAuth(words); at == 0 {
			return args.Buf, true
		}
	case len(words) == 2 && s.access.mode == AuthNone:
		s.replyError(textNoPassword)
		return nil, true
	case len(words) == 2:
		words = [][]byte{words[0], []byte(defaultUserName), words[1]}
		at = 1
	case len(words) == 3:
		at = 1
	default:
		return args.Buf, true // the node words the error
	}
	if s.pinning.inMulti {
		s.replyError(textAuthInMulti)
		s.sendInner([]byte("sluice|denied")) // or EXEC would run the rest
		return nil, true
	}
	up, good := s.access.check(string(words[at]), string(words[at+1]))
	switch {
	case !good:
		s.authFailed()
		s.replyError(textWrongPass)
		return nil, true
	case up.Password == "" || up.User == s.id.User && up.Password == s.id.Password:
		if at == 1 { // AUTH
			s.replyOK()
			return nil, true
		}
		words = append(words[:at-1], words[at+2:]...)
		return resp.AppendCommandBytes(nil, words...), true
	}
	if up.User == "" {
		up.User = defaultUserName
	}
	words[at], words[at+1] = []byte(up.User), []byte(up.Password)
	return resp.AppendCommandBytes(nil, words...), true
}

// helloAuth returns where the user of HELLO's option AUTH is, 0 without it.
func helloAuth(words [][]byte) int {
	for i := 2; i < len(words); i++ {
		switch opt := strings.ToLower(string(words[i])); {
		case opt == "auth" && i+2 < len(words):
			return i + 1
		case opt == "setname":
			i++
		}
	}
	return 0
}

// dropPin closes the session's own connection, on which nothing is in flight.
func (s *session) dropPin() {
	p := s.pin
	s.endPinned(true)
	s.endMonitor()
	s.pin, s.pinning = nil, pinState{}
	p.SetTunnel(nil)
	p.Close(backend.ErrRelease)
}

// checkAuth checks the options that concern logins and fills in the defaults.
func (o *Options) checkAuth() error {
	if o.Auth == "" {
		o.Auth = DefaultAuth
	}
	for i := range o.Listeners {
		l := &o.Listeners[i]
		if l.Auth == "" {
			l.Auth = o.Auth
		}
		if l.Auth == AuthStatic && len(o.Users) == 0 {
			return fmt.Errorf("check options: listener %d: auth is static and there are no users", i)
		}
	}
	for _, u := range o.Users {
		if u.Name == "" || len(u.Hashes) == 0 {
			return errors.New("check options: a user lacks a name or a password")
		}
	}
	return nil
}
