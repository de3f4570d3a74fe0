package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog"
	"barnabas/internal/metadata"
)

// Partition is this broker's replica of one topic partition.
type Partition struct {
	m       *Manager
	id      commitlog.TopicPartition
	topicID metadata.UUID
	log     *commitlog.Log

	// durable says that a record counts only once it is on disk (topic setting flush.before.ack).
	durable atomic.Bool
	// minInSync is the topic's min.insync.replicas, at most the number of replicas.
	minInSync atomic.Int32
	// leastAsked is the setting itself.
	leastAsked atomic.Int32
	// taps hear of every append: the brokers that follow this partition. Nil where there are none, so that a partition
	// without followers pays nothing for them. Replaced under mu, never changed.
	taps atomic.Pointer[[]tap]
	// throttledLeader and throttledFollower: this replica is in the topic's lists of throttled ones.
	throttledLeader, throttledFollower atomic.Bool
	// listed: the keeper of in-sync replicas has this partition on its list.
	listed atomic.Bool

	mu struct { // short sections only: never held across the log's calls that do I/O, nor while waiting
		sync.Mutex
		role    role
		waiters waiters        // producers that wait for the watermark
		deletes waiters        // who waits until records are deleted everywhere
		watches map[*Watch]int // readers that wait for records, with their key for this partition
	}
}

// tap is a Watch that hears of appends too.
type tap struct {
	watch *Watch
	key   int
}

// role is what the metadata makes of this replica. It is replaced when the leader epoch changes; a *leading is
// changed in place, under the partition's mutex.
type role interface{ isRole() }

// following: another broker leads, and this one copies its log.
type following struct {
	leader, epoch int32
	from          *fetcher // nil where this broker has no links to others
	// counted: others rely on what this replica has; it is in sync or eligible to lead.
	counted bool
	inSync  bool
}

// absent: the partition was deleted, or has no leader.
type absent struct{}

func (*leading) isRole()   {}
func (*following) isRole() {}
func (absent) isRole()     {}

// ID returns topic and partition number.
func (p *Partition) ID() commitlog.TopicPartition { return p.id }

// TopicID returns the id of the topic that this replica belongs to: a topic that was deleted and
// made again has another (KIP-516).
func (p *Partition) TopicID() metadata.UUID { return p.topicID }

// Progress returns log start, high watermark, last stable offset and log end from one consistent
// read (KAFKA-7104). It takes no lock that an append holds.
func (p *Partition) Progress() commitlog.Progress { return p.log.Progress() }

// Log lends the replica's log to read-only questions that do not depend on leadership:
// sizes, producers, epochs.
func (p *Partition) Log() *commitlog.Log { return p.log }

// LeaderEpoch returns the epoch in which this broker leads the partition. caller is the epoch that
// a client believes in, -1 for none.
// Errors: ErrNotLeader, ErrFencedEpoch, ErrUnknownEpoch.
func (p *Partition) LeaderEpoch(caller int32) (int32, error) {
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	p.mu.Unlock()
	if !leads {
		return 0, fmt.Errorf("%v: %w", p.id, ErrNotLeader)
	}
	return r.epoch, p.checkEpoch(caller, r.epoch) // an epoch's number never changes
}

func (p *Partition) checkEpoch(caller, epoch int32) error {
	switch {
	case caller >= 0 && caller < epoch:
		return fmt.Errorf("%v: epoch %d, leader is at %d: %w", p.id, caller, epoch, ErrFencedEpoch)
	case caller > epoch:
		return fmt.Errorf("%v: epoch %d, leader is at %d: %w", p.id, caller, epoch, ErrUnknownEpoch)
	}
	return nil
}

// Append writes one batch as the partition's leader. requireAll (acks=all) demands that at least
// min.insync.replicas are in sync, else ErrNotEnoughReplicas before anything is written.
// When Append returns, the batch has its offsets and will reach the disk; whether it counts is
// for Committed and AwaitCommitted to say, which are told the epoch that comes with them.
func (p *Partition) Append(b batch.Batch, requireAll bool, nowMs int64) (commitlog.Appended, error) {
	return p.appendAs(b, requireAll, commitlog.AppendOptions{LeaderEpoch: anyEpoch, NowMs: nowMs})
}

// AppendOwn writes a batch of this broker's own, a coordinator's, which has read the log as its leader
// in epoch: in any other epoch somebody else may have written since, and it is refused with
// ErrNotLeader. The rest is as with Append and acks=all.
func (p *Partition) AppendOwn(b batch.Batch, epoch int32, nowMs int64) (commitlog.Appended, error) {
	return p.appendAs(b, true, commitlog.AppendOptions{LeaderEpoch: epoch, NowMs: nowMs, Origin: commitlog.Coordinator})
}

// anyEpoch stands for the epoch that this broker leads in, whichever that is.
const anyEpoch int32 = -1

func (p *Partition) appendAs(b batch.Batch, requireAll bool, o commitlog.AppendOptions) (commitlog.Appended, error) {
	p.mu.Lock()
	r, leads := p.mu.role.(*leading)
	var epoch, inSync int32
	var doubted bool
	if leads {
		epoch, inSync, doubted = r.epoch, int32(len(r.inSync)), p.doubtedLocked(r)
	}
	p.mu.Unlock()
	switch {
	case doubted:
		return commitlog.Appended{}, fmt.Errorf("append to %v: %w", p.id, ErrCutOff)
	case !leads:
		return commitlog.Appended{}, fmt.Errorf("append to %v: %w", p.id, ErrNotLeader)
	case o.LeaderEpoch != anyEpoch && o.LeaderEpoch != epoch:
		return commitlog.Appended{}, fmt.Errorf("append to %v in epoch %d, leader is at %d: %w", p.id, o.LeaderEpoch, epoch, ErrNotLeader)
	}
	if least := p.minInSync.Load(); requireAll && inSync < least {
		return commitlog.Appended{}, fmt.Errorf("append to %v: %d in sync, min.insync.replicas %d: %w",
			p.id, inSync, least, ErrNotEnoughReplicas)
	}
	o.LeaderEpoch = epoch
	appended, err := p.log.Append(b, o)
	if errors.Is(err, commitlog.ErrEpochOver) { // since the role was looked at
		return commitlog.Appended{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if err != nil {
		return commitlog.Appended{}, fmt.Errorf("append to %v: %w", p.id, err)
	}
	if taps := p.taps.Load(); taps != nil {
		for _, t := range *taps {
			t.watch.notify(t.key)
		}
	}
	if !p.durable.Load() {
		p.advance() // perhaps nothing else has to happen before these records count
	}
	return appended, nil
}

// Committed reports whether what was appended here below next, in the leader epoch that the append told, is committed.
// Offsets alone do not say so: in another epoch somebody else's records may have them.
func (p *Partition) Committed(next int64, epoch int32) bool {
	if p.log.Progress().HighWatermark < next {
		return false
	}
	// After the watermark: who leads in the epoch now has done so since the append.
	if now, err := p.LeaderEpoch(-1); err == nil && now == epoch {
		return true
	}
	return p.log.EpochAt(next-1) == epoch // below the watermark it stays what it is
}

// AwaitCommitted waits until everything is committed that was appended below next in epoch, which is the one that the
// append told.
// Errors: ErrNotLeader when leadership ends first or, as ErrCutOff, is in doubt, commitlog.ErrOffline when the directory fails
// first, ErrNotEnoughReplicasAfterAppend when too few replicas stay in sync, the context's error when it ends first. In all
// of these the records may yet be committed.
func (p *Partition) AwaitCommitted(ctx context.Context, next int64, epoch int32) error {
	if p.Committed(next, epoch) {
		return nil
	}
	w, err := p.wait(next, epoch)
	if err != nil {
		return fmt.Errorf("wait for %v: %w", p.id, err)
	}
	select {
	case <-w.done:
	case <-ctx.Done():
		p.mu.Lock()
		p.mu.waiters.remove(w)
		p.mu.Unlock()
		return fmt.Errorf("wait for %v: %w", p.id, ctx.Err())
	}
	if err := p.log.Dir().Offline(); err != nil {
		return fmt.Errorf("wait for %v: %w", p.id, err)
	}
	switch now, err := p.LeaderEpoch(-1); {
	case p.Committed(next, epoch):
		return nil
	case err != nil || now != epoch:
		return fmt.Errorf("wait for %v: leadership changed: %w", p.id, ErrNotLeader)
	case w.cutOff:
		return fmt.Errorf("wait for %v: %w", p.id, ErrCutOff)
	}
	return fmt.Errorf("wait for %v: %w", p.id, ErrNotEnoughReplicasAfterAppend) // let go in the same epoch
}

// wait adds one who waits, if there is something to wait for.
func (p *Partition) wait(next int64, epoch int32) (*waiter, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	r, leads := p.mu.role.(*leading)
	if !leads || r.epoch != epoch {
		return nil, ErrNotLeader
	}
	w := &waiter{need: next, done: make(chan struct{})}
	if p.log.Progress().HighWatermark >= next { // since it was looked at
		close(w.done)
		return w, nil
	}
	if p.doubtedLocked(r) {
		return nil, ErrCutOff
	}
	if p.tooFew(r) {
		return nil, ErrNotEnoughReplicasAfterAppend
	}
	if err := p.log.Dir().Offline(); err != nil {
		return nil, err
	}
	p.mu.waiters.add(w)
	return w, nil
}

// tooFew: the watermark stands still, for fewer than min.insync.replicas are in sync.
func (p *Partition) tooFew(r *leading) bool { return int32(len(r.inSync)) < p.minInSync.Load() }

// advance moves the high watermark of a partition led here to what every in-sync replica has, and wakes who
// waited for it.
func (p *Partition) advance() {
	p.mu.Lock()
	satisfied := p.advanceLocked()
	p.mu.Unlock()
	for _, w := range satisfied {
		close(w.done)
	}
}

// advanceLocked returns the producers whose records are committed now. It looks at the log and moves the watermark
// under the lock that changes of the in-sync replicas take: one that joins is never passed by a move that
// was reckoned without it.
func (p *Partition) advanceLocked() []*waiter {
	r, leads := p.mu.role.(*leading)
	if !leads {
		return nil
	}
	progress := p.log.Progress()
	byDisk := p.byDisk(r)
	if r.unflushedChange(progress) != nil {
		p.m.keep(p)
	}
	own := progress.End
	if byDisk {
		own = progress.Flushed
	}
	reached := r.reach(own, byDisk, p.minInSync.Load())
	if reached <= progress.HighWatermark {
		return nil
	}
	p.log.AdvanceHighWatermark(reached)
	for w, key := range p.mu.watches {
		w.notify(key)
	}
	if taps := p.taps.Load(); taps != nil { // followers can hear of it with the next records
		for _, t := range *taps {
			t.watch.whisper(t.key)
		}
	}
	return p.mu.waiters.take(reached)
}

// byDisk: records of this partition count once they are on disk. A broker that has no links to others asks no controller for its
// word, and promises nobody anything. The lock is held.
func (p *Partition) byDisk(r *leading) bool {
	r.durable = p.durable.Load()
	if p.m.keeper == nil {
		r.unflushed = !r.durable
	}
	return r.byDisk()
}

func (p *Partition) notifyWatches() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notifyWatchesLocked()
}

func (p *Partition) notifyWatchesLocked() {
	for w, key := range p.mu.watches {
		w.notify(key)
	}
	if taps := p.taps.Load(); taps != nil {
		for _, t := range *taps {
			t.watch.notify(t.key)
		}
	}
}

// Watch makes w hear, under key, of every move of the watermark and every change of role, until
// Unwatch. What moved before Watch returned has to be read by the caller once.
func (p *Partition) Watch(w *Watch, key int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.watches == nil {
		p.mu.watches = map[*Watch]int{}
	}
	p.mu.watches[w] = key
}

// Unwatch ends Watch.
func (p *Partition) Unwatch(w *Watch) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if delete(p.mu.watches, w); len(p.mu.watches) == 0 {
		p.mu.watches = nil // an idle partition keeps nothing
	}
}

// Watches is how many readers have registered.
func (p *Partition) Watches() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.mu.watches)
}

// become changes the role, and lets go everybody who waited in the one before. Who leads on in the
// same epoch, with other replicas in sync, has made nobody's wait void, unless too few are left.
func (p *Partition) become(next role) {
	p.mu.Lock()
	before, led := p.mu.role.(*leading)
	after, leads := next.(*leading)
	p.mu.role = next
	var let []*waiter
	if !led || !leads || before.epoch != after.epoch || p.tooFew(after) {
		let = p.mu.waiters.takeAll()
	}
	if !led || !leads || before.epoch != after.epoch {
		let = append(let, p.mu.deletes.takeAll()...)
	}
	p.notifyWatchesLocked()
	p.mu.Unlock()
	for _, w := range let {
		close(w.done)
	}
}

// release lets everybody go without a change of role: the directory has failed.
func (p *Partition) release() {
	p.mu.Lock()
	let := append(p.mu.waiters.takeAll(), p.mu.deletes.takeAll()...)
	p.notifyWatchesLocked()
	p.mu.Unlock()
	for _, w := range let {
		close(w.done)
	}
}
