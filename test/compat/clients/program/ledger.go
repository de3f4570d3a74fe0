package program

import (
	"maps"
	"slices"
	"strings"
	"sync"
)

// Ledger keeps what a group's member has read and committed, and prints it. Safe for concurrent
// use; a commit belongs between Lock and Unlock, so that what it covers has been printed and
// nothing is printed in between.
type Ledger struct {
	sync.Mutex
	every int
	since int             // records since the last commit
	next  map[int32]int64 // read and not yet committed: the next offset, by partition
}

// NewLedger is a ledger that finds a commit due after every so many records.
func NewLedger(every int) *Ledger {
	return &Ledger{every: every, next: map[int32]int64{}}
}

// Assigned prints partitions that the member has from now on.
func (l *Ledger) Assigned(partitions []int32) { printPartitions("assigned", partitions) }

// Revoked prints partitions that the member has no longer, and forgets what was read of them.
func (l *Ledger) Revoked(partitions []int32) {
	for _, p := range partitions {
		delete(l.next, p)
	}
	printPartitions("revoked", partitions)
}

func printPartitions(what string, partitions []int32) {
	sorted := slices.Sorted(slices.Values(partitions))
	if sorted == nil {
		sorted = []int32{}
	}
	Print(map[string][]int32{what: sorted})
}

// Record prints a record, and says whether a commit is due.
func (l *Ledger) Record(partition int32, offset int64, value []byte) (due bool) {
	type record struct {
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
		Value     string `json:"value"`
	}
	Print(map[string]record{"record": {partition, offset, strings.TrimRight(string(value), " ")}})
	l.next[partition] = offset + 1
	l.since++
	return l.since >= l.every
}

// Uncommitted is what a commit has to cover: the next offset to read, by partition.
func (l *Ledger) Uncommitted() map[int32]int64 { return maps.Clone(l.next) }

// Committed prints what the broker has acknowledged.
func (l *Ledger) Committed(offsets map[int32]int64) {
	l.since = 0
	for p, o := range offsets {
		if l.next[p] == o {
			delete(l.next, p)
		}
	}
	Print(map[string]map[int32]int64{"committed": offsets})
}

// Refused starts the count of records anew: the next commit is due when as many have been read again.
func (l *Ledger) Refused() { l.since = 0 }
