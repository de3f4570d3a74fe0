package compact

import (
	"cmp"
	"slices"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
)

// transactions follows a pass through a log, and knows of each batch whether it belongs to an aborted transaction, and of each
// marker whether anything that it decides about is left. Batches and aborted transactions come in the order of the log.
type transactions struct {
	waiting   []segment.AbortedEntry // by first offset; not reached yet
	aborted   map[int64]*ongoing     // by producer, from their first record to their marker
	committed map[int64]bool         // producers with a batch seen and no marker yet
}

// ongoing is an aborted transaction whose marker is still to come.
type ongoing struct {
	segment.AbortedEntry
	seen bool // one of its batches is still in the log
}

// expect takes note of aborted transactions that begin, or go on, in what is read next.
func (t *transactions) expect(found []segment.AbortedEntry) {
	if len(found) == 0 {
		return
	}
	t.waiting = append(t.waiting, found...)
	slices.SortStableFunc(t.waiting, func(a, b segment.AbortedEntry) int { return cmp.Compare(a.First, b.First) })
}

// reach brings the transactions that have begun up to offset into play.
func (t *transactions) reach(offset int64) {
	n := 0
	for ; n < len(t.waiting) && t.waiting[n].First <= offset; n++ {
		w := t.waiting[n]
		// One that goes on from segment to segment is expected with each of them.
		if a := t.aborted[w.ProducerID]; w.Last >= offset && (a == nil || a.Last < offset) {
			if t.aborted == nil {
				t.aborted = map[int64]*ongoing{}
			}
			t.aborted[w.ProducerID] = &ongoing{AbortedEntry: w}
		}
	}
	t.waiting = slices.Delete(t.waiting, 0, n)
}

// inAborted tells whether a batch of records belongs to an aborted transaction.
func (t *transactions) inAborted(b batch.Batch) bool {
	t.reach(b.LastOffset())
	if !b.IsTransactional() {
		return false
	}
	if a := t.aborted[b.ProducerID()]; a != nil {
		a.seen = true
		return true
	}
	if t.committed == nil {
		t.committed = map[int64]bool{}
	}
	t.committed[b.ProducerID()] = true
	return false
}

// marker takes note of a transaction's end, or of another control batch. idle says that nothing of its transaction was left
// before it; still is the aborted transaction to be kept in the index, since its records were seen.
func (t *transactions) marker(b batch.Batch, c *batch.Control) (idle bool, still *segment.AbortedEntry) {
	t.reach(b.LastOffset())
	if c == nil { // emptied before
		return true, nil
	}
	id := b.ProducerID()
	switch c.Type {
	case batch.AbortMarker:
		a := t.aborted[id]
		delete(t.aborted, id)
		if a != nil && a.seen {
			return false, &a.AbortedEntry
		}
		return true, nil
	case batch.CommitMarker:
		was := t.committed[id]
		delete(t.committed, id)
		return !was, nil
	}
	return false, nil
}
