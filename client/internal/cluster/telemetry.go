package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// This file is what client telemetry (KIP-714) needs of connections: that they are counted, and one to push over.

// Meter counts connections and requests of one component. Its methods are called on many goroutines and must not wait.
type Meter interface {
	Connected()   // one was made
	Timing() bool // how long requests take is of interest
	Answered(node int32, api int16, took, throttled time.Duration)
}

// now is when a request is sent, where that is of interest.
func (ls *Links) now() (at time.Time) {
	if ls.meter != nil && ls.meter.Timing() {
		at = time.Now()
	}
	return at
}

// measure counts a request that has been answered.
func (p *Call) measure() {
	if p.sent.IsZero() {
		return
	}
	var throttled time.Duration
	if t, ok := p.resp.(kmsg.ThrottleResponse); ok {
		ms, _ := t.Throttle()
		throttled = time.Duration(ms) * time.Millisecond
	}
	p.conn.link.set.meter.Answered(p.conn.link.node, p.resp.Key(), time.Since(p.sent), throttled)
}

const getTelemetrySubscriptionsKey = 71

// tellMeter tells of a connection that was made, and of a broker that takes telemetry.
func (conn *Connection) tellMeter() {
	set := conn.link.set
	if set.meter != nil {
		set.meter.Connected()
	}
	if _, takes := conn.versions.ranges[getTelemetrySubscriptionsKey]; takes && set.c.cfg.TakesTelemetry != nil {
		set.c.cfg.TakesTelemetry()
	}
}

// takesTelemetry tells whether the link's connection stands, and to a broker that takes telemetry.
func (l *Link) takesTelemetry() bool {
	l.mu.Lock()
	conn := l.mu.conn
	l.mu.Unlock()
	if conn == nil || conn.wire.Err() != nil {
		return false
	}
	_, takes := conn.versions.ranges[getTelemetrySubscriptionsKey]
	return takes
}

// Standing gives a shared link whose connection stands, to a broker that takes telemetry; nil where there is none. It is
// the one that was used last where that still stands, for brokers meter by connection, and otherwise any, rather to a
// broker whose number is known: those that are only an address of bootstrap.servers are soon not used for anything else.
func (c *Cluster) Standing(last *Link) *Link {
	if last != nil && last.node >= 0 && last.takesTelemetry() {
		return last
	}
	for _, l := range c.links.Candidates() {
		switch {
		case !l.takesTelemetry():
		case l.node < 0 && last != nil && last.takesTelemetry():
			return last
		default:
			return l
		}
	}
	return nil
}

// ConnectForTelemetry gives a shared link to a broker that takes telemetry; where there is none, to the first that can be
// connected to. Errors: ErrUnsupported where that one does not take it, ErrNoBrokers, ErrClosed, those of Refused, ctx's.
func (c *Cluster) ConnectForTelemetry(ctx context.Context) (*Link, error) {
	if l := c.Standing(nil); l != nil {
		return l, nil
	}
	var failures []error
	for _, l := range c.links.Candidates() {
		_, err := l.Connect(ctx)
		switch {
		case err == nil && l.takesTelemetry():
			return l, nil
		case err == nil:
			return nil, fmt.Errorf("%s: %w: %s", l.name, ErrUnsupported, kmsg.NameForKey(getTelemetrySubscriptionsKey))
		case ctx.Err() != nil || errors.Is(err, ErrClosed) || Refused(err):
			return nil, err
		}
		failures = append(failures, err)
	}
	return nil, fmt.Errorf("%w: %w", ErrNoBrokers, errors.Join(failures...))
}
