package upstream

import (
	"errors"
	"fmt"

	"github.com/sluice-io/sluice/syncer/psync"
)

var (
	// ErrClosed means: the link was closed.
	ErrClosed = errors.New("link is closed")
	// ErrBufferFull means: the disk did not keep up with the master and the memory
	// between them is full. The link was dropped, and is resumed when the disk
	// has caught up.
	ErrBufferFull = errors.New("buffer is full: the disk does not keep up with the master")
	// ErrNoReplica means: no replica can give a base, and the master is not to be
	// asked (BaseReplica).
	ErrNoReplica = errors.New("no replica can give a base, and base_from is replica")
	// ErrBaseMismatch means: a snapshot says it was taken elsewhere than its giver
	// announced.
	ErrBaseMismatch = errors.New("snapshot is not of the position that was announced")

	errRepointed = errors.New("another master was set")
)

// followError: the node is a replica of another.
type followError struct{ from, to string }

func (e followError) Error() string {
	return fmt.Sprintf("%s is a replica of %s, which is asked next", e.from, e.to)
}

// asRefused returns the refusal in err's chain.
func asRefused(err error) (psync.Refused, bool) {
	var r psync.Refused
	ok := errors.As(err, &r)
	return r, ok
}

// hint says what an operator can do about err; it is appended to a log message.
func hint(err error) string {
	r, ok := asRefused(err)
	switch {
	case errors.Is(err, ErrBufferFull):
		return ". The disk is too slow or stuck: see the store's state; a larger repl-backlog-size at the master bridges longer stalls"
	case errors.Is(err, ErrNoReplica):
		return ". Attach a replica to the master, or set base_from to auto or master"
	case !ok:
		return ""
	}
	switch r.Code {
	case "NOAUTH", "WRONGPASS":
		return ". Check user and password"
	case "NOPERM":
		return ". The ACL user needs +psync +replconf +ping +info"
	}
	return ""
}
