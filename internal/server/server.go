// Package server owns listeners and connections: it accepts, frames, limits, orders and closes,
// and knows nothing of what a request means.
//
// A connection has one goroutine. It reads a request, runs phase one (Handler.Handle), and also
// the Reply where that is ready and no earlier one is still waiting; from the first Reply that has
// to wait on, a second goroutine completes replies in the order of the requests, until the
// connection has been quiet for a while. Replies of a burst leave in one write. A connection that
// waits for its peer holds no buffer, a frame's memory goes back when phase one ends, and all of
// it is bounded by Limits. A peer that breaks the protocol loses its connection, costs one line in
// the log, and nobody else notices.
//
// Only the composition root makes a Server. The package also has the administrator's HTTP
// listener (Admin).
package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/metrics"
	"barnabas/internal/wire"
)

// Handler is who answers requests. Its methods are called from the connections' goroutines: in
// order for one peer, at the same time for different ones.
type Handler interface {
	// Handle runs phase one of a request: what must happen in the order of arrival. ready says
	// that the Reply will not wait, but where that could not be foreseen: then it calls Out.Waiting, and nothing is
	// read from the peer meanwhile. A nil Reply means that nothing is sent (Produce with acks=0).
	// An error closes the connection with one line in the log. req and its Body are only valid
	// until Handle returns; ctx ends with the connection.
	Handle(ctx context.Context, peer *wire.Peer, req *wire.Request) (reply wire.Reply, ready bool, err error)
	// Disconnected is called once for a peer for which Handle was or could have been called, after
	// its last Reply has returned.
	Disconnected(peer *wire.Peer)
}

// Network is the part of netx.Network that a server needs.
type Network interface {
	Listen(ctx context.Context, addr string) (net.Listener, error)
}

// Listener is one address to accept connections on.
type Listener struct {
	Name string // as in Kafka's listeners key
	Addr string // host:port
	// TLS, where set, is spoken on every connection. It costs sendfile.
	TLS *tls.Config
	// Authenticates says that peers have to prove who they are before they may send large requests
	// (wire.Peer.Authenticated).
	Authenticates bool
}

// Options say what a Server listens to and what it grants.
type Options struct {
	Network   Network
	Listeners []Listener
	Handler   Handler
	Limits    Limits
	Logger    *slog.Logger      // nil discards
	Metrics   *metrics.Registry // nil counts for nobody
	// APIName names a key in metrics; "" lumps it with the unknown ones. Nil shows numbers.
	APIName func(key int16) string
}

// Server serves connections until Shutdown.
type Server struct {
	handler Handler
	limits  Limits
	logger  *slog.Logger
	stats   *stats
	started time.Time

	listeners []net.Listener
	configs   []Listener
	addrs     []net.Addr

	slots    *budget // connections
	arriving *budget // bytes of frames that did not arrive at once
	decoding *budget // bytes that decoding may take
	waiting  *budget // bytes that replies hold while they wait
	frames   framePool
	outs     wire.Pool
	chunks   sync.Pool     // of *chunk
	always   chan struct{} // closed

	ctx     context.Context // parent of the connections' contexts
	cancel  context.CancelFunc
	closing chan struct{} // closed when Shutdown begins
	running sync.WaitGroup
	nextID  atomic.Uint64

	mu struct { // never held while waiting
		sync.Mutex
		closing     bool
		connections map[*connection]struct{}
		perIP       map[string]int
		admission   ConnectionLimits
		readmit     chan struct{} // closed and replaced when admission changes
	}
}

// Listen starts a server. Every listener is open when it returns, or none is. ctx bounds the call;
// its values, not its end, reach the handler.
func Listen(ctx context.Context, o Options) (*Server, error) {
	s := &Server{
		handler: o.Handler, limits: o.Limits.withDefaults(), logger: o.Logger,
		configs: slices.Clone(o.Listeners), started: time.Now(), closing: make(chan struct{}),
	}
	if s.logger == nil {
		s.logger = slog.New(slog.DiscardHandler)
	}
	s.slots = newBudget(int64(s.limits.Connections))
	s.arriving = newBudget(s.limits.RequestMemoryBytes)
	s.decoding = newBudget(s.limits.RequestMemoryBytes)
	s.waiting = newBudget(s.limits.RequestMemoryBytes)
	s.stats = newStats(o.Metrics, o.APIName, s)
	s.always = make(chan struct{})
	close(s.always)
	s.ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.mu.connections = map[*connection]struct{}{}
	s.mu.perIP = map[string]int{}
	s.mu.admission, s.mu.readmit = s.limits.connections(), make(chan struct{})

	for _, cfg := range s.configs {
		l, err := o.Network.Listen(ctx, cfg.Addr)
		if err != nil {
			s.closeListeners()
			s.cancel()
			return nil, fmt.Errorf("listen for %s on %s: %w", cfg.Name, cfg.Addr, err)
		}
		s.listeners = append(s.listeners, l)
		s.addrs = append(s.addrs, l.Addr())
	}
	for i, l := range s.listeners {
		s.running.Go(func() { s.accept(l, &s.configs[i]) })
	}
	return s, nil
}

// Addrs are the addresses listened on, in the order of Options.Listeners, with the ports that were
// picked.
func (s *Server) Addrs() []net.Addr { return slices.Clone(s.addrs) }

// Shutdown stops accepting and reading, lets the replies to what was read finish, and closes every
// connection. When ctx ends first, waits end too and connections are closed as they are; the
// error is then ctx's. Every goroutine has ended when it returns.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	first := !s.mu.closing
	s.mu.closing = true
	s.mu.Unlock()
	if first {
		close(s.closing)
		s.closeListeners()
	}
	for _, c := range s.open() {
		c.wake()
	}
	ended := make(chan struct{})
	go func() { s.running.Wait(); close(ended) }()
	var err error
	select {
	case <-ended:
	case <-ctx.Done():
		err = fmt.Errorf("connections are closed with replies under way: %w", context.Cause(ctx))
		for _, c := range s.open() {
			c.fail(errClosing)
		}
		<-ended
	}
	s.cancel()
	return err
}

func (s *Server) closeListeners() {
	for _, l := range s.listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			s.logger.Warn("listener does not close", "address", l.Addr().String(), "cause", err)
		}
	}
}

func (s *Server) open() []*connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*connection, 0, len(s.mu.connections))
	for c := range s.mu.connections {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b *connection) int { return int(a.peer.ID) - int(b.peer.ID) })
	return all
}

func (s *Server) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// sinceStart is a time as the connections keep it in atomics.
func (s *Server) sinceStart(t time.Time) int64 { return int64(t.Sub(s.started)) }
