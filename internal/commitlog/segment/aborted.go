package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

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

// AbortedTransaction is what a read_committed reader has to skip: the producer's records from First on, up to its abort marker.
type AbortedTransaction struct {
	ProducerID, First, Last int64
}

// AbortedEntry is one in the index, with the last stable offset once its marker was written.
type AbortedEntry struct {
	AbortedTransaction
	LastStable int64
}

func (a AbortedEntry) entry() (e indexEntry) {
	binary.BigEndian.PutUint16(e[:], abortedVersion)
	binary.BigEndian.PutUint64(e[2:], uint64(a.ProducerID))
	binary.BigEndian.PutUint64(e[10:], uint64(a.First))
	binary.BigEndian.PutUint64(e[18:], uint64(a.Last))
	binary.BigEndian.PutUint64(e[26:], uint64(a.LastStable))
	return e
}

func entryVersion(e []byte) uint16     { return binary.BigEndian.Uint16(e) }
func entryAbortedFirst(e []byte) int64 { return int64(binary.BigEndian.Uint64(e[10:])) }

// entryAbortedLast is what a transaction index ascends by.
func entryAbortedLast(e []byte) int64 { return int64(binary.BigEndian.Uint64(e[18:])) }

func parseAborted(data []byte) ([]AbortedEntry, error) {
	if len(data)%abortedBytes != 0 {
		return nil, fmt.Errorf("%w: %d bytes", errAborted, len(data))
	}
	entries := make([]AbortedEntry, 0, len(data)/abortedBytes)
	for ; len(data) > 0; data = data[abortedBytes:] {
		if v := entryVersion(data); v != abortedVersion {
			return nil, fmt.Errorf("%w: version %d", errAborted, v)
		}
		e := AbortedEntry{AbortedTransaction{
			ProducerID: int64(binary.BigEndian.Uint64(data[2:])), First: entryAbortedFirst(data), Last: entryAbortedLast(data),
		}, int64(binary.BigEndian.Uint64(data[26:]))}
		if e.First > e.Last || (len(entries) > 0 && e.Last <= entries[len(entries)-1].Last) {
			return nil, fmt.Errorf("%w: transaction %d..%d out of order", errAborted, e.First, e.Last)
		}
		entries = append(entries, e)
	}
	return entries, nil
}

// AddAborted notes a transaction whose marker is in the segment, and how far the log was stable after it.
func (s *Segment) AddAborted(a AbortedTransaction, lastStable int64) {
	s.aborted.add(AbortedEntry{a, lastStable}.entry())
}

// AbortedEntries reads a segment's transaction index, in the file and in memory.
func (s *Segment) AbortedEntries() ([]AbortedEntry, error) {
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
		f, err := x.Acquire(disk.Write)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(ReadFull(f, data, 0), f.Release()); err != nil {
			return nil, err
		}
	}
	return parseAborted(append(data, tail...))
}

// ForgetAborted drops the aborted transactions that ended at offset from or later: replaying finds them again. What a
// crash left of them may be anything, so they are gone through one by one.
func (s *Segment) ForgetAborted(from int64) error {
	last := int64(-1)
	return s.aborted.keep(func(e []byte) bool {
		first, end := entryAbortedFirst(e), entryAbortedLast(e)
		ok := entryVersion(e) == abortedVersion && first <= end && end > last && end < from
		last = end
		return ok
	})
}
