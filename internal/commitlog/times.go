package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// OffsetForTime finds the first record whose timestamp is at least ms. It reads the time indexes and one index interval
// of batches, whose records it decompresses; found is false when there is no such record.
func (l *Log) OffsetForTime(ms int64) (t TimedOffset, found bool, err error) {
	if err := l.usable(); err != nil {
		return t, false, err
	}
	p := l.Progress()
	for _, s := range l.segmentsFrom(p.Start) {
		newest, err := s.newest()
		if err == nil && newest.ms >= ms {
			t, found, err = s.searchTime(ms, max(p.Start, s.base), p.End)
		}
		if errors.Is(err, errGone) { // deleted meanwhile: its records are no longer the first
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

// searchTime finds the first record at offset from or later with a timestamp of at least ms.
func (s *segment) searchTime(ms, from, end int64) (t TimedOffset, found bool, err error) {
	n, e, err := s.times.floor(entryTime, ms-1)
	if err != nil {
		return t, false, err
	}
	if n >= 0 { // up to this entry's batch everything is older
		from = max(from, s.base+entryTimeOffset(e[:]))
	}
	limit := s.size.Load()
	p, err := s.locate(from, limit)
	if err != nil || p.at >= limit {
		return t, false, s.damageError(p, err)
	}
	f, err := s.data.acquire(disk.Write)
	if err != nil {
		return t, false, err
	}
	defer f.release()
	buf := takeBlock()
	defer putBlock(buf)
	for w := walk(f, p.at, limit, buf[:]); ; {
		h, at, err := w.next()
		if errors.Is(err, io.EOF) || (err == nil && h.BaseOffset() >= end) {
			return t, false, nil
		}
		if err != nil {
			return t, false, err
		}
		if h.MaxTimestamp() < ms {
			continue
		}
		t, found, err = s.searchBatch(&w, at, h.Size(), func(offset, recordMs int64) bool { return offset >= from && recordMs >= ms })
		if err != nil || found {
			return t, found, err
		}
	}
}

// damageError turns a damaged frame into what the caller knows, and notes it.
func (s *segment) damageError(p place, err error) error {
	if errors.Is(err, errFrame) {
		s.log.damaged(p.base, err)
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// searchBatch returns the first record of a batch that accept takes. It reads the batch whole and checks it first.
func (s *segment) searchBatch(w *walker, at, size int64, accept func(offset, ms int64) bool) (t TimedOffset, found bool, err error) {
	b, err := w.body(at, size)
	if err != nil {
		return t, false, err
	}
	if err := b.CheckCRC(); err != nil {
		s.log.damaged(b.BaseOffset(), err)
		return t, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for r, err := range s.log.dir.checker.Records(b) {
		if err != nil {
			return t, false, err
		}
		offset, ms := b.OffsetOf(&r), b.TimestampOf(&r)
		if accept(offset, ms) {
			return TimedOffset{ms, offset, b.LeaderEpoch()}, true, nil
		}
	}
	return t, false, nil
}

// MaxTimestamp finds the first record with the log's largest timestamp; found is false when no record has one.
func (l *Log) MaxTimestamp() (t TimedOffset, found bool, err error) {
	if err := l.usable(); err != nil {
		return t, false, err
	}
	p := l.Progress()
	var in *segment
	best := timedOffset{ms: -1}
	for _, s := range l.segmentsFrom(p.Start) {
		newest, err := s.newest()
		if errors.Is(err, errGone) {
			continue
		}
		if err != nil {
			return t, false, l.searchError(err)
		}
		if newest.ms > best.ms {
			in, best = s, newest
		}
	}
	if in == nil {
		return t, false, nil
	}
	t, found, err = in.searchNewest(best)
	return t, found, l.searchError(err)
}

func (s *segment) searchNewest(newest timedOffset) (t TimedOffset, found bool, err error) {
	limit := s.size.Load()
	p, err := s.locate(newest.offset, limit)
	if err != nil || p.at >= limit {
		return t, false, s.damageError(p, err)
	}
	f, err := s.data.acquire(disk.Write)
	if err != nil {
		return t, false, err
	}
	defer f.release()
	buf := takeBlock()
	defer putBlock(buf)
	w := walk(f, p.at, limit, buf[:])
	h, at, err := w.next()
	if err != nil {
		return t, false, err
	}
	return s.searchBatch(&w, at, h.Size(), func(_, ms int64) bool { return ms >= newest.ms })
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
		limit := s.size.Load()
		if s == end.seg {
			limit = end.at
		}
		if err := s.verify(ctx, limit, buf); err != nil && !errors.Is(err, errGone) {
			return fmt.Errorf("verify %s: %w", l.id, err)
		}
	}
	return nil
}

func (s *segment) verify(ctx context.Context, limit int64, buf []byte) error {
	f, err := s.data.acquire(disk.Write)
	if err != nil {
		return err
	}
	defer f.release()
	good := s.base
	for w := walk(f, 0, limit, buf); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, at, err := w.next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		next := good
		if err == nil {
			next, err = h.NextOffset(), s.belongs(h, good, at > 0)
		}
		if err == nil {
			_, err = w.verify(at, h.Size())
		}
		if errors.Is(err, errFrame) || errors.Is(err, batch.ErrCorrupt) {
			s.log.damaged(good, err)
			return fmt.Errorf("%s at %d: %w: %w", s.path(dataSuffix), at, ErrCorrupt, err)
		}
		if err != nil {
			return err
		}
		good = next
	}
}
