package proxy_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// loadEnv holds, for a process that is to be a load, which.
const loadEnv = "SLUICE_TEST_LOAD"

// mixedLoad has clients read nine times of ten and write once. It runs in a
// process of its own: in the proxy's, the sampler's goroutines would wait behind
// those of the clients, as they do for no user.
type mixedLoad struct {
	Addr    string
	Clients int
	Keys    int           // each as likely as any other
	Pace    time.Duration // between two commands of a client; 0: they do what they can
	For     time.Duration
}

// loadResult is what a load has done.
type loadResult struct {
	Commands int64
	Took     time.Duration
}

// run runs the load in another process.
func (l mixedLoad) run() (r loadResult, err error) {
	arg, err := json.Marshal(l)
	if err != nil {
		return r, err
	}
	var stderr bytes.Buffer
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), loadEnv+"="+string(arg))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return r, fmt.Errorf("load: %w: %s", err, stderr.Bytes())
	}
	return r, json.Unmarshal(out, &r)
}

// runLoad is that other process.
func runLoad(arg string) error {
	var l mixedLoad
	if err := json.Unmarshal([]byte(arg), &l); err != nil {
		return err
	}
	conns := make([]*wire, l.Clients)
	for i := range conns {
		var err error
		if conns[i], err = dialWire(l.Addr); err != nil {
			return err
		}
	}
	var done atomic.Int64
	var clients sync.WaitGroup
	failed := make([]error, len(conns))
	began := time.Now()
	for i, w := range conns {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(i), 11))
			for time.Since(began) < l.For {
				key := "key:" + strconv.Itoa(rng.IntN(l.Keys))
				cmd := []string{"GET", key}
				if rng.IntN(10) == 0 {
					cmd = []string{"SET", key, "a value of thirty-two bytes size"}
				}
				if _, failed[i] = w.do(cmd...); failed[i] != nil {
					return
				}
				done.Add(1)
				time.Sleep(l.Pace)
			}
			_ = w.Close()
		})
	}
	clients.Wait()
	if err := errors.Join(failed...); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(loadResult{done.Load(), time.Since(began)})
}
