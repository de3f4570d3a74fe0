package commitlog

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"barnabas/internal/commitlog/producer"
	"barnabas/internal/commitlog/segment"
)

// noteAborted keeps an aborted transaction in the segment that holds its marker.
func (l *Log) noteAborted(s *segment.Segment, ended *producer.Transaction) {
	l.mu.Lock()
	stable := l.mu.transactions.StableAfter(ended)
	l.mu.Unlock()
	s.AddAborted(AbortedTransaction{ProducerID: ended.Producer, First: ended.First, Last: ended.Last}, stable)
}

// AbortedTransactions lists what a read_committed reader of the offsets from up to upTo has to skip, sorted by first
// offset: clients rely on the order.
func (l *Log) AbortedTransactions(from, upTo int64) ([]AbortedTransaction, error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	var found []AbortedTransaction
	for _, s := range l.segmentsFrom(from) {
		entries, err := s.AbortedEntries()
		if errors.Is(err, segment.ErrGone) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read transaction index of %s: %w", l.id, err)
		}
		complete := false
		for _, e := range entries {
			if e.Last >= from && e.First < upTo {
				found = append(found, e.AbortedTransaction)
			}
			complete = complete || e.LastStable >= upTo // later entries begin after upTo
		}
		if complete {
			break
		}
	}
	slices.SortStableFunc(found, func(a, b AbortedTransaction) int { return cmp.Compare(a.First, b.First) })
	return found, nil
}
