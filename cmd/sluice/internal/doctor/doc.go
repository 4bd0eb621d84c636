// Package doctor looks at a live master with its replicas and says what will
// hurt: with the numbers it rests on and the setting to change.
//
// [Collect] does all the I/O and returns [Facts], one consistent heap of plain
// values. [Examine] runs the checks over them; each check is a pure function of
// the facts, so that a table can test it. [Report] orders what they found for
// people ([Report.Text]) and for machines (encoding/json).
//
// # The dead loop
//
// While a replica takes a full sync, the master keeps what is written meanwhile
// in the replica's output buffer. That takes
//
//	need = write rate x (snapshot + transfer + load)
//
// bytes. client-output-buffer-limit closes the replica's connection when the
// buffer passes the hard limit, or stays above the soft limit for its seconds.
// The replica comes back, the backlog no longer has what it needs, and the full
// sync begins anew: for ever, while the master forks once for each turn. From
// 7.0 on the hard limit counts as no less than repl-backlog-size
// (checkClientOutputBufferLimits in Redis's networking.c), and a backlog of
// need bytes lets the replica go on after the kill.
//
// Nothing is written to the servers.
package doctor
