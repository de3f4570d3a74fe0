package producer

import (
	"cmp"
	"slices"
)

// Transaction is a producer's records in this log from the first one to its marker.
type Transaction struct {
	Producer, First int64
	Last            int64 // offset of the marker, -1 while open
	Aborted         bool
}

// Transactions holds what the last stable offset depends on: transactions that are open, and those that have ended
// with a marker that is not committed yet. Both ascend by first offset.
type Transactions struct {
	open, undecided []Transaction
}

func insert(list []Transaction, t Transaction) []Transaction {
	i, found := find(list, t.First)
	if found {
		list[i] = t
		return list
	}
	return slices.Insert(list, i, t)
}

func find(list []Transaction, first int64) (int, bool) {
	return slices.BinarySearchFunc(list, first, func(t Transaction, first int64) int { return cmp.Compare(t.First, first) })
}

// Start adds an open transaction.
func (t *Transactions) Start(begun Transaction) { t.open = insert(t.open, begun) }

// End closes one; it counts until its marker is committed.
func (t *Transactions) End(ended Transaction) {
	if i, found := find(t.open, ended.First); found {
		t.open = slices.Delete(t.open, i, i+1)
	}
	t.undecided = insert(t.undecided, ended)
}

// Committed forgets ended transactions whose markers lie below the high watermark.
func (t *Transactions) Committed(highWatermark int64) {
	t.undecided = slices.DeleteFunc(t.undecided, func(e Transaction) bool { return e.Last < highWatermark })
}

// FirstUnstable is the offset that no read_committed reader may pass; ok is false when nothing holds it back.
func (t *Transactions) FirstUnstable() (offset int64, ok bool) {
	switch {
	case len(t.open) == 0 && len(t.undecided) == 0:
		return 0, false
	case len(t.open) == 0:
		return t.undecided[0].First, true
	case len(t.undecided) == 0:
		return t.open[0].First, true
	}
	return min(t.open[0].First, t.undecided[0].First), true
}

// StableAfter is the last stable offset that an ended transaction leaves, were its marker committed.
func (t *Transactions) StableAfter(ended *Transaction) int64 {
	for _, o := range t.open {
		if o.Producer != ended.Producer {
			return o.First
		}
	}
	return ended.Last + 1
}
