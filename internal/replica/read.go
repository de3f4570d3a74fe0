package replica

import (
	"context"
	"errors"
	"fmt"

	"barnabas/internal/commitlog"
	"barnabas/internal/planted"
)

// Isolation is how far a reader may read.
type Isolation int8

const (
	ReadUncommitted Isolation = iota // up to the high watermark
	ReadCommitted                    // up to the last stable offset: no record of an open transaction
)

func (i Isolation) limit(p commitlog.Progress) int64 {
	if i == ReadCommitted {
		return p.LastStable
	}
	return p.HighWatermark
}

// Result is what one read saw. The caller closes Records.
type Result struct {
	Progress commitlog.Progress // the snapshot that Records were read under: one consistent read (KAFKA-7104)
	Records  commitlog.Range
}

// Read reads whole batches from the one that holds offset from on: up to about maxBytes, the first
// batch even where it is larger if atLeastOne, never past what the isolation allows. callerEpoch is
// the leader epoch that the caller believes in, -1 for none.
// Errors: ErrNotLeader, ErrCutOff at the end of what there is and beyond, ErrFencedEpoch, ErrUnknownEpoch, ErrOffsetOutOfRange, and
// commitlog's.
func (p *Partition) Read(from int64, callerEpoch int32, maxBytes int, atLeastOne bool, isolation Isolation) (Result, error) {
	if _, err := p.LeaderEpoch(callerEpoch); err != nil {
		return Result{Progress: p.log.Progress()}, err
	}
	return p.read(from, maxBytes, atLeastOne, isolation)
}

// ReadHere is Read for a consumer that was sent to this replica because it is near (KIP-392): a follower answers it
// too, as far as it knows that records are committed.
// Errors: those of Read, and ErrOffsetNotAvailable.
func (p *Partition) ReadHere(from int64, callerEpoch int32, maxBytes int, atLeastOne bool, isolation Isolation) (Result, error) {
	p.mu.Lock()
	f, follows := p.mu.role.(*following)
	p.mu.Unlock()
	if !follows {
		return p.Read(from, callerEpoch, maxBytes, atLeastOne, isolation)
	}
	progress := p.log.Progress()
	if err := p.checkEpoch(callerEpoch, f.epoch); err != nil {
		return Result{Progress: progress}, err
	}
	if from > progress.HighWatermark {
		return Result{Progress: progress}, fmt.Errorf("read %v at %d, this follower knows %d to be committed: %w",
			p.id, from, progress.HighWatermark, ErrOffsetNotAvailable)
	}
	return p.read(from, maxBytes, atLeastOne, isolation)
}

// LatestOffset is the end of what a reader of this isolation may read, as ListOffsets asks for it.
// Errors: those of LeaderEpoch; ErrOffsetNotAvailable while a new leader's watermark has not come to where its epoch
// began, for its predecessor may have told readers of a higher one (KIP-207).
func (p *Partition) LatestOffset(callerEpoch int32, isolation Isolation) (int64, error) {
	if _, err := p.LeaderEpoch(callerEpoch); err != nil {
		return -1, err
	}
	progress := p.log.Progress()
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	p.mu.Unlock()
	if leads && progress.HighWatermark < r.start {
		return -1, fmt.Errorf("latest offset of %v: %w", p.id, ErrOffsetNotAvailable)
	}
	return isolation.limit(progress), nil
}

func (p *Partition) read(from int64, maxBytes int, atLeastOne bool, isolation Isolation) (Result, error) {
	progress := p.log.Progress()
	if from > progress.End && p.InDoubt() { // another leader may have that, and whoever is told that nobody has begins anew
		return Result{Progress: progress}, fmt.Errorf("read %v at %d, beyond its end: %w", p.id, from, ErrCutOff)
	}
	if from < progress.Start || from > progress.End {
		return Result{Progress: progress}, fmt.Errorf("read %v at %d, log holds %d to %d: %w",
			p.id, from, progress.Start, progress.End, ErrOffsetOutOfRange)
	}
	limit := isolation.limit(progress)
	if planted.ServeAboveWatermark {
		limit = progress.End
	}
	if from >= limit || maxBytes <= 0 && !atLeastOne {
		if err := p.log.Dir().Offline(); err != nil {
			return Result{Progress: progress}, fmt.Errorf("read %v: %w", p.id, err)
		}
		if from >= limit && p.InDoubt() { // who waited here would hear nothing of what another leader writes
			return Result{Progress: progress}, fmt.Errorf("read %v at its end: %w", p.id, ErrCutOff)
		}
		return Result{Progress: progress}, nil
	}
	records, err := p.log.Read(from, maxBytes, limit, atLeastOne)
	if errors.Is(err, commitlog.ErrOutOfRange) { // retention or DeleteRecords overtook this read
		return Result{Progress: p.log.Progress()}, fmt.Errorf("read %v at %d: %w", p.id, from, ErrOffsetOutOfRange)
	}
	if err != nil {
		p.damageFound(err)
		return Result{Progress: progress}, fmt.Errorf("read %v at %d: %w", p.id, from, err)
	}
	return Result{Progress: progress, Records: records}, nil
}

// EpochEnd answers OffsetForLeaderEpoch (KIP-101, KIP-279): the largest epoch at most the one asked
// for, and the offset at which it ended. Unknown epochs answer (-1, -1).
func (p *Partition) EpochEnd(epoch, callerEpoch int32) (found int32, end int64, err error) {
	current, err := p.LeaderEpoch(callerEpoch)
	if err != nil {
		return -1, -1, err
	}
	if epoch == current {
		return current, p.log.Progress().End, nil
	}
	found, end = p.log.EpochEnd(epoch)
	return found, end, nil
}

// DeleteRecords moves the log's start up to before, -1 meaning the high watermark, and returns the
// new start. What lies below is gone for readers at once; files follow with retention, and other replicas with what they
// copy: AwaitDeleted waits for them.
// Errors: ErrNotLeader, ErrOffsetOutOfRange, ErrDeletePolicy.
func (p *Partition) DeleteRecords(_ context.Context, before int64) (int64, error) {
	if _, err := p.LeaderEpoch(-1); err != nil {
		return -1, err
	}
	if p.InDoubt() {
		return -1, fmt.Errorf("delete records of %v: %w", p.id, ErrCutOff)
	}
	if !p.log.Config().Delete {
		return -1, fmt.Errorf("delete records of %v: %w", p.id, ErrDeletePolicy)
	}
	progress := p.log.Progress()
	if before == -1 {
		before = progress.HighWatermark
	}
	if before < 0 || before > progress.HighWatermark {
		return -1, fmt.Errorf("delete records of %v below %d, high watermark %d: %w",
			p.id, before, progress.HighWatermark, ErrOffsetOutOfRange)
	}
	if before > progress.Start {
		if err := p.log.AdvanceStart(before); err != nil {
			return -1, fmt.Errorf("delete records of %v below %d: %w", p.id, before, err)
		}
		p.notifyWatches() // readers are told of the new start
	}
	return p.log.Progress().Start, nil
}

// AwaitDeleted waits until no replica has records below before any more, but those on brokers that take no part, and
// returns the offset below which that is so (KIP-107's low watermark), as far as it is known with an error too: -1 for
// not at all.
// Errors: ErrNotLeader, commitlog.ErrOffline when the directory fails, the context's error.
func (p *Partition) AwaitDeleted(ctx context.Context, before int64) (lowest int64, err error) {
	epoch, err := p.LeaderEpoch(-1)
	if err != nil {
		return -1, err
	}
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	if !leads || r.epoch != epoch {
		p.mu.Unlock()
		return -1, fmt.Errorf("wait until records of %v are deleted: %w", p.id, ErrNotLeader)
	}
	if lowest = p.lowestLocked(r); lowest >= before {
		p.mu.Unlock()
		return lowest, nil
	}
	w := &waiter{need: before, done: make(chan struct{})}
	p.mu.deletes.add(w)
	p.mu.Unlock()
	select {
	case <-w.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.deletes.remove(w)
	r, leads = p.mu.role.(*leading)
	if !leads || r.epoch != epoch {
		return -1, fmt.Errorf("wait until records of %v are deleted: leadership changed: %w", p.id, ErrNotLeader)
	}
	lowest = p.lowestLocked(r)
	if offline := p.log.Dir().Offline(); offline != nil {
		err = offline
	}
	if lowest < before && err != nil {
		return lowest, fmt.Errorf("wait until records of %v are deleted: %w", p.id, err)
	}
	return lowest, nil
}

func (p *Partition) lowestLocked(r *leading) int64 {
	return r.lowest(p.log.Progress().Start, p.m.takesPart)
}

// deletedLocked returns those who have waited for other replicas' starts for long enough.
func (p *Partition) deletedLocked(r *leading) []*waiter {
	if len(p.mu.deletes) == 0 { // nearly always
		return nil
	}
	return p.mu.deletes.take(p.lowestLocked(r))
}

// lookAtDeletes is called when other replicas may count now.
func (p *Partition) lookAtDeletes() {
	p.mu.Lock()
	var satisfied []*waiter
	if r, leads := p.mu.role.(*leading); leads {
		satisfied = p.deletedLocked(r)
	}
	p.mu.Unlock()
	for _, w := range satisfied {
		close(w.done)
	}
}

// HasBeyond reports whether a read at offset from would find records, or an error.
func (p *Partition) HasBeyond(from int64, isolation Isolation) bool {
	if _, err := p.LeaderEpoch(-1); err != nil || p.InDoubt() {
		return true
	}
	progress := p.log.Progress()
	return from < isolation.limit(progress) || from > progress.End
}
