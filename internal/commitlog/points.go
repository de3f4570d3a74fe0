package commitlog

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// points are the offsets of a directory's checkpoint files as they were written last.
type points struct {
	slot                                      chan struct{} // held while a file is written, and to read or change the maps
	recovery, starts, highWatermarks, cleaned map[TopicPartition]int64
}

func (p *points) load(d *Dir) (err error) {
	if p.recovery, err = d.readOffsets(recoveryPointFile); err != nil {
		return err
	}
	if p.starts, err = d.readOffsets(startOffsetFile); err != nil {
		return err
	}
	if p.highWatermarks, err = d.readOffsets(watermarkFile); err != nil {
		return err
	}
	p.cleaned, err = d.readOffsets(cleanerFile)
	return err
}

// of returns what is known of one log. Only while loading.
func (p *points) of(tp TopicPartition) checkpoints {
	return checkpoints{p.recovery[tp], p.starts[tp], p.highWatermarks[tp]}
}

// keepOnly leaves out, from the next writing on, what is not there. Only while loading.
func (p *points) keepOnly(logs map[TopicPartition]*Log) {
	// The entries of missing logs stay in the maps: a log made again under the name must first take them out of the files.
	for tp, l := range logs {
		if len(*l.segments.Load()) > 0 && p.recovery[tp] > l.recoveryPoint.Load() {
			p.recovery[tp] = l.recoveryPoint.Load()
		}
	}
}

// lowerLost makes durable that what was compacted beyond the end of its log is to be compacted again: other records will get
// these offsets. Only while loading.
func (p *points) lowerLost(d *Dir, logs map[TopicPartition]*Log) error {
	changed := false
	for tp, l := range logs {
		if to, known := p.cleaned[tp]; known && to > l.mu.progress.End {
			p.cleaned[tp], changed = l.mu.progress.Start, true
			l.cleanedTo.Store(l.mu.progress.Start)
		}
	}
	if !changed {
		return nil
	}
	return d.write(cleanerFile, p.cleaned)
}

// markCompacted sees to it, durably, that the log is known as one that compaction may have left gaps in.
func (l *Log) markCompacted() error {
	if l.cleaned.Load() {
		return nil
	}
	return l.writeCompacted(func(int64, bool) (int64, bool) { return l.cleanedTo.Load(), true })
}

// setCompacted notes that the log has been compacted up to an offset, unless it has been cut since.
func (l *Log) setCompacted(to int64, generation int) error {
	l.list <- struct{}{}
	defer func() { <-l.list }()
	if err := l.usable(); err != nil {
		return err
	}
	if !l.unchanged(nil, generation) {
		return errOvertaken
	}
	return l.writeCompacted(func(before int64, known bool) (int64, bool) { return to, !known || before != to })
}

// lowerCompacted sees to it, durably, that what will be written from offset to on is compacted again.
func (l *Log) lowerCompacted(to int64) error {
	return l.writeCompacted(func(before int64, known bool) (int64, bool) { return to, known && before > to })
}

// writeCompacted replaces the log's line in cleaner-offset-checkpoint by what change makes of it, if anything.
func (l *Log) writeCompacted(change func(before int64, known bool) (int64, bool)) error {
	p, d := &l.dir.points, l.dir
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	before, known := p.cleaned[l.id]
	to, write := change(before, known)
	if !write {
		return nil
	}
	offsets := maps.Clone(p.cleaned)
	if offsets == nil {
		offsets = map[TopicPartition]int64{}
	}
	maps.DeleteFunc(offsets, func(id TopicPartition, _ int64) bool { return !d.has(id) }) // removed: its line would stay for ever
	offsets[l.id] = to
	if err := d.write(cleanerFile, offsets); err != nil {
		return l.failed("write "+cleanerFile, err)
	}
	p.cleaned = offsets
	l.cleaned.Store(true)
	l.cleanedTo.Store(to)
	return nil
}

// lowerRecoveryPoint sees to it, durably, that recovery checks the log from offset to on, or earlier.
func (d *Dir) lowerRecoveryPoint(l *Log, to int64) error {
	p := &d.points
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	l.lowered.Add(1) // a checkpoint that is being prepared must not undo this
	before := p.recovery[l.id]
	if before <= to {
		return nil
	}
	p.recovery[l.id] = to
	if err := d.write(recoveryPointFile, p.recovery); err != nil {
		p.recovery[l.id] = before // what the file still says
		return err
	}
	l.recoveryPoint.Store(to)
	return nil
}

// forget takes what a deleted log of the same name left out of the files, before a new one has its first record.
func (p *points) forget(d *Dir, tp TopicPartition) error {
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	for _, f := range []struct {
		name    string
		offsets map[TopicPartition]int64
	}{{recoveryPointFile, p.recovery}, {startOffsetFile, p.starts}, {watermarkFile, p.highWatermarks}, {cleanerFile, p.cleaned}} {
		before, known := f.offsets[tp]
		if !known {
			continue
		}
		delete(f.offsets, tp)
		if err := d.write(f.name, f.offsets); err != nil {
			f.offsets[tp] = before // what the file still says: the next attempt must not find it done
			return err
		}
	}
	return nil
}

// write replaces a checkpoint file. A flush that fails condemns the directory.
func (d *Dir) write(name string, offsets map[TopicPartition]int64) error {
	if err := d.Offline(); err != nil {
		return err
	}
	err := disk.WriteFileAtomic(d.fs, d.join(name), formatOffsets(offsets))
	switch {
	case err == nil:
		return d.Offline() // another flush may have failed meanwhile: then this one means nothing
	case disk.IsNoSpace(err), disk.IsExhausted(err):
		return err
	}
	return d.fail(err)
}

// store writes the recovery points, starts and watermarks from how far the logs have come; everything flushed counts as checked.
func (p *points) store(d *Dir, logs []*Log) error {
	moves := make([]move, 0, len(logs))
	for _, l := range logs {
		moves = append(moves, move{log: l, to: l.Progress().Flushed, lowered: l.lowered.Load()})
	}
	return errors.Join(p.storeRecovery(d, moves), p.storeStarts(d, logs))
}

// move is a recovery point that a log may be given.
type move struct {
	log     *Log
	to      int64
	lowered int64 // how often it had been lowered when to was found
	// What is flushed before: the segments whose index files are, and up to which snapshot, with its offset.
	indexes               []*segment.Segment
	snapshots, snapshotAt int64
}

// storeRecovery writes the recovery points.
func (p *points) storeRecovery(d *Dir, moves []move) error {
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	if p.recovery == nil {
		p.recovery = map[TopicPartition]int64{}
	}
	changed, before := false, maps.Clone(p.recovery)
	for _, m := range moves {
		if _, damaged := m.log.Damaged(); damaged || m.log.removed.Load() || m.log.lowered.Load() != m.lowered {
			continue
		}
		if old, ok := p.recovery[m.log.id]; !ok || old != m.to {
			p.recovery[m.log.id], changed = m.to, true
		}
	}
	for id := range p.recovery {
		if !d.has(id) { // removed: its line would stay for ever
			delete(p.recovery, id)
			changed = true
		}
	}
	if !changed {
		return nil
	}
	if err := d.write(recoveryPointFile, p.recovery); err != nil {
		p.recovery = before
		return fmt.Errorf("write recovery points: %w", err)
	}
	for _, m := range moves {
		if m.log.lowered.Load() == m.lowered {
			m.log.recoveryPoint.Store(m.to)
		}
	}
	return nil
}

// storeStarts writes the log starts that do not follow from the segments, and the high watermarks.
func (p *points) storeStarts(d *Dir, logs []*Log) error {
	p.slot <- struct{}{}
	defer func() { <-p.slot }()
	starts, watermarks := map[TopicPartition]int64{}, map[TopicPartition]int64{}
	for _, l := range logs {
		segments := *l.segments.Load()
		if len(segments) == 0 || l.removed.Load() {
			continue
		}
		progress := l.Progress()
		if progress.Start > segments[0].Base {
			starts[l.id] = progress.Start
		}
		watermarks[l.id] = progress.HighWatermark
	}
	return errors.Join(d.replace(startOffsetFile, &p.starts, starts), d.replace(watermarkFile, &p.highWatermarks, watermarks))
}

// replace writes a file whose content has changed.
func (d *Dir) replace(name string, old *map[TopicPartition]int64, offsets map[TopicPartition]int64) error {
	if *old != nil && equalOffsets(*old, offsets) {
		return nil
	}
	if err := d.write(name, offsets); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	*old = offsets
	return nil
}

func equalOffsets(a, b map[TopicPartition]int64) bool {
	if len(a) != len(b) {
		return false
	}
	for tp, offset := range a {
		if other, ok := b[tp]; !ok || other != offset {
			return false
		}
	}
	return true
}

// dropLoose removes a snapshot that stands at no segment's beginning, as those of checkpoints do; the others are kept for
// truncations.
func (l *Log) dropLoose(at int64) error {
	if at < 0 || slices.ContainsFunc(*l.segments.Load(), func(s *segment.Segment) bool { return s.Base == at }) {
		return nil
	}
	return l.dir.fs.Remove(l.path + "/" + segment.Name(at, segment.SnapshotSuffix))
}
