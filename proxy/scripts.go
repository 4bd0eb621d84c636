package proxy

import (
	"bytes"
	"container/list"
	"crypto/sha1" //nolint:gosec // it is how Redis names scripts, no secret
	"encoding/hex"
	"strings"
	"sync"
	"time"

	"github.com/sluice-io/sluice/proxy/backend"
	"github.com/sluice-io/sluice/proxy/route"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp"
)

// What is remembered of SCRIPT LOAD at most.
const (
	maxScripts     = 4096
	maxScriptBytes = 16 << 20
)

// scripts remembers what SCRIPT LOAD loaded, for a master that came after: the
// script cache is neither replicated nor saved. Its methods may be called by
// any goroutine; no command takes its lock but SCRIPT and one that was answered
// with NOSCRIPT.
type scripts struct {
	mu     sync.Mutex
	bySHA  map[string]*list.Element
	oldest *list.List // of *script
	bytes  int
	run    uint64 // counts the runs of masters
}

type script struct {
	sha, body string
	node      *topology.Node // that has it
	run       uint64         // of that master, as far as it was known then
	given     time.Time      // when it was last given to a master that lacked it
}

// givenFor is for how long after that others may still be told that the master
// lacks the script: they asked before it had come.
const givenFor = 5 * time.Second

func newScripts() *scripts {
	return &scripts{bySHA: make(map[string]*list.Element), oldest: list.New()}
}

// newMaster notes that another process is the master.
func (s *scripts) newMaster() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run++
}

// add remembers a script; the oldest ones make room for it.
func (s *scripts) add(body []byte, master *topology.Node) {
	sum := sha1.Sum(body) //nolint:gosec // see above
	sha := hex.EncodeToString(sum[:])
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.bySHA[sha]; e != nil {
		sc := e.Value.(*script)
		sc.node, sc.run, sc.given = master, s.run, time.Time{}
		return
	}
	s.bySHA[sha] = s.oldest.PushBack(&script{sha: sha, body: string(body), node: master, run: s.run})
	s.bytes += len(body)
	for s.bytes > maxScriptBytes || s.oldest.Len() > maxScripts {
		old := s.oldest.Remove(s.oldest.Front()).(*script)
		delete(s.bySHA, old.sha)
		s.bytes -= len(old.body)
	}
}

// flush forgets all scripts.
func (s *scripts) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.bySHA)
	s.oldest.Init()
	s.bytes = 0
}

// lost returns the body of a script that the master had before the present one,
// and takes it that this one is about to get it. Where it is the same master, and
// has not just got it, somebody has flushed the script: that is to be seen.
func (s *scripts) lost(sha []byte, master *topology.Node) (body string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.bySHA[strings.ToLower(string(sha))]
	if e == nil {
		return "", false
	}
	sc, now := e.Value.(*script), time.Now()
	if sc.run != s.run || sc.node != master {
		sc.node, sc.run, sc.given = master, s.run, now
	}
	return sc.body, now.Sub(sc.given) < givenFor
}

// noteScript remembers what a SCRIPT command does to the script cache.
func (s *session) noteScript(it *item, args resp.Args) {
	if it.cmd == nil {
		return
	}
	switch it.cmd.Name {
	case "script|load":
		if args.Len() == 3 {
			s.w.srv.scripts.add(args.At(2), s.w.view.Master)
		}
	case "script|flush":
		s.w.srv.scripts.flush()
	}
}

// reload runs a script that a new master does not know, by EVAL, which loads it.
// Only where nothing of the session is behind it, or it would be overtaken.
func (s *session) reload(r *request, reply []byte) bool {
	if r.kind != route.Script || r.cmd == nil || r.cmd.Name != "evalsha" || r.Left > 0 || s.tail != r ||
		!bytes.HasPrefix(reply, []byte("-NOSCRIPT No matching script")) {
		return false
	}
	raw := r.Raw()
	_, _, spans, err := resp.ScanRequest(raw, &resp.DefaultLimits, s.w.again[:0])
	if err != nil || len(spans) < 2 {
		return false
	}
	s.w.again = spans
	args := resp.Args{Buf: raw, Spans: spans}
	body, ok := s.w.srv.scripts.lost(args.At(1), r.Via.Node)
	if !ok {
		return false
	}
	all := [][]byte{[]byte("EVAL"), []byte(body)}
	for i := 2; i < args.Len(); i++ {
		all = append(all, args.At(i))
	}
	via := r.Via
	r.Left, r.Class = 1, backend.Write
	s.w.stats.routed[route.ReasonRetry]++
	via.Send(&r.Request, resp.AppendCommandBytes(nil, all...))
	return true
}
