package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/rdbstream"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

// attachment is a stream that is about to come.
type attachment struct {
	start     store.Mark // it begins behind this commit point
	awaitsAck bool       // it begins once the master has got an ACK
	// prologue is what the writer does before the first byte: make the
	// generation, note a new replid. It waits for the disk, the reader does not.
	prologue func(ctx context.Context) error
	// abandon frees what prologue would have taken over. It may be called after
	// it.
	abandon func()
}

// resumePoint drops what is not committed and returns where the head goes on,
// zero if there is nothing to go on with.
func (l *Link) resumePoint() (store.Mark, haveHead, error) {
	g := l.st.Head()
	if g == nil || l.startOver {
		return store.Mark{}, haveHead{}, nil
	}
	m, err := l.st.TruncateToCommit()
	if err != nil {
		return store.Mark{}, haveHead{}, err
	}
	return m, haveHead{repl.Pos{ReplID: g.History().Current(), Offset: m.Offset}, len(g.Bases()) > 0}, nil
}

// attach brings the connection to the point where the stream comes.
func (l *Link) attach(ctx context.Context, p *peer) (*attachment, error) {
	mark, have, err := l.resumePoint()
	if err != nil {
		return nil, err
	}
	i, err := askInfo(p, p.r)
	if _, refused := asRefused(err); err != nil && !refused {
		return nil, err
	}
	if err != nil {
		l.log.Warn("the master refuses INFO: whether it can continue is not known before it is asked, and bases cannot come from replicas"+hint(err), zap.Error(err))
	}
	p.relay = i != nil && i.relay
	if i != nil && i.slave && !i.relay {
		return nil, followError{p.addr, i.masterAddr}
	}
	plan, err := planAttach(i, have, l.opt.BaseFrom)
	if err != nil {
		return nil, err
	}
	if plan.reason != "" {
		l.log.Warn("a new generation begins; the old one is kept for its retention", zap.String("reason", plan.reason))
	}
	if plan.kind == attachFull {
		if err := l.st.Err(); err != nil { // the master would fork in vain, and again at the next attempt
			return nil, fmt.Errorf("the full resync is put off: %w", err)
		}
	}
	l.reached.Store(int64(repl.UnknownOffset))
	if i != nil {
		l.reached.Store(int64(i.pos.Offset))
	}
	l.log.Debug("attach", zap.Stringer("how", plan.kind), zap.Stringer("want", plan.want))
	var base *transfer
	if plan.kind == attachCreate {
		if base, err = l.requestBase(ctx, p.addr, "master "+p.addr, nil); err != nil {
			return nil, err
		}
		plan.want = base.pos.Want()
	}
	at, err := l.request(ctx, p, plan, mark, base)
	if err != nil && base != nil {
		base.peer.close()
	}
	return at, err
}

// request sends PSYNC and acts upon the answer.
func (l *Link) request(ctx context.Context, p *peer, plan attachPlan, mark store.Mark, base *transfer) (*attachment, error) {
	if _, err := p.Write(psync.AppendPSync(nil, plan.want)); err != nil {
		return nil, fmt.Errorf("send PSYNC: %w", err)
	}
	answer, err := psync.ReadAnswer(p.r)
	if err != nil {
		return nil, fmt.Errorf("read answer to PSYNC: %w", err)
	}
	switch a := answer.(type) {
	case psync.Continue:
		if plan.kind == attachResume {
			return l.resume(a, mark), nil
		}
		return l.join(a, plan.want.Have(), base)
	case psync.FullResync:
		if base != nil { // the master went on to another history in between
			base.peer.close()
		}
		return l.transfer(p, a)
	case psync.Retry:
		return nil, fmt.Errorf("PSYNC %s: %w", plan.want, a)
	case psync.Refused:
		return nil, fmt.Errorf("PSYNC %s: %w", plan.want, a)
	}
	return nil, fmt.Errorf("PSYNC %s: unknown answer %v", plan.want, answer)
}

// resume goes on in the head.
func (l *Link) resume(a psync.Continue, mark store.Mark) *attachment {
	return &attachment{start: mark, abandon: func() {}, prologue: func(ctx context.Context) error {
		if a.ReplID.IsZero() || a.ReplID == l.st.Head().History().Current() {
			return nil
		}
		err := l.persist(ctx, func() error { return l.st.ChangeReplID(a.ReplID) })
		if errors.Is(err, repl.ErrReplIDReused) {
			l.startOver = true
		}
		if err == nil {
			l.log.Info("the master's history goes on under another replid", zap.Stringer("history", l.st.Head().History()))
			l.counters.failovers.Add(1)
		}
		return err
	}}
}

// join begins a generation behind pos. base, if not nil, is a snapshot of pos
// that waits to be read.
func (l *Link) join(a psync.Continue, pos repl.Pos, base *transfer) (*attachment, error) {
	h, err := repl.NewHistory(pos.ReplID)
	if err == nil {
		h, err = h.Append(a.ReplID, pos.Offset)
	}
	if err != nil {
		return nil, fmt.Errorf("join at %s: %w", pos, err)
	}
	at := &attachment{start: store.Mark{Offset: pos.Offset, DB: psync.UnknownDB}, abandon: func() {}}
	if base != nil {
		at.abandon = base.peer.close
	}
	at.prologue = func(ctx context.Context) error {
		begin := func() error { return l.newGeneration(repl.Pos{ReplID: h.Current(), Offset: pos.Offset}, h) }
		if err := l.persist(ctx, begin); err != nil {
			return err
		}
		if base != nil {
			at.abandon = func() {}
			l.bases.offer(base)
		}
		return nil
	}
	return at, nil
}

// newGeneration begins a generation. A base on its way for the old one is of no
// use any more.
func (l *Link) newGeneration(pos repl.Pos, h repl.History) error {
	l.bases.abort(store.ErrGenerationOver)
	g, err := l.st.NewGeneration(pos, h)
	if err != nil {
		return err
	}
	l.startOver = false
	l.log.Info("generation begun", zap.Uint64("generation", g.ID()), zap.Stringer("pos", pos))
	l.counters.generations.Add(1)
	return nil
}

// transfer takes a snapshot on the connection of the stream. The stream behind a
// payload with a mark begins with our first ACK.
func (l *Link) transfer(p *peer, a psync.FullResync) (*attachment, error) {
	l.m.BecomeTransfer()
	l.counters.fullResyncs.Add(1)
	l.log.Warn("the master does a full resync", zap.Stringer("pos", a.Pos))
	h, err := repl.NewHistory(a.Pos.ReplID)
	if err != nil {
		return nil, err
	}
	if err := l.newGeneration(a.Pos, h); err != nil {
		return nil, err
	}
	sink, db, err := l.receive(&transfer{peer: p, pos: a.Pos, source: "master " + p.addr})
	if err != nil {
		return nil, err // a generation without a base; planAttach knows what to do
	}
	return &attachment{
		start: store.Mark{Offset: a.Pos.Offset, DB: db}, awaitsAck: true,
		abandon: func() { _ = sink.Abort() }, // a leftover is removed by the next Open
		prologue: func(context.Context) error {
			b, err := sink.Commit()
			l.bases.done(b, err)
			if err != nil { // what it was for has no base: attach anew
				return errors.Join(err, sink.Abort())
			}
			return nil
		},
	}, nil
}

// transfer is a snapshot that waits to be read.
type transfer struct {
	peer   *peer
	pos    repl.Pos
	source string // for people
}

// receive reads a snapshot into the head and checks it while it passes by. The
// sink is to be committed or aborted. db is the one selected behind it, -1 if it
// does not say.
func (l *Link) receive(t *transfer) (_ *store.BaseSink, db int, err error) {
	header, err := psync.ReadPayloadHeader(t.peer.r)
	if err != nil {
		return nil, 0, fmt.Errorf("read header of the snapshot from %s: %w", t.source, err)
	}
	meta := store.BaseMeta{Pos: t.pos, DB: psync.UnknownDB, Source: t.source}
	if !header.Marked() {
		meta.Size = header.Size
	}
	sink, err := l.st.BeginBase(meta)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, sink.Abort())
		}
	}()
	// What it holds need not be understood to be kept, but a file that is cut
	// short or damaged must never take the place of a good one.
	check := rdbstream.NewWriter(nil)
	check.AllowUnknown = true
	payload := psync.NewPayloadReader(t.peer.r, header)
	if _, err = io.CopyBuffer(io.MultiWriter(sink, check, &l.counters.baseBytes), payload, make([]byte, copyBytes)); err != nil {
		return nil, 0, fmt.Errorf("receive snapshot from %s: %w", t.source, err)
	}
	if err = check.Close(); err != nil {
		return nil, 0, fmt.Errorf("check snapshot from %s: %w", t.source, err)
	}
	info := check.Info()
	off, ok := info.ReplOffset()
	// A relay gives what it has stored, perhaps since before a failover: under the id
	// of then.
	id := repl.ReplID(info.ReplID())
	if (ok && repl.Offset(off) != t.pos.Offset) || (id != "" && id != t.pos.ReplID && !t.peer.relay) {
		return nil, 0, fmt.Errorf("snapshot from %s is of %s:%d, %s was announced: %w", t.source, id, off, t.pos, ErrBaseMismatch)
	}
	if db, ok = info.ReplStreamDB(); !ok {
		db = psync.UnknownDB
	}
	sink.SetDB(db)
	return sink, db, nil
}

// copyBytes is the size of the buffer of a snapshot on its way.
const copyBytes = 256 << 10
