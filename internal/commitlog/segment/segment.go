package segment

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
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
	DataSuffix     = ".log"
	IndexSuffix    = ".index"
	TimeSuffix     = ".timeindex"
	AbortedSuffix  = ".txnindex"
	SnapshotSuffix = ".snapshot"
	DeletedSuffix  = ".deleted"
)

// Suffixes after those, of the files of a segment that is to take the place of others.
const (
	CleanedSuffix = ".cleaned" // being written: worth nothing
	SwapSuffix    = ".swap"    // complete and durable: a start that finds the .log so finishes what was begun
)

// TempSuffix is what a file's name ends in that is not what it is to be yet: it is worth nothing.
const TempSuffix = ".tmp"

// MaxTimestamp is the largest timestamp of a segment, and the last offset of the first batch that has it.
type MaxTimestamp struct{ Ms, Offset int64 }

// Host is the log that a segment belongs to, as far as a segment knows it.
type Host interface {
	// Directory is where the segment's files are.
	Directory() string
	// Gaps tells whether offsets may be missing between batches, as compaction leaves them.
	Gaps() bool
	// NamesChanged: the log's directory is to be flushed before anything in a new file counts.
	NamesChanged()
	// Damage: what lies at offset is not what was written. Nothing from there on may be served.
	Damage(offset int64, cause error)
	// Astray: the segment's offset index is wrong, and is to be made again.
	Astray(s *Segment)
	// Tolerate takes note of an error in writing what can be written later.
	Tolerate(err error)
}

// Limits say when a segment is full.
type Limits struct {
	Bytes, IndexBytes int32
	Ms                int64 // age of the first batch
}

// Segment is a stretch of a log: a file of batches with its indexes. Only the last one of a log grows.
type Segment struct {
	Host  Host
	files *Files
	Base  int64

	Size          atomic.Int64 // valid bytes
	Next          atomic.Int64 // offset after the last record
	ModifiedMs    atomic.Int64 // when it was last written to, as far as known
	Unsynced      atomic.Bool  // has bytes that no flush has covered
	IndexUnsynced atomic.Bool
	Suspect       atomic.Bool // the offset index led astray: to be made again
	stage         atomic.Pointer[string]
	firstTime     atomic.Pointer[int64] // see FirstTimestamp

	Data    File
	offsets index
	times   index
	aborted index

	mu struct { // short
		sync.Mutex
		newest MaxTimestamp
		known  bool
	}

	// Guarded by the append slot. Not ready after a start, until the first append looks them up.
	Ready      bool
	sinceEntry int64 // bytes since the last index entry
	lastTimeMs int64 // of the last time index entry, -1 without
	firstMs    int64 // largest timestamp of the first batch, -1 without
	createdMs  int64
	jitterMs   int64
}

// New has no file yet.
func New(h Host, files *Files, base int64) *Segment {
	s := &Segment{Host: h, files: files, Base: base, lastTimeMs: -1, firstMs: -1}
	s.Next.Store(base)
	s.Data.seg, s.Data.suffix = s, DataSuffix
	s.offsets.seg, s.offsets.suffix, s.offsets.width = s, IndexSuffix, offsetEntryBytes
	s.times.seg, s.times.suffix, s.times.width = s, TimeSuffix, timeEntryBytes
	s.aborted.seg, s.aborted.suffix, s.aborted.width = s, AbortedSuffix, abortedBytes
	s.mu.newest = MaxTimestamp{-1, base}
	return s
}

// Name is the name of a segment's file.
func Name(base int64, suffix string) string { return fmt.Sprintf("%020d%s", base, suffix) }

// ParseName returns the offset in a file's name that has the suffix.
func ParseName(name, suffix string) (base int64, ok bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseInt(digits, 10, 64)
	return base, err == nil && base >= 0
}

// Path of one of the segment's files.
func (s *Segment) Path(suffix string) string {
	name := s.Host.Directory() + "/" + Name(s.Base, suffix)
	if stage := s.stage.Load(); stage != nil {
		name += *stage
	}
	return name
}

// Create makes the .log file of a new segment. The directory's entry is durable after the next flush.
func (s *Segment) Create(nowMs, jitterMs, preallocate int64) error {
	if preallocate > 0 {
		if err := s.keepSpace(preallocate); err != nil {
			return err
		}
	} else {
		f, err := s.Data.Acquire(disk.New)
		if err != nil {
			return err
		}
		if err = f.Release(); err != nil {
			return errors.Join(fmt.Errorf("make %s: %w", s.Path(DataSuffix), err), s.Data.Shut(true),
				s.files.fs.Remove(s.Path(DataSuffix)))
		}
	}
	s.Host.NamesChanged()
	s.createdMs, s.jitterMs = nowMs, jitterMs
	s.ModifiedMs.Store(s.createdMs)
	s.mu.known, s.Ready = true, true
	return nil
}

// keepSpace makes the .log file with so many bytes kept for it. It gets its name last: where the disk has no room the log goes
// on in the segment before, and a crash must not bring back a file that was given up in the midst of what was written there. For
// the same reason nothing can fail once it has its name: who writes opens it.
func (s *Segment) keepSpace(bytes int64) error {
	path, disks := s.Path(DataSuffix), s.files.fs
	temp := path + TempSuffix
	if _, err := disks.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make %s: %w", path, cmp.Or(err, fs.ErrExist))
	}
	f, err := disks.Open(temp, disk.Create)
	if err != nil {
		return fmt.Errorf("make %s: %w", path, err)
	}
	if err = errors.Join(f.Preallocate(0, bytes), f.Close()); err == nil {
		err = disks.Rename(temp, path)
	}
	if err != nil {
		return fmt.Errorf("make %s: %w", path, errors.Join(err, disks.Remove(temp)))
	}
	return nil
}

// Found takes over the files of a segment that was there: sizes are those of all files of the log, by name.
func (s *Segment) Found(sizes map[string]int64, nowMs, modifiedMs, jitterMs int64) {
	s.Size.Store(sizes[Name(s.Base, DataSuffix)])
	s.ModifiedMs.Store(modifiedMs)
	s.createdMs, s.jitterMs = nowMs, jitterMs
	for _, x := range []*index{&s.offsets, &s.times, &s.aborted} {
		size, ok := sizes[Name(s.Base, x.suffix)]
		x.exists, x.stored, x.ragged = ok, size/x.width, size%x.width != 0
	}
}

// Note keeps the books of a batch that lies at a position: the largest timestamp and, where due, an index entry.
// The append slot is held.
func (s *Segment) Note(h batch.Batch, at, interval int64) {
	last := h.LastOffset()
	s.mu.Lock()
	if ms := h.MaxTimestamp(); ms > s.mu.newest.Ms && h.Count() > 0 {
		s.mu.newest = MaxTimestamp{ms, last}
	}
	newest := s.mu.newest
	s.mu.Unlock()
	if at == 0 {
		s.firstMs = h.MaxTimestamp()
	}
	if s.sinceEntry > interval {
		s.offsets.add(offsetEntry(int32(last-s.Base), int32(at)))
		s.noteTime(newest)
		s.sinceEntry = 0
	}
	s.sinceEntry += h.Size()
}

func (s *Segment) noteTime(t MaxTimestamp) {
	if t.Ms > s.lastTimeMs {
		s.times.add(timeEntry(t.Ms, int32(t.Offset-s.Base)))
		s.lastTimeMs = t.Ms
	}
}

// Fits tells whether a batch may still go into the segment, by size, age, index space and offset range. The slot is held.
func (s *Segment) Fits(b batch.Batch, nowMs int64, limits Limits) bool {
	size := s.Size.Load()
	if size == 0 {
		return true
	}
	age := nowMs - s.createdMs
	if s.firstMs >= 0 {
		age = b.MaxTimestamp() - s.firstMs
	}
	return size+int64(len(b)) <= int64(limits.Bytes) &&
		age <= limits.Ms-s.jitterMs &&
		s.offsets.count() < int64(limits.IndexBytes)/offsetEntryBytes &&
		s.times.count() < int64(limits.IndexBytes)/timeEntryBytes-1 &&
		b.LastOffset()-s.Base <= math.MaxInt32
}

// Newest returns the largest timestamp in the segment, -1 when no batch has one.
func (s *Segment) Newest() (MaxTimestamp, error) {
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
	if !s.mu.known || t.Ms > s.mu.newest.Ms {
		s.mu.newest, s.mu.known = t, true
	}
	return s.mu.newest, nil
}

// findNewest looks at the last time index entry and at the batches after it: none, or one index interval of them.
func (s *Segment) findNewest() (MaxTimestamp, error) {
	t := MaxTimestamp{-1, s.Base}
	n, e, err := s.times.last()
	if err != nil {
		return t, err
	}
	if n >= 0 {
		t = MaxTimestamp{entryTime(e[:]), s.Base + entryTimeOffset(e[:])}
	}
	// An offset index entry goes with a time index entry where time has moved on, so only what lies after the last
	// of them can be later.
	limit := s.Size.Load()
	n, e, err = s.offsets.last()
	if err != nil {
		return t, err
	}
	at := int64(0)
	if p := entryPosition(e[:]); n >= 0 && p < limit {
		at = p
	}
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return t, err
	}
	defer f.Release()
	buf := TakeBlock()
	defer PutBlock(buf)
	for w := Walk(f, at, limit, buf[:]); ; {
		h, _, err := w.Next()
		if errors.Is(err, io.EOF) || errors.Is(err, ErrFrame) { // what the header cannot say is not served either
			return t, nil
		}
		if err != nil {
			return t, err
		}
		if h.MaxTimestamp() > t.Ms && h.Count() > 0 {
			t = MaxTimestamp{h.MaxTimestamp(), h.LastOffset()}
		}
	}
}

// Place is where a batch begins.
type Place struct {
	At   int64 // position
	Base int64 // its first offset; -1 at the limit; with errFrame the offset where the damage begins
}

// Locate finds the first batch below limit that ends at offset or after it. At the limit when there is none.
// errFrame with the place of the damage when that is in the way.
func (s *Segment) Locate(offset, limit int64) (Place, error) {
	return s.seek(limit, entryOffset, offset-s.Base, func(h batch.Batch, _ int64) bool { return h.LastOffset() >= offset })
}

// Boundary finds the last beginning of a batch, or the limit, that is not beyond target.
func (s *Segment) Boundary(target, limit int64) (Place, error) {
	if target >= limit {
		return Place{limit, -1}, nil
	}
	return s.seek(limit, entryPosition, target, func(h batch.Batch, at int64) bool { return at+h.Size() > target })
}

// seek walks from the index entry below target to the first batch that stop accepts.
func (s *Segment) seek(limit int64, key func([]byte) int64, target int64, stop func(batch.Batch, int64) bool) (Place, error) {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return Place{}, err
	}
	defer f.Release()
	start, wantLast := int64(0), int64(-1)
	if !s.Suspect.Load() {
		n, e, err := s.offsets.floor(key, target)
		if err != nil {
			return Place{}, err
		}
		if p := entryPosition(e[:]); n >= 0 && p < limit {
			start, wantLast = p, s.Base+entryOffset(e[:])
		}
	}
	p, err := s.walkTo(f, start, limit, wantLast, stop)
	if errors.Is(err, ErrAstray) {
		s.Suspect.Store(true)
		s.Host.Astray(s)
		return s.walkTo(f, 0, limit, -1, stop)
	}
	return p, err
}

// ErrAstray: an index entry does not lead to the batch that it names.
var ErrAstray = errors.New("index entry leads astray")

// walkTo walks from start to the first batch that stop accepts. The batch at start must end at wantLast unless that is -1.
func (s *Segment) walkTo(f io.ReaderAt, start, limit, wantLast int64, stop func(batch.Batch, int64) bool) (Place, error) {
	buf := TakeBlock()
	defer PutBlock(buf)
	good := s.Base
	for w := Walk(f, start, limit, buf[:]); ; {
		h, at, err := w.Next()
		if wantLast >= 0 && at == start && (errors.Is(err, ErrFrame) || (err == nil && h.LastOffset() != wantLast)) {
			return Place{}, ErrAstray
		}
		if errors.Is(err, io.EOF) {
			return Place{at, -1}, nil
		}
		if err == nil {
			err = s.belongs(h, good, at > start)
		}
		if err != nil {
			return Place{at, good}, err
		}
		if stop(h, at) {
			return Place{at, h.BaseOffset()}, nil
		}
		good = h.NextOffset()
	}
}

// belongs checks what a checksum does not cover: that the batch's offsets lie in the segment and from after on; follows says
// that the batch before ended at after, so that only compaction leaves a gap.
func (s *Segment) belongs(h batch.Batch, after int64, follows bool) error {
	next := s.Next.Load()
	if h.BaseOffset() < after || (next > s.Base && h.LastOffset() >= next) || // next is not known yet during recovery
		(follows && h.BaseOffset() > after && !s.Host.Gaps()) {
		return fmt.Errorf("%w: offsets %d to %d, expected from %d to below %d", ErrFrame, h.BaseOffset(), h.LastOffset(), after, next)
	}
	return nil
}

// Prepare looks up what appending needs to know of a segment that was there at the start.
func (s *Segment) Prepare() error {
	if _, err := s.Newest(); err != nil {
		return err
	}
	n, e, err := s.times.last()
	if err != nil {
		return err
	}
	if n >= 0 {
		s.lastTimeMs = entryTime(e[:])
	}
	if n, e, err = s.offsets.last(); err != nil {
		return err
	}
	s.sinceEntry = s.Size.Load()
	if n >= 0 {
		s.sinceEntry -= entryPosition(e[:])
	}
	if s.Size.Load() > 0 {
		if s.firstMs, err = s.readFirstMs(); err != nil {
			return err
		}
	}
	s.Ready = true
	return nil
}

func (s *Segment) readFirstMs() (int64, error) {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return -1, err
	}
	defer f.Release()
	buf := TakeBlock()
	defer PutBlock(buf)
	w := Walk(f, 0, s.Size.Load(), buf[:])
	h, _, err := w.Next()
	if err != nil {
		return -1, err
	}
	return h.MaxTimestamp(), nil
}

// Seal completes the indexes, with an entry for the largest timestamp, and writes them.
func (s *Segment) Seal() error {
	if t, err := s.Newest(); err == nil && t.Ms >= 0 {
		s.noteTime(t)
	}
	return s.StoreIndexes()
}

// IndexEntries is how many batches the offset index names.
func (s *Segment) IndexEntries() int64 { return s.offsets.count() }

// Resting tells whether the segment has neither an open file nor a buffer.
func (s *Segment) Resting() bool {
	return !s.OpenFiles() && !s.offsets.buffered() && !s.times.buffered() && !s.aborted.buffered()
}

// OpenFiles tells whether any of the segment's files is open.
func (s *Segment) OpenFiles() bool {
	return s.Data.IsOpen() || s.offsets.IsOpen() || s.times.IsOpen() || s.aborted.IsOpen()
}

// StoreIndexes writes what waits in memory and makes the files that Kafka expects beside every segment.
func (s *Segment) StoreIndexes() error {
	return errors.Join(s.offsets.store(), s.times.store(), s.aborted.storeSome())
}

// StoreWaiting writes what waits in memory, if anything does, and makes no file for nothing.
func (s *Segment) StoreWaiting() error {
	return errors.Join(s.offsets.storeSome(), s.times.storeSome(), s.aborted.storeSome())
}

// Waiting tells whether index entries wait in memory.
func (s *Segment) Waiting() bool {
	return s.offsets.waiting() || s.times.waiting() || s.aborted.waiting()
}

// Forget drops the buffers of index entries that have been written.
func (s *Segment) Forget() {
	s.offsets.forget()
	s.times.forget()
	s.aborted.forget()
}

// IndexFiles are those of the indexes that exist.
func (s *Segment) IndexFiles() []*File {
	var files []*File
	for _, x := range []*index{&s.offsets, &s.times, &s.aborted} {
		if x.onDisk() {
			files = append(files, &x.File)
		}
	}
	return files
}

// Paths are those of the segment's files that exist.
func (s *Segment) Paths() []string {
	paths := []string{s.Path(DataSuffix)}
	for _, f := range s.IndexFiles() {
		paths = append(paths, f.Path())
	}
	return paths
}

// Shut closes the segment's files; with give, for good.
func (s *Segment) Shut(give bool) error {
	return errors.Join(s.Data.Shut(give), s.offsets.Shut(give), s.times.Shut(give), s.aborted.Shut(give))
}

// ErrFlush: a flush failed. What it was to make durable must not be used again.
var ErrFlush = errors.New("flush")

// Cut shortens the files of a segment and flushes the batches that stay. ErrFlush when that fails.
func (s *Segment) Cut(size, end int64) error {
	f, err := s.Data.Acquire(disk.Write)
	if err != nil {
		return err
	}
	if err = f.Truncate(size); err == nil {
		if err = f.SyncData(); err != nil {
			err = fmt.Errorf("%w %s: %w", ErrFlush, s.Path(DataSuffix), err)
		}
	}
	if err = errors.Join(err, f.Release()); err != nil {
		return err
	}
	s.Unsynced.Store(false)
	s.firstTime.Store(nil)
	s.Ready = false
	s.mu.Lock()
	s.mu.known = false
	s.mu.Unlock()
	n, _, err := s.offsets.floor(entryPosition, size-1)
	if err != nil {
		return err
	}
	if err := s.offsets.cut(n + 1); err != nil {
		return err
	}
	if n, _, err = s.times.floor(entryTimeOffset, end-1-s.Base); err != nil {
		return err
	}
	if err := s.times.cut(n + 1); err != nil {
		return err
	}
	if n, _, err = s.aborted.floor(entryAbortedLast, end-1); err != nil {
		return err
	}
	return s.aborted.cut(n + 1)
}

// Remove deletes the segment's files.
func (s *Segment) Remove() error {
	var errs []error
	for _, suffix := range []string{DataSuffix, IndexSuffix, TimeSuffix, AbortedSuffix} {
		errs = append(errs, s.files.fs.Remove(s.Path(suffix)))
	}
	return errors.Join(errs...)
}
