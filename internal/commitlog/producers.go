package commitlog

import (
	"fmt"
	"math"
	"sync/atomic"

	"barnabas/internal/batch"
)

// retainedBatches is how many batches of a producer are remembered, so that one sent again is recognised: as many as a
// Kafka producer may have in flight (max.in.flight.requests.per.connection).
const retainedBatches = 5

// producedBatch is a batch as a retry of it would come.
type producedBatch struct {
	lastSequence int32
	delta        int32 // last offset minus first, and the same for the sequence
	lastOffset   int64
	timestampMs  int64
}

func (p *producedBatch) firstSequence() int32 { return batch.AddSequence(p.lastSequence, -p.delta) }

// producer is what a log knows of one producer id.
type producer struct {
	id               int64
	epoch            int16
	coordinatorEpoch int32
	timestampMs      int64 // of the last batch
	transaction      int64 // first offset of the open transaction, -1 without
	kept             int8  // batches in use
	newestAt         int8  // index of the newest
	batches          [retainedBatches]producedBatch

	older, newer *producer // by last use
}

func newProducer(id int64) *producer {
	return &producer{id: id, epoch: -1, coordinatorEpoch: -1, timestampMs: -1, transaction: -1}
}

// newest returns the last batch, nil if none is remembered.
func (p *producer) newest() *producedBatch {
	if p.kept == 0 {
		return nil
	}
	return &p.batches[p.newestAt]
}

func (p *producer) remember(b producedBatch) {
	p.newestAt = (p.newestAt + 1) % retainedBatches
	p.batches[p.newestAt] = b
	p.kept = min(p.kept+1, retainedBatches)
	p.timestampMs = b.timestampMs
}

func (p *producer) setEpoch(epoch int16) {
	if p.epoch != epoch {
		p.epoch, p.kept = epoch, 0
	}
}

// repeated returns the remembered batch that b is sent again of.
func (p *producer) repeated(b batch.Batch) *producedBatch {
	if p.epoch != b.ProducerEpoch() {
		return nil
	}
	first, last := b.BaseSequence(), b.LastSequence()
	for i := range p.batches[:p.kept] {
		// The kept ones end at newestAt and go backwards, round the end of the array.
		k := &p.batches[(int(p.newestAt)-i+retainedBatches)%retainedBatches]
		if k.lastSequence == last && k.firstSequence() == first {
			return k
		}
	}
	return nil
}

// check decides whether the producer may write b, as Kafka's leader does (KIP-98, KIP-360).
func (p *producer) check(b batch.Batch, origin Origin) error {
	epoch := b.ProducerEpoch()
	if epoch < p.epoch {
		return fmt.Errorf("producer %d: epoch %d, already seen %d: %w", p.id, epoch, p.epoch, ErrInvalidProducerEpoch)
	}
	if b.IsControl() {
		return nil
	}
	if origin == Client {
		if err := p.checkSequence(epoch, b.BaseSequence()); err != nil {
			return err
		}
	}
	if p.transaction >= 0 && !b.IsTransactional() {
		return fmt.Errorf("producer %d: %w", p.id, ErrInvalidTransactionState)
	}
	return nil
}

// checkSequence: a producer that the log knows nothing of may begin anywhere, since what it wrote before may have
// expired or been deleted; a new epoch begins at zero; otherwise the next sequence and no other.
func (p *producer) checkSequence(epoch int16, first int32) error {
	if p.epoch < 0 || (epoch != p.epoch && first == 0) {
		return nil
	}
	if epoch != p.epoch {
		return fmt.Errorf("producer %d: sequence %d begins epoch %d: %w", p.id, first, epoch, ErrOutOfOrderSequence)
	}
	last := int32(-1)
	if n := p.newest(); n != nil {
		last = n.lastSequence
	}
	if first == last+1 || (first == 0 && last == math.MaxInt32) {
		return nil
	}
	return fmt.Errorf("producer %d: sequence %d after %d: %w", p.id, first, last, ErrOutOfOrderSequence)
}

// producers is the producer state of one log, guarded by its append slot. The fields oldest and newest are the ends of a
// list by last use.
type producers struct {
	byID           map[int64]*producer
	oldest, newest *producer
	total          *atomic.Int64 // over all logs of the directory
	end            int64         // everything below has been applied
	snapshotAt     int64         // offset of the newest snapshot file, -1 without
}

func (s *producers) get(id int64) *producer { return s.byID[id] }

// touch makes p the last used one, and known if it was not.
func (s *producers) touch(p *producer) {
	if s.newest == p {
		return
	}
	if s.byID[p.id] != p {
		if s.byID == nil {
			s.byID = map[int64]*producer{}
		}
		s.byID[p.id] = p
		s.total.Add(1)
	} else {
		s.unlink(p)
	}
	p.older = s.newest
	if s.newest != nil {
		s.newest.newer = p
	} else {
		s.oldest = p
	}
	s.newest = p
}

func (s *producers) unlink(p *producer) {
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		s.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		s.newest = p.older
	}
	p.older, p.newer = nil, nil
}

func (s *producers) remove(p *producer) {
	s.unlink(p)
	delete(s.byID, p.id)
	s.total.Add(-1)
}

func (s *producers) clear() {
	s.total.Add(-int64(len(s.byID)))
	s.byID, s.oldest, s.newest = nil, nil, nil
}

// trim forgets the producers longest unused while the directory knows more than limit, but never keep, nor one with an
// open transaction: its end must still be understood.
func (s *producers) trim(limit int64, keep *producer) {
	for p := s.oldest; p != nil && s.total.Load() > limit; {
		next := p.newer
		if p != keep && p.transaction < 0 {
			s.remove(p)
		}
		p = next
	}
}

// expire forgets producers that have written nothing since before (ms since the epoch).
func (s *producers) expire(beforeMs int64) {
	for _, p := range s.byID {
		if p.transaction < 0 && p.timestampMs <= beforeMs {
			s.remove(p)
		}
	}
}

// apply notes a batch that has been written, or is read again at recovery. It is the only way in which the state
// changes with the log. A control batch is told apart by its parsed marker.
func (s *producers) apply(b batch.Batch, marker *batch.Control) (started, ended *transaction) {
	s.end = b.NextOffset()
	id := b.ProducerID()
	if id < 0 {
		return nil, nil
	}
	p := s.byID[id]
	if p == nil {
		p = newProducer(id)
	}
	s.touch(p)
	if b.IsControl() {
		return nil, p.applyMarker(b, marker)
	}
	p.setEpoch(b.ProducerEpoch())
	if b.BaseSequence() >= 0 { // batches of a coordinator have none
		p.remember(producedBatch{b.LastSequence(), b.LastOffsetDelta(), b.LastOffset(), b.MaxTimestamp()})
	} else {
		p.timestampMs = b.MaxTimestamp()
	}
	if b.IsTransactional() && p.transaction < 0 {
		p.transaction = b.BaseOffset()
		return &transaction{producer: id, first: p.transaction, last: -1}, nil
	}
	return nil, nil
}

// applyMarker ends the producer's transaction. A marker without records before it ends nothing.
func (p *producer) applyMarker(b batch.Batch, marker *batch.Control) *transaction {
	if marker == nil || (marker.Type != batch.AbortMarker && marker.Type != batch.CommitMarker) {
		return nil
	}
	p.setEpoch(b.ProducerEpoch())
	p.coordinatorEpoch, p.timestampMs = marker.CoordinatorEpoch, b.MaxTimestamp()
	if p.transaction < 0 {
		return nil
	}
	ended := &transaction{producer: p.id, first: p.transaction, last: b.LastOffset(), aborted: marker.Type == batch.AbortMarker}
	p.transaction = -1
	return ended
}
