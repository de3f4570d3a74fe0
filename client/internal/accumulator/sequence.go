package accumulator

import (
	"errors"
	"math"
	"time"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
)

// batchNumber is what identifies a batch to the leader.
type batchNumber struct {
	producerID int64
	epoch      int16
	sequence   int32 // -1: not numbered
}

var noNumber = batchNumber{batch.NoProducerID, batch.NoProducerEpoch, batch.NoSequence}

func (n batchNumber) assigned() bool { return n.sequence != batch.NoSequence }

// sequencer numbers the batches of one partition. On every batch is a sequence number that goes up
// by one with each record. The leader takes exactly the next sequence, recognises the last five
// batches when they come again, and refuses the rest, so that retries neither repeat nor reorder
// (KIP-98). Where numbers can no longer continue, the partition starts again from 0 in a higher
// epoch of the same producer id (KIP-360). Leaders keep their state by partition, so each partition
// may be in an epoch of its own, but for transactions: there the epoch is the coordinator's, and
// numbers that cannot continue fail the transaction. The queue's lock guards it.
type sequencer struct {
	producerID int64 // -1: none yet
	epoch      int16
	next       int32 // sequence of the next new batch

	// gap: a numbered batch was given up, and the leader may not have it, in which case it refuses
	// what follows. Until an answer tells, nothing new is numbered.
	gap bool

	// restart: the numbers cannot continue. Once nothing is flying, all that is unsent or refused
	// is numbered from 0 in the next epoch.
	restart bool

	// known is until when the leader certainly knows the producer: it took a batch a short while
	// ago. One that knows nothing of a producer takes any sequence, so if it refused a first batch
	// and then took the second, the order would be gone.
	known time.Time

	// renew: not even a higher epoch helps; a new producer id is needed.
	renew bool
}

func newSequencer() sequencer { return sequencer{producerID: batch.NoProducerID} }

// knownFor is how long after an acknowledgement a leader is relied on to remember the producer. It
// forgets after producer.id.expiration.ms, a day by default, or when its last records expire.
const knownFor = time.Minute

// holds tells whether a batch that was never sent must wait for those ahead of it.
func (s *sequencer) holds(now time.Time) bool { return s.gap || s.restart || !now.Before(s.known) }

// accepted: the leader has the batch, so it has all before it that it will ever have, and the
// numbers continue from here.
func (s *sequencer) accepted(n batchNumber, now time.Time) {
	if n.assigned() && n.producerID == s.producerID && n.epoch == s.epoch {
		s.gap = false
		s.known = now.Add(knownFor)
	}
}

// gaveUp: nobody knows whether the leader has the batch, or it is known not to.
func (s *sequencer) gaveUp(n batchNumber) {
	if n.assigned() {
		s.gap = true
	}
}

// refused takes in an error that is about the numbers; true where the batch is to be sent again.
// first: all before it are done with, so that the refusal cannot be due to one on its way.
//
// A batch refused as out of order is not in the log, and neither is any later one, so numbering
// them anew cannot repeat them.
func (s *sequencer) refused(n batchNumber, err error, first bool) bool {
	switch {
	case errors.Is(err, errcode.OutOfOrderSequenceNumber), errors.Is(err, errcode.UnknownProducerID):
		s.restart = s.restart || first
	case errors.Is(err, errcode.InvalidProducerEpoch), errors.Is(err, errcode.InvalidProducerIDMapping):
		s.restart, s.renew = s.restart || first, s.renew || first
	default:
		return false
	}
	return n.assigned()
}

func (s *sequencer) take(records int) batchNumber {
	n := batchNumber{s.producerID, s.epoch, s.next}
	s.next = batch.AddSequence(s.next, int32(records))
	return n
}

// numberLocked gives the batch its number where it has none, after starting a new epoch where one
// is due. It is false where a producer id must be had first. The batch is full from now on.
func (q *Queue[D]) numberLocked(b *Batch[D]) bool {
	s := &q.mu.sequencer
	if q.acc.cfg.Transactional {
		id, epoch, ok := q.acc.hooks.Identity(q, batch.NoProducerID)
		if !ok {
			return false
		}
		if id != s.producerID || epoch != s.epoch { // another transaction: nothing of the last one is left
			q.startEpochLocked(id, epoch)
		}
	} else if !q.continueLocked(b) {
		return false
	}
	if !b.number.assigned() {
		b.number = s.take(len(b.Records))
	}
	return true
}

// continueLocked makes sure that the next number may follow on the last.
func (q *Queue[D]) continueLocked(b *Batch[D]) bool {
	s := &q.mu.sequencer
	// A gap with nothing unanswered behind it: nobody will ever tell, so do not build on it.
	if s.gap && !b.number.assigned() {
		s.restart = true
	}
	if s.restart && q.mu.flying == 0 {
		if s.epoch == math.MaxInt16 {
			s.renew = true
		}
		if !s.renew {
			q.startEpochLocked(s.producerID, s.epoch+1)
		}
	}
	if s.producerID == batch.NoProducerID || s.renew {
		id, epoch, ok := q.acc.hooks.Identity(q, s.producerID)
		if !ok {
			return false
		}
		q.startEpochLocked(id, epoch)
	}
	return true
}

// startEpochLocked numbers what had a number again, from 0. Nothing is flying.
func (q *Queue[D]) startEpochLocked(id int64, epoch int16) {
	q.mu.sequencer = sequencer{producerID: id, epoch: epoch}
	for _, b := range q.mu.batches {
		if b.state == batchAgain && b.number.assigned() {
			b.number = q.mu.sequencer.take(len(b.Records))
		}
	}
}

// Broken tells whether the numbers of the partition cannot go on in their epoch: a transaction that
// leaves such a partition behind has to end in a higher one.
func (q *Queue[D]) Broken() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.mu.sequencer.gap || q.mu.sequencer.restart
}
