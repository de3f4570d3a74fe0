package commitlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/checkpoint"
	"barnabas/internal/commitlog/identity"
	"barnabas/internal/commitlog/producer"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// checkpoints are what a log's directory knows of it from before.
type checkpoints struct {
	recoveryPoint, start, highWatermark int64
}

// loader brings one log back. What lies below the recovery point is known to be durable and is not read, but for the
// batches since the last index entry; what lies past it is checked byte by byte and cut at the first thing that is not a
// batch.
type loader struct {
	log       *Log
	cfg       *Config
	from      checkpoints
	snapshots []int64
	buf       []byte
	expected  int64 // offset of the next batch
	newEpochs bool  // some are not in the file
}

// loadLog brings back the log in a directory that exists.
func (d *Dir) loadLog(tp TopicPartition, cfg Config, from checkpoints, buf []byte) (*Log, error) {
	l := newLog(d, tp, cfg)
	to, cleaned := d.points.cleaned[tp]
	l.cleaned.Store(cleaned)
	l.cleanedTo.Store(to)
	r := &loader{log: l, cfg: &cfg, from: from, buf: buf}
	if err := r.load(); err != nil {
		return nil, fmt.Errorf("load %s: %w", l.path, err)
	}
	return l, nil
}

func (r *loader) load() error {
	l := r.log
	entries, err := l.dir.fs.List(l.path)
	if err != nil {
		return err
	}
	if entries, err = r.finishSwaps(entries); err != nil {
		return err
	}
	segments, err := r.findFiles(entries)
	if err != nil || len(segments) == 0 {
		return err
	}
	l.segments.Store(&segments)
	r.from.start = max(r.from.start, segments[0].Base)
	r.expected = segments[0].Base
	known, err := r.loadEpochs(segments[0].Base)
	if err != nil {
		return err
	}
	if !known {
		if err := r.rebuildEpochs(segments); err != nil {
			return err
		}
	}
	if err := r.loadProducers(segments, max(r.from.recoveryPoint, segments[0].Base)); err != nil {
		return err
	}
	if !l.dir.unclean || l.snapshotAt == r.from.recoveryPoint { // a checkpoint's
		l.snapshotSure = l.snapshotAt
	}
	if segments, err = r.checkSegments(segments); err != nil {
		return err
	}
	return r.finish(segments)
}

// findFiles makes the segments from a listing, takes note of snapshots and the topic id, and removes what an earlier
// life left to be removed.
func (r *loader) findFiles(entries []disk.Entry) (segments []*segment.Segment, err error) {
	l := r.log
	sizes := map[string]int64{}
	var modified []int64
	for _, e := range entries {
		switch {
		case strings.HasSuffix(e.Name, segment.DeletedSuffix), strings.HasSuffix(e.Name, tempSuffix):
			if err := l.dir.fs.Remove(l.path + "/" + e.Name); err != nil {
				return nil, err
			}
			continue
		case e.Name == identity.PartitionFile:
			if err := r.loadTopicID(); err != nil {
				return nil, err
			}
		}
		sizes[e.Name] = e.Size
		if at, ok := segment.ParseName(e.Name, segment.SnapshotSuffix); ok {
			r.snapshots = append(r.snapshots, at)
		}
		if base, ok := segment.ParseName(e.Name, segment.DataSuffix); ok && !e.Dir {
			segments = append(segments, l.newSegment(base))
			modified = append(modified, e.ModTime.UnixMilli())
		}
	}
	for i, s := range segments {
		if i+1 < len(segments) {
			s.Next.Store(segments[i+1].Base)
		}
		s.Found(sizes, l.dir.now().UnixMilli(), modified[i], l.dir.jitter(min(r.cfg.SegmentJitterMs, r.cfg.SegmentMs)))
	}
	return segments, nil
}

func (r *loader) loadTopicID() error {
	path := r.log.path + "/" + identity.PartitionFile
	data, err := disk.ReadFile(r.log.dir.fs, path, identity.MaxBytes)
	if err != nil {
		return err
	}
	id, err := identity.ParsePartition(data)
	if err != nil {
		// Torn by a crash before anything was acknowledged; the id comes with the metadata.
		r.log.dir.logger.Warn("partition metadata is damaged and ignored", "file", path, "error", err)
		return nil
	}
	r.log.mu.topicID = id
	return nil
}

func (r *loader) loadEpochs(base int64) (known bool, err error) {
	path := r.log.path + "/" + epochFile
	data, err := disk.ReadFile(r.log.dir.fs, path, maxEpochFileBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	entries, err := checkpoint.ParseEpochs(data)
	if err != nil {
		r.log.dir.logger.Warn("leader epochs are damaged and read again from the log", "file", path, "error", err)
		return false, nil
	}
	r.log.epochs.Replace(entries)
	return true, nil
}

// rebuildEpochs reads the epochs below the recovery point from the batches' headers.
func (r *loader) rebuildEpochs(segments []*segment.Segment) error {
	for _, s := range segments {
		if s.Base >= r.from.recoveryPoint {
			break
		}
		err := s.Headers(0, r.buf, func(h batch.Batch, _ int64) error {
			r.newEpochs = r.log.epochs.Assign(h.LeaderEpoch(), h.BaseOffset()) || r.newEpochs
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// loadProducers brings the producer state to offset upTo, from the newest usable snapshot and the batches since.
func (r *loader) loadProducers(segments []*segment.Segment, upTo int64) error {
	l := r.log
	slices.Sort(r.snapshots)
	l.producers.End = segments[0].Base
	for _, at := range slices.Backward(r.snapshots) {
		if at > upTo {
			continue
		}
		path := l.path + "/" + segment.Name(at, segment.SnapshotSuffix)
		data, err := disk.ReadFile(l.dir.fs, path, producer.MaxSnapshotBytes)
		if err != nil {
			return err
		}
		found, err := producer.ParseSnapshot(data)
		if err == nil {
			l.producers.Load(found, at, l.dir.expiry())
			l.snapshotAt = at
			break
		}
		l.dir.logger.Warn("producer snapshot is damaged and ignored", "file", path, "error", err)
	}
	var open producer.Transactions
	for p := range l.producers.All() {
		if p.Transaction >= 0 {
			open.Start(producer.Transaction{Producer: p.ID, First: p.Transaction, Last: -1})
		}
	}
	l.mu.Lock()
	l.mu.transactions = open
	l.mu.Unlock()
	return l.replay(segments, upTo, r.buf)
}

// replay applies the batches from the end of the producer state up to offset upTo. Of all but control batches it reads the
// header alone. The slot is held, or nobody else knows the log yet.
func (l *Log) replay(segments []*segment.Segment, upTo int64, buf []byte) error {
	from := l.producers.End
	for i, s := range segments {
		if i+1 < len(segments) && segments[i+1].Base <= from {
			continue
		}
		if err := s.ForgetAborted(from); err != nil {
			return err
		}
		if from >= upTo || s.Base >= upTo {
			continue
		}
		at := int64(0)
		if from > s.Base {
			p, err := s.Locate(from, s.Size.Load())
			if err != nil && !errors.Is(err, segment.ErrFrame) {
				return err
			}
			at = p.At
		}
		err := s.Headers(at, buf, func(h batch.Batch, at int64) error {
			if h.BaseOffset() < from || h.NextOffset() > upTo {
				return nil
			}
			return l.applyFrom(s, h, at)
		})
		if err != nil {
			return err
		}
	}
	l.producers.End = max(l.producers.End, upTo)
	return nil
}

// applyFrom applies a batch of which only the header has been read.
func (l *Log) applyFrom(s *segment.Segment, h batch.Batch, at int64) error {
	if h.IsControl() && h.ProducerID() >= 0 {
		f, err := s.Data.Acquire(disk.Write)
		if err != nil {
			return err
		}
		b := make(batch.Batch, h.Size())
		if err := errors.Join(segment.ReadFull(f, b, at), f.Release()); err != nil {
			return err
		}
		h = b
	}
	return l.apply(s, h)
}

// apply brings the producer state past a batch that is in the segment.
func (l *Log) apply(s *segment.Segment, b batch.Batch) error {
	marker, err := l.parseMarker(b)
	if err != nil {
		return err
	}
	started, ended := l.producers.Apply(b, marker)
	if started == nil && ended == nil {
		return nil
	}
	if ended != nil && ended.Aborted {
		l.noteAborted(s, ended)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if started != nil {
		l.mu.transactions.Start(*started)
	} else {
		l.mu.transactions.End(*ended)
	}
	return nil
}

// reloadProducers brings the state back to an earlier end. The slot is held.
func (l *Log) reloadProducers(end int64) error {
	r := &loader{log: l, cfg: l.config.Load(), buf: make([]byte, scanBytes)}
	var err error
	if r.snapshots, err = l.listSnapshots(); err != nil {
		return err
	}
	l.producers.Clear()
	l.snapshotAt = -1
	if err := r.loadProducers(*l.segments.Load(), end); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mu.replaying = false
	l.mu.transactions.Committed(l.mu.progress.HighWatermark)
	l.stabilise()
	return nil
}

// checkSegments goes through the segments that reach past the recovery point, and makes indexes again that are missing
// or make no sense. It returns the segments that remain.
func (r *loader) checkSegments(segments []*segment.Segment) ([]*segment.Segment, error) {
	for i, s := range segments {
		last := i == len(segments)-1
		if !last && s.Next.Load() <= r.from.recoveryPoint {
			r.expected = s.Next.Load()
			if !s.Indexed() {
				if err := r.rebuildIndex(s); err != nil {
					return nil, err
				}
			}
			continue
		}
		if s.Base > r.expected && i > 0 && r.lost() {
			r.cutLine(s, 0, r.total(segments[i:]), fmt.Errorf("%w: offset %d expected", segment.ErrFrame, r.expected))
			return segments[:i], r.log.discard(segments[i:], r.cfg.FileDeleteDelayMs)
		}
		r.expected = max(r.expected, s.Base)
		size := s.Size.Load()
		whole, err := r.checkSegment(s, last)
		if err != nil {
			return nil, err
		}
		if whole {
			continue
		}
		if !last {
			r.log.dir.logger.Error("later segments go with what was cut", "log", r.log.id.String(), "segments", len(segments)-i-1,
				"bytes", r.total(segments[i+1:]), "from", segments[i+1].Base, "cut", size-s.Size.Load())
		}
		return segments[:i+1], r.log.discard(segments[i+1:], r.cfg.FileDeleteDelayMs)
	}
	return segments, nil
}

// lost tells whether records are missing that should follow. Compaction leaves gaps too, but what it writes is durable and ends where
// the next segment begins; so past the recovery point a gap between segments is the crash's.
func (r *loader) lost() bool { return !r.log.gaps() || r.expected >= r.from.recoveryPoint }

func (r *loader) total(segments []*segment.Segment) (bytes int64) {
	for _, s := range segments {
		bytes += s.Size.Load()
	}
	return bytes
}

// rebuildIndex makes the indexes again from the batches' headers.
func (r *loader) rebuildIndex(s *segment.Segment) error {
	r.log.dir.logger.Warn("indexes are missing or damaged and made again", "segment", s.Path(segment.DataSuffix))
	return s.RebuildIndex(int64(r.cfg.IndexIntervalBytes), s != r.log.active(), r.buf)
}

// checkSegment checks the batches past the recovery point. It returns false when it had to cut.
func (r *loader) checkSegment(s *segment.Segment, last bool) (whole bool, err error) {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return false, err
	}
	defer f.Release()
	start, entry, err := r.trustedEntry(s, f)
	if err != nil {
		return false, err
	}
	if last && start.At > 0 {
		if done, err := r.nothingNew(s, f, start); done || err != nil {
			return done, err
		}
	}
	r.expected = max(r.expected, start.Base)
	if err := s.OpenBooks(start, entry); err != nil {
		return false, err
	}
	for w := segment.Walk(f, start.At, s.Size.Load(), r.buf); ; {
		err := r.checkNext(s, &w)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil && !errors.Is(err, segment.ErrFrame) && !errors.Is(err, batch.ErrCorrupt) {
			return false, err
		}
		if err != nil {
			return r.broken(s, f, w.At, last, err)
		}
	}
	s.AllNoted()
	if r.expected < r.from.recoveryPoint && (last || !r.log.gaps()) {
		return r.broken(s, f, s.Size.Load(), last, errMissing)
	}
	s.Next.Store(r.expected)
	return true, nil
}

// errMissing: there is nothing where records should be.
var errMissing = errors.New("records are missing")

// nothingNew walks from an index entry to the recovery point and tells whether the segment ends there, as it does
// after a clean stop. Then nothing else need be looked at until the log is used.
func (r *loader) nothingNew(s *segment.Segment, f *segment.Handle, start segment.Place) (bool, error) {
	small := segment.TakeBlock()
	defer segment.PutBlock(small)
	next := start.Base
	for w := segment.Walk(f, start.At, s.Size.Load(), small[:]); next < r.from.recoveryPoint; {
		h, _, err := w.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, segment.ErrFrame) {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		next = h.NextOffset()
		if next == r.from.recoveryPoint && w.At == w.Limit {
			s.Next.Store(next)
			r.expected = next
			return true, nil
		}
	}
	return false, nil
}

// trustedEntry finds where to begin in a segment: at the batch of the last index entry below the recovery point, or at
// the beginning (entry -1).
func (r *loader) trustedEntry(s *segment.Segment, f *segment.Handle) (start segment.Place, entry int64, err error) {
	start = segment.Place{Base: s.Base}
	if r.from.recoveryPoint <= s.Base {
		return start, -1, nil
	}
	if r.log.dir.unclean {
		if err := s.Trim(r.from.recoveryPoint); err != nil {
			return start, -1, err
		}
	}
	start, entry, err = s.EntryBelow(r.from.recoveryPoint, f)
	if errors.Is(err, segment.ErrAstray) {
		r.log.dir.logger.Warn("offset index is wrong and made again", "file", s.Path(segment.IndexSuffix))
		return segment.Place{Base: s.Base}, -1, nil
	}
	return start, entry, err
}

// checkNext takes one batch into the books.
func (r *loader) checkNext(s *segment.Segment, w *segment.Walker) error {
	h, at, err := w.Next()
	if err != nil {
		return err
	}
	if h.BaseOffset() < r.expected || (h.BaseOffset() > r.expected && !r.log.gaps()) {
		w.At = at
		return fmt.Errorf("%w: offset %d, %d expected", segment.ErrFrame, h.BaseOffset(), r.expected)
	}
	if h.NextOffset() > r.from.recoveryPoint {
		next, size := h.NextOffset(), h.Size()
		b, err := w.Verify(at, size)
		if err != nil {
			w.At = at
			return err
		}
		h = b
		r.newEpochs = r.log.epochs.Assign(h.LeaderEpoch(), h.BaseOffset()) || r.newEpochs
		if err := r.applyChecked(s, h, at, size); err != nil {
			return err
		}
		r.expected = next
	} else {
		r.expected = h.NextOffset()
	}
	s.Note(h, at, int64(r.cfg.IndexIntervalBytes))
	return nil
}

func (r *loader) applyChecked(s *segment.Segment, b batch.Batch, at, size int64) error {
	if b.BaseOffset() < r.log.producers.End {
		return nil
	}
	if int64(len(b)) < size {
		return r.log.applyFrom(s, b, at)
	}
	return r.log.apply(s, b)
}

// broken deals with bytes at a position that are not the batch that should follow. Past the recovery point they are what
// a crash leaves, and are cut. Below it they had been durable: then nothing is destroyed, and the log stops there.
func (r *loader) broken(s *segment.Segment, f *segment.Handle, at int64, last bool, cause error) (whole bool, err error) {
	if r.expected < r.from.recoveryPoint {
		r.log.damaged(r.expected, cause)
		if last {
			s.Size.Store(at)
			s.Next.Store(r.from.recoveryPoint)
		}
		r.expected = max(r.expected, s.Next.Load())
		return true, nil
	}
	r.cutLine(s, at, s.Size.Load()-at, cause)
	if err := f.Truncate(at); err != nil {
		return false, fmt.Errorf("cut %s at %d: %w", s.Path(segment.DataSuffix), at, err)
	}
	// The cut must be durable before anything is written behind it: were it lost, the junk would be back, in the midst.
	s.Unsynced.Store(true)
	s.Size.Store(at)
	s.Next.Store(r.expected)
	return false, nil
}

// cutLine says what was cut.
func (r *loader) cutLine(s *segment.Segment, at, bytes int64, cause error) {
	r.log.dir.logger.Warn("cut what a crash left unfinished", "log", r.log.id.String(), "file", s.Path(segment.DataSuffix),
		"position", at, "offset", r.expected, "bytes", bytes, "reason", cause)
}

// finish sets the log's positions. Everything counts as not flushed that lies past the recovery point.
func (r *loader) finish(segments []*segment.Segment) error {
	l := r.log
	for _, at := range r.snapshots {
		if at > r.expected {
			if err := l.dir.fs.Remove(l.path + "/" + segment.Name(at, segment.SnapshotSuffix)); err != nil {
				return err
			}
		}
	}
	l.segments.Store(&segments)
	active := segments[len(segments)-1]
	if r.from.start > r.expected { // the start had moved on, and then the end was lost
		l.dir.logger.Warn("log ends before its start and begins anew there", "log", l.id.String(), "end", r.expected, "start", r.from.start)
		return l.restart(r.from.start)
	}
	atEnd, atStart := l.epochs.CutEnd(r.expected), l.epochs.CutStart(r.from.start)
	if atEnd || atStart || r.newEpochs {
		switch err := l.storeEpochs(); {
		case errors.Is(err, ErrNoSpace): // they were read from the batches, and will be again
			l.epochsUnstored = true
		case err != nil:
			return err
		}
	}
	p := &l.mu.progress
	p.Start, p.End = r.from.start, r.expected
	p.HighWatermark = min(max(r.from.highWatermark, p.Start), p.End)
	p.Flushed = min(max(r.from.recoveryPoint, p.Start), p.End)
	l.mu.end = spot{p.End, active, active.Size.Load()}
	l.mu.flushed, l.mu.committed = spot{offset: -1}, spot{offset: -1}
	if p.Flushed == p.End {
		l.mu.flushed = l.mu.end
	}
	if p.HighWatermark == p.End {
		l.mu.committed = l.mu.end
	}
	l.mu.transactions.Committed(p.HighWatermark)
	l.stabilise()
	l.recoveryPoint.Store(p.Flushed)
	for _, s := range segments {
		if s.Next.Load() > p.Flushed {
			s.Unsynced.Store(true)
		}
		if err := s.Shut(false); err != nil {
			return err
		}
	}
	return nil
}
