package inspect

import (
	"time"

	"github.com/sluice-io/sluice/rdbstream"
)

// TTLBucket counts the keys that have at most so long to live, and more than
// the bucket before.
type TTLBucket struct {
	Within string `json:"within"` // "expired", "1m" … "1y", "more", "never"
	Keys   int64  `json:"keys"`
	Bytes  int64  `json:"bytes"`
}

const day = 24 * time.Hour

// ttlBounds are the buckets between expired and more.
var ttlBounds = [...]struct {
	name   string
	within time.Duration
}{
	{"1m", time.Minute}, {"10m", 10 * time.Minute}, {"1h", time.Hour}, {"6h", 6 * time.Hour}, {"1d", day},
	{"7d", 7 * day}, {"30d", 30 * day}, {"1y", 365 * day},
}

// ttlHistogram counts expired, the bounds, more, never.
type ttlHistogram [len(ttlBounds) + 3]TTLBucket

func (h *ttlHistogram) add(r *rdbstream.Record, now time.Time) {
	i := len(h) - 1
	switch {
	case r.ExpireAt == rdbstream.NoExpiry:
	case r.Expired(now):
		i = 0
	default:
		left := uint64(r.ExpireAt) - uint64(now.UnixMilli()) // not negative, and may be beyond a Duration
		for i = 1; i <= len(ttlBounds) && left > uint64(ttlBounds[i-1].within.Milliseconds()); i++ {
			continue
		}
	}
	h[i].Keys++
	h[i].Bytes += r.Size
}

func (h *ttlHistogram) buckets() []TTLBucket {
	h[0].Within = "expired"
	for i, b := range ttlBounds {
		h[i+1].Within = b.name
	}
	h[len(h)-2].Within = "more"
	h[len(h)-1].Within = "never"
	return h[:]
}
