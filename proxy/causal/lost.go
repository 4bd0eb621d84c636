package causal

import (
	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/repl"
)

// Lost is what a change of master's history cost, as far as it can be told.
// Nothing is asked of the old master for it: it is dead, or on its way to be a
// replica that forgets.
type Lost struct {
	Node     string      // HOST:PORT that is sampled as master now
	Old, New repl.ReplID // the histories
	// Seen is the old one's offset at the first sample that covers all that had
	// been acknowledged at the last: what lies behind it, such as the hellos of
	// Sentinel, was written by others.
	Seen repl.Offset
	// Survived is up to where the new master has the old history;
	// repl.UnknownOffset where it does not tell: it may have nothing of it.
	Survived repl.Offset
	// Bytes of the old stream between Survived and Seen, which are lost for
	// certain.
	Bytes int64
	// Uncertain is how many bytes the requests of writes had that were
	// acknowledged after that sample was asked for and that may be lost too.
	Uncertain int64
}

// position is the last that was learned of the history that is sampled.
type position struct {
	lineage
	at      repl.Offset
	settled repl.Offset // at the first sample with this acked
	acked   uint64      // Config.Acked, before the question was put
}

// lineage is what INFO tells of a master's history.
type lineage struct {
	node   string
	runID  string
	id     repl.ReplID
	id2    repl.ReplID // that id came out of; zero if out of none
	second repl.Offset // up to where, exclusive, it is that of id2 (second_repl_offset)
	offset repl.Offset // master_repl_offset
}

// loss judges what is lost where the history now follows last; ok is false if
// nothing can be. acked is Config.Acked once the old master gave no more
// replies.
func (last position) loss(now lineage, acked uint64) (l Lost, ok bool) {
	was := last.lineage
	if was.id.IsZero() || was.id == now.id {
		return l, false
	}
	if was.runID != "" && was.runID == now.runID && now.id2.IsZero() {
		// The same process, never a replica in between: its backlog has expired,
		// and it took a new id for the same data (replicationCron).
		return l, false
	}
	tail := int64(acked - last.acked)
	l = Lost{Node: now.node, Old: was.id, New: now.id, Seen: last.settled, Survived: repl.UnknownOffset, Uncertain: tail}
	if now.id2 != was.id {
		return l, true
	}
	l.Survived = now.second - 1
	l.Bytes = max(0, int64(l.Seen-l.Survived))
	if l.Survived > last.at { // what the new master has beyond the last sample is some of the tail
		l.Uncertain = max(0, tail-int64(l.Survived-last.at))
	}
	return l, l.Bytes > 0 || l.Uncertain > 0
}

var askHistory = append(resp.AppendCommand(nil, "INFO", "server"), askInfo...)

// lineage asks a master for its history.
func (c *asker) lineage(node string) (h lineage, err error) {
	reply, err := c.ask(askHistory, 2)
	if err != nil {
		return h, err
	}
	n, _, _ := resp.ScanReply(reply)
	h.node, h.runID = node, string(infoField(reply[:n], "run_id"))
	info := reply[n:]
	if h.id, err = replID(info); err != nil {
		return h, err
	}
	h.offset = infoOffset(info, "master_repl_offset")
	if id2, err := repl.ParseReplID(string(infoField(info, "master_replid2"))); err == nil {
		if second := infoOffset(info, "second_repl_offset"); second.IsKnown() { // -1 where there is none
			h.id2, h.second = id2, second
		}
	}
	return h, nil
}

// infoOffset returns a field of INFO that is an offset.
func infoOffset(info []byte, name string) repl.Offset {
	if n, ok := resp.ParseLongLong(infoField(info, name)); ok && n >= 0 {
		return repl.Offset(n)
	}
	return repl.UnknownOffset
}
