// Package causal keeps reads from replicas from being stale.
//
// [Fences] know, for every key written through this process, which sample of
// the master's replication offset a replica must have applied before it may
// answer a read of that key. A [Sampler] takes the samples: of the master while
// something was written, of the replicas while one is behind. DESIGN.md says
// why this is sound, and what it does not cover.
package causal
