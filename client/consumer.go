package client

import (
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"barnabas/client/internal/cluster"
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
	user    *cluster.User
	checker *batch.Checker

	ctx    context.Context // ends with Close
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	news   chan struct{} // one slot: Poll may find something

	mu struct { // never held while asking, decoding or waiting
		sync.Mutex
		closed   bool
		polling  bool
		cursors  map[TopicPartition]*cursor
		fetchers map[int32]*fetcher
		ready    []*cursor // with chunks, in turn
		pending  int       // bytes of all cursors
	}
}

// cursor is a partition that is being read. The consumer's lock guards it. A cursor whose position
// is set anew is replaced by another, so what is under way for the old one is recognised and dropped.
type cursor struct {
	tp      TopicPartition
	topicID [16]byte
	leader  int32 // -1: none known
	epoch   int32 // of the leader, as the metadata has it

	start     Position // to be resolved by asking the leader; positionNone once it has been
	next      int64    // offset to fetch
	nextEpoch int32    // leader epoch of the batch before next; -1 unknown
	validate  bool     // a new leader is to confirm that it has what lies before next (KIP-320)
	position  int64    // offset that Poll returns next; -1 until known
	lastRead  int32    // leader epoch of the record before position; -1 unknown
	committed int64    // position as last committed by a group; -1 unknown
	chunks    []chunk  // fetched and decoded
	pending   int      // bytes fetched and not yet returned by Poll, decoded or not
	waiting   bool     // in Consumer.ready
	busy      bool     // in a request
	holder    *fetcher // has an answer of it that is not decoded yet
	paused    bool
	stopped   bool // an error was reported; Seek or Assign starts it again
	dropped   bool // not assigned any more
	failures  int
	notUntil  time.Time

	logStart      int64
	highWatermark int64
}

// chunk is what one response held of a partition.
type chunk struct {
	records []Record
	bytes   int
	next    int64 // offset behind it
	err     error // what was found wrong behind the records
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
	k := &Consumer{c: c, cfg: cfg, links: cluster.NewLinks(c.cluster), checker: batch.NewChecker(), news: make(chan struct{}, 1)}
	k.ctx, k.cancel = context.WithCancelCause(c.ctx)
	k.mu.cursors = map[TopicPartition]*cursor{}
	k.mu.fetchers = map[int32]*fetcher{}
	k.user = &cluster.User{Wanted: k.wantedTopics, Changed: k.metadataChanged}
	c.meta.Register(k.user)
	return k, nil
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
	k.mu.Lock()
	if k.mu.closed {
		k.mu.Unlock()
		return fmt.Errorf("assign: %w", ErrClosed)
	}
	for _, old := range k.mu.cursors {
		k.dropLocked(old)
	}
	clear(k.mu.cursors)
	for tp, at := range partitions {
		k.mu.cursors[tp] = newCursor(tp, at)
	}
	k.mu.Unlock()
	k.route()
	return nil
}

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

// own adds partitions to what is read, from where the group has committed.
func (k *Consumer) own(partitions []TopicPartition) {
	k.mu.Lock()
	for _, tp := range partitions {
		if k.mu.cursors[tp] == nil {
			k.mu.cursors[tp] = newCursor(tp, Position{kind: positionCommitted})
		}
	}
	k.mu.Unlock()
	k.route()
}

// disown takes partitions out of what is read.
func (k *Consumer) disown(partitions []TopicPartition) {
	k.mu.Lock()
	for _, tp := range partitions {
		if cur := k.mu.cursors[tp]; cur != nil {
			k.dropLocked(cur)
			delete(k.mu.cursors, tp)
		}
	}
	k.wakeFetchersLocked()
	k.mu.Unlock()
}

func (p Position) check(tp TopicPartition) error {
	if p.kind == positionNone || p.kind == positionOffset && p.number < 0 {
		return &PartitionError{tp, fmt.Errorf("cannot start at %v: %w", p, ErrOffsetOutOfRange)}
	}
	return nil
}

func newCursor(tp TopicPartition, at Position) *cursor {
	cur := &cursor{tp: tp, leader: -1, epoch: -1, position: -1, nextEpoch: -1, lastRead: -1, committed: -1, start: at, logStart: -1, highWatermark: -1}
	if at.kind == positionOffset {
		cur.start = Position{}
		cur.next, cur.position = at.number, at.number
	}
	return cur
}

// dropLocked forgets what a cursor holds.
func (k *Consumer) dropLocked(cur *cursor) {
	cur.dropped = true
	k.mu.pending -= cur.pending
	cur.pending, cur.chunks = 0, nil
	if cur.waiting {
		k.mu.ready = slices.DeleteFunc(k.mu.ready, func(other *cursor) bool { return other == cur })
	}
}

// Seek goes on reading an assigned partition from another position. What was fetched of it and not
// yet polled is dropped. Kafka: seek.
func (k *Consumer) Seek(tp TopicPartition, at Position) error {
	if err := at.check(tp); err != nil {
		return fmt.Errorf("seek: %w", err)
	}
	k.mu.Lock()
	old := k.mu.cursors[tp]
	if old == nil {
		k.mu.Unlock()
		return fmt.Errorf("seek: %w", &PartitionError{tp, ErrNotAssigned})
	}
	k.dropLocked(old)
	cur := newCursor(tp, at)
	cur.paused = old.paused
	k.mu.cursors[tp] = cur
	k.mu.Unlock()
	k.route()
	return nil
}

// Pause lets Poll return nothing of these partitions until Resume. They stay assigned. Partitions
// that are not assigned are passed over. Kafka: pause.
func (k *Consumer) Pause(partitions ...TopicPartition) { k.setPaused(partitions, true) }

// Resume ends Pause. Kafka: resume.
func (k *Consumer) Resume(partitions ...TopicPartition) { k.setPaused(partitions, false) }

func (k *Consumer) setPaused(partitions []TopicPartition, paused bool) {
	k.mu.Lock()
	for _, tp := range partitions {
		if cur := k.mu.cursors[tp]; cur != nil {
			cur.paused = paused
			k.enlistLocked(cur)
		}
	}
	k.mu.Unlock()
	k.wakeFetchers()
	k.tell()
}

// Assignment gives the partitions that are read, sorted.
func (k *Consumer) Assignment() []TopicPartition {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.SortedFunc(maps.Keys(k.mu.cursors), compareTP)
}

// reads tells whether all these partitions are read.
func (k *Consumer) reads(partitions iter.Seq[TopicPartition]) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for tp := range partitions {
		if k.mu.cursors[tp] == nil {
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
	cur := k.mu.cursors[tp]
	if cur == nil || cur.position < 0 {
		return -1, false
	}
	return cur.position, true
}

// Watermarks gives the first offset that a partition has and the offset behind the last one that
// consumers may read, as of the latest fetch; false before the first.
func (k *Consumer) Watermarks(tp TopicPartition) (low, high int64, known bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	cur := k.mu.cursors[tp]
	if cur == nil || cur.highWatermark < 0 {
		return -1, -1, false
	}
	return cur.logStart, cur.highWatermark, true
}

// Poll returns records of one partition, at least one and at most max.poll.records, waiting until
// there are some; partitions take turns. The slice and what it holds are the caller's to keep.
//
// Errors: ctx's when it ends first; ErrClosed; a *PartitionError for a partition that cannot be
// read on without the program's decision, for instance with ErrOffsetOutOfRange after
// NoAutoOffsetReset: it is returned once and the partition stands still until Seek or Assign,
// while the others go on. Whatever may pass is retried and not returned.
func (k *Consumer) Poll(ctx context.Context) ([]Record, error) {
	end, err := k.beginPoll()
	if err != nil {
		return nil, err
	}
	defer end()
	for {
		records, err := k.takeReady()
		if records != nil || err != nil {
			return records, err
		}
		select {
		case <-k.news:
		case <-ctx.Done():
			return nil, fmt.Errorf("poll: %w", context.Cause(ctx))
		case <-k.ctx.Done():
			return nil, fmt.Errorf("poll: %w", ErrClosed)
		}
	}
}

// beginPoll keeps other calls of Poll out until end is called.
func (k *Consumer) beginPoll() (end func(), err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.polling {
		return nil, fmt.Errorf("poll: %w", ErrConcurrentPoll)
	}
	k.mu.polling = true
	return func() {
		k.mu.Lock()
		k.mu.polling = false
		k.mu.Unlock()
	}, nil
}

// takeReady gives what there is, without waiting.
func (k *Consumer) takeReady() ([]Record, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.mu.closed {
		return nil, fmt.Errorf("poll: %w", ErrClosed)
	}
	for len(k.mu.ready) > 0 {
		cur := k.mu.ready[0]
		k.mu.ready[0] = nil
		k.mu.ready = k.mu.ready[1:]
		cur.waiting = false
		if cur.paused {
			continue
		}
		records, err := k.takeLocked(cur)
		k.enlistLocked(cur)
		if records != nil || err != nil {
			return records, err
		}
	}
	return nil, nil
}

// takeLocked takes from the first chunk of a cursor.
func (k *Consumer) takeLocked(cur *cursor) ([]Record, error) {
	first := &cur.chunks[0]
	n := min(len(first.records), k.cfg.maxPoll)
	records := first.records[:n:n]
	first.records = first.records[n:]
	if n > 0 {
		cur.position, cur.lastRead = records[n-1].Offset+1, records[n-1].LeaderEpoch
	}
	if len(first.records) > 0 {
		return records, nil
	}
	// The chunk's error is returned by the Poll after that of its last record.
	if first.err != nil && n > 0 {
		return records, nil
	}
	done := *first
	cur.chunks[0] = chunk{}
	cur.chunks = cur.chunks[1:]
	cur.position = done.next
	full := cur.pending >= int(k.cfg.maxPartition)
	cur.pending -= done.bytes
	k.mu.pending -= done.bytes
	if full || k.mu.pending+done.bytes >= int(k.cfg.maxBytes) {
		k.wakeFetchersLocked()
	}
	if n == 0 {
		return nil, done.err
	}
	return records, nil
}

// enlistLocked puts a cursor that has something for Poll into the turn.
func (k *Consumer) enlistLocked(cur *cursor) {
	if len(cur.chunks) > 0 && !cur.waiting && !cur.paused && !cur.dropped {
		cur.waiting = true
		k.mu.ready = append(k.mu.ready, cur)
	}
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
	return nil
}

// wantedTopics keeps the assigned topics in the metadata. Reading never creates one.
func (k *Consumer) wantedTopics(time.Time) cluster.Wanted {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := make([]string, 0, len(k.mu.cursors))
	for tp := range k.mu.cursors {
		names = append(names, tp.Topic)
	}
	return cluster.Wanted{Names: names}
}

func (k *Consumer) metadataChanged(*cluster.Snapshot) { k.route() }

// route gives every cursor to the fetcher of its leader, starting fetchers where there are none.
func (k *Consumer) route() {
	s := k.c.meta.Snapshot()
	lost := false
	k.mu.Lock()
	if k.mu.closed {
		k.mu.Unlock()
		return
	}
	for _, cur := range k.mu.cursors {
		t, p := s.Partition(cur.tp.Topic, cur.tp.Partition)
		if p == nil || p.Leader < 0 {
			cur.leader = -1
			lost = true
			continue
		}
		if t.ID != cur.topicID && cur.topicID != [16]byte{} && !cur.stopped {
			k.stopLocked(cur, ErrTopicRecreated)
			continue
		}
		// A new leader may have less than the old one had.
		cur.validate = cur.validate || cur.nextEpoch >= 0 && p.LeaderEpoch > cur.epoch
		cur.topicID, cur.leader, cur.epoch = t.ID, p.Leader, p.LeaderEpoch
		if k.mu.fetchers[p.Leader] == nil {
			f := newFetcher(k, p.Leader)
			k.mu.fetchers[p.Leader] = f
			k.wg.Go(f.run)
		}
	}
	k.wakeFetchersLocked()
	k.mu.Unlock()
	if lost {
		k.c.meta.Update()
	}
	k.tell()
}

// stopLocked reads a partition no further, and lets Poll return the error behind the records that
// it has yet to return.
func (k *Consumer) stopLocked(cur *cursor, err error) {
	cur.stopped = true
	at := cur.next
	if cur.start.kind != positionNone {
		at = -1
	}
	cur.chunks = append(cur.chunks, chunk{next: at, err: &PartitionError{cur.tp, err}})
	k.enlistLocked(cur)
}

// addLocked appends what a response held, before the error of a cursor that was stopped meanwhile.
func (cur *cursor) addLocked(c chunk) {
	at := len(cur.chunks)
	if cur.stopped && at > 0 && cur.chunks[at-1].err != nil {
		at--
	}
	cur.chunks = slices.Insert(cur.chunks, at, c)
}

func (k *Consumer) wakeFetchers() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wakeFetchersLocked()
}

func (k *Consumer) wakeFetchersLocked() {
	for _, f := range k.mu.fetchers {
		f.signal()
	}
}
