package commitlog

import (
	"errors"
	"fmt"
	"sync/atomic"
	"syscall"
	"testing"

	"barnabas/internal/disk"
)

// TestTruncationThatIsStoppedMidwayIsCompletedFirst: a full disk, or want of descriptors, at any step of a truncation
// leaves a log that takes nothing before the rest is done: what it knows of producers and of epochs is then of what it
// still has. Whoever took a batch that was cut for one that is there would acknowledge its retry, and lose it.
func TestTruncationThatIsStoppedMidwayIsCompletedFirst(t *testing.T) {
	for _, cause := range []syscall.Errno{syscall.ENOSPC, syscall.EMFILE} {
		for closes := range 2 {
			for step := int64(1); ; step++ {
				if !stopTruncation(t, cause, step, closes == 1) {
					if step < 5 {
						t.Fatalf("%v: a truncation has %d steps", cause, step)
					}
					break
				}
			}
		}
	}
}

// stopTruncation lets the step of that number fail, and all that follow; false: there is none.
func stopTruncation(t *testing.T, cause syscall.Errno, step int64, closes bool) (failed bool) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	defer func() { _ = d.Close() }()
	cfg := smallConfig()
	cfg.SegmentBytes = 400
	l := mustLog(t, d, cfg)
	what := fmt.Sprintf("%v at step %d, closed %v", cause, step, closes)
	must := func(doing string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %s: %v", what, doing, err)
		}
	}
	for offset := range int32(10) {
		b := produced(7, 0, offset, int(offset), 1)
		b.Assign(int64(offset), 1+offset/5) // epoch 2 begins at 5
		must("copy", errors.Join(l.Follow(2), l.AppendAt(b)))
	}
	flush(t, l)
	d.keeper.checkpoint()
	must("begin epoch 3", l.Follow(3))
	var ops atomic.Int64
	m.SetFault(func(op disk.Op) error {
		takes := op.Kind == disk.OpOpen || op.Kind == disk.OpSyncDir
		if cause == syscall.ENOSPC {
			takes = op.Kind == disk.OpWrite || op.Kind == disk.OpRename
		}
		if takes && ops.Add(1) >= step {
			return cause
		}
		return nil
	})
	err := l.TruncateFollowing(3, 3)
	if failed = err != nil; failed && !errors.Is(err, ErrNoSpace) {
		t.Fatalf("%s: %v", what, err)
	}
	for range 3 { // whatever is refused now
		_ = l.TruncateFollowing(3, 3)
		again := sent(l.Progress().End, 1)
		_, _ = l.Replicate(again, 3)
		if cause == syscall.ENOSPC { // without descriptors it would wait for a flush
			d.keeper.checkpoint()
		}
	}
	failed = failed || ops.Load() >= step
	m.SetFault(nil)
	must("goes offline", d.Offline())
	must("truncate", l.TruncateFollowing(3, 3))
	if closes {
		must("close", d.Close())
		d = mustOpen(t, testOptions(m))
		defer func() { _ = d.Close() }()
		l = mustLog(t, d, cfg)
		must("begin epoch 3", l.Follow(3))
	}
	if p := l.Progress(); p.End != 3 || l.LatestEpoch() != 1 {
		t.Fatalf("%s: %+v, epoch %d", what, p, l.LatestEpoch())
	}
	next := produced(8, 0, 0, 100, 1)
	next.Assign(3, 1)
	_, err = l.Replicate(next, 3)
	must("copy", err)
	must("lead", leads(l, 4))
	a, err := l.Append(produced(7, 0, 3, 3, 1), AppendOptions{LeaderEpoch: 4, NowMs: testNow})
	if err != nil || a.Duplicate || a.First != 4 {
		t.Fatalf("%s: what was cut, sent again: %+v, %v", what, a, err)
	}
	a, err = l.Append(produced(7, 0, 3, 3, 1), AppendOptions{LeaderEpoch: 4, NowMs: testNow})
	if err != nil || !a.Duplicate || a.First != 4 {
		t.Fatalf("%s: what was just written, sent again: %+v, %v", what, a, err)
	}
	flush(t, l)
	crashed := m.Crash(uint64(step))
	abandon(d)
	d = mustOpen(t, testOptions(crashed))
	defer func() { _ = d.Close() }()
	l = mustLog(t, d, cfg)
	got := readAll(t, l, 1<<20)
	if len(got) != 5 || l.EpochAt(3) != 1 || l.EpochAt(4) != 4 {
		t.Fatalf("%s: after a crash %d records, epochs %d and %d", what, len(got), l.EpochAt(3), l.EpochAt(4))
	}
	for i, want := range []int{0, 1, 2, 100, 3} {
		if got[i].value != string(recordValue(want, 20)) {
			t.Fatalf("%s: offset %d holds %s", what, i, got[i].value)
		}
	}
	return failed
}
