package upstream

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
)

// A full resync on the link is asked for only where nothing else works.
func TestPlanAttach(t *testing.T) {
	have := haveHead{repl.Pos{ReplID: idA, Offset: 100}, true}
	noBase := haveHead{have.Pos, false}
	node := func(id repl.ReplID, first, last repl.Offset, v version) *nodeInfo {
		return &nodeInfo{pos: repl.Pos{ReplID: id, Offset: last}, backlog: first > 0, first: first, last: last, redis: v}
	}
	promoted := node(idB, 50, 300, version{7, 0})
	promoted.second = repl.Ancestor{ReplID: idA, End: 100}
	behind := node(idB, 50, 300, version{7, 0})
	behind.second = repl.Ancestor{ReplID: idA, End: 99}
	for name, c := range map[string]struct {
		info *nodeInfo
		have haveHead
		from BaseFrom
		want attachKind
		err  error
	}{
		"resume":                    {node(idA, 50, 200, version{7, 0}), have, BaseAuto, attachResume, nil},
		"resume at its edge":        {node(idA, 101, 200, version{7, 0}), have, BaseAuto, attachResume, nil},
		"backlog gone":              {node(idA, 102, 200, version{7, 0}), have, BaseAuto, attachJoin, nil},
		"promoted":                  {promoted, have, BaseAuto, attachResume, nil},
		"promoted, we are ahead":    {behind, have, BaseAuto, attachJoin, nil},
		"new store":                 {node(idA, 50, 200, version{7, 0}), haveHead{}, BaseAuto, attachJoin, nil},
		"no backlog":                {node(idA, 0, 200, version{7, 0}), haveHead{}, BaseAuto, attachCreate, nil},
		"no backlog, replicas only": {node(idA, 0, 200, version{7, 0}), haveHead{}, BaseReplica, 0, ErrNoReplica},
		"no rdb-only":               {node(idA, 50, 200, version{6, 0}), haveHead{}, BaseAuto, attachFull, nil},
		"no rdb-only, resume":       {node(idA, 50, 200, version{5, 0}), have, BaseAuto, attachResume, nil},
		"relay":                     {&nodeInfo{relay: true, slave: true, pos: have.Pos}, haveHead{}, BaseReplica, attachFull, nil},
		"relay of another history":  {&nodeInfo{relay: true, slave: true, pos: repl.Pos{ReplID: idB}}, have, BaseAuto, attachResume, nil},
		"INFO refused":              {nil, haveHead{}, BaseAuto, attachFull, nil},
		"relay, no base":            {&nodeInfo{relay: true, slave: true, pos: have.Pos}, noBase, BaseAuto, attachFull, nil},
		"INFO refused, resume":      {nil, have, BaseAuto, attachResume, nil},
		"no base, it can be had":    {node(idA, 50, 200, version{7, 0}), noBase, BaseAuto, attachResume, nil},
		"no base, no rdb-only":      {node(idA, 50, 200, version{6, 0}), noBase, BaseAuto, attachFull, nil},
		"no base, INFO refused":     {nil, noBase, BaseAuto, attachFull, nil},
	} {
		p, err := planAttach(c.info, c.have, c.from)
		if !errors.Is(err, c.err) || (err == nil && p.kind != c.want) {
			t.Errorf("%s: %v, %v, want %v, %v", name, p.kind, err, c.want, c.err)
		}
	}
}

func TestNewerThan(t *testing.T) {
	redis := func(major, minor int) *nodeInfo { return &nodeInfo{redis: version{major, minor}} }
	valkey := func(major, minor int) *nodeInfo {
		return &nodeInfo{redis: version{7, 2}, valkey: version{major, minor}}
	}
	for _, c := range []struct {
		node, master *nodeInfo
		want         bool
	}{
		{redis(7, 0), redis(7, 0), false},
		{redis(8, 0), redis(7, 2), true},
		{redis(7, 2), redis(8, 0), false},
		{valkey(8, 1), redis(7, 0), true},
		{valkey(8, 1), redis(7, 2), false},
		{valkey(9, 0), redis(7, 2), true},
		{valkey(9, 0), redis(8, 0), true},
		{valkey(9, 0), valkey(8, 1), true},
		{valkey(9, 1), valkey(9, 1), false},
		{redis(8, 0), valkey(8, 1), true},
		{redis(7, 2), valkey(9, 0), false},
		{redis(7, 2), &nodeInfo{}, false},
	} {
		if got := c.node.newerThan(c.master); got != c.want {
			t.Errorf("redis %v valkey %v newer than redis %v valkey %v: %v", c.node.redis, c.node.valkey, c.master.redis, c.master.valkey, got)
		}
	}
}

// A busy master is asked again later, and not taken for one that refuses INFO:
// whether it would have to fork is not known before it answers.
func TestInfoOfABusyMaster(t *testing.T) {
	answer := func(line string) error {
		_, err := askInfo(io.Discard, psync.NewReader(strings.NewReader(line+line)))
		return err
	}
	if _, refused := asRefused(answer("-NOPERM no INFO here\r\n")); !refused {
		t.Error("NOPERM is no refusal")
	}
	err := answer("-BUSY Redis is busy running a script\r\n")
	if _, refused := asRefused(err); refused || !errors.As(err, &psync.Retry{}) {
		t.Errorf("BUSY: %v", err)
	}
}
