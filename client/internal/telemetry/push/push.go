// Package push carries out what package telemetry decides: it asks brokers for a client's subscription and pushes the
// client's metrics to them (KIP-714). It is for package client. It decides nothing but which connection is used, and
// refuses to know what the metrics mean.
//
// A Pusher has one goroutine, and only while some broker takes telemetry.
package push

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/telemetry"
	"barnabas/internal/batch"
)

// ErrOff answers a question for the client instance id of a client that pushes no metrics: it was told not to
// (enable.metrics.push), or a broker has refused them for good.
var ErrOff = errors.New("the client pushes no metrics")

// lastPushWithin bounds how long Close waits for the last push. A program that ends is not to be held up by its metrics.
const lastPushWithin = 2 * time.Second

// Pusher pushes the metrics of one client. It is safe for concurrent use. Close it before the cluster. Of a nil one all
// methods do nothing.
type Pusher struct {
	cluster *cluster.Cluster
	meters  *telemetry.Meters
	log     *slog.Logger

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	wake   chan struct{} // one slot: Close has begun
	less   bool          // the last push told less than was asked for; run's alone

	mu struct { // never held while asking or waiting
		sync.Mutex
		machine *telemetry.Machine
		running bool
		closed  bool
		found   int           // brokers that take telemetry, each time that one was connected to
		changed chan struct{} // closed and replaced whenever the machine has moved
	}
}

// NewCluster makes a cluster, and with wanted what pushes metrics to it; else a nil Pusher.
func NewCluster(cfg cluster.Config, wanted bool) (*cluster.Cluster, *Pusher) {
	if !wanted {
		return cluster.New(cfg), nil
	}
	p := &Pusher{meters: telemetry.NewMeters(), log: cfg.Logger, wake: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.changed = make(chan struct{})
	cfg.Meter, cfg.TakesTelemetry = p.Meter(telemetry.Labels{Kind: telemetry.Admin}), p.found
	p.cluster = cluster.New(cfg)
	p.mu.machine = telemetry.NewMachine(p.cluster.Random.Float)
	return p.cluster, p
}

// Meter makes a meter for a part of the client; nil of a nil Pusher.
func (p *Pusher) Meter(labels telemetry.Labels) *telemetry.Meter {
	if p == nil {
		return nil
	}
	return p.meters.Open(labels, time.Now())
}

// found says that a broker was connected to that takes telemetry.
func (p *Pusher) found() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.found++
	if p.mu.running || p.mu.closed || p.mu.machine.Failure() != nil {
		return
	}
	p.mu.running = true
	p.wg.Go(p.run)
}

// InstanceID gives the id under which brokers know the client, waiting for it, and connecting where there is no connection
// yet. Errors: ErrOff, those of Cluster.ConnectForTelemetry.
func (p *Pusher) InstanceID(ctx context.Context) ([16]byte, error) {
	if p == nil {
		return [16]byte{}, fmt.Errorf("%w: enable.metrics.push is false", ErrOff)
	}
	for {
		p.mu.Lock()
		id, known := p.mu.machine.Instance()
		failure, running, closed, changed := p.mu.machine.Failure(), p.mu.running, p.mu.closed, p.mu.changed
		p.mu.Unlock()
		switch {
		case known:
			return id, nil
		case closed:
			return id, cluster.ErrClosed
		case failure != nil:
			return id, fmt.Errorf("%w: %w", ErrOff, failure)
		case !running:
			if _, err := p.cluster.ConnectForTelemetry(ctx); err != nil {
				return id, err
			}
			p.found() // its connection may have stood before
			continue
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return id, context.Cause(ctx)
		}
	}
}

// Close pushes once more what has come since the last push, where a broker wants to know, and ends. It waits for that no
// longer than lastPushWithin, and not at all without a connection that stands.
func (p *Pusher) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	first := !p.mu.closed
	p.mu.closed = true
	last := p.mu.running && p.mu.machine.Close()
	p.movedLocked()
	p.mu.Unlock()
	if last && first {
		late := time.AfterFunc(lastPushWithin, p.cancel)
		defer late.Stop()
		p.wake <- struct{}{}
	} else if first {
		p.cancel()
	}
	p.wg.Wait()
	p.cancel()
}

func (p *Pusher) movedLocked() {
	close(p.mu.changed)
	p.mu.changed = make(chan struct{})
}

// event lets the machine take something in.
func (p *Pusher) event(tell func(m *telemetry.Machine, now time.Time)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tell(p.mu.machine, time.Now())
	p.meters.Time(p.mu.machine.Wanted())
	p.movedLocked()
}

// run does what the machine wants until it wants nothing any more, or no broker takes telemetry.
func (p *Pusher) run() {
	var link *cluster.Link
	for {
		p.mu.Lock()
		found := p.mu.found
		action := p.mu.machine.Next(time.Now())
		p.mu.Unlock()
		switch action.Do {
		case telemetry.Wait:
			if p.wait(action.Until) != nil {
				p.end(-1)
				return
			}
			continue
		case telemetry.End:
			p.end(-1)
			return
		case telemetry.Ask, telemetry.Push:
		}
		err := p.reach(&link, action.Terminating)
		if err == nil && action.Do == telemetry.Ask {
			err = p.ask(link, action)
		} else if err == nil {
			err = p.push(link, action)
		}
		if err == nil {
			continue
		}
		p.log.Debug("client telemetry", "error", err)
		p.event(func(m *telemetry.Machine, now time.Time) { m.Unanswered(now) })
		if (errors.Is(err, cluster.ErrUnsupported) || cluster.Refused(err)) && p.end(found) {
			return // until another broker is found; who is refused does not try again by itself
		}
	}
}

// end lets found start anew; false where another broker has been found after so many (-1: whether or not).
func (p *Pusher) end(found int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if found >= 0 && p.mu.found != found {
		return false
	}
	p.mu.running = false
	p.meters.Time(false)
	if err := p.mu.machine.Failure(); err != nil {
		p.log.Error("a broker has refused the client's metrics, which are not pushed any more", "error", err)
	}
	p.movedLocked()
	return true
}

// wait waits until a time, or for Close.
func (p *Pusher) wait(until time.Time) error {
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.wake:
	case <-p.ctx.Done():
		return context.Cause(p.ctx)
	}
	return nil
}

// reach sees to it that there is a link: the one used last, or another. The last push is worth no new connection.
func (p *Pusher) reach(link **cluster.Link, terminating bool) (err error) {
	if standing := p.cluster.Standing(*link); standing != nil || terminating {
		if *link = standing; standing == nil {
			return cluster.ErrNoBrokers
		}
		return nil
	}
	*link, err = p.cluster.ConnectForTelemetry(p.ctx)
	return err
}

func (p *Pusher) ask(link *cluster.Link, action telemetry.Action) error {
	req := kmsg.NewPtrGetTelemetrySubscriptionsRequest()
	req.ClientInstanceID = action.Subscription.Instance
	resp, err := link.Request(p.ctx, req)
	if err != nil {
		return fmt.Errorf("ask for the subscription: %w", err)
	}
	p.event(func(m *telemetry.Machine, now time.Time) {
		m.Subscribed(now, resp.(*kmsg.GetTelemetrySubscriptionsResponse))
	})
	return nil
}

func (p *Pusher) push(link *cluster.Link, action telemetry.Action) error {
	sub := &action.Subscription
	snapshot := p.meters.Collect(time.Now())
	payload := snapshot.Payload(sub, telemetry.Compress)
	if payload.Less && !p.less {
		p.log.Warn("the broker takes fewer bytes of metrics than it asks for", "bytes", sub.MaxBytes, "points", payload.Points)
	}
	p.less = payload.Less
	p.event(func(m *telemetry.Machine, _ time.Time) {
		for _, codec := range payload.Failed {
			m.CannotCompress(codec)
		}
	})
	req := kmsg.NewPtrPushTelemetryRequest()
	req.ClientInstanceID, req.SubscriptionID, req.Terminating = sub.Instance, sub.ID, action.Terminating
	req.CompressionType, req.Metrics = int8(payload.Codec), payload.Bytes
	resp, err := link.Request(p.ctx, req)
	if err != nil {
		return fmt.Errorf("push metrics: %w", err)
	}
	p.event(func(m *telemetry.Machine, now time.Time) {
		if m.Pushed(now, resp.(*kmsg.PushTelemetryResponse), len(payload.Bytes), batch.Codec(req.CompressionType)) {
			p.meters.Taken(snapshot)
		}
	})
	return nil
}
