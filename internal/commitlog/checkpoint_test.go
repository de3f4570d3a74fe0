package commitlog

import (
	"bytes"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// TestCheckpointAfterAStalledFlushFlushesAll: a checkpoint that gave up, as the disk stood still for too long, has flushed
// nothing; the next one flushes the indexes and the producer state that it lets recovery rely on.
func TestCheckpointAfterAStalledFlushFlushesAll(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
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
