package relaytest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/sluice-io/sluice/resp/localredis"
)

// NewClient returns a client that says nothing but what it is told to.
func NewClient(t testing.TB, addr string, db int) *redis.Client {
	t.Helper()
	c := redis.NewClient(&redis.Options{Addr: addr, DB: db, Protocol: 2, DisableIdentity: true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// Load writes to several databases until stopped, in ways that tell when
// something is missing or comes twice.
type Load struct {
	t       testing.TB
	clients []*redis.Client
	rng     *rand.Rand
	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
}

// NewLoad returns a load for s that is not started. Its commands are always the
// same, in the same order.
func NewLoad(t testing.TB, s *localredis.Server) *Load {
	l := &Load{t: t, rng: rand.New(rand.NewPCG(1, 2))}
	for _, db := range []int{0, 3, 11} {
		l.clients = append(l.clients, NewClient(t, s.Addr(), db))
	}
	return l
}

// Start writes until Stop.
func (l *Load) Start() {
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.wg.Go(func() {
		for l.ctx.Err() == nil {
			if err := l.Round(context.Background()); err != nil {
				l.t.Errorf("load: %v", err)
				return
			}
		}
	})
}

// Stop ends it and waits for it.
func (l *Load) Stop() {
	l.cancel()
	l.wg.Wait()
}

// Round writes some commands.
func (l *Load) Round(ctx context.Context) error {
	for _, c := range l.clients {
		key := func() string { return "k" + strconv.Itoa(l.rng.IntN(300)) }
		pipe := c.Pipeline()
		for range 20 {
			pipe.Append(ctx, "s"+key(), "x")
			pipe.Set(ctx, key(), strings.Repeat("v", l.rng.IntN(2000)), time.Hour)
			pipe.LPush(ctx, "l"+key(), l.rng.IntN(1000))
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
		tx := c.TxPipeline()
		for range 5 {
			tx.Incr(ctx, "counter")
			tx.RPopLPush(ctx, "l"+key(), "l"+key())
			tx.HSet(ctx, "h"+key(), key(), l.rng.IntN(1000))
		}
		if _, err := tx.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
			return err
		}
		if l.rng.IntN(10) == 0 {
			if err := c.Set(ctx, "large", strings.Repeat(key(), 200_000), 0).Err(); err != nil {
				return err
			}
		}
	}
	return nil
}
