package commitlog

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/disk"
)

// TestWantOfDescriptorsIsNoFailedDisk: an append that cannot open its file is refused and changes nothing, a flush
// waits, and neither condemns the directory.
func TestWantOfDescriptorsIsNoFailedDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		d := mustOpen(t, testOptions(mem))
		defer func() { _ = d.Close() }()
		l := mustLog(t, d, DefaultConfig())
		none := func(op disk.Op) error {
			if op.Kind == disk.OpOpen || op.Kind == disk.OpSyncDir {
				return syscall.EMFILE
			}
			return nil
		}
		mem.SetFault(none)
		if _, err := l.Append(records(0, 1, 10), AppendOptions{NowMs: testNow}); !errors.Is(err, ErrExhausted) || !errors.Is(err, ErrNoSpace) {
			t.Fatalf("append without descriptors: %v, want %v", err, ErrExhausted)
		}
		mem.SetFault(nil)
		a, err := l.Append(records(0, 1, 10), AppendOptions{NowMs: testNow})
		if err != nil || a.First != 0 {
			t.Fatalf("append with descriptors: %+v, %v", a, err)
		}
		synctest.Wait()
		mem.SetFault(none)
		if _, err := l.Append(records(0, 1, 10), AppendOptions{NowMs: testNow}); err != nil {
			t.Fatalf("append to an open file: %v", err)
		}
		<-time.After(time.Second)
		mem.SetFault(nil)
		<-time.After(time.Second)
		if p := l.Progress(); p.Flushed != 2 || d.Offline() != nil {
			t.Fatalf("%+v, offline %v: want everything flushed once there are descriptors", p, d.Offline())
		}
	})
}

// TestBecomingDurableFlushesWhatIsThere: what was written while the topic was not durable is flushed when it becomes so.
func TestBecomingDurableFlushesWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		d := mustOpen(t, testOptions(mem))
		defer func() { _ = d.Close() }()
		cfg := DefaultConfig()
		cfg.FlushBeforeAck = false
		l := mustLog(t, d, cfg)
		if _, err := l.Append(records(0, 2, 10), AppendOptions{NowMs: testNow}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if p := l.Progress(); p.Flushed != 0 {
			t.Fatalf("%+v before", p)
		}
		cfg.FlushBeforeAck = true
		l.Reconfigure(cfg)
		synctest.Wait()
		if p := l.Progress(); p.Flushed != 2 {
			t.Fatalf("%+v after, want 2 flushed", p)
		}
	})
}

// TestRemovedLogsLeaveNoRecoveryPoints: the checkpoint does not remember topics that are gone.
func TestRemovedLogsLeaveNoRecoveryPoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := disk.NewMem()
		d := mustOpen(t, testOptions(mem))
		for _, name := range []string{"kept", "gone"} {
			l, err := d.Log(TopicPartition{name, 0}, [16]byte{1}, DefaultConfig())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := l.Append(records(0, 1, 10), AppendOptions{NowMs: testNow}); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		d.keeper.checkpoint()
		if err := d.Remove(TopicPartition{"gone", 0}); err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		again := mustOpen(t, testOptions(mem))
		defer func() { _ = again.Close() }()
		offsets, err := again.readOffsets(recoveryPointFile)
		if err != nil || len(offsets) != 1 {
			t.Fatalf("%v, %v: want a line for the log that is left", offsets, err)
		}
	})
}
