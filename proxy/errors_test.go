package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
)

// TestErrorsAreCounted: a write that was sent when the master died is
// uncertain, a later one is held and then fails, a command is denied: each is
// counted once, by its code.
func TestErrorsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 0, func(o *proxy.Options) {
		o.Registerer, o.FailoverHold = reg, 6*time.Second
	}, "--busy-reply-threshold", "10")
	errors := func(code string) float64 { return metric(t, reg, "sluice_proxy_errors_total", code) }
	r := dialRaw(t, c.addr)
	r.do("+OK\r\n", "SET", "k", "v")
	if n := errors("SLUICE_UNCERTAIN") + errors("SLUICE_NOMASTER") + errors("SLUICE_DENIED"); n != 0 {
		t.Fatalf("%v errors are counted before there are any", n)
	}

	r.cmd("EVAL", "while true do end", "0")
	awaitReply(t, c.master.Addr(), "-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n", "GET", "k") // it has the write
	c.master.Kill()
	wantError(t, r, "SLUICE_UNCERTAIN")
	r.cmd("SET", "k", "v")
	awaitMetric(t, reg, 1, "sluice_proxy_held_clients")
	wantError(t, r, "SLUICE_NOMASTER")
	r.cmd("SHUTDOWN")
	wantError(t, r, "SLUICE_DENIED")
	for code, want := range map[string]float64{
		"SLUICE_UNCERTAIN": 1, "SLUICE_NOMASTER": 1, "SLUICE_DENIED": 1, "SLUICE_NOREPLICA": 0, "SLUICE_TIMEOUT": 0,
	} {
		if got := errors(code); got != want {
			t.Errorf("%s is counted %v times, want %v", code, got, want)
		}
	}
	if n := metric(t, reg, "sluice_proxy_held_clients"); n != 0 {
		t.Errorf("%v clients are held at the end", n)
	}
}

func wantError(t *testing.T, r *raw, code string) {
	t.Helper()
	if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-"+code+" ") {
		t.Fatalf("got %q, %v; want %s", got, err, code)
	}
}
