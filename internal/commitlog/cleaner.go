package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/commitlog/compact"
	"barnabas/internal/commitlog/segment"
)

// CleanerOptions bound what compaction takes. Zero values mean the default that is named, but for Threads.
type CleanerOptions struct {
	Threads int // log.cleaner.threads: logs compacted at a time; 0: none
	// BufferBytes (log.cleaner.dedupe.buffer.size) is what all threads together may take: for the keys that they compare, 16 bytes
	// each, and what else they need. It is taken while a log is being compacted, and no more of it than that log has keys. 128 MiB.
	BufferBytes int64
	LoadFactor  float64 // log.cleaner.io.buffer.load.factor: how full the table of keys gets; 0.9
	// IOBufferBytes (log.cleaner.io.buffer.size) is what all threads together read into and write from; 512 KiB. It is a part of
	// BufferBytes.
	IOBufferBytes    int
	IOBytesPerSecond float64       // log.cleaner.io.max.bytes.per.second: read and written by all; no bound
	Backoff          time.Duration // log.cleaner.backoff.ms: rest when there is nothing to do; 15 s
	Logger           *slog.Logger  // discards
	Now              func() time.Time
}

func (o *CleanerOptions) setDefaults() {
	set(&o.BufferBytes, 128<<20)
	set(&o.LoadFactor, 0.9)
	set(&o.IOBufferBytes, 512<<10)
	set(&o.IOBytesPerSecond, math.MaxFloat64)
	o.LoadFactor = min(max(o.LoadFactor, leastLoad), 1)
	o.IOBytesPerSecond = max(o.IOBytesPerSecond, 1)
	set(&o.Backoff, 15*time.Second)
	set(&o.Logger, slog.New(slog.DiscardHandler))
	if o.Now == nil {
		o.Now = time.Now
	}
}

// leastLoad keeps a table of keys from being all room.
const leastLoad = 0.01

// CleanerStats count since the start.
type CleanerStats struct {
	Runs, Failures                           atomic.Int64
	RecordsRead, RecordsKept, RecordsIndexed atomic.Int64
	BytesRead, BytesWritten                  atomic.Int64
	Nanoseconds                              atomic.Int64
	Compactable                              atomic.Int64 // logs that were due when last looked
	Uncleanable                              atomic.Int64 // logs that are left alone because of damage now
}

// Cleaner compacts the logs of the directories that were opened with it: always the one with the largest share of new
// bytes, or one whose records have waited longest. There is one for each node. Close it after its directories.
type Cleaner struct {
	throttle compact.Throttle
	stats    CleanerStats
	ctx      context.Context
	cancel   context.CancelFunc
	workers  sync.WaitGroup

	mu struct { // short
		sync.Mutex
		options CleanerOptions
		dirs    map[*Dir]bool
		busy    map[*Log]*cleanRun
		failed  map[*Log]time.Time // their last compaction did: until then their turn comes after all others'
		running int                // workers
		changed chan struct{}      // closed and replaced when workers should look again
		closed  bool
	}
}

// cleanRun is a log's compaction.
type cleanRun struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// NewCleaner starts the workers.
func NewCleaner(o CleanerOptions) *Cleaner {
	c := &Cleaner{}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.mu.dirs, c.mu.busy, c.mu.failed = map[*Dir]bool{}, map[*Log]*cleanRun{}, map[*Log]time.Time{}
	c.mu.changed = make(chan struct{})
	c.Reconfigure(o)
	return c
}

// Reconfigure changes the options. A compaction under way goes on with what it has, but for the rate.
func (c *Cleaner) Reconfigure(o CleanerOptions) {
	o.setDefaults()
	c.throttle.SetRate(o.IOBytesPerSecond)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.options = o
	c.startWorkers()
	c.wake()
}

// startWorkers: mu is held. Workers start with the first directory, and those that are too many end by themselves.
func (c *Cleaner) startWorkers() {
	for len(c.mu.dirs) > 0 && !c.mu.closed && c.mu.running < c.mu.options.Threads {
		c.mu.running++
		c.workers.Go(c.work)
	}
}

// wake: mu is held.
func (c *Cleaner) wake() {
	close(c.mu.changed)
	c.mu.changed = make(chan struct{})
}

// Stats returns the counters.
func (c *Cleaner) Stats() *CleanerStats { return &c.stats }

// Close ends what is under way, and the workers.
func (c *Cleaner) Close() {
	c.mu.Lock()
	c.mu.closed = true
	c.mu.Unlock()
	c.cancel()
	c.workers.Wait()
}

// add has the directory's logs compacted from now on.
func (c *Cleaner) add(d *Dir) {
	if c == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.dirs[d] = true
	c.startWorkers()
}

// remove ends what is under way in a directory, and waits for that.
func (c *Cleaner) remove(d *Dir) {
	if c == nil {
		return
	}
	c.mu.Lock()
	delete(c.mu.dirs, d)
	var runs []*cleanRun
	for l, r := range c.mu.busy {
		if l.dir == d {
			r.cancel()
			runs = append(runs, r)
		}
	}
	c.mu.Unlock()
	for _, r := range runs {
		<-r.done
	}
	c.mu.Lock()
	maps.DeleteFunc(c.mu.failed, func(l *Log, _ time.Time) bool { return l.dir == d })
	c.mu.Unlock()
}

// abort ends the compaction of a log that is about to be cut, if there is one. It does not wait: whoever changes the log
// holds its list, and what the compaction would put there is then refused.
func (c *Cleaner) abort(l *Log) *cleanRun {
	if c == nil {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.mu.busy[l]
	if r != nil {
		r.cancel()
	}
	return r
}

// end is abort, and waits. The log is closed, so that nothing begins again.
func (c *Cleaner) end(l *Log) {
	if r := c.abort(l); r != nil {
		<-r.done
	}
	if c != nil {
		c.succeeded(l)
	}
}

// lastForRests is for how many rests of the cleaner a log whose compaction failed comes after all others. Then it has its
// turn once more: where others are always due it must not be put off for ever.
const lastForRests = 10

func (c *Cleaner) hasFailed(l *Log, now time.Time) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return now.Before(c.mu.failed[l])
}

func (c *Cleaner) failedNow(l *Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if o := &c.mu.options; c.mu.dirs[l.dir] {
		c.mu.failed[l] = o.Now().Add(lastForRests * o.Backoff)
	}
}

func (c *Cleaner) succeeded(l *Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.failed, l)
}

// work compacts one log after the other.
func (c *Cleaner) work() {
	for {
		c.mu.Lock()
		if c.mu.closed || c.mu.running > c.mu.options.Threads {
			c.mu.running--
			c.mu.Unlock()
			return
		}
		o, changed := c.mu.options, c.mu.changed
		c.mu.Unlock()
		if c.next(&o) {
			continue
		}
		timer := time.NewTimer(o.Backoff)
		select {
		case <-timer.C:
		case <-changed:
		case <-c.ctx.Done():
		}
		timer.Stop()
	}
}

// next compacts the log that needs it most. False when there was none, or when it failed.
func (c *Cleaner) next(o *CleanerOptions) bool {
	now := o.Now()
	l, r := c.choose(now)
	if l == nil {
		return false
	}
	defer func() {
		r.cancel()
		c.mu.Lock()
		delete(c.mu.busy, l)
		c.mu.Unlock()
		close(r.done)
	}()
	// Looked at again, now that it is this worker's alone: another may have compacted it since it was chosen.
	d, err := l.dirt(now.UnixMilli())
	if err != nil {
		c.giveUp(l, err)
		return false
	}
	if !d.due(l.config.Load()) {
		return true // there may be another
	}
	return c.clean(r.ctx, l, d, o)
}

// run is a compaction with the context that ends it.
type run struct {
	*cleanRun
	ctx context.Context
}

// choose finds the log with the largest share of dirty bytes among those that are due, and marks it as being compacted. One
// whose last compaction failed comes after all others for a while, or it would keep them from ever being compacted.
func (c *Cleaner) choose(now time.Time) (*Log, run) {
	nowMs := now.UnixMilli()
	c.mu.Lock()
	dirs := make([]*Dir, 0, len(c.mu.dirs))
	for d := range c.mu.dirs {
		dirs = append(dirs, d)
	}
	c.mu.Unlock()
	var best *Log
	var most dirt
	failed, due := false, int64(0)
	for _, d := range dirs {
		for _, l := range d.compacted() {
			if c.isBusy(l) {
				continue
			}
			found, err := l.dirt(nowMs)
			if err != nil {
				c.giveUp(l, err)
				continue
			}
			if !found.due(l.config.Load()) {
				continue
			}
			due++
			again := c.hasFailed(l, now)
			better := found.ratio() > most.ratio()
			switch {
			case best == nil:
				better = true
			case again != failed:
				better = failed
			case found.ratio() == most.ratio(): // names decide between equals, so that the order of maps does not
				better = compareTopicPartitions(l.id, best.id) < 0
			}
			if better {
				best, most, failed = l, found, again
			}
		}
	}
	c.stats.Compactable.Store(due)
	if best == nil {
		return nil, run{}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	r := run{&cleanRun{cancel, make(chan struct{})}, ctx}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.closed || !c.mu.dirs[best.dir] || c.mu.busy[best] != nil {
		cancel()
		return nil, run{}
	}
	c.mu.busy[best] = r.cleanRun
	return best, r
}

func (c *Cleaner) isBusy(l *Log) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.busy[l] != nil
}

// clean compacts one log, and tells how it went.
func (c *Cleaner) clean(ctx context.Context, l *Log, d dirt, o *CleanerOptions) bool {
	began := o.Now()
	stats, err := l.compact(ctx, d, o, o.mapFor(d.upTo-d.from), &c.throttle)
	took := o.Now().Sub(began)
	c.stats.Runs.Add(1)
	c.stats.RecordsIndexed.Add(stats.IndexedRecords)
	c.stats.RecordsRead.Add(stats.RecordsRead)
	c.stats.RecordsKept.Add(stats.RecordsKept)
	c.stats.BytesRead.Add(stats.BytesRead + stats.IndexedBytes)
	c.stats.BytesWritten.Add(stats.BytesWritten)
	c.stats.Nanoseconds.Add(int64(took))
	if err != nil {
		c.stats.Failures.Add(1)
		c.giveUp(l, err)
		return false
	}
	c.succeeded(l)
	l.lastCompaction.Store(&Compaction{From: d.from, To: l.cleanedTo.Load(), DirtyRatio: d.ratio(), Took: took, Stats: stats})
	o.Logger.Info("log compacted", "log", l.id.String(), "from", d.from, "to", l.cleanedTo.Load(), "dirtyRatio", fmt.Sprintf("%.2f", d.ratio()),
		"took", took.Round(time.Millisecond).String(), "indexed", stats.IndexedRecords, "read", stats.RecordsRead, "kept", stats.RecordsKept,
		"bytesBefore", stats.BytesRead, "bytesAfter", stats.BytesWritten, "keyless", stats.Keyless, "mapUsed", fmt.Sprintf("%.2f", stats.MapUsed))
	return true
}

// giveUp decides what an error means for the log. One with damage is left alone until that is cut off; everything else may
// pass, and the log gets another try.
func (c *Cleaner) giveUp(l *Log, err error) {
	var damage *compact.Damage
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, errOvertaken), errors.Is(err, ErrClosed), errors.Is(err, segment.ErrGone),
		errors.Is(err, ErrOffline), l.usable() != nil:
		return
	case errors.Is(err, ErrNoSpace):
		c.failedNow(l)
		c.logger().Warn("no space to compact a log", "log", l.id.String(), "error", err)
		return
	case !errors.As(err, &damage):
		c.failedNow(l)
		c.logger().Error("a log could not be compacted; it is tried again", "log", l.id.String(), "path", l.path, "error", err)
		return
	}
	l.damaged(damage.Offset, damage.Cause)
	if !l.uncleanable.Swap(true) {
		c.stats.Uncleanable.Add(1)
		c.logger().Error("log cannot be compacted and is left as it is", "log", l.id.String(), "path", l.path, "error", err)
	}
}

func (c *Cleaner) logger() *slog.Logger {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.options.Logger
}
