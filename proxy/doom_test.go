package proxy_test

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp"
)

// dialogue is a command and how its reply begins, "" for one without. In both K
// stands for a key of the case's own.
type dialogue struct{ cmd, want string }

const (
	ok        = "+OK\r\n"
	queued    = "+QUEUED\r\n"
	nilArray  = "*-1\r\n"
	aborted   = "-EXECABORT Transaction discarded because of previous errors: the connection to the master was lost"
	inAborted = "-SLUICE_NOMASTER the connection to the master was lost in the middle of this transaction"
	uncertain = "-SLUICE_UNCERTAIN "
)

// TestMasterLostInATransaction kills the master at each point of a transaction:
// nothing of it may run by halves, EXEC says so, and the session goes on.
func TestMasterLostInATransaction(t *testing.T) {
	cases := []struct {
		name   string
		before []dialogue // answered by the master
		flight []dialogue // sent to it, but it dies; the replies come after that
		during []dialogue // while there is no master
		after  []dialogue // with the new one
		ends   bool       // the session is closed when the master is lost
		value  string     // of the key in the end
	}{
		{
			name:   "MULTI",
			before: []dialogue{{"MULTI", ok}},
			during: []dialogue{
				{"SET K lost", inAborted}, {"MULTI", "-ERR MULTI calls can not be nested"},
				{"WATCH K", "-ERR WATCH inside MULTI"}, {"NOSUCH", inAborted}, {"BLPOP l 0", inAborted}, {"EXEC", aborted},
			},
			after: []dialogue{{"EXEC", "-ERR EXEC without MULTI"}, {"MULTI", ok}, {"SET K mine", queued}, {"EXEC", "*1\r\n+OK"}},
			value: "mine",
		},
		{
			name:   "queued",
			before: []dialogue{{"MULTI", ok}, {"SET K lost", queued}},
			after:  []dialogue{{"SET K lost", inAborted}, {"EXEC", aborted}, {"APPEND K x", ":1"}},
			value:  "x",
		},
		{
			name:   "queued with WATCH",
			before: []dialogue{{"WATCH K", ok}, {"MULTI", ok}, {"SET K lost", queued}},
			after:  []dialogue{{"EXEC", aborted}, {"MULTI", ok}, {"SET K mine", queued}, {"EXEC", "*1\r\n+OK"}},
			value:  "mine",
		},
		{
			name:   "DISCARD",
			before: []dialogue{{"MULTI", ok}, {"SET K lost", queued}},
			during: []dialogue{{"DISCARD", ok}},
			after:  []dialogue{{"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "RESET",
			before: []dialogue{{"MULTI", ok}, {"SET K lost", queued}},
			during: []dialogue{{"RESET", "+RESET"}},
			after:  []dialogue{{"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "WATCH",
			before: []dialogue{{"WATCH K", ok}},
			during: []dialogue{{"WATCH other", ok}},
			after: []dialogue{
				{"GET K", "$-1"}, {"CLIENT ID", ":"}, // pinned anew, the watch is lost all the same
				{"EXEC", "-ERR EXEC without MULTI"}, {"MULTI", ok}, {"SET K lost", queued}, {"EXEC", nilArray},
				{"MULTI", ok}, {"SET K mine", queued}, {"EXEC", "*1\r\n+OK"},
			},
			value: "mine",
		},
		{
			name:   "WATCH in one piece",
			before: []dialogue{{"WATCH K", ok}},
			after:  []dialogue{{"MULTI\nSET K lost\nEXEC", ok + queued + nilArray}, {"MULTI\nSET K mine\nEXEC", ok + queued + "*1\r\n+OK"}},
			value:  "mine",
		},
		{
			name:   "WATCH and a wrong command",
			before: []dialogue{{"WATCH K", ok}},
			after:  []dialogue{{"MULTI", ok}, {"NOSUCH x", "-ERR unknown command 'NOSUCH'"}, {"EXEC", aborted}, {"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "WATCH and UNWATCH",
			before: []dialogue{{"WATCH K", ok}},
			after:  []dialogue{{"UNWATCH", ok}, {"MULTI", ok}, {"SET K mine", queued}, {"EXEC", "*1\r\n+OK"}},
			value:  "mine",
		},
		{
			name:   "RESP3",
			before: []dialogue{{"HELLO 3", "%7"}, {"WATCH K", ok}},
			after:  []dialogue{{"MULTI", ok}, {"SET K lost", queued}, {"EXEC", "_\r\n"}, {"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "EXEC without a reply",
			before: []dialogue{{"MULTI", ok}, {"SET K lost", queued}},
			flight: []dialogue{{"EXEC", uncertain + "exec was sent"}},
			after:  []dialogue{{"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "everything without a reply",
			before: []dialogue{{"WATCH K", ok}},
			flight: []dialogue{{"MULTI", ok}, {"SET K lost", uncertain + "the connection to the master was lost in the middle"}, {"EXEC", uncertain + "exec"}, {"GET K", "-SLUICE_NOREPLICA"}},
			after:  []dialogue{{"MULTI", ok}, {"SET K mine", queued}, {"EXEC", "*1\r\n+OK"}},
			value:  "mine",
		},
		{
			name:   "MULTI without a reply",
			flight: []dialogue{{"MULTI", ok}, {"SET K lost", inAborted}},
			after:  []dialogue{{"SET K lost", inAborted}, {"EXEC", aborted}, {"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "WATCH without a reply",
			flight: []dialogue{{"WATCH K", ok}},
			after:  []dialogue{{"MULTI", ok}, {"SET K lost", queued}, {"EXEC", nilArray}, {"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "DISCARD without a reply",
			before: []dialogue{{"MULTI", ok}, {"SET K lost", queued}},
			flight: []dialogue{{"DISCARD", ok}},
			after:  []dialogue{{"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "UNWATCH without a reply",
			before: []dialogue{{"WATCH K", ok}},
			flight: []dialogue{{"UNWATCH", ok}},
			after:  []dialogue{{"MULTI", ok}, {"SET K mine", queued}, {"EXEC", "*1\r\n+OK"}},
			value:  "mine",
		},
		{
			name:   "blocked",
			before: []dialogue{{"WATCH K", ok}}, // so that it has a connection
			flight: []dialogue{{"UNWATCH", ok}, {"BLPOP K 0", uncertain + "blpop"}},
			after:  []dialogue{{"SET K mine", ok}},
			value:  "mine",
		},
		{
			name:   "replies not wanted",
			before: []dialogue{{"MULTI", ok}, {"CLIENT REPLY OFF", ""}},
			after:  []dialogue{{"SET K lost", ""}, {"EXEC", ""}, {"SET K mine", ""}, {"CLIENT REPLY ON", ok}},
			value:  "mine",
		},
		{name: "subscribed", before: []dialogue{{"SUBSCRIBE K", "*3"}}, ends: true},
		{name: "MONITOR", before: []dialogue{{"MONITOR", ok}}, ends: true},
		{name: "a name in a transaction", before: []dialogue{{"CLIENT ID", ":"}, {"MULTI", ok}}, ends: true},
		{name: "SELECT without a reply", before: []dialogue{{"WATCH K", ok}}, flight: []dialogue{{"SELECT 1", uncertain + "select"}}, ends: true},
	}
	reg := prometheus.NewRegistry()
	c := newCluster(t, 1, func(o *proxy.Options) {
		o.Loops, o.FailoverHold, o.HealthTimeout, o.Registerer = 1, 20*time.Second, 20*time.Second, reg
	})
	clients := make([]*raw, len(cases))
	run := func(i int, phase string, steps []dialogue) {
		t.Helper()
		sendSteps(clients[i], cases[i].name, steps)
		expectSteps(clients[i], cases[i].name, phase, steps)
	}
	for i, tc := range cases {
		clients[i] = dialRaw(t, c.addr)
		run(i, "before", tc.before)
	}
	c.sync(t)
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	for i, tc := range cases {
		sendSteps(clients[i], tc.name, tc.flight)
	}
	rounds(t, c)
	c.master.Kill()
	rounds(t, c) // it has seen that
	for i, tc := range cases {
		expectSteps(clients[i], tc.name, "flight", tc.flight)
		if tc.ends {
			if rest, err := io.ReadAll(clients[i].r); err != nil || strings.Contains("\n"+string(rest), "\n-") {
				t.Errorf("%s: %q, %v; want the end of the connection", tc.name, rest, err)
			}
			continue
		}
		run(i, "during", tc.during)
	}
	redisDo(t, c.replicas[0], "REPLICAOF", "NO", "ONE")
	c.await(t, "the new master", masterIs(c.replicas[0]))
	direct := dialRaw(t, c.replicas[0].Addr())
	for i, tc := range cases {
		if tc.ends {
			continue
		}
		run(i, "after", tc.after)
		direct.do(string(resp.AppendBulkString(nil, tc.value)), "GET", keyOf(tc.name))
	}
	if n := metric(t, reg, "sluice_proxy_errors_total", "EXECABORT"); n < 4 {
		t.Errorf("%v failed transactions are counted", n)
	}
}

// TestTransactionNotSentWhole: what the kernel has not taken cannot have run, so
// EXEC is not uncertain; and a request too large for memory is no part of a
// transaction that is lost.
func TestTransactionNotSentWhole(t *testing.T) {
	c := newCluster(t, 0, func(o *proxy.Options) { o.Loops, o.HealthTimeout = 1, 20*time.Second })
	r, large := dialRaw(t, c.addr), dialRaw(t, c.addr)
	for _, q := range []*raw{r, large} {
		q.do(ok, "MULTI")
	}
	if err := c.master.Signal(stopSignal); err != nil {
		t.Fatal(err)
	}
	const sets = 17 // 15 MB: more than the sockets on both sides take, and less than a session may have in flight
	set := string(resp.AppendCommand(nil, "SET", "k", strings.Repeat("x", 900_000)))
	for range sets {
		r.send(set)
	}
	r.cmd("EXEC")
	rounds(t, c)
	c.master.Kill()
	for range sets {
		expectBegin(r, "SET", uncertain+"the connection to the master was lost in the middle")
	}
	expectBegin(r, "EXEC", aborted)
	rounds(t, c)
	large.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5000000\r\n" + strings.Repeat("x", 1000))
	expectBegin(large, "SET", inAborted)
	if err := c.master.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.do("$-1\r\n", "GET", "k")
}

// rounds lets the proxy's only loop read and pass on what has been sent to it.
func rounds(t *testing.T, c *cluster) {
	t.Helper()
	other := dialRaw(t, c.addr)
	for range 300 {
		other.do("$1\r\nx\r\n", "ECHO", "x")
	}
}

func keyOf(name string) string { return strings.ReplaceAll(name, " ", "-") }

// sendSteps sends commands at once; lines of one dialogue arrive in one piece.
func sendSteps(r *raw, name string, steps []dialogue) {
	r.t.Helper()
	for _, s := range steps {
		var b []byte
		for line := range strings.SplitSeq(s.cmd, "\n") {
			words := strings.Fields(line)
			for i := range words {
				if words[i] == "K" {
					words[i] = keyOf(name)
				}
			}
			b = resp.AppendCommand(b, words...)
		}
		r.send(string(b))
	}
}

func expectSteps(r *raw, name, phase string, steps []dialogue) {
	r.t.Helper()
	for _, s := range steps {
		if s.want == "" {
			continue
		}
		want := s.want
		for range strings.Count(s.cmd, "\n") {
			first, rest, _ := strings.Cut(want, "\r\n")
			expectBegin(r, name+", "+phase+": "+s.cmd, first)
			want = rest
		}
		expectBegin(r, name+", "+phase+": "+s.cmd, want)
	}
}

func expectBegin(r *raw, what, want string) {
	r.t.Helper()
	got, err := r.reply()
	if err != nil || !strings.HasPrefix(got, want) {
		r.t.Fatalf("%s: reply %.200q, %v; want %.200q", what, got, err, want)
	}
}
