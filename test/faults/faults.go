// Package faults stands between a client and its brokers, in the test's own process, and harms what passes: it
// delays bytes, slows connections down, cuts them in the middle of a frame, refuses new ones, and lets
// what was written to a connection that the client has lost arrive behind what it writes to the next one. Which
// harm comes when is a seed's choice. It takes bytes as they are and knows nothing of requests; tests give Dial to a
// client as its dialer.
package faults

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// chunk is how many bytes pass at once: few, so that a cut falls inside of frames.
const chunk = 700

// lastWords is how long a connection that is cut is still read, where what was written to it is to come late.
const lastWords = 5 * time.Millisecond

// Plan says what harm is done. What is zero is not done.
type Plan struct {
	Delay    time.Duration // each chunk waits so long at most
	Lives    time.Duration // a connection is cut after that long, on average
	Refusals int           // one in so many connections is refused
	Trickles int           // one in so many connections is throttled to Rate
	Rate     int           // bytes per second of a throttled connection, each way
	Late     time.Duration // bytes of a connection that was cut arrive at the broker within that time after the cut
}

// Counts are what has happened.
type Counts struct {
	Connections, Cuts, Refused, Throttled int
	Late                                  int // connections whose last bytes arrived after the client had gone
	Bytes                                 int64
}

// String is all of it in a line.
func (c Counts) String() string {
	return fmt.Sprintf("%d connections, %d cut, %d refused, %d throttled, %d with bytes that came late, %d bytes", c.Connections, c.Cuts, c.Refused, c.Throttled, c.Late, c.Bytes)
}

// Network is the way to the brokers.
type Network struct {
	seed uint64
	wg   sync.WaitGroup
	ctx  context.Context
	end  context.CancelFunc

	mu struct { // never held while bytes are moved
		sync.Mutex
		plan      Plan
		listeners map[string]net.Listener // by the broker's address
		counts    Counts
	}
}

// New makes a way to brokers on which the plan's harm is done from the start.
func New(seed uint64, plan Plan) *Network {
	n := &Network{seed: seed}
	n.ctx, n.end = context.WithCancel(context.Background())
	n.mu.plan, n.mu.listeners = plan, map[string]net.Listener{}
	return n
}

// Close ends every connection, and returns when nothing moves any more.
func (n *Network) Close() {
	n.end()
	n.mu.Lock()
	for _, l := range n.mu.listeners {
		_ = l.Close()
	}
	n.mu.Unlock()
	n.wg.Wait()
}

// Heal stops the harm for connections to come; those that are there live on as they were to.
func (n *Network) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.plan = Plan{}
}

// Counts gives what has happened so far.
func (n *Network) Counts() Counts {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.counts
}

// Dial connects to a broker through the proxy that stands before it.
func (n *Network) Dial(ctx context.Context, address string) (net.Conn, error) {
	l, err := n.before(address)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", l.Addr().String())
}

// before gives the proxy of a broker, and makes it where there is none yet.
func (n *Network) before(address string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if l := n.mu.listeners[address]; l != nil || n.ctx.Err() != nil {
		return l, n.ctx.Err()
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("a proxy before %s: %w", address, err)
	}
	n.mu.listeners[address] = l
	n.wg.Go(func() { n.accept(l, address) })
	return l, nil
}

func (n *Network) accept(l net.Listener, address string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		n.mu.Lock()
		n.mu.counts.Connections++
		number, plan := n.mu.counts.Connections, n.mu.plan
		n.mu.Unlock()
		rng := rand.New(rand.NewPCG(n.seed, uint64(number)))
		if plan.Refusals > 0 && rng.IntN(plan.Refusals) == 0 {
			n.note(func(c *Counts) { c.Refused++ })
			_ = c.Close()
			continue
		}
		n.wg.Go(func() { n.carry(c, address, plan, rng) })
	}
}

func (n *Network) note(f func(*Counts)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.mu.counts)
}

// carry is the life of one connection.
func (n *Network) carry(client net.Conn, address string, plan Plan, rng *rand.Rand) {
	defer client.Close()
	var d net.Dialer
	broker, err := d.DialContext(n.ctx, "tcp", address)
	if err != nil {
		return
	}
	defer broker.Close()
	defer context.AfterFunc(n.ctx, func() { _ = client.Close(); _ = broker.Close() })()
	rate := 0
	if plan.Trickles > 0 && rng.IntN(plan.Trickles) == 0 {
		rate = plan.Rate
		n.note(func(c *Counts) { c.Throttled++ })
	}
	life := n.ctx
	if plan.Lives > 0 {
		var end context.CancelFunc
		life, end = context.WithTimeout(n.ctx, time.Duration(rng.ExpFloat64()*float64(plan.Lives)))
		defer end()
	}
	stream := func(from, to net.Conn) *stream {
		return &stream{n: n, from: from, to: to, delay: plan.Delay, rate: rate, rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), over: make(chan struct{})}
	}
	up, down := stream(client, broker), stream(broker, client)
	if plan.Late > 0 {
		up.late = time.Duration(rng.Int64N(int64(plan.Late)))
	}
	n.wg.Go(func() { up.run(life) })
	n.wg.Go(func() { down.run(life) })
	select {
	case <-up.over: // one side has gone
	case <-down.over:
	case <-life.Done():
		n.note(func(c *Counts) { c.Cuts++ })
		if up.late > 0 {
			_ = client.SetReadDeadline(time.Now().Add(lastWords))
			<-up.over
		}
		if tcp, ok := client.(*net.TCPConn); ok && rng.IntN(2) == 0 {
			_ = tcp.SetLinger(0) // a reset, which also drops what the client has not read yet
		}
	}
	_ = client.Close()
	<-up.over
	up.finish() // by now the client may be back on another connection
	_ = broker.Close()
	<-down.over
}

// stream moves bytes one way, in order.
type stream struct {
	n        *Network
	from, to net.Conn
	delay    time.Duration
	rate     int
	late     time.Duration // 0: what has not passed when the connection is cut is lost
	rng      *rand.Rand
	over     chan struct{} // closed when run has returned
	held     []byte        // what comes late; run's, then finish's
}

// run moves bytes until a side has gone or the connection's life is over.
func (s *stream) run(life context.Context) {
	defer close(s.over)
	buffer := make([]byte, chunk)
	for {
		size, err := s.from.Read(buffer)
		switch {
		case size == 0:
		case len(s.held) > 0 || !s.wait(life, size):
			s.held = append(s.held, buffer[:size]...)
			if s.late == 0 {
				return
			}
		default:
			if _, err := s.to.Write(buffer[:size]); err != nil {
				return
			}
			s.n.note(func(c *Counts) { c.Bytes += int64(size) })
		}
		if err != nil {
			return
		}
	}
}

// wait is what bytes wait before they pass; false where the connection's life is over first.
func (s *stream) wait(life context.Context, size int) bool {
	wait := time.Duration(0)
	if s.delay > 0 {
		wait = time.Duration(s.rng.Int64N(int64(s.delay)))
	}
	if s.rate > 0 {
		wait += time.Duration(size) * time.Second / time.Duration(s.rate)
	}
	if wait == 0 {
		return life.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-life.Done():
		return false
	}
}

// finish gives the broker what the client had written before the cut.
func (s *stream) finish() {
	if len(s.held) == 0 || s.late == 0 {
		return
	}
	timer := time.NewTimer(s.late)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.n.ctx.Done():
		return
	}
	if _, err := s.to.Write(s.held); err == nil {
		s.n.note(func(c *Counts) { c.Late++ })
	}
}
