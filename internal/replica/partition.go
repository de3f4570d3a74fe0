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
	id      commitlog.TopicPartition
	topicID metadata.UUID
	log     *commitlog.Log

	// durable says that a record counts only once it is on disk (topic setting flush.before.ack).
	durable atomic.Bool
	// minInSync is the topic's min.insync.replicas, at most the number of replicas.
	minInSync atomic.Int32

	mu struct { // short sections only: never held across the log's calls that do I/O, nor while waiting
		sync.Mutex
		role    role
		waiters waiters        // producers that wait for the watermark
		watches map[*Watch]int // readers that wait for records, with their key for this partition
	}
}

// role is what the metadata makes of this replica. Cluster roles (following) join leading here.
type role interface{ isRole() }

// leading: this broker is the partition's leader in this epoch.
type leading struct {
	epoch  int32
	inSync []int32 // node ids, this broker's among them
}

// absent: the partition is led elsewhere, was deleted, or has no leader.
type absent struct{}

func (leading) isRole() {}
func (absent) isRole()  {}

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
	r, leads := p.mu.role.(leading)
	p.mu.Unlock()
	switch {
	case !leads:
		return 0, fmt.Errorf("%v: %w", p.id, ErrNotLeader)
	case caller >= 0 && caller < r.epoch:
		return 0, fmt.Errorf("%v: epoch %d, leader is at %d: %w", p.id, caller, r.epoch, ErrFencedEpoch)
	case caller > r.epoch:
		return 0, fmt.Errorf("%v: epoch %d, leader is at %d: %w", p.id, caller, r.epoch, ErrUnknownEpoch)
	}
	return r.epoch, nil
}

// Append writes one batch as the partition's leader. requireAll (acks=all) demands that at least
// min.insync.replicas are in sync, else ErrNotEnoughReplicas before anything is written.
// When Append returns, the batch has its offsets and will reach the disk; whether it counts is
// for Committed and AwaitCommitted to say.
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
	r, leads := p.mu.role.(leading)
	p.mu.Unlock()
	switch {
	case !leads:
		return commitlog.Appended{}, fmt.Errorf("append to %v: %w", p.id, ErrNotLeader)
	case o.LeaderEpoch != anyEpoch && o.LeaderEpoch != r.epoch:
		return commitlog.Appended{}, fmt.Errorf("append to %v in epoch %d, leader is at %d: %w", p.id, o.LeaderEpoch, r.epoch, ErrNotLeader)
	}
	if least := p.minInSync.Load(); requireAll && int32(len(r.inSync)) < least {
		return commitlog.Appended{}, fmt.Errorf("append to %v: %d in sync, min.insync.replicas %d: %w",
			p.id, len(r.inSync), least, ErrNotEnoughReplicas)
	}
	o.LeaderEpoch = r.epoch
	appended, err := p.log.Append(b, o)
	if errors.Is(err, commitlog.ErrEpochOver) { // since the role was looked at
		return commitlog.Appended{}, fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	if err != nil {
		return commitlog.Appended{}, fmt.Errorf("append to %v: %w", p.id, err)
	}
	if !p.durable.Load() {
		p.advance() // nothing else has to happen before these records count
	}
	return appended, nil
}

// Committed reports whether everything below next is committed.
func (p *Partition) Committed(next int64) bool { return p.log.Progress().HighWatermark >= next }

// AwaitCommitted waits until everything below next is committed.
// Errors: ErrNotLeader when leadership ends first, commitlog.ErrOffline when the directory fails
// first, the context's error when it ends first. In all three the records may yet be committed.
func (p *Partition) AwaitCommitted(ctx context.Context, next int64) error {
	p.mu.Lock()
	if p.Committed(next) {
		p.mu.Unlock()
		return nil
	}
	before, leads := p.mu.role.(leading)
	if !leads {
		p.mu.Unlock()
		return fmt.Errorf("wait for %v: %w", p.id, ErrNotLeader)
	}
	if err := p.log.Dir().Offline(); err != nil {
		p.mu.Unlock()
		return fmt.Errorf("wait for %v: %w", p.id, err)
	}
	w := &waiter{need: next, done: make(chan struct{})}
	p.mu.waiters.add(w)
	p.mu.Unlock()

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
	// Only leadership without a break says that what was appended is what was committed.
	if now, err := p.LeaderEpoch(-1); err != nil || now != before.epoch {
		return fmt.Errorf("wait for %v: leadership changed: %w", p.id, ErrNotLeader)
	}
	if !p.Committed(next) {
		return fmt.Errorf("wait for %v: woken below %d: %w", p.id, next, ErrNotLeader)
	}
	return nil
}

// advance moves the high watermark to what every in-sync replica has, and wakes who waited for it.
func (p *Partition) advance() {
	progress := p.log.Progress()
	reached := progress.End
	if p.durable.Load() {
		reached = progress.Flushed
	}
	if reached <= progress.HighWatermark {
		return
	}
	p.log.AdvanceHighWatermark(reached)
	p.wake()
}

// wake tells the producers whose records are committed now, and all readers.
func (p *Partition) wake() {
	p.mu.Lock()
	satisfied := p.mu.waiters.take(p.log.Progress().HighWatermark)
	p.notifyWatchesLocked()
	p.mu.Unlock()
	for _, w := range satisfied {
		close(w.done)
	}
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
// same epoch, with other replicas in sync, has made nobody's wait void.
func (p *Partition) become(next role) {
	p.mu.Lock()
	before, led := p.mu.role.(leading)
	after, leads := next.(leading)
	p.mu.role = next
	if led && leads && before.epoch == after.epoch {
		p.notifyWatchesLocked()
		p.mu.Unlock()
		return
	}
	let := p.mu.waiters.takeAll()
	p.notifyWatchesLocked()
	p.mu.Unlock()
	for _, w := range let {
		close(w.done)
	}
}

// release lets everybody go without a change of role: the directory has failed.
func (p *Partition) release() {
	p.mu.Lock()
	let := p.mu.waiters.takeAll()
	p.notifyWatchesLocked()
	p.mu.Unlock()
	for _, w := range let {
		close(w.done)
	}
}
