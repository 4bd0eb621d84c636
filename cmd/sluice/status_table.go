package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-io/sluice/cmd/sluice/internal/admin"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/syncer"
	"github.com/sluice-io/sluice/syncer/downstream"
	"github.com/sluice-io/sluice/syncer/journal"
)

// look is how the status is shown.
type look struct {
	width  int  // of the terminal in characters, 0 for any
	height int  // in lines, 0 for any
	colour bool // see styles
	events int  // how many of the last events are shown
}

// onceEvents is how many events are shown where nobody scrolls.
const onceEvents = 5

// statusTable renders the status for people without a terminal.
func statusTable(st *admin.Status) string { return statusScreen(st, look{events: onceEvents}) }

// statusScreen renders the status for people.
func statusScreen(st *admin.Status, l look) string {
	s := &screen{width: l.width, colour: l.colour}
	if st.Relay == nil || len(st.Listeners) > 0 {
		proxyTable(s, st)
	}
	if st.Relay != nil {
		var b strings.Builder
		relayTable(&b, st.Relay)
		for line := range strings.Lines(b.String()) {
			s.line(span{text: strings.TrimRight(line, "\n")})
		}
	}
	eventList(s, st.History(), l)
	return s.b.String()
}

func proxyTable(s *screen, st *admin.Status) {
	ready := span{"ready " + yesNo(st.Ready), styleGood}
	if !st.Ready {
		ready.style = styleBad
	}
	more := ""
	if st.Draining {
		more = "   draining"
	}
	s.line(ready, span{text: fmt.Sprintf("   epoch %d   clients %d%s   listening on %s",
		st.Epoch, st.Clients, more, strings.Join(st.Listeners, ", "))})
	for _, sn := range st.Sentinels {
		if sn.Up {
			s.line(span{text: "sentinel " + sn.Address + " up"})
		} else {
			s.line(span{"sentinel " + sn.Address + " down: " + sn.Error, styleWarn})
		}
	}
	if st.Lately != nil {
		trafficLines(s, st.Lately)
	}
	s.table(nodeColumns(st))
}

// nodeColumns has a row for each node.
func nodeColumns(st *admin.Status) []column {
	c := []column{{head: "NODE"}, {head: "ROLE"}, {head: "UP"}, {head: "READS", spare: 3}, {head: "OFFSET", right: true, spare: 4},
		{head: "LAG BYTES", right: true}, {head: "LAG SECONDS", right: true, spare: 1}, {head: "PER SECOND", right: true, spare: 2},
		{head: "COMMANDS", right: true, spare: 5}, {head: "REASON"}}
	lately := make(map[string]string)
	if st.Lately != nil {
		for _, n := range st.Lately.Nodes {
			lately[n.Address] = perSecond(n.Read + n.Write + n.Other)
		}
	}
	for _, b := range treeOf(st.Nodes) {
		n := b.node
		var st style
		seconds := "-"
		if n.LagSeconds >= 0 {
			seconds = fmt.Sprintf("%.3f", n.LagSeconds)
		}
		switch {
		case !n.Up:
			st = styleBad
		case n.Role == "master" && n.Reason == "":
			st = styleInfo
		case n.Reads:
			st = styleGood
		default:
			st = styleWarn
		}
		for i, cell := range []span{
			{text: b.lines + n.Address}, {n.Role, st}, {yesNo(n.Up), st}, {yesNo(n.Reads), st}, {text: known(n.Offset)},
			{text: known(n.LagBytes)}, {text: seconds}, {text: lately[n.Address]}, {text: fmt.Sprint(n.Commands)}, {n.Reason, st},
		} {
			c[i].cells = append(c[i].cells, cell)
		}
	}
	return c
}

// trafficLines tell what passed in the last seconds, and where reads went in the
// last minute.
func trafficLines(s *screen, l *admin.Lately) {
	took := ""
	if l.P50 >= 0 {
		took = fmt.Sprintf("   half within %s, 99 %% within %s", shortTime(l.P50), shortTime(l.P99))
	}
	s.line(span{text: fmt.Sprintf("per second: reads %s, writes %s, other %s%s", perSecond(l.Read), perSecond(l.Write), perSecond(l.Other), took)})
	type why struct {
		reason string
		rate   float64
	}
	var master float64
	var list []why
	for reason, rate := range l.Routed {
		switch reason { // those that are no reads, or no decision of their own
		case "replica", "other_zone", "write", "other", "pinned", "local", "denied", "retry":
			continue
		}
		if rate > 0 {
			master += rate
			list = append(list, why{reason, rate})
		}
	}
	replica := l.Routed["replica"] + l.Routed["other_zone"]
	all := master + replica
	if all <= 0 {
		return
	}
	slices.SortFunc(list, func(a, b why) int { return cmp.Or(cmp.Compare(b.rate, a.rate), strings.Compare(a.reason, b.reason)) })
	text := fmt.Sprintf("reads: %.1f %% on replicas", 100*replica/all)
	for i, w := range list {
		if i == 0 {
			text += "; on the master "
		} else {
			text += ", "
		}
		text += fmt.Sprintf("%.1f %% %s", 100*w.rate/all, w.reason)
	}
	s.line(span{text: text})
}

// perSecond is short for large rates.
func perSecond(v float64) string {
	if v > 0 && v < 10 {
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.0f", v)
}

// shortTime writes seconds with three digits or so.
func shortTime(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < time.Millisecond {
		return d.Round(time.Microsecond).String()
	}
	return d.Round(10 * time.Microsecond).String()
}

// eventStyles are the styles of what is no mere news, by the words of the proxy's
// events and the relay's.
var eventStyles = map[topology.EventKind]style{
	topology.EventDown: styleBad, topology.EventMasterLost: styleBad, topology.EventEjected: styleWarn, topology.EventResync: styleWarn,
	topology.EventUp: styleGood, topology.EventReads: styleGood, topology.EventFailover: styleInfo, topology.EventMaster: styleInfo,
	topology.EventKind(journal.LinkDown): styleBad, topology.EventKind(journal.StoreDown): styleBad, topology.EventKind(journal.BaseFailed): styleWarn,
	topology.EventKind(journal.ReplicaGone): styleWarn, topology.EventKind(journal.FullResync): styleWarn,
	topology.EventKind(journal.LinkUp): styleGood, topology.EventKind(journal.StoreUp): styleGood, topology.EventKind(journal.PartialResync): styleGood,
}

// eventList shows the last events, the newest first: as many as there is room
// for below what has been written.
func eventList(s *screen, events []topology.Event, l look) {
	room := l.events
	if l.height > 0 {
		room = min(room, l.height-strings.Count(s.b.String(), "\n")-2)
	}
	if room <= 0 || len(events) == 0 {
		return
	}
	c := []column{{head: "TIME"}, {head: "EVENT"}, {head: "NODE"}, {head: "WHAT"}}
	for _, e := range events[:min(room, len(events))] {
		for i, cell := range []span{
			{text: e.Time.Local().Format(time.TimeOnly)}, {strings.ReplaceAll(string(e.Kind), "_", " "), eventStyles[e.Kind]}, {text: e.Node}, {text: e.Text},
		} {
			c[i].cells = append(c[i].cells, cell)
		}
	}
	s.line()
	s.table(c)
}

// relayTable shows one line for each of link, store and base.
func relayTable(b *strings.Builder, r *syncer.Status) {
	_, _ = fmt.Fprintf(b, "relay ready %s   %s\n", yesNo(r.Ready), r.Reason)
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	l, s := r.Link, r.Store
	_, _ = fmt.Fprintf(w, "link\t%s\tmaster %s\treceived %d\tacknowledged %d\t%d bytes in memory\t%s\n",
		l.State, l.Master, l.Received, l.Acked, l.Buffered, l.Error)
	_, _ = fmt.Fprintf(w, "store\t%s\t%s\tcommitted %s\tdurable %s\t%d bytes of log from %s\t%s\n",
		s.State, s.Dir, known(int64(s.Committed)), known(int64(s.Fsynced)), s.LogBytes, known(int64(s.First)), s.Error)
	if s.Base == nil {
		_, _ = fmt.Fprintf(w, "base\tnone\t%s\n", l.BaseError)
	} else {
		_, _ = fmt.Fprintf(w, "base\t%s\tfrom %s\toffset %d\t%d bytes\t\t%s\n",
			showTime(s.Base.Time), s.Base.Source, s.Base.Offset, s.Base.Bytes, l.BaseError)
	}
	_ = w.Flush()
	if r.Downstream != nil {
		downstreamTable(b, r.Downstream)
	}
}

// downstreamTable shows one line for each replica behind the relay.
func downstreamTable(b *strings.Builder, d *downstream.Status) {
	_, _ = fmt.Fprintf(b, "serving replicas on %s   other clients %d\n", d.Address, d.Clients)
	if len(d.Replicas) == 0 {
		return
	}
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "REPLICA\tSTATE\tSINCE\tOFFSET\tLAG BYTES\tSILENT SECONDS\tLAST SYNC\tREASON")
	for _, r := range d.Replicas {
		sync := r.Sync
		if r.State == downstream.StateTransfer.String() {
			sync = fmt.Sprintf("full, %d of %d bytes", r.BaseOut, r.Base)
		}
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%.1f\t%s\t%s\n", r.Address, r.State, showTime(r.Since),
			known(int64(r.Offset)), known(r.Lag), r.Silent, sync, r.Reason)
	}
	_ = w.Flush()
}
