package segment

import (
	"errors"
	"fmt"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// CreateReplacement makes the .log file of a segment that compaction writes to take the place of others. Its files have
// names that end in CleanedSuffix, until SetStage. What an earlier attempt left under that name goes.
func (s *Segment) CreateReplacement() error {
	stage := CleanedSuffix
	s.stage.Store(&stage)
	if err := s.Remove(); err != nil {
		return err
	}
	f, err := s.Data.Acquire(disk.New)
	if err != nil {
		return err
	}
	s.mu.known, s.Ready = true, true
	return f.Release()
}

// Write puts whole batches at the end of a replacement. They are to be given to Note as well.
func (s *Segment) Write(p []byte) error {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return err
	}
	at := s.Size.Load()
	_, err = f.WriteAt(p, at)
	if err = errors.Join(err, f.Release()); err != nil {
		return fmt.Errorf("write %s: %w", s.Path(DataSuffix), err)
	}
	s.Size.Store(at + int64(len(p)))
	return nil
}

// Sync completes a replacement's indexes and flushes all its files. ErrFlush when a flush fails.
func (s *Segment) Sync() error {
	if err := s.Seal(); err != nil {
		return err
	}
	for _, f := range append(s.IndexFiles(), &s.Data) {
		h, err := f.Acquire(disk.Write)
		if err != nil {
			return err
		}
		if err = h.SyncData(); err != nil {
			err = fmt.Errorf("%w %s: %w", ErrFlush, f.Path(), err)
		}
		if err = errors.Join(err, h.Release()); err != nil {
			return err
		}
	}
	s.IndexUnsynced.Store(false)
	return nil
}

// SetStage renames a replacement's files: from CleanedSuffix to SwapSuffix, and from that to "". The .log file is the last,
// since its name is what counts. The directory is still to be flushed.
func (s *Segment) SetStage(to string) error {
	// Held open while their names change, so that nobody has to look for them.
	for _, f := range append(s.IndexFiles(), &s.Data) {
		h, err := f.Acquire(disk.Write)
		if err != nil {
			return err
		}
		defer h.Release()
	}
	old := s.Paths()
	before := s.stage.Swap(&to)
	for i := range old {
		i = len(old) - 1 - i // the .log file is the first of them
		if err := s.files.fs.Rename(old[i], s.Paths()[i]); err != nil {
			s.stage.Store(before)
			return fmt.Errorf("rename %s: %w", old[i], err)
		}
	}
	return nil
}

// FirstTimestamp is the largest timestamp (ms) of the first batch, -1 when it has none or the segment is empty.
func (s *Segment) FirstTimestamp() (int64, error) {
	if t := s.firstTime.Load(); t != nil {
		return *t, nil
	}
	if s.Size.Load() == 0 {
		return batch.NoTimestamp, nil
	}
	ms, err := s.readFirstMs()
	if err == nil {
		s.firstTime.Store(&ms)
	}
	return ms, err
}

// IndexBytes are the sizes of the offset index and the time index.
func (s *Segment) IndexBytes() (offsets, times int64) {
	return s.offsets.count() * offsetEntryBytes, s.times.count() * timeEntryBytes
}

// Suffixes are those of a segment's own files, the one of the batches last.
func Suffixes() []string { return []string{IndexSuffix, TimeSuffix, AbortedSuffix, DataSuffix} }
