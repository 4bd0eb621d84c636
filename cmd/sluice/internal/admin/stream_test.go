package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-io/sluice/proxy"
)

// streaming starts a server whose status counts how often it was asked.
func streaming(t *testing.T, every time.Duration) (s *Server, asked *atomic.Uint64) {
	t.Helper()
	asked = new(atomic.Uint64)
	s = New(Options{Listen: "127.0.0.1:0", Gatherer: prometheus.NewRegistry(), SampleEvery: every, Status: func() Status {
		return Status{Status: proxy.Status{Epoch: asked.Add(1)}}
	}})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s, asked
}

// subscriber reads a stream.
type subscriber struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Scanner
}

func subscribe(t *testing.T, s *Server) *subscriber {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.Addr().String() + StreamPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	return &subscriber{t, resp, in}
}

// next returns the next message of an event.
func (s *subscriber) next(event string) string {
	s.t.Helper()
	found := false
	for s.in.Scan() {
		switch line := s.in.Text(); {
		case line == "event: "+event:
			found = true
		case found && strings.HasPrefix(line, "data: "):
			return strings.TrimPrefix(line, "data: ")
		}
	}
	s.t.Fatalf("the stream ended without %s: %v", event, s.in.Err())
	return ""
}

func TestStream(t *testing.T) {
	s, asked := streaming(t, 20*time.Millisecond)
	a, b := subscribe(t, s), subscribe(t, s)
	if got := a.resp.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("Content-Type %q", got)
	}
	for _, sub := range []*subscriber{a, b} {
		var c columns
		if err := json.Unmarshal([]byte(sub.next("history")), &c); err != nil || c.Step != 2 || c.Span != 900 {
			t.Errorf("history: %+v, %v", c, err)
		}
		sub.next("status") // of its own, at once
	}
	// From here on both get the same, made once.
	before := asked.Load()
	of := func(sub *subscriber) (list []uint64) {
		for range 5 {
			var st Status
			if err := json.Unmarshal([]byte(sub.next("status")), &st); err != nil {
				t.Fatal(err)
			}
			list = append(list, st.Epoch)
		}
		return list
	}
	x, y := of(a), of(b)
	for _, list := range [][]uint64{x, y} {
		for i := 1; i < len(list); i++ {
			if list[i] != list[i-1]+1 {
				t.Errorf("a subscriber got the statuses %v, want each of them once", list)
			}
		}
	}
	if before == 0 {
		t.Error("nobody asked for the status")
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
	for _, sub := range []*subscriber{a, b} { // ended by the server, not cut
		for sub.in.Scan() {
		}
		if err := sub.in.Err(); err != nil {
			t.Errorf("the stream ended with %v", err)
		}
	}
}

func TestStreamsAreLimited(t *testing.T) {
	s, _ := streaming(t, time.Hour)
	subs := make([]*subscriber, maxSubscribers)
	for i := range subs {
		subs[i] = subscribe(t, s)
		subs[i].next("status")
	}
	more := subscribe(t, s)
	if more.resp.StatusCode != http.StatusServiceUnavailable || more.resp.Header.Get("Retry-After") == "" {
		t.Errorf("one more stream: %s, want 503 and Retry-After", more.resp.Status)
	}
	_ = subs[0].resp.Body.Close() // makes room
	for deadline := time.Now().Add(20 * time.Second); s.hub.size() == maxSubscribers; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a subscriber that left is still counted")
		}
	}
	if again := subscribe(t, s); again.resp.StatusCode != http.StatusOK {
		t.Errorf("after one left: %s", again.resp.Status)
	}
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// A subscriber that takes nothing is dropped; the others and the sender do not
// wait for it.
func TestSlowSubscriberIsDropped(t *testing.T) {
	var h hub
	slow, quick := h.join(), h.join()
	for i := range subscriberBuffer + 3 {
		h.send([]byte{byte(i)})
		if got := <-quick; got[0] != byte(i) {
			t.Fatalf("the quick one got %v, want %d", got, i)
		}
	}
	n := 0
	for range slow { // closed
		n++
	}
	if n != subscriberBuffer || h.size() != 1 {
		t.Errorf("the slow one got %d messages, %d are left; want %d and 1", n, h.size(), subscriberBuffer)
	}
	h.leave(slow) // again, as its handler does
	h.close()
	if _, ok := <-quick; ok || h.join() != nil || h.size() != 0 {
		t.Error("the hub is not closed")
	}
}

// A client that stops reading is cut off although its request has no end.
func TestStuckStreamEnds(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a write deadline: not with -short")
	}
	big := strings.Repeat("x", 1<<20)
	s := New(Options{Listen: "127.0.0.1:0", Gatherer: prometheus.NewRegistry(), SampleEvery: 10 * time.Millisecond, Status: func() Status {
		return Status{Version: big, Status: proxy.Status{Listeners: []string{big}}}
	}})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.Write([]byte("GET " + StreamPath + " HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil { // it is subscribed; and nothing more is read
		t.Fatal(err)
	}
	for deadline := time.Now().Add(30 * time.Second); s.hub.size() > 0; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the stuck client is still subscribed")
		}
	}
	if err := s.Close(context.Background()); err != nil { // waits for the handler, whose write has a deadline
		t.Error(err)
	}
}
