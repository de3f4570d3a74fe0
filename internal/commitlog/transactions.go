package commitlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

// transaction is a producer's records in this log from the first one to its marker.
type transaction struct {
	producer, first int64
	last            int64 // offset of the marker, -1 while open
	aborted         bool
}

// transactions holds what the last stable offset depends on: transactions that are open, and those that have ended
// with a marker that is not committed yet. Both ascend by first offset. Guarded by Log.mu.
type transactions struct {
	open, undecided []transaction
}

func byFirst(t transaction, first int64) int {
	switch {
	case t.first < first:
		return -1
	case t.first > first:
		return 1
	}
	return 0
}

func insert(list []transaction, t transaction) []transaction {
	i, found := slices.BinarySearchFunc(list, t.first, byFirst)
	if found {
		list[i] = t
		return list
	}
	return slices.Insert(list, i, t)
}

func (t *transactions) start(begun transaction) { t.open = insert(t.open, begun) }

func (t *transactions) end(ended transaction) {
	if i, found := slices.BinarySearchFunc(t.open, ended.first, byFirst); found {
		t.open = slices.Delete(t.open, i, i+1)
	}
	t.undecided = insert(t.undecided, ended)
}

// committed forgets ended transactions whose markers lie below the high watermark.
func (t *transactions) committed(highWatermark int64) {
	t.undecided = slices.DeleteFunc(t.undecided, func(e transaction) bool { return e.last < highWatermark })
}

// firstUnstable is the offset that no read_committed reader may pass; ok is false when nothing holds it back.
func (t *transactions) firstUnstable() (offset int64, ok bool) {
	switch {
	case len(t.open) == 0 && len(t.undecided) == 0:
		return 0, false
	case len(t.open) == 0:
		return t.undecided[0].first, true
	case len(t.undecided) == 0:
		return t.open[0].first, true
	}
	return min(t.open[0].first, t.undecided[0].first), true
}

// stableAfter is the last stable offset that an ended transaction leaves, were its marker committed.
func (t *transactions) stableAfter(ended *transaction) int64 {
	for _, o := range t.open {
		if o.producer != ended.producer {
			return o.first
		}
	}
	return ended.last + 1
}

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
		if v := binary.BigEndian.Uint16(data); v != abortedVersion {
			return nil, fmt.Errorf("%w: version %d", errAborted, v)
		}
		e := abortedEntry{AbortedTransaction{
			ProducerID: int64(binary.BigEndian.Uint64(data[2:])),
			First:      int64(binary.BigEndian.Uint64(data[10:])),
			Last:       int64(binary.BigEndian.Uint64(data[18:])),
		}, int64(binary.BigEndian.Uint64(data[26:]))}
		if e.First > e.Last || (len(entries) > 0 && e.Last <= entries[len(entries)-1].Last) {
			return nil, fmt.Errorf("%w: transaction %d..%d out of order", errAborted, e.First, e.Last)
		}
		entries = append(entries, e)
	}
	return entries, nil
}
