package commitlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"barnabas/internal/commitlog/compact"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// Compaction tells of a log's last one.
type Compaction struct {
	From, To   int64   // the offsets whose keys were compared with all below
	DirtyRatio float64 // share of the bytes that were new, from 0 to 1
	Took       time.Duration
	compact.Stats
}

// LastCompaction tells of the last compaction that was completed since the start.
func (l *Log) LastCompaction() (Compaction, bool) {
	c := l.lastCompaction.Load()
	if c == nil {
		return Compaction{}, false
	}
	return *c, true
}

// Compacted is the offset below which every key has at most one record; 0 when the log has not been compacted.
func (l *Log) Compacted() int64 { return l.cleanedTo.Load() }

// RetainTombstonesFrom keeps tombstones and transaction markers at offset or later, however old: a replica that has not got
// them yet would never learn what they delete. The default is none, math.MaxInt64.
func (l *Log) RetainTombstonesFrom(offset int64) { l.tombstonesFrom.Store(offset) }

// TombstonesRetainedFrom is what RetainTombstonesFrom was told last.
func (l *Log) TombstonesRetainedFrom() int64 { return l.tombstonesFrom.Load() }

// errOvertaken: the log's segments changed while they were being compacted.
var errOvertaken = errors.New("log was changed meanwhile")

// dirt is what of a log there is to compact.
type dirt struct {
	from, upTo   int64 // offsets; upTo is where a segment ends
	clean, dirty int64 // bytes of the segments before from, and of those from there up to upTo
	late         bool  // records have waited for max.compaction.lag.ms
}

func (d dirt) ratio() float64 {
	if d.clean+d.dirty == 0 {
		return 0
	}
	return float64(d.dirty) / float64(d.clean+d.dirty)
}

// due tells whether the log is to be compacted.
func (d dirt) due(cfg *Config) bool {
	return d.dirty > 0 && (d.late || d.ratio() > cfg.MinCleanableRatio)
}

// compacted lists the logs that compaction looks at, in no order.
func (d *Dir) compacted() []*Log {
	if d.Offline() != nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var logs []*Log
	for _, l := range d.mu.logs {
		if l.config.Load().Compact && len(*l.segments.Load()) > 0 && !l.uncleanable.Load() {
			logs = append(logs, l)
		}
	}
	return logs
}

// dirt finds out what is to be compacted. The active segment never is, nor what is not stable yet: an open transaction may
// need it, and so may a follower that truncates. What is not durable is left too, since what it supersedes goes.
func (l *Log) dirt(nowMs int64) (dirt, error) {
	cfg := l.config.Load()
	if _, damaged := l.Damaged(); damaged {
		return dirt{}, nil
	}
	if err := l.rollLate(nowMs, cfg); err != nil {
		return dirt{}, err
	}
	segments, p := *l.segments.Load(), l.Progress()
	d := dirt{from: max(l.cleanedTo.Load(), p.Start)}
	if d.from > p.End { // lost with the end of the log
		d.from = p.Start
	}
	d.upTo = d.from
	bound := min(p.LastStable, p.Flushed)
	youngest := nowMs - max(cfg.MinCompactionLagMs, 0)
	oldest := nowMs - cfg.MaxCompactionLagMs
	within := true
	for _, s := range segments[:len(segments)-1] {
		if s.Base < d.from {
			d.clean += s.Size.Load()
		}
		if s.Next.Load() <= d.from {
			continue
		}
		if within && cfg.MinCompactionLagMs > 0 {
			newest, err := s.Newest()
			if err != nil {
				return d, l.compactError(err)
			}
			within = newest.Ms <= youngest
		}
		if within = within && s.Next.Load() <= bound; within {
			d.upTo = s.Next.Load()
			d.dirty += s.Size.Load()
		}
		if cfg.MaxCompactionLagMs < math.MaxInt64 {
			first, err := s.FirstTimestamp()
			if err != nil {
				return d, l.compactError(err)
			}
			d.late = d.late || (first > 0 && first < oldest)
		}
	}
	return d, nil
}

// rollLate begins a new segment when the records of the active one have waited for max.compaction.lag.ms: appends do that too,
// but none may come.
func (l *Log) rollLate(nowMs int64, cfg *Config) error {
	s := l.active()
	if cfg.MaxCompactionLagMs == math.MaxInt64 || s.Size.Load() == 0 {
		return nil
	}
	first, err := s.FirstTimestamp()
	if err != nil || first < 0 || nowMs-first <= cfg.MaxCompactionLagMs {
		return err
	}
	if err := l.take(); err != nil {
		return err
	}
	defer l.give()
	if l.active() != s {
		return nil
	}
	next, err := l.addSegment(s.Next.Load(), cfg)
	if err != nil {
		return err
	}
	l.seal(s, cfg)
	l.takeSnapshot(next.Base)
	l.dir.flusher.schedule(l)
	return nil
}

// mapBytes is how much the table of keys of one thread may take: what the buffers leave of the budget, less a little for
// what is small.
func (o *CleanerOptions) mapBytes() int64 {
	share := (o.BufferBytes - int64(o.IOBufferBytes)) / int64(max(o.Threads, 1))
	return max(share-share/32, minMapBytes)
}

// minMapBytes is the smallest table: a thousand keys, however little memory there is.
const minMapBytes = 1024 * compact.EntryBytes

// mapFor is the size of the table for so many offsets, of which each may have a key of its own.
func (o *CleanerOptions) mapFor(offsets int64) int64 {
	most := o.mapBytes()
	if offsets >= most/compact.EntryBytes {
		return most
	}
	return min(most, int64(float64(offsets+1)/o.LoadFactor+1)*compact.EntryBytes)
}

// compact compacts what has been found dirty, in as many passes as the keyBytes of memory for keys make necessary.
func (l *Log) compact(ctx context.Context, d dirt, o *CleanerOptions, keyBytes int64, throttle *compact.Throttle) (total compact.Stats, err error) {
	keys, err := compact.NewMap(keyBytes, o.LoadFactor)
	if err != nil {
		return total, err
	}
	defer keys.Free()
	tools := compact.Tools{
		Checker: l.dir.checker, Throttle: throttle, Keys: keys, BufferBytes: o.IOBufferBytes / max(o.Threads, 1) / 2,
	}
	for from := d.from; from < d.upTo; {
		stretch, generation, err := l.stretch(from, d.upTo, o.Now().UnixMilli())
		if err != nil {
			return total, err
		}
		pass := compact.NewPass(tools, stretch)
		from, err = l.cleanStretch(ctx, pass, generation)
		total.Add(&pass.Stats)
		if err != nil {
			return total, fmt.Errorf("compact %s: %w", l.id, err)
		}
	}
	return total, nil
}

// stretch describes the part of the log that ends at upTo.
func (l *Log) stretch(from, upTo, nowMs int64) (*compact.Stretch, int, error) {
	cfg := l.config.Load()
	s := &compact.Stretch{
		Dirty: from, NowMs: nowMs, DeleteRetentionMs: cfg.DeleteRetentionMs, Passed: l.tombstonesFrom.Load(),
		IndexInterval: int64(cfg.IndexIntervalBytes), MostBytes: math.MaxInt32, Aborted: l.abortedEntries,
	}
	if err := l.take(); err != nil {
		return nil, 0, err
	}
	defer l.give()
	for _, seg := range *l.segments.Load() {
		if seg.Next.Load() <= upTo && seg != l.active() {
			s.Segments = append(s.Segments, seg)
		}
	}
	if n := len(s.Segments); n == 0 || s.Segments[n-1].Next.Load() != upTo {
		return nil, 0, errOvertaken
	}
	progress := l.Progress()
	sure := min(progress.Flushed, progress.HighWatermark) // neither a power cut nor a truncation takes anything below
	for p := range l.producers.All() {
		switch last := p.Newest(); {
		case last == nil:
			if s.LastMarkers == nil {
				s.LastMarkers = map[int64]int16{}
			}
			s.LastMarkers[p.ID] = p.Epoch
		case last.LastOffset < upTo:
			s.LastBatches = append(s.LastBatches, last.LastOffset)
		case last.LastOffset >= sure:
			if s.Unsure == nil {
				s.Unsure = map[int64]bool{}
			}
			s.Unsure[p.ID] = true
		}
	}
	slices.Sort(s.LastBatches)
	l.mu.Lock()
	defer l.mu.Unlock()
	return s, l.mu.generation, nil
}

// cleanStretch makes one pass and returns how far it got.
func (l *Log) cleanStretch(ctx context.Context, pass *compact.Pass, generation int) (int64, error) {
	covered, err := pass.Index(ctx)
	if err != nil {
		return covered, l.compactError(err)
	}
	cfg := l.config.Load()
	sizes := compact.Sizes{SegmentBytes: int64(cfg.SegmentBytes), IndexBytes: int64(cfg.IndexMaxBytes)}
	for _, group := range compact.Groups(pass.Segments, covered, sizes) {
		if err := l.cleanGroup(ctx, pass, group, generation); err != nil {
			return covered, l.compactError(err)
		}
	}
	return covered, l.setCompacted(covered, generation)
}

// cleanGroup makes one segment of several and puts it in their place.
func (l *Log) cleanGroup(ctx context.Context, pass *compact.Pass, group []*segment.Segment, generation int) error {
	if !slices.ContainsFunc(group, func(s *segment.Segment) bool { return s.Size.Load() > 0 }) {
		return nil
	}
	into := l.newSegment(group[0].Base)
	err := into.CreateReplacement()
	if err == nil {
		err = pass.Clean(ctx, group, into)
	}
	if err == nil {
		return l.replace(group, into, generation)
	}
	return errors.Join(err, into.Shut(true), into.Remove())
}

// compactError turns an error of the disk into what can be decided upon. One of reading alone leaves the directory as it is.
func (l *Log) compactError(err error) error {
	switch {
	case errors.Is(err, segment.ErrFlush):
		return l.dir.fail(err)
	case disk.IsNoSpace(err), disk.IsExhausted(err):
		return l.failed("compact", err)
	}
	return err
}

// replace puts a segment in the place of others. From the moment that its .log file has the name with .swap, durably, a start
// finishes what is begun here (see finishSwaps); before that, it forgets it.
func (l *Log) replace(old []*segment.Segment, by *segment.Segment, generation int) error {
	l.list <- struct{}{}
	defer func() { <-l.list }()
	err := l.usable()
	if err == nil && !l.unchanged(old, generation) {
		err = errOvertaken
	}
	if err == nil {
		// Gaps are no damage from here on, and must not be at the next start either.
		err = l.markCompacted()
	}
	if err == nil {
		err = by.SetStage(segment.SwapSuffix)
	}
	if err != nil {
		return errors.Join(err, by.Shut(true), l.removeStages(by.Base))
	}
	if err := l.syncDirectory(); err != nil {
		return err
	}
	if err := l.exchange(old, by); err != nil {
		return err
	}
	if err := l.discardReplaced(old, by); err != nil {
		return l.dir.fail(err)
	}
	if err := l.syncDirectory(); err != nil {
		return err
	}
	if err := by.SetStage(""); err != nil {
		return l.dir.fail(err)
	}
	return l.syncDirectory()
}

// unchanged tells whether the segments are still neighbours in the list, and the log has not been cut.
func (l *Log) unchanged(old []*segment.Segment, generation int) bool {
	l.mu.Lock()
	cut := l.mu.generation != generation
	l.mu.Unlock()
	if len(old) == 0 {
		return !cut
	}
	segments := *l.segments.Load()
	i := slices.Index(segments, old[0])
	return !cut && i >= 0 && i+len(old) < len(segments) && slices.Equal(segments[i:i+len(old)], old)
}

func (l *Log) syncDirectory() error {
	if err := l.dir.fs.SyncDir(l.path); err != nil {
		return l.dir.fail(fmt.Errorf("flush %s: %w", l.path, err))
	}
	return nil
}

// removeStages removes what is left of a segment that took nobody's place.
func (l *Log) removeStages(base int64) error {
	var errs []error
	for _, suffix := range segment.Suffixes() {
		for _, stage := range []string{segment.CleanedSuffix, segment.SwapSuffix} {
			errs = append(errs, l.dir.fs.Remove(l.path+"/"+segment.Name(base, suffix)+stage))
		}
	}
	return errors.Join(errs...)
}

// exchange publishes the new segment. Whoever is reading an old one keeps its file; whoever comes to one finds that it is gone and
// looks again.
func (l *Log) exchange(old []*segment.Segment, by *segment.Segment) error {
	if err := l.take(); err != nil {
		return err
	}
	segments := slices.Clone(*l.segments.Load())
	i := slices.Index(segments, old[0])
	segments = slices.Replace(segments, i, i+len(old), by)
	l.segments.Store(&segments)
	l.give()
	gone := func(s spot) bool { return s.seg != nil && slices.Contains(old, s.seg) }
	l.mu.Lock()
	if gone(l.mu.flushed) {
		l.mu.flushed = spot{offset: -1}
	}
	if gone(l.mu.committed) {
		l.mu.committed = spot{offset: -1}
	}
	if w := l.mu.warm; w != nil {
		w.hints = [maxHints]spot{}
		if w.count > 0 && gone(w.recent[w.first]) {
			w.first, w.count = 0, 0
		}
	}
	l.mu.Unlock()
	var errs []error
	for _, s := range old {
		errs = append(errs, s.Shut(true))
	}
	if err := errors.Join(errs...); err != nil {
		return l.dir.fail(err)
	}
	return nil
}

// discardReplaced renames the files of segments that have been replaced, and with them the producer snapshots that stood at
// their beginnings, and has them removed later.
func (l *Log) discardReplaced(old []*segment.Segment, by *segment.Segment) error {
	var paths []string
	for _, s := range old {
		paths = append(paths, s.Paths()...)
	}
	if err := l.take(); err != nil {
		return err
	}
	newest := l.snapshotAt
	l.give()
	for _, s := range old {
		if s.Base != by.Base && s.Base != newest {
			paths = append(paths, s.Path(segment.SnapshotSuffix))
		}
	}
	for _, path := range paths {
		err := l.dir.discardFile(path, l.config.Load().FileDeleteDelayMs)
		if disk.IsNoSpace(err) { // for the longer name
			err = l.dir.fs.Remove(path)
		}
		if err != nil {
			return fmt.Errorf("discard %s: %w", path, err)
		}
	}
	return nil
}

// abortedEntries lists the aborted transactions with records or a marker at the offsets from up to upTo.
func (l *Log) abortedEntries(from, upTo int64) ([]segment.AbortedEntry, error) {
	var found []segment.AbortedEntry
	for _, s := range l.segmentsFrom(from) {
		entries, err := s.AbortedEntries()
		if err != nil {
			return nil, fmt.Errorf("read transaction index of %s: %w", l.id, err)
		}
		for _, e := range entries {
			if e.Last >= from && e.First < upTo {
				found = append(found, e)
			}
		}
	}
	return found, nil
}
