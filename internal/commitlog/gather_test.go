package commitlog

import (
	"testing"
	"testing/synctest"
	"time"

	"barnabas/internal/commitlog/gather"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// TestCoordinatorsShareFlushRounds: what coordinators write is flushed at once while few of them write, and otherwise waits
// for others: for half of those that wrote of late, for somebody who does not wait, or for gather.AtMost.
func TestCoordinatorsShareFlushRounds(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		o := testOptions(disk.NewMem())
		o.Now = time.Now
		d := mustOpen(t, o)
		defer func() { _ = d.Close() }()
		logs := manyLogs(t, d, 20, 50)
		time.Sleep(time.Second)
		next := 0
		own := func(l *Log) {
			t.Helper()
			next++
			if _, err := l.Append(records(next, 1, 50), AppendOptions{Origin: Coordinator, NowMs: testNow}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		flushed := func(l *Log, want bool, when string) {
			t.Helper()
			synctest.Wait()
			if p := l.Progress(); (p.Flushed == p.End) != want {
				t.Fatalf("%s: flushed up to %d, the end is %d", when, p.Flushed, p.End)
			}
		}
		busy := func() { // all have written in the last few milliseconds, and nobody waits
			t.Helper()
			time.Sleep(time.Second)
			for _, l := range logs {
				own(l)
				time.Sleep(100 * time.Microsecond)
			}
			time.Sleep(gather.AtMost)
			for _, l := range logs {
				flushed(l, true, "after the longest wait")
			}
		}

		for range 3 {
			own(logs[0])
			flushed(logs[0], true, "a coordinator alone")
		}
		for i := range 6 {
			own(logs[i%2])
			flushed(logs[i%2], true, "two that take turns")
		}

		busy()
		time.Sleep(gather.Window / 2) // another window has begun
		own(logs[0])
		time.Sleep(gather.AtMost - time.Microsecond)
		flushed(logs[0], false, "before the longest wait is over")
		time.Sleep(2 * time.Microsecond)
		flushed(logs[0], true, "after it")

		busy()
		for _, l := range logs[:9] {
			own(l)
		}
		flushed(logs[0], false, "with nine of twenty waiting")
		own(logs[9])
		for _, l := range logs[:10] {
			flushed(l, true, "with ten of twenty")
		}

		busy()
		own(logs[0])
		flushed(logs[0], false, "one of twenty")
		mustAppend(t, logs[1], records(next, 1, 50))
		flushed(logs[0], true, "once a producer writes to another log")

		busy()
		own(logs[0])
		flushed(logs[0], false, "one of twenty again")
		mustAppend(t, logs[0], records(next, 1, 50))
		flushed(logs[0], true, "once a producer writes to the same log")

		busy()
		own(logs[0])
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		flushed(logs[0], true, "after Close")
		rounds := d.stats.Rounds.Load()
		time.Sleep(time.Second)
		if got := d.stats.Rounds.Load(); got != rounds {
			t.Errorf("%d rounds after Close", got-rounds)
		}
	})
}
