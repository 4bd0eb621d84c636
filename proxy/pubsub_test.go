package proxy_test

import "testing"

// In RESP3 a subscribed client may send anything, and messages come between
// the replies; RESET ends subscription, name and protocol.
func TestSubscribedInRESP3(t *testing.T) {
	c := newCluster(t, 1, nil)
	r, other := dialRaw(t, c.addr), dialRaw(t, c.addr)
	r.cmd("HELLO", "3", "SETNAME", "me")
	expectBegin(r, "HELLO", "%7\r\n")
	r.do(">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	r.do(">3\r\n$10\r\npsubscribe\r\n$2\r\nb*\r\n:2\r\n", "PSUBSCRIBE", "b*")
	const message, pmessage = ">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\n", ">4\r\n$8\r\npmessage\r\n$2\r\nb*\r\n$2\r\nbc\r\n$1\r\n"
	r.do("+OK\r\n", "SET", "k", "v")
	other.do(":1\r\n", "PUBLISH", "a", "1")
	r.send("GET k\r\n")
	r.expect(message + "1\r\n")
	r.expect("$1\r\nv\r\n")
	r.do("+PONG\r\n", "PING") // in RESP2 an array while subscribed
	r.do("_\r\n", "GET", "none")
	r.send("MULTI\r\nINCR n\r\nEXEC\r\nBLPOP l 0\r\n")
	r.expect("+OK\r\n")
	r.expect("+QUEUED\r\n")
	r.expect("*1\r\n:1\r\n")
	other.do(":1\r\n", "PUBLISH", "bc", "2") // while it is blocked
	r.expect(pmessage + "2\r\n")
	other.do(":1\r\n", "RPUSH", "l", "x")
	r.expect("*2\r\n$1\r\nl\r\n$1\r\nx\r\n")
	r.do(">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:1\r\n", "UNSUBSCRIBE", "a")
	other.do(":0\r\n", "PUBLISH", "a", "3")

	r.do("+RESET\r\n", "RESET")
	other.do(":0\r\n", "PUBLISH", "bc", "4")
	r.do("$-1\r\n", "CLIENT", "GETNAME")
	r.do("$-1\r\n", "GET", "none")
	r.do("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", "SUBSCRIBE", "a")
	r.cmd("GET", "k")
	expectBegin(r, "GET", "-ERR Can't execute 'get': only ")
}
