// Package admin is sluice's HTTP server for operators and their tools:
//
//	/metrics       Prometheus
//	/healthz       200 while the process lives
//	/readyz        200 when a master answers and no drain has begun, else 503 and
//	               why; of a relay alone: when a base is stored
//	/status        the page for people
//	/api/status    Status as JSON; /api/status/stream the same each second, as
//	               server-sent events
//	/api/failover  POST: a planned failover, told step by step; from this machine only
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
	"sync"
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
	Status   func() Status       // called by any goroutine
	Gatherer prometheus.Gatherer // what /metrics shows
	Logger   *zap.Logger         // nil logs nothing

	Version     string        // shown to people
	SampleEvery time.Duration // how often the status is looked at for the history; 0 for DefaultSampleEvery

	// Failover carries out a planned failover; nil where there is no proxy.
	Failover func(context.Context, proxy.SwitchRequest) error
}

// DefaultSampleEvery is the pace of the history and of the stream.
const DefaultSampleEvery = time.Second

// Server serves the pages until Close. Its methods may be called by any
// goroutine; Start once.
type Server struct {
	opt      Options
	http     *http.Server
	listener net.Listener
	draining atomic.Bool
	recorder recorder
	hub      hub
	sampler  sync.WaitGroup
	cancel   context.CancelFunc // ends the sampler
	done     chan struct{}      // closed when the serving goroutine has ended
	err      error              // why it ended; valid once done is closed
}

// New returns a server that does not listen yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.SampleEvery <= 0 {
		o.SampleEvery = DefaultSampleEvery
	}
	s := &Server{opt: o, done: make(chan struct{})}
	s.http = &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          zap.NewStdLog(o.Logger.Named("admin")),
	}
	s.http.RegisterOnShutdown(s.hub.close) // streams do not end by themselves
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
	mux.HandleFunc("GET "+StreamPath, s.stream)
	handlePage(mux)
	if s.opt.Failover != nil {
		mux.HandleFunc("POST "+FailoverPath, s.failover)
	}
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		plain(w, http.StatusOK, "sluice: "+PagePath+" /metrics /healthz /readyz "+StatusPath+" /debug/pprof/")
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
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.sampler.Go(func() { s.sample(ctx) })
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
// and waits for all that Start began. Streams are ended at once. Start must have succeeded.
func (s *Server) Close(ctx context.Context) error {
	err := s.http.Shutdown(ctx)
	if err != nil { // ctx ended first: a running profile, say
		err = s.http.Close()
	}
	<-s.done
	s.cancel()
	s.sampler.Wait()
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
		plain(w, http.StatusOK, st.ready())
		return
	}
	plain(w, http.StatusServiceUnavailable, st.notReady())
}

// report completes what the parts tell.
func (s *Server) report(st Status) Status {
	st.Time, st.Version, st.Draining, st.Lately = time.Now(), s.opt.Version, s.draining.Load(), s.recorder.lately()
	return st
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	b, err := json.MarshalIndent(s.report(s.opt.Status()), "", "  ")
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
