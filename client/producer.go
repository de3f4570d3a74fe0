package client

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/client/internal/accumulator"
	"barnabas/client/internal/cluster"
	"barnabas/client/internal/telemetry"
	"barnabas/internal/batch"
)

// Producer sends records. It follows the five steps of Kafka's own producer, and each is a file:
//
//	1  connect.go    (a) a sender for each broker, with a connection that stays
//	2  partition.go  (b) serialise, then choose the partition
//	3  append.go     (c) append to the partition's queue of batches; a full one wakes the sender
//	4  send.go       (d) to the partition's leader, (e) in order: numbered, so that a retry neither
//	                 repeats nor reorders
//	5  response.go   (f) the response runs the callback given to Send, in the partition's order
//
// With TransactionalID what it sends belongs to transactions, see InitTransactions.
//
// A Producer is safe for concurrent use, and one is enough for a program. Close it.
type Producer struct {
	c         *Client
	cfg       producerConfig
	links     *cluster.Links
	meter     *telemetry.Meter
	user      *cluster.User
	memory    *accumulator.Memory
	acc       *accumulator.Accumulator[callback]
	identity  *identity
	txn       *transactions // nil without TransactionalID
	callbacks *callbacks

	ctx    context.Context // ends when Close gives up
	cancel context.CancelCauseFunc
	closed chan struct{} // closed when Close begins
	wg     sync.WaitGroup

	mu struct { // never held while waiting; a queue's lock may be held when it is taken, not the reverse
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

// callback is what is to be told of a record; what Send was given.
type callback = func(RecordMetadata, error)

type (
	queue         = accumulator.Queue[callback]
	producerBatch = accumulator.Batch[callback]
)

// keptForFields is what a request may have beside batches of max.request.size for its buffer to be kept.
const keptForFields = 64 << 10

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
	meter := c.pusher.Meter(telemetry.Labels{Kind: telemetry.Producer, TransactionalID: cfg.transactionalID})
	p := &Producer{
		c: c, cfg: cfg, meter: meter, links: cluster.NewLinks(c.cluster, meter), memory: accumulator.NewMemory(cfg.bufferBytes),
		closed: make(chan struct{}),
	}
	p.links.KeepBytes = cfg.requestBytes + keptForFields
	p.ctx, p.cancel = context.WithCancelCause(c.ctx)
	p.mu.senders = map[int32]*sender{}
	p.mu.homeless = map[*queue]bool{}
	p.topics.byName.Store(&map[string]*producerTopic{})
	p.identity = newIdentity(p)
	p.callbacks = newCallbacks(p)
	if cfg.transactionalID != "" {
		p.txn = newTransactions(p, cfg.transactionalID)
	}
	p.acc = accumulator.New(cfg.accumulator(c), p.hooks())
	context.AfterFunc(p.ctx, p.acc.Refuse)
	p.wg.Go(p.callbacks.run)
	p.wg.Go(p.expire)
	p.user = &cluster.User{Wanted: p.wantedTopics, Changed: p.metadataChanged, Refused: p.metadataRefused}
	c.meta.Register(p.user)
	return p, nil
}

// hooks ties the accumulator to the other steps.
func (p *Producer) hooks() accumulator.Hooks[callback] {
	h := accumulator.Hooks[callback]{
		Route:         p.route,
		Identity:      p.identity.current,
		AwaitIdentity: p.identity.park,
		Ended:         p.callbacks.add,
		Failed:        func(error) {},
		AfterFailed:   func() {},
		Closing:       func() bool { return p.ctx.Err() != nil },
	}
	if p.txn != nil {
		h.Identity, h.AwaitIdentity = p.txn.identity, p.txn.park
		h.Failed, h.AfterFailed = p.txn.batchFailed, p.txn.drop
		h.Admits = p.txn.admits
	}
	return h
}

// Send hands a record over and returns; done, which may be nil, is called once with what became of
// it. Key, value and headers are copied before Send returns. Callbacks of a partition run in the
// order in which its records were sent, all on one goroutine: they must be quick, and neither
// Flush nor Close; one that sends while BufferMemory is used up waits for memory that only the callbacks behind it give
// back, so with WaitWhenFull it waits for ever. ctx bounds only the wait inside Send, which may be for metadata of a topic seen
// for the first time and for memory (see MaxBlock).
//
// An error means that the record was not taken, and done is not called: ErrBufferFull,
// ErrRecordTooLarge, ErrNoSuchPartition, ErrClosed, ctx's, with TransactionalID ErrTransactionState
// outside of a transaction, or where it ended while Send waited, and ErrTransactionAborted in one that can only be aborted, or why the topic cannot be written to
// (ErrUnknownTopicOrPartition, ErrInvalidTopic, ErrTopicAuthorizationFailed). A record of a transaction that is not taken
// fails the transaction, whatever the error, so that Commit cannot leave it out.
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
	if p.txn == nil {
		return p.take(ctx, r, 0, done)
	}
	of, err := p.txn.current()
	if err != nil {
		return err
	}
	if err = p.take(ctx, r, of, done); err != nil {
		p.txn.notTaken(of, err)
	}
	return err
}

// take appends a record, of a transaction where there are such.
func (p *Producer) take(ctx context.Context, r *ProducerRecord, of int64, done func(RecordMetadata, error)) error {
	if r.Topic == "" {
		return fmt.Errorf("%w: the record names none", ErrInvalidTopic)
	}
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	now := time.Now()
	deadline := now.Add(p.cfg.maxBlock)
	bytes := recordBytes(r)
	if bytes+batch.HeaderBytes > int64(p.cfg.requestBytes) {
		return fmt.Errorf("%w: %d bytes, max.request.size is %d (MaxRequestSize)", ErrRecordTooLarge, bytes, p.cfg.requestBytes)
	}
	t, partitions, err := p.awaitTopic(ctx, r.Topic, now, deadline)
	if err != nil {
		return err
	}
	chosen, err := t.partitioner.choose(r.Topic, r, partitions, t)
	if _, named := r.Partition.Get(); named && err != nil {
		partitions = t.renewed(ctx, partitions, deadline) // it may have got more
		chosen, err = t.partitioner.choose(r.Topic, r, partitions, t)
	}
	if err != nil {
		return fmt.Errorf("%w: it has %d partitions", err, partitions)
	}
	if !p.memory.TryTake(bytes) {
		if err := p.awaitMemory(ctx, bytes, deadline); err != nil {
			return err
		}
		now = time.Now()
	}
	result := p.append(t.queue(chosen.partition, partitions), r, of, done, bytes, now)
	switch result {
	case accumulator.Refused:
		p.memory.Release(bytes)
		return ErrClosed
	case accumulator.Late:
		p.memory.Release(bytes)
		return p.txn.late()
	}
	t.partitioner.appended(chosen, bytes, result == accumulator.Full, partitions, t)
	return nil
}

func (p *Producer) allQueues() (all []*queue) {
	p.eachQueue(func(q *queue) { all = append(all, q) })
	return all
}

// eachQueue visits all queues, in no order that means anything.
func (p *Producer) eachQueue(visit func(*queue)) {
	for _, t := range *p.topics.byName.Load() {
		for _, q := range *t.queues.Load() {
			visit(q)
		}
	}
}

// Flush sends at once what is waiting, and returns when every record that was given to Send
// before has been acknowledged or given up and its callback has run. It does not say whether they
// succeeded: the callbacks do.
func (p *Producer) Flush(ctx context.Context) error {
	var ends []<-chan struct{}
	now := time.Now()
	p.eachQueue(func(q *queue) {
		if end := q.Flush(now); end != nil {
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
// error where something had to be given up. A transaction that is open it aborts. Kafka: close(timeout).
func (p *Producer) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.mu.closing
	p.mu.closing = true
	p.mu.Unlock()
	if !first {
		return nil
	}
	if p.txn != nil {
		p.txn.close(ctx)
		p.txn.asks.Close()
	}
	p.acc.Refuse()
	close(p.closed)
	err := p.Flush(ctx) // visits each queue under its lock, so it sees all that was taken
	left := p.c.ctx.Err() != nil
	p.eachQueue(func(q *queue) { left = left || !q.Empty() })

	p.mu.Lock()
	p.mu.closed = true
	p.mu.Unlock()
	p.c.meta.Unregister(p.user)
	p.cancel(ErrClosed)
	p.links.Close()
	p.acc.Stop()
	p.eachQueue(func(q *queue) { q.Abandon(ErrClosed) })
	p.callbacks.end()
	p.wg.Wait()
	p.meter.Close()
	if err != nil && left {
		return fmt.Errorf("close: records were given up: %w", err)
	}
	return nil
}

// expire gives up what has been tried for longer than delivery.timeout.ms.
func (p *Producer) expire() {
	every := min(max(p.cfg.deliveryTimeout/100, 5*time.Millisecond), time.Second)
	for cluster.Sleep(p.ctx, every) == nil {
		now := time.Now()
		p.eachQueue(func(q *queue) { q.Expire(ErrDeliveryTimeout, now, p.unsent) })
		p.acc.Trim(now)
	}
}
