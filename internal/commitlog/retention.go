package commitlog

import (
	"context"
	"errors"
	"fmt"

	"barnabas/internal/commitlog/segment"
)

// AdvanceStart makes offset to the first that may be read, as DeleteRecords does; what lies wholly below goes. It never
// moves back. The caller sees to it that to is committed. The new start is written to log-start-offset-checkpoint soon
// after, not before this returns: a crash within that time brings records back, as in Kafka.
//
// Errors: ErrOutOfRange past the end.
func (l *Log) AdvanceStart(to int64) error {
	return l.advanceStart(to, func() error { return nil })
}

// AdvanceStartFollowing is AdvanceStart on behalf of the leader of an epoch; ErrEpochOver when that is over.
func (l *Log) AdvanceStartFollowing(to int64, epoch int32) error {
	return l.advanceStart(to, func() error { return l.mayFollow("move the start", epoch) })
}

// advanceStart asks may once nobody else can change the log.
func (l *Log) advanceStart(to int64, may func() error) error {
	if segments := *l.segments.Load(); below(segments, to) > 0 { // as of now: others may change the list meanwhile
		if err := l.keepProducers(segments[below(segments, to)].Base); err != nil {
			return err
		}
	}
	if err := l.takeList(); err != nil {
		return err
	}
	defer l.giveList()
	if err := may(); err != nil {
		return err
	}
	if p := l.Progress(); to > p.End {
		return fmt.Errorf("start %s at %d, log ends at %d: %w", l.id, to, p.End, ErrOutOfRange)
	} else if to <= p.Start {
		return nil
	}
	l.moveStart(to)
	l.dir.startsMoved()
	return l.deleteSegments(below(*l.segments.Load(), to))
}

// keepProducers makes a producer snapshot durable that stands at base or above and that a recovery would use: what only the
// segments below say of producers would be gone with them. It is done whenever the log is checkpointed, so there is seldom
// anything to do. On a full disk there is no new snapshot, and space comes first.
func (l *Log) keepProducers(base int64) error {
	if err := l.take(); err != nil {
		return err
	}
	known := l.producers.Len() == 0 || l.snapshotSure >= base
	l.give()
	if known {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), checkpointFlushLimit)
	defer cancel()
	if err := l.dir.flusher.flush(ctx, l); err != nil {
		return fmt.Errorf("flush %s before its oldest segments go: %w", l.id, err)
	}
	l.dir.keeper.checkpoint()
	return nil
}

// moveStart needs the slot.
func (l *Log) moveStart(to int64) {
	l.mu.Lock()
	p := &l.mu.progress
	p.Start = max(p.Start, to)
	if p.HighWatermark < p.Start {
		p.HighWatermark, l.mu.committed = p.Start, spot{}
		l.mu.transactions.Committed(p.Start)
	}
	l.stabilise()
	p.LastStable = max(p.LastStable, p.Start)
	end := p.End
	l.mu.Unlock()
	l.repaired(to, end+1)
	if l.epochs.CutStart(to) {
		l.tolerate(l.storeEpochs())
	}
}

// below counts the segments that lie wholly below offset. The last one stays.
func below(segments []*segment.Segment, offset int64) int {
	n := 0
	for n < len(segments)-1 && segments[n+1].Base <= offset {
		n++
	}
	return n
}

// retain deletes what the retention settings say, oldest first and never above the high watermark.
func (l *Log) retain(nowMs int64) error {
	if len(*l.segments.Load()) == 0 {
		return nil
	}
	if err := l.takeList(); err != nil {
		return err
	}
	cfg := l.config.Load()
	n, err := l.expired(nowMs, cfg)
	if err == nil && n > 0 {
		base := (*l.segments.Load())[n-1].Next.Load()
		l.giveList()
		if err := l.keepProducers(base); err != nil {
			return err
		}
		if err := l.takeList(); err != nil {
			return err
		}
		cfg = l.config.Load() // a retention that was made longer meanwhile holds
		n, err = l.expired(nowMs, cfg)
	}
	defer l.giveList()
	if err != nil || n == 0 {
		return err
	}
	segments := *l.segments.Load()
	if n == len(segments) {
		// Everything has expired: begin anew, so that the log keeps its place.
		active := segments[n-1]
		if _, err := l.addSegment(active.Next.Load(), cfg); err != nil {
			return err
		}
		l.takeSnapshot(active.Next.Load())
		segments = *l.segments.Load()
	}
	l.dir.logger.Info("retention deletes segments", "log", l.id.String(), "segments", n, "start", segments[n].Base)
	l.moveStart(segments[n].Base)
	return l.deleteSegments(n)
}

// expired counts the oldest segments that may go by size, by time, or because the start has passed them.
func (l *Log) expired(nowMs int64, cfg *Config) (int, error) {
	segments := *l.segments.Load()
	p := l.Progress()
	surplus := int64(-1)
	if cfg.Delete && cfg.RetentionBytes >= 0 {
		surplus = l.Size() - cfg.RetentionBytes
	}
	for n, s := range segments {
		size, last := s.Size.Load(), n == len(segments)-1
		if s.Next.Load() > p.HighWatermark || (last && size == 0) {
			return n, nil
		}
		old := false
		if cfg.Delete && cfg.RetentionMs >= 0 {
			newest, err := s.Newest()
			if err != nil {
				return 0, l.failed("read time index", err)
			}
			if newest.Ms < 0 {
				newest.Ms = s.ModifiedMs.Load()
			}
			old = nowMs-newest.Ms > cfg.RetentionMs
		}
		passed := !last && segments[n+1].Base <= p.Start
		if !old && !passed && surplus < size {
			return n, nil
		}
		surplus -= size
	}
	return len(segments), nil
}

// deleteSegments takes the oldest n segments away. Their files get the name that Kafka gives them and are removed
// after file.delete.delay.ms. The slot is held.
func (l *Log) deleteSegments(n int) error {
	if n == 0 {
		return nil
	}
	segments := *l.segments.Load()
	kept := append([]*segment.Segment(nil), segments[n:]...)
	l.segments.Store(&kept)
	return l.discard(segments[:n], l.config.Load().FileDeleteDelayMs)
}

// discard gives up segments that are no longer in the list.
func (l *Log) discard(segments []*segment.Segment, delayMs int64) error {
	d := l.dir
	var errs []error
	for _, s := range segments {
		errs = append(errs, s.Shut(true)) // before the files have other names: who looks for one then is told that it is gone
		for _, path := range s.Paths() {
			errs = append(errs, d.discardFile(path, delayMs))
		}
		if s.Base != l.snapshotAt { // still the newest
			errs = append(errs, d.discardFile(s.Path(segment.SnapshotSuffix), delayMs))
		}
	}
	l.forgetWarm()
	l.entriesDirty.Store(true)
	d.flusher.schedule(l)
	if err := errors.Join(errs...); err != nil {
		return l.failed("delete segments", err)
	}
	return nil
}

// forgetWarm drops what a log in use remembers.
func (l *Log) forgetWarm() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.warm = nil
}
