package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/route"
)

// boundListener is a listener with its socket. What of it can change while it
// is open is swapped as a whole.
type boundListener struct {
	Network, Address string

	ln    *eventloop.Listener
	w     *worker                    // whose loop accepts
	tls   atomic.Pointer[tls.Config] // nil: plain
	trust atomic.Pointer[trust]      // nil: without the PROXY protocol

	access atomic.Pointer[access]
	reads  atomic.Pointer[readRules]
}

// readRules say what the reads of a listener's clients may return, and who may
// answer them.
type readRules struct {
	policy route.Policy
	causal bool // reads obey the fences
	linear bool // reads wait for their index
}

func newReadRules(l *Listener) *readRules {
	return &readRules{l.policy(), l.Consistency == ConsistencyCausal, l.Consistency == ConsistencyLinearizable}
}

// policy says where the listener's reads go.
func (l *Listener) policy() route.Policy {
	switch {
	case l.Consistency == ConsistencyMaster || l.ReadFrom == ReadFromMaster:
		return route.OnlyMaster
	case l.ReadFrom == ReadFromNearest:
		return route.Nearest
	}
	return route.PreferReplica
}

// fenced reports whether the listener needs fences.
func (l *Listener) fenced() bool {
	return l.Consistency == ConsistencyCausal || l.Consistency == ConsistencyLinearizable
}

// take takes what l says; o are the options that it is of.
func (b *boundListener) take(l *Listener, o *Options) {
	b.access.Store(newAccess(l.Auth, o))
	b.trust.Store(newTrust(l))
	if rules := newReadRules(l); b.reads.Load() == nil || *b.reads.Load() != *rules {
		b.reads.Store(rules)
	}
	if l.TLS != nil {
		b.tls.Store(sealWhole(l.TLS))
	} else {
		b.tls.Store(nil)
	}
}

func (b *boundListener) is(l *Listener) bool { return b.Network == l.Network && b.Address == l.Address }

// allow sets the permissions of a unix socket.
func (l *Listener) allow() error {
	if l.Network != "unix" || l.Mode == 0 {
		return nil
	}
	if err := os.Chmod(l.Address, l.Mode); err != nil {
		return fmt.Errorf("set permissions of %s: %w", l.Address, err)
	}
	return nil
}

// bind opens listeners; nobody is accepted yet. On an error none is open.
func (s *Server) bind(ctx context.Context, listeners []Listener) (bound []*boundListener, err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, b := range bound {
			b.ln.Close()
		}
	}()
	for i := range listeners {
		l := &listeners[i]
		ln, err := eventloop.Listen(ctx, l.Network, l.Address)
		if err != nil {
			return bound, fmt.Errorf("listen on %s %s: %w", l.Network, l.Address, err)
		}
		b := &boundListener{Network: l.Network, Address: l.Address, ln: ln, w: s.workers[s.binds%len(s.workers)]}
		s.binds++
		bound = append(bound, b)
		b.take(l, s.live.Load())
		if err := l.allow(); err != nil {
			return bound, err
		}
	}
	return bound, nil
}

// serve has a listener accept clients.
func (s *Server) serve(b *boundListener) {
	b.w.loop.Post(func() {
		if err := b.w.loop.Serve(b.ln, func(sock eventloop.Socket) { s.accept(b, sock) }); err != nil {
			s.fail(err)
		}
	})
}

func (s *Server) setListeners(bound []*boundListener) {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	s.listeners = bound
}

// bound returns the listeners that are open now.
func (s *Server) bound() []*boundListener {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	return s.listeners
}

// closeListeners returns the listeners and keeps Reload from opening others.
func (s *Server) closeListeners() []*boundListener {
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	s.closing = true
	return s.listeners
}

// errNeedsRestart says what cannot change while the server runs.
var errNeedsRestart = errors.New("needs a restart")

// reloadListeners opens the listeners that are new and closes those that are
// no more; who is connected stays. On an error nothing has changed.
func (s *Server) reloadListeners(o *Options) error {
	if s.fences == nil && slices.ContainsFunc(o.Listeners, func(l Listener) bool { return l.fenced() }) {
		return fmt.Errorf("reload: consistency causal or linearizable, where no listener had it at the start, %w", errNeedsRestart)
	}
	s.listenMu.Lock()
	defer s.listenMu.Unlock()
	if s.closing {
		return nil
	}
	old, next := slices.Clone(s.listeners), make([]*boundListener, len(o.Listeners))
	var added []Listener
	for i := range o.Listeners {
		at := slices.IndexFunc(old, func(b *boundListener) bool { return b.is(&o.Listeners[i]) })
		if at < 0 {
			added = append(added, o.Listeners[i])
			continue
		}
		next[i] = old[at]
		old = slices.Delete(old, at, at+1)
	}
	fresh, err := s.bind(context.Background(), added)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	for i := range next {
		if next[i] != nil {
			if err := o.Listeners[i].allow(); err != nil {
				s.log.Warn("reload: a socket keeps its permissions", zap.Error(err))
			}
		} else {
			next[i], fresh = fresh[0], fresh[1:]
			s.serve(next[i])
		}
		next[i].take(&o.Listeners[i], o)
	}
	s.listeners = next
	for _, b := range old {
		b.w.loop.Post(b.ln.Close)
	}
	return nil
}
