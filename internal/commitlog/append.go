package commitlog

import (
	"context"
	"errors"
	"fmt"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/identity"
	"barnabas/internal/commitlog/producer"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/planted"
)

// Append writes a batch at the end as its leader: the batch is checked down to its records, its producer's sequence
// too, gets its offsets (b is patched in place and belongs to the log until Append returns), and is
// written to the page cache; a flush is scheduled where the topic is durable. b is sent again by its producer if
// Duplicate is set: then nothing was written.
//
// Errors: those of batch.Checker.Check; ErrOutOfOrderSequence, ErrInvalidProducerEpoch, ErrInvalidTransactionState,
// ErrCoordinatorFenced; ErrLargerThanSegment; ErrNoSpace, ErrOffline, ErrClosed; ErrCorrupt for a damaged log. After any of
// them nothing has changed.
func (l *Log) Append(b batch.Batch, o AppendOptions) (Appended, error) {
	cfg := l.config.Load()
	checked, err := l.dir.checker.Check(b, cfg.rules(o, l.dir.options.MaxDecompressedBytes))
	if err != nil {
		return Appended{}, err
	}
	if err := l.takeGround(); err != nil {
		return Appended{}, err
	}
	a, err := l.appendLeading(checked.Batch, o, cfg)
	l.give()
	if err != nil {
		return Appended{}, err
	}
	a.AppendTimeMs = checked.AppendTimeMs
	if a.Duplicate {
		return a, nil
	}
	return a, l.afterAppend(o.NowMs, o.Origin)
}

// AppendAt writes a batch that has its offsets and epoch: the metadata log's, or a leader's. It must begin at End, or, in a
// compacted log, beyond: what its leader has dropped is not there to be copied.
//
// Errors: batch.ErrCorrupt when the checksum is wrong, ErrOutOfRange when the batch does not begin at the end, and
// those of Append that concern the disk.
func (l *Log) AppendAt(b batch.Batch) error {
	if err := b.CheckCRC(); err != nil {
		return err
	}
	if err := l.takeGround(); err != nil {
		return err
	}
	cfg := l.config.Load()
	err := fitsSegment(b, cfg)
	if err == nil {
		err = l.appendFollowing(b, cfg)
	}
	l.give()
	if err != nil {
		return err
	}
	return l.afterAppend(l.dir.now().UnixMilli(), Client)
}

func (c *Config) rules(o AppendOptions, maxDecompressed int) batch.Rules {
	return batch.Rules{
		NowMs: o.NowMs, TimestampType: c.TimestampType, MaxBeforeMs: c.TimestampBeforeMaxMs, MaxAfterMs: c.TimestampAfterMaxMs,
		RequireKeys: c.Compact, Internal: o.Origin == Coordinator, Codec: c.Codec, KeepCodec: c.KeepCodec, Levels: c.Levels,
		MaxBytes: int(c.MaxMessageBytes), MaxDecompressedBytes: maxDecompressed,
	}
}

// appendLeading needs the slot.
func (l *Log) appendLeading(b batch.Batch, o AppendOptions, cfg *Config) (Appended, error) {
	progress := l.Progress()
	if err := l.mayLead(o.LeaderEpoch); err != nil {
		return Appended{}, err
	}
	if err := l.finishCut(); err != nil {
		return Appended{}, err
	}
	duplicate, err := l.checkProducer(b, o.Origin)
	if err != nil {
		return Appended{}, fmt.Errorf("append to %s: %w", l.id, err)
	}
	if duplicate != nil {
		return Appended{
			First: duplicate.LastOffset - int64(duplicate.Delta), Next: duplicate.LastOffset + 1,
			Start: progress.Start, LeaderEpoch: o.LeaderEpoch, Duplicate: true,
		}, nil
	}
	if err := fitsSegment(b, cfg); err != nil {
		return Appended{}, fmt.Errorf("append to %s: %w", l.id, err)
	}
	b.Assign(progress.End, o.LeaderEpoch)
	if err := l.write(b, o.NowMs, cfg); err != nil {
		return Appended{}, fmt.Errorf("append to %s: %w", l.id, err)
	}
	return Appended{First: progress.End, Next: b.NextOffset(), Start: progress.Start, LeaderEpoch: o.LeaderEpoch}, nil
}

// fitsSegment refuses a batch that no segment has room for. What is copied from a leader is not asked: there it was taken when
// segments were larger, and has to be here too; it gets a segment of its own.
func fitsSegment(b batch.Batch, cfg *Config) error {
	if int64(len(b)) > int64(cfg.SegmentBytes) {
		return fmt.Errorf("%d bytes, segment.bytes %d: %w", len(b), cfg.SegmentBytes, ErrLargerThanSegment)
	}
	return nil
}

// checkProducer decides whether the batch's producer may write it, and finds the batch that it repeats.
func (l *Log) checkProducer(b batch.Batch, origin Origin) (*producer.Written, error) {
	id := b.ProducerID()
	if id < 0 || planted.SkipSequenceCheck {
		return nil, nil
	}
	p := l.producers.Get(id)
	if p == nil {
		return nil, nil
	}
	if origin == Client {
		if again := p.Repeated(b); again != nil {
			return again, nil
		}
	}
	marker, err := l.parseMarker(b)
	if err != nil {
		return nil, err
	}
	err = p.Check(b, origin == Client, marker)
	if unknown, _ := p.Unknown(); unknown > 0 && errors.Is(err, ErrOutOfOrderSequence) {
		if failed := l.recall(p); failed != nil {
			return nil, fmt.Errorf("look up earlier batches of producer %d: %w", id, failed)
		}
		if again := p.Repeated(b); again != nil {
			return again, nil
		}
	}
	return nil, err
}

// appendFollowing needs the slot.
func (l *Log) appendFollowing(b batch.Batch, cfg *Config) error {
	if end := l.Progress().End; b.BaseOffset() < end || (b.BaseOffset() > end && !l.gaps()) {
		return fmt.Errorf("append to %s: batch begins at %d, log ends at %d: %w", l.id, b.BaseOffset(), end, ErrOutOfRange)
	}
	if err := l.finishCut(); err != nil {
		return err
	}
	if err := l.write(b, l.dir.now().UnixMilli(), cfg); err != nil {
		return fmt.Errorf("append to %s: %w", l.id, err)
	}
	return nil
}

// write puts the batch at the end of the active segment, and after that, when nothing can refuse it any more, into
// every book.
func (l *Log) write(b batch.Batch, nowMs int64, cfg *Config) error {
	if at, damaged := l.Damaged(); damaged {
		return fmt.Errorf("from offset %d: %w", at, ErrCorrupt)
	}
	marker, err := l.parseMarker(b)
	if err != nil {
		return err
	}
	s, err := l.segmentFor(b, nowMs, cfg)
	if err != nil {
		return err
	}
	if err := l.assignEpoch(b.LeaderEpoch(), b.BaseOffset()); err != nil {
		return err
	}
	at := s.Size.Load()
	if err := l.writeBytes(s, b, at); err != nil {
		return err
	}
	s.Note(b, at, int64(cfg.IndexIntervalBytes))
	s.ModifiedMs.Store(nowMs)
	s.Unsynced.Store(true)
	l.dir.written.Add(int64(len(b)))
	started, ended := l.producers.Apply(b, marker)
	if ended != nil && ended.Aborted {
		l.noteAborted(s, ended)
	}
	l.publish(s, b, at, started, ended)
	l.producers.Trim(l.dir.maxProducers)
	return nil
}

// parseMarker reads the transaction marker in a control batch; nil for every other batch.
func (l *Log) parseMarker(b batch.Batch) (*batch.Control, error) {
	if !b.IsControl() || b.ProducerID() < 0 || b.Count() == 0 {
		return nil, nil
	}
	c, err := l.dir.checker.ParseControl(b)
	if err != nil {
		return nil, fmt.Errorf("control batch at offset %d: %w", b.BaseOffset(), err)
	}
	return &c, nil
}

// writeBytes is one pwrite, straight from the caller's batch.
func (l *Log) writeBytes(s *segment.Segment, b batch.Batch, at int64) error {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return l.failed("open segment", err)
	}
	_, err = f.WriteAt(b, at)
	if err != nil {
		// What was written of it must not stay: the next batch may be shorter, and what remained behind it would look like
		// a torn tail after a crash, or worse, like a batch.
		if cut := f.Truncate(at); cut != nil {
			err = l.dir.fail(fmt.Errorf("cut %s back to %d after a failed write: %w", s.Path(segment.DataSuffix), at, errors.Join(cut, err)))
		} else {
			err = l.failed("write "+s.Path(segment.DataSuffix), err)
		}
	}
	if e := f.Release(); e != nil && err == nil {
		err = l.failed("close "+s.Path(segment.DataSuffix), e)
	}
	return err
}

// publish makes a written batch visible.
func (l *Log) publish(s *segment.Segment, b batch.Batch, at int64, started, ended *producer.Transaction) {
	next, size := b.NextOffset(), at+int64(len(b))
	s.Size.Store(size)
	s.Next.Store(next)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.warm == nil {
		l.mu.warm = &warm{}
	}
	l.mu.warm.add(spot{b.BaseOffset(), s, at})
	l.mu.progress.End = next
	l.mu.end = spot{next, s, size}
	if started != nil {
		l.mu.transactions.Start(*started)
		l.stabilise()
	}
	if ended != nil {
		l.mu.transactions.End(*ended)
		l.stabilise()
	}
}

// afterAppend schedules the flush that the topic asks for. With flush.messages reached it waits for it, as Kafka does.
// It looks at the settings as they are once the batch is written: with those of before, a topic that became durable
// meanwhile would wait for a flush that nobody scheduled (see Reconfigure).
func (l *Log) afterAppend(nowMs int64, origin Origin) error {
	cfg := l.config.Load()
	switch {
	case cfg.FlushBeforeAck && origin == Coordinator:
		l.dir.flusher.scheduleOwn(l)
		return nil
	case cfg.FlushBeforeAck:
		l.dir.flusher.schedule(l)
		return nil
	}
	if p := l.Progress(); p.End-p.Flushed >= cfg.FlushMessages {
		return l.Flush(context.Background())
	}
	if cfg.FlushMs < maxDelayMs && !l.lazy.Swap(true) {
		l.dir.flushBy(l, nowMs+cfg.FlushMs)
	}
	return nil
}

// segmentFor returns the segment for the batch: the active one, or a new one. The slot is held.
func (l *Log) segmentFor(b batch.Batch, nowMs int64, cfg *Config) (*segment.Segment, error) {
	s := l.active()
	if s == nil {
		return l.addSegment(b.BaseOffset(), cfg)
	}
	if !s.Ready {
		err := s.Prepare()
		if err == nil {
			err = l.reserve(s)
		}
		if err != nil {
			return nil, l.failed("prepare "+s.Path(segment.DataSuffix), err)
		}
	}
	if s.Fits(b, nowMs, cfg.limits()) {
		return s, nil
	}
	return l.roll(b, cfg)
}

// roll closes the active segment and begins the next at the log's end. Where the disk is too full for that, a log
// that keeps a reserve goes on in the old segment as long as its offsets and positions can be indexed.
func (l *Log) roll(b batch.Batch, cfg *Config) (*segment.Segment, error) {
	old := l.active()
	end := old.Next.Load()
	s, err := l.addSegment(end, cfg)
	if err != nil {
		reserve := int64(cfg.SegmentBytes) + cfg.ReserveBytes
		if errors.Is(err, ErrNoSpace) && cfg.Preallocate && old.Size.Load()+int64(len(b)) <= min(reserve, 1<<31-1) {
			return old, nil
		}
		return nil, err
	}
	l.seal(old, cfg)
	l.takeSnapshot(end)
	// Kafka flushes what it rolls away, page cache or not, so that recovery never goes back further than a segment.
	l.dir.flusher.schedule(l)
	return s, nil
}

// seal completes the indexes of a segment that will not grow any more. What the disk has no room for stays in memory.
func (l *Log) seal(s *segment.Segment, cfg *Config) {
	if err := s.Seal(); err != nil {
		l.tolerate(err)
	}
	if cfg.Preallocate {
		if f, err := s.Data.Acquire(disk.Write); err == nil {
			// Cutting a file to the size that it has gives back what was preallocated beyond.
			l.tolerate(errors.Join(f.Truncate(s.Size.Load()), f.Release()))
		}
	}
}

// addSegment makes the files of a segment, and the log's directory with the first one. The slot is held.
func (l *Log) addSegment(base int64, cfg *Config) (*segment.Segment, error) {
	if err := l.finishCut(); err != nil { // a file of that name may be among those that are to go
		return nil, err
	}
	segments := *l.segments.Load()
	if len(segments) == 0 {
		if err := l.makeDirectory(); err != nil {
			return nil, l.failed("make "+l.path, err)
		}
	}
	s := l.newSegment(base)
	preallocate := int64(0)
	if cfg.Preallocate {
		preallocate = int64(cfg.SegmentBytes) + cfg.ReserveBytes
	}
	if err := s.Create(l.dir.now().UnixMilli(), l.dir.jitter(min(cfg.SegmentJitterMs, cfg.SegmentMs)), preallocate); err != nil {
		return nil, l.failed("make segment", err)
	}
	grown := make([]*segment.Segment, len(segments), len(segments)+1)
	copy(grown, segments)
	grown = append(grown, s)
	l.segments.Store(&grown)
	if len(segments) > 0 {
		return s, nil
	}
	l.mu.Lock()
	l.mu.end = spot{base, s, 0}
	l.mu.flushed = l.mu.end
	l.mu.Unlock()
	l.producers.End = base
	return s, l.storeEpochs()
}

func (l *Log) makeDirectory() error {
	l.parentDirty.Store(true)
	// First, for a compaction of the log that was deleted may note how far it has come until that is buried.
	if err := l.dir.clearGround(l); err != nil {
		return err
	}
	if err := l.dir.points.forget(l.dir, l.id); err != nil {
		return err
	}
	if err := l.dir.fs.MkdirAll(l.path); err != nil {
		return err
	}
	if id := l.TopicID(); !id.IsZero() {
		return l.writeState(identity.PartitionFile, identity.FormatPartition(id))
	}
	return nil
}

// reserve takes the space of a preallocated segment again: cutting the file, at recovery or to truncate the log, gave it
// back. On a full disk the log goes on without.
func (l *Log) reserve(s *segment.Segment) error {
	cfg := l.config.Load()
	if !cfg.Preallocate {
		return nil
	}
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return err
	}
	err = errors.Join(f.Preallocate(0, int64(cfg.SegmentBytes)+cfg.ReserveBytes), f.Release())
	if disk.IsNoSpace(err) {
		return nil
	}
	return err
}

// takeSnapshot writes the producer state as of offset at, which is the log's end. Without it recovery reads further
// back, so a full disk is no obstacle.
func (l *Log) takeSnapshot(at int64) {
	if l.snapshotAt == at {
		return
	}
	if err := l.writeSnapshot(at); err != nil {
		l.tolerate(err)
	}
}

func (l *Log) writeSnapshot(at int64) error {
	if err := l.finishCut(); err != nil {
		return err
	}
	path := l.path + "/" + segment.Name(at, segment.SnapshotSuffix)
	f, err := l.dir.fs.Open(path, disk.Create)
	if err != nil {
		return err
	}
	// No temporary name: a torn snapshot has a wrong checksum, and the one before it is used.
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(l.producers.Snapshot(), 0)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), l.dir.fs.Remove(path))
	}
	l.entriesDirty.Store(true)
	l.snapshotAt = at
	l.snapshots++
	return nil
}

// unsyncedSnapshot appends the newest producer snapshot if it has not been flushed.
func (l *Log) unsyncedSnapshot(items []syncItem) []syncItem {
	if l.snapshotAt < 0 || l.snapshotsFlushed == l.snapshots {
		return items
	}
	return append(items, syncItem{path: l.path + "/" + segment.Name(l.snapshotAt, segment.SnapshotSuffix)})
}
