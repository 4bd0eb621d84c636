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

// reach says where a client reads, and where it writes.
type reach struct{ reads, writes string }

// record has clients, spread over the ways to reach, read and write a few keys
// at once, any of them any key, and returns what they saw. Each reads and
// writes on different connections.
func record(t testing.TB, ways []reach, prefix string, clients, keys, perClient int) []porcupine.Operation {
	t.Helper()
	var mu sync.Mutex
	var history []porcupine.Operation
	var wg sync.WaitGroup
	began := time.Now()
	for id := range clients {
		var c [3]*wire // writes; reads on the others
		way := ways[id%len(ways)]
		for i, addr := range []string{way.writes, way.reads, way.reads} {
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

// judge has porcupine judge a history.
func judge(t testing.TB, name string, history []porcupine.Operation, want porcupine.CheckResult) {
	t.Helper()
	began := time.Now()
	got := porcupine.CheckOperationsTimeout(registers, history, time.Minute)
	t.Logf("%s: %d operations: %s, found in %.1f s", name, len(history), strings.ToLower(string(got)), time.Since(began).Seconds())
	if got != want {
		t.Errorf("%s: %s, want %s", name, got, want)
	}
}

// What porcupine is given to judge: enough for a control to be caught.
const recClients, recKeys, recEach = 8, 50, 1500

// TestCausalRegistersAreLinearizable has porcupine judge what clients of one
// proxy see. What they see through an eventual listener must not pass: a judge
// that accepts that proves nothing.
func TestCausalRegistersAreLinearizable(t *testing.T) {
	c := newFoe(t, proxy.ConsistencyCausal, proxy.ConsistencyEventual)
	f := c.startFaults(t, 2)
	through := func(i int) []reach {
		a := c.srv.Addrs()[i].String()
		return []reach{{a, a}}
	}
	causal := record(t, through(0), "causal", recClients, recKeys, recEach)
	eventual := record(t, through(1), "eventual", recClients, recKeys, recEach)
	f.end(t)
	judge(t, "causal", causal, porcupine.Ok)
	judge(t, "eventual", eventual, porcupine.Illegal)
}

// TestLinearizableRegisters has clients read through two proxies and write
// through either of them, or on the master itself. The control is the same
// through their causal listeners.
func TestLinearizableRegisters(t *testing.T) {
	modes := []proxy.Consistency{proxy.ConsistencyLinearizable, proxy.ConsistencyCausal}
	c := newFoe(t, modes...)
	other := &cluster{master: c.master, replicas: c.replicas}
	other.front(t, func(o *proxy.Options) {
		o.Listeners = nil
		for _, m := range modes {
			o.Listeners = append(o.Listeners, proxy.Listener{Network: "tcp", Address: "127.0.0.1:0", Consistency: m})
		}
		o.IndexWait = 50 * time.Millisecond
		o.DiscoverEvery = 100 * time.Millisecond
		o.Logger = nil
	})
	f := c.startFaults(t, 4)
	ways := func(i int) []reach {
		a, b := c.srv.Addrs()[i].String(), other.srv.Addrs()[i].String()
		return []reach{{a, b}, {b, a}, {a, c.master.Addr()}, {b, b}}
	}
	linearizable := record(t, ways(0), "linearizable", recClients, recKeys, recEach/3)
	replicas, master := served(t, c.reg)
	causal := record(t, ways(1), "causal", recClients, recKeys, recEach/3)
	f.end(t)
	t.Logf("the first proxy had %.0f reads answered by replicas, %.0f by the master", replicas, master)
	if replicas == 0 {
		t.Error("no linearizable read was answered by a replica")
	}
	judge(t, "linearizable", linearizable, porcupine.Ok)
	judge(t, "causal", causal, porcupine.Illegal)
}
