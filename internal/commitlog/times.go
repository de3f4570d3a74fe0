package commitlog

import (
	"context"
	"errors"
	"fmt"

	"barnabas/internal/commitlog/segment"
)

// OffsetForTime finds the first record whose timestamp is at least ms. It reads the time indexes and one index interval
// of batches, whose records it decompresses; found is false when there is no such record.
func (l *Log) OffsetForTime(ms int64) (t TimedOffset, found bool, err error) {
	if err := l.usable(); err != nil {
		return t, false, err
	}
	p := l.Progress()
	for _, s := range l.segmentsFrom(p.Start) {
		newest, err := s.Newest()
		if err == nil && newest.Ms >= ms {
			t, found, err = s.SearchTime(ms, max(p.Start, s.Base), p.End, l.dir.checker)
		}
		if errors.Is(err, segment.ErrGone) { // deleted meanwhile: its records are no longer the first
			continue
		}
		if err != nil || found {
			return t, found, l.searchError(err)
		}
	}
	return TimedOffset{}, false, nil
}

func (l *Log) searchError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("search %s by time: %w", l.id, err)
}

// MaxTimestamp finds the first record with the log's largest timestamp; found is false when no record has one.
func (l *Log) MaxTimestamp() (t TimedOffset, found bool, err error) {
	if err := l.usable(); err != nil {
		return t, false, err
	}
	p := l.Progress()
	var in *segment.Segment
	best := segment.MaxTimestamp{Ms: -1}
	for _, s := range l.segmentsFrom(p.Start) {
		newest, err := s.Newest()
		if errors.Is(err, segment.ErrGone) {
			continue
		}
		if err != nil {
			return t, false, l.searchError(err)
		}
		if newest.Ms > best.Ms {
			in, best = s, newest
		}
	}
	if in == nil {
		return t, false, nil
	}
	t, found, err = in.SearchNewest(best, l.dir.checker)
	return t, found, l.searchError(err)
}

// scanBytes is read at once where a whole segment is gone through.
const scanBytes = 1 << 20

// Verify reads the log from its start and compares every batch with its checksum. ErrCorrupt at the first that
// differs, from which on the log serves nothing. It goes at the disk's pace and ends with ctx.
func (l *Log) Verify(ctx context.Context) error {
	if err := l.usable(); err != nil {
		return err
	}
	l.mu.Lock()
	start, end := l.mu.progress.Start, l.mu.end
	l.mu.Unlock()
	buf := make([]byte, scanBytes)
	for _, s := range l.segmentsFrom(start) {
		limit := s.Size.Load()
		if s == end.seg {
			limit = end.at
		}
		if err := s.Verify(ctx, limit, buf); err != nil && !errors.Is(err, segment.ErrGone) {
			return fmt.Errorf("verify %s: %w", l.id, err)
		}
	}
	return nil
}
