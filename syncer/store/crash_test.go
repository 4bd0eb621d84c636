package store

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/sluice-io/sluice/syncer/repl"
)

// promise is what a store had acknowledged when it crashed.
type promise struct {
	gens map[uint64]*genPromise
	head uint64 // NewGeneration has returned it
	cur  uint64 // its first base's Commit has returned
}

type genPromise struct {
	marks   map[repl.Offset]int // tried commits with their db; the start has -1
	fsynced repl.Offset
	bases   []repl.Offset // whose Commit has returned
	ids     []repl.ReplID // current ids that may be; the first is promised
}

// script runs a life of a store against p until something fails.
type script struct {
	s   *Store
	p   *promise
	fs  *memFS
	err error
}

func (r *script) do(f func() error) bool {
	if r.err == nil {
		r.err = f()
	}
	return r.err == nil
}

func (r *script) open() {
	r.do(func() (err error) {
		r.s, err = Open("/s", Options{FS: r.fs, Fsync: FsyncNo, SegmentBytes: 100 << 10, RetainLogBytes: 150 << 10, RetainAge: Unlimited})
		return err
	})
}

func (r *script) generation(id repl.ReplID, off repl.Offset) {
	n := uint64(len(r.p.gens) + 1)
	r.p.gens[n] = &genPromise{marks: map[repl.Offset]int{off: -1}, fsynced: off, ids: []repl.ReplID{id}}
	if r.do(func() error { _, err := r.s.NewGeneration(repl.Pos{ReplID: id, Offset: off}, history(id)); return err }) {
		r.p.head = n
	}
}

// feed appends n bytes, the last tail of them uncommitted and wrong, commits,
// and takes the tail back.
func (r *script) feed(n, tail, db int) {
	r.do(func() error {
		from := r.s.Head().Committed()
		to := from + repl.Offset(n)
		if err := r.s.Append(append(stream(from, to), make([]byte, tail)...)); err != nil {
			return err
		}
		r.p.gens[r.p.head].marks[to] = db
		if err := r.s.Commit(Mark{Offset: to, DB: db, Time: at(int(to) / 1000)}); err != nil {
			return err
		}
		_, err := r.s.TruncateToCommit()
		return err
	})
}

func (r *script) sync() {
	if r.do(func() error { return r.s.Sync() }) {
		r.p.gens[r.p.head].fsynced = r.s.Head().Committed()
	}
}

func (r *script) base(n int) {
	r.do(func() error {
		g := r.s.Head()
		off := g.Committed()
		b, err := r.s.BeginBase(BaseMeta{Pos: repl.Pos{ReplID: g.History().Current(), Offset: off}, DB: 1})
		if err != nil {
			return err
		}
		data := baseBytes(off, n)
		for _, part := range [][]byte{data[:n/2], data[n/2:]} {
			if _, err := b.Write(part); err != nil {
				return errors.Join(err, b.Abort())
			}
		}
		if _, err := b.Commit(); err != nil {
			return errors.Join(err, b.Abort())
		}
		gp := r.p.gens[r.p.head]
		gp.bases = append(gp.bases, off)
		gp.fsynced = max(gp.fsynced, off)
		r.p.cur = r.p.head
		return nil
	})
}

func (r *script) changeID(id repl.ReplID) {
	gp := r.p.gens[r.p.head]
	if gp == nil {
		return
	}
	gp.ids = append(gp.ids, id)
	if r.do(func() error { return r.s.ChangeReplID(id) }) {
		gp.ids = []repl.ReplID{id}
		gp.fsynced = r.s.Head().Committed()
	}
}

func (r *script) close() {
	if r.s == nil {
		return
	}
	err := r.s.Close() // always: it ends the keeper
	r.s = nil
	if r.do(func() error { return err }) {
		gp := r.p.gens[r.p.head]
		for off := range gp.marks {
			gp.fsynced = max(gp.fsynced, off)
		}
	}
}

// life is the workload: everything that changes files.
func life(fs *memFS) (*promise, error) {
	r := &script{p: &promise{gens: map[uint64]*genPromise{}}, fs: fs}
	defer r.close()
	r.open()
	r.generation(idA, 1000)
	r.base(3000)
	r.feed(5000, 0, 0)
	r.sync()
	r.feed(70<<10, 100, 0) // over the end of a block
	r.feed(100, 0, 1)
	r.sync()
	r.feed(40<<10, 2000, 2) // fills the segment; the tail is carried over
	r.feed(BlockBytes, 0, 2)
	r.feed(10, 70<<10, 2)
	r.sync()
	r.feed(300, 0, 2)
	r.changeID(idB)
	r.feed(60<<10, 0, 3)
	r.base(2000) // retention may now drop the first base and segment
	r.feed(10<<10, 0, 3)
	r.close()
	if r.err == nil {
		r.open()
	}
	r.feed(30<<10, 0, 4)
	r.feed(90<<10, 0, 4)
	r.sync()
	r.feed(90, 5, 4)
	r.generation(idC, 50)
	r.feed(20, 0, 0)
	r.sync()
	r.generation(idA, 0) // the one before never got a base
	r.feed(300, 0, 5)
	r.base(100)
	r.feed(30, 3, 6)
	r.close()
	return r.p, r.err
}

// check opens what a crash left and holds it against the promise.
func (p *promise) check(fs *memFS) error {
	s, err := Open("/s", Options{FS: fs, Fsync: FsyncNo, SegmentBytes: 100 << 10, RetainLogBytes: Unlimited, RetainAge: Unlimited})
	if err != nil {
		return err
	}
	err = p.compare(s)
	if s.Head() != nil && err == nil { // and it can be written to
		err = goOn(s)
	}
	if err = errors.Join(err, s.Close()); err != nil || s.Head() == nil {
		return err
	}
	end := s.Head().Committed()
	if s, err = Open("/s", Options{FS: fs, RetainAge: Unlimited}); err != nil {
		return fmt.Errorf("open after a clean close: %w", err)
	}
	if len(s.Repairs()) > 0 {
		err = fmt.Errorf("open after a clean close repaired: %q", s.Repairs())
	} else if s.Head().Committed() != end {
		err = fmt.Errorf("log ends at %d after a clean close at %d", s.Head().Committed(), end)
	}
	return errors.Join(err, checkLog(s.Head()), s.Close())
}

// checkKilled opens what a killed process left, holds the store to what it then
// says is durable, and lets the machine crash.
func (p *promise) checkKilled(fs *memFS, how survival) error {
	s, err := Open("/s", Options{FS: fs, Fsync: FsyncNo, RetainLogBytes: Unlimited, RetainAge: Unlimited})
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if err := p.compare(s); err != nil || s.Head() == nil {
		return err
	}
	q := &promise{gens: maps.Clone(p.gens), head: s.Head().ID(), cur: p.cur}
	gp := *p.gens[q.head]
	gp.marks = maps.Clone(gp.marks)
	gp.fsynced = s.Head().Fsynced()
	q.gens[q.head] = &gp
	if err := q.check(fs.afterKill().afterCrash(how)); err != nil {
		return err
	}
	gp.fsynced += 4000
	gp.marks[gp.fsynced] = 9
	if err := goOn(s); err != nil {
		return err
	}
	return q.check(fs.afterCrash(how))
}

func goOn(s *Store) error {
	from := s.Head().Committed()
	if err := s.Append(stream(from, from+5000)); err != nil {
		return err
	}
	if err := s.Commit(Mark{Offset: from + 4000, DB: 9, Time: at(0)}); err != nil {
		return err
	}
	return errors.Join(s.Sync(), checkLog(s.Head()))
}

func (p *promise) compare(s *Store) error {
	if p.head == 0 && s.Head() == nil {
		return nil
	}
	if s.Head() == nil || s.Head().ID() < p.head || s.Head().ID() > p.head+1 {
		return fmt.Errorf("head is %v, promised %d", s.Head(), p.head)
	}
	if cur := s.Current(); p.cur > 0 && (cur == nil || cur.ID() < p.cur) {
		return fmt.Errorf("current is %v, promised %d", cur, p.cur)
	}
	if len(s.Head().Bases()) > 0 && s.Current() != s.Head() {
		return errors.New("the head has a base and is not current")
	}
	for _, g := range s.Generations() {
		gp := p.gens[g.ID()]
		db, ok := gp.marks[g.Committed()]
		if !ok {
			return fmt.Errorf("generation %d ends at %d, which is no commit point", g.ID(), g.Committed())
		}
		if g == s.Head() {
			if m, err := s.LastCommit(); err != nil || m.DB != db || m.Offset != g.Committed() {
				return fmt.Errorf("last commit is %+v (%w), want db %d", m, err, db)
			}
		}
		if g.Committed() < gp.fsynced {
			return fmt.Errorf("generation %d ends at %d, promised %d", g.ID(), g.Committed(), gp.fsynced)
		}
		if !slices.Contains(gp.ids, g.History().Current()) {
			return fmt.Errorf("generation %d has id %s, promised %q", g.ID(), g.History().Current(), gp.ids)
		}
		if err := checkLog(g); err != nil {
			return fmt.Errorf("generation %d: %w", g.ID(), err)
		}
		bases := g.Bases()
		if n := len(gp.bases); n > 0 && (len(bases) == 0 || bases[0].Offset < gp.bases[n-1]) {
			return fmt.Errorf("generation %d has bases %v, promised %d", g.ID(), bases, gp.bases)
		}
		for _, b := range bases {
			if err := checkBaseContent(g, b); err != nil {
				return fmt.Errorf("generation %d, base at %d: %w", g.ID(), b.Offset, err)
			}
			if b.Offset+1 < g.First() || b.Offset > g.Committed() {
				return fmt.Errorf("generation %d: base at %d, log from %d to %d", g.ID(), b.Offset, g.First(), g.Committed())
			}
		}
	}
	return nil
}

// Whatever a crash leaves at whatever point, Open makes a store of it that ends
// at a commit point, has all that was acknowledged as durable, and works.
func TestCrashAtEveryPoint(t *testing.T) {
	stride := 1
	if testing.Short() || raceEnabled { // the detector makes it ten times slower
		stride = 7
	}
	points := 0
	for crashAt := 1; ; crashAt += stride {
		fs := newMemFS()
		fs.crashAt = crashAt
		p, err := life(fs)
		if err == nil && fs.ops < crashAt {
			break
		}
		if err == nil { // only the keeper noticed
			err = errCrashed
		}
		if !errors.Is(err, errCrashed) {
			t.Fatalf("crash at operation %d: the script failed by %v", crashAt, err)
		}
		if fs.opened != 0 {
			t.Fatalf("crash at operation %d: %d files left open", crashAt, fs.opened)
		}
		points++
		rng := rand.New(rand.NewPCG(uint64(crashAt), 1))
		for _, how := range survivals(rng) {
			if err := p.check(fs.afterCrash(how)); err != nil {
				t.Fatalf("crash at operation %d, %s survives: %v", crashAt, how.name, err)
			}
			// The process was killed, and the machine crashes after it was
			// started again.
			if err := p.checkKilled(fs.afterKill(), how); err != nil {
				t.Fatalf("kill at operation %d, then a crash that %s survives: %v", crashAt, how.name, err)
			}
			// A second crash, while Open is at work.
			second := fs.afterCrash(how)
			second.crashAt = 1 + rng.IntN(20)
			if s, err := Open("/s", Options{FS: second, RetainAge: Unlimited}); err == nil {
				_ = s.Close() // the crash may come as late as that
			} else if !errors.Is(err, errCrashed) {
				t.Fatalf("crash at operation %d, %s survives, crash in Open: %v", crashAt, how.name, err)
			}
			if err := p.check(second.afterCrash(how)); err != nil {
				t.Fatalf("crash at operation %d and at %d of Open, %s survives: %v", crashAt, second.crashAt, how.name, err)
			}
		}
	}
	t.Logf("%d crash points", points)
	if points < 20 {
		t.Errorf("only %d crash points: the script does too little", points)
	}
}
