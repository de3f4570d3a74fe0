package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"barnabas/client/internal/cluster"
	"barnabas/client/internal/prefetch"
	"barnabas/client/internal/telemetry"
	"barnabas/internal/batch"
)

// Consumer reads partitions that it is told to read, each from where it is told to start. A
// fetcher for each broker asks ahead of Poll, so that records are there when Poll comes, and a
// partition whose records wait does not hold up the others.
//
// All methods are safe for concurrent use; Poll itself is for one goroutine at a time. Close it.
type Consumer struct {
	c       *Client
	cfg     consumerConfig
	links   *cluster.Links
	meter   *telemetry.Meter
	user    *cluster.User
	checker *batch.Checker

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	news   chan struct{} // one slot: Poll may find something
	begin  func()        // finds out where a group has committed; nil without one. Called without locks

	mu struct { // never held while asking, decoding or waiting
		sync.Mutex
		closed   bool
		polling  bool
		ahead    *prefetch.Store[Record]
		fetchers map[int32]*fetcher
		refused  error // client and brokers do not believe each other; Poll is to tell
	}
}

// NewConsumer makes a consumer that reads nothing until Assign says what.
func (c *Client) NewConsumer(options ...ConsumerOption) (*Consumer, error) {
	cfg := defaultConsumerConfig()
	for _, o := range options {
		if err := o(&cfg); err != nil {
			return nil, fmt.Errorf("consumer: %w", err)
		}
	}
	if c.ctx.Err() != nil {
		return nil, fmt.Errorf("consumer: %w", ErrClosed)
	}
	meter := c.pusher.Meter(telemetry.Labels{Kind: telemetry.Consumer, Group: cfg.group, GroupInstance: cfg.groupInstance, Rack: cfg.rack})
	k := &Consumer{c: c, cfg: cfg, meter: meter, links: cluster.NewLinks(c.cluster, meter), checker: batch.NewChecker(), news: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancelCause(c.ctx)
	k.mu.ahead = prefetch.New(cfg.prefetch(c), spotOf)
	k.mu.fetchers = map[int32]*fetcher{}
	k.user = &cluster.User{Wanted: k.wantedTopics, Changed: func(*cluster.Snapshot) { k.route() }, Refused: k.refuse}
	c.meta.Register(k.user)
	return k, nil
}

// prefetch is the part of the settings that decides what is fetched.
func (cfg *consumerConfig) prefetch(c *Client) prefetch.Config {
	return prefetch.Config{
		MaxBytes: int(cfg.maxBytes), MaxPartitionBytes: int(cfg.maxPartition), MaxPollRecords: cfg.maxPoll,
		ReadCommitted: cfg.isolation == ReadCommitted, Reset: cfg.reset, ReplicaLease: c.cfg.MetadataMaxAge,
		Backoff: func(failures int) time.Duration { return c.cfg.RetryBackoff.After(failures, c.random) }, Log: c.log,
	}
}

func spotOf(r *Record) prefetch.Spot {
	return prefetch.Spot{Offset: r.Offset, LeaderEpoch: r.LeaderEpoch}
}

// change lets something happen to what is read, and tells whom it concerns.
func (k *Consumer) change(do func(s *prefetch.Store[Record], now time.Time)) {
	k.mu.Lock()
	do(k.mu.ahead, time.Now())
	signals := k.mu.ahead.Signals()
	if signals.Sources && !k.mu.closed {
		for _, node := range k.mu.ahead.Sources() {
			if k.mu.fetchers[node] == nil {
				f := newFetcher(k, node)
				k.mu.fetchers[node] = f
				k.wg.Go(f.run)
			}
		}
	}
	if signals.Fetchers {
		for _, f := range k.mu.fetchers {
			f.signal()
		}
	}
	refused := k.mu.refused != nil
	k.mu.Unlock()
	if signals.Metadata && !refused {
		k.c.meta.Update()
	}
	if signals.Begin && k.begin != nil {
		k.begin()
	}
	if signals.Poll {
		k.tell()
	}
}

// Assign replaces what is read: these partitions, each from its position. Whatever was fetched
// and not yet polled is dropped. It does not wait: partitions that do not exist yet are read once
// they do. Kafka: assign and seek.
func (k *Consumer) Assign(partitions map[TopicPartition]Position) error {
	for tp, at := range partitions {
		if err := at.check(tp); err != nil {
			return fmt.Errorf("assign: %w", err)
		}
	}
	closed := false
	k.change(func(s *prefetch.Store[Record], _ time.Time) {
		if closed = k.mu.closed; closed {
			return
		}
		s.Clear()
		for tp, at := range partitions {
			s.Add(prefetch.TopicPartition(tp), anyTopic, at.start)
		}
	})
	if closed {
		return fmt.Errorf("assign: %w", ErrClosed)
	}
	k.route()
	return nil
}

// anyTopic is the id of whichever topic has the name.
var anyTopic [16]byte

// AssignTopic is Assign for all partitions that a topic has now, from one position. It asks the
// cluster for them. Errors: ErrUnknownTopicOrPartition, ErrTopicAuthorizationFailed, ctx's.
func (k *Consumer) AssignTopic(ctx context.Context, topic string, at Position) error {
	count, err := k.c.Partitions(ctx, topic)
	if err != nil {
		return fmt.Errorf("assign: %w", err)
	}
	all := make(map[TopicPartition]Position, count)
	for n := range count {
		all[TopicPartition{topic, n}] = at
	}
	return k.Assign(all)
}

// own adds partitions to what is read, from where the group has committed. ids are those of their
// topics where the group tells them.
func (k *Consumer) own(partitions []TopicPartition, ids map[string][16]byte) {
	k.change(func(s *prefetch.Store[Record], _ time.Time) {
		for _, tp := range partitions {
			s.Add(prefetch.TopicPartition(tp), ids[tp.Topic], prefetch.Start{Kind: prefetch.Committed})
		}
	})
	k.route()
}

// disown takes partitions out of what is read.
func (k *Consumer) disown(partitions []TopicPartition) {
	k.change(func(s *prefetch.Store[Record], _ time.Time) {
		for _, tp := range partitions {
			s.Remove(prefetch.TopicPartition(tp))
		}
	})
}

// Seek goes on reading an assigned partition from another position. What was fetched of it and not
// yet polled is dropped. Kafka: seek.
func (k *Consumer) Seek(tp TopicPartition, at Position) error {
	if err := at.check(tp); err != nil {
		return fmt.Errorf("seek: %w", err)
	}
	found := false
	k.change(func(s *prefetch.Store[Record], _ time.Time) { found = s.Seek(prefetch.TopicPartition(tp), at.start) })
	switch {
	case k.ctx.Err() != nil:
		return fmt.Errorf("seek: %w", ErrClosed)
	case !found:
		return fmt.Errorf("seek: %w", &PartitionError{tp, ErrNotAssigned})
	}
	k.route()
	return nil
}

// Pause lets Poll return nothing of these partitions until Resume. They stay assigned. Partitions
// that are not assigned are passed over. Kafka: pause.
func (k *Consumer) Pause(partitions ...TopicPartition) { k.setPaused(partitions, true) }

// Resume ends Pause. Kafka: resume.
func (k *Consumer) Resume(partitions ...TopicPartition) { k.setPaused(partitions, false) }

func (k *Consumer) setPaused(partitions []TopicPartition, paused bool) {
	k.change(func(s *prefetch.Store[Record], _ time.Time) {
		for _, tp := range partitions {
			s.SetPaused(prefetch.TopicPartition(tp), paused)
		}
	})
}

// Assignment gives the partitions that are read, sorted.
func (k *Consumer) Assignment() []TopicPartition {
	k.mu.Lock()
	defer k.mu.Unlock()
	partitions := k.mu.ahead.Partitions()
	out := make([]TopicPartition, len(partitions))
	for i, tp := range partitions {
		out[i] = TopicPartition(tp)
	}
	return out
}

// reads tells whether all these partitions are read.
func (k *Consumer) reads(partitions iter.Seq[TopicPartition]) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for tp := range partitions {
		if !k.mu.ahead.Reads(prefetch.TopicPartition(tp)) {
			return false
		}
	}
	return true
}

// Position gives the offset that Poll returns next of a partition; false where it is not assigned
// or the start is not resolved yet. Kafka: position.
func (k *Consumer) Position(tp TopicPartition) (offset int64, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	spot, known := k.mu.ahead.Spot(prefetch.TopicPartition(tp))
	return spot.Offset, known
}

// Watermarks gives the first offset that a partition has and the offset behind the last one that
// consumers may read, as of the latest fetch; false before the first.
func (k *Consumer) Watermarks(tp TopicPartition) (low, high int64, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.ahead.Watermarks(prefetch.TopicPartition(tp))
}

// Poll returns records of one partition, at least one and at most max.poll.records, waiting until
// there are some; partitions take turns. The slice and what it holds are the caller's to keep.
//
// Errors: ctx's when it ends first, with what has kept records from coming where something has (no broker, an unknown
// topic, nothing assigned); ErrClosed; a *PartitionError for a partition that cannot be
// read on without the program's decision, for instance with ErrOffsetOutOfRange after
// NoAutoOffsetReset: it is returned once and the partition stands still until Seek or Assign,
// while the others go on; ErrAuthentication, once for each attempt, of which a later Poll lets there be another.
// Whatever may pass is retried and not returned.
func (k *Consumer) Poll(ctx context.Context) ([]Record, error) {
	if err := k.beginPoll(); err != nil {
		return nil, err
	}
	defer k.endPoll()
	for {
		records, err := k.takeReady()
		if records != nil || err != nil {
			return records, err
		}
		select {
		case <-k.news:
		case <-ctx.Done():
			return nil, fmt.Errorf("poll: %w", because(ctx, k.trouble()))
		case <-k.ctx.Done():
			return nil, fmt.Errorf("poll: %w", ErrClosed)
		}
	}
}

// because is ctx's error, with what has kept us waiting where that is known.
func because(ctx context.Context, why error) error {
	if why == nil {
		return context.Cause(ctx)
	}
	return fmt.Errorf("%w: %w", context.Cause(ctx), why)
}

// trouble is what keeps records from coming, other than that there are none.
func (k *Consumer) trouble() error {
	k.mu.Lock()
	first, leaderless := k.mu.ahead.Leaderless()
	nothing := len(k.mu.ahead.Partitions()) == 0
	var failed error
	for _, f := range k.mu.fetchers {
		failed = cmp.Or(f.failed, failed)
	}
	k.mu.Unlock()
	tp, s := TopicPartition(first), k.c.meta.Snapshot()
	switch err := k.c.meta.Err(); {
	case nothing && k.begin == nil:
		return errors.New("no partitions are assigned (Assign, AssignTopic)")
	case err != nil || !leaderless:
		return cmp.Or(err, failed)
	}
	t, p := s.Partition(tp.Topic, tp.Partition)
	switch {
	case t != nil && t.Err != nil:
		return &PartitionError{tp, t.Err}
	case t == nil || p == nil:
		return &PartitionError{tp, ErrUnknownTopicOrPartition}
	default:
		return &PartitionError{tp, ErrLeaderNotAvailable}
	}
}

// beginPoll keeps other calls of Poll out until endPoll.
func (k *Consumer) beginPoll() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.polling {
		return fmt.Errorf("poll: %w", ErrConcurrentPoll)
	}
	k.mu.polling = true
	k.meter.PollBegan(time.Now())
	return nil
}

func (k *Consumer) endPoll() {
	k.meter.PollEnded(time.Now())
	k.mu.Lock()
	defer k.mu.Unlock()
	k.mu.polling = false
}

// takeReady gives what there is, without waiting.
func (k *Consumer) takeReady() (records []Record, err error) {
	k.change(func(s *prefetch.Store[Record], _ time.Time) {
		if k.mu.closed {
			err = fmt.Errorf("poll: %w", ErrClosed)
			return
		}
		if k.mu.refused != nil {
			err, k.mu.refused = fmt.Errorf("poll: %w", k.mu.refused), nil
			k.c.meta.Update()
			return
		}
		var tp prefetch.TopicPartition
		if tp, records, err = s.Take(); err != nil {
			err = &PartitionError{TopicPartition(tp), err}
		}
	})
	return records, err
}

// refuse lets Poll tell that client and brokers do not believe each other. Nobody is asked until it has: attempts may
// cost the user the account.
func (k *Consumer) refuse(err error) {
	k.mu.Lock()
	k.mu.refused = err
	k.mu.Unlock()
	k.tell()
}

// refusal gives what Poll has yet to tell.
func (k *Consumer) refusal() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.mu.refused
}

// tell lets Poll look again.
func (k *Consumer) tell() {
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// Close ends reading. A Poll that waits returns ErrClosed.
func (k *Consumer) Close() error {
	k.mu.Lock()
	already := k.mu.closed
	k.mu.closed = true
	k.mu.Unlock()
	if already {
		return nil
	}
	k.c.meta.Unregister(k.user)
	k.cancel(ErrClosed)
	k.links.Close()
	k.wg.Wait()
	k.meter.Close()
	return nil
}

// wantedTopics keeps the assigned topics in the metadata. Reading never creates one.
func (k *Consumer) wantedTopics(time.Time) cluster.Wanted {
	partitions := k.Assignment()
	names := make([]string, len(partitions))
	for i, tp := range partitions {
		names[i] = tp.Topic
	}
	return cluster.Wanted{Names: names}
}

// route takes in what the metadata says now.
func (k *Consumer) route() {
	now := k.c.meta.Snapshot()
	leader := func(tp prefetch.TopicPartition) (prefetch.Leader, bool) {
		t, p := now.Partition(tp.Topic, tp.Partition)
		if p == nil || p.Leader < 0 {
			return prefetch.Leader{}, false
		}
		return prefetch.Leader{TopicID: t.ID, Node: p.Leader, Epoch: p.LeaderEpoch}, true
	}
	known := func(node int32) bool {
		_, ok := now.Brokers[node]
		return ok
	}
	k.change(func(s *prefetch.Store[Record], _ time.Time) { s.Route(leader, known) })
}

func compareTP(a, b TopicPartition) int {
	return prefetch.Compare(prefetch.TopicPartition(a), prefetch.TopicPartition(b))
}
