package commitlog

import (
	"errors"
	"fmt"

	"barnabas/internal/commitlog/producer"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// Truncate cuts the log so that it ends at offset to, or before it if to lies inside a batch: that batch goes whole. It
// is durable when this returns, for what is written next must not mix with what was cut. Nothing happens when
// the log ends at or before to. The high watermark moves back with the end if need be: who truncates below it knows why.
//
// Errors: ErrOutOfRange below the start (see Restart).
func (l *Log) Truncate(to int64) error { return l.truncate(to, func() error { return nil }) }

// truncate asks may once nobody else can change the log.
func (l *Log) truncate(to int64, may func() error) error {
	l.dir.options.Cleaner.abort(l)
	if err := l.takeList(); err != nil {
		return err
	}
	defer l.giveList()
	if err := may(); err != nil {
		return err
	}
	p := l.Progress()
	if to < p.Start {
		return fmt.Errorf("truncate %s to %d, log starts at %d: %w", l.id, to, p.Start, ErrOutOfRange)
	}
	if err := l.finishCut(); err != nil {
		return err
	}
	if at, damaged := l.Damaged(); to >= p.End && !(damaged && at >= to) {
		return nil
	}
	if err := l.cutTo(to); err != nil {
		return l.failed(fmt.Sprintf("truncate %s to %d", l.id, to), err)
	}
	return l.finishCut()
}

// cut is a truncation that readers see already, and of which the files, or the books that are made from them, may not know
// yet. It lasts until its work is done: a full disk or want of descriptors may stop that midway, and as long as it does
// nothing may be written, nor decided by what is known of producers. A crash before brings back the log as it was.
type cut struct {
	gone []*segment.Segment
	last *segment.Segment // that stays
	size int64            // of that
}

// finishCut completes a truncation that is under way, if there is one. The slot is held.
func (l *Log) finishCut() error {
	if l.cut == nil {
		return nil
	}
	end := l.Progress().End
	if err := l.finish(end); err != nil {
		return l.failed(fmt.Sprintf("truncate %s to %d", l.id, end), err)
	}
	l.repaired(0, end)
	l.cut = nil
	return nil
}

// finish does all that may fail, and may be done again.
func (l *Log) finish(end int64) error {
	if err := l.discard(l.cut.gone, l.config.Load().FileDeleteDelayMs); err != nil {
		return err
	}
	if err := l.cut.last.Cut(l.cut.size, end); errors.Is(err, segment.ErrFlush) {
		return l.dir.fail(err)
	} else if err != nil {
		return err
	}
	if err := l.dropSnapshots(end); err != nil {
		return err
	}
	if l.epochsUnstored { // on a full disk the next append does it, or is refused
		if err := l.storeEpochs(); err != nil && !errors.Is(err, ErrNoSpace) {
			return err
		}
	}
	switch err := l.dir.fs.SyncDir(l.path); {
	case disk.IsExhausted(err): // nothing was flushed, and nothing failed to be
		return err
	case err != nil:
		return l.dir.fail(fmt.Errorf("flush %s: %w", l.path, err))
	}
	return l.reloadProducers(end)
}

// cutTo moves the log's end for all who look at it, and leaves the rest to finishCut. It needs the slot.
func (l *Log) cutTo(to int64) error {
	segments := *l.segments.Load()
	n := len(segments)
	for n > 1 && segments[n-1].Base >= to {
		n--
	}
	if n == 0 {
		return nil
	}
	s := segments[n-1]
	p, err := s.Locate(to, s.Size.Load())
	if err != nil && !errors.Is(err, segment.ErrFrame) {
		return err
	}
	end := min(to, p.Base) // compaction may have left nothing at to
	if p.Base < 0 {
		end = min(to, s.Next.Load())
	}
	// First of all the recovery point: a crash after new records were written here must find them unchecked.
	if err := errors.Join(l.dir.lowerRecoveryPoint(l, end), l.lowerCompacted(end)); err != nil {
		return err
	}
	kept := append([]*segment.Segment(nil), segments[:n]...)
	l.mu.Lock()
	l.mu.generation++
	l.mu.warm = nil
	l.mu.replaying = true
	l.setEnd(end, spot{end, s, p.At})
	l.mu.Unlock()
	s.Size.Store(p.At)
	s.Next.Store(end)
	l.segments.Store(&kept)
	l.cut = &cut{gone: segments[n:], last: s, size: p.At}
	if l.epochs.CutEnd(end) {
		l.epochsUnstored = true
	}
	return nil
}

// setEnd moves the end back, and everything that would lie beyond it. mu is held.
func (l *Log) setEnd(end int64, at spot) {
	p := &l.mu.progress
	p.End, l.mu.end = end, at
	if p.Flushed >= end {
		p.Flushed, l.mu.flushed = end, at
	}
	if p.HighWatermark >= end {
		p.HighWatermark, l.mu.committed = end, at
	}
	l.stabilise()
}

// dropSnapshots removes the producer snapshots of what has been cut: other records will get these offsets.
func (l *Log) dropSnapshots(end int64) error {
	offsets, err := l.listSnapshots()
	if err != nil {
		return err
	}
	for _, at := range offsets {
		if at > end {
			if err := l.dir.fs.Remove(l.path + "/" + segment.Name(at, segment.SnapshotSuffix)); err != nil {
				return err
			}
		}
	}
	if l.snapshotSure > end {
		l.snapshotSure = -1
	}
	return nil
}

// listSnapshots returns the offsets of the snapshot files, ascending.
func (l *Log) listSnapshots() ([]int64, error) {
	entries, err := l.dir.fs.List(l.path)
	if err != nil {
		return nil, err
	}
	var offsets []int64
	for _, e := range entries {
		if at, ok := segment.ParseName(e.Name, segment.SnapshotSuffix); ok {
			offsets = append(offsets, at)
		}
	}
	return offsets, nil
}

// Restart empties the log and lets it begin at offset at, wherever it was: what follows a snapshot that was taken over
// from somebody else, or a repair from peers. It is durable when this returns.
func (l *Log) Restart(at int64) error { return l.restartIf(at, func() error { return nil }) }

func (l *Log) restartIf(at int64, may func() error) error {
	l.dir.options.Cleaner.abort(l)
	if len(*l.segments.Load()) == 0 {
		l.dir.burials.Await(l.id) // as takeGround
	}
	if err := l.takeList(); err != nil {
		return err
	}
	defer l.giveList()
	if err := may(); err != nil {
		return err
	}
	if err := errors.Join(l.dir.lowerRecoveryPoint(l, 0), l.lowerCompacted(at)); err != nil {
		return l.failed("lower recovery point", err)
	}
	if err := l.restart(at); err != nil {
		return l.failed(fmt.Sprintf("restart %s at %d", l.id, at), err)
	}
	return nil
}

// restart needs the slot.
func (l *Log) restart(at int64) error {
	old := *l.segments.Load()
	l.segments.Store(&noSegments)
	l.epochs.Replace(nil)
	l.producers.Clear()
	l.snapshotAt, l.snapshotSure = -1, -1
	l.cut = nil
	for _, s := range old { // at once: one of them may have the name of the new segment
		if err := errors.Join(s.Shut(true), s.Remove()); err != nil {
			return l.dir.fail(fmt.Errorf("remove %s: %w", s.Path(segment.DataSuffix), err)) // half of it is there
		}
	}
	l.mu.Lock()
	l.mu.generation++
	l.mu.warm, l.mu.damage, l.mu.transactions, l.mu.replaying = nil, -1, producer.Transactions{}, false
	l.mu.progress = Progress{at, at, at, at, at}
	l.mu.end, l.mu.flushed, l.mu.committed = spot{}, spot{}, spot{}
	l.mu.Unlock()
	if len(old) > 0 {
		if err := l.dropSnapshots(-1); err != nil {
			return err
		}
	}
	if _, err := l.addSegment(at, l.config.Load()); err != nil {
		return err
	}
	if err := errors.Join(l.dir.fs.SyncDir(l.path), l.dir.fs.SyncDir(l.dir.path)); err != nil {
		return l.dir.fail(fmt.Errorf("flush %s: %w", l.path, err))
	}
	return nil
}
