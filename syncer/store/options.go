package store

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
)

// FsyncPolicy says when what was committed is made durable.
type FsyncPolicy string

// The fsync policies, as Redis's appendfsync.
const (
	// FsyncAlways begins an fsync after each commit; commits that come while
	// one runs share the next. Nobody waits but who asks to, by WaitFsynced.
	FsyncAlways FsyncPolicy = "always"
	// FsyncEverySec does it once a second while there is something to do.
	FsyncEverySec FsyncPolicy = "everysec"
	// FsyncNo leaves it to the operating system, but for Sync and Close.
	FsyncNo FsyncPolicy = "no"
)

// FsyncPolicies returns the policies that exist.
func FsyncPolicies() []FsyncPolicy { return []FsyncPolicy{FsyncAlways, FsyncEverySec, FsyncNo} }

// Unlimited turns a limit of [Options] off.
const Unlimited = -1

// Defaults of [Options]; sizes in bytes.
const (
	DefaultSegmentBytes      = 64 << 20
	DefaultFsync             = FsyncEverySec
	DefaultRetainLogBytes    = 10 << 30
	DefaultRetainAge         = 24 * time.Hour
	DefaultRetainGenerations = 24 * time.Hour
	DefaultRetryEvery        = time.Second
)

// Options configure a [Store]. Zero fields take their defaults in Open.
type Options struct {
	SegmentBytes int64       // a segment that has so many is followed by another at the next commit
	Fsync        FsyncPolicy // when commits become durable

	// What goes beyond one of these is removed, oldest first, but never what a
	// Pin holds or what follows the newest base. An older base goes when the
	// log after it has to. Unlimited means no limit.
	RetainLogBytes int64         // of the log of one generation
	RetainAge      time.Duration // since the last commit in a segment

	RetainGenerations time.Duration // since a generation was replaced by the next

	RetryEvery time.Duration // how often a degraded store tries to write

	FS         FS                    // nil for OSFS
	Logger     *zap.Logger           // nil logs nothing
	Registerer prometheus.Registerer // nil registers nothing
}

// Check returns what Open would say of the options. It does no I/O.
func (o Options) Check() error { return o.complete() }

func (o *Options) complete() error {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.Fsync == "" {
		o.Fsync = DefaultFsync
	}
	if o.RetainLogBytes == 0 {
		o.RetainLogBytes = DefaultRetainLogBytes
	}
	if o.RetainAge == 0 {
		o.RetainAge = DefaultRetainAge
	}
	if o.RetainGenerations == 0 {
		o.RetainGenerations = DefaultRetainGenerations
	}
	if o.RetryEvery == 0 {
		o.RetryEvery = DefaultRetryEvery
	}
	if o.FS == nil {
		o.FS = OSFS{}
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	switch {
	case o.SegmentBytes < 0:
		return fmt.Errorf("check SegmentBytes: %d is negative", o.SegmentBytes)
	case o.RetryEvery < 0:
		return fmt.Errorf("check RetryEvery: %s is negative", o.RetryEvery)
	}
	switch o.Fsync {
	case FsyncAlways, FsyncEverySec, FsyncNo:
		return nil
	}
	return fmt.Errorf("check Fsync: %q is none of %q", o.Fsync, FsyncPolicies())
}
