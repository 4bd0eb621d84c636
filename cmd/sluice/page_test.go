package main

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/sluice-io/sluice/cmd/sluice/internal/browsertest"
	"github.com/sluice-io/sluice/resp/localredis"
)

// load writes and reads through sluice, some hundred commands per second, until
// stop, which waits for it.
func load(addr string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	client := redis.NewClient(&redis.Options{Addr: addr, MaxRetries: -1})
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			// Errors are what a failover is like.
			_ = client.Set(ctx, fmt.Sprint("k", i%100), i, 0).Err()
			for j := range 3 {
				_ = client.Get(ctx, fmt.Sprint("k", (i+20*j)%100)).Err()
			}
		}
	}()
	return func() { cancel(); _ = client.Close(); <-done }
}

// TestStatusPage looks at the page of a running sluice: healthy, with a replica
// lost, without a master, after a failover and after its end.
func TestStatusPage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser: not with -short")
	}
	b := browsertest.Start(t)
	master := startRedis(t, localredis.Options{})
	lost := startRedis(t, localredis.Options{ReplicaOf: master})
	next := startRedis(t, localredis.Options{ReplicaOf: master})
	s, l := startServe(t, "--master", master.Addr())
	stop := load(strings.TrimPrefix(l.Listeners[0], "tcp "))
	stopped := false
	defer func() {
		if !stopped {
			stop()
		}
	}()

	wide, dark := browsertest.View{Width: 1280, Height: 900}, browsertest.View{Width: 1280, Height: 900, Dark: true}
	p := b.Open(t, "http://"+l.Admin+"/status", wide)
	look := func(state string) {
		t.Helper()
		for name, v := range map[string]browsertest.View{"": wide, " dark": dark, " narrow": {Width: 400, Height: 860}, " narrow dark": {Width: 400, Height: 860, Dark: true}} {
			p.Look(v)
			for _, flaw := range p.Flaws() {
				t.Errorf("%s%s: %s", state, name, flaw)
			}
			p.Shot(state + name)
		}
		p.Look(wide)
	}
	verdict := `document.querySelector('#verdict').textContent`
	state := func(s *localredis.Server) string { // the class of a node's row says how it is
		return fmt.Sprintf(`[...document.querySelectorAll('#tree .row')].find((r) => r.querySelector('.addr').textContent === '%s')?.querySelector('.state').className`, s.Addr())
	}
	event := func(kind string, s *localredis.Server) string {
		return fmt.Sprintf(`[...document.querySelectorAll('#events li[data-kind=%s]')].some((e) => e.textContent.includes('%s'))`, kind, s.Addr())
	}

	p.Until(verdict + ` === 'Serving'`)
	p.Until(`document.querySelectorAll('#tree > li > ul > li').length === 2`)
	p.Until(state(lost) + ` === 'state good' && ` + state(next) + ` === 'state good' && ` + state(master) + ` === 'state info'`)
	p.Until(`document.querySelector('#why tr[data-key=replica]') && Number.parseFloat(document.querySelector('#t-read').textContent) > 0`)
	p.Until(`document.querySelector('#s-read .line').getAttribute('d').split('L').length > 2`) // the past grows
	look("healthy")

	lost.Kill()
	p.Until(verdict + `.includes('1 of 3 nodes down') && ` + state(lost) + ` === 'state bad' && ` + event("down", lost))
	look("lost replica")

	master.Kill()
	p.Until(verdict + `.includes('No master') && ` + event("master_lost", master))
	look("no master")

	if got, err := localredis.Do(next.Addr(), "REPLICAOF", "NO", "ONE"); err != nil || got != "+OK" {
		t.Fatal(got, err)
	}
	p.Until(verdict + `.startsWith('Serving') && ` + event("failover", next) + ` && ` + state(next) + ` === 'state info'`)
	look("after failover")
	if got := p.Problems(); len(got) > 0 {
		t.Errorf("the browser complains: %q", got)
	}

	// The page that is still open does not hold up the end.
	stop()
	stopped = true
	began := time.Now()
	s.signals <- syscall.SIGTERM
	if code := s.wait(t); code != exitOK {
		t.Errorf("exit code %d: %s", code, s.stderr)
	}
	if took := time.Since(began); took > testTimeout/2 {
		t.Errorf("the end took %s", took)
	}
	p.Until(verdict + `.includes('No news from Sluice since')`)
	p.Shot("sluice gone")
}
