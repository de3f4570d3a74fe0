package commitlog

import (
	"errors"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// TestWantOfDescriptorsIsNoFailedDisk: an append that cannot open its file is refused and changes nothing, a flush
// waits, and neither condemns the directory.
func TestWantOfDescriptorsIsNoFailedDisk(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
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

// TestWantOfDescriptorsWhileAPreallocatedLogRolls: whichever file it is that cannot be opened, the log goes on once there are
// descriptors, and a start finds all of it.
func TestWantOfDescriptorsWhileAPreallocatedLogRolls(t *testing.T) {
	for opens := range 6 {
		faketime.Test(t, func(t *testing.T) {
			mem := disk.NewMem()
			d := mustOpen(t, testOptions(mem))
			cfg := smallConfig()
			cfg.Preallocate = true
			l := mustLog(t, d, cfg)
			h, refused := &history{}, 0
			for i := 0; i < 60 || refused == 0; i++ {
				if i == 20 {
					left := opens
					mem.SetFault(func(op disk.Op) error {
						if left--; op.Kind == disk.OpOpen && left < 0 {
							return syscall.EMFILE
						}
						return nil
					})
				}
				if i == 1000 {
					t.Fatalf("after %d more operations: nothing was refused", opens)
				}
				size := 300 - 2*min(len(h.values), 100) // after one that did not fit comes one that may
				switch a, err := l.Append(records(len(h.values), 1, size), AppendOptions{NowMs: testNow}); {
				case err == nil:
					h.add(a, len(h.values), 1, size)
				case errors.Is(err, ErrExhausted):
					if refused++; refused == 2 {
						mem.SetFault(nil)
					}
				default:
					t.Fatalf("after %d more operations: %v", opens, err)
				}
			}
			mem.SetFault(nil)
			flush(t, l)
			mem = mem.Kill()
			abandon(d)
			d = mustOpen(t, testOptions(mem))
			checkSurvivors(t, mustLog(t, d, cfg), h, int64(len(h.values)))
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestBecomingDurableFlushesWhatIsThere: what was written while the topic was not durable is flushed when it becomes so.
func TestBecomingDurableFlushesWhatIsThere(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
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
	faketime.Test(t, func(t *testing.T) {
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
		remove(d, TopicPartition{"gone", 0})
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
