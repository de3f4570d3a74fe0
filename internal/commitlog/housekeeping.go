package commitlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/commitlog/burial"
	"barnabas/internal/commitlog/identity"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// maxDelayMs is the longest flush.ms that is kept time of; a longer one is none (Kafka's default is the largest number).
const maxDelayMs = int64(100 * 365 * 24 * time.Hour / time.Millisecond)

// keeper is the housekeeping of a directory: one goroutine and one timer for everything that is not urgent.
type keeper struct {
	dir  *Dir
	wake chan struct{} // holds one signal
	quit context.CancelFunc
	done chan struct{}
	slot chan struct{} // held by a checkpoint: one must not rely on what another is still flushing

	mu struct { // short
		sync.Mutex
		lazy   []delayed // logs with flush.ms running
		starts bool      // a log start has moved
	}
	graves burial.Graves
	chores []chore // of its goroutine
	told   bool
	bytes  atomic.Int64 // appended until the last checkpoint
}

// delayed is a log to be flushed at a time.
type delayed struct {
	log *Log
	due time.Time
}

// chore is done again and again.
type chore struct {
	every time.Duration
	due   time.Time
	do    func()
}

func newKeeper(d *Dir) *keeper {
	k := &keeper{dir: d, wake: make(chan struct{}, 1), done: make(chan struct{}), slot: make(chan struct{}, 1)}
	k.quit = func() {}
	return k
}

func (d *Dir) wakeHousekeeping() {
	select {
	case d.keeper.wake <- struct{}{}:
	default:
	}
}

func (d *Dir) startsMoved() {
	d.keeper.mu.Lock()
	d.keeper.mu.starts = true
	d.keeper.mu.Unlock()
	d.wakeHousekeeping()
}

// flushBy has the log flushed at a time (ms), for flush.ms.
func (d *Dir) flushBy(l *Log, atMs int64) {
	k := d.keeper
	if step := d.options.FlushCheckInterval.Milliseconds(); step > 0 && step < maxDelayMs {
		atMs += step - 1 - (atMs-1)%step // the next time that it is looked
	}
	k.mu.Lock()
	k.mu.lazy = append(k.mu.lazy, delayed{l, time.UnixMilli(atMs)})
	k.mu.Unlock()
	d.wakeHousekeeping()
}

// removeLater removes a file or directory after a delay.
func (k *keeper) removeLater(path string, delayMs int64) {
	k.graves.Add(burial.Grave{Path: path, Due: k.due(delayMs)})
	k.dir.wakeHousekeeping()
}

// due is the time after a delay.
func (k *keeper) due(delayMs int64) time.Time {
	return k.dir.now().Add(time.Duration(min(delayMs, maxDelayMs)) * time.Millisecond)
}

// stop ends the goroutine and waits for it.
func (k *keeper) stop() {
	k.quit()
	<-k.done
}

// run does what is due until ctx ends.
func (k *keeper) run(ctx context.Context) {
	defer close(k.done)
	k.plan()
	if k.dir.unclean && len(k.dir.Found()) > 0 {
		k.checkpoint() // so that another crash has nothing to read again
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-k.wake:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		if k.dir.Offline() != nil {
			k.announce()
			continue
		}
		timer.Reset(k.turn())
	}
}

// plan sets up the chores. Each begins at a time of its own, so that directories do not work in step.
func (k *keeper) plan() {
	o := &k.dir.options
	now := k.dir.now()
	for _, c := range []chore{
		{every: o.RetentionCheckInterval, do: k.retain},
		{every: o.RecoveryCheckpointInterval, do: k.checkpoint},
		{every: o.StartCheckpointInterval, do: k.storeStarts},
		{every: o.ProducerIDCheckInterval, do: k.expireProducers},
		{every: o.IdleCloseAfter / 2, do: k.closeIdle},
	} {
		c.due = now.Add(min(c.every, o.InitialTaskDelay) + k.spread(c.every))
		k.chores = append(k.chores, c)
	}
}

// spread is up to a hundredth of a period.
func (k *keeper) spread(period time.Duration) time.Duration {
	return time.Duration(k.dir.jitter(int64(period / 100)))
}

// turn does what is due and returns how long nothing will be.
func (k *keeper) turn() time.Duration {
	d := k.dir
	for i := range k.chores {
		if c := &k.chores[i]; !c.due.After(d.now()) {
			c.do()
			c.due = d.now().Add(c.every + k.spread(c.every))
		}
	}
	for range 3 { // writing what waits for a file opens it
		if !d.files.Crowded() {
			break
		}
		k.shut(d.files.Surplus())
	}
	k.remove(k.graves.TakeDue(d.now()))
	k.flushDue(d.now())
	if k.dir.repairs.Swap(false) {
		k.repair()
	}
	if k.takeStarts() {
		k.storeStarts()
	}
	if k.grown() >= d.options.CheckpointBytes {
		k.checkpoint()
	}
	return k.pause(d.now())
}

// pollBytesEvery is how often it is looked whether CheckpointBytes have come.
const pollBytesEvery = time.Second

func (k *keeper) pause(now time.Time) time.Duration {
	next := now.Add(time.Hour)
	for _, c := range k.chores {
		next = earlier(next, c.due)
	}
	next = k.graves.Next(next)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.mu.lazy {
		next = earlier(next, l.due)
	}
	if k.dir.files.Count() > 0 { // somebody is at work
		next = earlier(next, now.Add(pollBytesEvery))
	}
	return max(next.Sub(now), time.Millisecond)
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// announce tells once that the directory has failed.
func (k *keeper) announce() {
	if k.told {
		return
	}
	k.told = true
	cause := k.dir.Offline()
	k.leaveMark(cause)
	if o := k.dir.observer; o != nil {
		o.Offline(k.dir, cause)
	}
}

// leaveMark writes into the other directories that this one must not be used again.
func (k *keeper) leaveMark(cause error) {
	d := k.dir
	text := fmt.Appendf(nil, "%s failed at %s and must not be used as it is:\n%v\nCheck the disk, then remove this file to use the directory again.\n",
		d.path, d.now().UTC().Format(time.RFC3339), cause)
	for _, other := range d.options.OtherDirs {
		if err := disk.WriteFileAtomic(d.fs, d.markIn(other), text); err != nil {
			d.logger.Error("cannot leave the mark of a failed directory", "dir", d.path, "file", d.markIn(other), "error", err)
		}
	}
}

// retain applies the retention settings to every log.
func (k *keeper) retain() {
	nowMs := k.dir.now().UnixMilli()
	for _, l := range k.dir.logs() {
		if err := l.retain(nowMs); err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrOffline) {
			k.dir.logger.Error("retention failed", "log", l.id.String(), "error", err)
		}
	}
}

func (k *keeper) expireProducers() {
	before := k.dir.expiry()
	for _, l := range k.dir.logs() {
		if l.take() == nil {
			l.producers.Expire(before)
			l.give()
		}
	}
	k.trimProducers()
}

// trimProducers forgets those longest unused anywhere, where logs with one producer each have gone over the limit.
func (k *keeper) trimProducers() {
	limit := k.dir.maxProducers
	surplus := k.dir.producerCount.Load() - limit
	if surplus <= 0 {
		return
	}
	var times []int64
	logs := k.dir.logs()
	for _, l := range logs {
		if l.take() == nil {
			for p := range l.producers.All() {
				times = append(times, p.TimestampMs)
			}
			l.give()
		}
	}
	slices.Sort(times)
	before := times[min(surplus, int64(len(times)))-1]
	for _, l := range logs {
		if k.dir.producerCount.Load() > limit && l.take() == nil {
			l.producers.Expire(before)
			l.give()
		}
	}
}

// closeIdle closes the files that nobody has used since the sweep before last, and drops the buffers that go with them.
func (k *keeper) closeIdle() { k.shut(k.dir.files.Idle()) }

// shut closes files. A log none of whose files stay open gives up its buffers.
func (k *keeper) shut(files []*segment.File) {
	d := k.dir
	logs := map[*Log]bool{}
	for _, f := range files {
		l := f.Segment().Host.(host).Log
		if done, seen := logs[l]; seen && !done {
			continue
		} else if !seen {
			logs[l] = l.stow()
		}
		if logs[l] {
			if err := f.Shut(false); err != nil {
				_ = d.fail(fmt.Errorf("close %s: %w", f.Path(), err)) // told by the housekeeping
			}
		}
	}
	for l, stowed := range logs {
		if stowed {
			l.rest()
		}
	}
}

// stow writes the index entries that wait in memory. False when the log is being appended to, so not idle.
func (l *Log) stow() bool {
	if !l.tryTake() {
		return false
	}
	defer l.give()
	for _, s := range *l.segments.Load() {
		if s.Waiting() {
			if err := s.StoreIndexes(); err != nil {
				l.tolerate(err)
				return false
			}
		}
	}
	return true
}

// rest drops the buffers of a log without open files.
func (l *Log) rest() {
	segments := *l.segments.Load()
	for _, s := range segments {
		if s.OpenFiles() {
			return
		}
	}
	for _, s := range segments {
		s.Forget()
	}
	l.forgetWarm()
}

// remove takes files and directories away whose time has come.
func (k *keeper) remove(graves []burial.Grave) {
	for _, g := range graves {
		if err := k.dir.fs.Remove(g.Path); err != nil {
			k.dir.logger.Warn("cannot remove", "path", g.Path, "error", err)
		}
	}
}

// flushDue schedules the logs whose flush.ms is over.
func (k *keeper) flushDue(now time.Time) {
	k.mu.Lock()
	var due []*Log
	k.mu.lazy = slices.DeleteFunc(k.mu.lazy, func(l delayed) bool {
		if l.due.After(now) {
			return false
		}
		due = append(due, l.log)
		return true
	})
	k.mu.Unlock()
	for _, l := range due {
		l.lazy.Store(false)
		k.dir.flusher.schedule(l)
	}
}

func (k *keeper) takeStarts() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	moved := k.mu.starts
	k.mu.starts = false
	return moved
}

func (k *keeper) storeStarts() {
	if err := k.dir.points.storeStarts(k.dir, k.dir.logs()); err != nil {
		k.dir.logger.Error("cannot write checkpoint", "error", err)
	}
}

// repair makes indexes again that led a reader astray, and writes topic ids that have become known.
func (k *keeper) repair() {
	for _, l := range k.dir.logs() {
		if l.adopted.Load() && len(*l.segments.Load()) > 0 && l.take() == nil {
			if l.writeState(identity.PartitionFile, identity.FormatPartition(l.TopicID())) == nil {
				l.adopted.Store(false)
				k.dir.flusher.schedule(l)
			}
			l.give()
		}
		for _, s := range *l.segments.Load() {
			if !s.Suspect.Load() || l.take() != nil {
				continue
			}
			if err := s.RebuildIndex(int64(l.config.Load().IndexIntervalBytes), s != l.active(), make([]byte, scanBytes)); err != nil {
				l.tolerate(err)
			} else {
				s.Suspect.Store(false)
			}
			l.give()
		}
	}
}

// grown is how many bytes the logs have grown since the last checkpoint.
func (k *keeper) grown() int64 { return k.dir.written.Load() - k.bytes.Load() }

// checkpoint moves the recovery points to what is durable. Before that it makes durable what a recovery from there relies
// on: index entries below it, and the producer state at it.
func (k *keeper) checkpoint() {
	k.slot <- struct{}{}
	defer func() { <-k.slot }()
	d := k.dir
	k.bytes.Store(d.written.Load())
	var moves []move
	var items []syncItem
	var durable []*Log
	for _, l := range d.logs() {
		if l.Progress().Flushed == l.recoveryPoint.Load() && !l.behind() {
			continue
		}
		m, more, ok := l.prepareCheckpoint()
		if !ok {
			continue
		}
		items = append(items, more...)
		if l.Progress().Flushed < m.to {
			durable = append(durable, l)
		}
		moves = append(moves, m)
	}
	if len(moves) == 0 {
		return
	}
	if err := k.flushMoves(moves, items, durable); err != nil {
		if !errors.Is(err, ErrOffline) {
			d.logger.Error("cannot write checkpoint", "error", err)
		}
		return
	}
	if err := k.makeMoves(moves); err != nil && !errors.Is(err, ErrOffline) {
		d.logger.Error("cannot write checkpoint", "error", err)
	}
}

// flushMoves makes durable what recovery from the new points relies on. After an error the next checkpoint finds it
// unflushed again.
func (k *keeper) flushMoves(moves []move, items []syncItem, durable []*Log) error {
	var err error
	if len(durable) > 0 {
		// Not for ever: the disk may stall, and the housekeeping has to tell of its failure.
		ctx, cancel := context.WithTimeout(context.Background(), checkpointFlushLimit)
		err = k.dir.flusher.flush(ctx, durable...)
		cancel()
	}
	if err == nil {
		err = k.dir.sync(items)
	}
	if err == nil {
		return nil
	}
	for _, m := range moves {
		for _, s := range m.indexes {
			s.IndexUnsynced.Store(true)
		}
	}
	return fmt.Errorf("flush before checkpoint: %w", err)
}

func (k *keeper) makeMoves(moves []move) error {
	d := k.dir
	for i := range moves {
		moves[i].to = min(moves[i].to, moves[i].log.Progress().Flushed)
	}
	if err := d.points.storeRecovery(d, moves); err != nil {
		return err
	}
	for _, m := range moves {
		m.log.dropOldSnapshots(&m)
	}
	return nil
}

// checkpointFlushLimit is how long a checkpoint waits for a flush; the next one tries again.
const checkpointFlushLimit = 30 * time.Second

// behind tells whether a durable log has records past its recovery point.
func (l *Log) behind() bool {
	return l.config.Load().FlushBeforeAck && l.Progress().End > l.recoveryPoint.Load()
}

// prepareCheckpoint writes the log's indexes and producer state as of now.
func (l *Log) prepareCheckpoint() (m move, items []syncItem, ok bool) {
	if len(*l.segments.Load()) == 0 || l.take() != nil {
		return m, nil, false
	}
	defer l.give()
	p := l.Progress()
	m = move{log: l, to: p.Flushed, lowered: l.lowered.Load()}
	if l.config.Load().FlushBeforeAck || p.Flushed == p.End {
		m.to = p.End
		old := l.snapshotAt
		if l.takeSnapshot(p.End); l.snapshotAt != old {
			l.loose = append(l.loose, old)
		}
	}
	for _, s := range *l.segments.Load() {
		if s.Waiting() {
			if err := s.StoreWaiting(); err != nil {
				l.tolerate(err)
				return m, nil, false
			}
		}
	}
	items = l.unsyncedIndexes(l.unsyncedSnapshot(items), &m.indexes)
	m.snapshots, m.snapshotAt = l.snapshots, l.snapshotAt
	if l.entriesDirty.Load() || len(items) > 0 {
		items = append(items, syncItem{dir: l.path})
	}
	return m, items, true
}

// unsyncedIndexes appends the index files that were written to since they were flushed, and tells of which segments.
func (l *Log) unsyncedIndexes(items []syncItem, of *[]*segment.Segment) []syncItem {
	for _, s := range *l.segments.Load() {
		if !s.IndexUnsynced.Swap(false) {
			continue
		}
		if of != nil {
			*of = append(*of, s)
		}
		for _, f := range s.IndexFiles() {
			items = append(items, syncItem{file: f})
		}
	}
	return items
}

// dropOldSnapshots removes the snapshots that earlier checkpoints left, now that the newest of so many is durable.
func (l *Log) dropOldSnapshots(m *move) {
	if l.take() != nil {
		return
	}
	defer l.give()
	l.snapshotsFlushed = max(l.snapshotsFlushed, m.snapshots)
	if m.snapshotAt <= m.to && m.lowered == l.lowered.Load() {
		l.snapshotSure = max(l.snapshotSure, m.snapshotAt)
	}
	for _, at := range l.loose {
		if err := l.dropLoose(at); err != nil {
			l.dir.logger.Warn("cannot remove a producer snapshot", "log", l.id.String(), "offset", at, "error", err)
		}
	}
	l.loose = nil
}
