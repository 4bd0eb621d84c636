// Package syncer is the relay: it is a replica to the master, keeps what it gets
// in a durable store, and gives it on. [Relay] puts the parts together; DESIGN.md
// draws them.
package syncer
