package proxy_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-io/sluice/proxy"
	"github.com/sluice-io/sluice/resp/localredis"
)

// returns waits until reads of key are answered by replicas, as they must be
// once nothing is being written any more.
func (c *cluster) returns(t testing.TB, key string) {
	t.Helper()
	r := dialRaw(t, c.addr)
	sum := func() (n int) {
		for _, s := range c.replicas {
			n += calls(t, s, "get")
		}
		return n
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		before := sum()
		for range 5 {
			r.cmd("GET", key)
			if got, err := r.reply(); err != nil || strings.HasPrefix(got, "-SLUICE_") {
				t.Fatalf("GET %s: %q, %v", key, got, err)
			}
		}
		if sum() == before+5 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("reads of %s are still kept from the replicas", key)
		}
	}
}

// lagging is a cluster whose only replica hears of writes a second late.
func lagging(t testing.TB) *cluster {
	return newDelayedCluster(t, []delay{{time.Second, 0}}, nil)
}

func TestLostWritesDoNotKeepReadsOnTheMaster(t *testing.T) {
	for name, leave := range map[string]bool{"client waits": false, "client has left": true} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, nil)
			w := dialRaw(t, c.addr)
			w.do("+OK\r\n", "SET", "k", "v")
			c.returns(t, "k")
			redisDo(t, c.master, "CLIENT", "PAUSE", "60000", "WRITE")
			w.cmd("SET", "k", "w")
			c.blocked(t, 1)
			if leave {
				_ = w.Close()
			}
			redisDo(t, c.master, "CLIENT", "KILL", "TYPE", "normal")
			redisDo(t, c.master, "CLIENT", "UNPAUSE")
			if !leave {
				if got, err := w.reply(); err != nil || !strings.HasPrefix(got, "-SLUICE_UNCERTAIN ") {
					t.Fatalf("SET: %q, %v", got, err)
				}
			}
			c.returns(t, "k")
		})
	}
}

// blocked waits until n clients of the master wait for something.
func (c *cluster) blocked(t testing.TB, n int) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; {
		list, err := localredis.Do(c.master.Addr(), "CLIENT", "LIST", "TYPE", "normal")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Count(list, " flags=b") == n {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no %d clients wait:\n%s", n, list)
		}
	}
}

// TestRefusedWriteIsFencedWhereItRuns has a write refused with READONLY and run
// the second time it is sent.
func TestRefusedWriteIsFencedWhereItRuns(t *testing.T) {
	c := lagging(t)
	w, r := dialRaw(t, c.addr), dialRaw(t, c.addr)
	w.do("+OK\r\n", "SET", "k", "old")
	c.returns(t, "k")
	// What the first run counts is no write to the replica, so that no fence is due to it.
	w.do("+OK\r\n", "EVAL", `redis.set_repl(redis.REPL_NONE)
		if redis.call("incr", KEYS[2]) == 1 then return redis.error_reply("READONLY You can't write against a read only replica.") end
		redis.set_repl(redis.REPL_ALL)
		return redis.call("set", KEYS[1], "new")`, "2", "k", "tries")
	for range 50 {
		r.do("$3\r\nnew\r\n", "GET", "k")
		time.Sleep(time.Millisecond) // the fence passes from the sample that is due to those that follow
	}
}

// TestUploadInTransaction: a value that is streamed is queued like any other,
// and written when EXEC runs.
func TestUploadInTransaction(t *testing.T) {
	c := lagging(t)
	w, r := dialRaw(t, c.addr), dialRaw(t, c.addr)
	w.do("+OK\r\n", "SET", "k", "old")
	w.do("+OK\r\n", "MULTI")
	w.do("+QUEUED\r\n", "SET", "k", strings.Repeat("x", 2<<20))
	r.do("+OK\r\n", "SET", "other", "v")
	c.returns(t, "other") // so much later has been sampled
	w.do("*1\r\n+OK\r\n", "EXEC")
	r.do(":2097152\r\n", "STRLEN", "k")
}

// TestPinnedWritesAreFencedOneByOne: what a session waits for does not keep
// what it wrote before on the master.
func TestPinnedWritesAreFencedOneByOne(t *testing.T) {
	c := newCluster(t, 1, nil)
	w := dialRaw(t, c.addr)
	w.do("+OK\r\n", "CLIENT", "NO-EVICT", "ON")
	w.send("SET k v\r\nBLPOP q 0\r\n")
	w.expect("+OK\r\n")
	c.blocked(t, 1)
	c.returns(t, "k")
	dialRaw(t, c.addr).do(":1\r\n", "RPUSH", "q", "x")
	w.expect("*2\r\n$1\r\nq\r\n$1\r\nx\r\n")
}

// halfAnUpload sends the most of MSET a <2 MB> b y and waits until it has
// reached the master.
func (c *cluster) halfAnUpload(t testing.TB) *raw {
	t.Helper()
	w := dialRaw(t, c.addr)
	value := strings.Repeat("x", 2<<20)
	w.send("*5\r\n$4\r\nMSET\r\n$1\r\na\r\n$2097152\r\n" + value)
	c.await(t, "the upload on its way", func(proxy.Status) bool {
		list, err := localredis.Do(c.master.Addr(), "CLIENT", "LIST", "TYPE", "normal")
		return err == nil && anyAbove(list, " qbuf=", 1<<20)
	})
	return w
}

func TestUploadIsPassedOnAsItArrives(t *testing.T) {
	w := newCluster(t, 0, nil).halfAnUpload(t)
	w.send("\r\n$1\r\nb\r\n$1\r\ny\r\n")
	w.expect("+OK\r\n")
}

// TestSlowUploadKeepsNobodyOnTheMaster: a command cannot run before its last
// byte is sent.
func TestSlowUploadKeepsNobodyOnTheMaster(t *testing.T) {
	c := newCluster(t, 1, nil)
	w := c.halfAnUpload(t)
	c.returns(t, "b")
	w.send("\r\n$1\r\nb\r\n$1\r\ny\r\n")
	w.expect("+OK\r\n")
	dialRaw(t, c.addr).do("$1\r\ny\r\n", "GET", "b")
}

// anyAbove reports whether a field of CLIENT LIST is above limit for any client.
func anyAbove(list, field string, limit int) bool {
	for _, part := range strings.Split(list, field)[1:] {
		n, _, _ := strings.Cut(part, " ")
		if v, err := strconv.Atoi(n); err == nil && v > limit {
			return true
		}
	}
	return false
}
