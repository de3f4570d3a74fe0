package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"barnabas/internal/wire"
)

const (
	keyProduce          = 0
	keySaslHandshake    = 17
	keyAPIVersions      = 18
	keySaslAuthenticate = 36

	// flushBytes is how much of a burst's replies is collected before it is sent although more
	// requests wait.
	flushBytes = 64 << 10
	// writerIdle is how long a connection keeps its second goroutine after the last reply.
	writerIdle = 30 * time.Second
	// keepClientID is the longest client id that a connection remembers between requests.
	keepClientID = 256
)

// connection is one peer's. The reading goroutine (serve) owns every field that is not an atomic
// or said to be the writer's. The two never write to the socket at the same time: the reader does
// so only when queued is 0, and the writer only while it is not.
type connection struct {
	s       *Server
	conn    net.Conn
	raw     syscall.RawConn // nil where bytes cannot be taken from the socket directly
	ip      string
	peer    wire.Peer
	trusted bool // the listener does not authenticate
	ctx     context.Context
	cancel  context.CancelFunc

	in    intake
	armed time.Time // the read deadline, or zero where it has to be set
	req   wire.Request
	out   wire.Out // replies completed by the reader

	queue   chan answer   // nil while there is no writer
	written chan struct{} // closed when the writer has ended
	hurried chan struct{} // closed when the replies in the queue shall not wait any more
	late    wire.Out      // the writer's: replies that had to wait
	unsent  int64         // the writer's: complete replies in late

	writeArmed time.Time   // the write deadline; whoever may write
	lingerer   lingerer    // nil where a reset cannot be asked for
	fresh      atomic.Bool // an end is a reset; see beginAbruptly
	served     atomic.Bool // a request beyond the opening was answered
	queued     atomic.Int64
	active     atomic.Int64 // when the writer last sent or a mute ended, since the server's start
	mutedUntil atomic.Int64 // since the server's start; 0 is not muted

	end struct { // never held while waiting
		sync.Mutex
		cause error // the first one
	}
}

// answer is a Reply in the queue of the writer.
type answer struct {
	reply            wire.Reply
	received         int64 // since the server's start
	id               int32
	key, version     int16
	ready, announces bool
	holds            int64 // what the reply holds while it waits
}

// requestError is a failure that a request is to blame for.
type requestError struct {
	key, version int16
	err          error
}

func (e *requestError) Error() string {
	return fmt.Sprintf("request with key %d, version %d: %v", e.key, e.version, e.err)
}
func (e *requestError) Unwrap() error { return e.err }

func (s *Server) newConnection(conn net.Conn, cfg *Listener, ip string) *connection {
	c := &connection{s: s, ip: ip, trusted: !cfg.Authenticates}
	c.peer = wire.Peer{
		ID: s.nextID.Add(1), Remote: conn.RemoteAddr(), Local: conn.LocalAddr(), Listener: cfg.Name,
	}
	c.conn, c.raw = s.prepare(conn, cfg)
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.out.Pool, c.late.Pool = &s.outs, &s.outs
	c.out.OnWaiting(c.flushNow)
	c.in.filledAt = time.Now()
	c.in.pull = c.pull
	return c
}

// serve is the life of a connection.
func (c *connection) serve() {
	err := c.handshake()
	for err == nil {
		err = c.serveOne()
	}
	closing := errors.Is(err, errClosing)
	if closing || isPeersFault(err) {
		// What was answered before still goes out.
		if flushErr := c.flush(&c.out); flushErr != nil && closing {
			err, closing = flushErr, false
		}
	}
	if !closing { // otherwise the writer finishes first
		c.fail(err)
	}
	c.stopWriter()
	c.fail(err)
	c.drop()
	c.out.Reset()
	c.s.handler.Disconnected(&c.peer)
	c.s.forget(c)
	c.logEnd()
}

func (c *connection) handshake() error {
	t, ok := c.conn.(*tls.Conn)
	if !ok {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.ctx, c.s.limits.Stall)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// serveOne reads a request and does with it what can be done at once.
func (c *connection) serveOne() error {
	f, err := c.next()
	if err != nil {
		return err
	}
	reply, a, err := c.phaseOne(f)
	c.release(f)
	if err != nil {
		return err
	}
	throttle := c.req.Throttle
	switch {
	case reply == nil:
		c.s.stats.api(a.key).seconds.Observe(c.age(a))
	case a.ready && c.queued.Load() == 0:
		err = c.answer(&c.out, a)
		throttle = max(throttle, c.out.TakeThrottle())
	default:
		err = c.handOver(a)
	}
	if throttle > 0 {
		c.mute(throttle)
	}
	return err
}

// phaseOne parses a frame and runs the handler on it, within the memory that decoding may take.
func (c *connection) phaseOne(f frame) (wire.Reply, answer, error) {
	req := &c.req
	if err := wire.ParseRequestInto(req, f.bytes); err != nil {
		return nil, answer{}, err
	}
	req.ReceivedAt = c.in.filledAt
	fail := func(err error) (wire.Reply, answer, error) {
		return nil, answer{}, &requestError{key: req.Key, version: req.Version, err: err}
	}
	memory := c.s.limits.decoding(req.Key, len(f.bytes))
	if memory > 0 && !c.s.decoding.try(memory) {
		c.s.stats.memoryWaits.Inc()
		// The replies that are complete must not wait for other connections' requests.
		if err := c.flush(&c.out); err != nil {
			return nil, answer{}, err
		}
		if !c.s.decoding.take(c.ctx, c.s.closing, memory) {
			return nil, answer{}, errClosing
		}
	}
	reply, ready, err := c.s.handler.Handle(c.ctx, &c.peer, req)
	if memory > 0 {
		c.s.decoding.give(memory)
	}
	req.Body = nil
	a := answer{
		reply: reply, received: c.s.sinceStart(req.ReceivedAt), id: req.CorrelationID,
		key: req.Key, version: req.Version, ready: ready, announces: req.AnnouncesWait,
		holds: req.HoldsBytes,
	}
	if len(req.ClientID) > keepClientID {
		req.ClientID = ""
	}
	of := c.s.stats.api(a.key)
	of.requests.Inc()
	if err != nil {
		of.errors.Inc()
		return fail(err)
	}
	return reply, a, nil
}

// answer completes a reply into out.
func (c *connection) answer(out *wire.Out, a answer) error {
	out.Begin(a.id, wire.FlexibleResponse(a.key, a.version))
	err := a.reply(c.ctx, out)
	if err == nil {
		_, err = out.End()
	}
	of := c.s.stats.api(a.key)
	if err != nil {
		out.Discard()
		if c.ctx.Err() == nil {
			of.errors.Inc()
		}
		return &requestError{key: a.key, version: a.version, err: err}
	}
	of.seconds.Observe(c.age(a))
	if c.fresh.Load() && !opens(a.key) {
		c.served.Store(true)
	}
	return nil
}

// opens tells whether requests with this key come before the ones that a client has a connection for.
func opens(key int16) bool {
	return key == keyAPIVersions || key == keySaslHandshake || key == keySaslAuthenticate
}

// age is how long ago a request was read, in seconds.
func (c *connection) age(a answer) float64 {
	return time.Duration(c.s.sinceStart(time.Now()) - a.received).Seconds()
}

// flush sends the complete replies in out. A peer that takes too little of them for too long fails
// the connection.
func (c *connection) flush(out *wire.Out) error {
	size := out.Size()
	if size == 0 {
		return nil
	}
	now, patience := time.Now(), wire.Patience(c.s.limits.Stall, size)
	// Setting a deadline is not free, so one is good for half its length.
	if left := c.writeArmed.Sub(now); left < patience/2 || left > 2*patience {
		c.writeArmed = now.Add(patience)
		if err := c.conn.SetWriteDeadline(c.writeArmed); err != nil {
			return fmt.Errorf("set write deadline: %w", err)
		}
	}
	if err := out.Flush(c.conn); err != nil {
		return fmt.Errorf("send %d bytes of replies: %w", size, err)
	}
	if c.served.Load() {
		c.endInOrder()
	}
	c.s.stats.sent.Add(size)
	return nil
}

// handOver queues a reply for the writer, and starts that where there is none. While the queue is
// full it waits, and nothing is read.
func (c *connection) handOver(a answer) error {
	if err := c.flush(&c.out); err != nil { // what was answered goes first
		return err
	}
	if a.holds > 0 && !c.s.waiting.try(a.holds) {
		return c.hurry(a)
	}
	if c.queue == nil {
		// One more is in the writer's hands and one in ours.
		c.queue = make(chan answer, c.s.limits.Unanswered-2)
		c.written, c.hurried = make(chan struct{}), make(chan struct{})
		c.late.HurryOn(c.hurried)
		c.armed = time.Time{} // the deadline shall also end the writer
		queue, written := c.queue, c.written
		c.s.running.Go(func() { c.write(queue, written) })
	}
	c.queued.Add(1)
	c.queue <- a
	return nil
}

// hurry answers a request whose reply would hold more memory than is left for those that wait. The
// ones that wait before it give theirs back first.
func (c *connection) hurry(a answer) error {
	c.s.stats.hurried.Inc()
	if c.queue != nil {
		close(c.hurried)
		c.stopWriter()
	}
	c.out.HurryOn(c.s.always)
	err := c.answer(&c.out, a)
	c.out.HurryOn(nil)
	c.mute(hurriedPause)
	return err
}

// write is the writer: it completes replies in order until the queue is closed. After a failure,
// or once the connection has ended, it drops them.
func (c *connection) write(queue <-chan answer, written chan<- struct{}) {
	defer close(written)
	defer c.late.Reset()
	c.late.OnWaiting(func(*wire.Out) error { return c.flushLate() })
	for a := range queue {
		if c.ctx.Err() == nil {
			if err := c.writeOne(a, len(queue) == 0); err != nil {
				c.fail(err)
				c.late.Reset()
			}
		}
		if a.holds > 0 {
			c.s.waiting.give(a.holds)
		}
	}
}

func (c *connection) writeOne(a answer, last bool) error {
	if !a.ready && !a.announces {
		// It may wait without a word, and what is complete must not wait with it.
		if err := c.flushLate(); err != nil {
			return err
		}
	}
	if err := c.answer(&c.late, a); err != nil {
		return err
	}
	c.unsent++
	if d := c.late.TakeThrottle(); d > 0 {
		defer func() {
			c.mute(d)
			c.wake() // the reader may be waiting for the very next request
		}()
	}
	if last || c.late.Size() >= flushBytes {
		return c.flushLate()
	}
	return nil
}

// flushNow sends what the reader has completed before a reply that could not foresee that it waits.
func (c *connection) flushNow(out *wire.Out) error {
	err := c.flush(out)
	if err != nil {
		c.fail(err)
	}
	return err
}

func (c *connection) flushLate() error {
	if err := c.flush(&c.late); err != nil {
		// The reply that waits must not go on waiting for a peer that is gone.
		c.fail(err)
		return err
	}
	c.active.Store(c.s.sinceStart(time.Now()))
	c.queued.Add(-c.unsent)
	c.unsent = 0
	return nil
}

// stopWriter lets the writer finish its queue and waits for it.
func (c *connection) stopWriter() {
	if c.queue == nil {
		return
	}
	close(c.queue)
	<-c.written
	c.queue, c.written = nil, nil
}

// mute stops the reading of requests for d from now.
func (c *connection) mute(d time.Duration) {
	until := c.s.sinceStart(time.Now().Add(d))
	for {
		old := c.mutedUntil.Load()
		if old >= until || c.mutedUntil.CompareAndSwap(old, until) {
			return
		}
	}
}

// wake makes the reader look up from the socket: at closing, and at mutedUntil.
func (c *connection) wake() {
	// Fails only where the connection is closed, which wakes as well.
	_ = c.conn.SetReadDeadline(time.Unix(1, 0))
}

// fail ends the connection: waits end, and both goroutines find the socket closed. The first cause
// is the one that is logged.
func (c *connection) fail(cause error) {
	c.end.Lock()
	first := c.end.cause == nil
	if first {
		c.end.cause = cause
	}
	c.end.Unlock()
	if !first {
		return
	}
	c.cancel()
	if !errors.Is(cause, errClosing) {
		c.endInOrder()
	}
	// Both goroutines learn of it; there is nothing else to do about an error.
	_ = c.conn.Close()
}

// lingerer is a connection whose end can be a reset, as a net.TCPConn is.
type lingerer interface{ SetLinger(seconds int) error }

// beginAbruptly has the system reset the connection if it ends, before a request beyond its opening was answered, because we
// end, be it by Shutdown or by a kill. Clients take the end of a stream there for a misconfiguration, which they do not try
// again: franz-go, which does not count ApiVersions as an answer, gives the records up that wait for the broker.
func (c *connection) beginAbruptly(conn net.Conn) {
	l, ok := conn.(lingerer)
	if !ok || l.SetLinger(0) != nil { // as it was: an orderly end
		return
	}
	c.lingerer = l
	c.fresh.Store(true)
}

// endInOrder lets what is sent arrive although the connection is closed at once.
func (c *connection) endInOrder() {
	if c.fresh.Load() && c.fresh.Swap(false) {
		_ = c.lingerer.SetLinger(-1) // fails where it is closed
	}
}

// logEnd writes the one line for a connection that did not simply end.
func (c *connection) logEnd() {
	cause := c.end.cause
	attrs := []any{"peer", c.peer.Remote.String(), "listener", c.peer.Listener, "connection", c.peer.ID}
	var req *requestError
	if errors.As(cause, &req) {
		attrs = append(attrs, "key", req.key, "version", req.version, "cause", req.err)
	} else {
		attrs = append(attrs, "cause", cause)
	}
	if isOrdinary(cause) {
		c.s.logger.Debug("connection ended", attrs...)
		return
	}
	c.s.stats.broken.Inc()
	c.s.logger.Warn("connection closed", attrs...)
}

// isOrdinary tells apart the ends that belong to the life of a server.
func isOrdinary(cause error) bool {
	var op *net.OpError
	switch {
	case isPeersFault(cause):
		return false
	case errors.Is(cause, io.EOF), errors.Is(cause, errIdle), errors.Is(cause, errClosing), errors.Is(cause, net.ErrClosed):
		return true
	}
	// A peer that has gone, or was reset; but one that takes nothing is worth a line.
	return errors.As(cause, &op) && !op.Timeout()
}

// isPeersFault tells whether what the peer sent, or what it asked for, is to blame.
func isPeersFault(cause error) bool {
	var req *requestError
	return errors.As(cause, &req) || errors.Is(cause, wire.ErrMalformed) ||
		errors.Is(cause, io.ErrUnexpectedEOF) || errors.Is(cause, errStalled)
}
