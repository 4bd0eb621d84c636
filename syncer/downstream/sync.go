package downstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/resp"
	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

const (
	// keepAliveEvery is how often a replica that waits is told that we live.
	keepAliveEvery = time.Second
	// sendBytes is how much is handed to the socket at once: what is sent to a
	// replica before it is noticed that it is to be disconnected.
	sendBytes = 1 << 20
	// copyBytes is the size of the buffer where there is no sendfile.
	copyBytes = 64 << 10
)

// psync takes a PSYNC: it is refused at once, or the sender begins. It returns
// the reply, if there is one already.
func (c *session) psync(p psync.PSync) []byte {
	switch {
	case p.Failover:
		return resp.AppendError(nil, "ERR a Sluice relay holds no data set and cannot become a master: name a replica, FAILOVER TO host port")
	case c.announced.Filter != psync.WholeRDB:
		return resp.AppendError(nil, "ERR a Sluice relay sends whole snapshots only, rdb-filter-only is not possible")
	}
	offers, gens := c.srv.offers()
	a := plan(p.Want, c.announced.Capa, offers)
	peer := c.announcedAddr()
	if full := planFull(offers, repl.FullRequested); full.kind == answerFull && c.srv.peers.takeForced(peer) {
		a = full
	}
	if a.kind == answerFull && !c.announced.RDBOnly {
		if wait := c.srv.peers.mustWait(peer, time.Now()); wait > 0 {
			return []byte(psync.ReplyLoading)
		}
	}
	if a.kind == answerNotReady {
		c.srv.counters.notReady.Add(1)
		c.log.Debug("replica is told to come again: there is no base yet", zap.Stringer("want", p.Want))
		return c.srv.notReady()
	}
	c.mu.Lock()
	c.peer = peer
	c.become(StateWait)
	c.mu.Unlock()
	c.log = c.srv.log.With(zap.String("replica", peer))
	if a.kind == answerHold {
		c.srv.counters.held.Add(1)
		c.log.Info("replica is ahead of the log and is held until that has caught up", zap.Stringer("want", p.Want))
	}
	c.sender.Go(func() {
		if err := c.replicate(p.Want, a, offers, gens); err != nil {
			c.drop(err)
		}
	})
	return nil
}

// notReady returns one of the two errors upon which a replica keeps what it has
// and comes again.
func (s *Server) notReady() []byte {
	if isUp(s.up.Status()) {
		return []byte(psync.ReplyLoading)
	}
	return []byte(psync.ReplyNoMasterLink)
}

// offers returns what there is to serve, and of which generations.
func (s *Server) offers() ([]offer, []*store.Generation) {
	gens := make([]*store.Generation, 0, 2)
	current, head := s.st.Current(), s.st.Head()
	if head != nil && head != current {
		gens = append(gens, head)
	}
	if current != nil {
		gens = append(gens, current)
	}
	offers := make([]offer, len(gens))
	for i, g := range gens {
		// The history first: what is committed by then is of it or continues it.
		o := offer{history: g.History()}
		o.first, o.bases = g.First(), g.Bases()
		o.committed = g.Committed()
		o.floor, o.bases = s.damage.apply(g.ID(), o.first, o.bases)
		offers[i] = o
	}
	return offers, gens
}

// replicate answers PSYNC and sends until the connection ends.
func (c *session) replicate(w repl.Want, a answer, offers []offer, gens []*store.Generation) error {
	deadline := time.Now().Add(c.srv.opt.HoldAhead)
	for {
		var err error
		switch a.kind {
		case answerContinue:
			err = c.partial(w, offers[a.offer].history.Current(), gens[a.offer])
		case answerFull:
			err = c.full(a, offers[a.offer].history.Current(), gens[a.offer])
		case answerNotReady:
			return c.turnAway(w)
		case answerHold:
			if time.Now().After(deadline) {
				if up := c.srv.up.Status(); w.Next-1 <= up.Reached || !isUp(up) {
					return c.turnAway(w) // what it has is on its way to us, if slowly
				}
				// The master goes on, and has never got as far.
				if a = planFull(offers, repl.Ahead); a.kind == answerFull {
					continue
				}
				return c.turnAway(w)
			}
			err = c.hold(w, gens[a.offer])
		}
		if !errors.Is(err, errPlanAgain) {
			return err
		}
		offers, gens = c.srv.offers()
		a = plan(w, c.announced.Capa, offers)
	}
}

// errPlanAgain: what was decided upon has changed.
var errPlanAgain = errors.New("plan again")

// turnAway tells a replica that was held to come again, and closes.
func (c *session) turnAway(w repl.Want) error {
	c.log.Info("replica is told to come again", zap.Stringer("want", w))
	c.srv.counters.notReady.Add(1)
	if err := c.write(c.srv.notReady()); err != nil {
		return err
	}
	return &dropError{reasonClosed, "there is nothing for it yet"}
}

// hold waits for at most a second for the log to reach what the replica has.
func (c *session) hold(w repl.Want, g *store.Generation) error {
	ctx, cancel := context.WithTimeout(c.ctx, keepAliveEvery)
	defer cancel()
	err := g.WaitCommitted(ctx, w.Next-1)
	switch {
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case err == nil, errors.Is(err, store.ErrGenerationOver):
		return errPlanAgain
	case errors.Is(err, store.ErrClosed):
		return errShutdown
	}
	if err := c.write([]byte(psync.KeepAlive)); err != nil {
		return err
	}
	return errPlanAgain
}

// partial answers +CONTINUE and streams.
func (c *session) partial(w repl.Want, id repl.ReplID, g *store.Generation) error {
	pin, err := g.Pin(w.Next - 1)
	if errors.Is(err, store.ErrOffsetGone) {
		return errPlanAgain
	}
	if err != nil {
		return err
	}
	c.begin(&served{gen: g, id: id, pin: pin}, w.Next-1)
	c.srv.counters.partial.Add(1)
	c.srv.note(journal.PartialResync, c.peerAddr(), fmt.Sprintf("partial resync: it goes on at offset %d", w.Next-1))
	c.log.Info("partial resync", zap.Stringer("want", w), zap.String("replid", string(id)))
	if err := c.write(psync.AppendContinue(nil, id, c.announced.Capa)); err != nil {
		return err
	}
	c.to(StateOnline)
	c.srv.pokeAcked()
	return c.stream(g, w.Next-1)
}

// begin notes what is served.
func (c *session) begin(sv *served, have repl.Offset) {
	c.sent.Store(int64(have))
	c.acked.Store(int64(have))
	c.seen.Store(time.Now().UnixNano())
	c.mu.Lock()
	c.served = sv
	c.mu.Unlock()
}

// full answers +FULLRESYNC, sends the base, and streams.
func (c *session) full(a answer, id repl.ReplID, g *store.Generation) error {
	pin, err := g.Pin(a.base.Offset)
	if errors.Is(err, store.ErrOffsetGone) {
		return errPlanAgain
	}
	if err != nil {
		return err
	}
	base, err := c.openBase(g, a.base)
	if err != nil {
		pin.Release()
		return err
	}
	defer func() { _ = base.Close() }()
	why := syncReason(a.why)
	sv := &served{gen: g, id: id, pin: pin, full: true, why: why, base: a.base, magic: magicOf(base.File())}
	c.begin(sv, a.base.Offset)
	c.to(StateTransfer)
	c.srv.counters.countFull(why)
	pos := repl.Pos{ReplID: id, Offset: a.base.Offset}
	c.srv.note(journal.FullResync, c.peerAddr(), fmt.Sprintf("full resync from the base at offset %d of %d bytes: %s", a.base.Offset, a.base.Size, why))
	c.log.Info("full resync", zap.String("reason", why), zap.Stringer("pos", pos), zap.Int64("bytes", a.base.Size))
	out := psync.PayloadHeader{Size: a.base.Size}.Append(psync.AppendFullResync(nil, pos))
	if err := c.write(out); err != nil {
		return err
	}
	err = c.send(base.File(), 0, a.base.Size, func(n int) {
		sv.sent.Add(int64(n))
		c.srv.counters.baseBytes.Add(uint64(n))
		c.seen.Store(time.Now().UnixNano())
	})
	if err != nil {
		return err
	}
	if c.announced.RDBOnly {
		return c.closeWrite()
	}
	c.to(StateLoading)
	return c.stream(g, a.base.Offset)
}

// openBase opens a base; while it is compared with its checksum the replica gets
// newlines. A damaged one is never offered again.
func (c *session) openBase(g *store.Generation, b store.Base) (*store.BaseReader, error) {
	type result struct {
		r   *store.BaseReader
		err error
	}
	done := make(chan result, 1)
	c.sender.Go(func() {
		r, err := g.OpenBase(c.ctx, b)
		done <- result{r, err}
	})
	tick := time.NewTicker(keepAliveEvery)
	defer tick.Stop()
	var res result
	for waiting := true; waiting; {
		select {
		case res = <-done:
			waiting = false
		case <-tick.C:
			if err := c.write([]byte(psync.KeepAlive)); err != nil {
				c.drop(err) // ends OpenBase, too
			}
		}
	}
	var corrupt *store.CorruptionError
	switch {
	case errors.As(res.err, &corrupt):
		c.srv.counters.corrupt.Add(1)
		c.srv.damage.addBase(g.ID(), b.Offset)
		c.srv.up.RefreshBase()
		c.log.Error("a base is damaged and is not served any more; a new one is taken", zap.Error(res.err))
		return nil, errPlanAgain
	case errors.Is(res.err, store.ErrBaseGone):
		return nil, errPlanAgain
	}
	return res.r, res.err
}

// closeWrite says that this was all.
func (c *session) closeWrite() error {
	c.mu.Lock()
	c.finished = true
	c.mu.Unlock()
	if h, ok := c.conn.(interface{ CloseWrite() error }); ok {
		return h.CloseWrite()
	}
	return errServed
}

// stream sends what is committed after from, and what comes.
func (c *session) stream(g *store.Generation, from repl.Offset) error {
	if err := c.conn.SetWriteDeadline(time.Time{}); err != nil {
		return err // from here on judge tells who is too slow
	}
	r, err := g.NewReader(from)
	if err != nil {
		return fmt.Errorf("read log after %d: %w", from, err)
	}
	defer func() { _ = r.Close() }()
	for {
		rg, err := r.Next(sendBytes)
		if errors.Is(err, io.EOF) {
			if err := r.Wait(c.ctx); err != nil {
				return c.waitError(err)
			}
			continue
		}
		var corrupt *store.CorruptionError
		if errors.As(err, &corrupt) {
			c.srv.counters.corrupt.Add(1)
			c.srv.damage.addLog(g.ID(), r.Offset()+1)
			c.srv.up.RefreshBase()
			c.log.Error("the log is damaged; what is behind it is served to nobody by partial resync", zap.Error(err))
			return &dropError{reasonCorrupt, err.Error()}
		}
		if err != nil {
			return fmt.Errorf("read log after %d: %w", r.Offset(), err)
		}
		// Bytes that came under another id were committed after History told of it,
		// so those that Next gave are still of the id that the replica knows.
		if g.History().Current() != c.served.id {
			return errReplID
		}
		c.sent.Store(int64(r.Offset()))
		if err := c.send(rg.File, rg.Offset, rg.Length, func(n int) { c.srv.counters.streamBytes.Add(uint64(n)) }); err != nil {
			return err
		}
	}
}

// waitError translates why waiting for the log has ended.
func (c *session) waitError(err error) error {
	switch {
	case c.ctx.Err() != nil:
		return context.Cause(c.ctx)
	case errors.Is(err, store.ErrGenerationOver):
		return errGeneration
	case errors.Is(err, store.ErrClosed):
		return errShutdown
	}
	return err
}

// send sends n bytes of a file from off on, by sendfile where that is possible.
func (c *session) send(f store.File, off, n int64, progress func(n int)) error {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.conn.SetWriteDeadline(time.Time{}); err != nil {
		return err
	}
	file, isFile := f.(*os.File)
	var buf []byte
	for n > 0 {
		var sent int
		var err error
		if c.raw != nil && isFile {
			sent, err = sendFile(c.raw, file, off, int(min(n, sendBytes)))
		} else {
			if buf == nil {
				buf = make([]byte, copyBytes)
			}
			sent, err = f.ReadAt(buf[:min(n, copyBytes)], off)
			if sent > 0 {
				sent, err = c.conn.Write(buf[:sent])
			}
		}
		if err != nil {
			return fmt.Errorf("send to replica: %w", err)
		}
		off, n = off+int64(sent), n-int64(sent)
		progress(sent)
	}
	return nil
}
