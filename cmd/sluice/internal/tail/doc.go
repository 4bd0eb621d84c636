// Package tail reads the replication stream that a store holds, command by
// command, for people and their tools: `sluice tail`.
package tail
