package commitlog

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// TestCheckpointAfterAStalledFlushFlushesAll: a checkpoint that gave up, as the disk stood still for too long, has flushed
// nothing; the next one flushes the indexes and the producer state that it lets recovery rely on.
func TestCheckpointAfterAStalledFlushFlushesAll(t *testing.T) {
	for seed := range uint64(30) {
		faketime.Test(t, func(t *testing.T) {
			m := disk.NewMem()
			m.SetFault(func(op disk.Op) error { // each file is flushed by itself
				if op.Kind == disk.OpVolume {
					return errors.ErrUnsupported
				}
				return nil
			})
			o := testOptions(m)
			o.RecoveryCheckpointInterval = time.Hour
			d := mustOpen(t, o)
			l := mustLog(t, d, smallConfig())
			for i := range 10 { // one index entry every few batches, no roll
				mustAppend(t, l, produced(7, 0, int32(i), i, 1))
			}
			flush(t, l)
			var stalled atomic.Bool
			stalled.Store(true)
			m.SetFault(func(op disk.Op) error {
				if stalled.Load() && op.Kind == disk.OpSync {
					time.Sleep(5 * time.Minute)
				}
				return nil
			})
			for i := range 10 {
				mustAppend(t, l, produced(7, 0, int32(10+i), 10+i, 1))
			}
			begun := time.Now()
			d.keeper.checkpoint()
			if took := time.Since(begun); took != checkpointFlushLimit {
				t.Fatalf("the checkpoint gave up after %v", took)
			}
			time.Sleep(time.Hour / 2)
			stalled.Store(false)
			flush(t, l)
			d.keeper.checkpoint()
			if got := l.recoveryPoint.Load(); got != 20 {
				t.Fatalf("recovery point %d", got)
			}
			before := derived(t, m, l.path)
			if len(before) != 2 || len(before[segment.Name(20, segment.SnapshotSuffix)]) == 0 {
				t.Fatalf("files: %v", before)
			}
			after := m.Crash(seed)
			abandon(d)
			for name, content := range derived(t, after, l.path) {
				if !bytes.Equal(content, before[name]) {
					t.Errorf("seed %d: %s was not flushed: %d bytes, before the crash %d", seed, name, len(content), len(before[name]))
				}
				delete(before, name)
			}
			for name := range before {
				t.Errorf("seed %d: %s was not flushed and is gone", seed, name)
			}
		})
	}
}

// derived returns the files of a log that are made from its batches.
func derived(t *testing.T, m *disk.Mem, dir string) map[string][]byte {
	t.Helper()
	entries, err := m.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, e := range entries {
		if !strings.HasSuffix(e.Name, segment.IndexSuffix) && !strings.HasSuffix(e.Name, segment.SnapshotSuffix) {
			continue
		}
		if files[e.Name], err = disk.ReadFile(m, dir+"/"+e.Name, 1<<20); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

// TestEpochsWithoutRecordsAreNotWritten: a start begins an epoch in every log, and must not write a file in each.
func TestEpochsWithoutRecordsAreNotWritten(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	file := func() string {
		data, err := disk.ReadFile(m, l.path+"/"+epochFile, 1000)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	appendIn := func(epoch int32) {
		if _, err := l.Append(records(0, 1, 10), AppendOptions{LeaderEpoch: epoch, NowMs: testNow}); err != nil {
			t.Fatal(err)
		}
	}
	appendIn(0)
	flush(t, l) // of the new file, too
	var touched atomic.Int64
	m.SetFault(func(op disk.Op) error {
		if strings.Contains(op.Path, epochFile) && op.Kind != disk.OpRead {
			touched.Add(1)
		}
		return nil
	})
	for _, epoch := range []int32{2, 4, 6} {
		if err := leads(l, epoch); err != nil {
			t.Fatal(err)
		}
	}
	if found, end := l.EpochEnd(0); found != 0 || end != 1 || l.LatestEpoch() != 6 {
		t.Errorf("epoch 0 ends at %d, %d; the latest is %d", found, end, l.LatestEpoch())
	}
	if touched.Load() > 0 {
		t.Errorf("%d operations on the file for epochs without records", touched.Load())
	}
	appendIn(6)
	if got, want := file(), "0\n2\n0 0\n6 1\n"; got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
	if err := leads(l, 8); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	m.SetFault(nil)
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, smallConfig())
	if got := l.LatestEpoch(); got != 6 {
		t.Errorf("after a restart the latest epoch is %d", got)
	}
	appendIn(10)
	if got, want := file(), "0\n3\n0 0\n6 1\n10 2\n"; got != want {
		t.Errorf("the file holds %q, want %q", got, want)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
