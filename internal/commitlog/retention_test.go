package commitlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// clock is a time that a test moves.
type clock struct{ ms atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.ms.Store(testNow)
	return c
}

func (c *clock) now() time.Time { return time.UnixMilli(c.ms.Load()) }

func at(ms int64, n int) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for i := range n {
		b.Append(ms, nil, recordValue(i, 100), nil)
	}
	made, err := b.Build()
	if err != nil {
		panic(err)
	}
	return made
}

func TestSegmentsRollBySizeTimeAndIndex(t *testing.T) {
	for _, c := range []struct {
		name string
		set  func(*Config)
		step int64 // ms between batches
	}{
		{"size", func(c *Config) { c.SegmentBytes = 1000 }, 0},
		{"time", func(c *Config) { c.SegmentMs = 5000 }, 1000},
		{"index", func(c *Config) { c.IndexIntervalBytes, c.IndexMaxBytes = 0, 32 }, 1},
	} {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		cfg := DefaultConfig()
		cfg.TimestampAfterMaxMs = 1 << 60
		c.set(&cfg)
		l := mustLog(t, d, cfg)
		for i := range 30 {
			mustAppend(t, l, at(testNow+int64(i)*c.step, 1))
		}
		infos := l.Segments()
		if len(infos) < 4 {
			t.Fatalf("%s: %d segments", c.name, len(infos))
		}
		for i, s := range infos {
			if s.Size > int64(cfg.SegmentBytes) || (i > 0 && s.Base != infos[i-1].Next) || s.Active != (i == len(infos)-1) {
				t.Fatalf("%s: %+v", c.name, infos)
			}
		}
		if got := readAll(t, l, 1000); len(got) != 30 {
			t.Fatalf("%s: %d records", c.name, len(got))
		}
		_ = d.Close()
	}
}

func TestABatchLargerThanASegmentIsRefused(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := smallConfig()
	l := mustLog(t, d, cfg)
	if _, err := appendErr(l, records(0, 1, 3000)); !errors.Is(err, ErrLargerThanSegment) {
		t.Fatal(err)
	}
	_ = d.Close()
}

// TestRetentionByTimeDeletesWhatIsOlderConsumedOrNot is the document's example: two days.
func TestRetentionByTimeDeletesWhatIsOlderConsumedOrNot(t *testing.T) {
	m, c := disk.NewMem(), newClock()
	o := testOptions(m)
	o.Now = c.now
	d := mustOpen(t, o)
	cfg := smallConfig()
	cfg.SegmentBytes, cfg.RetentionMs, cfg.TimestampBeforeMaxMs = 1000, 2*24*3600_000, 1<<60
	l := mustLog(t, d, cfg)
	for hour := range int64(72) {
		mustAppend(t, l, at(testNow+hour*3600_000, 1))
	}
	flush(t, l)
	c.ms.Store(testNow + 72*3600_000)
	d.keeper.retain()
	if p := l.Progress(); p.Start != 0 {
		t.Fatalf("deleted above the high watermark: %+v", p)
	}
	l.AdvanceHighWatermark(72)
	d.keeper.retain()
	p := l.Progress()
	if p.Start < 15 || p.Start > 24 {
		t.Fatalf("start is %d, 24 hours are too old", p.Start)
	}
	if _, err := l.Read(p.Start-1, 100, 72, true); !errors.Is(err, ErrOutOfRange) {
		t.Fatalf("read before the start: %v", err)
	}
	if got := readAll(t, l, 500); int64(len(got)) != 72-p.Start {
		t.Fatalf("%d records from %d", len(got), p.Start)
	}
	c.ms.Store(testNow + 200*3600_000)
	d.keeper.retain()
	if p := l.Progress(); p.Start != 72 || p.End != 72 || len(l.Segments()) != 1 || l.Size() != 0 {
		t.Fatalf("everything has expired: %+v %+v", p, l.Segments())
	}
	mustAppend(t, l, at(testNow, 1))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, o)
	if p := mustLog(t, d, cfg).Progress(); p.Start != 72 || p.End != 73 {
		t.Fatalf("after a restart: %+v", p)
	}
	_ = d.Close()
}

func TestRetentionBySizeKeepsAtLeastThatMuch(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := smallConfig()
	cfg.RetentionBytes, cfg.RetentionMs = 5000, -1
	l := mustLog(t, d, cfg)
	for i := range 100 {
		mustAppend(t, l, records(i, 1, 100))
	}
	l.AdvanceHighWatermark(100)
	d.keeper.retain()
	if size, first := l.Size(), l.Segments()[0].Size; size < 5000 || size-first >= 5000 {
		t.Fatalf("%d bytes are left, the first segment has %d", size, first)
	}
	cfg.Delete = false
	l.Reconfigure(cfg)
	size := l.Size()
	cfg.RetentionBytes = 0
	l.Reconfigure(cfg)
	d.keeper.retain()
	if l.Size() != size {
		t.Fatal("deleted although cleanup.policy does not say delete")
	}
	_ = d.Close()
}

func TestDeletedSegmentsCanBeReadByWhoHoldsThem(t *testing.T) {
	m, c := disk.NewMem(), newClock()
	o := testOptions(m)
	o.Now = c.now
	d := mustOpen(t, o)
	l := mustLog(t, d, smallConfig())
	for i := range 60 {
		mustAppend(t, l, records(i, 1, 100))
	}
	l.AdvanceHighWatermark(60)
	r, err := l.Read(0, 1000, 60, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AdvanceStart(50); err != nil {
		t.Fatal(err)
	}
	list := func(suffix string) (n int) {
		entries, err := m.List(l.path)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasSuffix(e.Name, suffix) {
				n++
			}
		}
		return n
	}
	if list(segment.DeletedSuffix) == 0 {
		t.Fatal("nothing waits to be removed")
	}
	d.keeper.remove(d.keeper.graves.TakeDue(c.now().Add(59 * time.Second)))
	if list(segment.DeletedSuffix) == 0 {
		t.Fatal("removed before file.delete.delay.ms")
	}
	d.keeper.remove(d.keeper.graves.TakeDue(c.now().Add(61 * time.Second)))
	if list(segment.DeletedSuffix) != 0 {
		t.Fatal("not removed")
	}
	if data, err := r.AppendTo(nil); err != nil || len(data) == 0 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if err := errors.Join(r.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
}

func TestStartSurvivesARestart(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	for i := range 30 {
		mustAppend(t, l, records(i, 1, 100))
	}
	l.AdvanceHighWatermark(30)
	if err := l.AdvanceStart(17); err != nil {
		t.Fatal(err)
	}
	if err := l.AdvanceStart(31); !errors.Is(err, ErrOutOfRange) {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := disk.ReadFile(m, "/data/"+startOffsetFile, 1000)
	if err != nil || string(data) != "0\n1\norders 3 17\n" {
		t.Fatalf("%q %v", data, err)
	}
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, smallConfig())
	if p := l.Progress(); p.Start != 17 || p.HighWatermark != 30 {
		t.Fatalf("%+v", p)
	}
	_ = d.Close()
}

// TestTruncatedLogsSurviveCrashesWithoutWhatWasCut plays appends, flushes, truncations and restarts: what raft and
// followers do.
func TestTruncatedLogsSurviveCrashesWithoutWhatWasCut(t *testing.T) {
	for seed := range uint64(200) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 5))
			m, h, serial := disk.NewMem(), &history{}, 0
			d := mustOpen(t, testOptions(m))
			l := mustLog(t, d, smallConfig())
			for round := range uint64(5) {
				flushed := int64(0)
				for range 1 + r.IntN(4) {
					flushed = crashRound(t, r, l, h, &serial)
					if r.IntN(3) > 0 {
						continue
					}
					to := r.Int64N(int64(len(h.values)) + 1)
					if err := l.Truncate(to); err != nil {
						t.Fatal(err)
					}
					p := l.Progress()
					if p.End > to || p.End < to-6 || p.HighWatermark > p.End || p.Flushed > p.End {
						t.Fatalf("truncated to %d: %+v", to, p)
					}
					h.values = h.values[:p.End]
					flushed = p.Flushed
					if e := l.LatestEpoch(); p.End == 0 && e >= 0 {
						t.Fatalf("an empty log has epoch %d", e)
					}
				}
				m = m.Crash(seed*7 + round)
				abandon(d)
				d = mustOpen(t, testOptions(m))
				l = mustLog(t, d, smallConfig())
				checkSurvivors(t, l, h, flushed)
			}
			_ = d.Close()
		})
	}
}

func TestRestartedLogBeginsAnywhere(t *testing.T) {
	for seed := range uint64(50) {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, smallConfig())
		if seed%2 == 0 {
			for i := range 40 {
				mustAppend(t, l, produced(9, 0, int32(i), i, 1))
			}
			if seed%4 == 0 {
				flush(t, l)
				d.keeper.checkpoint()
			}
		}
		if err := l.Restart(1000); err != nil {
			t.Fatal(err)
		}
		if states, err := l.Producers(); err != nil || len(states) != 0 {
			t.Fatalf("%+v %v", states, err)
		}
		m2 := m.Crash(seed)
		abandon(d)
		d = mustOpen(t, testOptions(m2))
		l = mustLog(t, d, smallConfig())
		if p := l.Progress(); p.Start != 1000 || p.End != 1000 {
			t.Fatalf("seed %d: %+v", seed, p)
		}
		b := records(0, 3, 20)
		b.Assign(1000, 4)
		if err := l.AppendAt(b); err != nil {
			t.Fatal(err)
		}
		b.Assign(1002, 4)
		if err := l.AppendAt(b); !errors.Is(err, ErrOutOfRange) {
			t.Fatal(err)
		}
		b[len(b)-1] ^= 1
		b.Assign(1003, 4)
		if err := l.AppendAt(b); !errors.Is(err, batch.ErrCorrupt) {
			t.Fatal(err)
		}
		if p := l.Progress(); p.End != 1003 || l.LatestEpoch() != 4 {
			t.Fatalf("seed %d: %+v epoch %d", seed, p, l.LatestEpoch())
		}
		_ = d.Close()
	}
}

func TestEpochsAnswerAsKafkaDoes(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	for i, epoch := range []int32{2, 2, 3, 7, 7, 7} {
		if _, err := l.Append(records(i, 2, 50), AppendOptions{LeaderEpoch: epoch, NowMs: testNow}); err != nil {
			t.Fatal(err)
		}
	}
	check := func(l *Log, asked, found int32, end int64) {
		t.Helper()
		if f, e := l.EpochEnd(asked); f != found || e != end {
			t.Fatalf("epoch %d ends at %d (%d), want %d (%d)", asked, e, f, end, found)
		}
	}
	all := func(l *Log) {
		t.Helper()
		check(l, 1, 1, 0) // older than all: where the oldest begins
		check(l, 2, 2, 4)
		check(l, 3, 3, 6)
		check(l, 5, 3, 6)
		check(l, 7, 7, 12)
		check(l, 8, -1, -1)
	}
	all(l)
	if l.EpochAt(5) != 3 || l.EpochAt(6) != 7 || l.LatestEpoch() != 7 {
		t.Fatal("epochs of offsets are wrong")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	path := "/data/orders-3/" + epochFile
	data, err := disk.ReadFile(m, path, 1000)
	if err != nil || string(data) != "0\n3\n2 0\n3 4\n7 6\n" {
		t.Fatalf("%q %v", data, err)
	}
	for _, how := range []string{"kept", "lost", "torn"} {
		switch how {
		case "lost":
			err = m.Remove(path)
		case "torn":
			err = disk.WriteFileAtomic(m, path, data[:9])
		}
		if err != nil {
			t.Fatal(err)
		}
		d = mustOpen(t, testOptions(m))
		l = mustLog(t, d, smallConfig())
		all(l)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		if again, err := disk.ReadFile(m, path, 1000); err != nil || string(again) != string(data) {
			t.Fatalf("%s: %q %v", how, again, err)
		}
	}
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, smallConfig())
	l.AdvanceHighWatermark(12)
	if err := errors.Join(l.Truncate(6), l.AdvanceStart(3)); err != nil {
		t.Fatal(err)
	}
	if data, _ := disk.ReadFile(m, path, 1000); string(data) != "0\n2\n2 3\n3 4\n" {
		t.Fatalf("%q", data)
	}
	_ = d.Close()
}
