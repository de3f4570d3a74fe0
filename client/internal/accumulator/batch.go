package accumulator

import (
	"fmt"
	"time"

	"barnabas/internal/batch"
)

type batchState int8

const (
	batchOpen   batchState = iota // takes records
	batchReady                    // has lingered: takes records until the sender takes it
	batchClosed                   // full
	batchFlying                   // in a request
	batchAgain                    // was in a request that failed
	batchDone                     // acknowledged or given up
)

// Batch is a batch on its way, with what is to be told of its records. Its queue's lock guards it,
// but while it is flying its sender has builder and built. Records, Memory, Outcome, Attempts
// and Size are for whoever gets it from Hooks.Ended.
type Batch[D any] struct {
	Queue   *Queue[D]
	Records []Sent[D]
	Memory  int64 // of buffer.memory
	Outcome Outcome

	Attempts int // requests that it was in
	Size     int // in bytes as it was last sent; 0 where no request has come back

	builder  *batch.Builder // until it is first sent; uncompressed, until it is done with
	built    batch.Batch    // from when it is first sent
	born     time.Time
	deadline time.Time
	sent     int // as Size, and still changing
	state    batchState
	number   batchNumber
	retried  bool          // has been refused or lost once
	last     error         // of the latest attempt
	reported bool          // handed to Ended; may be flying nevertheless
	end      chan struct{} // made by Flush, closed when reported
}

// Sent is what is left of a record once it has been serialised.
type Sent[D any] struct {
	Done        D
	TimestampMs int64
}

// Outcome is what became of a batch.
type Outcome struct {
	BaseOffset   int64 // -1: unknown
	AppendTimeMs int64 // -1: the records' own timestamps count
	Err          error
	PerRecord    map[int32]error // with Err: those of single records
	Hinted       bool            // with Err: the new leader is already known
}

// Lost is the outcome of a batch that was not written, or of which nobody knows.
func Lost(err error) Outcome { return Outcome{BaseOffset: -1, AppendTimeMs: -1, Err: err} }

// Born is when its first record was appended.
func (b *Batch[D]) Born() time.Time { return b.born }

// Bytes gives a batch that Encode has made ready. They are the sender's while the batch is flying.
func (b *Batch[D]) Bytes() batch.Batch { return b.built }

// size is what the batch adds to a request, at most.
func (b *Batch[D]) size() int {
	if b.built != nil {
		return len(b.built)
	}
	return b.builder.UncompressedSize()
}

// Encode makes the bytes of a batch that Take gave, or puts its new number into them. It works
// without the queue's lock: compressing takes a while.
func (a *Accumulator[D]) Encode(b *Batch[D]) error {
	n := b.number
	if b.built != nil {
		b.built.SetProducer(n.producerID, n.epoch, n.sequence, a.cfg.Transactional)
		return nil
	}
	b.builder.SetProducer(n.producerID, n.epoch, n.sequence, a.cfg.Transactional)
	built, err := b.builder.BuildInPlace()
	if err != nil {
		return fmt.Errorf("encode a batch: %w", err)
	}
	b.built = built
	if a.cfg.Codec != batch.None {
		a.recycle(b) // otherwise the batch lies in its memory
	}
	return nil
}

// splitLocked puts two batches of half as many records in the place of one that the broker finds
// too large. They keep its numbers. It is false where the batch cannot be read.
func (q *Queue[D]) splitLocked(b *Batch[D]) bool {
	a := q.acc
	half := len(b.Records) / 2
	parts := [2]*Batch[D]{a.newBatch(q, b.born), a.newBatch(q, b.born)}
	i := 0
	for r, err := range a.checker.Records(b.built) {
		if err != nil {
			break // our own bytes: the count below tells
		}
		part := parts[0]
		if i >= half {
			part = parts[1]
		}
		part.builder.Append(b.built.TimestampOf(&r), r.Key, r.Value, r.Headers)
		i++
	}
	if i != len(b.Records) {
		return false
	}
	parts[0].Records = append(parts[0].Records, b.Records[:half]...)
	parts[1].Records = append(parts[1].Records, b.Records[half:]...)
	parts[0].Memory = b.Memory / 2
	parts[1].Memory = b.Memory - parts[0].Memory
	for _, part := range parts {
		part.state, part.retried, part.Attempts = batchAgain, true, b.Attempts
		if b.number.assigned() {
			part.number = b.number
		}
	}
	if b.number.assigned() {
		parts[1].number.sequence = batch.AddSequence(b.number.sequence, int32(half))
	}
	parts[1].end = b.end // a Flush waits for the last
	for at, other := range q.mu.batches {
		if other == b {
			q.mu.batches = append(q.mu.batches[:at:at], append(parts[:], q.mu.batches[at+1:]...)...)
			return true
		}
	}
	return true
}
