package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// StreamPath is where the status comes as server-sent events: one `history` with
// the last 15 minutes, then a `status` each second, whose data is what
// [StatusPath] shows.
const StreamPath = StatusPath + "/stream"

const (
	maxSubscribers     = 64
	subscriberBuffer   = 2               // messages; who is further behind is dropped
	subscriberPatience = 5 * time.Second // for one write
	retryAfter         = 2 * time.Second // when a browser that lost the stream asks again
)

// hub gives each message to all subscribers. Its methods may be called by any
// goroutine and never block.
type hub struct {
	mu     sync.Mutex
	subs   map[chan []byte]struct{} // closed by the hub, when they leave it
	closed bool
}

// join returns a channel of messages that is closed when the subscriber has
// fallen behind or the hub is closed; nil if there are too many, or none is
// taken any more.
func (h *hub) join() chan []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || len(h.subs) >= maxSubscribers {
		return nil
	}
	if h.subs == nil {
		h.subs = make(map[chan []byte]struct{})
	}
	c := make(chan []byte, subscriberBuffer)
	h.subs[c] = struct{}{}
	return c
}

func (h *hub) leave(c chan []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drop(c)
}

// drop is for who holds mu.
func (h *hub) drop(c chan []byte) {
	if _, ok := h.subs[c]; ok {
		delete(h.subs, c)
		close(c)
	}
}

// send gives msg to everybody and drops who has not taken the last ones.
func (h *hub) send(msg []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.subs {
		select {
		case c <- msg:
		default:
			h.drop(c)
		}
	}
}

func (h *hub) size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.subs)
}

// close ends all streams, and lets no new one begin.
func (h *hub) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	for c := range h.subs {
		h.drop(c)
	}
}

// sample looks at the status at the pace of Options.SampleEvery until ctx is
// done, for the history and, once for all of them, for the subscribers.
func (s *Server) sample(ctx context.Context) {
	tick := time.NewTicker(s.opt.SampleEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			st := s.opt.Status()
			s.recorder.observe(&st.Status, now)
			if s.hub.size() == 0 {
				continue
			}
			if msg, err := message("status", s.report(st)); err == nil { // see status for the error
				s.hub.send(msg)
			}
		case <-ctx.Done():
			return
		}
	}
}

// stream serves one subscriber until it leaves, falls behind or the server ends.
func (s *Server) stream(w http.ResponseWriter, r *http.Request) {
	c := s.hub.join()
	if c == nil {
		w.Header().Set("Retry-After", "10")
		plain(w, http.StatusServiceUnavailable, fmt.Sprintf("no more than %d streams at a time; %s has the same", maxSubscribers, StatusPath))
		return
	}
	defer s.hub.leave(c)
	first, err := s.firstMessages()
	if err != nil {
		plain(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would hold the events back
	out := http.NewResponseController(w)
	write := func(msg []byte) bool {
		_ = out.SetWriteDeadline(time.Now().Add(subscriberPatience)) // a recorder of tests has none
		if _, err := w.Write(msg); err != nil {
			return false
		}
		return out.Flush() == nil
	}
	if !write(first) {
		return
	}
	for {
		select {
		case msg, ok := <-c:
			if !ok || !write(msg) {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// firstMessages is what a new subscriber gets at once.
func (s *Server) firstMessages() ([]byte, error) {
	history, err := message("history", s.recorder.columns())
	if err != nil {
		return nil, err
	}
	status, err := message("status", s.report(s.opt.Status()))
	if err != nil {
		return nil, err
	}
	retry := fmt.Sprintf("retry: %d\n\n", retryAfter.Milliseconds())
	return bytes.Join([][]byte{[]byte(retry), history, status}, nil), nil
}

// message is one server-sent event. JSON has no line breaks unless indented.
func message(event string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", event, err)
	}
	return fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, b), nil
}
