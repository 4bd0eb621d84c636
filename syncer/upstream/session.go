package upstream

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// ackEvery is how often a replica acknowledges (replicationCron).
const ackEvery = time.Second

// Behind a snapshot with a mark the stream waits for an ACK that comes after the
// master has seen its child end; one that comes before is lost. So more of them
// are sent, until something comes: an idle master says nothing for 10 s.
const (
	firstAckEvery = 100 * time.Millisecond
	firstAckFor   = 10 * time.Second
)

// session is one connection to the master with the stream on it.
type session struct {
	l     *Link
	peer  *peer
	at    *attachment
	asked chan struct{} // capacity 1: an ACK is wanted at once

	begun    atomic.Bool                      // something of the stream has come
	received atomic.Int64                     // offset of the last commit point in memory
	gen      atomic.Pointer[store.Generation] // written to; nil until the prologue is done
}

// stream reads, writes and acknowledges until the link is lost or ctx ends, and
// then until what was received is on its way to the disk, for which it may have
// to wait.
func (l *Link) stream(ctx context.Context, p *peer, at *attachment) error {
	s := &session{l: l, peer: p, at: at, asked: make(chan struct{}, 1)}
	s.received.Store(int64(at.start.Offset))
	l.ring.reset(at.start)
	l.received.Store(int64(at.start.Offset))
	sctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	var writeErr error
	wg.Go(func() {
		// Not the session's context: what was received is written even when the
		// link is lost.
		if writeErr = s.write(l.ctx, func() { wg.Go(func() { s.watchFsync(sctx) }) }); writeErr != nil {
			cancel(writeErr)
			p.close()
		}
	})
	wg.Go(func() { s.watchDownstream(sctx) })
	wg.Go(func() {
		if err := s.acknowledge(sctx); err != nil {
			cancel(err)
			p.close()
		}
	})
	err := s.read()
	cancel(err)
	p.close()
	l.m.BecomeBackoff(context.Cause(sctx))
	l.ring.close()
	wg.Wait()
	at.abandon()
	if writeErr != nil {
		return writeErr
	}
	return context.Cause(sctx)
}

// read moves bytes from the socket to memory. It waits for nothing else, but in
// the middle of a command that does not fit into memory for the disk.
func (s *session) read() error {
	l := s.l
	scan := psync.NewStreamScanner(s.at.start.Offset, s.at.start.DB)
	mark := s.at.start
	for {
		p := l.ring.space()
		if p == nil && int(scan.Offset()-mark.Offset) > l.opt.BufferBytes/2 {
			// In the middle of one huge command. To drop the link would not help: it
			// would come from its begin again, and again.
			p = l.ring.awaitSpace(l.ctx.Done())
		}
		if p == nil {
			l.counters.overflows.Add(1)
			return ErrBufferFull
		}
		n, err := s.peer.r.Read(p)
		if n > 0 {
			s.begun.Store(true)
			asked, errScan := s.scan(scan, p[:n])
			if off, db := scan.Commit(); off != mark.Offset {
				mark = store.Mark{Offset: off, DB: db, Time: time.Now()}
			}
			l.ring.publish(n, mark)
			s.received.Store(int64(mark.Offset))
			l.received.Store(int64(scan.Offset()))
			l.counters.bytes.Add(uint64(n))
			if asked { // now that the ACK will tell of all that came before
				s.askAck()
			}
			if errScan != nil {
				return errScan
			}
		}
		if err != nil {
			return err
		}
	}
}

// scan follows the commands in b and reports whether an ACK is wanted.
func (s *session) scan(scan *psync.StreamScanner, b []byte) (asked bool, err error) {
	for len(b) > 0 {
		c, n, ok, err := scan.Next(b)
		if err != nil {
			return asked, err
		}
		asked = asked || ok && c.Kind == psync.KindGetAck
		b = b[n:]
	}
	return asked, nil
}

func (s *session) askAck() {
	select {
	case s.asked <- struct{}{}:
	default:
	}
}

// write brings what is in memory into the store, until the reader has ended and
// all that it committed is written. ready is called after the prologue.
func (s *session) write(ctx context.Context, ready func()) error {
	st, ring := s.l.st, s.l.ring
	if s.at.prologue != nil {
		if err := s.at.prologue(ctx); err != nil {
			return err
		}
	}
	s.gen.Store(st.Head())
	ready()
	s.l.bases.kick()
	for {
		p, m, ok, err := ring.next(ctx)
		if !ok {
			return err
		}
		if err := s.l.persist(ctx, func() error { return st.Append(p) }); err != nil {
			return err
		}
		if m != nil {
			if err := s.l.persist(ctx, func() error { return st.Commit(*m) }); err != nil {
				return err
			}
		}
		ring.release(len(p))
	}
}

// persist tries until the disk takes it.
func (l *Link) persist(ctx context.Context, op func() error) error {
	for {
		err := op()
		if !errors.Is(err, store.ErrDegraded) {
			return err
		}
		if err := l.st.WaitWritable(ctx); err != nil {
			return err
		}
	}
}

// acknowledge sends an ACK every second and whenever one is wanted.
func (s *session) acknowledge(ctx context.Context) error {
	t := time.NewTicker(ackEvery)
	defer t.Stop()
	hurry, begin := s.at.awaitsAck, time.Now()
	if hurry {
		t.Reset(firstAckEvery)
	}
	for {
		if err := s.sendAck(); err != nil {
			return err
		}
		select {
		case <-t.C:
			if hurry && (s.begun.Load() || time.Since(begin) > firstAckFor) {
				hurry = false
				t.Reset(ackEvery)
			}
		case <-s.asked:
		case <-ctx.Done():
			return nil
		}
	}
}

// sendAck acknowledges what the mode says. Before the prologue is done nothing
// of this stream is durable; Redis ignores an offset lower than the last.
func (s *session) sendAck() error {
	a := psync.Ack{Offset: repl.Offset(s.received.Load()), Fsynced: repl.UnknownOffset}
	g := s.gen.Load()
	if g != nil {
		a.Fsynced = min(g.Fsynced(), a.Offset)
	}
	switch s.l.opt.Ack {
	case AckReceived:
	case AckFsynced:
		a.Offset = max(a.Fsynced, 0)
	case AckDownstream:
		a.Offset = min(a.Offset, s.minAcked(max(a.Fsynced, 0)))
	}
	if _, err := s.peer.Write(psync.AppendAck(nil, a)); err != nil {
		return err
	}
	s.l.acked.Store(int64(a.Offset))
	return nil
}

// minAcked returns what all replicas behind us have, and fsynced while there are
// none.
func (s *session) minAcked(fsynced repl.Offset) repl.Offset {
	if s.l.replicas != nil && s.gen.Load() != nil {
		if off, ok := s.l.replicas.MinAcked(); ok {
			return off
		}
	}
	return fsynced
}

// watchDownstream has an ACK sent whenever the replicas behind us have more, where
// that is what is acknowledged: somebody may WAIT for it.
func (s *session) watchDownstream(ctx context.Context) {
	if s.l.opt.Ack != AckDownstream || s.l.replicas == nil {
		return
	}
	for {
		select {
		case <-s.l.replicas.Acked():
			s.askAck()
		case <-ctx.Done():
			return
		}
	}
}

// watchFsync has an ACK sent whenever more is durable, where that is what is
// acknowledged: somebody may WAIT for it.
func (s *session) watchFsync(ctx context.Context) {
	if s.l.opt.Ack == AckReceived {
		return
	}
	g := s.gen.Load()
	for last := g.Fsynced(); ; last = g.Fsynced() {
		s.askAck()
		if err := g.WaitFsynced(ctx, last+1); err != nil {
			if ctx.Err() == nil {
				s.l.log.Debug("fsync watch ended", zap.Error(err))
			}
			return
		}
	}
}
