package route_test

import (
	"strings"
	"testing"

	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/resp/command"
)

func args(t *testing.T, line string) resp.Args {
	t.Helper()
	buf := resp.AppendCommand(nil, strings.Fields(line)...)
	_, _, spans, err := resp.ScanRequest(buf, &resp.DefaultLimits, nil)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Args{Buf: buf, Spans: spans}
}

func TestKinds(t *testing.T) {
	table := route.NewTable(command.Builtin(), []string{"debug", "config|set", "shutdown"})
	for line, want := range map[string]route.Kind{
		"GET k": route.Read, "get k": route.Read, "MGET a b": route.Read, "HGETALL h": route.Read,
		"SET k v": route.Write, "GETDEL k": route.Write, "GETEX k": route.Write, "XREADGROUP GROUP g c STREAMS s >": route.Write,
		"SORT k": route.Write, "PFCOUNT k": route.Read, "GEORADIUS k 0 0 1 m": route.Write, "SORT_RO k": route.Read,
		"EVAL x 0": route.Script, "EVAL_RO x 0": route.Read, "EVALSHA_RO x 0": route.MasterRead, "FCALL f 1 k": route.Script,
		"SCAN 0": route.MasterRead, "HSCAN h 0": route.MasterRead, "TOUCH k": route.MasterRead, "DBSIZE": route.MasterRead,
		"OBJECT FREQ k": route.MasterRead, "OBJECT ENCODING k": route.Read,
		"PUBLISH c m": route.Other, "INFO": route.Other, "CONFIG GET x": route.Other, "NOSUCH x": route.Other,
		"BLPOP k 0": route.Blocking, "XREAD STREAMS s 0": route.Read, "XREAD BLOCK 0 STREAMS s $": route.Blocking,
		"XREADGROUP GROUP g c BLOCK 5 STREAMS s >": route.Blocking,
		"MULTI": route.Multi, "EXEC": route.Exec, "WATCH k": route.Watch, "WAIT 1 0": route.Wait,
		"SUBSCRIBE c": route.Subscribe, "PUNSUBSCRIBE": route.Unsubscribe, "MONITOR": route.Sticky,
		"DEBUG SLEEP 0": route.Denied, "CONFIG SET a b": route.Denied, "SHUTDOWN": route.Denied,
		"HELLO 3": route.Hello, "AUTH x": route.Auth, "SELECT 1": route.Select, "CLIENT ID": route.Client, "CLIENT NOSUCH": route.Client,
		"PING": route.Ping, "QUIT": route.Quit, "RESET": route.Reset,
	} {
		if _, got := table.Lookup(args(t, line)); got != want {
			t.Errorf("%s: kind %d, want %d", line, got, want)
		}
	}
}

// TestNoWriteLeavesTheMaster holds the rule that matters most: only what COMMAND
// flags readonly may go to a replica.
func TestNoWriteLeavesTheMaster(t *testing.T) {
	cmds := command.Builtin()
	table := route.NewTable(cmds, nil)
	reads := 0
	for i := range cmds.Len() {
		c := cmds.At(i)
		if strings.Contains(c.Name, "|") {
			continue
		}
		_, k := table.Lookup(args(t, c.Name))
		target, _ := route.Decide(k, route.Session{}, 3)
		if k < route.Blocking && target == route.Replica {
			reads++
			if !c.Flags.Has(command.ReadOnly) || c.Flags.Has(command.Write) {
				t.Errorf("%s may go to a replica, its flags are %v", c.Name, c.Flags)
			}
		}
	}
	if reads < 50 {
		t.Errorf("only %d commands may go to a replica", reads)
	}
}

func TestDecide(t *testing.T) {
	idle := route.Session{}
	for _, tc := range []struct {
		name     string
		kind     route.Kind
		s        route.Session
		replicas int
		target   route.Target
		reason   route.Reason
	}{
		{"write", route.Write, idle, 2, route.MasterWrite, route.ReasonWrite},
		{"script", route.Script, idle, 2, route.MasterWrite, route.ReasonWrite},
		{"other", route.Other, idle, 2, route.MasterWrite, route.ReasonOther},
		{"read", route.Read, idle, 2, route.Replica, route.ReasonReplica},
		{"read without replicas", route.Read, idle, 0, route.MasterReads, route.ReasonNoReplica},
		{"read of the node", route.MasterRead, idle, 2, route.MasterReads, route.ReasonNodeLocal},
		{"read by policy", route.Read, route.Session{Policy: route.OnlyMaster}, 2, route.MasterReads, route.ReasonMasterPolicy},
		{"read behind a write", route.Read, route.Session{OnWrite: 1}, 2, route.MasterWrite, route.ReasonBehindWrite},
		{"read in a mixed pipeline", route.Read, route.Session{Mixed: true}, 2, route.MasterWrite, route.ReasonMixedPipeline},
		{"write behind a read elsewhere", route.Write, route.Session{Elsewhere: 1}, 2, route.Hold, route.ReasonWrite},
		{"read behind a read elsewhere", route.Read, route.Session{Elsewhere: 1}, 2, route.Replica, route.ReasonReplica},
		{"mixed behind a read elsewhere", route.Read, route.Session{Elsewhere: 1, Mixed: true}, 2, route.Hold, route.ReasonMixedPipeline},
		{"read behind both", route.Read, route.Session{Elsewhere: 1, OnWrite: 1}, 2, route.Hold, route.ReasonMixedPipeline},
	} {
		target, reason := route.Decide(tc.kind, tc.s, tc.replicas)
		if target != tc.target || reason != tc.reason {
			t.Errorf("%s: target %d because %v, want %d because %v", tc.name, target, reason, tc.target, tc.reason)
		}
	}
}
