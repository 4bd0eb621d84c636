package proxy

import (
	"bytes"

	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/resp"
)

// subscriptions counts what a pinned session is subscribed to, as its node's
// replies tell (addReplyPubsubSubscribed and its like in pubsub.c). It is
// needed to tell messages from replies: in RESP2 both are arrays.
type subscriptions struct {
	channels, patterns, shards int64
	total                      int64 // of channels and patterns, as last told
}

func (b *subscriptions) any() bool { return b.channels+b.patterns+b.shards > 0 }

// expect returns how many replies beyond the first a (un)subscribe command
// gets, as far as its arguments tell.
func (b *subscriptions) expect(args resp.Args) int { return max(0, args.Len()-2) }

// kinds of values that concern subscriptions.
var (
	pubsubMessages = [][]byte{[]byte("message"), []byte("pmessage"), []byte("smessage")}
	pubsubReplies  = [][]byte{
		[]byte("subscribe"), []byte("psubscribe"), []byte("ssubscribe"),
		[]byte("unsubscribe"), []byte("punsubscribe"), []byte("sunsubscribe"),
	}
)

// classify reports whether value is a push: a message, or anything else that
// nobody asked for. A confirmation counts as the reply of head, which asked for
// it, and is followed here.
func (b *subscriptions) classify(value []byte, proto int, head *request) (push bool) {
	asked := head != nil && (head.kind == route.Subscribe || head.kind == route.Unsubscribe)
	t := value[0]
	if asked && (t == '-' || t == '+') {
		head.Via.Expect(&head.Request, 1-head.Left) // refused or queued: one reply, however many channels
		return false
	}
	if t != '>' && (t != '*' || proto == 3 || !b.any() && !asked) {
		return head == nil // MONITOR's lines come as simple strings
	}
	kind := firstBulk(value)
	for _, m := range pubsubMessages {
		if bytes.Equal(kind, m) {
			return true
		}
	}
	for i, m := range pubsubReplies {
		if bytes.Equal(kind, m) {
			if !asked { // a subscription that EXEC ran, or that the node has ended
				head = nil
			}
			return !b.confirm(i, value, head)
		}
	}
	return t == '>'
}

// confirm follows the confirmation of kind i and reports whether head asked
// for it.
func (b *subscriptions) confirm(i int, value []byte, head *request) bool {
	n, ok := lastInt(value)
	if !ok {
		return head != nil
	}
	switch i % 3 {
	case 0:
		b.channels += n - b.total
		b.total = n
	case 1:
		b.patterns += n - b.total
		b.total = n
	case 2:
		b.shards = n
	}
	if head == nil {
		return false
	}
	head.mute = false // CLIENT REPLY does not concern it (CLIENT_PUSHING)
	// UNSUBSCRIBE without arguments answers once for each that there is.
	if i >= 3 && head.Left == 1 && head.unsubscribesAll() {
		left := b.channels
		switch i % 3 {
		case 1:
			left = b.patterns
		case 2:
			left = b.shards
		}
		if left > 0 {
			head.Via.Expect(&head.Request, 1)
		}
	}
	return true
}

// unsubscribesAll reports whether the request named no channel.
func (r *request) unsubscribesAll() bool { return r.kind == route.Unsubscribe && r.arg == 0 }

// firstBulk returns the first element of an array or push if it is a bulk
// string.
func firstBulk(value []byte) []byte {
	i := bytes.IndexByte(value, '\n')
	if i < 0 || i+1 >= len(value) || value[i+1] != '$' {
		return nil
	}
	rest := value[i+1:]
	n, _, err := resp.ScanReply(rest)
	if err != nil || n == 0 {
		return nil
	}
	_, body, _ := bytes.Cut(rest[:n], []byte("\r\n"))
	return bytes.TrimSuffix(body, []byte("\r\n"))
}

// lastInt returns the integer that ends a value.
func lastInt(value []byte) (int64, bool) {
	i := bytes.LastIndexByte(value, ':')
	if i < 0 {
		return 0, false
	}
	return resp.ParseInt(value[i:])
}
