package downstream

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// maxPeers bounds what is remembered of replicas that were here.
const maxPeers = 1024

// peers remembers which replicas have failed to load a base, so that one that
// cannot (an older version, not enough memory) does not take it in a tight loop.
type peers struct {
	mu   sync.Mutex
	seen map[string]*peer // by announced address
}

type peer struct {
	failures  int // bases in a row that it has not loaded
	notBefore time.Time
	forced    bool      // the next sync is a full one, because an operator asked for it
	at        time.Time // of the last change
}

// ended notes that a replica was disconnected in a state, and returns how many
// times in a row it has gone before it had loaded the base, and how long it has
// to wait for the next one. One that rejects what it reads may show as a reset
// while more is being sent to it.
func (p *peers) ended(addr string, was State, why reason, now time.Time) (failures int, pause time.Duration) {
	if was != StateTransfer && was != StateLoading || why != reasonClosed && why != reasonIO {
		return 0, 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.get(addr)
	r.failures++
	pause = retryPause(r.failures, was)
	r.at, r.notBefore = now, now.Add(pause)
	return r.failures, pause
}

// get returns what is remembered of a replica. mu is held.
func (p *peers) get(addr string) *peer {
	r := p.seen[addr]
	if r == nil {
		p.makeRoom()
		r = &peer{}
		p.seen[addr] = r
	}
	return r
}

// force has a replica synced in full when it comes next.
func (p *peers) force(addr string, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	*p.get(addr) = peer{forced: true, at: now}
}

// isForced reports whether a replica is still to be synced in full.
func (p *peers) isForced(addr string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.seen[addr]
	return r != nil && r.forced
}

// takeForced reports whether a replica is to be synced in full, once.
func (p *peers) takeForced(addr string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.seen[addr]
	if r == nil || !r.forced {
		return false
	}
	r.forced = false
	return true
}

// makeRoom forgets the one that was not seen for the longest time. mu is held.
func (p *peers) makeRoom() {
	if p.seen == nil {
		p.seen = map[string]*peer{}
	}
	if len(p.seen) < maxPeers {
		return
	}
	var oldest string
	for addr, r := range p.seen {
		if oldest == "" || r.at.Before(p.seen[oldest].at) {
			oldest = addr
		}
	}
	delete(p.seen, oldest)
}

// loaded notes that a replica has loaded a base.
func (p *peers) loaded(addr string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.seen, addr)
}

// mustWait returns for how long a replica gets no base.
func (p *peers) mustWait(addr string, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.seen[addr]; r != nil {
		return max(r.notBefore.Sub(now), 0)
	}
	return 0
}

// damage remembers what was found damaged in the store, until the process ends.
type damage struct {
	mu    sync.Mutex
	floor map[uint64]repl.Offset   // by generation: the last damaged byte found
	bases map[uint64][]repl.Offset // by generation: offsets of damaged bases
}

// addLog notes that a byte of the log cannot be read.
func (d *damage) addLog(gen uint64, off repl.Offset) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.floor == nil {
		d.floor = map[uint64]repl.Offset{}
	}
	d.floor[gen] = max(d.floor[gen], off)
}

// addBase notes that a base cannot be read.
func (d *damage) addBase(gen uint64, off repl.Offset) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.bases == nil {
		d.bases = map[uint64][]repl.Offset{}
	}
	if !slices.Contains(d.bases[gen], off) {
		d.bases[gen] = append(d.bases[gen], off)
	}
}

// apply returns the floor of a generation and those of its bases that are not
// damaged.
func (d *damage) apply(gen uint64, first repl.Offset, bases []store.Base) (repl.Offset, []store.Base) {
	d.mu.Lock()
	defer d.mu.Unlock()
	floor, ok := d.floor[gen]
	if !ok {
		floor = first - 1
	}
	bad := d.bases[gen]
	if len(bad) == 0 {
		return floor, bases
	}
	return floor, slices.DeleteFunc(bases, func(b store.Base) bool { return slices.Contains(bad, b.Offset) })
}

// magicBytes is the length of "REDIS0011" and of "VALKEY080".
const magicBytes = 9

// magicOf returns how a snapshot begins, empty if that cannot be read.
func magicOf(f store.File) []byte {
	b := make([]byte, magicBytes)
	n, _ := f.ReadAt(b, 0) // it is for a message only
	return b[:n]
}

// rdbVersion returns the version of the snapshot that was sent, for people.
func rdbVersion(sv *served) string {
	if v := strings.TrimLeft(strings.TrimLeft(string(sv.magic), "REDISVALKY"), "0"); v != "" {
		return v
	}
	return "unknown"
}
