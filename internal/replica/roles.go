package replica

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
	"barnabas/internal/planted"
)

// assume gives the partition the role that the metadata says, which is all of the metadata that it depends on.
func (p *Partition) assume(self int32, state *metadata.Partition, links *links) error {
	p.setMinInSync(state)
	switch state.Leader {
	case self:
		return p.lead(self, state)
	case metadata.NoLeader:
		p.leave(absent{})
		return nil
	}
	counted := slices.Contains(state.ISR, self) || slices.Contains(state.ELR, self)
	next := &following{leader: state.Leader, epoch: state.LeaderEpoch, counted: counted, inSync: slices.Contains(state.ISR, self)}
	if links != nil {
		next.from = links.fetcher(state.Leader)
	}
	p.leave(next)
	if next.from != nil {
		next.from.add(p, next.epoch)
		if next.inSync && p.throttledFollower.Load() { // what was put off is wanted at once
			next.from.askAgain(p)
		}
	}
	return nil
}

// leave ends what the replica did before, and takes another role, none of them leading.
func (p *Partition) leave(next role) {
	p.mu.Lock()
	before, _ := p.mu.role.(*following)
	p.mu.Unlock()
	after, follows := next.(*following)
	if follows && before != nil && before.epoch == after.epoch && before.from == after.from {
		after.from = before.from
		p.become(next)
		return
	}
	p.become(next)
	if before != nil && before.from != nil && (!follows || before.from != after.from) {
		before.from.drop(p)
	}
}

// lead begins a leader epoch, or goes on with it.
func (p *Partition) lead(self int32, state *metadata.Partition) error {
	now := time.Now()
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	if leads && r.epoch == state.LeaderEpoch {
		r.follow(state, now)
		p.retainTombstones(r)
		p.mu.Unlock()
		p.become(r)
		p.afterISR()
		return nil
	}
	p.mu.Unlock()
	// Before the first append in the epoch, so that whoever asks where the epoch before ended is told, and after the
	// last of an epoch before, here or from its leader.
	start, err := p.log.Lead(state.LeaderEpoch)
	if err != nil {
		p.leave(absent{})
		return fmt.Errorf("begin epoch %d of %v: %w", state.LeaderEpoch, p.id, err)
	}
	next := lead(self, state, start, now)
	_, next.damaged = p.log.Damaged()
	p.retainTombstones(next)
	p.leave(next)
	p.afterISR()
	return nil
}

// afterISR does what new in-sync replicas allow: the watermark may move, and others may join.
func (p *Partition) afterISR() {
	p.advance()
	p.lookAtDeletes()
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	want := leads && r.wants(p.log.Progress(), p.byDisk(r), p.m.registered)
	p.mu.Unlock()
	if want {
		p.m.keep(p)
	}
}

// retainTombstones tells compaction which tombstones and markers every replica has on its disk. The lock is held, or
// nobody else knows r yet. What is alone keeps what the settings say.
func (p *Partition) retainTombstones(r *leading) {
	from := int64(math.MaxInt64)
	if len(r.followers) > 0 {
		from = r.everywhere(p.log.Progress().Flushed)
	}
	p.log.RetainTombstonesFrom(from)
}

// excuse is told that this process stood still for a time.
func (p *Partition) excuse(stood time.Duration, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, leads := p.mu.role.(*leading); leads {
		r.excuse(stood, now)
	}
}

// fetched takes what a follower says of its log, and returns what it has to be told; code 0 with no flags means that
// its log is a part of this one and may go on from its end.
func (p *Partition) fetched(broker int32, life int64, a *ask) (verdict part) {
	p.mu.Lock()
	verdict, want, satisfied := p.fetchedLocked(broker, life, a, time.Now())
	p.mu.Unlock()
	for _, w := range satisfied {
		close(w.done)
	}
	if want {
		p.m.keep(p)
	}
	return verdict
}

func (p *Partition) fetchedLocked(broker int32, life int64, a *ask, now time.Time) (verdict part, want bool, satisfied []*waiter) {
	verdict.slot = a.slot
	r, leads := p.mu.role.(*leading)
	switch {
	case !leads:
		verdict.code = answerNotLeader
		return verdict, false, nil
	case planted.FetchAnyEpoch && r.follower(broker) != nil:
	case a.epoch < r.epoch:
		verdict.code = answerFenced
		return verdict, false, nil
	case a.epoch > r.epoch || r.follower(broker) == nil: // this broker has not heard of it yet
		verdict.code = answerUnknown
		return verdict, false, nil
	}
	at := p.log.Progress()
	verdict.highWatermark, verdict.start = at.HighWatermark, at.Start
	if a.flags&askDamaged != 0 {
		want = r.report(broker, life, a.end, min(a.flushed, a.end), at, p.byDisk(r), now)
		return verdict, r.broken(broker) || want, nil
	}
	if a.end < at.Start || a.end > at.End && a.lastEpoch < 0 {
		verdict.code = answerOutOfRange
		return verdict, r.shorter(broker, a.end, at), nil
	}
	if a.lastEpoch >= 0 && !planted.FetchAnyEpoch {
		// KIP-101 and KIP-279, within the fetch: where does this log's history leave the follower's?
		found, end := p.log.EpochEnd(a.lastEpoch)
		if found < a.lastEpoch || end < a.end {
			verdict.flags, verdict.divergedEpoch, verdict.divergedEnd = partDiverged, found, max(end, 0)
			return verdict, false, nil
		}
	}
	want = r.report(broker, life, a.end, a.flushed, at, p.byDisk(r), now)
	r.starts(broker, life, a.start)
	p.retainTombstones(r)
	return verdict, want, append(p.advanceLocked(), p.deletedLocked(r)...)
}

// flushedAt takes word of a follower's disk.
func (p *Partition) flushedAt(broker int32, life int64, place flushedPlace) {
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	if !leads || r.epoch != place.epoch {
		p.mu.Unlock()
		return
	}
	want := r.advance(broker, life, place.flushed, p.log.Progress(), p.byDisk(r), time.Now())
	p.retainTombstones(r)
	satisfied := p.advanceLocked()
	p.mu.Unlock()
	for _, w := range satisfied {
		close(w.done)
	}
	if want {
		p.m.keep(p)
	}
}

// flushedHere takes word of this broker's own disk.
func (p *Partition) flushedHere() {
	p.mu.Lock()
	satisfied := p.advanceLocked()
	if r, leads := p.mu.role.(*leading); leads {
		p.retainTombstones(r)
	}
	f, follows := p.mu.role.(*following)
	p.mu.Unlock()
	for _, w := range satisfied {
		close(w.done)
	}
	if follows && f.from != nil {
		f.from.note(p)
	}
}

// followed takes over what the leader of an epoch says of the partition; commitlog.ErrEpochOver when that is over. The
// watermark is taken over even where the start could not be moved: it is told once.
func (p *Partition) followed(epoch int32, told *part) error {
	at := p.log.Progress()
	failed := p.startFollowing(epoch, told, at)
	if errors.Is(failed, commitlog.ErrEpochOver) {
		return failed
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	// Moving the start may have waited for long. What was committed in an epoch that is over need not be what this log has
	// there now, if a leader was elected since that did not have it.
	if f, follows := p.mu.role.(*following); !follows || f.epoch != epoch {
		return fmt.Errorf("hear of %v from its leader of epoch %d: %w", p.id, epoch, commitlog.ErrEpochOver)
	}
	p.log.RetainTombstonesFrom(told.everywhere)
	if told.highWatermark > at.HighWatermark {
		p.log.AdvanceHighWatermark(told.highWatermark)
		p.notifyWatchesLocked()
	}
	return failed
}

// startFollowing moves the log's start to the leader's.
func (p *Partition) startFollowing(epoch int32, told *part, at commitlog.Progress) error {
	if told.start > at.End {
		// Retention on the leader has overtaken this log whole.
		if err := p.log.RestartFollowing(told.start, epoch); err != nil {
			return fmt.Errorf("begin %v at its leader's start: %w", p.id, err)
		}
	} else if told.start > at.Start {
		if err := p.log.AdvanceStartFollowing(told.start, epoch); err != nil {
			return fmt.Errorf("move the start of %v: %w", p.id, err)
		}
	}
	return nil
}

// tap makes w hear, under key, of everything that a Watch hears of, and of appends.
func (p *Partition) tap(w *Watch, key int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var taps []tap
	if old := p.taps.Load(); old != nil {
		taps = slices.Clone(*old)
	}
	taps = append(taps, tap{w, key})
	p.taps.Store(&taps)
}

func (p *Partition) untap(w *Watch, key int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.taps.Load()
	if old == nil {
		return
	}
	taps := slices.DeleteFunc(slices.Clone(*old), func(t tap) bool { return t.watch == w && t.key == key })
	if len(taps) == 0 {
		p.taps.Store(nil)
		return
	}
	p.taps.Store(&taps)
}

// proposal is what the controller is to be asked now, nil for nothing; then again says that there will be something.
func (p *Partition) proposal(now time.Time) (asked *metadata.ISRProposal, again bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, damaged := p.log.Damaged()
	if f, follows := p.mu.role.(*following); follows && damaged && f.from != nil {
		f.from.askAgain(p)
	}
	r, leads := p.mu.role.(*leading)
	if !leads {
		return nil, false
	}
	if damaged && len(r.followers) > 0 {
		r.damaged = true
	}
	asked = r.propose(p.topicID, p.id.Partition, p.m.o.NodeID, p.log.Progress(), p.byDisk(r), p.m.patience(), now, p.m.registered)
	if asked == nil {
		return nil, r.wants(p.log.Progress(), p.byDisk(r), p.m.registered)
	}
	copied := *asked
	return &copied, false
}

// settle takes the answer, 0 for none; it returns whether the partition has more to ask. Who was refused counts no longer, so
// that what waited for it alone is committed: nobody else says so, since producers wait for just that.
func (p *Partition) settle(asked *metadata.ISRProposal, outcome metadata.ISROutcome, now time.Time) (again bool) {
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	if !leads {
		p.mu.Unlock()
		return false
	}
	r.settle(asked, outcome, now, keeperRest, p.m.registered)
	satisfied := p.advanceLocked()
	again = r.wants(p.log.Progress(), p.byDisk(r), p.m.registered)
	p.mu.Unlock()
	for _, w := range satisfied {
		close(w.done)
	}
	return again
}

// damageFound is called when a read of this replica's log met what is not what was written: a leader hands over, a
// follower fetches it again.
func (p *Partition) damageFound(err error) {
	if errors.Is(err, commitlog.ErrCorrupt) {
		p.m.keep(p)
	}
}

// NearestReplica is whom a consumer in rack should read from, at an offset (KIP-392): this broker, unless it is in
// another rack and an in-sync replica that has the offset is in the consumer's.
// Errors: ErrNotLeader.
func (p *Partition) NearestReplica(rack string, offset int64) (broker int32, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, leads := p.mu.role.(*leading)
	if !leads {
		return 0, fmt.Errorf("%v: %w", p.id, ErrNotLeader)
	}
	return r.nearest(p.m.o.NodeID, rack, offset, p.log.Progress(), p.byDisk(r), p.m.rackOf), nil
}

// InSync returns the in-sync replicas of a partition that this broker leads, as the controller said last, and
// nil where another leads.
func (p *Partition) InSync() []int32 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r, leads := p.mu.role.(*leading); leads {
		return slices.Clone(r.inSync)
	}
	return nil
}
