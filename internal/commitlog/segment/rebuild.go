package segment

import (
	"errors"
	"io"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// Headers walks a segment's batches from a position until the first that is none.
func (s *Segment) Headers(at int64, buf []byte, visit func(h batch.Batch, at int64) error) error {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return err
	}
	defer f.Release()
	for w := Walk(f, at, s.Size.Load(), buf); ; {
		h, at, err := w.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, ErrFrame) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := visit(h, at); err != nil {
			return err
		}
	}
}

// Indexed tells whether both indexes are there and look like indexes of this segment.
func (s *Segment) Indexed() bool {
	if !s.offsets.exists || !s.times.exists || s.offsets.ragged || s.times.ragged {
		return false
	}
	if s.offsets.stored == 0 {
		return true
	}
	_, e, err := s.offsets.last()
	return err == nil && entryOffset(e[:]) > 0 && entryPosition(e[:]) < s.Size.Load()
}

// RebuildIndex makes the indexes again from the batches' headers; sealed says that the segment will not grow.
func (s *Segment) RebuildIndex(interval int64, sealed bool, buf []byte) error {
	if err := s.clearIndex(); err != nil {
		return err
	}
	err := s.Headers(0, buf, func(h batch.Batch, at int64) error {
		s.Note(h, at, interval)
		return nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.mu.known = true
	newest := s.mu.newest
	s.mu.Unlock()
	if newest.Ms >= 0 && sealed {
		s.noteTime(newest)
	}
	return s.StoreIndexes()
}

// AllNoted: every batch has been through note, so the largest timestamp is known.
func (s *Segment) AllNoted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.known = true
}

func (s *Segment) clearIndex() error {
	s.mu.Lock()
	s.mu.newest, s.mu.known = MaxTimestamp{-1, s.Base}, false
	s.mu.Unlock()
	s.sinceEntry, s.lastTimeMs = 0, -1
	return errors.Join(s.offsets.clear(), s.times.clear())
}

// Trim keeps of the indexes what was durable: entries below the recovery point. What a crash left of later ones may be
// anything.
func (s *Segment) Trim(recoveryPoint int64) error {
	limit := recoveryPoint - s.Base
	var offset, at int64
	err := s.offsets.keep(func(e []byte) bool {
		ok := entryOffset(e) > offset && entryPosition(e) > at && entryOffset(e) < limit
		offset, at = entryOffset(e), entryPosition(e)
		return ok
	})
	if err != nil {
		return err
	}
	ms, last := int64(-1), int64(-1)
	return s.times.keep(func(e []byte) bool {
		ok := entryTime(e) > ms && entryTimeOffset(e) > last && entryTimeOffset(e) < limit
		ms, last = entryTime(e), entryTimeOffset(e)
		return ok
	})
}

// OpenBooks sets the indexes and what goes with them to how they were when the given entry had just been written.
func (s *Segment) OpenBooks(start Place, entry int64) error {
	if entry < 0 {
		return s.clearIndex()
	}
	_, e, err := s.offsets.floor(entryPosition, start.At)
	if err != nil {
		return err
	}
	t, te, err := s.times.floor(entryTimeOffset, entryOffset(e[:]))
	if err != nil {
		return err
	}
	if t >= 0 {
		s.mu.newest = MaxTimestamp{entryTime(te[:]), s.Base + entryTimeOffset(te[:])}
		s.lastTimeMs = s.mu.newest.Ms
	}
	return errors.Join(s.offsets.cut(entry+1), s.times.cut(t+1))
}

// EntryBelow finds the batch of the last index entry below an offset, or the beginning (entry -1). errAstray when the
// index does not lead there. f is the open .log file.
func (s *Segment) EntryBelow(offset int64, f io.ReaderAt) (start Place, entry int64, err error) {
	start = Place{0, s.Base}
	if !s.Indexed() {
		return start, -1, nil
	}
	n, e, err := s.offsets.floor(entryOffset, offset-1-s.Base)
	if err != nil || n < 0 {
		return start, -1, err
	}
	buf := TakeBlock()
	defer PutBlock(buf)
	w := Walk(f, entryPosition(e[:]), s.Size.Load(), buf[:])
	h, at, err := w.Next()
	if err != nil || h.LastOffset() != s.Base+entryOffset(e[:]) || h.BaseOffset() < s.Base {
		return start, -1, ErrAstray
	}
	return Place{at, h.BaseOffset()}, n, nil
}
