package backend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/sluice-io/sluice/proxy/causal"
	"github.com/sluice-io/sluice/proxy/eventloop"
	"github.com/sluice-io/sluice/proxy/topology"
	"github.com/sluice-io/sluice/resp"
)

// Reconnect backoff of a pipeline: doubled from the first to the second.
const (
	backoffMin = 50 * time.Millisecond
	backoffMax = 2 * time.Second
)

// State of a pipeline.
type State uint8

// The states; see DESIGN.md of package proxy for the diagram.
const (
	Idle       State = iota // no connection; the next request makes one
	Connecting              // dialing; requests wait in the output
	Ready                   // connected, role seen
	Resting                 // failed a moment ago; refuses requests until the backoff is over
	Retiring                // refuses requests; ends once those in flight are answered
	Closed                  // for good
)

// String names the state.
func (s State) String() string {
	return [...]string{"idle", "connecting", "ready", "resting", "retiring", "closed"}[s]
}

// Errors of a pipeline.
var (
	// ErrUnsolicited says that a node sent a value that no request asked for.
	ErrUnsolicited = errors.New("node sent a reply that no request asked for")
	// ErrNodeDown says that the node was found down by its observer.
	ErrNodeDown = errors.New("node is down")
	// ErrRelease says that a pipeline was closed because nobody needs it.
	ErrRelease = errors.New("connection is no longer needed")
)

// Env is what the pipelines of one event loop share.
type Env struct {
	Loop   *eventloop.Loop
	Dialer *Dialer
	Ctx    context.Context // ends the dials
	Dials  *sync.WaitGroup // counts them
	// OnReady is called when a connection has been made.
	OnReady func(p *Pipeline)
	// OnFailure is called when a connection could not be made or has died.
	OnFailure func(p *Pipeline, err error)
}

// Tunnel is the owner of a pinned pipeline. It sees each value before it is
// taken for a reply.
type Tunnel interface {
	// Push is offered the beginning of a value (at least its first 64 KB, or
	// all of it). It returns true for one that is not the reply of head, which
	// may be nil; then it gets the value by Pushed. It may call Expect.
	Push(value []byte, head *Request) bool
	// Pushed delivers a part of a pushed value.
	Pushed(data []byte)
	// Gone says that the connection ended, after Lost of all requests.
	Gone(cause error)
}

// Pipeline is a connection to one node. Its methods may be called only on the
// goroutine of its loop.
type Pipeline struct {
	Node   *topology.Node
	Master bool // the node must be a master
	// Answered counts the complete replies by class. It may be shared by the
	// pipelines of a loop.
	Answered *[NumClasses]uint64

	env        *Env
	id         Identity
	tunnel     Tunnel // nil where shared
	conn       *eventloop.Conn
	head, tail *Request
	inFlight   int
	scan       resp.ReplyScanner
	streaming  bool // head's reply, or a push, is being passed on in parts
	pushing    bool // what is streamed is a push
	state      State
	failures   int   // since it last stood
	heard      int64 // loop time at which the node last sent anything
	restUntil  int64
	retired    error // why it is Retiring
	cancelDial context.CancelFunc
	waiting    []func(error) // of WhenReady
	drained    func()        // of BeginStream
	// LastUsed is the loop's time at the last Send.
	LastUsed int64
	// Answers is the loop's time at which the request was sent that was answered
	// last.
	Answers int64
	// DialedAt is the loop's time at which the connection was begun.
	DialedAt int64
	// ReadySince is the time at which the connection was handed over, in
	// nanoseconds of [causal.Clock].
	ReadySince int64
}

// New returns a pipeline without a connection.
func New(env *Env, n *topology.Node, id Identity, master bool, t Tunnel) *Pipeline {
	return &Pipeline{
		Node: n, Master: master, Answered: new([NumClasses]uint64),
		env: env, id: id, tunnel: t, LastUsed: env.Loop.Now(),
	}
}

// SetTunnel gives a pinned pipeline to another owner. Nothing may be in flight.
func (p *Pipeline) SetTunnel(t Tunnel) { p.tunnel = t }

// WhenReady calls fn once: with nil as soon as the node has accepted the
// connection, or with what went wrong. A *ReplyError tells what the node said.
func (p *Pipeline) WhenReady(fn func(error)) {
	if p.state == Ready {
		fn(nil)
		return
	}
	p.waiting = append(p.waiting, fn)
	p.Open()
}

func (p *Pipeline) tellWaiting(err error) {
	w := p.waiting
	p.waiting = nil
	for _, fn := range w {
		fn(err)
	}
}

// State returns the state; Resting ends by itself as time passes.
func (p *Pipeline) State() State {
	if p.state == Resting && p.env.Loop.Now() >= p.restUntil {
		p.state = Idle
	}
	return p.state
}

// Usable reports whether Send would take a request.
func (p *Pipeline) Usable() bool { return p.state == Ready || p.State() < Resting }

// Identity returns what the connection was set up for.
func (p *Pipeline) Identity() Identity { return p.id }

// InFlight returns the number of requests without a complete reply.
func (p *Pipeline) InFlight() int { return p.inFlight }

// Failed reports whether the connection has failed and does not stand again yet.
func (p *Pipeline) Failed() bool { return p.failures > 0 }

// Owes returns the request that the node has to answer next, and since when, in
// loop time, nothing has come; nil where it owes nothing.
func (p *Pipeline) Owes() (r *Request, since int64) {
	if p.head == nil {
		return nil, 0
	}
	return p.head, max(p.head.SentAt, p.heard)
}

// Send queues a request whose bytes are raw; they are copied. The pipeline
// must be Usable. The bytes leave at the end of the loop's iteration.
func (p *Pipeline) Send(r *Request, raw []byte) {
	if p.state != Ready {
		p.Open()
	}
	c := p.conn
	r.chunk, r.off = c.WriteWhole(raw)
	r.size = len(raw)
	r.end = c.Appended()
	r.next = nil
	r.Via = p
	now := p.env.Loop.Now()
	r.SentAt, p.LastUsed = now, now
	if p.tail == nil {
		p.head = r
	} else {
		p.tail.next = r
	}
	p.tail = r
	p.inFlight += r.Left
	if c.Pending() >= flushFrom {
		c.Flush()
	}
}

// flushFrom is how many bytes wait for the end of the loop's iteration at most:
// the node can work on them while the loop reads other clients. It is what Redis
// reads at once (PROTO_IOBUF_LEN); less costs both sides more system calls.
const flushFrom = 16 << 10

// Expect adds n values to those that r, in flight here, is to get.
func (p *Pipeline) Expect(r *Request, n int) {
	r.Left += n
	p.inFlight += n
}

// Replace lets other take the rest of the reply of r, which is the request at
// the head; r is the sink's again.
func (p *Pipeline) Replace(r, other *Request) {
	other.takeOver(r)
	p.head = other
	if p.tail == r {
		p.tail = other
	}
}

// Open starts to connect if there is no connection yet.
func (p *Pipeline) Open() {
	if p.State() != Idle {
		return
	}
	p.state = Connecting
	p.DialedAt = p.env.Loop.Now()
	p.conn = p.env.Loop.NewConn(p)
	p.conn.Retain = true
	conn := p.conn
	ctx, cancel := context.WithCancel(p.env.Ctx)
	p.cancelDial = cancel
	p.env.Dials.Add(1)
	go func() {
		defer p.env.Dials.Done()
		defer cancel()
		sock, err := p.env.Dialer.Dial(ctx, p.Node.Addr, p.id, p.Master)
		ok := p.env.Loop.Post(func() { p.dialed(conn, sock, err) })
		if !ok && err == nil {
			sock.Close()
		}
	}()
}

// dialed takes the result of a dial.
func (p *Pipeline) dialed(conn *eventloop.Conn, sock eventloop.Socket, err error) {
	dialed := err == nil
	if dialed && !conn.Closed() {
		if err = p.env.Loop.Attach(conn, sock); err == nil {
			p.state = Ready
			p.ReadySince = causal.Clock()
			p.failures = 0
			if p.env.OnReady != nil {
				p.env.OnReady(p)
			}
			p.tellWaiting(nil)
			return
		}
	}
	if dialed {
		sock.Close()
	}
	if err != nil {
		conn.Close(err)
	}
}

// Pause stops reading from the node: its own limits for slow clients apply.
func (p *Pipeline) Pause() {
	if p.conn != nil {
		p.conn.Pause()
	}
}

// Resume ends a Pause.
func (p *Pipeline) Resume() {
	if p.conn != nil {
		p.conn.Resume()
	}
}

// Close ends the connection; requests in flight are Lost. A node that is no
// longer to be used (ErrNodeDown) shall not run them later either, as far as
// they have not reached it.
func (p *Pipeline) Close(cause error) {
	if p.state == Closed {
		return
	}
	c := p.conn
	p.state = Closed
	switch {
	case c == nil:
	case errors.Is(cause, ErrNodeDown):
		c.Abort(cause)
	default:
		c.Close(cause)
	}
	if p.cancelDial != nil {
		p.cancelDial()
	}
}

// Fail ends the connection as a failure: a new one is made after a rest.
func (p *Pipeline) Fail(cause error) { p.conn.Close(cause) }

// Retire is Fail once everything in flight has been answered; until then nothing
// more is taken.
func (p *Pipeline) Retire(cause error) {
	if p.state == Ready {
		p.state, p.retired = Retiring, cause
	}
}

// OnEOF implements eventloop.Handler.
func (p *Pipeline) OnEOF(c *eventloop.Conn) {
	c.Close(fmt.Errorf("%s closed the connection", p.Node.Addr))
}

// OnDrain implements eventloop.Handler.
func (p *Pipeline) OnDrain(*eventloop.Conn) {
	if p.drained != nil {
		p.drained()
	}
}

// OnClose implements eventloop.Handler: everything in flight is lost.
func (p *Pipeline) OnClose(c *eventloop.Conn, err error) {
	p.conn = nil
	p.streaming, p.pushing = false, false
	p.scan = resp.ReplyScanner{}
	if p.state != Closed {
		p.rest(err)
	}
	p.tellWaiting(err)
	r := p.head
	p.head, p.tail, p.inFlight = nil, nil, 0
	for r != nil {
		next := r.next
		r.next = nil
		r.Sink.Lost(r, r.loss(c, err))
		r = next
	}
	if p.tunnel != nil {
		p.tunnel.Gone(err)
	}
}

// loss tells how much of r, in flight on c, has left.
func (r *Request) loss(c *eventloop.Conn, cause error) Loss {
	l := Loss{Cause: cause, Whole: r.end <= c.Written()}
	if c.Retain {
		l.Raw = r.Raw()
		l.Sent = max(0, min(r.size, r.size-int(int64(r.end-c.Written()))))
	}
	return l
}

// rest begins the backoff: a node that is gone must not be dialed for every
// request.
func (p *Pipeline) rest(err error) {
	d := min(backoffMin<<min(p.failures, 10), backoffMax)
	d = d/2 + rand.N(d) // between half and one and a half: loops do not dial in step
	p.failures++
	p.state = Resting
	p.restUntil = p.env.Loop.Now() + int64(d)
	if p.env.OnFailure != nil && !errors.Is(err, eventloop.ErrClosed) {
		p.env.OnFailure(p, err)
	}
}
