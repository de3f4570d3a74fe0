package peer

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

// link keeps one connection to another node. Its goroutine connects, sends what was posted, and looks
// whether the other end still answers; Call sends on the connection directly.
type link struct {
	p         *Peers
	ctx       context.Context // ends with p, or when the node is forgotten
	stop      context.CancelFunc
	to        int32
	data      bool
	forgotten bool          // under p.mu
	wake      chan struct{} // holds one token: something below has changed
	random    *rand.Rand    // the goroutine's

	mu struct { // short
		sync.Mutex
		addr    string
		client  *wire.Client  // nil while there is no connection
		with    agreed        // of client
		changed chan struct{} // closed and replaced when client changes
		posted  []post
		bytes   int  // of posted
		hurry   bool // the other end is alive: connect now
		down    error
		pingDue bool
	}
	// Of client, as it is read.
	heardAt atomic.Int64 // nanoseconds since p.began when something last came
	arrived atomic.Int64 // bytes
}

// post is a one-way message that waits.
type post struct {
	kind Kind
	body []byte
}

func (l *link) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// post queues a one-way message; false: there is no connection, or too much waits already.
func (l *link) post(kind Kind, body []byte) bool {
	l.mu.Lock()
	fits := l.mu.client != nil && len(l.mu.posted) < maxPosted && l.mu.bytes+len(body) <= maxPostedBytes
	if fits {
		l.mu.posted = append(l.mu.posted, post{kind, body})
		l.mu.bytes += len(body)
	}
	l.mu.Unlock()
	if fits {
		l.signal()
	}
	return fits
}

// call sends a request once there is a connection. memory is where the answer goes.
func (l *link) call(ctx context.Context, kind Kind, body []byte, memory func(n int) []byte) ([]byte, error) {
	for {
		l.mu.Lock()
		client, changed := l.mu.client, l.mu.changed
		l.mu.Unlock()
		if client == nil {
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, fmt.Errorf("connect to node %d: %w", l.to, errors.Join(context.Cause(ctx), l.trouble()))
			case <-l.ctx.Done():
				return nil, l.ended()
			}
			continue
		}
		answer, err := client.CallInto(ctx, KindKey+int16(kind), 0, func(dst []byte) []byte { return append(dst, body...) }, memory)
		if err != nil {
			return nil, fmt.Errorf("ask node %d: %w", l.to, err)
		}
		if answer, err = result(answer); err != nil {
			return nil, fmt.Errorf("ask node %d: %w", l.to, err)
		}
		return answer, nil
	}
}

// ended is why a link whose context is over serves nobody any more.
func (l *link) ended() error {
	if l.p.ctx.Err() == nil {
		return fmt.Errorf("node %d: %w", l.to, ErrUnknownNode)
	}
	return ErrClosed
}

// trouble is why there is no connection.
func (l *link) trouble() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.down
}

// run is the link's goroutine.
func (l *link) run() {
	pause := firstPause
	for l.ctx.Err() == nil {
		client, err := l.connect()
		l.mu.Lock()
		l.mu.down = err
		l.mu.Unlock()
		if err != nil {
			l.rest(pause)
			pause = min(2*pause, longestPause)
			continue
		}
		began := time.Now()
		l.serve(client)
		_ = client.Close() // it has no other failure to report than the one that ended it
		l.set(nil, agreed{})
		l.p.observed(l, false)
		if time.Since(began) > longestPause { // else it is refused again and again
			pause = firstPause
		}
		l.rest(pause)
		pause = min(2*pause, longestPause)
	}
}

// rest waits before the next attempt, unless the other end shows that it is alive.
func (l *link) rest(pause time.Duration) {
	due := false
	timer := time.AfterFunc(pause+time.Duration(l.random.Int64N(int64(pause/2))), func() {
		l.mu.Lock()
		due = true
		l.mu.Unlock()
		l.signal()
	})
	defer timer.Stop()
	for {
		select {
		case <-l.wake:
		case <-l.ctx.Done():
			return
		}
		l.mu.Lock()
		over := due || l.mu.hurry
		l.mu.hurry = false
		l.mu.Unlock()
		if over {
			return
		}
	}
}

// watchedConn tells when something has come, and when its connection is closed, which wire.Client does at the first failure.
type watchedConn struct {
	net.Conn
	heard  func(bytes int)
	closed func()
}

// Read implements net.Conn.
func (c watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard(n)
	}
	return n, err
}

// Close implements net.Conn.
func (c watchedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

func (l *link) connect() (*wire.Client, error) {
	l.mu.Lock()
	addr := l.mu.addr
	l.mu.Unlock()
	ctx, cancel := context.WithTimeout(l.ctx, dialTimeout)
	defer cancel()
	conn, err := l.p.o.Network.Dial(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("connect to node %d: %w", l.to, err)
	}
	netx.Eager(conn)
	stop := context.AfterFunc(l.ctx, func() { _ = conn.Close() })
	defer stop()
	self := l.p.introduction(l.to)
	raw := conn
	conn, with, err := l.greet(raw, addr, self)
	if err != nil {
		_ = raw.Close()
		l.p.warnRefused(l, addr, err)
		return nil, fmt.Errorf("connect to node %d at %s: %w", l.to, addr, err)
	}
	if l.ctx.Err() != nil {
		_ = conn.Close()
		return nil, ErrClosed
	}
	most := maxFrameBytes
	if l.data {
		most = maxDataBytes
	}
	client := wire.NewClient(watchedConn{conn, l.hears, l.signal}, wire.ClientOptions{
		MaxInFlight: maxInFlight, MaxResponseBytes: most, WriteStall: writeStall,
	})
	l.set(client, with)
	if !with.formed && l.p.ClusterID() != self.cluster {
		l.renew() // what was agreed is out of date
	}
	l.p.observed(l, true)
	return client, nil
}

func (l *link) greet(raw net.Conn, addr string, self introduction) (net.Conn, agreed, error) {
	o := &l.p.o
	if !o.open() && !o.Loopback(raw.RemoteAddr()) {
		return nil, agreed{}, ErrNotLoopback
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, agreed{}, err
	}
	deadline := time.Now().Add(handshakeTimeout)
	conn, on, err := o.secure(raw, host, true, deadline)
	if err != nil {
		return nil, agreed{}, err
	}
	with, err := greet(conn, on, o.Secret, self, deadline)
	if err != nil && on != nil {
		err = ofTLS(err) // a listener looks at a certificate when the dialler believes that all is done
	}
	return conn, with, err
}

func (l *link) set(client *wire.Client, with agreed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.client, l.mu.with = client, with
	l.mu.posted, l.mu.bytes, l.mu.pingDue = nil, 0, false // what waited for the last connection is lost with it
	if l.mu.changed != nil {
		close(l.mu.changed)
	}
	l.mu.changed = make(chan struct{})
}

// hears notes that bytes have come.
func (l *link) hears(bytes int) {
	l.heardAt.Store(l.p.hears())
	l.arrived.Add(int64(bytes))
}

// serve sends what is posted, and asks now and then whether the other end is there, until the
// connection ends.
func (l *link) serve(client *wire.Client) {
	ping := time.AfterFunc(l.nextPing(), func() {
		l.mu.Lock()
		l.mu.pingDue = true
		l.mu.Unlock()
		l.signal()
	})
	defer ping.Stop()
	var asked question
	for client.Err() == nil {
		select {
		case <-l.wake:
		case <-l.ctx.Done():
			return
		}
		l.mu.Lock()
		posts, due, addr := l.mu.posted, l.mu.pingDue, l.mu.addr
		l.mu.posted, l.mu.bytes, l.mu.pingDue = nil, 0, false
		l.mu.Unlock()
		for i := range posts {
			if err := l.send(client, &posts[i]); err != nil {
				return
			}
		}
		if !due {
			continue
		}
		if l.gone(&asked, time.Now()) || l.ping(client, &asked) != nil {
			l.gaveUp(addr)
			return
		}
		ping.Reset(l.nextPing())
	}
}

// question is whether the other end is there, and what had come when it was asked.
type question struct {
	answer  *wire.Pending // nil: not asked yet
	at      time.Time
	arrived int64
}

// gone: the other end has not answered, and nothing else that comes says that it is there. An answer stands behind the one that
// is on its way, which may take minutes on a thin line: bytes that arrive are life too, as long as they come without a pause
// of pingPatience, and not so slowly that whoever waits for them is held for ever (wire.Patience).
func (l *link) gone(q *question, now time.Time) bool {
	if q.answer == nil || isDone(q.answer) {
		return false
	}
	heard := l.p.began.Add(time.Duration(l.heardAt.Load()))
	return now.Sub(later(q.at, heard)) > pingPatience || now.Sub(q.at) > wire.Patience(pingPatience, l.arrived.Load()-q.arrived)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// ping asks whether the other end is there. Where so many requests are unanswered that there is no room for this one, it waits
// no longer than for an answer: an end that is gone frees none. As long as an answer is due it only says that this end is
// there, which the other one listens for.
func (l *link) ping(client *wire.Client, q *question) error {
	nothing := func(dst []byte) []byte { return dst }
	if q.answer != nil && !isDone(q.answer) {
		ctx, cancel := context.WithTimeout(l.ctx, pingInterval)
		defer cancel()
		if err := client.Send(ctx, KindKey+int16(kindPing), oneWay, nothing); ctx.Err() == nil {
			return err
		}
		return l.ctx.Err()
	}
	ctx, cancel := context.WithTimeout(l.ctx, pingPatience)
	defer cancel()
	var err error
	q.at, q.arrived = time.Now(), l.arrived.Load()
	q.answer, err = client.Start(ctx, KindKey+int16(kindPing), 0, nothing)
	return err
}

func (l *link) gaveUp(addr string) {
	if l.ctx.Err() == nil {
		l.p.log.Info("another node does not answer; its connection is given up", "node", l.to, "address", addr)
	}
}

func (l *link) nextPing() time.Duration {
	return pingInterval + time.Duration(l.random.Int64N(int64(pingInterval/10)))
}

func isDone(p *wire.Pending) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

func (l *link) send(client *wire.Client, m *post) error {
	ctx, cancel := context.WithTimeout(l.ctx, pingPatience) // as for a ping
	defer cancel()
	return client.Send(ctx, KindKey+int16(m.kind), oneWay, func(dst []byte) []byte { return append(dst, m.body...) })
}
