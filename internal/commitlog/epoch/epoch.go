// Package epoch keeps the history of a log's leader epochs (KIP-101): which began where. It decides what a new epoch
// makes of the ones before, what truncation and retention leave of them, and where an epoch ended. It knows
// neither files nor records; commitlog alone calls it.
package epoch

import (
	"slices"
	"sync"
)

// Start says at which offset a leader epoch began (KIP-101).
type Start struct {
	Epoch  int32
	Offset int64
}

// History is the history of a log's leader epochs: both fields ascend strictly. Changed under the append slot,
// read under its own short mutex.
type History struct {
	mu      sync.Mutex
	entries []Start
}

// Assign notes that epoch has a record at start, and tells whether that changed anything. What contradicts it at the end
// goes: the newer leader is right. An epoch that is known to have begun before did so: recovery reads records of earlier
// epochs again.
func (e *History) Assign(epoch int32, start int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if epoch < 0 || start < 0 {
		return false
	}
	n := len(e.entries)
	if n > 0 && e.entries[n-1].Epoch == epoch && e.entries[n-1].Offset <= start {
		return false
	}
	for n > 0 && (e.entries[n-1].Epoch > epoch || e.entries[n-1].Offset >= start) {
		n--
	}
	e.entries = e.entries[:n:n]
	if n == 0 || e.entries[n-1].Epoch < epoch {
		e.entries = append(e.entries, Start{epoch, start})
	}
	return true
}

// CutEnd forgets the epochs that began at end or later.
func (e *History) CutEnd(end int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.entries)
	for n > 0 && e.entries[n-1].Offset >= end {
		n--
	}
	changed := n < len(e.entries)
	e.entries = e.entries[:n:n]
	return changed
}

// CutStart moves the oldest epoch that still has records to start and forgets those before.
func (e *History) CutStart(start int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for n < len(e.entries) && e.entries[n].Offset <= start {
		n++
	}
	if n == 0 || (n == 1 && e.entries[0].Offset == start) {
		return false
	}
	kept := slices.Clone(e.entries[n-1:])
	kept[0].Offset = start
	e.entries = kept
	return true
}

func (e *History) Replace(entries []Start) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.entries = entries
}

func (e *History) All() []Start {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.entries)
}

func (e *History) Latest() int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.entries) == 0 {
		return -1
	}
	return e.entries[len(e.entries)-1].Epoch
}

// At returns the epoch of the record at offset, -1 when that is not known.
func (e *History) At(offset int64) int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range slices.Backward(e.entries) {
		if s.Offset <= offset {
			return s.Epoch
		}
	}
	return -1
}

// EndOf answers OffsetForLeaderEpoch: the largest known epoch that is not above the asked one, and where the next
// began. An epoch above all known ones gets (-1, -1); one below all gets itself and the start of the first.
func (e *History) EndOf(epoch int32, logEnd int64) (found int32, end int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.entries)
	if epoch < 0 || n == 0 || epoch > e.entries[n-1].Epoch {
		return -1, -1
	}
	if epoch == e.entries[n-1].Epoch {
		return epoch, logEnd
	}
	higher, _ := slices.BinarySearchFunc(e.entries, epoch, func(s Start, epoch int32) int {
		if s.Epoch <= epoch {
			return -1
		}
		return 1
	})
	if higher == 0 {
		return epoch, e.entries[0].Offset
	}
	return e.entries[higher-1].Epoch, e.entries[higher].Offset
}
