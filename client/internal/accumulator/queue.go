package accumulator

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

// Queue is the batches of one topic-partition, in the order in which their records were sent.
// Appending takes its lock and no other; a batch that is full, or has lingered, routes the queue
// to its leader's sender.
//
// From the front, the batches are: those that were sent and may have to be sent again; then those
// never sent, of which the last may still be open. They leave from the front only, so what is told
// of them is told in order whatever order the answers come in.
type Queue[D any] struct {
	Topic     string
	Partition int32

	acc     *Accumulator[D]
	backlog atomic.Int32 // batches, for partitioners; a little late

	mu struct { // never held while encoding a batch, sending or waiting
		sync.Mutex
		batches   []*Batch[D]
		sequencer sequencer
		flying    int           // how many of the batches are in a request now
		flyingTo  int32         // the node, where flying is above 0
		landed    chan struct{} // made by Landed, closed when none is flying
		scheduled bool          // on a sender's list, homeless, or awaiting a producer id or a timer
		failures  int           // in a row
		notUntil  time.Time
	}
}

// Record is a record to be appended. Key, Value and Headers are copied.
type Record[D any] struct {
	Key, Value  []byte
	Headers     []batch.Header
	TimestampMs int64
	Bytes       int64 // what it takes of buffer.memory
	Transaction int64 // that it was given to Send in, for Hooks.Admits
	Done        D
}

// Appended says what became of a record.
type Appended int8

// What Append may have done.
const (
	Refused Appended = iota // the producer has been closed
	Late                    // its transaction takes no records any more
	Open                    // its batch may take more
	Full                    // its batch is full
)

// Append serialises a record into the last batch, or into a new one where it does not fit.
func (q *Queue[D]) Append(r *Record[D], now time.Time) Appended {
	a := q.acc
	q.mu.Lock()
	if a.ended.Load() {
		q.mu.Unlock()
		return Refused
	}
	if a.hooks.Admits != nil && !a.hooks.Admits(r.Transaction) {
		q.mu.Unlock()
		return Late
	}
	b, fresh := q.batchForLocked(r, now)
	b.builder.Append(r.TimestampMs, r.Key, r.Value, r.Headers)
	b.Records = append(b.Records, Sent[D]{r.Done, r.TimestampMs})
	b.Memory += r.Bytes
	result := Open
	if b.builder.UncompressedSize() >= a.cfg.BatchBytes {
		b.state = batchClosed
		result = Full
	}
	lingers := fresh && b.state == batchOpen
	wake := q.scheduleLocked(now)
	q.mu.Unlock()
	if wake {
		a.hooks.Route(q)
	}
	if lingers {
		a.linger.add(b)
	}
	return result
}

// batchForLocked gives the batch that the record goes into; a new one where it does not fit into
// the last, which is full then.
func (q *Queue[D]) batchForLocked(r *Record[D], now time.Time) (b *Batch[D], fresh bool) {
	a := q.acc
	if n := len(q.mu.batches); n > 0 {
		b = q.mu.batches[n-1]
		if b.state == batchOpen || b.state == batchReady {
			if b.builder.SizeWith(r.TimestampMs, r.Key, r.Value, r.Headers) <= a.cfg.BatchBytes {
				return b, false
			}
			b.state = batchClosed
		}
	}
	b = a.newBatch(q, now)
	if a.cfg.Linger == 0 {
		b.state = batchReady
	}
	q.mu.batches = append(q.mu.batches, b)
	q.backlog.Add(1)
	return b, true
}

// HasRoom tells whether a record of so many bytes would go into a batch that there is already.
func (q *Queue[D]) HasRoom(bytes int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := len(q.mu.batches)
	if n == 0 {
		return false
	}
	b := q.mu.batches[n-1]
	return (b.state == batchOpen || b.state == batchReady) && int64(b.builder.UncompressedSize())+bytes <= int64(q.acc.cfg.BatchBytes)
}

// Backlog is how many batches wait or are on their way. It takes no lock.
func (q *Queue[D]) Backlog() int { return int(q.backlog.Load()) }

// lingered marks a batch as ready although it is not full, and wakes the sender.
func (q *Queue[D]) lingered(b *Batch[D], now time.Time) {
	q.mu.Lock()
	wake := false
	if b.state == batchOpen {
		b.state = batchReady
		wake = q.scheduleLocked(now)
	}
	q.mu.Unlock()
	if wake {
		q.acc.hooks.Route(q)
	}
}

// scheduleLocked claims the queue for a sender's list: true where the caller is to route it once
// it has let go of the lock.
func (q *Queue[D]) scheduleLocked(now time.Time) bool {
	if q.mu.scheduled || q.nextLocked(now) == nil {
		return false
	}
	q.mu.scheduled = true
	if wait := q.mu.notUntil.Sub(now); wait > 0 {
		time.AfterFunc(wait, func() { q.acc.hooks.Route(q) })
		return false
	}
	return true
}

// nextLocked gives the batch that may be sent next, or nil. What failed is sent again, in order, one
// batch after the other, and nothing new until all of it has been taken: a leader recognises only
// the last five batches when they come again, and the failed one may have been written.
func (q *Queue[D]) nextLocked(now time.Time) *Batch[D] {
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
			if b != q.mu.batches[0] && q.acc.cfg.Idempotent && q.mu.sequencer.holds(now) {
				return nil
			}
			return b
		}
	}
	return nil
}

// Take gives the sender of a node the batch to send next, which is flying from then on, or nil,
// also where the batch needs more room than there is. more says that the queue is still scheduled
// and belongs on the sender's list.
func (q *Queue[D]) Take(node int32, room int, now time.Time) (b *Batch[D], more bool) {
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
	if q.acc.cfg.Idempotent && !q.numberLocked(b) {
		q.mu.Unlock()
		q.acc.hooks.AwaitIdentity(q) // still scheduled
		return nil, false
	}
	b.state = batchFlying
	b.Attempts++
	q.mu.flying++
	q.mu.flyingTo = node
	q.mu.scheduled = false
	more = q.scheduleLocked(now)
	q.mu.Unlock()
	return b, more
}

// Resolve takes in what became of a batch that was flying.
func (q *Queue[D]) Resolve(b *Batch[D], o Outcome, now time.Time) {
	q.mu.Lock()
	if q.mu.flying--; q.mu.flying == 0 && q.mu.landed != nil {
		close(q.mu.landed)
		q.mu.landed = nil
	}
	failed := false
	b.sent = len(b.built)
	switch verdict := q.judgeLocked(b, o, now); {
	case verdict == verdictAgain:
		b.state, b.retried = batchAgain, true
	case verdict == verdictSplit && q.splitLocked(b):
		q.backlog.Add(1)
	default:
		if verdict == verdictSplit {
			o = Lost(batch.ErrCorrupt)
			q.mu.sequencer.gaveUp(b.number)
		}
		b.state = batchDone
		if !b.reported {
			b.Outcome = o
			failed = o.Err != nil
		}
	}
	b.last = o.Err
	if o.Err == nil {
		q.mu.failures, q.mu.notUntil = 0, time.Time{}
	}
	if failed {
		q.acc.hooks.Failed(o.Err) // before anybody can see the batch as done with
	}
	q.reportLocked()
	wake := q.scheduleLocked(now)
	q.mu.Unlock()
	if failed {
		q.acc.hooks.AfterFailed()
	}
	if wake {
		q.acc.hooks.Route(q)
	}
}

type verdict int8

const (
	verdictDone verdict = iota
	verdictAgain
	verdictSplit
)

// judgeLocked decides whether a batch is done with or is to be sent again.
func (q *Queue[D]) judgeLocked(b *Batch[D], o Outcome, now time.Time) verdict {
	cfg := &q.acc.cfg
	if o.Err == nil {
		q.mu.sequencer.accepted(b.number, now)
		return verdictDone
	}
	if b.reported || q.acc.hooks.Closing() { // given up meanwhile
		q.mu.sequencer.gaveUp(b.number)
		return verdictDone
	}
	if tooLarge(o.Err) && len(b.Records) > 1 {
		return verdictSplit
	}
	again := errcode.Retriable(o.Err)
	first := b == q.mu.batches[0]
	if cfg.Idempotent && q.mu.sequencer.refused(b.number, o.Err, first) {
		// Within a transaction the numbers cannot start again: it fails with the batch. One that was
		// refused because of those before it waits for what becomes of them.
		again = !cfg.Transactional || !first
		cfg.Log.Debug("sequence refused", "topic", q.Topic, "partition", q.Partition, "sequence", b.number.sequence, "error", o.Err)
	}
	if !again {
		q.mu.sequencer.gaveUp(b.number)
		return verdictDone
	}
	if o.Hinted {
		return verdictAgain
	}
	q.mu.failures++
	q.mu.notUntil = now.Add(cfg.Backoff(q.mu.failures))
	return verdictAgain
}

// tooLarge tells whether a smaller batch might be taken.
func tooLarge(err error) bool {
	return errors.Is(err, errcode.MessageTooLarge) || errors.Is(err, errcode.RecordListTooLarge)
}

// reportLocked hands on what has ended at the front, in order, and forgets it.
func (q *Queue[D]) reportLocked() {
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
	q.backlog.Add(int32(-n))
	if q.mu.batches = q.mu.batches[n:]; len(q.mu.batches) == 0 {
		q.mu.batches = nil // an idle partition keeps no array
	}
}

func (q *Queue[D]) report(b *Batch[D]) {
	b.reported, b.Size = true, b.sent
	if b.state == batchDone { // otherwise it is its sender's
		b.built = nil
		if b.builder != nil {
			q.acc.recycle(b)
		}
	}
	q.acc.hooks.Ended(b)
	if b.end != nil {
		close(b.end)
	}
}

// Expire gives up what is older than delivery.timeout.ms. Deadlines ascend, so they end at the
// front. A batch that is flying stays in its place until its request ends, but is reported now. why
// says what keeps those from being sent that never were, nil where it is not known. It is called with the queue's lock held.
func (q *Queue[D]) Expire(cause error, now time.Time, why func(*Queue[D]) error) {
	q.giveUp(cause, now, why)
}

// Abandon gives up everything that there is.
func (q *Queue[D]) Abandon(cause error) {
	q.giveUp(cause, time.Time{}, func(*Queue[D]) error { return nil })
}

func (q *Queue[D]) giveUp(cause error, now time.Time, why func(*Queue[D]) error) {
	q.mu.Lock()
	failed := false
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
			q.mu.sequencer.gaveUp(b.number)
		}
		if !b.reported {
			err := cause
			if b.last != nil {
				err = fmt.Errorf("%w; the last attempt: %w", cause, b.last)
			} else if reason := why(q); reason != nil && b.Attempts == 0 {
				err = fmt.Errorf("%w: %w", cause, reason)
			}
			b.Outcome = Lost(err)
			q.acc.hooks.Failed(err)
			failed = true
			q.report(b)
		}
	}
	q.reportLocked()
	wake := !now.IsZero() && q.scheduleLocked(now)
	q.mu.Unlock()
	if failed {
		q.acc.hooks.AfterFailed()
	}
	if wake {
		q.acc.hooks.Route(q)
	}
}

// Empty tells whether nothing waits and nothing is on its way.
func (q *Queue[D]) Empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.batches) == 0
}

// Landed gives a channel that is closed once no batch is in a request; nil where none is.
func (q *Queue[D]) Landed() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.flying == 0 {
		return nil
	}
	if q.mu.landed == nil {
		q.mu.landed = make(chan struct{})
	}
	return q.mu.landed
}

// Flush makes the open batch ready, and gives a channel that is closed when the last batch has
// been handed to Ended; nil where there is none.
func (q *Queue[D]) Flush(now time.Time) <-chan struct{} {
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
	wake := q.scheduleLocked(now)
	q.mu.Unlock()
	if wake {
		q.acc.hooks.Route(q)
	}
	return end
}
