package peer

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
)

// Peers is one node's connections to the others. Its methods are safe for concurrent use.
type Peers struct {
	o   Options
	log *slog.Logger

	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	began   time.Time
	heard   atomic.Int64 // nanoseconds since began when something last came on a connection from here; 0: nothing has

	memory   *semaphore.Weighted // bytes of large frames being handled
	handlers [endOfKinds]atomic.Pointer[registered]

	mu struct { // short
		sync.Mutex
		random    *rand.ChaCha8
		cluster   string
		links     map[line]*link
		inbound   map[*inbound]context.CancelFunc
		knocking  []net.Conn       // accepted and not yet authenticated, in the order in which they came
		observers []*observer      // in the order in which they came
		up        map[int32]bool   // the control connections that stand
		warned    map[int32]string // the last refusal by each node that was reported
		strangers map[string]bool  // refusals of others that were
		closed    bool
	}
}

// line is a connection from here: to whom, and for what.
type line struct {
	to   int32
	data bool
}

type registered struct {
	handle Handler
	early  bool
}

// Open begins to listen. Nobody is dialled before SetAddress, and nothing answered before Handle.
func Open(ctx context.Context, o Options) (*Peers, error) {
	if o.Loopback == nil {
		o.Loopback = isLoopback
	}
	p := &Peers{
		o: o, log: o.Logger, began: time.Now(),
		memory: semaphore.NewWeighted(max(cmp.Or(o.FrameMemory, maxFrameMemory), maxFrameBytes)),
	}
	var seed [32]byte
	if _, err := io.ReadFull(o.Random, seed[:]); err != nil {
		return nil, fmt.Errorf("draw a seed for connections between nodes: %w", err)
	}
	p.mu.random = rand.NewChaCha8(seed)
	p.mu.cluster = o.ClusterID
	p.mu.links = map[line]*link{}
	p.mu.inbound = map[*inbound]context.CancelFunc{}
	p.mu.up = map[int32]bool{}
	p.mu.warned, p.mu.strangers = map[int32]string{}, map[string]bool{}
	p.ctx, p.stop = context.WithCancel(context.WithoutCancel(ctx))
	if o.Listener != nil {
		p.running.Go(p.accept)
	}
	return p, nil
}

// Close ends every connection and waits for all that is under way.
func (p *Peers) Close() error {
	p.mu.Lock()
	p.mu.closed = true
	for _, o := range p.mu.observers {
		o.end()
	}
	p.mu.Unlock()
	p.stop()
	var err error
	if p.o.Listener != nil {
		if err = p.o.Listener.Close(); err != nil {
			err = fmt.Errorf("close the internal listener: %w", err)
		}
	}
	p.running.Wait()
	return err
}

// Handle registers who takes messages of a kind from nodes of the same cluster; nil takes it away.
// Messages under way are not waited for.
func (p *Peers) Handle(kind Kind, h Handler) { p.register(kind, h, false) }

// HandleEarly is Handle for what is said before both ends belong to the cluster, too.
func (p *Peers) HandleEarly(kind Kind, h Handler) { p.register(kind, h, true) }

func (p *Peers) register(kind Kind, h Handler, early bool) {
	if h == nil {
		p.handlers[kind].Store(nil)
		return
	}
	p.handlers[kind].Store(&registered{h, early})
}

func (p *Peers) handler(kind Kind) (h Handler, early bool) {
	r := p.handlers[kind].Load()
	if r == nil {
		return nil, false
	}
	return r.handle, r.early
}

// SetAddress says where a node listens ("HOST:PORT"), and keeps a connection to it from now on. Another
// address than before breaks the connections to the old one.
func (p *Peers) SetAddress(node int32, addr string) {
	if node == p.o.Self.ID {
		return
	}
	if p.line(line{node, false}, addr) == nil {
		return
	}
	p.mu.Lock()
	all := p.linksLocked(node)
	p.mu.Unlock()
	for _, l := range all {
		l.move(addr)
	}
}

// linksLocked are the connections from here to a node that there are.
func (p *Peers) linksLocked(node int32) []*link {
	var all []*link
	for _, to := range []line{{node, false}, {node, true}} {
		if l := p.mu.links[to]; l != nil {
			all = append(all, l)
		}
	}
	return all
}

// Forget ends the connections from here to a node, which are not made again before SetAddress: it is no part of the cluster any
// more. Observers are told that it is away. It does not wait.
func (p *Peers) Forget(node int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, l := range p.linksLocked(node) {
		delete(p.mu.links, line{l.to, l.data})
		l.forgotten = true
		l.stop()
	}
	delete(p.mu.warned, node)
	if p.mu.up[node] && !p.mu.closed {
		for _, o := range p.mu.observers {
			o.add(change{node, false})
		}
	}
	delete(p.mu.up, node)
}

func (l *link) move(addr string) {
	l.mu.Lock()
	client := l.mu.client
	same := l.mu.addr == addr
	l.mu.addr, l.mu.hurry = addr, !same
	l.mu.Unlock()
	if same {
		return
	}
	if client != nil {
		_ = client.Close()
	}
	l.signal()
}

// line returns a link, made if an address is given; nil where there is none.
func (p *Peers) line(to line, addr string) *link {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.mu.links[to]
	if l != nil {
		return l
	}
	if addr == "" && to.data {
		if control := p.mu.links[line{to.to, false}]; control != nil {
			control.mu.Lock()
			addr = control.mu.addr
			control.mu.Unlock()
		}
	}
	if addr == "" || p.mu.closed {
		return nil
	}
	l = &link{p: p, to: to.to, data: to.data, wake: make(chan struct{}, 1)}
	l.ctx, l.stop = context.WithCancel(p.ctx)
	l.random = rand.New(rand.NewPCG(p.mu.random.Uint64(), uint64(to.to)))
	l.mu.addr = addr
	l.mu.changed = make(chan struct{})
	p.mu.links[to] = l
	p.running.Go(l.run)
	return l
}

func (p *Peers) linkFor(to int32, kind Kind) (*link, error) {
	l := p.line(line{to, kind >= firstDataKind}, "")
	switch {
	case p.ctx.Err() != nil:
		return nil, ErrClosed
	case l == nil:
		return nil, fmt.Errorf("node %d: %w", to, ErrUnknownNode)
	}
	return l, nil
}

// Call asks another node and waits for its answer, and first for a connection, as long as ctx allows.
// Without an answer it is open whether the request has arrived.
// Errors: ErrUnknownNode, ErrUnserved, ErrNotFormed, *RemoteError, ErrClosed, ctx's, the connection's.
func (p *Peers) Call(ctx context.Context, to int32, kind Kind, body []byte) ([]byte, error) {
	l, err := p.linkFor(to, kind)
	if err != nil {
		return nil, err
	}
	return l.call(ctx, kind, body, func(n int) []byte { return make([]byte, n) })
}

// CallInto is Call for an answer that, with a few bytes before it, goes where memory(n) says. When CallInto fails the
// answer may come yet: memory may still be called, by another goroutine, and what it returned written to.
func (p *Peers) CallInto(ctx context.Context, to int32, kind Kind, body []byte, memory func(n int) []byte) ([]byte, error) {
	l, err := p.linkFor(to, kind)
	if err != nil {
		return nil, err
	}
	return l.call(ctx, kind, body, memory)
}

// Post hands over a one-way message and does not wait: false says that it is lost already, for there is
// no connection or too much waits for it. Messages of one connection arrive in the order of the calls,
// or, where it breaks, not at all. body must not change any more.
func (p *Peers) Post(to int32, kind Kind, body []byte) bool {
	l, err := p.linkFor(to, kind)
	return err == nil && l.post(kind, body)
}

// Connected tells whether there is a control connection to a node.
func (p *Peers) Connected(node int32) bool {
	l := p.line(line{node, false}, "")
	if l == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.client != nil
}

// Heard is when another node, whichever it was, last answered anything on a connection from here; zero: none has yet. A node that
// can be reached answers every 1.1 seconds at least, for it is asked whether it is there.
func (p *Peers) Heard() time.Time {
	since := p.heard.Load()
	if since == 0 {
		return time.Time{}
	}
	return p.began.Add(time.Duration(since))
}

func (p *Peers) hears() (at int64) {
	at = int64(time.Since(p.began))
	p.heard.Store(at)
	return at
}

// Trouble is why there is no connection to a node, nil where there is one or none was tried.
func (p *Peers) Trouble(node int32) error {
	l := p.line(line{node, false}, "")
	if l == nil {
		return nil
	}
	return l.trouble()
}

// ClusterID is what was set last.
func (p *Peers) ClusterID() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.mu.cluster
}

// SetClusterID says to which cluster the node belongs from now on. Connections that were made before
// are closed, and made again by who needs them.
func (p *Peers) SetClusterID(id string) {
	p.mu.Lock()
	same := p.mu.cluster == id
	p.mu.cluster = id
	var ends []context.CancelFunc
	var links []*link
	if !same {
		for in, end := range p.mu.inbound {
			if !in.with.formed {
				ends = append(ends, end)
			}
		}
		for _, l := range p.mu.links {
			links = append(links, l)
		}
	}
	p.mu.Unlock()
	for _, end := range ends {
		end()
	}
	for _, l := range links {
		l.renew()
	}
}

// renew breaks a connection that was made while an end belonged to no cluster.
func (l *link) renew() {
	l.mu.Lock()
	client, stale := l.mu.client, !l.mu.with.formed
	l.mu.hurry = true
	l.mu.Unlock()
	if client != nil && stale {
		_ = client.Close()
	}
	l.signal()
}

// hurry lets the link to a node connect at once, for the node has shown that it is alive.
func (p *Peers) hurry(node int32) {
	p.mu.Lock()
	all := p.linksLocked(node)
	p.mu.Unlock()
	for _, l := range all {
		l.mu.Lock()
		l.mu.hurry = l.mu.client == nil
		l.mu.Unlock()
		l.signal()
	}
}

// introduction is this node's, to one other, with a fresh number.
func (p *Peers) introduction(wants int32) introduction {
	i := introduction{node: p.o.Self, wants: wants}
	p.mu.Lock()
	defer p.mu.Unlock()
	i.cluster = p.mu.cluster
	_, _ = p.mu.random.Read(i.nonce[:]) // ChaCha8 never fails
	return i
}

// admit makes an accepted connection known; false: the node is closing, or what the handshake found is
// out of date.
func (p *Peers) admit(in *inbound, cancel context.CancelFunc) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed || !in.with.formed && in.cluster != p.mu.cluster {
		return false
	}
	p.mu.inbound[in] = cancel
	return true
}

func (p *Peers) dismiss(in *inbound) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.mu.inbound, in)
}

// warnRefused reports once what somebody has to look after: the other end is there, and will not have us.
func (p *Peers) warnRefused(l *link, addr string, err error) {
	for _, lasting := range lastingErrors {
		if !errors.Is(err, lasting) {
			continue
		}
		p.mu.Lock()
		known := p.mu.warned[l.to] == lasting.Error()
		p.mu.warned[l.to] = lasting.Error()
		p.mu.Unlock()
		if !known {
			p.log.Warn("another node cannot be spoken to", "node", l.to, "address", addr, "err", err)
		}
		return
	}
}

// lastingErrors are those that pass only when somebody looks after them.
var lastingErrors = []error{
	ErrWrongSecret, ErrWrongCluster, ErrWrongNode, ErrNotLoopback, ErrOneSided, ErrUntrusted, ErrDistrusted, ErrTLS, ErrHandshake,
}

// IsRefusal tells whether one of two nodes will not have the other: trying again does not help.
func IsRefusal(err error) bool {
	return slices.ContainsFunc(lastingErrors, func(lasting error) bool { return errors.Is(err, lasting) })
}
