package proxy_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
)

// sample returns the value of a counter or gauge: the one whose only label has
// the value label, or the one without labels for "".
func sample(t testing.TB, reg *prometheus.Registry, name, label string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.Metric {
			if len(m.Label) == 0 && label == "" || len(m.Label) == 1 && m.Label[0].GetValue() == label {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

// TestErrorsAreCounted: a write that was sent when the master died is
// uncertain, a later one is held and then fails, a command is denied: each is
// counted once, by its code.
func TestErrorsAreCounted(t *testing.T) {
	reg := prometheus.NewRegistry()
	c := newCluster(t, 0, func(o *proxy.Options) {
		o.Registerer, o.FailoverHold = reg, 4*time.Second
	}, "--busy-reply-threshold", "10")
	errors := func(code string) float64 { return sample(t, reg, "sluice_proxy_errors_total", code) }
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
	deadline := time.Now().Add(3 * time.Second)
	for sample(t, reg, "sluice_proxy_held_clients", "") != 1 {
		if time.Now().After(deadline) {
			t.Fatal("the client's write is not seen to be held")
		}
	}
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
	if n := sample(t, reg, "sluice_proxy_held_clients", ""); n != 0 {
		t.Errorf("%v clients are held at the end", n)
	}
}

func wantError(t *testing.T, r *raw, code string) {
	t.Helper()
	if got, err := r.reply(); err != nil || !strings.HasPrefix(got, "-"+code+" ") {
		t.Fatalf("got %q, %v; want %s", got, err, code)
	}
}
