package upstream

import (
	"errors"
	"testing"

	"github.com/sluice-io/sluice/syncer/repl"
)

// A full resync on the link is asked for only where nothing else works.
func TestPlanAttach(t *testing.T) {
	have := repl.Pos{ReplID: idA, Offset: 100}
	node := func(id repl.ReplID, first, last repl.Offset, v version) *nodeInfo {
		return &nodeInfo{pos: repl.Pos{ReplID: id, Offset: last}, backlog: first > 0, first: first, last: last, redis: v}
	}
	promoted := node(idB, 50, 300, version{7, 0})
	promoted.second = repl.Ancestor{ReplID: idA, End: 100}
	behind := node(idB, 50, 300, version{7, 0})
	behind.second = repl.Ancestor{ReplID: idA, End: 99}
	for name, c := range map[string]struct {
		info *nodeInfo
		have repl.Pos
		from BaseFrom
		want attachKind
		err  error
	}{
		"resume":                    {node(idA, 50, 200, version{7, 0}), have, BaseAuto, attachResume, nil},
		"resume at its edge":        {node(idA, 101, 200, version{7, 0}), have, BaseAuto, attachResume, nil},
		"backlog gone":              {node(idA, 102, 200, version{7, 0}), have, BaseAuto, attachJoin, nil},
		"promoted":                  {promoted, have, BaseAuto, attachResume, nil},
		"promoted, we are ahead":    {behind, have, BaseAuto, attachJoin, nil},
		"new store":                 {node(idA, 50, 200, version{7, 0}), repl.Pos{}, BaseAuto, attachJoin, nil},
		"no backlog":                {node(idA, 0, 200, version{7, 0}), repl.Pos{}, BaseAuto, attachCreate, nil},
		"no backlog, replicas only": {node(idA, 0, 200, version{7, 0}), repl.Pos{}, BaseReplica, 0, ErrNoReplica},
		"no rdb-only":               {node(idA, 50, 200, version{6, 0}), repl.Pos{}, BaseAuto, attachFull, nil},
		"no rdb-only, resume":       {node(idA, 50, 200, version{5, 0}), have, BaseAuto, attachResume, nil},
		"INFO refused":              {nil, repl.Pos{}, BaseAuto, attachFull, nil},
		"INFO refused, resume":      {nil, have, BaseAuto, attachResume, nil},
	} {
		p, err := planAttach(c.info, c.have, c.from)
		if !errors.Is(err, c.err) || (err == nil && p.kind != c.want) {
			t.Errorf("%s: %v, %v, want %v, %v", name, p.kind, err, c.want, c.err)
		}
	}
}
