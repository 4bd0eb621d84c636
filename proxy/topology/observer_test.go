package topology

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// peer answers an observer over a pipe, by a script that a real server cannot
// be made to follow to the millisecond.
func peer(c net.Conn, answer func(command string) string) {
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	for {
		words, err := readCommand(r)
		if err != nil {
			return
		}
		reply := answer(strings.Join(words, " "))
		if _, err := io.WriteString(c, reply); err != nil {
			return
		}
	}
}

func readCommand(r *bufio.Reader) ([]string, error) {
	number := func() (int, error) {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, err
		}
		return strconv.Atoi(strings.TrimSpace(line[1:]))
	}
	n, err := number()
	if err != nil {
		return nil, err
	}
	words := make([]string, n)
	for i := range words {
		size, err := number()
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		words[i] = string(b[:size])
	}
	return words, nil
}

func bulk(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

func replicaAnswers(command string) string {
	switch command {
	case "hello 2":
		return "-ERR unknown command 'HELLO'\r\n" // as before Redis 6
	case "PING":
		return "+PONG\r\n"
	case "ROLE":
		return "*5\r\n" + bulk("slave") + bulk("m") + ":6379\r\n" + bulk("connected") + ":7\r\n"
	case "INFO replication":
		return bulk("role:slave\r\nslave_repl_offset:7\r\nmaster_replid:" + string(histX) + "\r\n")
	case "INFO server":
		return bulk("run_id:r1\r\n")
	}
	return "+OK\r\n"
}

// watch runs an observer of a scripted node until the test ends and returns
// its observations and the times of its dials.
func watch(t *testing.T, dial dialFunc) (observed chan observation, ask chan struct{}) {
	cfg := Config{Master: "n:1"}
	cfg.setDefaults()
	observed, ask = make(chan observation), make(chan struct{}, 1)
	ctx, cancel := context.WithCancel(t.Context())
	o := &observer{cfg: &cfg, dial: dial, addr: "n:1", askNow: ask, sink: observed, cancel: cancel, done: make(chan struct{})}
	go o.run(ctx)
	t.Cleanup(o.stop)
	return observed, ask
}

func TestObserverPaceAndDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var silent atomic.Bool
		var infos atomic.Int32
		observed, ask := watch(t, func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go peer(theirs, func(command string) string {
				if silent.Load() && command == "PING" {
					_, _ = io.Copy(io.Discard, theirs) // hears and says nothing
				}
				if command == "INFO replication" {
					infos.Add(1)
				}
				return replicaAnswers(command)
			})
			return ours, nil
		})
		for i := range 25 {
			o := <-observed
			if o.err != nil || o.role == nil || o.role.offset != 7 || o.runID != "r1" {
				t.Fatalf("observation %d: %+v, %v", i, o, o.err)
			}
			if got, want := o.at.Sub(began), time.Duration(i)*DefaultObserveEvery; got != want {
				t.Errorf("observation %d at %v, want %v", i, got, want)
			}
			if hasInfo := i%10 == 0; (o.info != nil) != hasInfo {
				t.Errorf("observation %d has INFO: %t, want %t", i, o.info != nil, hasInfo)
			}
		}
		if n := infos.Load(); n != 3 {
			t.Errorf("INFO was asked %d times in 2.4 s", n)
		}

		// A hint: at once, and with INFO.
		asked := time.Now()
		ask <- struct{}{}
		if o := <-observed; o.at.Sub(asked) > minRoundGap || o.info == nil {
			t.Errorf("a round that was asked for came after %v, INFO %t", o.at.Sub(asked), o.info != nil)
		}

		silent.Store(true)
		stopped := time.Now()
		o := <-observed
		if took := o.at.Sub(stopped); o.err == nil || took > DefaultObserveEvery+DefaultHealthTimeout {
			t.Errorf("a silent node was reported after %v: %v", took, o.err)
		}
	})
}

func TestObserverBacksOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var dials []time.Time
		observed, _ := watch(t, func(context.Context, string) (net.Conn, error) {
			dials = append(dials, time.Now())
			return nil, errors.New("refused")
		})
		for range 30 {
			if o := <-observed; o.err == nil {
				t.Fatal("no error")
			}
		}
		for i := 1; i < len(dials); i++ {
			gap := dials[i].Sub(dials[i-1])
			most := min(minBackoff<<(i-1), maxBackoff)
			if i > 10 {
				most = maxBackoff
			}
			if gap < most/2 || gap > most {
				t.Errorf("dial %d came %v after the one before, want %v to %v", i, gap, most/2, most)
			}
		}
	})
}

// TestObserverStopsAtOnce: whatever it is doing.
func TestObserverStopsAtOnce(t *testing.T) {
	dials := map[string]dialFunc{
		"dialling": func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		},
		"greeting": func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() { _, _ = io.Copy(io.Discard, theirs) }()
			return ours, nil
		},
		"backing off": func(context.Context, string) (net.Conn, error) { return nil, errors.New("refused") },
	}
	for name, dial := range dials {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				cfg := Config{Master: "n:1", ConnectTimeout: time.Hour}
				cfg.setDefaults()
				ctx, cancel := context.WithCancel(t.Context())
				sink := make(chan observation, 1)
				o := &observer{cfg: &cfg, dial: dial, addr: "n:1", sink: sink, cancel: cancel, done: make(chan struct{})}
				go o.run(ctx)
				synctest.Wait()
				began := time.Now()
				o.stop()
				if took := time.Since(began); took != 0 {
					t.Errorf("stop took %v", took)
				}
			})
		})
	}
}

// TestObserverWhoseConnectionIsClosed: it comes back without a word where the same
// process answers at once. Else the node is down, no later than if it had just
// not answered.
func TestObserverWhoseConnectionIsClosed(t *testing.T) {
	for _, test := range []struct {
		name   string
		runID  string // of the process behind the second connection; "" for none
		silent bool   // it does not answer, though the connection is made
		down   bool
	}{
		{name: "by the same process", runID: "r1"},
		{name: "another process", runID: "r2", down: true},
		{name: "nobody listens", down: true},
		{name: "nobody answers", runID: "r1", silent: true, down: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dials, first := 0, make(chan net.Conn, 1)
				observed, _ := watch(t, func(context.Context, string) (net.Conn, error) {
					dials++
					if dials == 2 && test.runID == "" {
						return nil, errors.New("refused")
					}
					ours, theirs := net.Pipe()
					runID := "r1"
					if dials == 1 {
						first <- theirs
					} else {
						runID = test.runID
					}
					silent := dials == 2 && test.silent
					go peer(theirs, func(command string) string {
						if silent {
							_, _ = io.Copy(io.Discard, theirs)
						}
						if command == "INFO server" {
							return bulk("run_id:" + runID + "\r\n")
						}
						return replicaAnswers(command)
					})
					return ours, nil
				})
				for range 3 {
					if o := <-observed; o.err != nil {
						t.Fatal(o.err)
					}
				}
				closed := time.Now()
				_ = (<-first).Close()
				o := <-observed
				took := time.Since(closed)
				if !test.down {
					if o.err != nil || o.runID != "r1" || o.info == nil || took > DefaultObserveEvery || dials != 2 {
						t.Errorf("after %v and %d dials: %+v", took, dials, o)
					}
					return
				}
				if most := DefaultObserveEvery + DefaultHealthTimeout; o.err == nil || took > most {
					t.Errorf("after %v, want %v at most: %+v", took, most, o)
				}
				if !test.silent && took > DefaultObserveEvery {
					t.Errorf("reported after %v, want the next round", took)
				}
			})
		})
	}
}

// TestRoleBelongsToInfo: a node that changes sides between the round's ROLE and
// INFO must not be seen as a master of its new master's history.
func TestRoleBelongsToInfo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		turned := false
		observed, _ := watch(t, func(context.Context, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go peer(theirs, func(command string) string {
				switch {
				case command == "INFO replication":
					turned = true // between the two
				case command == "ROLE" && !turned:
					return "*3\r\n" + bulk("master") + ":1000000\r\n*0\r\n"
				}
				return replicaAnswers(command)
			})
			return ours, nil
		})
		o := <-observed
		if o.info == nil || o.info.replID != histX || o.role == nil || o.role.role != RoleReplica || o.role.offset != 7 {
			t.Errorf("seen as %+v with %+v", o.role, o.info)
		}
	})
}
