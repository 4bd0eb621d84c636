package proxy_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/sluice-io/sluice/proxy"
)

// access is one read or write of a register, as porcupine is told of it.
type access struct {
	key   string
	write bool
	value string // of a write
}

// registers is the model of independent registers that hold one string each.
var registers = porcupine.Model{
	Partition: func(history []porcupine.Operation) (parts [][]porcupine.Operation) {
		byKey := map[string]int{}
		for _, op := range history {
			k := op.Input.(access).key
			i, ok := byKey[k]
			if !ok {
				i = len(parts)
				byKey[k] = i
				parts = append(parts, nil)
			}
			parts[i] = append(parts[i], op)
		}
		return parts
	},
	Init: func() any { return "" },
	Step: func(state, input, output any) (bool, any) {
		if a := input.(access); a.write {
			return true, a.value
		}
		return output == state, state
	},
}

// record has clients read and write a few keys at once, any of them any key,
// and returns what they saw. Each reads and writes on different connections.
func record(t testing.TB, addr, prefix string, clients, keys, perClient int) []porcupine.Operation {
	t.Helper()
	var mu sync.Mutex
	var history []porcupine.Operation
	var wg sync.WaitGroup
	began := time.Now()
	for id := range clients {
		var c [3]*wire // writes; reads on the others
		for i := range c {
			var err error
			if c[i], err = dialWire(addr); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = c[i].Close() })
		}
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(id), 3))
			for n := range perClient {
				a := access{key: fmt.Sprint(prefix, rng.IntN(keys)), write: rng.IntN(4) == 0}
				conn, cmd := c[1+rng.IntN(2)], []string{"GET", a.key}
				if a.write {
					a.value = fmt.Sprint(id, ".", n)
					conn, cmd = c[0], []string{"SET", a.key, a.value}
				}
				op := porcupine.Operation{ClientId: id, Input: a, Call: int64(time.Since(began))}
				reply, err := conn.do(cmd...)
				op.Return = int64(time.Since(began))
				switch {
				case err != nil && a.write && isUncertain(err):
					op.Return = math.MaxInt64 // it may run at any time from now on
				case err != nil:
					t.Errorf("%v: %v", cmd, err)
					return
				case !a.write && reply == nil:
					op.Output = ""
				default:
					op.Output = reply
				}
				mu.Lock()
				history = append(history, op)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return history
}

// TestCausalRegistersAreLinearizable has porcupine judge what clients of one
// proxy see. What they see through an eventual listener must not pass.
func TestCausalRegistersAreLinearizable(t *testing.T) {
	c := newDelayedCluster(t, []delay{{20 * time.Millisecond, 20 * time.Millisecond}, {10 * time.Millisecond, 0}}, func(o *proxy.Options) {
		o.Listeners = []proxy.Listener{
			{Network: "tcp", Address: "127.0.0.1:0", Consistency: proxy.ConsistencyCausal},
			{Network: "tcp", Address: "127.0.0.1:0", Consistency: proxy.ConsistencyEventual},
		}
		o.DiscoverEvery = 100 * time.Millisecond
		o.Logger = nil
	})
	f := c.startFaults(t, 2)
	const clients, keys, each = 8, 50, 1500
	causal := record(t, c.addr, "causal", clients, keys, each)
	eventual := record(t, c.srv.Addrs()[1].String(), "eventual", clients, keys, each)
	f.end(t)
	judge := func(history []porcupine.Operation) porcupine.CheckResult {
		began := time.Now()
		result := porcupine.CheckOperationsTimeout(registers, history, time.Minute)
		t.Logf("%d operations on %d registers: %s, found in %.1f s", len(history), keys, strings.ToLower(string(result)), time.Since(began).Seconds())
		return result
	}
	if got := judge(causal); got != porcupine.Ok {
		t.Errorf("causal: %s, want linearizable", got)
	}
	if got := judge(eventual); got != porcupine.Illegal {
		t.Errorf("eventual: %s: a judge that accepts this proves nothing", got)
	}
}
