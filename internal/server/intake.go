package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"sync"
	"time"

	"barnabas/internal/wire"
)

const (
	// chunkBytes is how much is read at once: bursts of small requests, and most of those of one
	// partition.
	chunkBytes = 32 << 10
	// headBytes is what must have arrived of a frame to judge it: length, key and version.
	headBytes = wire.LengthBytes + wire.HeadBytes
)

type chunk struct{ b [chunkBytes]byte }

// intake holds what has been read of a connection and not yet consumed: a chunk while a burst is
// worked off, or a few bytes while the head of a request is incomplete, and otherwise nothing.
type intake struct {
	chunk    *chunk
	from, to int // in chunk

	head   [headBytes]byte // while chunk is nil
	inHead int
	since  time.Time // when the first byte of an incomplete head came; zero at a frame's boundary

	filledAt time.Time // when bytes last came

	pull    func(fd uintptr) bool // takes what a socket has, for connection.raw
	pulled  int
	pullErr error
}

// frame is one request's bytes without its length, in the intake's chunk or in memory of its own.
type frame struct {
	bytes    []byte
	own      *frameMemory // nil for bytes in the chunk
	arriving int64        // taken from the server's budget
}

// next gives the next frame. Before it waits for the peer or for memory it sends the replies that
// are complete.
func (c *connection) next() (frame, error) {
	if err := c.pause(); err != nil {
		return frame{}, err
	}
	if c.out.Size() >= flushBytes {
		if err := c.flush(&c.out); err != nil {
			return frame{}, err
		}
	}
	for {
		buffered := c.in.buffered()
		if len(buffered) >= wire.LengthBytes {
			size := int64(int32(binary.BigEndian.Uint32(buffered)))
			if size < wire.MinRequestBytes {
				return frame{}, fmt.Errorf("request of %d bytes: %w", size, wire.ErrMalformed)
			}
			if len(buffered) >= headBytes {
				return c.judged(buffered, size)
			}
		}
		if err := c.flush(&c.out); err != nil {
			return frame{}, err
		}
		if err := c.fill(); err != nil {
			return frame{}, err
		}
	}
}

// judged gives the frame whose head is buffered, if it may be as long as it says.
func (c *connection) judged(buffered []byte, size int64) (frame, error) {
	c.in.since = time.Time{}
	key, version := wire.PeekRequest(buffered[wire.LengthBytes:])
	if err := c.s.limits.frame(key, size, c.trusted || c.peer.Authenticated); err != nil {
		return frame{}, &requestError{key: key, version: version, err: err}
	}
	end := wire.LengthBytes + size
	if int64(len(buffered)) < end {
		return c.arrive(size)
	}
	c.in.from += int(end)
	return frame{bytes: buffered[wire.LengthBytes:end]}, nil
}

// arrive reads the rest of a frame into memory of its own, once there is some for it.
func (c *connection) arrive(size int64) (frame, error) {
	if err := c.flush(&c.out); err != nil {
		return frame{}, err
	}
	if !c.s.arriving.try(size) {
		c.s.stats.memoryWaits.Inc()
		if !c.s.arriving.take(c.ctx, c.s.closing, size) {
			return frame{}, errClosing
		}
	}
	f := frame{own: c.s.frames.get(int(min(size, largestPooled))), arriving: size}
	have := copy(f.own.b[:min(size, int64(len(f.own.b)))], c.in.buffered()[wire.LengthBytes:])
	c.drop()
	if err := c.await(f.own, have, int(size)); err != nil {
		c.release(f)
		return frame{}, err
	}
	f.bytes = f.own.b[:size]
	c.in.filledAt = time.Now()
	return f, nil
}

// await reads the bytes of a frame from have on. Memory that was not there yet grows with what arrives, so that
// announcing much does not yet cost us much.
func (c *connection) await(own *frameMemory, have, size int) error {
	deadline := time.Now().Add(wire.Patience(c.s.limits.Stall, int64(size)))
	for have < size {
		if have == len(own.b) {
			c.s.frames.grow(own, size)
		}
		if err := c.arm(deadline); err != nil {
			return err
		}
		if c.s.isClosing() { // looked up after arming: the wake may have come before
			return errClosing
		}
		n, err := c.conn.Read(own.b[have:min(len(own.b), size)])
		have += n
		c.s.stats.received.Add(int64(n))
		wake := errors.Is(err, os.ErrDeadlineExceeded) && time.Now().Before(deadline)
		if err != nil && !wake && have < size {
			return partly(err, int64(have), int64(size))
		}
	}
	return nil
}

// partly says why a request arrived in part only.
func partly(err error, have, size int64) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%d of %d bytes have arrived: %w", have, size, errStalled)
	}
	return fmt.Errorf("%d of %d bytes have arrived (%w): %w", have, size, err, io.ErrUnexpectedEOF)
}

// release gives a frame's memory back.
func (c *connection) release(f frame) {
	if f.own == nil {
		return
	}
	c.s.frames.put(f.own)
	c.s.arriving.give(f.arriving)
}

// fill waits for bytes beyond an incomplete head, holding nothing but that meanwhile. It comes
// back with more, or with why there will be none.
func (c *connection) fill() error {
	c.stash()
	for {
		if err := c.pause(); err != nil {
			return err
		}
		// What a large request left may lie beyond the idle time.
		if c.armed.IsZero() || c.armed.After(c.in.filledAt.Add(c.s.limits.Idle)) {
			if err := c.arm(c.quietUntil()); err != nil {
				return err
			}
			// Whoever closes or mutes wakes us by the deadline just overwritten, after saying so:
			// look again.
			if c.s.isClosing() || c.mutedUntil.Load() != 0 {
				continue
			}
		}
		n, err := c.read()
		if n > 0 {
			c.in.filledAt = time.Now()
			c.s.stats.received.Add(int64(n))
			return nil
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			if c.in.inHead > 0 {
				return partly(err, int64(c.in.inHead), headBytes)
			}
			return fmt.Errorf("read: %w", err)
		}
		c.armed = time.Time{}
		if err := c.quiet(time.Now()); err != nil {
			return err
		}
	}
}

// read takes what the socket has, into a chunk. On a socket of the system's own no memory is held
// until there is something; elsewhere the head of a request is awaited, and then a chunk is.
func (c *connection) read() (int, error) {
	if c.raw != nil {
		c.in.pulled, c.in.pullErr = 0, nil
		if err := c.raw.Read(c.in.pull); err != nil {
			return 0, err
		}
		return c.in.pulled, c.in.pullErr
	}
	n, err := c.conn.Read(c.in.head[c.in.inHead:])
	c.in.inHead += n
	if n > 0 && c.in.since.IsZero() {
		c.in.since = time.Now()
	}
	if c.in.inHead < headBytes {
		c.armed = time.Time{} // the rest of the head is awaited less patiently
		return n, err
	}
	return n + c.readOn(), nil
}

// readOn reads what follows the head of a request into a chunk, so that a burst is seen as one. A
// failure shows again where the rest is needed.
func (c *connection) readOn() int {
	if c.arm(c.in.since.Add(c.s.limits.Stall)) != nil || c.s.isClosing() {
		return 0
	}
	into := c.chunk()
	n, _ := c.conn.Read(into.b[headBytes:])
	if n == 0 {
		c.s.chunks.Put(into)
		return 0
	}
	copy(into.b[:], c.in.head[:])
	c.in.hold(into, headBytes+n)
	return n
}

// quietUntil is when to look up from the socket although nothing came.
func (c *connection) quietUntil() time.Time {
	if !c.in.since.IsZero() {
		return c.in.since.Add(c.s.limits.Stall)
	}
	until := c.lastActive().Add(c.s.limits.Idle)
	if now := time.Now(); c.queue != nil {
		if end := c.lastActive().Add(writerIdle); end.Before(until) {
			until = end
		}
		if !until.After(now) { // replies wait, and that is not idleness
			until = now.Add(writerIdle)
		}
	}
	return until
}

// quiet decides what a deadline that has passed means: nothing, where it was a wake.
func (c *connection) quiet(now time.Time) error {
	if !c.in.since.IsZero() {
		if now.Sub(c.in.since) >= c.s.limits.Stall {
			return partly(os.ErrDeadlineExceeded, int64(c.in.inHead), headBytes)
		}
		return nil
	}
	if c.queued.Load() > 0 {
		return nil
	}
	idle := now.Sub(c.lastActive())
	if idle >= c.s.limits.Idle {
		return errIdle
	}
	if idle >= writerIdle {
		c.stopWriter()
	}
	return nil
}

// lastActive is when the connection last had something to do.
func (c *connection) lastActive() time.Time {
	if at := c.s.started.Add(time.Duration(c.active.Load())); at.After(c.in.filledAt) {
		return at
	}
	return c.in.filledAt
}

// pause waits as long as the connection is muted, and tells when the server closes.
func (c *connection) pause() error {
	if c.s.isClosing() {
		return errClosing
	}
	for {
		until := c.mutedUntil.Load()
		if until == 0 {
			return nil
		}
		now := c.s.sinceStart(time.Now())
		left := time.Duration(until - now)
		if left <= 0 {
			c.mutedUntil.CompareAndSwap(until, 0)
			c.active.Store(now)   // being muted is not being idle
			c.armed = time.Time{} // a wake may have spoilt it
			continue
		}
		if err := c.flush(&c.out); err != nil { // the answer is not delayed
			return err
		}
		t := time.NewTimer(left)
		select {
		case <-t.C:
		case <-c.ctx.Done():
			t.Stop()
			return fmt.Errorf("muted: %w", net.ErrClosed)
		case <-c.s.closing:
			t.Stop()
			return errClosing
		}
	}
}

func (c *connection) arm(deadline time.Time) error {
	c.armed = deadline
	if err := c.conn.SetReadDeadline(deadline); err != nil {
		return fmt.Errorf("set read deadline: %w", err)
	}
	return nil
}

func (c *connection) chunk() *chunk {
	if k, ok := c.s.chunks.Get().(*chunk); ok {
		return k
	}
	return new(chunk)
}

// stash keeps the few bytes of an incomplete head and gives the chunk back.
func (c *connection) stash() {
	if c.in.chunk == nil {
		return
	}
	n := copy(c.in.head[:], c.in.buffered())
	c.drop()
	c.in.inHead = n
	if n > 0 && c.in.since.IsZero() {
		c.in.since = c.in.filledAt
	}
}

// drop forgets what is buffered and gives the chunk back.
func (c *connection) drop() {
	if c.in.chunk != nil {
		c.s.chunks.Put(c.in.chunk)
		c.in.chunk, c.in.from, c.in.to = nil, 0, 0
	}
	c.in.inHead = 0
}

// buffered is what has been read and not consumed.
func (in *intake) buffered() []byte {
	if in.chunk != nil {
		return in.chunk.b[in.from:in.to]
	}
	return in.head[:in.inHead]
}

// hold continues with a chunk that has n bytes.
func (in *intake) hold(from *chunk, n int) {
	in.chunk, in.from, in.to, in.inHead = from, 0, n, 0
}

const (
	// The classes of frame memory, each twice the one before. Frames beyond the last are rare, and their memory is made
	// as they come.
	smallestFrameLog2 = 14
	smallestFrame     = 1 << smallestFrameLog2
	frameClasses      = 12
	largestPooled     = smallestFrame << (frameClasses - 1)
	// largestMade is the most memory that is made for a frame before its bytes have come.
	largestMade = 4 << 20
)

// framePool lends memory of up to largestPooled for frames that do not arrive at once. The zero value is ready.
type framePool struct{ classes [frameClasses]sync.Pool }

type frameMemory struct{ b []byte }

// get lends memory for n bytes, or, where there is none of that size, less: see grow.
func (p *framePool) get(n int) *frameMemory {
	class := frameClass(n)
	if m, ok := p.classes[class].Get().(*frameMemory); ok {
		return m
	}
	if n > largestMade {
		return p.get(largestMade)
	}
	return &frameMemory{make([]byte, smallestFrame<<class)}
}

// grow doubles memory that is full, for a frame of size bytes.
func (p *framePool) grow(m *frameMemory, size int) {
	full := frameMemory{m.b}
	n := 2 * len(full.b)
	if n > largestPooled {
		m.b = make([]byte, min(n, size))
	} else if larger, ok := p.classes[frameClass(n)].Get().(*frameMemory); ok {
		m.b = larger.b
	} else {
		m.b = make([]byte, n)
	}
	copy(m.b, full.b)
	p.put(&full)
}

func (p *framePool) put(m *frameMemory) {
	if n := len(m.b); n <= largestPooled && n&(n-1) == 0 {
		p.classes[frameClass(len(m.b))].Put(m)
	}
}

// frameClass is the smallest class that holds n bytes.
func frameClass(n int) int { return max(bits.Len(uint(n-1))-smallestFrameLog2, 0) }
