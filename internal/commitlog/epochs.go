package commitlog

import (
	"slices"
	"sync"
)

// epochFile is where the epochs of a log are kept, in Kafka's format.
const epochFile = "leader-epoch-checkpoint"

// epochStart says at which offset a leader epoch began (KIP-101).
type epochStart struct {
	epoch int32
	start int64
}

// epochs is the history of a log's leader epochs: both fields ascend strictly. Changed under the append slot,
// read under its own short mutex.
type epochs struct {
	mu      sync.Mutex
	entries []epochStart
}

// assign notes that epoch has a record at start, and tells whether that changed anything. What contradicts it at the end
// goes: the newer leader is right. What is known to have begun before did so: recovery reads records of old epochs again.
func (e *epochs) assign(epoch int32, start int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if epoch < 0 || start < 0 {
		return false
	}
	n := len(e.entries)
	if n > 0 && e.entries[n-1].epoch == epoch && e.entries[n-1].start <= start {
		return false
	}
	for n > 0 && (e.entries[n-1].epoch > epoch || e.entries[n-1].start >= start) {
		n--
	}
	e.entries = e.entries[:n:n]
	if n == 0 || e.entries[n-1].epoch < epoch {
		e.entries = append(e.entries, epochStart{epoch, start})
	}
	return true
}

// cutEnd forgets the epochs that began at end or later.
func (e *epochs) cutEnd(end int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.entries)
	for n > 0 && e.entries[n-1].start >= end {
		n--
	}
	changed := n < len(e.entries)
	e.entries = e.entries[:n:n]
	return changed
}

// cutStart moves the oldest epoch that still has records to start and forgets those before.
func (e *epochs) cutStart(start int64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for n < len(e.entries) && e.entries[n].start <= start {
		n++
	}
	if n == 0 || (n == 1 && e.entries[0].start == start) {
		return false
	}
	kept := slices.Clone(e.entries[n-1:])
	kept[0].start = start
	e.entries = kept
	return true
}

func (e *epochs) replace(entries []epochStart) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.entries = entries
}

func (e *epochs) all() []epochStart {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.entries)
}

func (e *epochs) latest() int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.entries) == 0 {
		return -1
	}
	return e.entries[len(e.entries)-1].epoch
}

// at returns the epoch of the record at offset, -1 when that is not known.
func (e *epochs) at(offset int64) int32 {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, s := range slices.Backward(e.entries) {
		if s.start <= offset {
			return s.epoch
		}
	}
	return -1
}

// endOf answers OffsetForLeaderEpoch: the largest known epoch that is not above the asked one, and where the next
// began. An epoch above all known ones gets (-1, -1); one below all gets itself and the start of the first.
func (e *epochs) endOf(epoch int32, logEnd int64) (found int32, end int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.entries)
	if epoch < 0 || n == 0 || epoch > e.entries[n-1].epoch {
		return -1, -1
	}
	if epoch == e.entries[n-1].epoch {
		return epoch, logEnd
	}
	higher, _ := slices.BinarySearchFunc(e.entries, epoch, func(s epochStart, epoch int32) int {
		if s.epoch <= epoch {
			return -1
		}
		return 1
	})
	if higher == 0 {
		return epoch, e.entries[0].start
	}
	return e.entries[higher-1].epoch, e.entries[higher].start
}
