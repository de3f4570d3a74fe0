package commitlog

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// Suffixes of a segment's files, after the base offset in twenty digits. All are Kafka's.
const (
	dataSuffix     = ".log"
	indexSuffix    = ".index"
	timeSuffix     = ".timeindex"
	abortedSuffix  = ".txnindex"
	snapshotSuffix = ".snapshot"
	deletedSuffix  = ".deleted"
)

// timedOffset is the largest timestamp of a segment, and the last offset of the first batch that has it.
type timedOffset struct{ ms, offset int64 }

// segment is a stretch of a log: a file of batches with its indexes. Only the last one of a log grows.
type segment struct {
	log  *Log
	base int64

	size          atomic.Int64 // valid bytes
	next          atomic.Int64 // offset after the last record
	modifiedMs    atomic.Int64 // when it was last written to, as far as known
	unsynced      atomic.Bool  // has bytes that no flush has covered
	indexUnsynced atomic.Bool
	suspect       atomic.Bool // the offset index led astray: to be made again

	data    file
	offsets index
	times   index
	aborted index

	mu struct { // short
		sync.Mutex
		newest timedOffset
		known  bool
	}

	// Guarded by the append slot. Not ready after a start, until the first append looks them up.
	ready      bool
	sinceEntry int64 // bytes since the last index entry
	lastTimeMs int64 // of the last time index entry, -1 without
	firstMs    int64 // largest timestamp of the first batch, -1 without
	createdMs  int64
	jitterMs   int64
}

func newSegment(l *Log, base int64) *segment {
	s := &segment{log: l, base: base, lastTimeMs: -1, firstMs: -1}
	s.next.Store(base)
	s.data.seg, s.data.suffix = s, dataSuffix
	s.offsets.seg, s.offsets.suffix, s.offsets.width = s, indexSuffix, offsetEntryBytes
	s.times.seg, s.times.suffix, s.times.width = s, timeSuffix, timeEntryBytes
	s.aborted.seg, s.aborted.suffix, s.aborted.width = s, abortedSuffix, abortedBytes
	s.mu.newest = timedOffset{-1, base}
	return s
}

func segmentName(base int64, suffix string) string { return fmt.Sprintf("%020d%s", base, suffix) }

// parseSegmentName returns the offset in a file's name that has the suffix.
func parseSegmentName(name, suffix string) (base int64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseInt(digits, 10, 64)
	return base, err == nil && base >= 0
}

func (s *segment) path(suffix string) string {
	return s.log.path + "/" + segmentName(s.base, suffix)
}

// create makes the .log file of a new segment. The directory's entry is durable after the next flush.
func (s *segment) create(cfg *Config) error {
	f, err := s.data.acquire(disk.New)
	if err != nil {
		return err
	}
	if cfg.Preallocate {
		err = f.Preallocate(0, int64(cfg.SegmentBytes)+cfg.ReserveBytes)
	}
	if err = errors.Join(err, f.release()); err != nil {
		return errors.Join(fmt.Errorf("make %s: %w", s.path(dataSuffix), err), s.data.shut(true),
			s.log.dir.fs.Remove(s.path(dataSuffix)))
	}
	s.log.entriesDirty.Store(true)
	s.createdMs = s.log.dir.now().UnixMilli()
	s.modifiedMs.Store(s.createdMs)
	s.jitterMs = s.log.dir.jitter(min(cfg.SegmentJitterMs, cfg.SegmentMs))
	s.mu.known, s.ready = true, true
	return nil
}

// note keeps the books of a batch that lies at a position: the largest timestamp and, where due, an index entry.
// The append slot is held.
func (s *segment) note(h batch.Batch, at int64, cfg *Config) {
	last := h.LastOffset()
	s.mu.Lock()
	if ms := h.MaxTimestamp(); ms > s.mu.newest.ms {
		s.mu.newest = timedOffset{ms, last}
	}
	newest := s.mu.newest
	s.mu.Unlock()
	if at == 0 {
		s.firstMs = h.MaxTimestamp()
	}
	if s.sinceEntry > int64(cfg.IndexIntervalBytes) {
		s.offsets.add(offsetEntry(int32(last-s.base), int32(at)))
		s.noteTime(newest)
		s.sinceEntry = 0
	}
	s.sinceEntry += h.Size()
}

func (s *segment) noteTime(t timedOffset) {
	if t.ms > s.lastTimeMs {
		s.times.add(timeEntry(t.ms, int32(t.offset-s.base)))
		s.lastTimeMs = t.ms
	}
}

// fits tells whether a batch may still go into the segment, by size, age, index space and offset range. The slot is held.
func (s *segment) fits(b batch.Batch, nowMs int64, cfg *Config) bool {
	size := s.size.Load()
	if size == 0 {
		return true
	}
	age := nowMs - s.createdMs
	if s.firstMs >= 0 {
		age = b.MaxTimestamp() - s.firstMs
	}
	return size+int64(len(b)) <= int64(cfg.SegmentBytes) &&
		age <= cfg.SegmentMs-s.jitterMs &&
		s.offsets.count() < int64(cfg.IndexMaxBytes)/offsetEntryBytes &&
		s.times.count() < int64(cfg.IndexMaxBytes)/timeEntryBytes-1 &&
		b.LastOffset()-s.base <= math.MaxInt32
}

// newest returns the largest timestamp in the segment, -1 when no batch has one.
func (s *segment) newest() (timedOffset, error) {
	s.mu.Lock()
	t, known := s.mu.newest, s.mu.known
	s.mu.Unlock()
	if known {
		return t, nil
	}
	t, err := s.findNewest()
	if err != nil {
		return t, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.mu.known || t.ms > s.mu.newest.ms {
		s.mu.newest, s.mu.known = t, true
	}
	return s.mu.newest, nil
}

// findNewest looks at the last time index entry and at the batches after it: none, or one index interval of them.
func (s *segment) findNewest() (timedOffset, error) {
	t := timedOffset{-1, s.base}
	n, e, err := s.times.last()
	if err != nil {
		return t, err
	}
	if n >= 0 {
		t = timedOffset{entryTime(e[:]), s.base + entryTimeOffset(e[:])}
	}
	// An offset index entry goes with a time index entry where time has moved on, so only what lies after the last
	// of them can be later.
	limit := s.size.Load()
	n, e, err = s.offsets.last()
	if err != nil {
		return t, err
	}
	at := int64(0)
	if p := entryPosition(e[:]); n >= 0 && p < limit {
		at = p
	}
	f, err := s.data.acquire(disk.Write)
	if err != nil {
		return t, err
	}
	defer f.release()
	buf := takeBlock()
	defer putBlock(buf)
	for w := walk(f, at, limit, buf[:]); ; {
		h, _, err := w.next()
		if errors.Is(err, io.EOF) || errors.Is(err, errFrame) { // what the header cannot say is not served either
			return t, nil
		}
		if err != nil {
			return t, err
		}
		if h.MaxTimestamp() > t.ms {
			t = timedOffset{h.MaxTimestamp(), h.LastOffset()}
		}
	}
}

// place is where a batch begins.
type place struct {
	at   int64 // position
	base int64 // its first offset; -1 at the limit; with errFrame the offset where the damage begins
}

// locate finds the first batch below limit that ends at offset or after it. At the limit when there is none.
// errFrame with the place of the damage when that is in the way.
func (s *segment) locate(offset, limit int64) (place, error) {
	return s.seek(limit, entryOffset, offset-s.base, func(h batch.Batch, _ int64) bool { return h.LastOffset() >= offset })
}

// boundary finds the last beginning of a batch, or the limit, that is not beyond target.
func (s *segment) boundary(target, limit int64) (place, error) {
	if target >= limit {
		return place{limit, -1}, nil
	}
	return s.seek(limit, entryPosition, target, func(h batch.Batch, at int64) bool { return at+h.Size() > target })
}

// seek walks from the index entry below target to the first batch that stop accepts.
func (s *segment) seek(limit int64, key func([]byte) int64, target int64, stop func(batch.Batch, int64) bool) (place, error) {
	f, err := s.data.acquire(disk.Write)
	if err != nil {
		return place{}, err
	}
	defer f.release()
	start, wantLast := int64(0), int64(-1)
	if !s.suspect.Load() {
		n, e, err := s.offsets.floor(key, target)
		if err != nil {
			return place{}, err
		}
		if p := entryPosition(e[:]); n >= 0 && p < limit {
			start, wantLast = p, s.base+entryOffset(e[:])
		}
	}
	p, err := s.walkTo(f, start, limit, wantLast, stop)
	if errors.Is(err, errAstray) {
		s.suspect.Store(true)
		s.log.dir.logger.Warn("offset index is wrong and will be made again", "file", s.path(indexSuffix))
		s.log.dir.repairSoon()
		return s.walkTo(f, 0, limit, -1, stop)
	}
	return p, err
}

// errAstray: an index entry does not lead to the batch that it names.
var errAstray = errors.New("index entry leads astray")

// walkTo walks from start to the first batch that stop accepts. The batch at start must end at wantLast unless that is -1.
func (s *segment) walkTo(f io.ReaderAt, start, limit, wantLast int64, stop func(batch.Batch, int64) bool) (place, error) {
	buf := takeBlock()
	defer putBlock(buf)
	good := s.base
	for w := walk(f, start, limit, buf[:]); ; {
		h, at, err := w.next()
		if wantLast >= 0 && at == start && (errors.Is(err, errFrame) || (err == nil && h.LastOffset() != wantLast)) {
			return place{}, errAstray
		}
		if errors.Is(err, io.EOF) {
			return place{at, -1}, nil
		}
		if err == nil {
			err = s.belongs(h, good, at > start)
		}
		if err != nil {
			return place{at, good}, err
		}
		if stop(h, at) {
			return place{at, h.BaseOffset()}, nil
		}
		good = h.NextOffset()
	}
}

// belongs checks what a checksum does not cover: that the batch's offsets lie in the segment and from after on; follows says
// that the batch before ended at after, so that only compaction leaves a gap.
func (s *segment) belongs(h batch.Batch, after int64, follows bool) error {
	next := s.next.Load()
	if h.BaseOffset() < after || (next > s.base && h.LastOffset() >= next) || // next is not known yet during recovery
		(follows && h.BaseOffset() > after && !s.log.gaps()) {
		return fmt.Errorf("%w: offsets %d to %d, expected from %d to below %d", errFrame, h.BaseOffset(), h.LastOffset(), after, next)
	}
	return nil
}

// openFiles tells whether any of the segment's files is open.
func (s *segment) openFiles() bool {
	return s.data.isOpen() || s.offsets.isOpen() || s.times.isOpen() || s.aborted.isOpen()
}

// storeIndexes writes what waits in memory and makes the files that Kafka expects beside every segment.
func (s *segment) storeIndexes() error {
	return errors.Join(s.offsets.store(), s.times.store(), s.aborted.storeSome())
}

// shut closes the segment's files; with give, for good.
func (s *segment) shut(give bool) error {
	return errors.Join(s.data.shut(give), s.offsets.shut(give), s.times.shut(give), s.aborted.shut(give))
}
