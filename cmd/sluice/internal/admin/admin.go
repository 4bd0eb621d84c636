// Package admin is sluice's HTTP server for operators and their tools:
//
//	/metrics       Prometheus
//	/healthz       200 while the process lives
//	/readyz        200 when a master answers and no drain has begun, else 503 and why
//	/api/status    proxy.Status as JSON
//	/debug/pprof/  Go's profiles
//
// It has no authentication and shows no secrets; it listens on loopback unless
// told otherwise.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"github.com/sluice-io/sluice/proxy"
)

// StatusPath is where the status is served.
const StatusPath = "/api/status"

// Timeouts of the server. There is none for a whole request: it would end a
// profile early (net/http cancels the request when the read deadline passes),
// and net/http/pprof prolongs the write deadline by itself.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 30 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Options of a [Server]; all but Logger are needed.
type Options struct {
	Listen   string              // HOST:PORT
	Status   func() proxy.Status // called by any goroutine
	Gatherer prometheus.Gatherer // what /metrics shows
	Logger   *zap.Logger         // nil logs nothing
}

// Server serves the pages until Close. Its methods may be called by any
// goroutine; Start once.
type Server struct {
	opt      Options
	http     *http.Server
	listener net.Listener
	draining atomic.Bool
	done     chan struct{} // closed when the serving goroutine has ended
	err      error         // why it ended; valid once done is closed
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	s := &Server{opt: o, done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          zap.NewStdLog(o.Logger.Named("admin")),
	}
	return s
}

// Handler returns the pages.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.opt.Gatherer, promhttp.HandlerOpts{
		ErrorLog: zap.NewStdLog(s.opt.Logger.Named("metrics")),
	}))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET "+StatusPath, s.status)
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "sluice: /metrics /healthz /readyz "+StatusPath+" /debug/pprof/")
	})
	return mux
}

// Start listens and serves in a goroutine of its own. The error names the
// address and wraps that of the system, such as EADDRINUSE.
func (s *Server) Start() error {
	l, err := net.Listen("tcp", s.opt.Listen)
	if err != nil {
		return fmt.Errorf("listen for admin on %s: %w", s.opt.Listen, err)
	}
	s.listener = l
	go func() {
		defer close(s.done)
		if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			s.err = fmt.Errorf("serve admin on %s: %w", l.Addr(), err)
		}
	}()
	return nil
}

// Addr returns the address listened on, with its real port. Start must have
// succeeded.
func (s *Server) Addr() net.Addr { return s.listener.Addr() }

// Done is closed when the server has ended, by Close or a failure.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns the failure that ended the server; nil after Close. Valid once
// Done is closed.
func (s *Server) Err() error { return s.err }

// Drain makes /readyz fail from now on, so that no new clients are sent here.
func (s *Server) Drain() { s.draining.Store(true) }

// Close ends the requests in flight gracefully until ctx is done, then by force,
// and waits for the serving goroutine. Start must have succeeded.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil { // ctx ended first: a running profile, say
		err = s.http.Close()
	}
	<-s.done
	if err != nil {
		return fmt.Errorf("close admin on %s: %w", s.listener.Addr(), err)
	}
	return nil
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	if s.draining.Load() {
		plain(w, http.StatusServiceUnavailable, "not ready: draining")
		return
	}
	st := s.opt.Status()
	if st.Ready {
		plain(w, http.StatusOK, "ok")
		return
	}
	plain(w, http.StatusServiceUnavailable, notReady(st))
}

// notReady says why, node by node.
func notReady(st proxy.Status) string {
	var b strings.Builder
	b.WriteString("not ready: no master is known that answers")
	for _, n := range st.Nodes {
		up := "down"
		if n.Up {
			up = "up"
		}
		fmt.Fprintf(&b, "\n%s: role %s, %s", n.Address, n.Role, up)
		if n.Reason != "" {
			fmt.Fprintf(&b, ", %s", n.Reason)
		}
	}
	return b.String()
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	b, err := json.MarshalIndent(s.opt.Status(), "", "  ")
	if err != nil { // NaN, the one thing that encoding/json refuses here
		plain(w, http.StatusInternalServerError, fmt.Sprintf("encode status: %v", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(append(b, '\n')) // a client that has gone is its own affair
}

// plain writes one line or more of text.
func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = fmt.Fprintln(w, text)
}
