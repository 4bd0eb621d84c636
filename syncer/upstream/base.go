package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/sluice-io/sluice/syncer/journal"
	"github.com/sluice-io/sluice/syncer/psync"
	"github.com/sluice-io/sluice/syncer/repl"
	"github.com/sluice-io/sluice/syncer/store"
)

const (
	baseCheckEvery = time.Second            // how often it is checked whether a base is due
	basePollEvery  = 100 * time.Millisecond // how often a replica that is behind is asked
	basePauseMin   = time.Second            // after a failure; doubles
	basePauseMax   = 30 * time.Second
	replicaRounds  = 3 // after so many in which no replica gave a base, the master has to (BaseAuto)
)

// baser takes bases when they are due. It outlives the sessions: a base from a
// replica need not be begun again because the link to the master was lost.
type baser struct {
	l      *Link
	offers chan *transfer // capacity 1: a snapshot on its way that attaching has begun
	wake   chan struct{}  // capacity 1
	wanted atomic.Bool    // one is wanted, however short the log is

	mu      sync.Mutex
	cancel  context.CancelCauseFunc // of the transfer under way; nil: none
	lastErr string
}

func newBaser(l *Link) *baser {
	return &baser{l: l, offers: make(chan *transfer, 1), wake: make(chan struct{}, 1)}
}

// kick has it checked whether a base is due.
func (b *baser) kick() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// offer hands over a snapshot. Only the link's writer calls it, after abort.
func (b *baser) offer(t *transfer) {
	select {
	case stale := <-b.offers:
		stale.peer.close()
	default:
	}
	b.offers <- t
}

// abort ends the transfer under way.
func (b *baser) abort(cause error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.cancel != nil {
		b.cancel(cause)
	}
}

// run takes bases until the link is closed.
func (b *baser) run() {
	defer func() {
		select {
		case t := <-b.offers:
			t.peer.close()
		default:
		}
	}()
	tick := time.NewTicker(baseCheckEvery)
	defer tick.Stop()
	var failures int
	var notBefore time.Time
	for {
		var t *transfer
		select {
		case t = <-b.offers:
		default:
			select {
			case t = <-b.offers:
			case <-b.wake:
			case <-tick.C:
			case <-b.l.ctx.Done():
				return
			}
		}
		g := b.l.st.Head()
		if t == nil && (!b.due(g) || time.Now().Before(notBefore) || b.l.State() != StateConnected) {
			continue
		}
		if err := b.l.st.Err(); err != nil && t == nil {
			b.putOff(err)
			continue
		}
		base, err := b.take(g, t, failures)
		if b.l.ctx.Err() != nil {
			return
		}
		b.done(base, err)
		if err == nil || errors.Is(err, store.ErrGenerationOver) {
			failures, notBefore = 0, time.Time{}
			continue
		}
		pause := min(basePauseMin<<min(failures, 10), basePauseMax)
		failures, notBefore = failures+1, time.Now().Add(pause)
	}
}

// putOff notes that nobody is asked for a base, since the disk would not take it:
// whoever gave it would have forked in vain.
func (b *baser) putOff(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastErr = fmt.Sprintf("a base is put off: %v", err)
}

// done notes how a transfer has ended.
func (b *baser) done(base store.Base, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lastErr = ""
	if err != nil {
		b.lastErr = err.Error()
		b.l.counters.baseFailures.Add(1)
		b.l.note(journal.BaseFailed, "no base was taken, and it will be tried again: "+b.lastErr)
		b.l.log.Warn("base was not taken; it will be tried again"+hint(err), zap.Error(err))
		return
	}
	b.wanted.Store(false)
	b.l.counters.bases.Add(1)
	b.l.note(journal.Base, fmt.Sprintf("a base of %d bytes at offset %d was taken from %s", base.Size, base.Offset, base.Source))
	b.l.log.Info("base taken", zap.Stringer("pos", base.Pos()), zap.Int64("bytes", base.Size), zap.String("source", base.Source))
}

func (b *baser) lastError() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lastErr
}

// due reports whether a generation needs a base, its first or a newer one.
func (b *baser) due(g *store.Generation) bool {
	if g == nil {
		return false
	}
	bases := g.Bases()
	if len(bases) == 0 || b.wanted.Load() {
		return true
	}
	limit := max(int64(b.l.opt.BaseRefresh*float64(bases[0].Size)), b.l.opt.BaseRefreshMin)
	return int64(g.Committed()-bases[0].Offset) > limit
}

// take takes a base of g: the one on its way, t, or one from whoever may give
// it.
func (b *baser) take(g *store.Generation, t *transfer, failures int) (store.Base, error) {
	ctx, cancel := context.WithCancelCause(b.l.ctx)
	defer cancel(nil)
	b.mu.Lock()
	b.cancel = cancel
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.cancel = nil
		b.mu.Unlock()
	}()
	if b.l.st.Head() != g { // abort may have come before
		if t != nil {
			t.peer.close()
		}
		return store.Base{}, store.ErrGenerationOver
	}
	if bases := g.Bases(); t == nil && len(bases) > 0 { // before anybody forks for it
		if err := b.l.st.RoomFor(bases[0].Size); err != nil {
			return store.Base{}, err
		}
	}
	base, err := b.takeFrom(ctx, g, t, failures)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	return base, err
}

func (b *baser) takeFrom(ctx context.Context, g *store.Generation, t *transfer, failures int) (store.Base, error) {
	if t != nil {
		return b.finish(ctx, g, t)
	}
	addr := b.l.target()
	master, err := b.l.askNode(ctx, addr)
	if err != nil {
		return store.Base{}, err
	}
	var errs []error
	if b.l.opt.BaseFrom != BaseMaster {
		for _, r := range b.candidates(master) {
			t, err := b.l.requestBase(ctx, r.addr, "replica "+r.addr, func(i *nodeInfo) (bool, error) { return acceptReplica(i, master, g) })
			if err == nil {
				var base store.Base
				if base, err = b.finish(ctx, g, t); err == nil {
					return base, nil
				}
			}
			if ctx.Err() != nil {
				return store.Base{}, err
			}
			if !errors.Is(err, errRelay) { // perhaps it is we ourselves
				errs = append(errs, err)
			}
		}
	}
	switch {
	case b.l.opt.BaseFrom == BaseReplica:
		return store.Base{}, errors.Join(append(errs, ErrNoReplica)...)
	case b.l.opt.BaseFrom == BaseAuto && len(errs) > 0 && failures+1 < replicaRounds:
		return store.Base{}, errors.Join(errs...)
	}
	t, err = b.l.requestBase(ctx, addr, "master "+addr, func(i *nodeInfo) (bool, error) { return acceptMaster(i, g) })
	if err != nil {
		return store.Base{}, errors.Join(append(errs, err)...)
	}
	return b.finish(ctx, g, t)
}

// candidates returns the replicas that may be asked for a base, the most caught-up
// first: the master's, and those behind us.
func (b *baser) candidates(master *nodeInfo) []replicaInfo {
	all := slices.Clone(master.replicas)
	if b.l.replicas != nil {
		for addr, off := range b.l.replicas.Online() {
			if !slices.ContainsFunc(all, func(r replicaInfo) bool { return r.addr == addr }) {
				all = append(all, replicaInfo{addr, off})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b replicaInfo) int { return cmp.Compare(b.offset, a.offset) })
	return all
}

// finish receives a snapshot and commits it, once the log has got as far. One
// that is ahead of the log for too long is dropped: it may be of a history that
// the master has lost.
func (b *baser) finish(ctx context.Context, g *store.Generation, t *transfer) (store.Base, error) {
	defer t.peer.close()
	if bases := g.Bases(); len(bases) > 0 && t.pos.Offset <= bases[0].Offset {
		return store.Base{}, fmt.Errorf("%s offers a base at %s: %w", t.source, t.pos, errNotNewer)
	}
	sink, _, err := b.l.receive(t)
	if err != nil {
		return store.Base{}, err
	}
	defer func() { _ = sink.Abort() }() // after Commit it does nothing; a leftover is removed by the next Open
	limited, cancel := context.WithTimeoutCause(ctx, b.l.opt.BaseWait, fmt.Errorf("the log did not reach the snapshot of %s within %s", t.pos, b.l.opt.BaseWait))
	defer cancel()
	for {
		base, err := sink.Commit()
		if !errors.Is(err, store.ErrOffsetAhead) {
			return base, err
		}
		if err := g.WaitCommitted(limited, t.pos.Offset); err != nil {
			return store.Base{}, err
		}
	}
}

// askNode asks a node for its INFO on a connection of its own.
func (l *Link) askNode(ctx context.Context, addr string) (*nodeInfo, error) {
	p, err := l.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer p.close()
	h := psync.Handshake{Username: l.opt.User, Password: l.opt.Password}
	if err := h.Run(p, p.r); err != nil {
		return nil, fmt.Errorf("handshake with %s: %w", addr, err)
	}
	return askInfo(p, p.r)
}

// requestBase asks a node for a snapshot and no stream, once accept has agreed:
// it says whether to ask now, or to look again later. The connection of what it
// returns is to be closed.
func (l *Link) requestBase(ctx context.Context, addr, source string, accept func(*nodeInfo) (bool, error)) (_ *transfer, err error) {
	p, err := l.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.close()
		}
	}()
	if err := l.greet(p, true); err != nil {
		return nil, err
	}
	if accept != nil {
		if err := l.awaitAccepted(ctx, p, accept); err != nil {
			return nil, fmt.Errorf("%s cannot give a base: %w", source, err)
		}
	}
	if _, err := p.Write(psync.AppendPSync(nil, repl.Want{})); err != nil {
		return nil, fmt.Errorf("ask %s for a base: %w", source, err)
	}
	answer, err := psync.ReadAnswer(p.r)
	if err != nil {
		return nil, fmt.Errorf("ask %s for a base: %w", source, err)
	}
	switch a := answer.(type) {
	case psync.FullResync:
		l.log.Info("base is coming", zap.String("source", source), zap.Stringer("pos", a.Pos))
		return &transfer{peer: p, pos: a.Pos, source: source}, nil
	case psync.Retry:
		return nil, fmt.Errorf("ask %s for a base: %w", source, a)
	case psync.Refused:
		return nil, fmt.Errorf("ask %s for a base: %w", source, a)
	}
	return nil, fmt.Errorf("ask %s for a base: answer is %v", source, answer)
}

// awaitAccepted asks for INFO until accept agrees.
func (l *Link) awaitAccepted(ctx context.Context, p *peer, accept func(*nodeInfo) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, l.opt.BaseWait, fmt.Errorf("it is still behind our log after %s", l.opt.BaseWait))
	defer cancel()
	for {
		i, err := askInfo(p, p.r)
		if err != nil {
			return err
		}
		if ok, err := accept(i); ok || err != nil {
			return err
		}
		t := time.NewTimer(basePollEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return context.Cause(ctx)
		}
	}
}

// Why a node may not give a base.
var (
	errNotReplica  = errors.New("it is a master")
	errRelay       = errors.New("it is a relay, which takes no snapshots of its own")
	errNotNewer    = errors.New("that is not newer than the one that is stored")
	errNotMaster   = errors.New("it is a replica")
	errLinkDown    = errors.New("its link to the master is down")
	errWritable    = errors.New("it takes writes of its own (replica-read-only no)")
	errOtherPast   = errors.New("its history is not ours")
	errNewerServer = errors.New("it is of a newer version than the master, which could not load its snapshot")
)

// acceptReplica tells whether a replica may be asked for a base of g now, or
// (false, nil) later. A replica's offset counts what it has applied, so that its
// snapshot is of a transaction's end; it may be one of ours only if nobody but
// the master has written to it.
func acceptReplica(i, master *nodeInfo, g *store.Generation) (bool, error) {
	switch {
	case !i.slave:
		return false, errNotReplica
	case i.relay:
		return false, errRelay
	case !i.linkUp:
		return false, errLinkDown
	case !i.readOnly:
		return false, errWritable
	case i.newerThan(master):
		return false, errNewerServer
	}
	return acceptPos(i, g)
}

// acceptMaster tells the same of a master.
func acceptMaster(i *nodeInfo, g *store.Generation) (bool, error) {
	if i.slave && !i.relay {
		return false, errNotMaster
	}
	return acceptPos(i, g)
}

// acceptPos: the snapshot will be at the node's position or later, and that must
// be one that the log of g continues. One ahead of the log is awaited.
func acceptPos(i *nodeInfo, g *store.Generation) (bool, error) {
	if !g.History().Contains(i.pos) {
		return false, errOtherPast
	}
	return i.pos.Offset+1 >= g.First(), nil
}
