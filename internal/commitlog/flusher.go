package commitlog

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"barnabas/internal/commitlog/flushcost"
	"barnabas/internal/commitlog/gather"
	"barnabas/internal/commitlog/identity"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/planted"
)

// syncWorkers is how many files are flushed at a time, where they are flushed side by side.
const syncWorkers = 4

// flusher makes logs durable, in rounds: what is appended during a round waits for the next, so that one flush serves
// many appends. There is one for each directory.
type flusher struct {
	dir  *Dir
	wake chan struct{} // holds one signal

	mu struct { // short
		sync.Mutex
		dirty []*Log
		spare []*Log // the other slice, emptied
		next  *round // what the waiting wait for; nil without any
		own   gather.Rounds
	}

	// Of the goroutine that runs the rounds.
	jobs  []job
	items []syncItem
}

// round is a flush to come. Its err is set before done is closed.
type round struct {
	done chan struct{}
	err  error
}

// job is one log's part of a round.
type job struct {
	log        *Log
	target     spot // everything below is durable once the items are flushed
	generation int
	items      int // where the log's items end
}

// syncItem is one thing to flush: a segment's file, a small file by its path, or a directory.
type syncItem struct {
	file      *segment.File
	path, dir string
}

func newFlusher(d *Dir) *flusher { return &flusher{dir: d, wake: make(chan struct{}, 1)} }

// schedule puts the log into the next round. It does not wait.
func (f *flusher) schedule(l *Log) {
	if l.scheduled.Swap(true) {
		if l.patient.Load() {
			f.signal() // somebody now waits who is not
		}
		return
	}
	f.mu.Lock()
	f.mu.dirty = append(f.mu.dirty, l)
	f.mu.Unlock()
	f.signal()
}

// scheduleOwn is schedule for what a coordinator has written: it waits a little for others, see gather.Rounds.
func (f *flusher) scheduleOwn(l *Log) {
	if l.scheduled.Swap(true) {
		return
	}
	l.patient.Store(true)
	f.mu.Lock()
	f.mu.dirty = append(f.mu.dirty, l)
	enough := f.mu.own.Add(&l.gathered, f.dir.now(), f.signal)
	f.mu.Unlock()
	if enough {
		f.signal()
	}
}

func (f *flusher) signal() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// flush puts the logs into the next round and waits for its end.
func (f *flusher) flush(ctx context.Context, logs ...*Log) error {
	f.mu.Lock()
	for _, l := range logs {
		if !l.scheduled.Swap(true) {
			f.mu.dirty = append(f.mu.dirty, l)
		}
	}
	if f.mu.next == nil {
		f.mu.next = &round{done: make(chan struct{})}
	}
	r := f.mu.next
	f.mu.Unlock()
	f.signal()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	case <-f.dir.stopped:
		return ErrClosed
	}
}

// run runs rounds until ctx ends.
func (f *flusher) run(ctx context.Context) {
	defer func() {
		f.mu.Lock()
		f.mu.own.Begin() // what still waits the directory's Close flushes
		f.mu.Unlock()
	}()
	for {
		select {
		case <-f.wake:
		case <-ctx.Done():
			return
		}
		if ctx.Err() != nil {
			return
		}
		f.round()
	}
}

// round flushes what has been scheduled so far.
func (f *flusher) round() {
	f.mu.Lock()
	logs, r := f.mu.dirty, f.mu.next
	f.mu.dirty, f.mu.spare, f.mu.next = f.mu.spare[:0], nil, nil
	f.mu.own.Begin()
	f.mu.Unlock()

	err := f.dir.Offline()
	if err == nil {
		f.collect(logs)
		err = f.flushJobs()
	}
	clear(logs)
	f.mu.Lock()
	f.mu.spare = logs[:0]
	f.mu.Unlock()
	if r != nil {
		r.err = err
		close(r.done)
	}
}

// collect notes for every log how far it has come and what has to be flushed for that.
func (f *flusher) collect(logs []*Log) {
	clear(f.jobs)
	clear(f.items)
	f.jobs, f.items = f.jobs[:0], f.items[:0]
	root := false
	for _, l := range logs {
		// In this order: an append after the first line schedules the log again; one before it is seen by the second. A
		// segment is marked, and a directory, before the end moves on.
		l.patient.Store(false)
		l.scheduled.Store(false)
		if l.closed.Load() {
			continue
		}
		l.mu.Lock()
		j := job{log: l, target: l.mu.end, generation: l.mu.generation}
		flushed := l.mu.progress.Flushed
		l.mu.Unlock()
		f.items = l.unsynced(f.items, flushed)
		if l.parentDirty.Swap(false) && !root {
			root = true
			f.items = append(f.items, syncItem{dir: f.dir.path})
		}
		j.items = len(f.items)
		f.jobs = append(f.jobs, j)
	}
}

// unsynced appends what must be flushed so that everything in the log is durable.
func (l *Log) unsynced(items []syncItem, flushed int64) []syncItem {
	segments := *l.segments.Load()
	for i := len(segments) - 1; i >= 0; i-- {
		s := segments[i]
		if s.Next.Load() < flushed { // its end is durable, and so is everything before
			break
		}
		if s.Unsynced.Swap(false) {
			items = append(items, syncItem{file: &s.Data})
		}
	}
	if l.stateDirty.Swap(false) {
		for _, name := range []string{epochFile, identity.PartitionFile} {
			items = append(items, syncItem{path: l.path + "/" + name})
		}
	}
	if l.entriesDirty.Swap(false) && !planted.LoseDirectoryEntry {
		items = append(items, syncItem{dir: l.path})
	}
	return items
}

// flushJobs flushes what was collected and publishes each log's new flushed offset: with very few at once, so that
// nobody waits for another's flush, with more after all.
func (f *flusher) flushJobs() error {
	d := f.dir
	d.stats.Rounds.Add(1)
	if len(f.items) > flushcost.InTurnUpTo {
		if err := d.sync(f.items); err != nil {
			return err
		}
		for i := range f.jobs {
			f.publish(&f.jobs[i])
		}
		return nil
	}
	done := 0
	for i := range f.jobs {
		j := &f.jobs[i]
		for ; done < j.items; done++ {
			if err := d.syncOne(f.items[done]); err != nil {
				return err
			}
		}
		f.publish(j)
	}
	return nil
}

// publish moves a log's flushed offset, unless the log was truncated since the round began.
func (f *flusher) publish(j *job) {
	l := j.log
	l.mu.Lock()
	p := &l.mu.progress
	moved := l.mu.generation == j.generation && j.target.offset > p.Flushed
	if moved {
		p.Flushed, l.mu.flushed = j.target.offset, j.target
	}
	l.mu.Unlock()
	if moved && f.dir.observer != nil {
		f.dir.observer.Flushed(l, j.target.offset)
	}
}

// sync flushes everything in items, by whatever way is quickest. An error condemns the directory and is ErrOffline.
func (d *Dir) sync(items []syncItem) error {
	if d.costs.Together(len(items), d.now()) {
		began := d.now()
		err := d.syncAll()
		if !errors.Is(err, errors.ErrUnsupported) {
			d.costs.TookAll(d.now().Sub(began), d.now())
			return err
		}
	}
	if len(items) > flushcost.InTurnUpTo {
		began := d.now()
		err := d.syncParallel(items)
		d.costs.TookEach(len(items), d.now().Sub(began), d.now())
		return err
	}
	for _, item := range items {
		if err := d.syncOne(item); err != nil {
			return err
		}
	}
	return nil
}

// syncAll flushes the whole file system. errors.ErrUnsupported where that is not possible.
func (d *Dir) syncAll() error {
	if d.volume == nil || d.noSyncFS.Load() {
		return errors.ErrUnsupported
	}
	if err := d.Offline(); err != nil {
		return err
	}
	err := d.volume.SyncFS()
	if errors.Is(err, errors.ErrUnsupported) {
		d.noSyncFS.Store(true)
		return err
	}
	d.stats.SyncFS.Add(1)
	if err != nil {
		return d.fail(fmt.Errorf("flush file system: %w", err))
	}
	return nil
}

// syncParallel flushes one by one, a few at a time.
func (d *Dir) syncParallel(items []syncItem) error {
	work := make(chan syncItem, len(items))
	for _, item := range items {
		work <- item
	}
	close(work)
	errs := make([]error, min(syncWorkers, len(items)))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for item := range work {
				if errs[i] == nil {
					errs[i] = d.syncOne(item)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// syncOne flushes one thing, once: after a failure nothing in the directory is flushed again.
func (d *Dir) syncOne(item syncItem) error {
	if err := d.Offline(); err != nil {
		return err
	}
	var err error
	for attempt := 0; ; attempt++ {
		// Only opening can want for descriptors: nothing has been flushed then, so trying again repeats no flush. Until it
		// works those who wait for the flush go on waiting.
		if err = d.syncItem(item); !disk.IsExhausted(err) || attempt == mostOpenAttempts {
			break
		}
		if attempt == 0 {
			d.logger.Error("a flush waits for a free file descriptor; raise the process's limit of open files or lower max.connections",
				"dir", d.path, "error", err)
		}
		time.Sleep(openAttemptEvery)
	}
	if err != nil {
		return d.fail(fmt.Errorf("flush: %w", err))
	}
	return d.Offline() // another flush may have failed meanwhile: then this one means nothing
}

// A flush that cannot open its file for want of descriptors is tried so often, so far apart: a minute in all.
const (
	mostOpenAttempts = 3000
	openAttemptEvery = 20 * time.Millisecond
)

func (d *Dir) syncItem(item syncItem) error {
	switch {
	case item.dir != "":
		d.stats.SyncDir.Add(1)
		// A log's directory that is not there has been removed with its topic. One that is there again is a new log's.
		if err := d.fs.SyncDir(item.dir); !isNotExist(err) {
			return err
		}
		return nil
	case item.path != "":
		return d.syncPath(item.path)
	default:
		return d.syncFile(item.file)
	}
}

// syncPath flushes a small file. One that does not exist (any more) needs no flush.
func (d *Dir) syncPath(path string) error {
	f, err := d.fs.Open(path, disk.Write)
	if err != nil {
		if isNotExist(err) {
			return nil
		}
		return err
	}
	d.stats.SyncData.Add(1)
	return errors.Join(f.SyncData(), f.Close())
}

func (d *Dir) syncFile(f *segment.File) error {
	h, err := f.Acquire(disk.Write)
	if errors.Is(err, segment.ErrGone) || isNotExist(err) {
		return nil // deleted by retention or with its topic
	}
	if err != nil {
		return err
	}
	d.stats.SyncData.Add(1)
	return errors.Join(h.SyncData(), h.Release())
}
