package client

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/cluster"
	"barnabas/internal/batch"
)

// This file is step (e): a producer id from a broker, and on every batch a sequence number that
// goes up by one with each record of the partition. The leader takes exactly the next sequence,
// recognises the last five batches when they come again, and refuses the rest, so that retries
// neither repeat nor reorder (KIP-98). Where numbers can no longer continue, the partition starts
// again from 0 in a higher epoch of the same producer id (KIP-360). Leaders keep their state by
// partition, so each partition may be in an epoch of its own.

// batchNumber is what identifies a batch to the leader.
type batchNumber struct {
	producerID int64
	epoch      int16
	sequence   int32 // -1: not numbered
}

var noNumber = batchNumber{batch.NoProducerID, batch.NoProducerEpoch, batch.NoSequence}

func (n batchNumber) assigned() bool { return n.sequence != batch.NoSequence }

// sequencer numbers the batches of one partition. The queue's lock guards it.
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
func (s *sequencer) accepted(b *producerBatch, now time.Time) {
	if b.number.assigned() && b.number.producerID == s.producerID && b.number.epoch == s.epoch {
		s.gap = false
		s.known = now.Add(knownFor)
	}
}

// gaveUp: nobody knows whether the leader has the batch, or it is known not to.
func (s *sequencer) gaveUp(b *producerBatch) {
	if b.number.assigned() {
		s.gap = true
	}
}

// refused takes in an error that is about the numbers; true where the batch is to be sent again.
// first: all before it are done with, so that the refusal cannot be due to one on its way.
//
// A batch refused as out of order is not in the log, and neither is any later one, so numbering
// them anew cannot repeat them.
func (s *sequencer) refused(b *producerBatch, err error, first bool) bool {
	switch {
	case errors.Is(err, ErrOutOfOrderSequenceNumber), errors.Is(err, ErrUnknownProducerID):
		s.restart = s.restart || first
	case errors.Is(err, ErrInvalidProducerEpoch), errors.Is(err, ErrInvalidProducerIDMapping):
		s.restart, s.renew = s.restart || first, s.renew || first
	default:
		return false
	}
	return b.number.assigned()
}

// numberLocked gives the batch its number where it has none, after starting a new epoch where one
// is due. It is false where a producer id must be had first. The batch is full from now on.
func (q *queue) numberLocked(b *producerBatch) bool {
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
		id, epoch, ok := q.topic.producer.identity.current(s.producerID)
		if !ok {
			return false
		}
		q.startEpochLocked(id, epoch)
	}
	if !b.number.assigned() {
		b.number = s.take(b)
	}
	return true
}

func (s *sequencer) take(b *producerBatch) batchNumber {
	n := batchNumber{s.producerID, s.epoch, s.next}
	s.next = batch.AddSequence(s.next, int32(len(b.records)))
	return n
}

// startEpochLocked numbers what had a number again, from 0. Nothing is flying.
func (q *queue) startEpochLocked(id int64, epoch int16) {
	q.mu.sequencer = sequencer{producerID: id, epoch: epoch}
	for _, b := range q.mu.batches {
		if b.state == batchAgain && b.number.assigned() {
			b.number = q.mu.sequencer.take(b)
		}
	}
}

// identity is the producer id, asked for when the first batch is to be sent. Queues that need one
// wait here, without holding up others.
type identity struct {
	p *Producer

	mu struct { // never held while asking
		sync.Mutex
		id      int64 // -1: none
		epoch   int16
		waiting []*queue
		running bool
	}
}

func newIdentity(p *Producer) *identity {
	i := &identity{p: p}
	i.mu.id = batch.NoProducerID
	return i
}

// current gives an id other than notThis, which the caller has found useless (-1: any will do).
func (i *identity) current(notThis int64) (id int64, epoch int16, ok bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.mu.id == notThis {
		i.mu.id = batch.NoProducerID
	}
	return i.mu.id, i.mu.epoch, i.mu.id != batch.NoProducerID
}

// park keeps a queue, which stays marked as scheduled, until there is an id.
func (i *identity) park(q *queue) {
	i.mu.Lock()
	ready := i.mu.id != batch.NoProducerID
	start := false
	if !ready {
		i.mu.waiting = append(i.mu.waiting, q)
		start = !i.mu.running
		i.mu.running = true
	}
	i.mu.Unlock()
	switch {
	case ready:
		i.p.route(q)
	case start:
		i.p.goRun(i.obtain)
	}
}

// goRun starts a goroutine that Close waits for, unless closing has begun.
func (p *Producer) goRun(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.closed {
		p.wg.Go(f)
	}
}

// obtain asks brokers until one gives an id. An error that trying again does not mend fails what
// is waiting.
func (i *identity) obtain() {
	p := i.p
	for failures := 1; ; failures++ {
		id, epoch, err := i.ask(p.ctx)
		if p.ctx.Err() != nil {
			return
		}
		fatal := err != nil && !retriable(err) && !errors.Is(err, ErrNoBrokers)
		if err == nil || fatal {
			i.mu.Lock()
			if err == nil {
				i.mu.id, i.mu.epoch = id, epoch
			}
			waiting := i.mu.waiting
			i.mu.waiting, i.mu.running = nil, false
			i.mu.Unlock()
			for _, q := range waiting {
				if fatal {
					q.abandon(fmt.Errorf("no producer id: %w", err))
				}
				p.route(q)
			}
			return
		}
		if failures&(failures-1) == 0 { // ever more rarely
			p.c.log.Warn("no producer id", "attempt", failures, "error", err)
		}
		if cluster.Sleep(p.ctx, p.c.cfg.RetryBackoff.After(failures, p.c.random)) != nil {
			return
		}
	}
}

func (i *identity) ask(ctx context.Context) (int64, int16, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionTimeoutMillis = math.MaxInt32 // not a transaction
	req.ProducerID, req.ProducerEpoch = batch.NoProducerID, batch.NoProducerEpoch
	resp, err := i.p.c.cluster.RequestAny(ctx, req)
	if err != nil {
		return 0, 0, err
	}
	answer := resp.(*kmsg.InitProducerIDResponse)
	if err := CodeError(answer.ErrorCode, nil); err != nil {
		return 0, 0, err
	}
	return answer.ProducerID, answer.ProducerEpoch, nil
}
