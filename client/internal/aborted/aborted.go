// Package aborted decides which of the batches that a broker has sent belong to aborted transactions,
// so that who reads committed does not see them. It is for package client. It knows no consumer and
// no position.
package aborted

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// Transactions tells which batches belong to transactions that were aborted: those of a
// producer from the first offset of its transaction up to the marker that ends it.
type Transactions struct {
	coming []kmsg.FetchResponseTopicPartitionAbortedTransaction // by first offset
	open   map[int64]bool                                       // producers
}

// New sorts what a broker lists: not every broker does (trap 20).
func New(list []kmsg.FetchResponseTopicPartitionAbortedTransaction, committed bool) *Transactions {
	if !committed || len(list) == 0 {
		return &Transactions{}
	}
	sorted := slices.Clone(list)
	slices.SortFunc(sorted, func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	return &Transactions{coming: sorted, open: map[int64]bool{}}
}

// Skips tells whether a batch counts for nobody who reads committed: it belongs to an aborted
// transaction, or is a marker. Batches are shown in the order of their offsets.
func (t *Transactions) Skips(checker *batch.Checker, b batch.Batch) (bool, error) {
	if t.open == nil {
		return false, nil
	}
	for len(t.coming) > 0 && t.coming[0].FirstOffset <= b.LastOffset() {
		t.open[t.coming[0].ProducerID] = true
		t.coming = t.coming[1:]
	}
	if !b.IsTransactional() {
		return false, nil
	}
	if !b.IsControl() {
		return t.open[b.ProducerID()], nil
	}
	marker, err := checker.ParseControl(b)
	if err != nil {
		return false, err
	}
	if marker.Type == batch.AbortMarker {
		delete(t.open, b.ProducerID())
	}
	return true, nil
}
