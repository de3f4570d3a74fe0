package commitlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"barnabas/internal/commitlog/producer"
	"barnabas/internal/disk"
)

// An aborted transaction in a segment's NNNNNNNNNNNNNNNNNNNN.txnindex, as Kafka writes it: version int16, producer id,
// first offset, last offset, last stable offset (int64 each).
const (
	abortedVersion = 0
	abortedBytes   = 2 + 4*8
	// maxAbortedBytes bounds a .txnindex file: some 30 million aborted transactions of one segment.
	maxAbortedBytes = 1 << 30
)

var errAborted = errors.New("malformed transaction index")

type abortedEntry struct {
	AbortedTransaction
	lastStable int64
}

func (a abortedEntry) entry() (e indexEntry) {
	binary.BigEndian.PutUint16(e[:], abortedVersion)
	binary.BigEndian.PutUint64(e[2:], uint64(a.ProducerID))
	binary.BigEndian.PutUint64(e[10:], uint64(a.First))
	binary.BigEndian.PutUint64(e[18:], uint64(a.Last))
	binary.BigEndian.PutUint64(e[26:], uint64(a.lastStable))
	return e
}

func entryVersion(e []byte) uint16     { return binary.BigEndian.Uint16(e) }
func entryAbortedFirst(e []byte) int64 { return int64(binary.BigEndian.Uint64(e[10:])) }

// entryAbortedLast is what a transaction index ascends by.
func entryAbortedLast(e []byte) int64 { return int64(binary.BigEndian.Uint64(e[18:])) }

func parseAborted(data []byte) ([]abortedEntry, error) {
	if len(data)%abortedBytes != 0 {
		return nil, fmt.Errorf("%w: %d bytes", errAborted, len(data))
	}
	entries := make([]abortedEntry, 0, len(data)/abortedBytes)
	for ; len(data) > 0; data = data[abortedBytes:] {
		if v := entryVersion(data); v != abortedVersion {
			return nil, fmt.Errorf("%w: version %d", errAborted, v)
		}
		e := abortedEntry{AbortedTransaction{
			ProducerID: int64(binary.BigEndian.Uint64(data[2:])), First: entryAbortedFirst(data), Last: entryAbortedLast(data),
		}, int64(binary.BigEndian.Uint64(data[26:]))}
		if e.First > e.Last || (len(entries) > 0 && e.Last <= entries[len(entries)-1].Last) {
			return nil, fmt.Errorf("%w: transaction %d..%d out of order", errAborted, e.First, e.Last)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// noteAborted keeps an aborted transaction in the segment that holds its marker.
func (s *segment) noteAborted(ended *producer.Transaction) {
	l := s.log
	l.mu.Lock()
	stable := l.mu.transactions.StableAfter(ended)
	l.mu.Unlock()
	s.aborted.add(abortedEntry{AbortedTransaction{ended.Producer, ended.First, ended.Last}, stable}.entry())
}

// AbortedTransactions lists what a read_committed reader of the offsets from up to upTo has to skip, sorted by first
// offset: clients rely on the order.
func (l *Log) AbortedTransactions(from, upTo int64) ([]AbortedTransaction, error) {
	if err := l.usable(); err != nil {
		return nil, err
	}
	var found []AbortedTransaction
	for _, s := range l.segmentsFrom(from) {
		entries, err := s.abortedEntries()
		if errors.Is(err, errGone) {
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
			complete = complete || e.lastStable >= upTo // later entries begin after upTo
		}
		if complete {
			break
		}
	}
	slices.SortStableFunc(found, func(a, b AbortedTransaction) int { return cmp.Compare(a.First, b.First) })
	return found, nil
}

// abortedEntries reads a segment's transaction index, in the file and in memory.
func (s *segment) abortedEntries() ([]abortedEntry, error) {
	x := &s.aborted
	x.lock.Lock()
	stored, tail := x.stored, slices.Clone(x.tail)
	x.lock.Unlock()
	if stored == 0 && len(tail) == 0 {
		return nil, nil
	}
	if stored*abortedBytes > maxAbortedBytes {
		return nil, fmt.Errorf("%w: %d entries", errAborted, stored)
	}
	data := make([]byte, stored*abortedBytes, stored*abortedBytes+int64(len(tail)))
	if stored > 0 {
		f, err := x.acquire(disk.Write)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(readFull(f, data, 0), f.release()); err != nil {
			return nil, err
		}
	}
	return parseAborted(append(data, tail...))
}
