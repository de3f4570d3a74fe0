package commitlog

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"barnabas/internal/commitlog/burial"
	"barnabas/internal/commitlog/identity"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

func sortLogs(logs []*Log) []*Log {
	slices.SortFunc(logs, func(a, b *Log) int { return compareTopicPartitions(a.id, b.id) })
	return logs
}

// load brings back the logs.
func (d *Dir) load(ctx context.Context) error {
	if err := d.unmarkClean(); err != nil {
		return err
	}
	entries, err := d.fs.List(d.path)
	if err != nil {
		return err
	}
	if err := d.points.load(d); err != nil {
		return err
	}
	var names []TopicPartition
	for _, e := range entries {
		switch tp, ok := parseLogName(e.Name); {
		case !e.Dir:
		case strings.HasSuffix(e.Name, burial.Suffix):
			d.keeper.removeLater(d.join(e.Name), 0)
		case ok:
			names = append(names, tp)
		default:
			d.logger.Warn("ignoring a directory that is no log", "dir", d.join(e.Name))
		}
	}
	logs, err := d.loadLogs(ctx, names)
	if err != nil {
		return err
	}
	for _, l := range logs {
		d.mu.logs[l.id] = l
		d.mu.found = append(d.mu.found, Found{l.id, l.mu.topicID, l.Size()})
	}
	d.points.keepOnly(d.mu.logs)
	if err := d.points.lowerLost(d, d.mu.logs); err != nil {
		return err
	}
	return d.flushSurvivors(logs)
}

// unmarkClean takes the mark of a clean stop away, durably, before any log is looked at: a crash while they are loaded
// must count as one (KAFKA-10471).
func (d *Dir) unmarkClean() error {
	d.cleanEpoch = NoEpoch
	mark, err := disk.ReadFile(d.fs, d.join(cleanFile), identity.MaxBytes)
	if isNotExist(err) {
		d.unclean = true
		return nil
	}
	if errors.Is(err, disk.ErrTooLarge) {
		err = nil // a mark all the same, that says nothing
	}
	epoch := identity.ParseCleanStop(mark)
	if err == nil {
		err = d.fs.Remove(d.join(cleanFile))
	}
	if err == nil {
		err = d.fs.SyncDir(d.path)
	}
	if err != nil {
		return fmt.Errorf("remove the mark of a clean stop: %w", err)
	}
	d.cleanEpoch = epoch
	return nil
}

// NoEpoch stands for a broker epoch that is not known.
const NoEpoch = identity.NoEpoch

// CleanEpoch is the broker epoch of the process that stopped cleanly here before this one (SetBrokerEpoch); NoEpoch after a
// crash, and where that process was not registered or did not say.
func (d *Dir) CleanEpoch() int64 { return d.cleanEpoch }

// SetBrokerEpoch says under which registration this process has written here, for the mark that Close leaves.
func (d *Dir) SetBrokerEpoch(epoch int64) { d.brokerEpoch.Store(epoch) }

// loadLogs loads several at a time and returns them in the order of the names.
func (d *Dir) loadLogs(ctx context.Context, names []TopicPartition) ([]*Log, error) {
	logs := make([]*Log, len(names))
	threads := min(d.options.RecoveryThreads, len(names))
	errs := make([]error, threads)
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for t := range threads {
		wg.Go(func() {
			buf := make([]byte, scanBytes)
			for i := int(next.Add(1)) - 1; i < len(names) && !failed.Load(); i = int(next.Add(1)) - 1 {
				err := ctx.Err()
				if err == nil {
					tp := names[i]
					logs[i], err = d.loadLog(tp, d.options.CheckConfig(tp), d.points.of(tp), buf)
				}
				if err != nil {
					errs[t] = err
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return logs, errors.Join(errs...)
}

// flushSurvivors makes durable what outlived a crash of the process in the page cache, names included: without that it
// could be served, acknowledged as there, and then be lost by a power cut.
func (d *Dir) flushSurvivors(logs []*Log) error {
	for _, l := range logs {
		segments := *l.segments.Load()
		changed := slices.ContainsFunc(segments, func(s *segment.Segment) bool { return s.Unsynced.Load() })
		if len(segments) == 0 || !(d.unclean || changed) {
			continue
		}
		l.parentDirty.Store(true)
		l.entriesDirty.Store(true)
		if p := &l.mu.progress; p.Flushed < p.End {
			l.stateDirty.Store(true)
		}
		d.flusher.schedule(l)
	}
	observer := d.observer
	d.observer = nil // nobody knows these logs yet
	d.flusher.round()
	d.observer = observer
	return d.Offline()
}

// Close stops the directory: appends end, everything is flushed, and unless that fails the next start finds it clean.
// Of a directory that is offline only the lock and the files are given back; the error says why.
func (d *Dir) Close() error {
	d.mu.Lock()
	closed := d.mu.closed
	d.mu.closed = true
	d.mu.Unlock()
	if closed {
		return nil
	}
	d.options.Cleaner.remove(d)
	d.burials.Close()
	d.keeper.stop()
	logs := d.logs()
	for _, l := range logs {
		l.slot <- struct{}{}
		l.closed.Store(true)
		l.give()
	}
	d.cancel()
	d.workers.Wait()
	close(d.stopped)
	err := d.Offline()
	if err == nil {
		err = d.closeClean(logs)
	}
	for _, l := range logs {
		for _, s := range *l.segments.Load() {
			err = errors.Join(err, s.Shut(true))
		}
	}
	if err = errors.Join(err, d.release()); err != nil {
		return fmt.Errorf("close data directory %s: %w", d.path, err)
	}
	return nil
}

// closeClean flushes everything and leaves the mark. Nobody else is at work any more. On a full disk everything is
// flushed all the same; what has no room are indexes and producer states, which the next start makes again, so that it
// is one as after a crash.
func (d *Dir) closeClean(logs []*Log) error {
	full, err := d.completeAll(logs)
	if err != nil {
		return err
	}
	if full == nil {
		full, err = ifFull(d.points.store(d, logs))
	}
	d.keeper.remove(d.keeper.graves.TakeAll())
	if full == nil && err == nil {
		full, err = ifFull(disk.WriteFileAtomic(d.fs, d.join(cleanFile), identity.FormatCleanStop(d.brokerEpoch.Load())))
	}
	if full != nil {
		d.logger.Warn("the disk is full: everything is flushed, but the next start has to look through what was written last",
			"dir", d.path, "error", full)
	}
	return err
}

// ifFull tells a full disk from other failures.
func ifFull(err error) (full, other error) {
	if disk.IsNoSpace(err) {
		return err, nil
	}
	return nil, err
}

// completeAll writes what the logs hold in memory only, and flushes all that is not flushed. full says what had no room.
func (d *Dir) completeAll(logs []*Log) (full, err error) {
	var items []syncItem
	for _, l := range logs {
		if len(*l.segments.Load()) == 0 {
			continue
		}
		noRoom, err := ifFull(l.complete())
		if err != nil {
			return nil, err
		}
		if noRoom != nil {
			full = noRoom
		}
		items = l.unsynced(items, 0)
		items = l.unsyncedIndexes(items, nil)
		items = l.unsyncedSnapshot(items)
		if l.parentDirty.Swap(false) {
			items = append(items, syncItem{dir: d.path})
		}
	}
	if err := d.sync(items); err != nil {
		return nil, err
	}
	for _, l := range logs {
		l.mu.Lock()
		l.mu.progress.Flushed = l.mu.progress.End
		l.mu.Unlock()
	}
	return full, nil
}

// complete writes what a log holds in memory only.
func (l *Log) complete() error {
	if err := l.finishCut(); err != nil {
		return err
	}
	s := l.active()
	if s.Ready {
		if err := s.Seal(); err != nil {
			return err
		}
	}
	for _, s := range *l.segments.Load() {
		if err := s.StoreIndexes(); err != nil {
			return err
		}
	}
	at := l.mu.progress.End
	if _, damaged := l.Damaged(); damaged || l.snapshotAt == at {
		return nil
	}
	old := l.snapshotAt
	if err := l.writeSnapshot(at); err != nil {
		return err
	}
	return l.dropLoose(old)
}
