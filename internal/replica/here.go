package replica

import "fmt"

// What follows is for readers that a follower may answer too (KIP-392), and for tools that look at one replica.

// EpochHere returns the leader epoch in which this replica leads or follows. caller is the epoch that a client believes
// in, -1 for none.
// Errors: ErrNotLeader where it does neither, ErrFencedEpoch, ErrUnknownEpoch.
func (p *Partition) EpochHere(caller int32) (int32, error) {
	p.mu.Lock()
	var epoch int32
	takesPart := true
	switch r := p.mu.role.(type) {
	case *leading:
		epoch = r.epoch
	case *following:
		epoch = r.epoch
	default:
		takesPart = false
	}
	p.mu.Unlock()
	if !takesPart {
		return 0, fmt.Errorf("%v: %w", p.id, ErrNotLeader)
	}
	return epoch, p.checkEpoch(caller, epoch)
}

// EpochEndHere is EpochEnd of a replica that may be a follower. A follower answers from its own log, which may not
// reach the end of an epoch yet.
func (p *Partition) EpochEndHere(epoch, callerEpoch int32) (found int32, end int64, err error) {
	current, err := p.EpochHere(callerEpoch)
	if err != nil {
		return -1, -1, err
	}
	if epoch == current {
		return current, p.log.Progress().End, nil
	}
	found, end = p.log.EpochEnd(epoch)
	return found, end, nil
}

// HasBeyondHere is HasBeyond of a replica that may be a follower: whether ReadHere at offset from would find records,
// or an error that does not pass by itself.
func (p *Partition) HasBeyondHere(from int64, isolation Isolation) bool {
	if _, err := p.EpochHere(-1); err != nil || p.InDoubt() {
		return true
	}
	progress := p.log.Progress()
	return from < isolation.limit(progress) || from > progress.End
}

// ReadableEnd is the end of what a reader of this isolation may read, as far as this replica knows.
func (p *Partition) ReadableEnd(isolation Isolation) int64 { return isolation.limit(p.log.Progress()) }
