package proxy

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp"
)

// DefaultRefusalRest is how long a user's reads keep away from a replica that
// has refused what the master allows.
const DefaultRefusalRest = 30 * time.Second

// maxRefusals bounds the users that are remembered for each node.
const maxRefusals = 64

// refusalCode is an error by which a node says that a user may not do
// something. ACLs are not replicated: a replica may say so where the master
// does not.
type refusalCode uint8

const (
	notRefused refusalCode = iota
	refusedNoPerm
	refusedNoAuth
	refusedWrongPass
	numRefusalCodes
)

// String is the code as Redis writes it.
func (c refusalCode) String() string {
	return [...]string{"", "NOPERM", "NOAUTH", "WRONGPASS"}[c]
}

// refusalOf returns the code of an error reply, without its '-'.
func refusalOf(code string) refusalCode {
	switch code {
	case "NOPERM":
		return refusedNoPerm
	case "NOAUTH":
		return refusedNoAuth
	case "WRONGPASS":
		return refusedWrongPass
	}
	return notRefused
}

// RefusalStatus is a user for whom a replica has refused what the master allows.
type RefusalStatus struct {
	User  string    `json:"user"` // "default" for who has not said a name
	Error string    `json:"error"`
	Times uint64    `json:"times"`
	Last  time.Time `json:"last"`
}

// refusals remembers them for people. Any goroutine may use it.
type refusals struct {
	mu     sync.Mutex
	byNode map[*topology.Node]*nodeRefusals
}

type nodeRefusals struct {
	counts [numRefusalCodes]uint64
	users  map[string]*RefusalStatus
}

// note returns whether it is the first of this user and error at the node.
func (r *refusals) note(n *topology.Node, user string, code refusalCode) (first bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byNode == nil {
		r.byNode = make(map[*topology.Node]*nodeRefusals)
	}
	nr := r.byNode[n]
	if nr == nil {
		nr = &nodeRefusals{users: make(map[string]*RefusalStatus)}
		r.byNode[n] = nr
	}
	nr.counts[code]++
	u := nr.users[user]
	if u == nil {
		if len(nr.users) >= maxRefusals {
			return false
		}
		u = &RefusalStatus{User: user}
		nr.users[user] = u
	}
	first = u.Error != code.String()
	u.Error, u.Last = code.String(), time.Now()
	u.Times++
	return first
}

// of returns what is remembered of a node.
func (r *refusals) of(n *topology.Node) (users []RefusalStatus, counts [numRefusalCodes]uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	nr := r.byNode[n]
	if nr == nil {
		return nil, counts
	}
	for _, u := range nr.users {
		users = append(users, *u)
	}
	slices.SortFunc(users, func(a, b RefusalStatus) int { return cmp.Compare(a.User, b.User) })
	return users, nr.counts
}

// refusedBy notes that a replica refuses to a user what the master allows.
func (s *Server) refusedBy(n *topology.Node, user string, code refusalCode) {
	if user == "" {
		user = defaultUserName
	}
	if s.refusals.note(n, user, code) {
		s.log.Warn("a replica refuses to a user what the master allows: its reads go elsewhere for a while; "+
			"ACLs are not replicated, set the user up there as on the master",
			zap.String("node", n.Addr), zap.String("user", user), zap.Stringer("error", code))
	}
}

// judgeRefusal looks at what the master says to a read that a replica has
// refused.
func (s *session) judgeRefusal(r *request, reply []byte) {
	node, code := r.refusedBy, r.refusal
	r.refusedBy = nil
	if reply[0] == '-' && refusalOf(string(resp.ErrorCode(reply))) != notRefused {
		return // they agree
	}
	s.w.srv.refusedBy(node, s.id.User, code)
	s.lanes.node(node).refusedUntil = s.w.loop.Now() + int64(s.w.opt.RefusalRest)
	s.lanes.chosen = nil
}

// setupRefused reports whether a connection to a replica failed because the
// replica does not know the user, or not this password: the master has accepted
// both.
func (w *worker) setupRefused(p *backend.Pipeline, err error) bool {
	var re *backend.ReplyError
	if p.Master || !errors.As(err, &re) || re.Command != "AUTH" || !p.Identity().Authenticated() {
		return false
	}
	code := refusalOf(string(resp.ErrorCode([]byte("-" + re.Line))))
	if code == notRefused {
		return false
	}
	w.srv.refusedBy(p.Node, p.Identity().User, code)
	if ln := w.lanes[p.Identity()]; ln != nil {
		ln.node(p.Node).refusedUntil = w.loop.Now() + int64(w.opt.RefusalRest)
		ln.chosen = nil
	}
	return true
}
