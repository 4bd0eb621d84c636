package downstream

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/resp/localredis"
	"github.com/sluice-io/sluice/syncer/relaytest"
)

// flood writes without a pause until stopped: what a slow replica cannot keep up
// with while it loads.
func flood(t *testing.T, s *localredis.Server) (stop func()) {
	c := relaytest.NewClient(t, s.Addr(), 0)
	value := strings.Repeat("v", 10_000)
	return repeat(t, 10*time.Millisecond, func() error {
		pipe := c.Pipeline()
		for range 20 {
			pipe.Set(context.Background(), "hot", value, 0)
		}
		_, err := pipe.Exec(context.Background())
		return err
	})
}

// The loop that a stock master and a slow replica get into: the replica loads for
// longer than the output buffer for it lasts, is cut off, has lost its place, and
// syncs anew. Behind the relay the same replica, of the same master under the same
// load, comes online with its first full resync.
func TestDeadLoop(t *testing.T) {
	settings, slow := relaytest.DeadLoop() // cmd/sluice/internal/doctor foretells it of the same
	master := relaytest.StartRedis(t, localredis.Options{Args: settings})
	c := relaytest.NewClient(t, master.Addr(), 0)
	pipe := c.Pipeline()
	for i := range relaytest.DeadLoopKeys {
		pipe.Set(context.Background(), "key"+strconv.Itoa(i), "v", 0)
	}
	if _, err := pipe.Exec(context.Background()); err != nil {
		t.Fatal(err)
	}
	r := startRig(t, t.TempDir(), master.Addr(), rigOptions{})
	stop := flood(t, master)
	defer stop()

	stock := startBehind(t, master.Port(), slow...)
	relaytest.Await(t, "the stock replica is in the loop", func() bool { return fullResyncs(t, stock) >= 3 })
	if up := relaytest.Info(t, stock, "master_link_status"); up == "up" {
		t.Error("the stock replica is up: this is no loop")
	}
	loops := relaytest.Number(t, master, "sync_full")
	stock.Stop()

	behind := startBehind(t, r.port(), slow...)
	r.awaitOnline(t, 1)
	if n := fullResyncs(t, behind); n != 1 {
		t.Errorf("%d full resyncs behind the relay", n)
	}
	stop()
	sameData(t, master, behind)
	t.Logf("the master did %d full resyncs for the stock replica; behind the relay it was one, of the relay's", loops)
}
