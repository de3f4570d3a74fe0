package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/client/internal/cluster"
	"barnabas/internal/batch"
)

// Producer sends records. It follows the five steps of Kafka's own producer, and each is a file:
//
//	(a) sender.go       a sender for each broker, with a connection that stays
//	(b) partition.go    serialise, then choose the partition
//	(c) accumulator.go  append to the partition's queue of batches; a full one wakes the sender
//	(d) metadata.go     who leads the partition (shared by all of a Client)
//	(e) idempotence.go  producer id and sequences: a retry neither repeats nor reorders
//	(f) callbacks.go    the response runs the callback given to Send, in the partition's order
//
// A Producer is safe for concurrent use, and one is enough for a program. Close it.
type Producer struct {
	c         *Client
	cfg       producerConfig
	links     *cluster.Links
	user      *cluster.User
	memory    *bufferMemory
	checker   *batch.Checker
	identity  *identity
	callbacks *callbacks
	linger    lingering
	builders  sync.Pool // of *batch.Builder

	ctx    context.Context // ends when Close gives up
	cancel context.CancelCauseFunc
	closed chan struct{} // closed when Close begins
	ended  atomic.Bool   // no record is taken any more, for queue.append: here or Client.Close has begun
	wg     sync.WaitGroup

	mu struct { // never held while waiting; queue.mu may be held when it is taken, not the reverse
		sync.Mutex
		closing  bool // Close has begun
		closed   bool // no sender may be started any more
		senders  map[int32]*sender
		homeless map[*queue]bool // their leader is not known
	}
	topics struct {
		byName atomic.Pointer[map[string]*producerTopic] // replaced under mu, never changed
		sync.Mutex
	}
}

// producerTopic is what the producer keeps of a topic.
type producerTopic struct {
	producer *Producer
	name     string
	counter  atomic.Uint32 // of step (b), for records without a key
	lastUse  atomic.Int64  // Unix ms
	queues   atomic.Pointer[[]*queue]
	mu       sync.Mutex // guards growing queues
}

// NewProducer makes a producer. It waits for nothing and fails only on a wrong option.
func (c *Client) NewProducer(options ...ProducerOption) (*Producer, error) {
	cfg := defaultProducerConfig()
	for _, o := range options {
		if err := o(&cfg); err != nil {
			return nil, fmt.Errorf("producer: %w", err)
		}
	}
	if err := cfg.check(&c.cfg); err != nil {
		return nil, fmt.Errorf("producer: %w", err)
	}
	if c.ctx.Err() != nil {
		return nil, fmt.Errorf("producer: %w", ErrClosed)
	}
	p := &Producer{
		c: c, cfg: cfg, links: cluster.NewLinks(c.cluster), memory: newBufferMemory(cfg.bufferBytes),
		checker: batch.NewChecker(), closed: make(chan struct{}),
	}
	p.ctx, p.cancel = context.WithCancelCause(c.ctx)
	p.mu.senders = map[int32]*sender{}
	p.mu.homeless = map[*queue]bool{}
	p.topics.byName.Store(&map[string]*producerTopic{})
	p.identity = newIdentity(p)
	p.callbacks = newCallbacks(p)
	context.AfterFunc(p.ctx, func() { p.ended.Store(true) })
	p.wg.Go(p.callbacks.run)
	p.wg.Go(p.expire)
	p.user = &cluster.User{Wanted: p.wantedTopics, Changed: p.metadataChanged}
	c.meta.Register(p.user)
	return p, nil
}

// Send hands a record over and returns; done, which may be nil, is called once with what became of
// it. Key, value and headers are copied before Send returns. Callbacks of a partition run in the
// order in which its records were sent, all on one goroutine: they must be quick, and neither
// Flush nor Close. ctx bounds only the wait inside Send, which may be for metadata of a topic seen
// for the first time and for memory (see MaxBlock).
//
// An error means that the record was not taken, and done is not called: ErrBufferFull,
// ErrRecordTooLarge, ErrNoSuchPartition, ErrClosed, ctx's, or why the topic cannot be written to
// (ErrUnknownTopicOrPartition, ErrInvalidTopic, ErrTopicAuthorizationFailed).
func (p *Producer) Send(ctx context.Context, r ProducerRecord, done func(RecordMetadata, error)) error {
	err := p.send(ctx, &r, done)
	if err != nil {
		return fmt.Errorf("send to topic %q: %w", r.Topic, err)
	}
	return nil
}

// SendSync sends a record and waits until it is acknowledged. When ctx ends first the record may
// yet be written.
func (p *Producer) SendSync(ctx context.Context, r ProducerRecord) (RecordMetadata, error) {
	type outcome struct {
		where RecordMetadata
		err   error
	}
	result := make(chan outcome, 1)
	if err := p.Send(ctx, r, func(m RecordMetadata, err error) { result <- outcome{m, err} }); err != nil {
		return RecordMetadata{}, err
	}
	select {
	case o := <-result:
		return o.where, o.err
	case <-ctx.Done():
		return RecordMetadata{}, fmt.Errorf("send to topic %q: %w", r.Topic, context.Cause(ctx))
	}
}

func (p *Producer) send(ctx context.Context, r *ProducerRecord, done func(RecordMetadata, error)) error {
	if r.Topic == "" {
		return ErrInvalidTopic
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	now := time.Now()
	deadline := now.Add(p.cfg.maxBlock)
	bytes := recordBytes(r)
	if bytes+batch.HeaderBytes > int64(p.cfg.requestBytes) {
		return fmt.Errorf("%w: %d bytes", ErrRecordTooLarge, bytes)
	}
	t, partitions, err := p.awaitTopic(ctx, r.Topic, now, deadline)
	if err != nil {
		return err
	}
	partition, err := t.choosePartition(r.Partition, r.Key, r.Value, partitions)
	if err != nil {
		return fmt.Errorf("%w: it has %d partitions", err, partitions)
	}
	if !p.memory.tryTake(bytes) {
		if err := p.memory.take(ctx, bytes, deadline, p.closed); err != nil {
			return err
		}
		now = time.Now()
	}
	if !t.queue(partition, partitions).append(r, done, bytes, now) {
		p.memory.release(bytes)
		return ErrClosed
	}
	return nil
}

// awaitTopic gives the topic and its number of partitions, waiting for metadata until the deadline
// where they are not known yet.
func (p *Producer) awaitTopic(ctx context.Context, name string, now, deadline time.Time) (*producerTopic, int32, error) {
	t := p.topic(name)
	if ms := now.UnixMilli(); t.lastUse.Load()+1000 < ms {
		t.lastUse.Store(ms)
	}
	if info := p.c.meta.Snapshot().Topics[name]; info != nil && len(info.Partitions) > 0 {
		return t, int32(len(info.Partitions)), nil
	}
	return t.awaitMetadata(ctx, deadline)
}

func (t *producerTopic) awaitMetadata(ctx context.Context, deadline time.Time) (*producerTopic, int32, error) {
	p := t.producer
	limited, cancel := context.WithDeadlineCause(ctx, deadline, errors.New("max.block.ms has passed"))
	defer cancel()
	stop := context.AfterFunc(p.ctx, cancel)
	defer stop()
	var last error
	s, err := p.c.meta.Await(limited, func(s *cluster.Snapshot) (bool, error) {
		info := s.Topics[t.name]
		if info == nil {
			return false, nil
		}
		if last = info.Err; last != nil && !retriable(last) {
			return false, last
		}
		return len(info.Partitions) > 0, nil
	})
	switch {
	case err == nil:
		return t, int32(len(s.Topics[t.name].Partitions)), nil
	case p.ctx.Err() != nil:
		return nil, 0, ErrClosed
	case last != nil && !errors.Is(err, last):
		return nil, 0, fmt.Errorf("%w: %w", err, last)
	default:
		return nil, 0, err
	}
}

// topic gives what the producer keeps of a topic, making it at the first record.
func (p *Producer) topic(name string) *producerTopic {
	if t := (*p.topics.byName.Load())[name]; t != nil {
		return t
	}
	p.topics.Lock()
	defer p.topics.Unlock()
	known := *p.topics.byName.Load()
	if t := known[name]; t != nil {
		return t
	}
	t := &producerTopic{producer: p, name: name}
	t.counter.Store(p.c.random.Uint32())
	t.queues.Store(&[]*queue{})
	next := maps.Clone(known)
	next[name] = t
	p.topics.byName.Store(&next)
	return t
}

// queue gives the queue of a partition; partitions is how many the topic has.
func (t *producerTopic) queue(partition, partitions int32) *queue {
	if qs := *t.queues.Load(); int(partition) < len(qs) {
		return qs[partition]
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	qs := slices.Clone(*t.queues.Load())
	for n := int32(len(qs)); n < max(partitions, partition+1); n++ {
		qs = append(qs, newQueue(t, n))
	}
	t.queues.Store(&qs)
	return qs[partition]
}

// eachQueue visits all queues, in no order that means anything.
func (p *Producer) eachQueue(visit func(*queue)) {
	for _, t := range *p.topics.byName.Load() {
		for _, q := range *t.queues.Load() {
			visit(q)
		}
	}
}

// wantedTopics keeps the topics in use in the metadata (metadata.max.idle.ms).
func (p *Producer) wantedTopics(now time.Time) cluster.Wanted {
	var names []string
	for name, t := range *p.topics.byName.Load() {
		if now.UnixMilli()-t.lastUse.Load() <= p.c.cfg.metadataMaxIdle.Milliseconds() || t.busy() {
			names = append(names, name)
		}
	}
	return cluster.Wanted{Names: names, MayCreate: p.c.cfg.allowAutoCreation}
}

func (t *producerTopic) busy() bool {
	return slices.ContainsFunc(*t.queues.Load(), func(q *queue) bool { return !q.empty() })
}

// metadataChanged finds a sender for those that had none, and moves those whose leader is another.
func (p *Producer) metadataChanged(*cluster.Snapshot) {
	p.mu.Lock()
	moved := slices.Collect(maps.Keys(p.mu.homeless))
	clear(p.mu.homeless)
	senders := slices.Collect(maps.Values(p.mu.senders))
	p.mu.Unlock()
	for _, s := range senders {
		moved = append(moved, s.misplaced()...)
	}
	for _, q := range moved {
		p.route(q)
	}
}

// route puts a queue that has something to send on the list of its leader's sender. The queue
// must be marked as scheduled, so that it is in one place only.
func (p *Producer) route(q *queue) {
	leader, known := p.leader(q)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return
	}
	if !known {
		p.mu.homeless[q] = true
		p.c.meta.Update()
		return
	}
	s := p.mu.senders[leader]
	if s == nil {
		s = newSender(p, leader)
		p.mu.senders[leader] = s
		p.wg.Go(s.run)
		p.wg.Go(s.receive)
	}
	s.enlist(q)
}

func (p *Producer) leader(q *queue) (node int32, known bool) {
	s := p.c.meta.Snapshot()
	_, part := s.Partition(q.topic.name, q.partition)
	if part == nil || part.Leader < 0 {
		return -1, false
	}
	_, reachable := s.Brokers[part.Leader]
	return part.Leader, reachable
}

// Flush sends at once what is waiting, and returns when every record that was given to Send
// before has been acknowledged or given up and its callback has run. It does not say whether they
// succeeded: the callbacks do.
func (p *Producer) Flush(ctx context.Context) error {
	var ends []<-chan struct{}
	p.eachQueue(func(q *queue) {
		if end := q.flush(); end != nil {
			ends = append(ends, end)
		}
	})
	for _, end := range ends {
		select {
		case <-end:
		case <-ctx.Done():
			return fmt.Errorf("flush: %w", context.Cause(ctx))
		case <-p.ctx.Done():
			return fmt.Errorf("flush: %w", ErrClosed)
		}
	}
	if err := p.callbacks.await(ctx); err != nil {
		return fmt.Errorf("flush: %w", err)
	}
	return nil
}

// Close takes no more records, waits until what was sent is acknowledged or ctx ends, and then
// gives up the rest, whose callbacks run with ErrClosed before Close returns. It returns ctx's
// error where something had to be given up. Kafka: close(timeout).
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.mu.closing
	p.mu.closing = true
	p.mu.Unlock()
	if !first {
		return nil
	}
	p.ended.Store(true)
	close(p.closed)
	err := p.Flush(ctx) // visits each queue under its lock, so it sees all that was taken

	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	p.c.meta.Unregister(p.user)
	p.cancel(ErrClosed)
	p.links.Close()
	p.linger.stop()
	p.eachQueue(func(q *queue) { q.abandon(ErrClosed) })
	p.callbacks.end()
	p.wg.Wait()
	if err != nil {
		return fmt.Errorf("close: records were given up: %w", err)
	}
	return nil
}

// expire gives up what has been tried for longer than delivery.timeout.ms.
func (p *Producer) expire() {
	every := min(max(p.cfg.deliveryTimeout/100, 5*time.Millisecond), time.Second)
	for cluster.Sleep(p.ctx, every) == nil {
		now := time.Now()
		p.eachQueue(func(q *queue) { q.expire(now) })
	}
}
