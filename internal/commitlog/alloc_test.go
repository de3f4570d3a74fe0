package commitlog

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"barnabas/internal/disk"
)

// TestAppendsAndReadsAllocateLittle pins the hot path, on a real disk.
func TestAppendsAndReadsAllocateLittle(t *testing.T) {
	o := testOptions(disk.OS)
	o.Path = t.TempDir()
	d := mustOpen(t, o)
	cfg := DefaultConfig()
	cfg.FlushBeforeAck, cfg.TimestampAfterMaxMs = false, 1<<60
	l := mustLog(t, d, cfg)
	b := records(0, 10, 100)
	epoch := int32(0)
	appends := testing.AllocsPerRun(500, func() {
		if _, err := l.Append(b, AppendOptions{LeaderEpoch: epoch, NowMs: testNow}); err != nil {
			t.Fatal(err)
		}
		b.Assign(0, -1)
	})
	if appends > 0 {
		t.Errorf("%v allocations for each append", appends)
	}
	sequence := int32(0)
	idempotent := testing.AllocsPerRun(500, func() {
		b.SetProducer(7, 0, sequence, false)
		b.Assign(0, -1)
		sequence += 10
		if _, err := l.Append(b, AppendOptions{LeaderEpoch: epoch, NowMs: testNow}); err != nil {
			t.Fatal(err)
		}
	})
	if idempotent > 0 {
		t.Errorf("%v allocations for each append of an idempotent producer", idempotent)
	}
	end := l.Progress().End
	tail := testing.AllocsPerRun(500, func() {
		r, err := l.Read(end-10, 1<<20, end, true)
		if err != nil || r.Len() == 0 {
			t.Fatal(err)
		}
		_ = r.Close()
	})
	if tail > 1 {
		t.Errorf("%v allocations for each read at the tail", tail)
	}
	empty := testing.AllocsPerRun(500, func() {
		if r, err := l.Read(end, 1<<20, end, true); err != nil || r.Len() != 0 {
			t.Fatal(err)
		}
	})
	if empty > 0 {
		t.Errorf("%v allocations for each read at the end", empty)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestReadsAtTheTailSearchNothing: no byte of the log or its index is read to find where a range begins and ends.
func TestReadsAtTheTailSearchNothing(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	ops := 0
	for i := range 300 {
		from := l.Progress().HighWatermark
		mustAppend(t, l, records(i, 1, 100))
		flush(t, l)
		l.AdvanceHighWatermark(l.Progress().Flushed)
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpRead {
				ops++
			}
			return nil
		})
		r, err := l.Read(from, 1<<20, l.Progress().HighWatermark, true)
		if err != nil || r.Len() == 0 {
			t.Fatal(err)
		}
		_ = r.Close()
		m.SetFault(nil)
	}
	if ops > 0 {
		t.Fatalf("%d reads for 300 ranges", ops)
	}
	// Who follows from the beginning continues where it stopped: one search of the index and the batches for each range's end.
	m.SetFault(func(op disk.Op) error {
		if op.Kind == disk.OpRead {
			ops++
		}
		return nil
	})
	ranges := 0
	for from := int64(0); from < 300; ranges++ {
		r, err := l.Read(from, 900, 300, true)
		if err != nil {
			t.Fatal(err)
		}
		from = r.Next
		_ = r.Close()
	}
	if ops > 4*ranges {
		t.Fatalf("%d reads for %d ranges", ops, ranges)
	}
	_ = d.Close()
}

func TestIdleLogsAreSmall(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	manyLogs(t, d, 1000, 50)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d = mustOpen(t, testOptions(m))
	for i := range 1000 {
		l, err := d.Log(TopicPartition{"many", int32(i)}, testID, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, records(i, 1, 50))
	}
	if err := d.flusher.flush(context.Background(), d.logs()...); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		d.keeper.closeIdle()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// The disk in memory grows by two pages a log.
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / 1000; each > 4096+2*4096 {
		t.Fatalf("%d bytes for an idle log", each)
	}
	runtime.KeepAlive(m)
	_ = d.Close()
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		for _, durable := range []bool{false, true} {
			b.Run(fmt.Sprintf("bytes=%d/durable=%v", size, durable), func(b *testing.B) {
				o := testOptions(disk.OS)
				o.Path = b.TempDir()
				d := mustOpen(b, o)
				cfg := DefaultConfig()
				cfg.FlushBeforeAck, cfg.TimestampAfterMaxMs = durable, 1<<60
				l := mustLog(b, d, cfg)
				made := records(0, size/140, 100)
				b.SetBytes(int64(len(made)))
				b.ReportAllocs()
				for b.Loop() {
					made.Assign(0, -1)
					if _, err := l.Append(made, AppendOptions{NowMs: testNow}); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(d.stats.Rounds.Load()), "rounds")
				_ = d.Close()
			})
		}
	}
}

func BenchmarkRead(b *testing.B) {
	o := testOptions(disk.OS)
	o.Path = b.TempDir()
	d := mustOpen(b, o)
	cfg := DefaultConfig()
	cfg.FlushBeforeAck, cfg.TimestampAfterMaxMs, cfg.SegmentBytes = false, 1<<60, 64<<20
	l := mustLog(b, d, cfg)
	made := records(0, 10, 100)
	for range 100_000 {
		made.Assign(0, -1)
		mustAppend(b, l, made)
	}
	end := l.Progress().End
	for name, next := range map[string]func(from int64) int64{
		"follow": func(from int64) int64 { return from },
		"random": func(from int64) int64 { return (from * 7919) % (end - 1000) },
		"tail":   func(int64) int64 { return end - 20 },
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			from := int64(0)
			for b.Loop() {
				if from >= end {
					from = 0
				}
				r, err := l.Read(next(from), 1<<20, end, true)
				if err != nil {
					b.Fatal(err)
				}
				from = r.Next
				_ = r.Close()
			}
		})
	}
	_ = d.Close()
}
