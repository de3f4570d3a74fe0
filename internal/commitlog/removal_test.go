package commitlog

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"

	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// TestManyLogsAreRemovedWithOneFlush, and nothing of them is back after a crash.
func TestManyLogsAreRemovedWithOneFlush(t *testing.T) {
	for seed := range uint64(20) {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		var all []TopicPartition
		for n := range int32(40) {
			tp := TopicPartition{"gone", n}
			l, err := d.Log(tp, [16]byte{}, smallConfig())
			if err != nil {
				t.Fatal(err)
			}
			if n%4 > 0 { // the others have no files
				mustAppend(t, l, records(0, 1, 10))
				flush(t, l)
			}
			all = append(all, tp)
		}
		kept := mustLog(t, d, smallConfig())
		mustAppend(t, kept, records(0, 1, 10))
		flush(t, kept)
		var flushes atomic.Int64
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpSyncDir && op.Path == "/data" {
				flushes.Add(1)
			}
			return nil
		})
		remove(d, append(all, TopicPartition{"never-there", 0})...)
		if got := flushes.Load(); got != 1 {
			t.Fatalf("%d flushes of the directory", got)
		}
		m.SetFault(nil)
		m = m.Crash(seed)
		abandon(d)
		d = mustOpen(t, testOptions(m))
		if found := fmt.Sprint(d.Found()); strings.Contains(found, "gone") || len(d.Found()) != 1 {
			t.Fatalf("seed %d: found %v", seed, found)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestTrap08NameThatCouldNotBeFlushed: when the files of a removed log are at last taken out of the next one's way, and the
// directory cannot be flushed, that is not tried again, for want of space neither: what failed counts as flushed from then on.
func TestTrap08NameThatCouldNotBeFlushed(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	mustAppend(t, l, records(0, 1, 10))
	flush(t, l)
	full := func(kind disk.Kind) {
		m.SetFault(func(op disk.Op) error {
			if op.Kind == kind {
				return syscall.ENOSPC
			}
			return nil
		})
	}
	full(disk.OpRename)
	remove(d, testTopic)
	if len(d.mu.unburied) != 1 || d.Offline() != nil {
		t.Fatal(d.mu.unburied, d.Offline())
	}
	full(disk.OpSyncDir)
	next := mustLog(t, d, smallConfig())
	if _, err := appendErr(next, records(0, 1, 10)); err == nil {
		t.Error("appended")
	}
	m.SetFault(nil)
	if _, err := appendErr(next, records(0, 1, 10)); !errors.Is(err, ErrOffline) {
		t.Errorf("after a flush that failed: %v", err)
	}
	_ = d.Close()
}

// TestRemovalDoesNotWaitForTheDisk: whoever removes a log, and who makes another of the name, goes on while the disk does not
// answer. The new log's first record waits until the old one's files are out of its way, and nothing of these is back after a
// crash, whenever it comes.
func TestRemovalDoesNotWaitForTheDisk(t *testing.T) {
	for seed := range uint64(20) {
		faketime.Test(t, func(t *testing.T) {
			m := disk.NewMem()
			d := mustOpen(t, testOptions(m))
			for n := range int32(3) {
				l, err := d.Log(TopicPartition{"again", n}, testID, smallConfig())
				if err != nil {
					t.Fatal(err)
				}
				mustAppend(t, l, records(0, 5, 10))
				flush(t, l)
			}
			kinds := []disk.Kind{disk.OpRename, disk.OpSyncDir}
			kind, answers := kinds[seed%2], make(chan struct{})
			m.SetFault(func(op disk.Op) error {
				if op.Kind == kind && (op.Path == "/data" || strings.HasPrefix(op.Path, "/data/again-")) {
					<-answers
				}
				return nil
			})
			d.Remove(TopicPartition{"again", 0}, TopicPartition{"again", 1}) // in this goroutine: the test would hang
			d.Remove(TopicPartition{"again", 2})
			other := testID
			other[0]++
			next, err := d.Log(TopicPartition{"again", 2}, other, smallConfig())
			if err != nil || next.Progress().End != 0 {
				t.Fatal(err, next.Progress())
			}
			var done atomic.Bool
			var running sync.WaitGroup
			running.Go(func() {
				mustAppend(t, next, records(0, 1, 10))
				flush(t, next)
				done.Store(true)
			})
			synctest.Wait()
			if done.Load() {
				t.Fatalf("seed %d: the first record of the next log is among the files of the last", seed)
			}
			close(answers)
			running.Wait()
			m.SetFault(nil)
			m = m.Crash(seed)
			abandon(d)
			d = mustOpen(t, testOptions(m))
			found := d.Found()
			if len(found) != 1 || found[0].TopicID != other || d.mu.logs[found[0].TopicPartition].Progress().End != 1 {
				t.Fatalf("seed %d: found %v", seed, found)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestALogThatWaitsForTheGroundMayBeRemoved: its first record waits until the files of the log before it are gone, and
// meanwhile it is deleted, too. Both are taken away, and who waits is told.
func TestALogThatWaitsForTheGroundMayBeRemoved(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		mustAppend(t, mustLog(t, d, smallConfig()), records(0, 5, 10))
		answers := make(chan struct{})
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpRename {
				<-answers
			}
			return nil
		})
		d.Remove(testTopic)
		next := mustLog(t, d, smallConfig())
		var running sync.WaitGroup
		var appended, led error
		running.Go(func() { _, appended = next.Append(records(0, 1, 10), AppendOptions{NowMs: testNow}) })
		synctest.Wait()
		running.Go(func() { _, led = next.Lead(7) }) // whoever applies metadata waits for no disk
		synctest.Wait()
		d.Remove(testTopic)
		close(answers)
		running.Wait()
		if led != nil || !errors.Is(appended, ErrClosed) {
			t.Fatalf("led: %v, appended to the removed log: %v, want %v", led, appended, ErrClosed)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestClosingBuriesWhatWasRemoved, so that a clean start finds nothing of it.
func TestClosingBuriesWhatWasRemoved(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	mustAppend(t, mustLog(t, d, smallConfig()), records(0, 1, 10))
	d.Remove(testTopic)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if entries, err := m.List("/data/" + testTopic.String()); err == nil {
		t.Fatalf("still there: %v", entries)
	}
	d = mustOpen(t, testOptions(m))
	if len(d.Found()) != 0 {
		t.Fatal(d.Found())
	}
	d.Remove(testTopic)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d.Remove(testTopic) // after the end: nothing
}
