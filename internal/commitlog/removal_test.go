package commitlog

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"barnabas/internal/disk"
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
		if err := d.Remove(append(all, TopicPartition{"never-there", 0})...); err != nil {
			t.Fatal(err)
		}
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
	if err := d.Remove(testTopic); !errors.Is(err, ErrNoSpace) || d.Offline() != nil {
		t.Fatal(err, d.Offline())
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
