package cluster

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/hooks"
	"barnabas/internal/wire"
)

// This file tells the hooks of connections and requests. Where none is set nothing is made for it.

func (l *Link) broker() hooks.Broker { return hooks.Broker{ID: l.node, Address: l.address} }

// tellConnected tells of an attempt to connect that has ended, and goes on to tell of the end of
// the connection that it made.
func (l *Link) tellConnected(conn *Connection, began time.Time, err error) {
	h, now := l.set.c.cfg.Hooks, time.Now()
	if h.Connected != nil {
		h.Connected(hooks.Connected{Broker: l.broker(), Took: now.Sub(began), Err: err})
	}
	if h.Disconnected == nil || err != nil {
		return
	}
	end := func() {
		select {
		case <-conn.wire.Broken():
			err = conn.wire.Err()
		case <-l.set.ctx.Done():
			err = context.Cause(l.set.ctx)
		}
		h.Disconnected(hooks.Disconnected{Broker: l.broker(), Lasted: time.Since(now), Err: err})
	}
	if !l.set.goRun(end) { // Close, which ends the connection, does not wait for us
		h.Disconnected(hooks.Disconnected{Broker: l.broker(), Lasted: time.Since(now), Err: ErrClosed})
	}
}

// watched is a request that hooks are told of; nil where nobody wants to know.
type watched struct {
	hooks    *hooks.Hooks
	request  hooks.Request
	bytes    int
	sent     time.Time
	answered time.Time
	body     int // bytes
}

// watch begins before a request is encoded.
func (conn *Connection) watch(req kmsg.Request, version int16) *watched {
	h := conn.link.set.c.cfg.Hooks
	if h.Sent == nil && h.Answered == nil {
		return nil
	}
	return &watched{hooks: h, request: hooks.Request{Broker: conn.link.broker(), Key: req.Key(), Version: version}}
}

// counting notes the size of what encode appends.
func (w *watched) counting(encode func([]byte) []byte) func([]byte) []byte {
	if w == nil {
		return encode
	}
	return func(dst []byte) []byte {
		before := len(dst)
		dst = encode(dst)
		w.bytes = len(dst) - before
		return dst
	}
}

// Spliced is a request with parts that are sent from where they lie. They must stay as they are until the
// Wait of its Call has returned.
type Spliced interface {
	kmsg.Request
	AppendSpliced(dst []byte, s *wire.Splices) []byte
}

// hand hands a request over to be sent.
func (conn *Connection) hand(ctx context.Context, req kmsg.Request, version int16, w *watched) (*wire.Pending, error) {
	spliced, ok := req.(Spliced)
	if !ok {
		return conn.wire.Start(ctx, req.Key(), version, w.counting(req.AppendTo))
	}
	encode := spliced.AppendSpliced
	if w != nil {
		encode = func(dst []byte, s *wire.Splices) []byte {
			before := len(dst) + s.Bytes()
			dst = spliced.AppendSpliced(dst, s)
			w.bytes = len(dst) + s.Bytes() - before
			return dst
		}
	}
	return conn.wire.StartSpliced(ctx, req.Key(), version, encode)
}

func (w *watched) tellSent(oneWay bool) {
	if w == nil {
		return
	}
	w.sent = time.Now()
	if told := w.hooks.Sent; told != nil {
		told(hooks.Sent{Request: w.request, Bytes: w.bytes, OneWay: oneWay})
	}
}

// arrived notes when the wait for the answer ended, and what came.
func (w *watched) arrived(body []byte) {
	if w != nil {
		w.answered, w.body = time.Now(), len(body)
	}
}

func (w *watched) tellAnswered(resp kmsg.Response, err error) {
	if w == nil || w.hooks.Answered == nil {
		return
	}
	a := hooks.Answered{Request: w.request, RequestBytes: w.bytes, ResponseBytes: w.body, Took: w.answered.Sub(w.sent), Err: err}
	if throttled, ok := resp.(kmsg.ThrottleResponse); ok && err == nil {
		ms, _ := throttled.Throttle()
		a.Throttled = time.Duration(ms) * time.Millisecond
	}
	w.hooks.Answered(a)
}
