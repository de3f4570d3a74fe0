package controller

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/config"
	"barnabas/internal/metadata"
	"barnabas/internal/quorum"
)

const (
	// maxPendingRequests bounds the requests between arrival and answer. Past it callers wait,
	// each for as long as its own timeout allows.
	maxPendingRequests = 1000
	// maxRecordsPerRequest bounds what one request of a user may change, as Kafka does. Past it
	// the request is refused with POLICY_VIOLATION.
	maxRecordsPerRequest = 10_000
	// recordsPerEntry is the size into which changes of any length are cut that need not take
	// effect together.
	recordsPerEntry = 10_000
)

// inbox is the one way into the controller's goroutine. It does not block who posts, so the quorum
// can wait for the controller's proposal while it reports a commit; requests are bounded by
// Controller.slots, and the quorum's reports by what is in flight.
type inbox struct {
	wake chan struct{} // holds one token while something is queued
	mu   struct {
		sync.Mutex
		queue  []func(*shard)
		closed bool
	}
}

func (i *inbox) init() { i.wake = make(chan struct{}, 1) }

// post queues an event; false once the inbox is closed.
func (i *inbox) post(event func(*shard)) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.closed {
		return false
	}
	i.mu.queue = append(i.mu.queue, event)
	select {
	case i.wake <- struct{}{}:
	default:
	}
	return true
}

func (i *inbox) take(last bool) []func(*shard) {
	i.mu.Lock()
	defer i.mu.Unlock()
	queue := i.mu.queue
	i.mu.queue, i.mu.closed = nil, i.mu.closed || last
	return queue
}

// run handles events in order until ctx ends, then answers those still queued.
func (i *inbox) run(ctx context.Context, s *shard) {
	for ctx.Err() == nil {
		select {
		case <-i.wake:
		case <-ctx.Done():
			continue
		}
		for _, event := range i.take(false) {
			event(s)
		}
	}
	s.closed = true
	s.resign(ErrClosed)
	for _, event := range i.take(true) {
		event(s)
	}
}

// shard is the state of the controller's goroutine.
type shard struct {
	options *Options
	loader  *metadata.Loader
	log     Log
	random  *rand.Rand
	closed  bool

	active  bool         // this node decides, in epoch
	decides *atomic.Bool // the same for others to see; nil: nobody looks
	epoch   int32
	// image is the speculative one: that of the loader, plus what is in flight. Valid while active.
	image    *metadata.Image
	inFlight []proposal
	settings *config.Set // see effective
	dynamic  [2]map[string]string

	sessions sessions
	other    int32 // the node that led the quorum last before this one did; -1: none is known
	clock    clock
}

// proposal is an entry that is not committed yet, with those who wait for it.
type proposal struct {
	id      uint64
	waiters []func(error)
}

func newShard(o *Options, loader *metadata.Loader, log Log) *shard {
	return &shard{options: o, loader: loader, log: log, random: rand.New(readerSource{o.Rand}), settings: o.Config, other: -1}
}

// readerSource draws random numbers from a reader.
type readerSource struct{ io.Reader }

func (r readerSource) Uint64() uint64 {
	var b [8]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		panic(fmt.Sprintf("BUG: a random source that ends: %v", err))
	}
	return binary.LittleEndian.Uint64(b[:])
}

// leadership takes the quorum's word on who leads.
func (s *shard) leadership(l metadata.Leadership) {
	if l.Mine && s.active && l.Epoch == s.epoch {
		return
	}
	s.resign(ErrNotController)
	if l.Leader >= 0 && l.Leader != s.options.NodeID { // this node is told of itself before it may decide
		s.other = l.Leader
	}
	if !l.Mine || s.closed {
		return
	}
	s.active, s.epoch, s.image = true, l.Epoch, s.loader.Image()
	s.show()
	s.watchBrokers(s.other)
	s.options.Logger.Info("this node is the controller", "epoch", l.Epoch, "offset", s.image.Offset())
	if err := s.form(); err != nil {
		// It is tried again before the next request is decided.
		s.options.Logger.Error("could not write the cluster's first records", "error", err)
	}
}

// resign discards what is not committed, and with it all who wait.
func (s *shard) resign(cause error) {
	if s.active {
		s.options.Logger.Info("this node is no longer the controller", "epoch", s.epoch, "cause", cause, "in_flight", len(s.inFlight))
	}
	lost := s.inFlight
	s.active, s.image, s.inFlight = false, nil, nil
	s.clock.stop()
	s.show()
	for _, p := range lost {
		for _, answer := range p.waiters {
			answer(cause)
		}
	}
}

func (s *shard) show() {
	if s.decides != nil {
		s.decides.Store(s.active)
	}
}

// form writes the first records of a cluster that has none.
func (s *shard) form() error {
	if s.image.ClusterID() != "" || s.options.ClusterID == "" {
		return nil
	}
	return s.propose(formCluster(s.options.ClusterID, s.options.features))
}

// propose makes records the next entry of the log and replays them at once. After an error nothing
// has changed.
func (s *shard) propose(records []metadata.Record) error {
	next, err := s.image.After(s.image.Offset()+1, s.epoch, records)
	if err != nil {
		return fmt.Errorf("the decision contradicts the state: %w", err)
	}
	id, err := s.log.Propose(s.epoch, records)
	if err != nil {
		err = fmt.Errorf("propose %d records in epoch %d: %w", len(records), s.epoch, err)
		if errors.Is(err, quorum.ErrNotLeader) || errors.Is(err, quorum.ErrClosed) {
			// What was seen and is not committed will never be.
			s.resign(ErrNotController)
		}
		return err
	}
	s.image = next
	s.inFlight = append(s.inFlight, proposal{id: id})
	return nil
}

// proposeAll makes records entries of the log, of piece each; 0: one of them all.
func (s *shard) proposeAll(records []metadata.Record, piece int) error {
	if piece == 0 {
		piece = max(len(records), 1)
	}
	for entry := range slices.Chunk(records, piece) {
		if err := s.propose(entry); err != nil {
			return err
		}
	}
	return nil
}

// committed is told that an entry was committed and published; 0 is an entry without a proposal.
func (s *shard) committed(id uint64) {
	at := slices.IndexFunc(s.inFlight, func(p proposal) bool { return p.id == id })
	done := s.inFlight[:at+1]
	s.inFlight = s.inFlight[at+1:]
	for _, p := range done {
		for _, answer := range p.waiters {
			answer(nil)
		}
	}
	s.reanchor()
}

// reanchor puts the committed image in the place of the speculative one, which is equal to it
// where nothing is in flight, and shares its memory with what others hold.
func (s *shard) reanchor() {
	if !s.active || len(s.inFlight) > 0 {
		return
	}
	if s.options.reanchored != nil {
		s.options.reanchored(s.image, s.loader.Image())
	}
	s.image = s.loader.Image()
}

// request is one decision to take.
type request struct {
	ctx    context.Context
	decide func(*shard, *view) []metadata.Record
	// piece is how many records an entry takes, where they may take effect one after the other; 0: all of
	// them together.
	piece  int
	answer func(error) // called once; nil: committed and published
}

func (s *shard) request(r *request) {
	switch {
	case s.closed:
		r.answer(ErrClosed)
		return
	case r.ctx.Err() != nil:
		// Nobody waits any more: not begun, it has no effect.
		r.answer(context.Cause(r.ctx))
		return
	case !s.active:
		r.answer(ErrNotController)
		return
	}
	if err := s.form(); err != nil {
		r.answer(err)
		return
	}
	if err := s.proposeAll(r.decide(s, s.view()), r.piece); err != nil {
		s.options.Logger.Error("metadata change refused", "error", err)
		r.answer(err)
		return
	}
	if len(s.inFlight) == 0 {
		r.answer(nil)
		return
	}
	last := &s.inFlight[len(s.inFlight)-1]
	last.waiters = append(last.waiters, r.answer)
}

// view is what a decision sees: it reads, and changes nothing.
type view struct {
	image    *metadata.Image
	epoch    int32       // in which this node decides
	settings *config.Set // the controller's, with what the metadata adds
	features []Feature
	random   *rand.Rand
	ids      io.Reader // for UUIDs
	// alive reports whether the process that a broker was registered by has been heard of within its session; nil: none has.
	alive func(*metadata.Broker) bool
	// heard reports whether it has been heard of at all by this controller; nil: all have.
	heard func(*metadata.Broker) bool
	// complete reports whether a broker has said that every log directory that it is configured with is online; nil: none has.
	complete func(*metadata.Broker) bool
}

func (s *shard) view() *view {
	return &view{
		image: s.image, epoch: s.epoch, settings: s.effective(), features: s.options.features, random: s.random, ids: s.options.Rand,
		alive: s.alive, heard: s.sessions.hasSpoken, complete: s.sessions.isComplete,
	}
}

// effective is this node's configuration with the dynamic settings of the speculative image.
func (s *shard) effective() *config.Set {
	now := [2]map[string]string{
		s.image.Config(metadata.BrokerResource, ""),
		s.image.Config(metadata.BrokerResource, brokerName(s.options.NodeID)),
	}
	if !maps.Equal(now[0], s.dynamic[0]) || !maps.Equal(now[1], s.dynamic[1]) {
		// A value that an older version let pass is left out; the rest holds.
		settings, err := s.options.Config.With(now[0], now[1])
		if err != nil {
			s.options.Logger.Warn("dynamic settings ignored", "error", err)
		}
		s.settings, s.dynamic = settings, now
	}
	return s.settings
}

// submit hands a decision to the controller's goroutine and waits until its records are committed
// and published here. Without an error the response is what decide returned.
func submit[R any](ctx context.Context, c *Controller, pieces bool, decide func(*view) ([]metadata.Record, R)) (R, error) {
	var none R
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return none, context.Cause(ctx)
	case <-c.ctx.Done():
		return none, ErrClosed
	}
	piece := 0
	if pieces {
		piece = recordsPerEntry
	}
	return await(ctx, c, piece, func(_ *shard, v *view) ([]metadata.Record, R) { return decide(v) }, func() { <-c.slots })
}

// submitEvent is submit for what the cluster's own brokers say, which does not stand in line behind what users
// ask for. There is little of it: a broker has one of a kind under way at a time.
func submitEvent[R any](ctx context.Context, c *Controller, piece int, decide func(*shard, *view) ([]metadata.Record, R)) (R, error) {
	return await(ctx, c, piece, decide, func() {})
}

// await posts a request and waits for its end, which may come after who waits has gone; done is called then.
func await[R any](ctx context.Context, c *Controller, piece int, decide func(*shard, *view) ([]metadata.Record, R), done func()) (R, error) {
	var none, response R
	answered := make(chan error, 1)
	r := &request{
		ctx:   ctx,
		piece: piece,
		decide: func(s *shard, v *view) (records []metadata.Record) {
			records, response = decide(s, v)
			return records
		},
		answer: func(err error) {
			done()
			answered <- err
		},
	}
	if !c.inbox.post(func(s *shard) { s.request(r) }) {
		done()
		return none, ErrClosed
	}
	select {
	case err := <-answered:
		if err != nil {
			return none, err
		}
		return response, nil
	case <-ctx.Done():
		return none, context.Cause(ctx)
	}
}

// within bounds ctx by a request's own timeout. Zero and less have passed already, as in Kafka.
func within(ctx context.Context, millis int32) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, time.Duration(millis)*time.Millisecond, ErrTimedOut)
}
