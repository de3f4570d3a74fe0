// Package producer decides whether a batch is the one that its producer may write next, and what of a log is held back by
// transactions that are open (KIP-98, KIP-360).
//
// A Table is the producer state of one log. It changes through Apply alone, live and at recovery alike. Transactions holds
// what the last stable offset depends on. Both are plain state: commitlog guards them and brings batches and times.
// The package knows nothing of files but the bytes of Kafka's producer snapshot.
package producer

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"math"
	"sync/atomic"

	"barnabas/internal/batch"
)

// Why a batch is refused.
var (
	ErrOutOfOrderSequence      = errors.New("out of order sequence number")
	ErrInvalidEpoch            = errors.New("producer epoch is too old")
	ErrInvalidTransactionState = errors.New("producer has an open transaction")
	ErrCoordinatorFenced       = errors.New("transaction coordinator is fenced")
)

// retained is how many batches of a producer are remembered, so that one sent again is recognised: as many as a
// Kafka producer may have in flight (max.in.flight.requests.per.connection).
const retained = 5

// Written is a batch as a retry of it would come.
type Written struct {
	LastSequence int32
	Delta        int32 // last offset minus first, and the same for the sequence
	LastOffset   int64
	TimestampMs  int64
}

func (w *Written) firstSequence() int32 { return batch.AddSequence(w.LastSequence, -w.Delta) }

// State is what a log knows of one producer id.
type State struct {
	ID               int64
	Epoch            int16
	CoordinatorEpoch int32 // -1: none
	TimestampMs      int64 // of the last batch
	Transaction      int64 // first offset of the open transaction, -1 without

	partial  bool // loaded from a snapshot, which has the newest batch only; see Unknown
	kept     int8 // batches in use
	newestAt int8 // index of the newest
	batches  [retained]Written

	older, newer *State // by last use
}

func newState(id int64) *State {
	return &State{ID: id, Epoch: -1, CoordinatorEpoch: -1, TimestampMs: -1, Transaction: -1}
}

// Newest returns the last batch, nil if none is remembered.
func (p *State) Newest() *Written {
	if p.kept == 0 {
		return nil
	}
	return &p.batches[p.newestAt]
}

func (p *State) remember(w Written) {
	p.newestAt = (p.newestAt + 1) % retained
	p.batches[p.newestAt] = w
	p.kept = min(p.kept+1, retained)
	p.TimestampMs = w.TimestampMs
}

func (p *State) setEpoch(epoch int16) {
	if p.Epoch != epoch {
		p.Epoch, p.kept, p.partial = epoch, 0, false
	}
}

// Unknown tells how many batches are missing of those that a producer's state remembers, all before an offset: those
// that a snapshot has no room for. Recall brings them.
func (p *State) Unknown() (batches int, before int64) {
	if !p.partial || p.kept == 0 || p.kept == retained {
		return 0, 0
	}
	oldest := &p.batches[(int(p.newestAt)-int(p.kept)+1+retained)%retained]
	return retained - int(p.kept), oldest.LastOffset - int64(oldest.Delta)
}

// Wrote tells whether b is a batch that Unknown may mean.
func (p *State) Wrote(b batch.Batch) bool {
	return b.ProducerID() == p.ID && b.ProducerEpoch() == p.Epoch && !b.IsControl() && b.BaseSequence() >= 0
}

// WrittenIn is what is remembered of a batch.
func WrittenIn(b batch.Batch) Written {
	return Written{b.LastSequence(), b.LastOffsetDelta(), b.LastOffset(), b.MaxTimestamp()}
}

// Recall adds batches that are older than all known, the newest of them first. Nothing is unknown after that.
func (p *State) Recall(older []Written) {
	p.partial = false
	for _, w := range older {
		if p.kept == retained {
			return
		}
		p.batches[(int(p.newestAt)-int(p.kept)+retained)%retained] = w
		p.kept++
	}
}

// Repeated returns the remembered batch that b is sent again of, nil if it is none.
func (p *State) Repeated(b batch.Batch) *Written {
	if p.Epoch != b.ProducerEpoch() {
		return nil
	}
	first, last := b.BaseSequence(), b.LastSequence()
	for i := range p.batches[:p.kept] {
		// The kept ones end at newestAt and go backwards, round the end of the array.
		k := &p.batches[(int(p.newestAt)-i+retained)%retained]
		if k.LastSequence == last && k.firstSequence() == first {
			return k
		}
	}
	return nil
}

// Check decides whether the producer may write b, as Kafka's leader does. Sequences are checked of clients' batches only:
// coordinators have none. marker is what a control batch says, nil for every other.
func (p *State) Check(b batch.Batch, sequences bool, marker *batch.Control) error {
	epoch := b.ProducerEpoch()
	if epoch < p.Epoch {
		return fmt.Errorf("producer %d: epoch %d, already seen %d: %w", p.ID, epoch, p.Epoch, ErrInvalidEpoch)
	}
	if b.IsControl() {
		if isEnd(marker) && marker.CoordinatorEpoch < p.CoordinatorEpoch {
			return fmt.Errorf("producer %d: coordinator epoch %d, already seen %d: %w", p.ID, marker.CoordinatorEpoch,
				p.CoordinatorEpoch, ErrCoordinatorFenced)
		}
		return nil
	}
	if sequences {
		if err := p.checkSequence(epoch, b.BaseSequence()); err != nil {
			return err
		}
	}
	if p.Transaction >= 0 && !b.IsTransactional() {
		return fmt.Errorf("producer %d: %w", p.ID, ErrInvalidTransactionState)
	}
	return nil
}

func isEnd(m *batch.Control) bool {
	return m != nil && (m.Type == batch.AbortMarker || m.Type == batch.CommitMarker)
}

// checkSequence: a producer that the log knows nothing of may begin anywhere, since what it wrote before may have
// expired or been deleted; a new epoch begins at zero; otherwise the next sequence and no other.
func (p *State) checkSequence(epoch int16, first int32) error {
	if p.Epoch < 0 || (epoch != p.Epoch && first == 0) {
		return nil
	}
	if epoch != p.Epoch {
		return fmt.Errorf("producer %d: sequence %d begins epoch %d: %w", p.ID, first, epoch, ErrOutOfOrderSequence)
	}
	last := int32(-1)
	if n := p.Newest(); n != nil {
		last = n.LastSequence
	}
	if first == last+1 || (first == 0 && last == math.MaxInt32) {
		return nil
	}
	return fmt.Errorf("producer %d: sequence %d after %d: %w", p.ID, first, last, ErrOutOfOrderSequence)
}

// Table is the producer state of one log. The fields oldest and newest are the ends of a list by last use.
type Table struct {
	End int64 // everything below has been applied

	byID           map[int64]*State
	oldest, newest *State
	total          *atomic.Int64 // shared by all logs of a directory
}

// NewTable returns an empty table, whose producers are counted in total too.
func NewTable(total *atomic.Int64) Table { return Table{total: total} }

// Get returns a producer's state, nil when it is not known.
func (t *Table) Get(id int64) *State { return t.byID[id] }

// All goes through the known producers, in no order.
func (t *Table) All() iter.Seq[*State] { return maps.Values(t.byID) }

// Len is the number of known producers.
func (t *Table) Len() int { return len(t.byID) }

// touch makes p the last used one, and known if it was not.
func (t *Table) touch(p *State) {
	if t.newest == p {
		return
	}
	if t.byID[p.ID] != p {
		if t.byID == nil {
			t.byID = map[int64]*State{}
		}
		t.byID[p.ID] = p
		t.total.Add(1)
	} else {
		t.unlink(p)
	}
	p.older = t.newest
	if t.newest != nil {
		t.newest.newer = p
	} else {
		t.oldest = p
	}
	t.newest = p
}

func (t *Table) unlink(p *State) {
	if p.older != nil {
		p.older.newer = p.newer
	} else {
		t.oldest = p.newer
	}
	if p.newer != nil {
		p.newer.older = p.older
	} else {
		t.newest = p.older
	}
	p.older, p.newer = nil, nil
}

func (t *Table) remove(p *State) {
	t.unlink(p)
	delete(t.byID, p.ID)
	t.total.Add(-1)
}

// Clear forgets everybody.
func (t *Table) Clear() {
	t.total.Add(-int64(len(t.byID)))
	t.byID, t.oldest, t.newest = nil, nil, nil
}

// Trim forgets the producers longest unused while more than limit are counted in all, but never the last used one, nor one
// with an open transaction: its end must still be understood.
func (t *Table) Trim(limit int64) {
	for p := t.oldest; p != nil && p != t.newest && t.total.Load() > limit; {
		next := p.newer
		if p.Transaction < 0 {
			t.remove(p)
		}
		p = next
	}
}

// Expire forgets producers that have written nothing since beforeMs.
func (t *Table) Expire(beforeMs int64) {
	for _, p := range t.byID {
		if p.Transaction < 0 && p.TimestampMs <= beforeMs {
			t.remove(p)
		}
	}
}

// Apply notes a batch that has been written, or is read again at recovery, with the marker of a control batch. It tells which
// transaction it began or ended.
func (t *Table) Apply(b batch.Batch, marker *batch.Control) (started, ended *Transaction) {
	t.End = b.NextOffset()
	id := b.ProducerID()
	if id < 0 {
		return nil, nil
	}
	p := t.byID[id]
	if p == nil {
		p = newState(id)
	}
	t.touch(p)
	if b.IsControl() {
		return nil, p.applyMarker(b, marker)
	}
	p.setEpoch(b.ProducerEpoch())
	if b.BaseSequence() >= 0 { // batches of a coordinator have none
		p.remember(WrittenIn(b))
	} else {
		p.TimestampMs = b.MaxTimestamp()
	}
	if b.IsTransactional() && p.Transaction < 0 {
		p.Transaction = b.BaseOffset()
		return &Transaction{Producer: id, First: p.Transaction, Last: -1}, nil
	}
	return nil, nil
}

// applyMarker ends the producer's transaction. A marker without records before it ends nothing.
func (p *State) applyMarker(b batch.Batch, marker *batch.Control) *Transaction {
	if !isEnd(marker) {
		return nil
	}
	p.setEpoch(b.ProducerEpoch())
	p.CoordinatorEpoch, p.TimestampMs = marker.CoordinatorEpoch, b.MaxTimestamp()
	if p.Transaction < 0 {
		return nil
	}
	ended := &Transaction{Producer: p.ID, First: p.Transaction, Last: b.LastOffset(), Aborted: marker.Type == batch.AbortMarker}
	p.Transaction = -1
	return ended
}
