package peer

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"barnabas/internal/netx"
	"barnabas/internal/wire"
)

const (
	readBuffer = 32 << 10
	// oneWay is the version of a frame that nobody answers.
	oneWay int16 = 1
	// keepFrameBytes is the largest frame whose memory the connection keeps for the next.
	keepFrameBytes = 64 << 10
)

// accept takes connections until the listener is closed.
func (p *Peers) accept() {
	slots := make(chan struct{}, maxConnections)
	for {
		select {
		case slots <- struct{}{}:
		case <-p.ctx.Done():
			return
		}
		c, err := p.acceptOne()
		if err != nil {
			return
		}
		p.running.Go(func() {
			defer func() { <-slots }()
			p.serve(c)
		})
	}
}

// acceptOne waits for a connection. It gives up only where the listener is closed: out of descriptors, or a
// connection that ended before it was taken, are no reason to be deaf from then on.
func (p *Peers) acceptOne() (net.Conn, error) {
	for pause := firstPause; ; pause = min(2*pause, longestPause) {
		c, err := p.o.Listener.Accept()
		switch {
		case err == nil:
			return c, nil
		case p.ctx.Err() != nil:
			return nil, err
		case errors.Is(err, net.ErrClosed):
			p.log.Error("the internal listener was closed", "err", err)
			return nil, err
		}
		p.log.Warn("the internal listener does not accept", "err", err, "retry", pause)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			timer.Stop()
			return nil, err
		}
	}
}

// inbound is a connection that another node has made.
type inbound struct {
	p       *Peers
	conn    net.Conn
	ctx     context.Context // ends with the connection
	with    agreed
	cluster string        // this node's when with was agreed
	writer  chan struct{} // one slot, held while writing
	atWork  chan struct{} // one for each reply that waits
	works   sync.WaitGroup
	frame   []byte
}

func (p *Peers) serve(raw net.Conn) {
	ctx, cancel := context.WithCancel(p.ctx)
	defer cancel()
	// Whatever reads or writes ends when the node does.
	defer context.AfterFunc(ctx, func() { _ = raw.Close() })()
	defer func() { _ = raw.Close() }()
	netx.Eager(raw)
	self := p.introduction(p.o.Self.ID)
	conn, with, err := p.receive(raw, self)
	if err != nil {
		if ctx.Err() == nil {
			p.warnStranger(raw.RemoteAddr(), err)
		}
		return
	}
	in := &inbound{
		p: p, conn: conn, ctx: ctx, with: with, cluster: self.cluster,
		writer: make(chan struct{}, 1), atWork: make(chan struct{}, maxUnanswered),
	}
	if !p.admit(in, cancel) {
		return
	}
	p.hurry(with.node.ID)
	err = in.read()
	cancel()
	in.works.Wait()
	p.dismiss(in)
	if p.ctx.Err() == nil && !errors.Is(err, io.EOF) {
		p.log.Debug("a connection from another node has ended", "node", with.node.ID, "err", err)
	}
}

// warnStranger reports who was refused: the first time by a host for a reason, for it may try again every
// second.
func (p *Peers) warnStranger(from net.Addr, err error) {
	host, _, splitErr := net.SplitHostPort(from.String())
	if splitErr != nil {
		host = from.String()
	}
	level := slog.LevelWarn
	p.mu.Lock()
	if key := host + " " + reason(err); p.mu.strangers[key] {
		level = slog.LevelDebug
	} else {
		if len(p.mu.strangers) >= maxStrangers {
			clear(p.mu.strangers)
		}
		p.mu.strangers[key] = true
	}
	p.mu.Unlock()
	p.log.Log(p.ctx, level, "a connection to the internal listener is refused", "from", from.String(), "err", err)
}

// reason is what a refusal is remembered by: not its words, in which a stranger may write what it likes.
func reason(err error) string {
	for _, of := range lastingErrors {
		if errors.Is(err, of) {
			return of.Error()
		}
	}
	if errors.Is(err, errCrowded) {
		return errCrowded.Error()
	}
	return ""
}

var errCrowded = fmt.Errorf("more than %d connections wait to be authenticated, and this one has waited longest", maxHandshakes)

// receive is the handshake with whoever has connected. Where too many are under way the one that has waited
// longest goes: a node is done within a few round trips, and those who only sit there keep none out.
func (p *Peers) receive(raw net.Conn, self introduction) (net.Conn, agreed, error) {
	p.mu.Lock()
	p.mu.knocking = append(p.mu.knocking, raw)
	var longest net.Conn
	if len(p.mu.knocking) > maxHandshakes {
		longest = p.mu.knocking[0]
		p.mu.knocking = slices.Delete(p.mu.knocking, 0, 1)
	}
	p.mu.Unlock()
	if longest != nil {
		_ = longest.Close()
	}
	deadline := time.Now().Add(handshakeTimeout)
	conn, with, err := p.o.receive(raw, self, deadline)
	if errors.Is(err, ErrOneSided) || errors.Is(err, ErrUntrusted) || errors.Is(err, ErrTLS) {
		sendOff(raw, deadline)
	}
	p.mu.Lock()
	at := slices.Index(p.mu.knocking, raw)
	if at >= 0 {
		p.mu.knocking = slices.Delete(p.mu.knocking, at, at+1)
	}
	p.mu.Unlock()
	if at < 0 {
		return nil, agreed{}, errCrowded
	}
	return conn, with, err
}

func (o *Options) receive(raw net.Conn, self introduction, deadline time.Time) (net.Conn, agreed, error) {
	conn, on, err := o.secure(raw, "", false, deadline)
	if err != nil {
		return nil, agreed{}, err
	}
	with, err := receive(conn, on, o.Secret, self, o.Certificates != nil || o.Loopback(conn.RemoteAddr()), deadline)
	return conn, with, err
}

// read takes frames until the connection ends.
func (in *inbound) read() error {
	r := bufio.NewReaderSize(in.conn, readBuffer)
	for {
		if err := in.readOne(r); err != nil {
			return err
		}
	}
}

func (in *inbound) readOne(r *bufio.Reader) error {
	if err := in.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return err
	}
	var head [wire.LengthBytes]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	size := int(int32(binary.BigEndian.Uint32(head[:])))
	if size < wire.MinRequestBytes || size > maxFrameBytes {
		return fmt.Errorf("a frame of %d bytes: %w", size, wire.ErrMalformed)
	}
	if size > keepFrameBytes { // smaller ones have the connection's own memory, and wait behind no large one
		if err := in.p.memory.Acquire(in.ctx, int64(size)); err != nil {
			return err
		}
		defer in.p.memory.Release(int64(size))
	}
	frame, err := in.readFrame(r, size)
	if err != nil {
		return err
	}
	request, err := wire.ParseRequest(frame)
	if err != nil {
		return err
	}
	kind := request.Key - KindKey
	if kind < 0 || kind >= int16(endOfKinds) || request.Version > oneWay {
		return fmt.Errorf("a frame with key %d, version %d: %w", request.Key, request.Version, wire.ErrMalformed)
	}
	return in.handle(Kind(kind), &request)
}

func (in *inbound) readFrame(r *bufio.Reader, size int) ([]byte, error) {
	frame := in.frame
	if size > cap(frame) {
		frame = make([]byte, size)
	}
	frame = frame[:size]
	if size <= keepFrameBytes {
		in.frame = frame
	}
	if err := in.conn.SetReadDeadline(time.Now().Add(wire.Patience(silence, int64(size)))); err != nil {
		return nil, err
	}
	if _, err := io.ReadFull(r, frame); err != nil {
		return nil, fmt.Errorf("read a frame of %d bytes: %w", size, err)
	}
	return frame, nil
}

// handle runs what a frame asks for.
func (in *inbound) handle(kind Kind, request *wire.Request) error {
	id, answered := request.CorrelationID, request.Version != oneWay
	if kind == kindPing {
		return in.say(id, answered, answerResult)
	}
	handler, early := in.p.handler(kind)
	switch {
	case handler == nil:
		return in.say(id, answered, answerUnserved)
	case !in.with.formed && !early:
		return in.say(id, answered, answerNotFormed)
	}
	reply, ready, err := handler(in.ctx, in.with.node, request.Body)
	if err != nil || !answered {
		return err
	}
	if reply == nil {
		reply, ready = func(context.Context, *wire.Out) error { return nil }, true
	}
	if ready {
		out := &wire.Out{}
		if err := compose(in.ctx, out, id, reply); err != nil {
			return err
		}
		return in.sendReady(out)
	}
	return in.beside(func() {
		var out wire.Out
		if err := compose(in.ctx, &out, id, reply); err != nil {
			return
		}
		in.sendOrEnd(&out)
	}, nil)
}

// say answers with a status alone.
func (in *inbound) say(id int32, answered bool, code byte) error {
	if !answered {
		return nil
	}
	out := &wire.Out{}
	if err := status(out, id, code, ""); err != nil {
		return err
	}
	return in.sendReady(out)
}

// beside works on a goroutine of its own, when there is room for one more; instead is called where the connection ends first.
func (in *inbound) beside(work, instead func()) error {
	select {
	case in.atWork <- struct{}{}:
	case <-in.ctx.Done():
		if instead != nil {
			instead()
		}
		return context.Cause(in.ctx)
	}
	in.works.Go(func() {
		defer func() { <-in.atWork }()
		work()
	})
	return nil
}

// sendReady writes an answer from the reader, unless that would take long: while another is being written, or with one that is
// large itself. What comes behind on the connection does not wait for a thin line; among it is word of disks.
func (in *inbound) sendReady(out *wire.Out) error {
	if out.Size() <= maxReadersAnswer {
		select {
		case in.writer <- struct{}{}:
			defer func() { <-in.writer }()
			return in.write(out)
		default:
		}
	}
	return in.beside(func() { in.sendOrEnd(out) }, out.Reset)
}

func (in *inbound) sendOrEnd(out *wire.Out) {
	if err := in.send(out); err != nil {
		_ = in.conn.Close() // the reader ends over it
	}
}

// send writes a complete answer.
func (in *inbound) send(out *wire.Out) error {
	select {
	case in.writer <- struct{}{}:
	case <-in.ctx.Done():
		out.Reset()
		return context.Cause(in.ctx)
	}
	defer func() { <-in.writer }()
	return in.write(out)
}

// write is called by who has the writer's slot.
func (in *inbound) write(out *wire.Out) error {
	if err := in.conn.SetWriteDeadline(time.Now().Add(wire.Patience(writeStall, out.Size()))); err != nil {
		out.Reset()
		return err
	}
	if err := out.Flush(in.conn); err != nil {
		return fmt.Errorf("answer node %d: %w", in.with.node.ID, err)
	}
	return nil
}
