package downstream

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/sluice-io/sluice/resp"
)

const (
	// maxChannels bounds what one client may subscribe to. A Sentinel needs one.
	maxChannels = 64
	// outboxLen is how many published messages may wait for a client.
	outboxLen = 64
)

// hub delivers what is published on the relay to those who subscribed to it: the
// Sentinels that watch it find each other by __sentinel__:hello. What comes in
// the stream is not delivered. The zero value is ready for use.
type hub struct {
	mu       sync.Mutex
	channels map[string]map[*session]struct{}
}

// subscribe adds a session to a channel; from then on it has an outbox.
func (h *hub) subscribe(c *session, channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.channels == nil {
		h.channels = map[string]map[*session]struct{}{}
	}
	if h.channels[channel] == nil {
		h.channels[channel] = map[*session]struct{}{}
	}
	h.channels[channel][c] = struct{}{}
}

func (h *hub) unsubscribe(c *session, channel string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.channels[channel], c)
	if len(h.channels[channel]) == 0 {
		delete(h.channels, channel)
	}
}

// leave removes a session from all channels.
func (h *hub) leave(c *session) {
	for _, channel := range slices.Collect(maps.Keys(c.subscribed)) {
		h.unsubscribe(c, channel)
	}
}

// publish gives a message to a channel's subscribers and returns how many there
// are. It waits for nobody: who does not read is disconnected.
func (h *hub) publish(channel, message []byte) int {
	out := resp.AppendArrayHeader(nil, 3)
	out = resp.AppendBulkString(out, "message")
	out = resp.AppendBulk(resp.AppendBulk(out, channel), message)
	h.mu.Lock()
	defer h.mu.Unlock()
	subscribers := h.channels[string(channel)]
	for c := range subscribers {
		select {
		case c.outbox <- out:
		default:
			c.drop(errSlowReader)
		}
	}
	return len(subscribers)
}

// subscribe is SUBSCRIBE and UNSUBSCRIBE.
func (c *session) subscribe(args resp.Args) {
	add := strings.EqualFold(string(args.At(0)), "SUBSCRIBE")
	channels := words(args)[1:]
	switch {
	case add && len(channels) == 0:
		c.wrongArity("subscribe")
		return
	case add && len(channels)+len(c.subscribed) > maxChannels:
		c.err("ERR a Sluice relay takes no more than 64 subscriptions of a client")
		return
	case !add && len(channels) == 0:
		if channels = slices.Sorted(maps.Keys(c.subscribed)); len(channels) == 0 {
			c.confirm("unsubscribe", nil)
			return
		}
	}
	if c.outbox == nil {
		c.outbox = make(chan []byte, outboxLen)
		c.sender.Go(c.deliver)
	}
	if c.subscribed == nil {
		c.subscribed = map[string]struct{}{}
	}
	defer func() {
		c.mu.Lock()
		c.pubsub = len(c.subscribed) > 0
		c.mu.Unlock()
	}()
	for _, channel := range channels {
		if add {
			c.subscribed[channel] = struct{}{}
			c.srv.hub.subscribe(c, channel)
			c.confirm("subscribe", []byte(channel))
			continue
		}
		c.srv.hub.unsubscribe(c, channel)
		delete(c.subscribed, channel)
		c.confirm("unsubscribe", []byte(channel))
	}
}

func (c *session) confirm(kind string, channel []byte) {
	c.out = resp.AppendArrayHeader(c.out, 3)
	c.out = resp.AppendBulkString(c.out, kind)
	if channel == nil {
		c.out = resp.AppendNull(c.out, 2)
	} else {
		c.out = resp.AppendBulk(c.out, channel)
	}
	c.out = resp.AppendInt(c.out, int64(len(c.subscribed)))
}

// deliver writes what is published, until the session ends.
func (c *session) deliver() {
	for {
		select {
		case b := <-c.outbox:
			if err := c.write(b); err != nil {
				c.drop(err)
				return
			}
		case <-c.ctx.Done():
			return
		}
	}
}
