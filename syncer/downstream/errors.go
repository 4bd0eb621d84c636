package downstream

import "errors"

// reason says why a replica was disconnected. The words are the values of a
// metric's label.
type reason string

const (
	reasonClosed     reason = "closed by replica"
	reasonTimeout    reason = "timeout"
	reasonLag        reason = "lag"
	reasonReplID     reason = "replid changed"
	reasonGeneration reason = "generation over"
	reasonCorrupt    reason = "corrupt"
	reasonKilled     reason = "killed"
	reasonShutdown   reason = "shutdown"
	reasonServed     reason = "served" // a snapshot was all that was asked for
	reasonIO         reason = "i/o error"
)

var reasons = []reason{
	reasonClosed, reasonTimeout, reasonLag, reasonReplID, reasonGeneration,
	reasonCorrupt, reasonKilled, reasonShutdown, reasonServed, reasonIO,
}

// dropError is why a session was ended by us. It is the cause of its context.
type dropError struct {
	reason reason
	text   string
}

func (e *dropError) Error() string { return e.text }

var (
	errShutdown   = &dropError{reasonShutdown, "the relay stops"}
	errKilled     = &dropError{reasonKilled, "closed by CLIENT KILL"}
	errReplID     = &dropError{reasonReplID, "the history goes on under another replid; it comes back and is told which"}
	errGeneration = &dropError{reasonGeneration, "another generation has taken the place of the one it was served from"}
	errServed     = &dropError{reasonServed, "it asked for a snapshot and no stream"}
	errSlowReader = &dropError{reasonTimeout, "it does not read what it subscribed to"}
)

// reasonOf returns why a session ended with err.
func reasonOf(err error) reason {
	var d *dropError
	if errors.As(err, &d) {
		return d.reason
	}
	return reasonIO
}
