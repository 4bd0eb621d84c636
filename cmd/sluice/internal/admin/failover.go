package admin

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-io/sluice/proxy"
)

// FailoverPath is where a planned failover is asked for by POST. The answer is
// one line of text for each step; the last begins with [FailoverOK] or
// [FailoverFailed].
const FailoverPath = "/api/failover"

// The beginnings of the last line.
const (
	FailoverOK     = "ok: "
	FailoverFailed = "failed: "
)

// FailoverHeader must be in the request: a web page that a browser on this
// machine shows cannot send it to another site without being asked first.
const FailoverHeader = "X-Sluice-Failover"

// maxFailoverTimeout bounds for how long anybody can have writes held.
const maxFailoverTimeout = 5 * time.Minute

// failover changes something, unlike the other pages, and there are no
// passwords here: it is for this machine only, whatever the server listens on.
func (s *Server) failover(w http.ResponseWriter, r *http.Request) {
	if !fromLoopback(r) || r.Header.Get(FailoverHeader) == "" {
		plain(w, http.StatusForbidden, "a failover can be asked for from the machine that sluice runs on only, by sluice failover")
		return
	}
	timeout := proxy.DefaultSwitchTimeout
	if text := r.FormValue("timeout"); text != "" {
		var err error
		if timeout, err = time.ParseDuration(text); err != nil || timeout <= 0 || timeout > maxFailoverTimeout {
			plain(w, http.StatusBadRequest, fmt.Sprintf("timeout %q: want a duration up to %s, such as 10s", text, maxFailoverTimeout))
			return
		}
	}
	out := http.NewResponseController(w)
	// net/http closes the connection where it cannot be set; then the failover
	// goes on to its end all the same.
	_ = out.SetWriteDeadline(time.Now().Add(timeout + writeTimeout))
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	var mu sync.Mutex
	say := func(text string) {
		mu.Lock()
		defer mu.Unlock()
		_, _ = fmt.Fprintln(w, text) // whoever asked may have gone: then r's context ends it
		_ = out.Flush()
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	err := s.opt.Failover(ctx, proxy.SwitchRequest{To: r.FormValue("to"), Timeout: timeout, Progress: say})
	if err != nil {
		say(FailoverFailed + err.Error())
		return
	}
	say(FailoverOK + "no command was refused by this failover")
}

func fromLoopback(r *http.Request) bool {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
