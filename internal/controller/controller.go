package controller

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
)

// What a caller can decide on where there is no response to carry a code.
var (
	// ErrNotController means that another node decides now, or none. What was asked may still
	// take effect if it was under way; asking again is safe where the request is.
	ErrNotController = errors.New("this node is not the controller")
	// ErrTimedOut means that the change was not committed within the time allowed. It may be yet.
	ErrTimedOut = errors.New("the change was not committed in time")
	// ErrClosed means that the node is stopping.
	ErrClosed = errors.New("the controller is closed")
	// Those that brokers' own lives are about are package metadata's.
	ErrUnknownBroker       = metadata.ErrUnknownBroker
	ErrStaleBrokerEpoch    = metadata.ErrStaleBrokerEpoch
	ErrInvalidRegistration = metadata.ErrInvalidRegistration
	ErrDuplicateBroker     = metadata.ErrDuplicateBroker
	// ErrProducerIDsExhausted means that there are no producer ids left.
	ErrProducerIDsExhausted = errors.New("all producer ids are used up")
)

// Log is where decisions go; *quorum.Quorum is one. Propose hands in one entry. Entries of one epoch
// are committed in the order in which they were accepted, each reported to Apply under the id that
// Propose returned. An error means that nothing was written and nothing will be. Confirm returns once a
// majority has said, after it was called, that this node leads in epoch.
type Log interface {
	Propose(epoch int32, records []metadata.Record) (id uint64, err error)
	Confirm(ctx context.Context, epoch int32) error
}

// Options say what a controller is made of.
type Options struct {
	NodeID    int32
	ClusterID string      // given to a cluster that has none yet
	Config    *config.Set // this node's, without what the metadata adds
	Logger    *slog.Logger

	// Publishers are told of every committed image, in this order, before those who asked for the
	// change are answered.
	Publishers []metadata.Publisher
	// Rand draws topic ids and placements; nil means crypto/rand. Only the controller's goroutine
	// reads it.
	Rand io.Reader

	// features are those that this program supports; nil means SupportedFeatures.
	features []Feature
	// reanchored is told, by tests, whenever nothing is in flight.
	reanchored func(speculative, committed *metadata.Image)
}

// Controller runs the decisions. Its methods are safe for concurrent use.
type Controller struct {
	options Options
	loader  *metadata.Loader
	slots   chan struct{} // one for every request between arrival and answer
	inbox   inbox
	log     Log // set by Start

	ctx     context.Context // of publishers; ends with Close
	cancel  context.CancelFunc
	started atomic.Bool
	active  atomic.Bool   // see Active
	done    chan struct{} // closed when the goroutine has ended
}

// New returns a controller that takes the quorum's calls at once and requests from Start on. The
// two are apart because the quorum needs its Machine before it can be proposed to. ctx bounds the
// life of both goroutine and publications.
func New(ctx context.Context, o Options) *Controller {
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.features == nil {
		o.features = SupportedFeatures()
	}
	c := &Controller{
		options: o,
		loader:  metadata.NewLoader(o.Publishers...),
		slots:   make(chan struct{}, maxPendingRequests),
		done:    make(chan struct{}),
	}
	c.ctx, c.cancel = context.WithCancel(ctx)
	c.inbox.init()
	return c
}

// Start begins to answer requests, with log as the place where changes are proposed.
func (c *Controller) Start(log Log) {
	c.log = log
	c.started.Store(true)
	s := newShard(&c.options, c.loader, log)
	s.decides = &c.active
	s.clock.post = c.inbox.post
	go func() {
		defer close(c.done)
		c.inbox.run(c.ctx, s)
	}()
}

// Close answers all who wait with ErrClosed and ends the goroutine.
func (c *Controller) Close() {
	c.cancel()
	if c.started.Load() {
		<-c.done
	}
}

// Active tells whether this node decides now: it leads the quorum, and has applied all that was
// committed before.
func (c *Controller) Active() bool { return c.active.Load() }

// Image is the newest committed image on this node.
func (c *Controller) Image() *metadata.Image { return c.loader.Image() }

// Apply takes a committed entry; the quorum calls it. An error means that this node must stop.
func (c *Controller) Apply(entry metadata.Committed) error {
	if err := c.loader.Apply(c.ctx, entry); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	// Before Start nothing of ours can be in flight, and a long log would pile up here.
	if c.started.Load() {
		c.inbox.post(func(s *shard) { s.committed(entry.Proposal) })
	}
	return nil
}

// Restore takes a snapshot in the place of the log's beginning; the quorum calls it. An error means
// that this node must stop.
func (c *Controller) Restore(snapshot metadata.Snapshot) error {
	if err := c.loader.Restore(c.ctx, snapshot); err != nil {
		return fmt.Errorf("controller: %w", err)
	}
	c.inbox.post(func(s *shard) { s.reanchor() })
	return nil
}

// Snapshot is the committed state as records; the quorum calls it, from any goroutine.
func (c *Controller) Snapshot() metadata.Snapshot { return c.loader.Image().Snapshot() }

// Leadership says who leads the quorum from now on; the quorum calls it.
func (c *Controller) Leadership(l metadata.Leadership) {
	c.inbox.post(func(s *shard) { s.leadership(l) })
}
