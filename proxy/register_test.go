package proxy_test

import (
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
)

// The hunter writes versions that only rise and reads them on other
// connections. A read that began after the acknowledgement of a version and
// shows an older one is stale. A read that began after another had shown a
// version and shows an older one went back: with a single writer per key both
// together are what a linearizable register forbids.

// shape is how a register holds its version.
type shape uint8

const (
	asString   shape = iota // SET key version
	asField                 // HSET key f version
	asPresence              // odd versions: SET key version; even ones: DEL key
	asExpiry                // EXPIREAT key epoch+version
	shapes
)

// expiryEpoch is where the expiry times of versions begin, in Unix seconds: far
// enough in the future that nothing expires.
const expiryEpoch = 1 << 33

// register is one key.
type register struct {
	key    string
	shape  shape
	mu     sync.Mutex    // held by its writer until the write is acknowledged
	issued atomic.Uint64 // newest version that may have been sent
	acked  atomic.Uint64 // newest version that is acknowledged
	shown  atomic.Uint64 // newest version that is acknowledged or has been read
	lost   atomic.Bool   // a write of uncertain fate: it may come at any time, over newer ones
}

func (g *register) writeCommand(v uint64) []string {
	n := strconv.FormatUint(v, 10)
	switch {
	case g.shape == asField:
		return []string{"HSET", g.key, "f", n}
	case g.shape == asExpiry:
		return []string{"EXPIREAT", g.key, strconv.FormatUint(expiryEpoch+v, 10)}
	case g.shape == asPresence && v%2 == 0:
		return []string{"DEL", g.key}
	}
	return []string{"SET", g.key, n}
}

func (g *register) readCommand() []string {
	switch g.shape {
	case asField:
		return []string{"HGET", g.key, "f"}
	case asExpiry:
		return []string{"EXPIRETIME", g.key}
	}
	return []string{"GET", g.key}
}

// version returns the newest version that a reply can stand for, when issued
// was the newest one as it came.
func (g *register) version(reply any, issued uint64) (uint64, error) {
	switch v := reply.(type) {
	case nil:
		if g.shape == asPresence {
			return issued &^ 1, nil
		}
		return 0, nil
	case int64:
		return uint64(max(0, v-expiryEpoch)), nil // negative: no key, no expiry
	case string:
		return strconv.ParseUint(v, 10, 64)
	case replyError:
		return 0, v
	}
	return 0, fmt.Errorf("reply %v", reply)
}

func raise(to *atomic.Uint64, v uint64) {
	for old := to.Load(); old < v && !to.CompareAndSwap(old, v); old = to.Load() {
	}
}

// glance is a read of one register that is under way.
type glance struct {
	g            *register
	acked, shown uint64 // when it began
}

func (g *register) glance() glance { return glance{g, g.acked.Load(), g.shown.Load()} }
