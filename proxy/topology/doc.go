// Package topology knows which Redis nodes there are, which of them is the
// master, which may answer reads, and how far each replica is behind.
//
// [Static] starts from a configured address, or from one that Sentinel names. Every node has an observer with
// a connection of its own that asks PING and ROLE at a steady pace and INFO
// replication now and then; what it sees goes to one coordinating goroutine,
// which decides and publishes an immutable [View] at each change. The facts
// that move with every sample (offset, lag) are atomics on [Node], so that
// event loops read them without locks and without a new View.
//
// Deciding (tracker, elect, judge, mergeReports) is free of I/O and of clocks;
// asking (observer, connection) knows nothing of the other nodes. DESIGN.md
// has the state diagrams and the rules.
package topology
