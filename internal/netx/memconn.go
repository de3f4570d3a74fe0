package netx

import (
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pair is a connection: what its two ends share.
type pair struct {
	mu sync.Mutex // held for copying only, never while waiting
}

// memConn is one end of a connection.
type memConn struct {
	m             *Mem
	pair          *pair
	name          string // of this end, for a fixed order among all
	host          string
	local, remote memAddr
	peer          *memConn
	in, out       *stream // out is the peer's in

	// Guarded by the pair's lock.
	closed                      bool
	abrupt                      bool      // SetLinger(0)
	paused                      bool      // the process of this end stands still
	failAt                      time.Time // when this end learns of failErr; zero: never
	failErr                     error
	readDeadline, writeDeadline time.Time
	readable, writable          signal
}

// stream is what one end writes and the other reads, guarded by the pair's lock.
type stream struct {
	dice           *rand.Rand
	delay          delay
	writer, reader *memConn
	queue          []segment
	unacked        int       // bytes written that the writer does not know to have been read
	heldAcks       int       // those of them that were read while the way back was cut
	last           time.Time // when the last segment arrives
	cutAt          time.Time // zero: not cut
	ended          bool      // the writer will write no more
	abandoned      bool      // the reader has closed: what arrives is answered by a reset
}

// segment arrives as a whole. One without data is the end of the stream.
type segment struct {
	at   time.Time
	data []byte
}

func newStream(seed uint64, name string, d delay) *stream {
	return &stream{dice: newDice(seed, name), delay: d}
}

func connect(m *Mem, d *dialling, local memAddr) (near *memConn) {
	p := &pair{}
	near = &memConn{m: m, pair: p, name: d.name + "a", host: d.h.name, local: local, remote: d.addr, in: d.back, out: d.there}
	far := &memConn{m: m, pair: p, name: d.name + "b", host: d.host, local: d.addr, remote: local, in: d.there, out: d.back}
	near.peer, far.peer = far, near
	d.there.writer, d.there.reader = near, far
	d.back.writer, d.back.reader = far, near
	return near
}

func (c *memConn) way() way { return way{c.host, c.peer.host} }

// travel draws how long the next thing is on its way.
func (s *stream) travel() time.Duration {
	return s.delay.latency + time.Duration(s.dice.Int64N(int64(s.delay.jitter+tieBreak)))
}

// arrival draws when what is sent now arrives: after all that was sent before.
func (s *stream) arrival(now time.Time) time.Time {
	at := now.Add(s.travel())
	if !at.After(s.last) {
		at = s.last.Add(1)
	}
	s.last = at
	return at
}

func (s *stream) isCut() bool { return !s.cutAt.IsZero() }

// send queues data that the window has room for, now and then in two pieces: nobody may count on
// reading what was written in one.
func (s *stream) send(data []byte, now time.Time) {
	s.unacked += len(data)
	if len(data) > 1 && s.dice.IntN(8) == 0 {
		cut := 1 + s.dice.IntN(len(data)-1)
		s.queue = append(s.queue, segment{s.arrival(now), append([]byte(nil), data[:cut]...)})
		data = data[cut:]
	}
	s.queue = append(s.queue, segment{s.arrival(now), append([]byte(nil), data...)})
	s.reader.readable.wake()
}

// end queues the end of the stream.
func (s *stream) end(now time.Time) {
	if s.ended {
		return
	}
	s.ended = true
	s.queue = append(s.queue, segment{at: s.arrival(now)})
	s.reader.readable.wake()
}

// fail lets the end learn of err at the given time, unless it learns of something sooner.
func (c *memConn) fail(at time.Time, err error) {
	if c.failAt.IsZero() || at.Before(c.failAt) {
		c.failAt, c.failErr = at, err
	}
	c.readable.wake()
	c.writable.wake()
}

// failed is what the end has learnt by now.
func (c *memConn) failed(now time.Time) error {
	if c.failAt.IsZero() || now.Before(c.failAt) {
		return nil
	}
	return c.failErr
}

// setCut stops or heals one direction.
func (s *stream) setCut(cut bool, now time.Time) {
	switch {
	case cut && !s.isCut():
		s.cutAt = now
		for _, c := range []*memConn{s.writer, s.reader} {
			if c.failAt.IsZero() {
				c.fail(now.Add(silentFor+s.travel()), syscall.ETIMEDOUT)
			}
		}
	case !cut && s.isCut():
		s.heal(now)
	}
}

func (s *stream) heal(now time.Time) {
	wait := time.Duration(s.dice.Int64N(int64(min(now.Sub(s.cutAt), retransmitMax) + tieBreak)))
	s.last = now.Add(wait)
	for i := range s.queue {
		if seg := &s.queue[i]; seg.at.After(s.cutAt) {
			seg.at = s.arrival(s.last)
		}
	}
	s.cutAt = time.Time{}
	s.reader.readable.wake()
	back := s.reader.out
	back.unacked -= back.heldAcks // their acknowledgements come this way
	back.heldAcks = 0
	back.writer.writable.wake()
	if back.isCut() {
		return
	}
	for _, st := range []*stream{s, back} {
		if c := st.writer; errors.Is(c.failErr, syscall.ETIMEDOUT) && c.failed(now) == nil {
			c.failAt, c.failErr = time.Time{}, nil
			c.readable.wake() // who sleeps until then has something later to wait for
		}
		if !st.abandoned {
			continue
		}
		// The writer has not heard that nobody reads any more. What it has sent tells it now;
		// otherwise it asks when it has been silent for long enough.
		if st.unacked > 0 {
			st.writer.fail(now.Add(wait+st.travel()+st.writer.in.travel()), syscall.ECONNRESET)
		} else {
			st.writer.fail(now.Add(keepAliveIdle+st.travel()), syscall.ECONNRESET)
		}
	}
}

// Read implements net.Conn. What arrived before a reset can still be read.
func (c *memConn) Read(p []byte) (int, error) {
	for {
		n, changed, until, err := c.tryRead(p)
		if errors.Is(err, io.EOF) {
			return 0, io.EOF
		}
		if err != nil {
			return 0, c.wrap("read", err)
		}
		if changed == nil {
			return n, nil
		}
		waitFor(changed, until)
	}
}

func (c *memConn) tryRead(p []byte) (n int, changed <-chan struct{}, until time.Time, err error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	now := time.Now()
	switch {
	case c.closed:
		return 0, nil, until, net.ErrClosed
	case c.paused:
		return 0, c.readable.wait(), until, nil
	case passed(c.readDeadline, now):
		return 0, nil, until, os.ErrDeadlineExceeded
	case len(p) == 0:
		return 0, nil, until, nil
	}
	n, ended := c.take(p, now)
	switch {
	case n > 0:
		return n, nil, until, nil
	case ended:
		return 0, nil, until, io.EOF
	}
	if err := c.failed(now); err != nil {
		return 0, nil, until, err
	}
	until = earliest(c.readDeadline, c.failAt)
	if len(c.in.queue) > 0 && c.reaches(c.in.queue[0]) {
		until = earliest(until, c.in.queue[0].at)
	}
	return 0, c.readable.wait(), until, nil
}

// reaches tells whether a segment arrives if nothing changes.
func (c *memConn) reaches(s segment) bool {
	return (!c.in.isCut() || !s.at.After(c.in.cutAt)) && (c.failAt.IsZero() || !s.at.After(c.failAt))
}

// take reads what has arrived.
func (c *memConn) take(p []byte, now time.Time) (n int, ended bool) {
	in := c.in
	for n < len(p) && len(in.queue) > 0 {
		head := &in.queue[0]
		if head.at.After(now) || !c.reaches(*head) {
			break
		}
		if head.data == nil {
			ended = true // and stays, for the next Read
			break
		}
		got := copy(p[n:], head.data)
		n += got
		if head.data = head.data[got:]; len(head.data) == 0 {
			in.queue = in.queue[1:]
		}
	}
	if c.out.isCut() {
		in.heldAcks += n
	} else if n > 0 {
		in.unacked -= n
		in.writer.writable.wake()
	}
	return n, ended
}

// Write implements net.Conn.
func (c *memConn) Write(p []byte) (wrote int, err error) {
	for {
		n, changed, until, err := c.tryWrite(p[wrote:])
		wrote += n
		if err != nil {
			return wrote, c.wrap("write", err)
		}
		if wrote == len(p) {
			return wrote, nil
		}
		if changed != nil {
			waitFor(changed, until)
		}
	}
}

func (c *memConn) tryWrite(p []byte) (n int, changed <-chan struct{}, until time.Time, err error) {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	now := time.Now()
	out := c.out
	switch {
	case c.closed:
		return 0, nil, until, net.ErrClosed
	case c.paused:
		return 0, c.writable.wait(), until, nil
	case passed(c.writeDeadline, now):
		return 0, nil, until, os.ErrDeadlineExceeded
	case out.ended:
		return 0, nil, until, syscall.EPIPE
	}
	if err := c.failed(now); err != nil {
		return 0, nil, until, err
	}
	n = min(len(p), windowBytes-out.unacked)
	switch {
	case len(p) == 0:
		return 0, nil, until, nil
	case n <= 0:
		return 0, c.writable.wait(), earliest(c.writeDeadline, c.failAt), nil
	case !out.abandoned:
		out.send(p[:n], now)
	default:
		// In vain, but nobody can say so before it has been there and back. The window fills
		// meanwhile: a writer that never waited would keep fake time from passing.
		out.unacked += n
		if !out.isCut() && !c.in.isCut() {
			c.fail(out.arrival(now).Add(c.in.travel()), syscall.ECONNRESET)
		}
	}
	return n, nil, until, nil
}

// CloseWrite ends what this end writes; it can still read.
func (c *memConn) CloseWrite() error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.closed {
		return c.wrap("close", net.ErrClosed)
	}
	c.out.end(time.Now())
	return nil
}

// SetLinger is what a net.TCPConn has: with 0, Close is a reset. Other values mean nothing here.
func (c *memConn) SetLinger(seconds int) error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.closed {
		return c.wrap("set", net.ErrClosed)
	}
	c.abrupt = seconds == 0
	return nil
}

// Close implements net.Conn. What was written still arrives, and then the end of the stream, or a
// reset if something was left unread.
func (c *memConn) Close() error {
	if err := c.shut(); err != nil {
		return c.wrap("close", err)
	}
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.m.forget(c)
	return nil
}

func (c *memConn) shut() error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.closed {
		return net.ErrClosed
	}
	now := time.Now()
	if c.abrupt || len(c.in.queue) > 0 && c.in.queue[0].data != nil {
		c.abort(now)
		return nil
	}
	c.leave()
	c.out.end(now)
	return nil
}

// leave closes this end without a word to the other.
func (c *memConn) leave() {
	c.closed = true
	c.in.abandoned = true
	c.in.queue = nil
	c.readable.wake()
	c.writable.wake()
}

// abort closes this end with a reset. Across a cut the other does not hear of it.
func (c *memConn) abort(now time.Time) {
	if c.closed {
		return
	}
	c.leave()
	if !c.out.isCut() {
		c.peer.fail(c.out.arrival(now), syscall.ECONNRESET)
	}
}

func (c *memConn) LocalAddr() net.Addr  { return c.local }
func (c *memConn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *memConn) SetDeadline(t time.Time) error { return c.setDeadlines(&t, &t) }

// SetReadDeadline implements net.Conn.
func (c *memConn) SetReadDeadline(t time.Time) error { return c.setDeadlines(&t, nil) }

// SetWriteDeadline implements net.Conn.
func (c *memConn) SetWriteDeadline(t time.Time) error { return c.setDeadlines(nil, &t) }

func (c *memConn) setDeadlines(read, write *time.Time) error {
	c.pair.mu.Lock()
	defer c.pair.mu.Unlock()
	if c.closed {
		return c.wrap("set deadline", net.ErrClosed)
	}
	if read != nil {
		c.readDeadline = *read
		c.readable.wake()
	}
	if write != nil {
		c.writeDeadline = *write
		c.writable.wake()
	}
	return nil
}

func (c *memConn) wrap(op string, err error) error {
	return &net.OpError{Op: op, Net: "mem", Source: c.local, Addr: c.remote, Err: err}
}

func passed(deadline, now time.Time) bool { return !deadline.IsZero() && !now.Before(deadline) }

// earliest of two times, of which zero means never.
func earliest(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// waitFor returns when something has changed or the time has come; who calls looks again.
func waitFor(changed <-chan struct{}, until time.Time) {
	if until.IsZero() {
		<-changed
		return
	}
	t := time.NewTimer(time.Until(until))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
}
