package wire

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"sync"
	"time"
)

// ErrClosed is why requests fail on a Client that its owner has closed.
var ErrClosed = errors.New("connection closed by its owner")

// ClientOptions are the limits of a Client. The zero value of each means its default.
type ClientOptions struct {
	// ClientID goes into every request; empty is sent as null.
	ClientID string
	// MaxInFlight bounds the requests sent and not yet answered, and with them the memory for
	// requests not yet written. At the limit Start waits. Default 64.
	MaxInFlight int
	// MaxResponseBytes bounds a response; a longer one breaks the connection. Default 1 GiB.
	MaxResponseBytes int
	// WriteStall is how long the other end may take nothing before the connection counts as
	// broken. Default 30 s.
	WriteStall time.Duration
	// KeepBytes is the largest buffer for requests that is kept for those that follow; there are two. Default 1 MiB.
	KeepBytes int
	// Buffer gives the memory for a response of n bytes, all of which are overwritten. Default: memory of its own for each.
	Buffer func(n int) []byte
}

const (
	defaultInFlight      = 64
	defaultResponseBytes = 1 << 30
	defaultWriteStall    = 30 * time.Second
	clientReadBuffer     = 16 << 10
	defaultKeepBytes     = 1 << 20
)

func (o ClientOptions) withDefaults() ClientOptions {
	if o.MaxInFlight <= 0 {
		o.MaxInFlight = defaultInFlight
	}
	if o.MaxResponseBytes <= 0 {
		o.MaxResponseBytes = defaultResponseBytes
	}
	if o.WriteStall <= 0 {
		o.WriteStall = defaultWriteStall
	}
	if o.KeepBytes <= 0 {
		o.KeepBytes = defaultKeepBytes
	}
	if o.Buffer == nil {
		o.Buffer = unzeroed
	}
	return o
}

// Client is the calling end of a connection: it pipelines requests in the order of the calls and
// matches the responses. Its methods are safe for concurrent use. Once the connection breaks every
// request that waits, and every later one, fails with the cause. Retries, timeouts of requests and
// reconnecting are the caller's.
type Client struct {
	conn    net.Conn
	opts    ClientOptions
	slots   chan struct{} // one for every request in flight
	broken  chan struct{} // closed once mu.err is set
	stopped chan struct{} // closed when the reading goroutine has ended
	pieces  [][]byte      // of a write; whoever has set mu.writing uses it

	mu struct { // never held while writing or waiting
		sync.Mutex
		nextID  int32
		pending map[int32]*Pending
		unsent  outgoing
		spare   outgoing // memory for what comes after unsent
		writing bool     // some caller is sending what was unsent
		err     error
	}
}

// Pending is a request on its way.
type Pending struct {
	client       *Client
	written      chan struct{} // where there are splices: closed when they are no longer needed
	key, version int16
	memory       func(n int) []byte
	done         chan struct{}
	body         []byte
	err          error
}

// NewClient takes over c and starts the goroutine that reads responses. Close ends both.
func NewClient(c net.Conn, opts ClientOptions) *Client {
	opts = opts.withDefaults()
	client := &Client{
		conn: c, opts: opts,
		slots:   make(chan struct{}, opts.MaxInFlight),
		broken:  make(chan struct{}),
		stopped: make(chan struct{}),
	}
	client.mu.pending = map[int32]*Pending{}
	go client.receive()
	return client
}

// Start sends a request; requests leave in the order of the calls to Start and Send. encode
// appends the body to dst and returns it; it runs under a lock and must neither wait nor call the
// Client. Start itself waits while MaxInFlight requests are unanswered, and may write what other
// callers left unsent; ctx bounds only the first.
func (c *Client) Start(ctx context.Context, key, version int16, encode func(dst []byte) []byte) (*Pending, error) {
	return c.startInto(ctx, key, version, encode, c.opts.Buffer)
}

func (c *Client) startInto(ctx context.Context, key, version int16, encode func([]byte) []byte, memory func(int) []byte) (*Pending, error) {
	p := &Pending{client: c, key: key, version: version, memory: memory, done: make(chan struct{})}
	if err := c.enqueue(ctx, key, version, encode, nil, p); err != nil {
		return nil, err
	}
	return p, nil
}

// Send is Start for a request that the broker does not answer (Produce with acks=0).
func (c *Client) Send(ctx context.Context, key, version int16, encode func(dst []byte) []byte) error {
	return c.enqueue(ctx, key, version, encode, nil, nil)
}

// Call is Start and Wait.
func (c *Client) Call(ctx context.Context, key, version int16, encode func(dst []byte) []byte) ([]byte, error) {
	return c.CallInto(ctx, key, version, encode, c.opts.Buffer)
}

// CallInto is Call for a response of n bytes that goes where memory(n) says, which may be memory that is used again and
// again. When CallInto fails the response may come yet: memory may still be called, by another goroutine, and what it
// returned written to.
func (c *Client) CallInto(ctx context.Context, key, version int16, encode func([]byte) []byte, memory func(n int) []byte) ([]byte, error) {
	p, err := c.startInto(ctx, key, version, encode, memory)
	if err != nil {
		return nil, err
	}
	return p.Wait(ctx)
}

// Done is closed when the response has arrived or the request has failed.
func (p *Pending) Done() <-chan struct{} { return p.done }

// Wait gives the body of the response, which then belongs to the caller. When ctx ends first the
// request stays in flight and its response is dropped when it comes.
func (p *Pending) Wait(ctx context.Context) ([]byte, error) {
	defer p.awaitWritten(ctx)
	select {
	case <-p.done:
		return p.body, p.err
	default:
	}
	select {
	case <-p.done:
		return p.body, p.err
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for the response to a request with key %d, version %d: %w",
			p.key, p.version, context.Cause(ctx))
	}
}

// Broken is closed when the connection can no longer be used; Err then says why.
func (c *Client) Broken() <-chan struct{} { return c.broken }

// Err is nil as long as the connection works, and then the cause of its end.
func (c *Client) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err
}

// InFlight is the number of requests that wait for their response.
func (c *Client) InFlight() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.mu.pending)
}

// LocalAddr and RemoteAddr are those of the connection.
func (c *Client) LocalAddr() net.Addr  { return c.conn.LocalAddr() }
func (c *Client) RemoteAddr() net.Addr { return c.conn.RemoteAddr() }

// Close ends the connection, fails what is pending with ErrClosed, and waits for the reading
// goroutine.
func (c *Client) Close() error {
	c.fail(ErrClosed)
	<-c.stopped
	return nil
}

// enqueue frames a request, by one of its two encoders, and sends it where nobody else does.
func (c *Client) enqueue(ctx context.Context, key, version int16, encode func([]byte) []byte, splicing func([]byte, *Splices) []byte, p *Pending) error {
	select {
	case c.slots <- struct{}{}:
	default:
		select {
		case c.slots <- struct{}{}:
		case <-c.broken:
		case <-ctx.Done():
			return fmt.Errorf("wait until fewer than %d requests are in flight: %w", c.opts.MaxInFlight, context.Cause(ctx))
		}
	}
	c.mu.Lock()
	if c.mu.err != nil {
		err := c.mu.err
		c.mu.Unlock()
		return fmt.Errorf("request with key %d, version %d: %w", key, version, err)
	}
	if err := c.frame(key, version, encode, splicing, p); err != nil {
		c.mu.Unlock()
		<-c.slots
		return err
	}
	mine := !c.mu.writing
	c.mu.writing = true
	c.mu.Unlock()
	if mine {
		c.sendUnsent()
	}
	return nil
}

// frame appends a request to what is unsent. The caller holds mu.
func (c *Client) frame(key, version int16, encode func([]byte) []byte, splicing func([]byte, *Splices) []byte, p *Pending) error {
	if len(c.opts.ClientID) > math.MaxInt16 {
		return fmt.Errorf("client id of %d bytes: %w", len(c.opts.ClientID), ErrMalformed)
	}
	id := c.mu.nextID
	out := &c.mu.unsent
	start, spliced, splicedBytes := len(out.buf), len(out.splices.parts), out.splices.bytes
	buf := append(out.buf, 0, 0, 0, 0)
	buf = appendRequestHeader(buf, Header{
		Key: key, Version: version, CorrelationID: id,
		ClientID: c.opts.ClientID, ClientIDNull: c.opts.ClientID == "",
	})
	if splicing != nil {
		buf = splicing(buf, &out.splices)
	} else {
		buf = encode(buf)
	}
	size := len(buf) - start - LengthBytes + out.splices.bytes - splicedBytes
	if size > math.MaxInt32 {
		out.splices.cut(spliced, splicedBytes)
		return fmt.Errorf("request with key %d, version %d of %d bytes: %w", key, version, size, ErrMalformed)
	}
	binary.BigEndian.PutUint32(buf[start:], uint32(size))
	out.buf = buf
	c.mu.nextID = (id + 1) & math.MaxInt32
	if p == nil {
		out.oneWay++
		return nil
	}
	c.mu.pending[id] = p
	if len(out.splices.parts) > spliced {
		p.written = make(chan struct{})
		out.unwritten = append(out.unwritten, p)
	}
	return nil
}

// sendUnsent writes until nothing is unsent. The one caller that found nobody writing runs it, for
// everyone who comes meanwhile: order is kept, a burst leaves in one write, and no goroutine has
// to be woken.
func (c *Client) sendUnsent() {
	for {
		c.mu.Lock()
		if c.mu.err != nil || len(c.mu.unsent.buf) == 0 {
			c.mu.writing = false
			c.mu.Unlock()
			return
		}
		out := c.mu.unsent
		c.mu.unsent, c.mu.spare = c.mu.spare, outgoing{}
		c.mu.Unlock()

		err := c.write(&out)
		out.written()
		for range out.oneWay {
			<-c.slots
		}
		if err != nil {
			c.fail(fmt.Errorf("send to %v: %w", c.conn.RemoteAddr(), err))
		}
		c.mu.Lock()
		c.mu.spare = out.emptied(c.opts.KeepBytes)
		c.mu.Unlock()
	}
}

func (c *Client) write(out *outgoing) error {
	deadline := time.Now().Add(Patience(c.opts.WriteStall, int64(len(out.buf)+out.splices.bytes)))
	if err := c.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	if out.splices.bytes == 0 {
		_, err := c.conn.Write(out.buf)
		return err
	}
	c.pieces = out.splices.Pieces(c.pieces[:0], out.buf)
	left := net.Buffers(c.pieces)
	var err error
	if w, ok := c.conn.(BuffersWriter); ok {
		_, err = w.WriteBuffers(&left)
	} else {
		_, err = left.WriteTo(c.conn) // in one write where the connection is TCP alone
	}
	clear(c.pieces)
	return err
}

// receive hands responses to those who wait for them until the connection breaks.
func (c *Client) receive() {
	defer close(c.stopped)
	r := bufio.NewReaderSize(c.conn, clientReadBuffer)
	for {
		if err := c.receiveOne(r); err != nil {
			c.fail(fmt.Errorf("receive from %v: %w", c.conn.RemoteAddr(), err))
			return
		}
	}
}

func (c *Client) receiveOne(r *bufio.Reader) error {
	var head [LengthBytes + 4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := int(int32(binary.BigEndian.Uint32(head[:])))
	id := int32(binary.BigEndian.Uint32(head[LengthBytes:]))
	if size < 4 || size > c.opts.MaxResponseBytes {
		return fmt.Errorf("response of %d bytes, at most %d expected: %w", size, c.opts.MaxResponseBytes, ErrMalformed)
	}
	c.mu.Lock()
	p := c.mu.pending[id]
	c.mu.Unlock()
	if p == nil {
		return fmt.Errorf("response with correlation id %d, which no request has: %w", id, ErrMalformed)
	}
	body := p.memory(size - 4)[:size-4]
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if FlexibleResponse(p.key, p.version) {
		var err error
		if body, err = skipTags(body); err != nil {
			return fmt.Errorf("header of a response to key %d, version %d: %w", p.key, p.version, err)
		}
	}
	c.mu.Lock()
	_, waits := c.mu.pending[id]
	delete(c.mu.pending, id)
	c.mu.Unlock()
	if waits { // otherwise fail has ended it
		p.body = body
		close(p.done)
		<-c.slots
	}
	return nil
}

// fail ends the connection once; the first cause stays.
func (c *Client) fail(cause error) {
	c.mu.Lock()
	if c.mu.err != nil {
		c.mu.Unlock()
		return
	}
	c.mu.err = cause
	pending, unsent := c.mu.pending, c.mu.unsent
	c.mu.pending = map[int32]*Pending{}
	c.mu.unsent, c.mu.spare = outgoing{}, outgoing{}
	c.mu.Unlock()
	close(c.broken)
	// Whoever writes or reads returns; its error is a consequence and not the cause.
	_ = c.conn.Close()
	unsent.written()
	for _, p := range pending {
		p.err = cause
		close(p.done)
	}
}
