package client

import (
	"fmt"
	"sync"
	"time"

	"barnabas/internal/batch"
)

// queue is step (c): the batches of one topic-partition, in the order in which their records were
// sent. Appending takes its lock and no other; a batch that is full, or has lingered, puts the
// queue on the list of its leader's sender.
//
// From the front, the batches are: those that were sent and may have to be sent again; then those
// never sent, of which the last may still be open. They leave from the front only, so callbacks
// run in order whatever order the answers come in.
type queue struct {
	topic     *producerTopic
	partition int32

	mu struct { // never held while encoding a batch, sending or waiting
		sync.Mutex
		batches   []*producerBatch
		sequencer sequencer
		flying    int   // how many of the batches are in a request now
		flyingTo  int32 // the node, where flying is above 0
		scheduled bool  // on a sender's list, homeless, or awaiting a producer id or a timer
		failures  int   // in a row
		notUntil  time.Time
		headers   []batch.Header // of the record being appended
	}
}

type batchState int8

const (
	batchOpen   batchState = iota // takes records
	batchReady                    // has lingered: takes records until the sender takes it
	batchClosed                   // full
	batchFlying                   // in a request
	batchAgain                    // was in a request that failed
	batchDone                     // acknowledged or given up
)

// producerBatch is a batch on its way, with what its records' callbacks need. Its queue's lock
// guards it, but while it is flying its sender has builder and built.
type producerBatch struct {
	queue    *queue
	builder  *batch.Builder // until it is first sent
	built    batch.Batch    // from then on
	records  []sentRecord
	memory   int64 // of buffer.memory
	born     time.Time
	deadline time.Time
	state    batchState
	number   batchNumber
	retried  bool  // has been refused or lost once
	last     error // of the latest attempt
	reported bool  // handed to callbacks; may be flying nevertheless
	outcome  outcome
	end      chan struct{} // made by Flush, closed when reported
}

// sentRecord is what is left of a record once it has been serialised.
type sentRecord struct {
	done        func(RecordMetadata, error)
	timestampMs int64
}

// outcome is what became of a batch.
type outcome struct {
	baseOffset   int64 // -1: unknown
	appendTimeMs int64 // -1: the records' own timestamps count
	err          error
	perRecord    map[int32]error // with err: those of single records
	hinted       bool            // with err: the new leader is already known
}

func newQueue(t *producerTopic, partition int32) *queue {
	q := &queue{topic: t, partition: partition}
	q.mu.sequencer = newSequencer()
	return q
}

func (q *queue) tp() TopicPartition { return TopicPartition{q.topic.name, q.partition} }

// recordOverhead bounds what a record takes beside key, value and headers: a length of up to 5
// bytes, attributes, a timestamp of up to 10, an offset of up to 5, three lengths of up to 5.
const recordOverhead = 36

// recordBytes is what a record counts for, at most and before compression.
func recordBytes(r *ProducerRecord) int64 {
	n := int64(recordOverhead + len(r.Key) + len(r.Value))
	for i := range r.Headers {
		n += int64(10 + len(r.Headers[i].Key) + len(r.Headers[i].Value))
	}
	return n
}

// append serialises a record into the last batch, or into a new one where it does not fit. It is
// false where the producer has been closed.
func (q *queue) append(r *ProducerRecord, done func(RecordMetadata, error), bytes int64, now time.Time) bool {
	p := q.topic.producer
	timestampMs := now.UnixMilli()
	if !r.Timestamp.IsZero() {
		timestampMs = r.Timestamp.UnixMilli()
	}
	q.mu.Lock()
	if p.ended.Load() {
		q.mu.Unlock()
		return false
	}
	q.mu.headers = appendHeaders(q.mu.headers[:0], r.Headers)
	b, fresh := q.batchForLocked(r, timestampMs, now)
	b.builder.Append(timestampMs, r.Key, r.Value, q.mu.headers)
	b.records = append(b.records, sentRecord{done, timestampMs})
	b.memory += bytes
	if b.builder.UncompressedSize() >= p.cfg.batchBytes {
		b.state = batchClosed
	}
	lingers := fresh && b.state == batchOpen
	wake := q.scheduleLocked(now)
	q.mu.Unlock()
	if wake {
		p.route(q)
	}
	if lingers {
		p.linger.add(b)
	}
	return true
}

// batchForLocked gives the batch that the record goes into; a new one where it does not fit into
// the last, which is full then.
func (q *queue) batchForLocked(r *ProducerRecord, timestampMs int64, now time.Time) (b *producerBatch, fresh bool) {
	p := q.topic.producer
	if n := len(q.mu.batches); n > 0 {
		b = q.mu.batches[n-1]
		if b.state == batchOpen || b.state == batchReady {
			if b.builder.SizeWith(timestampMs, r.Key, r.Value, q.mu.headers) <= p.cfg.batchBytes {
				return b, false
			}
			b.state = batchClosed
		}
	}
	b = p.newBatch(q, now)
	if p.cfg.linger == 0 {
		b.state = batchReady
	}
	q.mu.batches = append(q.mu.batches, b)
	return b, true
}

func appendHeaders(dst []batch.Header, headers []Header) []batch.Header {
	for i := range headers {
		dst = append(dst, batch.Header{Key: []byte(headers[i].Key), Value: headers[i].Value})
	}
	return dst
}

func (p *Producer) newBatch(q *queue, now time.Time) *producerBatch {
	return &producerBatch{
		queue: q, builder: p.builder(), born: now, deadline: now.Add(p.cfg.deliveryTimeout), number: noNumber,
	}
}

// builder gives an empty builder, one that has been used where there is one.
func (p *Producer) builder() *batch.Builder {
	if b, ok := p.builders.Get().(*batch.Builder); ok {
		return b
	}
	return batch.NewBuilder(batch.BuilderOptions{Codec: p.cfg.codec, Levels: p.cfg.levels, Checker: p.checker})
}

// lingered marks a batch as ready although it is not full, and wakes the sender.
func (q *queue) lingered(b *producerBatch, now time.Time) {
	q.mu.Lock()
	wake := false
	if b.state == batchOpen {
		b.state = batchReady
		wake = q.scheduleLocked(now)
	}
	q.mu.Unlock()
	if wake {
		q.topic.producer.route(q)
	}
}

// scheduleLocked claims the queue for a sender's list: true where the caller is to route it once
// it has let go of the lock.
func (q *queue) scheduleLocked(now time.Time) bool {
	if q.mu.scheduled || q.nextLocked(now) == nil {
		return false
	}
	q.mu.scheduled = true
	if wait := q.mu.notUntil.Sub(now); wait > 0 {
		time.AfterFunc(wait, func() { q.topic.producer.route(q) })
		return false
	}
	return true
}

// nextLocked gives the batch that may be sent next, or nil. What failed is sent again, in order, one
// batch after the other, and nothing new until all of it has been taken: a leader recognises only
// the last five batches when they come again, and the failed one may have been written.
func (q *queue) nextLocked(now time.Time) *producerBatch {
	for _, b := range q.mu.batches {
		switch b.state {
		case batchDone:
		case batchFlying:
			if b.retried {
				return nil
			}
		case batchOpen:
			return nil
		case batchAgain:
			if q.mu.flying > 0 {
				return nil
			}
			return b
		default:
			if b != q.mu.batches[0] && q.topic.producer.cfg.idempotent && q.mu.sequencer.holds(now) {
				return nil
			}
			return b
		}
	}
	return nil
}

// take gives the sender of a node the batch to send next, which is flying from then on, or nil,
// also where the batch needs more room than there is. more says that the queue is still scheduled
// and belongs on the sender's list.
func (q *queue) take(node int32, room int, now time.Time) (b *producerBatch, more bool) {
	p := q.topic.producer
	q.mu.Lock()
	b = q.nextLocked(now)
	// What is under way at another node must have come back before this one may continue.
	if b == nil || q.mu.flying > 0 && q.mu.flyingTo != node {
		q.mu.scheduled = false
		q.mu.Unlock()
		return nil, false
	}
	if b.size() > room {
		q.mu.Unlock()
		return nil, true
	}
	if p.cfg.idempotent && !q.numberLocked(b) {
		q.mu.Unlock()
		p.identity.park(q) // still scheduled
		return nil, false
	}
	b.state = batchFlying
	q.mu.flying++
	q.mu.flyingTo = node
	q.mu.scheduled = false
	more = q.scheduleLocked(now)
	q.mu.Unlock()
	return b, more
}

// size is what the batch adds to a request, at most.
func (b *producerBatch) size() int {
	if b.built != nil {
		return len(b.built)
	}
	return b.builder.UncompressedSize()
}

// resolve takes in what became of a batch that was flying.
func (q *queue) resolve(b *producerBatch, o outcome, now time.Time) {
	p := q.topic.producer
	q.mu.Lock()
	q.mu.flying--
	switch verdict := q.judgeLocked(b, o, now); verdict {
	case verdictAgain:
		b.state, b.retried = batchAgain, true
	case verdictSplit:
		q.splitLocked(b)
	default:
		b.state = batchDone
		if !b.reported {
			b.outcome = o
		}
	}
	b.last = o.err
	if o.err == nil {
		q.mu.failures, q.mu.notUntil = 0, time.Time{}
	}
	q.reportLocked()
	wake := q.scheduleLocked(now)
	q.mu.Unlock()
	if wake {
		p.route(q)
	}
}

type verdict int8

const (
	verdictDone verdict = iota
	verdictAgain
	verdictSplit
)

// judgeLocked decides whether a batch is done with or is to be sent again.
func (q *queue) judgeLocked(b *producerBatch, o outcome, now time.Time) verdict {
	p := q.topic.producer
	if o.err == nil {
		q.mu.sequencer.accepted(b, now)
		return verdictDone
	}
	if b.reported || p.ctx.Err() != nil { // given up meanwhile
		q.mu.sequencer.gaveUp(b)
		return verdictDone
	}
	if tooLarge(o.err) && len(b.records) > 1 {
		return verdictSplit
	}
	again := retriable(o.err)
	if p.cfg.idempotent && q.mu.sequencer.refused(b, o.err, b == q.mu.batches[0]) {
		again = true
		p.c.log.Debug("sequence refused", "partition", q.tp().String(), "sequence", b.number.sequence, "error", o.err)
	}
	if !again {
		q.mu.sequencer.gaveUp(b)
		return verdictDone
	}
	if o.hinted {
		return verdictAgain
	}
	q.mu.failures++
	q.mu.notUntil = now.Add(p.c.cfg.RetryBackoff.After(q.mu.failures, p.c.random))
	return verdictAgain
}

// reportLocked hands what has ended at the front to the callbacks, in order, and forgets it.
func (q *queue) reportLocked() {
	for _, b := range q.mu.batches {
		if !b.reported {
			if b.state != batchDone {
				break
			}
			q.report(b)
		}
	}
	n := 0
	for n < len(q.mu.batches) && q.mu.batches[n].state == batchDone {
		q.mu.batches[n] = nil
		n++
	}
	if q.mu.batches = q.mu.batches[n:]; len(q.mu.batches) == 0 {
		q.mu.batches = nil // an idle partition keeps no array
	}
}

func (q *queue) report(b *producerBatch) {
	p := q.topic.producer
	b.reported = true
	if b.state == batchDone { // otherwise it is its sender's
		b.built = nil
		if b.builder != nil {
			p.recycle(b)
		}
	}
	p.callbacks.add(b)
	if b.end != nil {
		close(b.end)
	}
}

// recycle gives back the builder of a batch that has been built or given up.
func (p *Producer) recycle(b *producerBatch) {
	b.builder.Reset()
	p.builders.Put(b.builder)
	b.builder = nil
}

// expire gives up what is older than delivery.timeout.ms. Deadlines ascend, so they end at the
// front. A batch that is flying stays in its place until its request ends, but is reported now.
func (q *queue) expire(now time.Time) { q.giveUp(ErrDeliveryTimeout, now) }

// abandon gives up everything.
func (q *queue) abandon(cause error) { q.giveUp(cause, time.Time{}) }

func (q *queue) giveUp(cause error, now time.Time) {
	q.mu.Lock()
	for _, b := range q.mu.batches {
		if !now.IsZero() && now.Before(b.deadline) {
			break
		}
		if b.state == batchDone {
			if !b.reported {
				q.report(b)
			}
			continue
		}
		if b.state != batchFlying {
			b.state = batchDone
			q.mu.sequencer.gaveUp(b)
		}
		if !b.reported {
			err := cause
			if b.last != nil {
				err = fmt.Errorf("%w; the last attempt: %w", cause, b.last)
			}
			b.outcome = outcome{baseOffset: -1, appendTimeMs: -1, err: &PartitionError{q.tp(), err}}
			q.report(b)
		}
	}
	q.reportLocked()
	wake := !now.IsZero() && q.scheduleLocked(now)
	q.mu.Unlock()
	if wake {
		q.topic.producer.route(q)
	}
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.batches) == 0
}

// flush makes the open batch ready, and gives a channel that is closed when the last batch has
// been handed to the callbacks; nil where there is none.
func (q *queue) flush() <-chan struct{} {
	q.mu.Lock()
	n := len(q.mu.batches)
	if n == 0 {
		q.mu.Unlock()
		return nil
	}
	b := q.mu.batches[n-1]
	if b.state == batchOpen {
		b.state = batchReady
	}
	var end <-chan struct{}
	if !b.reported {
		if b.end == nil {
			b.end = make(chan struct{})
		}
		end = b.end
	}
	wake := q.scheduleLocked(time.Now())
	q.mu.Unlock()
	if wake {
		q.topic.producer.route(q)
	}
	return end
}

// lingering are the batches that wait for company, in the order in which their time (linger.ms)
// will be up; one timer serves all partitions.
type lingering struct {
	mu      sync.Mutex
	batches []*producerBatch
	timer   *time.Timer
	stopped bool
}

func (l *lingering) add(b *producerBatch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return
	}
	l.batches = append(l.batches, b)
	if len(l.batches) == 1 {
		l.armLocked(b.lingersUntil())
	}
}

func (b *producerBatch) lingersUntil() time.Time {
	return b.born.Add(b.queue.topic.producer.cfg.linger)
}

func (l *lingering) armLocked(due time.Time) {
	wait := max(time.Until(due), 0)
	if l.timer == nil {
		l.timer = time.AfterFunc(wait, l.fire)
	} else {
		l.timer.Reset(wait)
	}
}

func (l *lingering) fire() {
	now := time.Now()
	l.mu.Lock()
	n := 0
	for n < len(l.batches) && !l.batches[n].lingersUntil().After(now) {
		n++
	}
	due := l.batches[:n:n]
	if l.batches = l.batches[n:]; len(l.batches) == 0 {
		l.batches = nil
	} else if !l.stopped {
		l.armLocked(l.batches[0].lingersUntil())
	}
	l.mu.Unlock()
	for _, b := range due {
		b.queue.lingered(b, now)
	}
}

func (l *lingering) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped, l.batches = true, nil
	if l.timer != nil {
		l.timer.Stop()
	}
}
