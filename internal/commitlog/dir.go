package commitlog

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	mathrand "math/rand/v2"
	"os"
	"path"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/burial"
	"barnabas/internal/commitlog/flushcost"
	"barnabas/internal/commitlog/identity"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/uuid"
)

const (
	lockFile   = ".lock"
	cleanFile  = ".kafka_cleanshutdown"
	tempSuffix = segment.TempSuffix
	// markPrefix begins the name of the file that a failed directory leaves in the others; its directory.id follows.
	markPrefix = "failed-directory-"
)

// DirOptions says how a data directory is opened. Zero values mean the default that is named.
type DirOptions struct {
	FS        disk.FS // required
	Path      string  // required; made if missing
	NodeID    int32
	ClusterID string           // "": what meta.properties says; see SetClusterID
	Logger    *slog.Logger     // discards
	Observer  Observer         // nobody
	Checker   *batch.Checker   // one of its own
	Now       func() time.Time // time.Now
	Rand      io.Reader        // crypto/rand, for the directory's id
	// CheckConfig gives a log's settings for its recovery, before Log brings those of the metadata. DefaultConfig.
	CheckConfig func(TopicPartition) Config

	RecoveryThreads         int           // num.recovery.threads.per.data.dir: logs loaded at a time; 2
	ProducerIDExpiration    time.Duration // producer.id.expiration.ms; 24 h
	ProducerIDCheckInterval time.Duration // producer.id.expiration.check.interval.ms; 10 min
	// MaxProducerIDs bounds the producers remembered over all logs; those longest unused in a log that learns a new one are
	// forgotten, as if they had expired. 1,000,000, which is some 300 MB.
	MaxProducerIDs int
	// MaxOpenFiles bounds the files kept open; past it those longest unused are closed. 16,384. Appends and reads under way
	// are not bound by it.
	MaxOpenFiles int
	// MaxDecompressedBytes bounds what one compressed batch of a client may unpack to; 0: the Checker's own bound.
	MaxDecompressedBytes int
	// InitialTaskDelay is when the first round of housekeeping begins, at the latest (log.initial.task.delay.ms); 30 s.
	InitialTaskDelay time.Duration
	IdleCloseAfter   time.Duration // 1 min; a file is closed when it was not used for so long, up to half as much again

	RetentionCheckInterval     time.Duration // log.retention.check.interval.ms; 5 min
	RecoveryCheckpointInterval time.Duration // log.flush.offset.checkpoint.interval.ms; 1 min
	StartCheckpointInterval    time.Duration // log.flush.start.offset.checkpoint.interval.ms; 1 min
	// CheckpointBytes: the recovery point is also written after so many bytes, so that a restart has little to read
	// however fast they came; 1 GiB.
	CheckpointBytes int64
	// FlushCheckInterval (log.flush.scheduler.interval.ms) is how often it is looked for logs whose flush.ms is over;
	// 0: just when it is.
	FlushCheckInterval time.Duration
	Cleaner            *Cleaner // compacts the logs; nobody
	// OtherDirs are where a failed directory leaves its mark, and where one is looked for.
	OtherDirs []string
}

// Observer learns what happens in a directory. It is called without locks, from the directory's own goroutines, and must not
// block nor call what waits for them (Flush, Close).
type Observer interface {
	// Flushed: everything below end is durable. Not called for what was found durable at the start.
	Flushed(l *Log, end int64)
	// Offline: the directory has failed, its logs refuse everything with ErrOffline. Called once.
	Offline(d *Dir, cause error)
}

// Found is a log that was there when the directory was opened.
type Found struct {
	TopicPartition
	TopicID uuid.UUID // all zero when it is not known
	Size    int64     // bytes of its segments
}

// LogSize is a log's size in bytes.
type LogSize struct {
	TopicPartition
	Size int64
}

// Usage is what DescribeLogDirs asks for. Bytes; Total and Available are the file system's.
type Usage struct {
	Total, Available uint64
	Logs             []LogSize
}

// Stats count since the start.
type Stats struct {
	Rounds, SyncData, SyncDir, SyncFS atomic.Int64
}

// Dir is one data directory.
type Dir struct {
	fs       disk.FS
	path     string
	options  DirOptions
	logger   *slog.Logger
	observer Observer
	checker  *batch.Checker
	now      func() time.Time
	volume   disk.Volume // nil where there is none
	noSyncFS atomic.Bool
	costs    flushcost.Costs
	lock     io.Closer
	flusher  *flusher
	keeper   *keeper
	files    *segment.Files
	burials  *burial.Queue[TopicPartition, *Log]
	stats    Stats
	cancel   context.CancelFunc
	workers  sync.WaitGroup
	stopped  chan struct{} // closed by Close

	failure       atomic.Pointer[error]
	producerCount atomic.Int64
	maxProducers  int64
	expiration    atomic.Int64 // of producers, ns
	written       atomic.Int64 // bytes appended
	repairs       atomic.Bool  // something waits for keeper.repair
	unclean       bool         // found so at the start
	cleanEpoch    int64        // what the mark of the clean stop before said, NoEpoch where there was none
	brokerEpoch   atomic.Int64 // what the next one says

	mu struct { // short
		sync.Mutex
		meta  identity.Properties
		logs  map[TopicPartition]*Log
		found []Found
		// unburied are logs that were removed and whose files could not be taken away.
		unburied map[TopicPartition]struct{}
		rand     *mathrand.Rand
		closed   bool
	}
	points points
}

// ErrMarked: the directory failed before and left a mark in another one. The operator looks after the disk and removes
// the mark, which the message names, to use it again.
var ErrMarked = errors.New("data directory has failed before")

func (o *DirOptions) setDefaults() {
	set(&o.Logger, slog.New(slog.DiscardHandler))
	set(&o.RecoveryThreads, min(2, runtime.GOMAXPROCS(0)))
	set(&o.ProducerIDExpiration, 24*time.Hour)
	set(&o.ProducerIDCheckInterval, 10*time.Minute)
	set(&o.MaxProducerIDs, 1_000_000)
	set(&o.MaxOpenFiles, 16_384)
	set(&o.IdleCloseAfter, time.Minute)
	set(&o.InitialTaskDelay, 30*time.Second)
	set(&o.RetentionCheckInterval, 5*time.Minute)
	set(&o.RecoveryCheckpointInterval, time.Minute)
	set(&o.StartCheckpointInterval, time.Minute)
	set(&o.CheckpointBytes, 1<<30)
	if o.Checker == nil {
		o.Checker = batch.NewChecker()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Reader
	}
	if o.CheckConfig == nil {
		o.CheckConfig = func(TopicPartition) Config { return DefaultConfig() }
	}
}

func set[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// OpenDir takes a data directory: locks it, checks whose it is, and brings back every log in it. When it returns, what has
// survived in the logs is durable. It ends early with ctx.
//
// Errors: *disk.LockedError, ErrNewerFormat, ErrForeign, ErrMarked, ErrOffline, and those of the disk.
func OpenDir(ctx context.Context, o DirOptions) (*Dir, error) {
	o.setDefaults()
	d := &Dir{
		fs: o.FS, path: o.Path, options: o, logger: o.Logger, observer: o.Observer, checker: o.Checker, now: o.Now,
		maxProducers: int64(o.MaxProducerIDs), stopped: make(chan struct{}),
	}
	d.expiration.Store(int64(o.ProducerIDExpiration))
	d.mu.logs, d.mu.unburied = map[TopicPartition]*Log{}, map[TopicPartition]struct{}{}
	d.brokerEpoch.Store(NoEpoch)
	d.files = segment.NewFiles(o.FS, o.MaxOpenFiles, d.wakeHousekeeping)
	d.points.slot = make(chan struct{}, 1)
	d.flusher, d.keeper = newFlusher(d), newKeeper(d)
	if err := d.take(); err != nil {
		return nil, fmt.Errorf("open data directory %s: %w", o.Path, err)
	}
	if err := d.load(ctx); err != nil {
		if failed := d.Offline(); failed != nil {
			d.keeper.leaveMark(failed)
		}
		return nil, errors.Join(fmt.Errorf("open data directory %s: %w", o.Path, err), d.release())
	}
	d.burials = burial.NewQueue[TopicPartition](d.bury, func(waiting int) {
		d.logger.Warn("the disk takes long over the removal of deleted logs", "dir", d.path, "waiting", waiting)
	})
	running, cancel := context.WithCancel(context.WithoutCancel(ctx))
	d.cancel = cancel
	d.workers.Go(func() { d.flusher.run(running) })
	keeping, quit := context.WithCancel(running)
	d.keeper.quit = quit
	d.workers.Go(func() { d.keeper.run(keeping) })
	o.Cleaner.add(d)
	return d, nil
}

// take locks the directory and makes sure that it is ours and fit for use.
func (d *Dir) take() (err error) {
	if err := disk.MkdirAllSync(d.fs, d.path); err != nil {
		return err
	}
	holder := fmt.Sprintf("pid %d since %s", os.Getpid(), d.now().UTC().Format(time.RFC3339))
	if d.lock, err = d.fs.Lock(d.join(lockFile), holder); err != nil {
		return err
	}
	if err := d.loadMeta(&d.options); err != nil {
		return errors.Join(err, d.release())
	}
	if err := d.findMark(); err != nil {
		return errors.Join(err, d.release())
	}
	if d.volume, err = d.fs.Volume(d.path); err != nil {
		d.volume = nil
		if !errors.Is(err, errors.ErrUnsupported) {
			return errors.Join(err, d.release())
		}
	}
	seed := binary.BigEndian.Uint64(d.mu.meta.DirectoryID[:])
	d.mu.rand = mathrand.New(mathrand.NewPCG(seed, uint64(d.options.NodeID)))
	return nil
}

// release gives back what take took.
func (d *Dir) release() error {
	var errs []error
	if d.volume != nil {
		errs = append(errs, d.volume.Close())
	}
	return errors.Join(append(errs, d.lock.Close())...)
}

// findMark refuses a directory that has failed before.
func (d *Dir) findMark() error {
	for _, other := range d.options.OtherDirs {
		mark := d.markIn(other)
		_, err := d.fs.Stat(mark)
		if err == nil {
			return fmt.Errorf("%w: check the disk, then remove %s to use it again", ErrMarked, mark)
		}
		if !isNotExist(err) {
			d.logger.Warn("cannot look for a mark of an earlier failure", "file", mark, "error", err)
		}
	}
	return nil
}

func (d *Dir) markIn(other string) string {
	return path.Join(other, markPrefix+d.ID().String())
}

// fail takes the directory offline, for good, and returns ErrOffline with the cause. The housekeeping tells the observer.
func (d *Dir) fail(cause error) error {
	if errors.Is(cause, ErrOffline) {
		return cause
	}
	err := fmt.Errorf("%s: %w: %w", d.path, ErrOffline, cause)
	if d.failure.CompareAndSwap(nil, &err) {
		d.logger.Error("data directory has failed and is offline", "dir", d.path, "error", cause)
		d.wakeHousekeeping()
	}
	return err
}

// Offline returns nil, or why the directory has failed: ErrOffline with the cause.
func (d *Dir) Offline() error {
	if p := d.failure.Load(); p != nil {
		return *p
	}
	return nil
}

// Path of the directory.
func (d *Dir) Path() string { return d.path }

// ID is the directory.id of meta.properties.
func (d *Dir) ID() uuid.UUID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.meta.DirectoryID
}

// ClusterID is the cluster.id of meta.properties; "" in a new directory until SetClusterID.
func (d *Dir) ClusterID() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.meta.ClusterID
}

// Found lists the logs that were there when the directory was opened.
func (d *Dir) Found() []Found { return d.mu.found }

// Stats returns the directory's counters.
func (d *Dir) Stats() *Stats { return &d.stats }

// Usage tells how much space the logs take and the file system has.
func (d *Dir) Usage() (Usage, error) {
	available, total, err := d.fs.Free(d.path)
	if err != nil {
		return Usage{}, fmt.Errorf("free space of %s: %w", d.path, err)
	}
	u := Usage{Total: total, Available: available}
	for _, l := range d.logs() {
		u.Logs = append(u.Logs, LogSize{l.id, l.Size()})
	}
	return u, nil
}

// Log returns a log of the directory, the one found there or a new one, which gets no file before its first append. Its
// settings are cfg from now on. A topicID of zeros is not compared.
//
// Errors: ErrTopicID when the log there belongs to another topic of the name (Remove it first); ErrOffline.
func (d *Dir) Log(tp TopicPartition, topicID uuid.UUID, cfg Config) (*Log, error) {
	if err := d.Offline(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.closed {
		return nil, fmt.Errorf("%s: %w", d.path, ErrClosed)
	}
	l := d.mu.logs[tp]
	if l == nil {
		l = newLog(d, tp, cfg)
		l.mu.topicID = topicID
		d.mu.logs[tp] = l
		return l, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !topicID.IsZero() {
		if !l.mu.topicID.IsZero() && l.mu.topicID != topicID {
			return nil, fmt.Errorf("%s has id %s, not %s: %w", l.path, l.mu.topicID, topicID, ErrTopicID)
		}
		if l.mu.topicID.IsZero() {
			l.mu.topicID = topicID
			l.adopted.Store(true)
			d.repairSoon()
		}
	}
	l.config.Store(&cfg)
	return l, nil
}

// WriteFile replaces a small file below the directory, durably: a temporary file, a flush, a rename, a flush of its
// directory. name is relative to the directory. A flush that fails condemns the directory, as one of a log does.
//
// Errors: ErrNoSpace, after which the file is as it was; ErrOffline.
func (d *Dir) WriteFile(name string, data []byte) error {
	return d.writeFile(name, data, disk.WriteFileAtomic)
}

// WriteReservedFile is WriteFile for a file of up to 4 KiB that has to be replaced on a full disk too; see
// disk.WriteFileReserved.
func (d *Dir) WriteReservedFile(name string, data []byte) error {
	return d.writeFile(name, data, disk.WriteFileReserved)
}

func (d *Dir) writeFile(name string, data []byte, write func(disk.FS, string, []byte) error) error {
	if err := d.Offline(); err != nil {
		return err
	}
	err := write(d.fs, d.join(name), data)
	switch {
	case err == nil:
		return d.Offline() // another flush may have failed meanwhile: then this one means nothing
	case disk.IsNoSpace(err):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case disk.IsExhausted(err):
		return fmt.Errorf("%w: %w", ErrExhausted, err)
	}
	return d.fail(err)
}

// has tells whether the directory has a log of that name.
func (d *Dir) has(tp TopicPartition) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.logs[tp] != nil
}

// logs returns all logs, in the order of their names.
func (d *Dir) logs() []*Log {
	d.mu.Lock()
	logs := make([]*Log, 0, len(d.mu.logs))
	for _, l := range d.mu.logs {
		logs = append(logs, l)
	}
	d.mu.Unlock()
	return sortLogs(logs)
}

// Remove deletes logs: nobody finds them any more when it returns, and a log of the name is another. The directory takes their
// files away by itself, for the disk may not answer for long: their directories get names that end in -delete, durably and with
// one flush for all that gather, and go after the log's file.delete.delay.ms. Reads under way end in peace. A log that is not
// there is no error. What crashes meanwhile finds the log when the directory is opened, as if it had not been removed.
//
// It waits only where burial.MostWaiting wait for the disk already.
func (d *Dir) Remove(tps ...TopicPartition) {
	var logs []*Log
	var names []TopicPartition
	d.mu.Lock()
	for _, tp := range tps {
		if l := d.mu.logs[tp]; l != nil && !d.mu.closed {
			l.closed.Store(true)
			l.removed.Store(true)
			delete(d.mu.logs, tp)
			logs, names = append(logs, l), append(names, tp)
		}
	}
	d.mu.Unlock()
	d.burials.Add(names, logs)
}

// bury takes the files of logs away that were removed, in the order of their removals.
func (d *Dir) bury(logs []*Log) {
	var errs []error
	var buried []burial.Grave
	for _, l := range logs {
		g, err := d.buryOne(l)
		if err != nil {
			errs = append(errs, err)
		}
		if g.Path != "" {
			buried = append(buried, g)
		}
	}
	if len(buried) > 0 {
		if err := d.syncOne(syncItem{dir: d.path}); err != nil {
			errs = append(errs, err)
		}
	}
	d.keeper.graves.Add(buried...) // not before: a log that came back after a crash must not have lost files
	d.wakeHousekeeping()
	if err := errors.Join(errs...); err != nil {
		d.logger.Error("files of deleted logs stay on disk", "dir", d.path, "error", err)
	}
}

// buryOne waits for who is at work on a removed log, and takes its directory's name away. The grave is empty where there was
// nothing on disk.
func (d *Dir) buryOne(l *Log) (burial.Grave, error) {
	d.options.Cleaner.abort(l)
	l.list <- struct{}{} // whoever comes after finds it closed
	l.slot <- struct{}{}
	l.giveList()
	d.options.Cleaner.end(l) // or its files would appear in the directory of the next log of that name
	segments := *l.segments.Load()
	l.producers.Clear()
	var errs []error
	for _, s := range segments {
		errs = append(errs, s.Shut(true))
	}
	if err := d.Offline(); err != nil {
		return burial.Grave{}, err
	}
	if len(segments) == 0 {
		// A first append that found no space may have left the directory all the same.
		if _, err := d.fs.Stat(l.path); isNotExist(err) {
			return burial.Grave{}, nil
		}
	}
	path, err := d.graveOf(l.id)
	if err != nil {
		return burial.Grave{}, l.failed("remove "+l.path, errors.Join(append(errs, err)...))
	}
	if err := errors.Join(append(errs, d.fs.Rename(l.path, path))...); err != nil {
		d.mu.Lock()
		d.mu.unburied[l.id] = struct{}{}
		d.mu.Unlock()
		return burial.Grave{}, l.failed("remove "+l.path, err)
	}
	return burial.Grave{Path: path, Due: d.keeper.due(l.config.Load().FileDeleteDelayMs)}, nil
}

// graveOf draws a name for a deleted log's directory.
func (d *Dir) graveOf(tp TopicPartition) (string, error) {
	id, err := uuid.New(d.options.Rand)
	return d.join(burial.Name(tp.String(), id)), err
}

// clearGround sees to it that a deleted log's files are gone before another log of the name gets its first: else its records would
// be among the other's. Their burial has been waited for (takeGround); it takes away what a full disk had left there.
func (d *Dir) clearGround(l *Log) error {
	d.mu.Lock()
	_, left := d.mu.unburied[l.id]
	d.mu.Unlock()
	if !left {
		return d.Offline()
	}
	path, err := d.graveOf(l.id)
	if err != nil {
		return err
	}
	if err := d.fs.Rename(l.path, path); err != nil && !isNotExist(err) {
		return err
	}
	switch err := d.fs.SyncDir(d.path); {
	case disk.IsExhausted(err): // nothing was flushed, and nothing failed to be
		return err
	case err != nil:
		return d.fail(fmt.Errorf("flush %s: %w", d.path, err))
	}
	d.keeper.removeLater(path, 0)
	d.mu.Lock()
	delete(d.mu.unburied, l.id)
	d.mu.Unlock()
	return nil
}

// discardFile renames a file so that it counts as deleted, and has it removed later. A missing one is fine.
func (d *Dir) discardFile(name string, delayMs int64) error {
	err := d.fs.Rename(name, name+segment.DeletedSuffix)
	if isNotExist(err) {
		return nil
	}
	if err == nil {
		d.keeper.removeLater(name+segment.DeletedSuffix, delayMs)
	}
	return err
}

// repairSoon has the housekeeping look for what is to be repaired.
func (d *Dir) repairSoon() {
	d.repairs.Store(true)
	d.wakeHousekeeping()
}

// jitter draws from 0 to below limit.
func (d *Dir) jitter(limit int64) int64 {
	if limit <= 0 {
		return 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.rand.Int64N(limit)
}

func (d *Dir) join(name string) string { return d.path + "/" + name }

// expiry is the time (ms) before which a producer must have written last to be forgotten.
func (d *Dir) expiry() int64 { return d.now().Add(-time.Duration(d.expiration.Load())).UnixMilli() }

// SetProducerIDExpiration changes ProducerIDExpiration from the next look for expired producers on.
func (d *Dir) SetProducerIDExpiration(after time.Duration) { d.expiration.Store(int64(after)) }

// parseLogName splits the name of a log's directory.
func parseLogName(name string) (tp TopicPartition, ok bool) {
	i := strings.LastIndexByte(name, '-')
	if i <= 0 || i+1 == len(name) || (name[i+1] == '0' && i+2 < len(name)) {
		return tp, false
	}
	partition, err := strconv.ParseUint(name[i+1:], 10, 31)
	return TopicPartition{name[:i], int32(partition)}, err == nil
}

func isNotExist(err error) bool { return errors.Is(err, fs.ErrNotExist) }
