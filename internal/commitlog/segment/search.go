package segment

import (
	"context"
	"errors"
	"fmt"
	"io"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// TimedRecord answers a search by time.
type TimedRecord struct {
	TimestampMs, Offset int64
	LeaderEpoch         int32 // -1: unknown
}

// ErrCorrupt: the stored bytes are not what was written.
var ErrCorrupt = errors.New("log is damaged")

// SearchTime finds the first record at offset from or later with a timestamp of at least ms.
func (s *Segment) SearchTime(ms, from, end int64, checker *batch.Checker) (t TimedRecord, found bool, err error) {
	n, e, err := s.times.floor(entryTime, ms-1)
	if err != nil {
		return t, false, err
	}
	if n >= 0 { // up to this entry's batch everything is older
		from = max(from, s.Base+entryTimeOffset(e[:]))
	}
	limit := s.Size.Load()
	p, err := s.Locate(from, limit)
	if err != nil || p.At >= limit {
		return t, false, s.damageError(p, err)
	}
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return t, false, err
	}
	defer f.Release()
	buf := TakeBlock()
	defer PutBlock(buf)
	for w := Walk(f, p.At, limit, buf[:]); ; {
		h, at, err := w.Next()
		if errors.Is(err, io.EOF) || (err == nil && h.BaseOffset() >= end) {
			return t, false, nil
		}
		if err != nil {
			return t, false, err
		}
		if h.MaxTimestamp() < ms {
			continue
		}
		t, found, err = s.searchBatch(checker, &w, at, h.Size(), func(offset, recordMs int64) bool { return offset >= from && recordMs >= ms })
		if err != nil || found {
			return t, found, err
		}
	}
}

// damageError turns a damaged frame into what the caller knows, and notes it.
func (s *Segment) damageError(p Place, err error) error {
	if errors.Is(err, ErrFrame) {
		s.Host.Damage(p.Base, err)
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return err
}

// searchBatch returns the first record of a batch that accept takes. It reads the batch whole and checks it first.
func (s *Segment) searchBatch(checker *batch.Checker, w *Walker, at, size int64, accept func(offset, ms int64) bool) (t TimedRecord, found bool, err error) {
	b, err := w.Body(at, size)
	if err != nil {
		return t, false, err
	}
	if err := b.CheckCRC(); err != nil {
		s.Host.Damage(b.BaseOffset(), err)
		return t, false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	for r, err := range checker.Records(b) {
		if err != nil {
			return t, false, err
		}
		offset, ms := b.OffsetOf(&r), b.TimestampOf(&r)
		if accept(offset, ms) {
			return TimedRecord{ms, offset, b.LeaderEpoch()}, true, nil
		}
	}
	return t, false, nil
}

// SearchNewest finds the first record with the largest timestamp, which Newest has told.
func (s *Segment) SearchNewest(newest MaxTimestamp, checker *batch.Checker) (t TimedRecord, found bool, err error) {
	limit := s.Size.Load()
	p, err := s.Locate(newest.Offset, limit)
	if err != nil || p.At >= limit {
		return t, false, s.damageError(p, err)
	}
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return t, false, err
	}
	defer f.Release()
	buf := TakeBlock()
	defer PutBlock(buf)
	w := Walk(f, p.At, limit, buf[:])
	h, at, err := w.Next()
	if err != nil {
		return t, false, err
	}
	return s.searchBatch(checker, &w, at, h.Size(), func(_, ms int64) bool { return ms >= newest.Ms })
}

// Verify compares every batch before limit with its checksum. ErrCorrupt at the first that differs; the host knows then.
func (s *Segment) Verify(ctx context.Context, limit int64, buf []byte) error {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return err
	}
	defer f.Release()
	good := s.Base
	for w := Walk(f, 0, limit, buf); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, at, err := w.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		next := good
		if err == nil {
			next, err = h.NextOffset(), s.belongs(h, good, at > 0)
		}
		if err == nil {
			_, err = w.Verify(at, h.Size())
		}
		if errors.Is(err, ErrFrame) || errors.Is(err, batch.ErrCorrupt) {
			s.Host.Damage(good, err)
			return fmt.Errorf("%s at %d: %w: %w", s.Path(DataSuffix), at, ErrCorrupt, err)
		}
		if err != nil {
			return err
		}
		good = next
	}
}
