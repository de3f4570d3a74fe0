package commitlog

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"barnabas/internal/commitlog/checkpoint"
	"barnabas/internal/commitlog/epoch"
	"barnabas/internal/commitlog/gather"
	"barnabas/internal/commitlog/producer"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/uuid"
)

// Origin says who made a batch, and with that how much of it is checked.
type Origin int8

const (
	Client      Origin = iota // everything is checked
	Coordinator               // written by this broker: no sequence numbers, control batches allowed
)

// AppendOptions go with one Append.
type AppendOptions struct {
	LeaderEpoch int32
	NowMs       int64 // append time, also for rolling by time
	Origin      Origin
}

// Appended says where a batch lies.
type Appended struct {
	First, Next  int64 // offsets: of the first record, and the one after the last
	AppendTimeMs int64 // with LogAppendTime; otherwise -1
	Start        int64 // log start at that time
	LeaderEpoch  int32 // in which it was appended, or found to be a duplicate
	Duplicate    bool  // nothing was written: First and Next are of the batch that was
}

// Progress is one consistent view of how far a log has come.
// Start <= LastStable <= HighWatermark <= End, and Flushed <= End.
type Progress struct {
	Start         int64 // the first offset that may be read
	HighWatermark int64 // everything below is committed; set by AdvanceHighWatermark
	LastStable    int64 // everything below is committed and not in an open transaction
	Flushed       int64 // everything below is durable
	End           int64 // the offset that the next record gets
}

// TimedOffset answers a search by time.
type TimedOffset = segment.TimedRecord

// ProducerState is what the log knows of one producer.
type ProducerState struct {
	ID               int64
	Epoch            int16
	LastSequence     int32 // -1: none
	LastOffset       int64
	LastTimestampMs  int64
	CoordinatorEpoch int32 // -1: none
	TransactionStart int64 // first offset of the open transaction; -1: none
}

// AbortedTransaction is what a read_committed reader has to skip.
type AbortedTransaction = segment.AbortedTransaction

// SegmentInfo describes a segment's files.
type SegmentInfo struct {
	Base, Next int64  // offsets; Next is the log's end for the last one
	Path       string // of the .log file
	Size       int64
	Active     bool
}

// maxRecent is how many of the last batches a busy log knows the places of, so that whoever reads at its end needs no search.
const maxRecent = 64

// maxHints is how many readers that are not at the end continue where they stopped without a search.
const maxHints = 8

// spot is a place in a log that is known by heart.
type spot struct {
	offset int64 // a batch begins with it
	seg    *segment.Segment
	at     int64
}

// warm is what a log in use remembers to save searches; an idle one has none.
type warm struct {
	recent  [maxRecent]spot // a ring of the batches appended last, in the active segment, oldest at first
	first   int
	count   int
	hints   [maxHints]spot
	oldHint int
}

func (w *warm) add(s spot) {
	if w.count > 0 && w.recent[w.first].seg != s.seg {
		w.first, w.count = 0, 0
	}
	if w.count < maxRecent {
		w.recent[(w.first+w.count)%maxRecent] = s
		w.count++
		return
	}
	w.recent[w.first] = s
	w.first = (w.first + 1) % maxRecent
}

// floor returns the recent batch that holds offset, which is below the log's end.
func (w *warm) floor(offset int64) (spot, bool) {
	if w.count == 0 || w.recent[w.first].offset > offset {
		return spot{}, false
	}
	lo, hi := 0, w.count
	for hi-lo > 1 {
		if mid := (lo + hi) / 2; w.recent[(w.first+mid)%maxRecent].offset <= offset {
			lo = mid
		} else {
			hi = mid
		}
	}
	return w.recent[(w.first+lo)%maxRecent], true
}

func (w *warm) hint(offset int64) (spot, bool) {
	for _, h := range w.hints {
		if h.seg != nil && h.offset == offset {
			return h, true
		}
	}
	return spot{}, false
}

// Log is one partition in one directory. Make it with Dir.Log.
type Log struct {
	dir  *Dir
	id   TopicPartition
	path string // of its directory, which exists from the first append on

	// slot holds one token: who has put it there may change the log. It is held across writes, so it is a channel.
	slot chan struct{}
	// list is held by who takes segments out of the list of segments, or puts others in their place; before slot. So
	// compaction, whose exchange of segments takes flushes, need not hold up appends.
	list chan struct{}

	config   atomic.Pointer[Config]
	segments atomic.Pointer[[]*segment.Segment] // ascending; replaced, never changed; empty before the first append
	epochs   epoch.History

	scheduled    atomic.Bool // waits for the flusher
	patient      atomic.Bool // waits for others before that
	gathered     gather.Mark // the flusher's
	lazy         atomic.Bool // waits for flush.ms
	closed       atomic.Bool
	removed      atomic.Bool  // deleted with its topic
	cleaned      atomic.Bool  // has been compacted once, whatever cleanup.policy says now
	cleanedTo    atomic.Int64 // below, every key has one record
	uncleanable  atomic.Bool  // compaction met what it could not read
	adopted      atomic.Bool  // the topic id became known after the files were made
	lowered      atomic.Int64 // how often the recovery point was moved back
	entriesDirty atomic.Bool  // names in path changed since its directory was flushed
	parentDirty  atomic.Bool  // path itself is new
	stateDirty   atomic.Bool  // the small files in path were written and not flushed

	mu struct { // short: guards copies of a few words, never held during I/O or a wait
		sync.Mutex
		topicID      uuid.UUID
		progress     Progress
		end          spot  // where the bytes below End end; seg is nil while there is none
		flushed      spot  // the same for Flushed and
		committed    spot  // for HighWatermark, where known
		damage       int64 // nothing from here on is served; -1 without
		generation   int   // counts truncations, so that a flush that began before one is not believed
		transactions producer.Transactions
		replaying    bool // transactions does not hold all of them
		warm         *warm
	}

	// Guarded by slot.
	reign          reign
	cut            *cut // nil unless a truncation is not complete
	epochsUnstored bool // the file lacks epochs, of which there is no record yet
	producers      producer.Table
	snapshotAt     int64   // offset of the newest producer snapshot, -1 without
	snapshotSure   int64   // offset of a durable snapshot that a recovery would use, -1 where none is known
	loose          []int64 // snapshots that go when a newer one is durable
	// snapshots counts those written, snapshotsFlushed up to which of them is durable.
	snapshots, snapshotsFlushed int64

	tombstonesFrom atomic.Int64 // see RetainTombstonesFrom
	lastCompaction atomic.Pointer[Compaction]

	recoveryPoint atomic.Int64 // what the recovery point checkpoint says: written by the one who writes that file
}

var noSegments = []*segment.Segment{}

func newLog(d *Dir, tp TopicPartition, cfg Config) *Log {
	l := &Log{dir: d, id: tp, path: d.join(tp.String()), slot: make(chan struct{}, 1), list: make(chan struct{}, 1)}
	l.config.Store(&cfg)
	l.segments.Store(&noSegments)
	l.mu.damage = -1
	l.tombstonesFrom.Store(math.MaxInt64)
	l.producers, l.snapshotAt, l.snapshotSure, l.reign.epoch = producer.NewTable(&d.producerCount), -1, -1, -1
	return l
}

// ID names the log.
func (l *Log) ID() TopicPartition { return l.id }

// Dir is the directory that the log is in.
func (l *Log) Dir() *Dir { return l.dir }

// TopicID is the topic's id, all zero when it is not known.
func (l *Log) TopicID() uuid.UUID {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.topicID
}

// Config returns the settings in force.
func (l *Log) Config() Config { return *l.config.Load() }

// Reconfigure changes the settings from the next append or housekeeping on. What a log that becomes durable holds
// unflushed is flushed.
func (l *Log) Reconfigure(cfg Config) {
	l.config.Store(&cfg)
	if p := l.Progress(); cfg.FlushBeforeAck && p.Flushed < p.End {
		l.dir.flusher.schedule(l)
	}
}

// Progress returns one consistent view. It never waits for an append.
func (l *Log) Progress() Progress {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.progress
}

// Damaged tells whether the log has lost what it had promised to keep: from the offset at on, bytes were found that are
// not what was written, or the records are missing. The log serves what lies before, takes no appends, and must not lead. Truncate
// and Restart repair it, from peers; so does retention, once it has passed the place. Alone, the operator decides: without
// the log's line in recovery-point-offset-checkpoint the next start cuts it there.
func (l *Log) Damaged() (at int64, damaged bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.damage, l.mu.damage >= 0
}

// damaged notes that nothing from offset on may be served.
func (l *Log) damaged(offset int64, cause error) {
	l.mu.Lock()
	known := l.mu.damage >= 0 && l.mu.damage <= offset
	if !known {
		l.mu.damage = offset
	}
	l.mu.Unlock()
	if !known {
		l.dir.logger.Error("log is damaged: nothing from this offset on is served", "log", l.id.String(), "path", l.path, "offset", offset, "error", cause)
	}
}

// repaired forgets damage that lies outside of start..end.
func (l *Log) repaired(start, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.damage >= 0 && (l.mu.damage < start || l.mu.damage >= end) {
		l.mu.damage = -1
		if l.uncleanable.Swap(false) {
			l.dir.options.Cleaner.stats.Uncleanable.Add(-1)
		}
	}
}

// take takes the append slot. It waits for an append under way.
func (l *Log) take() error {
	if err := l.usable(); err != nil {
		return err
	}
	l.slot <- struct{}{}
	if err := l.usable(); err != nil {
		l.give()
		return err
	}
	return nil
}

// takeGround is take for who may write the log's first file. Until a deleted log's of the same name are gone it waits, and without
// the slot: this log may be removed meanwhile, and who carries that out needs it.
func (l *Log) takeGround() error {
	if len(*l.segments.Load()) == 0 {
		l.dir.burials.Await(l.id)
	}
	return l.take()
}

// takeList takes the list of segments and the slot, to take segments out of it.
func (l *Log) takeList() error {
	if err := l.usable(); err != nil {
		return err
	}
	l.list <- struct{}{}
	err := l.take()
	if err != nil {
		<-l.list
	}
	return err
}

func (l *Log) giveList() {
	l.give()
	<-l.list
}

// tryTake is take for housekeeping, which does not wait.
func (l *Log) tryTake() bool {
	if l.usable() != nil {
		return false
	}
	select {
	case l.slot <- struct{}{}:
		return true
	default:
		return false
	}
}

func (l *Log) give() { <-l.slot }

func (l *Log) usable() error {
	if err := l.dir.Offline(); err != nil {
		return err
	}
	if l.closed.Load() {
		return fmt.Errorf("%s: %w", l.id, ErrClosed)
	}
	return nil
}

// active is the segment that grows, nil before the first append.
func (l *Log) active() *segment.Segment {
	segments := *l.segments.Load()
	if len(segments) == 0 {
		return nil
	}
	return segments[len(segments)-1]
}

// gaps tells whether offsets may be missing between batches: compaction takes records away.
func (l *Log) gaps() bool { return l.cleaned.Load() || l.config.Load().Compact }

// AdvanceHighWatermark says that everything below hw is committed. It never moves back, nor past the end.
func (l *Log) AdvanceHighWatermark(hw int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.mu.progress
	hw = min(hw, p.End)
	if hw <= p.HighWatermark {
		return
	}
	p.HighWatermark = hw
	switch hw {
	case p.End:
		l.mu.committed = l.mu.end
	case l.mu.flushed.offset:
		l.mu.committed = l.mu.flushed
	default:
		l.mu.committed = spot{}
		if w := l.mu.warm; w != nil {
			if s, ok := w.floor(hw); ok && s.offset == hw {
				l.mu.committed = s
			}
		}
	}
	l.mu.transactions.Committed(hw)
	l.stabilise()
}

// stabilise works out the last stable offset. mu is held.
func (l *Log) stabilise() {
	p := &l.mu.progress
	if l.mu.replaying { // which transactions are open is being found out: what was stable before still is
		p.LastStable = min(p.LastStable, p.HighWatermark)
		return
	}
	p.LastStable = p.HighWatermark
	if first, ok := l.mu.transactions.FirstUnstable(); ok {
		p.LastStable = min(first, p.HighWatermark)
	}
}

// Flush returns when everything appended before the call is durable.
// Errors: ErrOffline; the context's.
func (l *Log) Flush(ctx context.Context) error {
	for end := l.Progress().End; ; {
		if err := l.usable(); err != nil {
			return fmt.Errorf("flush: %w", err)
		}
		if err := l.dir.flusher.flush(ctx, l); err != nil {
			return fmt.Errorf("flush %s: %w", l.id, err)
		}
		// A round that a truncation overtook is not believed; then another one is needed, for less.
		if p := l.Progress(); p.Flushed >= min(end, p.End) {
			return nil
		}
	}
}

// Size is the number of bytes in all segments, indexes not counted.
func (l *Log) Size() int64 {
	total := int64(0)
	for _, s := range *l.segments.Load() {
		total += s.Size.Load()
	}
	return total
}

// Segments lists the segments, oldest first.
func (l *Log) Segments() []SegmentInfo {
	segments := *l.segments.Load()
	infos := make([]SegmentInfo, 0, len(segments))
	for i, s := range segments {
		infos = append(infos, SegmentInfo{s.Base, s.Next.Load(), s.Path(segment.DataSuffix), s.Size.Load(), i == len(segments)-1})
	}
	return infos
}

// Producers lists the known producers, in no order. It waits for an append under way.
func (l *Log) Producers() ([]ProducerState, error) {
	if err := l.take(); err != nil {
		return nil, err
	}
	defer l.give()
	states := make([]ProducerState, 0, l.producers.Len())
	for p := range l.producers.All() {
		s := ProducerState{p.ID, p.Epoch, -1, -1, p.TimestampMs, p.CoordinatorEpoch, p.Transaction}
		if n := p.Newest(); n != nil {
			s.LastSequence, s.LastOffset = n.LastSequence, n.LastOffset
		}
		states = append(states, s)
	}
	return states, nil
}

// EpochEnd answers where a leader epoch ended in this log, as OffsetForLeaderEpoch asks (KIP-101): the largest known
// epoch that is not above the asked one, and where the next began; -1, -1 when the epoch is above all known.
func (l *Log) EpochEnd(epoch int32) (found int32, end int64) {
	return l.epochs.EndOf(epoch, l.Progress().End)
}

// EpochAt is the leader epoch of the record at offset, -1 when it is not known.
func (l *Log) EpochAt(offset int64) int32 { return l.epochs.At(offset) }

// LatestEpoch is the last leader epoch of the log, -1 when there is none.
func (l *Log) LatestEpoch() int32 { return l.epochs.Latest() }

// assignEpoch needs the slot.
func (l *Log) assignEpoch(epoch int32, start int64) error {
	if epoch == l.epochs.Latest() && !l.epochsUnstored { // every append but the first of a leader
		return nil
	}
	before := l.epochs.All()
	if !l.epochs.Assign(epoch, start) && !l.epochsUnstored {
		return nil
	}
	if err := l.storeEpochs(); err != nil {
		l.epochs.Replace(before)
		return err
	}
	return nil
}

// storeEpochs writes the epochs. Like the records that they describe they are durable after the next flush, and what
// is lost of them before that is read again from the batches. A log without files has nothing to write yet.
func (l *Log) storeEpochs() error {
	if len(*l.segments.Load()) == 0 {
		return nil
	}
	text := checkpoint.FormatEpochs(l.epochs.All())
	var err error
	if l.config.Load().ReserveBytes > 0 { // this file is part of the reserve: every start writes it
		err = l.failed("write "+epochFile, disk.WriteFileReserved(l.dir.fs, l.path+"/"+epochFile, text))
	} else {
		err = l.writeState(epochFile, text)
	}
	if err != nil {
		return err
	}
	l.epochsUnstored = false
	return nil
}

// writeState replaces a small file of the log's directory; the next flush makes it durable before it reports anything.
func (l *Log) writeState(name string, data []byte) error {
	d := l.dir
	path := l.path + "/" + name
	temp := path + tempSuffix
	f, err := d.fs.Open(temp, disk.Create)
	if err != nil {
		return l.failed("write "+path, err)
	}
	err = f.Truncate(0)
	if err == nil {
		_, err = f.WriteAt(data, 0)
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = d.fs.Rename(temp, path)
	}
	if err != nil {
		return l.failed("write "+path, errors.Join(err, d.fs.Remove(temp)))
	}
	l.stateDirty.Store(true)
	l.entriesDirty.Store(true)
	return nil
}

// failed turns a write's error into what a caller can decide upon. Anything but a full disk, or a process out of file
// descriptors, condemns the directory: nobody knows what is on it now.
func (l *Log) failed(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case disk.IsNoSpace(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrNoSpace, err)
	case disk.IsExhausted(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrExhausted, err)
	case errors.Is(err, segment.ErrGone):
		return fmt.Errorf("%s: %w", doing, ErrClosed)
	}
	return l.dir.fail(fmt.Errorf("%s: %w", doing, err))
}

// tolerate takes note of an error in writing what can be written later, or made again: only a full disk, or want of file
// descriptors, is tolerated.
func (l *Log) tolerate(err error) {
	if err != nil && !disk.IsNoSpace(err) && !disk.IsExhausted(err) && !errors.Is(err, segment.ErrGone) {
		_ = l.dir.fail(err) // told by the housekeeping
	}
}
