package proxy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/proxy"
)

// until reads lines of MONITOR up to the one with what in it, and returns those
// before that one.
func (r *raw) until(what string) (lines []string) {
	r.t.Helper()
	for {
		line, err := r.reply()
		if err != nil {
			r.t.Fatalf("waited for %s: %q, %v; before: %q", what, line, err, lines)
		}
		if strings.Contains(line, what) {
			return lines
		}
		lines = append(lines, line)
	}
}

// stands has the connections made that every session begins with: of one that is
// being set up as MONITOR begins it cannot be told what MONITOR shows.
func stands(sessions ...*raw) {
	for _, r := range sessions {
		r.do("+OK\r\n", "SET", "k", "v")
	}
}

// TestMonitorLeavesOutOurOwn: what clients send is there, in its order, and
// nothing else: neither of the observer and the sampler nor of connections that
// are made meanwhile.
func TestMonitorLeavesOutOurOwn(t *testing.T) {
	for _, loops := range []int{1, 2} {
		t.Run(fmt.Sprint(loops, " loops"), func(t *testing.T) {
			c := newCluster(t, 1, func(o *proxy.Options) { o.Loops = loops })
			m, w := dialRaw(t, c.addr), dialRaw(t, c.addr)
			stands(m, w)
			direct := dialRaw(t, c.master.Addr())
			direct.do("+OK\r\n", "MONITOR")
			m.do("+OK\r\n", "MONITOR")
			w.do("+OK\r\n", "SET", "first", "1")
			if before := m.until(`"SET" "first"`); len(before) > 0 {
				t.Errorf("before the first command: %q", before)
			}
			var want []string
			for i := range 50 { // each has the sampler ask soon
				w.do("+OK\r\n", "SET", "k", fmt.Sprint(i))
				w.do(fmt.Sprintf("$%d\r\n%d\r\n", len(fmt.Sprint(i)), i), "GET", "k")
				want = append(want, fmt.Sprintf(`"SET" "k" "%d"`, i))
			}
			// A database that nobody had, and more pinned connections than there are.
			w.do("+OK\r\n", "SELECT", "7")
			for range 10 {
				r := dialRaw(t, c.addr)
				r.do("+OK\r\n", "SELECT", "7")
				r.do("+OK\r\n", "WATCH", "x")
				want = append(want, `"WATCH" "x"`)
			}
			own := 0
			awaitOwn(t, direct, &own)
			w.do("+OK\r\n", "SET", "last", "1")
			got := m.until(`"SET" "last"`)
			for i := 0; i < len(got) && len(want) > 0; {
				switch {
				case strings.Contains(got[i], want[0]):
					want = want[1:]
				case strings.Contains(got[i], `"GET" "k"`): // the replica was too late for it
				default:
					t.Fatalf("line %d is %q, want %q", i, got[i], want[0])
				}
				i++
			}
			if len(want) > 0 {
				t.Errorf("not shown: %q", want)
			}
			if own < 5 {
				t.Errorf("the node itself has shown %d questions of ours", own)
			}
		})
	}
}

// awaitOwn reads the node's own MONITOR until it has shown enough of our
// questions: the observer's PING among them.
func awaitOwn(t *testing.T, direct *raw, n *int) {
	t.Helper()
	for pings := 0; pings < 2; {
		line, err := direct.reply()
		if err != nil {
			t.Fatalf("after %d questions of ours: %v", *n, err)
		}
		switch {
		case strings.Contains(line, `] "PING"`):
			pings++
			*n++
		case strings.Contains(line, `] "ROLE"`):
			*n++
		}
	}
}

// TestMonitorShowsWhatIsNotOurs, though it looks like it.
func TestMonitorShowsWhatIsNotOurs(t *testing.T) {
	c := newCluster(t, 0, nil)
	m, w := dialRaw(t, c.addr), dialRaw(t, c.addr)
	stands(m, w)
	m.do("+OK\r\n", "MONITOR")
	other := dialRaw(t, c.master.Addr()) // not through the proxy
	for _, test := range []struct {
		by    *raw
		words []string
	}{
		{w, []string{"ROLE"}},
		{w, []string{"INFO", "replication"}},
		{w, []string{"PING"}},
		{w, []string{"COMMAND", "COUNT"}},
		{other, []string{"ROLE"}},
		{other, []string{"PING"}},
		{other, []string{"SELECT", "3"}},
		{other, []string{"SET", "k", "] \"ROLE\"\r\n"}},
	} {
		test.by.cmd(test.words...)
		if reply, err := test.by.reply(); err != nil || reply[0] == '-' {
			t.Fatalf("%q: %q, %v", test.words, reply, err)
		}
		for _, line := range m.until(`] "` + test.words[0] + `"`) {
			t.Errorf("before %q: %q", test.words, line)
		}
	}

	// A reply that comes between the lines is a reply; RESET ends it.
	m.send("PING\r\nRESET\r\n")
	for _, want := range []string{"+PONG\r\n", "+RESET\r\n"} {
		for _, line := range m.until(want) {
			if !strings.HasSuffix(line, "] \"PING\"\r\n") && !strings.HasSuffix(line, "] \"RESET\"\r\n") {
				t.Errorf("before %q: %q", want, line)
			}
		}
	}
	m.do("+OK\r\n", "SET", "k", "v")
}
