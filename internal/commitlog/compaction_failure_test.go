package commitlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"barnabas/internal/commitlog/compact"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// stages lists what compaction has left behind unfinished.
func stages(t *testing.T, m *disk.Mem, l *Log) (left []string) {
	t.Helper()
	for _, name := range mustList(t, m, l.path) {
		if strings.HasSuffix(name, segment.CleanedSuffix) || strings.HasSuffix(name, segment.SwapSuffix) {
			left = append(left, name)
		}
	}
	return left
}

// TestSegmentsThatGoMeanwhileEndACompaction: whenever retention takes segments that are being compacted, nothing takes their
// place, and nothing but they is lost.
func TestSegmentsThatGoMeanwhileEndACompaction(t *testing.T) {
	ended := 0
	for at := int64(1); ; at++ {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, keyedConfig())
		fillKeys(t, l, 60, 6)
		want := lastValues(keysOf(t, l))
		d.keeper.shut(d.files.Open())
		var steps atomic.Int64
		m.SetFault(func(op disk.Op) error {
			reads := strings.HasSuffix(op.Path, segment.DataSuffix) && (op.Kind == disk.OpOpen || op.Kind == disk.OpRead)
			writes := strings.HasSuffix(op.Path, segment.CleanedSuffix) && op.Kind != disk.OpRename && op.Kind != disk.OpRemove
			if (reads || writes) && steps.Add(1) == at {
				return l.AdvanceStart(20)
			}
			return nil
		})
		err := compactOnce(t, l, time.UnixMilli(testNow))
		m.SetFault(nil)
		if err != nil && !errors.Is(err, errOvertaken) && !errors.Is(err, segment.ErrGone) {
			t.Fatalf("at step %d: %v", at, err)
		}
		if err != nil {
			ended++
		}
		if left := stages(t, m, l); len(left) > 0 || d.Offline() != nil {
			t.Fatalf("at step %d: %v are left, offline: %v", at, left, d.Offline())
		}
		if got := lastValues(keysOf(t, l)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("at step %d: %v, want %v", at, got, want)
		}
		m = m.Crash(uint64(at))
		abandon(d)
		d = mustOpen(t, testOptions(m))
		l = mustLog(t, d, keyedConfig())
		l.AdvanceHighWatermark(l.Progress().End)
		mustCompact(t, l, time.UnixMilli(testNow))
		if got := lastValues(keysOf(t, l)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("at step %d, after a crash: %v, want %v", at, got, want)
		}
		_ = d.Close()
		if steps.Load() < at {
			break
		}
	}
	if ended < 10 {
		t.Fatalf("%d compactions were overtaken", ended)
	}
}

// TestASegmentSaysThatItIsGoneBeforeItsFilesAre: a compaction that comes to a segment whose files retention is renaming hears
// that it is gone, which is no failure; before it hears so, the files are there.
func TestASegmentSaysThatItIsGoneBeforeItsFilesAre(t *testing.T) {
	m := disk.NewMem()
	o, out := withLog(testOptions(m))
	d := mustOpen(t, o)
	l := mustLog(t, d, keyedConfig())
	fillKeys(t, l, 60, 6)
	d.keeper.shut(d.files.Open())
	reached, goOn, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	first := (*l.segments.Load())[0]
	var opened, renamed atomic.Int64
	var failure error
	m.SetFault(func(op disk.Op) error {
		switch {
		case op.Kind == disk.OpOpen && op.Path == first.Path(segment.DataSuffix) && opened.Add(1) == 1:
			close(reached)
			<-goOn
		case op.Kind == disk.OpRename && strings.HasSuffix(op.To, segment.DeletedSuffix) && renamed.Add(1) == 2:
			close(goOn) // the first file has its other name
			failure = <-done
		}
		return nil
	})
	go func() { done <- compactOnce(t, l, time.UnixMilli(testNow)) }()
	<-reached
	if err := l.AdvanceStart(20); err != nil {
		t.Fatal(err)
	}
	m.SetFault(nil)
	if !errors.Is(failure, segment.ErrGone) {
		t.Fatalf("the compaction: %v", failure)
	}
	c := NewCleaner(CleanerOptions{Logger: o.Logger})
	defer c.Close()
	if c.giveUp(l, failure); strings.Contains(out.String(), "compact") || l.uncleanable.Load() {
		t.Fatalf("it is taken for a failure: %s", out)
	}
	_ = d.Close()
}

// TestACompactionThatFailedIsTriedAgainLater: once for each rest of the cleaner, until what kept it from succeeding has passed;
// other logs, however much less there is to do, are compacted meanwhile.
func TestACompactionThatFailedIsTriedAgainLater(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m := disk.NewMem()
		logged := &lines{}
		c := NewCleaner(CleanerOptions{Threads: 1, Backoff: time.Minute, Logger: slog.New(slog.NewTextHandler(logged, nil))})
		o := testOptions(m)
		o.Cleaner = c
		d := mustOpen(t, o)
		defer c.Close()
		defer func() { _ = d.Close() }()
		var logs []*Log
		for i := range int32(2) {
			l, err := d.Log(TopicPartition{"t", i}, [16]byte{byte(i + 1)}, keyedConfig())
			if err != nil {
				t.Fatal(err)
			}
			logs = append(logs, l)
		}
		bad, good := logs[0], logs[1]
		m.SetFault(func(op disk.Op) error {
			if op.Kind == disk.OpWrite && strings.HasPrefix(op.Path, bad.path+"/") && strings.HasSuffix(op.Path, segment.CleanedSuffix) {
				return &disk.Short{Err: syscall.EINVAL}
			}
			return nil
		})
		fillKeys(t, good, 20, 2)
		time.Sleep(90 * time.Second)
		fillKeys(t, bad, 60, 6) // all of it is dirty
		time.Sleep(10*time.Minute + time.Second)
		before := good.Compacted()
		if n := c.Stats().Failures.Load(); n < 9 || n > 11 || before == 0 {
			t.Fatalf("%d failures in ten minutes of which each should see one; the other log is compacted up to %d", n, before)
		}
		fillKeys(t, good, 20, 2) // a part of it is
		time.Sleep(2 * time.Minute)
		if good.Compacted() == before {
			t.Fatal("a log that cannot be compacted keeps another from it")
		}
		if c.Stats().Uncleanable.Load() != 0 || bad.Compacted() != 0 || !strings.Contains(logged.String(), "it is tried again") {
			t.Fatalf("%d logs are left alone, compacted up to %d, logged: %s", c.Stats().Uncleanable.Load(), bad.Compacted(), logged)
		}
		m.SetFault(nil)
		time.Sleep(time.Minute)
		if bad.Compacted() == 0 || len(keysOf(t, bad)) > 20 {
			t.Fatalf("compacted up to %d once that was possible", bad.Compacted())
		}
	})
}

// TestALogWhoseCompactionFailedIsNotPutOffForEver: where others are always due it comes last, but only for a while; and one
// that was merely overtaken does not.
func TestALogWhoseCompactionFailedIsNotPutOffForEver(t *testing.T) {
	o, _ := withLog(testOptions(disk.NewMem()))
	c := NewCleaner(CleanerOptions{Threads: 1, Backoff: time.Hour, Logger: o.Logger, Now: func() time.Time { return time.UnixMilli(testNow) }})
	defer c.Close()
	d := mustOpen(t, o)
	defer func() { _ = d.Close() }()
	dirty := mustLog(t, d, keyedConfig())
	other, err := d.Log(TopicPartition{"other", 0}, [16]byte{7}, keyedConfig())
	if err != nil {
		t.Fatal(err)
	}
	fillKeys(t, other, 40, 10)
	mustCompact(t, other, time.UnixMilli(testNow))
	fillKeys(t, other, 30, 10)
	fillKeys(t, dirty, 60, 10)
	c.mu.dirs[d] = true // without its workers, which would compact them
	chosen := func(after time.Duration, want *Log) {
		t.Helper()
		l, r := c.choose(time.UnixMilli(testNow).Add(after))
		if l != want {
			t.Fatalf("after %v %v is chosen", after, l.ID())
		}
		r.cancel()
		delete(c.mu.busy, l)
	}
	chosen(0, dirty)
	c.giveUp(dirty, fmt.Errorf("cut meanwhile: %w", errOvertaken))
	chosen(0, dirty)
	c.giveUp(dirty, errors.New("a bad day"))
	chosen(0, other)
	chosen(lastForRests*time.Hour-1, other)
	chosen(lastForRests*time.Hour, dirty)
	c.giveUp(dirty, fmt.Errorf("write: %w", ErrNoSpace))
	chosen(0, other)
	c.succeeded(dirty)
	chosen(0, dirty)
	c.giveUp(dirty, errors.New("another"))
	if c.remove(d); len(c.mu.failed) > 0 {
		t.Error("a directory that is closed is remembered")
	}
}

// TestACompactionThatOutgrowsASegmentLeavesTheLogAsItWas: batches that lost records may be longer than before. What is then
// superseded must not stay below what counts as compacted, so nothing counts as that.
func TestACompactionThatOutgrowsASegmentLeavesTheLogAsItWas(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, keyedConfig())
	for i := range 40 { // half of each batch is superseded
		mustAppend(t, l, keyedBatch(fmt.Sprintf("key-%d=%s", i%3, recordValue(i, 40)), fmt.Sprintf("own-%d=%s", i, recordValue(i, 40))))
	}
	flush(t, l)
	l.AdvanceHighWatermark(l.Progress().End)
	records, files, size := keysOf(t, l), l.Segments(), l.Size()
	found, err := l.dirt(testNow)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := compact.NewMap(1<<16, 0.9)
	if err != nil {
		t.Fatal(err)
	}
	defer keys.Free()
	stretch, generation, err := l.stretch(found.from, found.upTo, testNow)
	if err != nil {
		t.Fatal(err)
	}
	stretch.MostBytes = 300
	pass := compact.NewPass(compact.Tools{Checker: l.dir.checker, Throttle: freeThrottle(), Keys: keys, BufferBytes: 8192}, stretch)
	_, err = l.cleanStretch(context.Background(), pass, generation)
	var damage *compact.Damage
	if err == nil || errors.As(err, &damage) || !strings.Contains(err.Error(), "larger than a segment") {
		t.Fatalf("the compaction: %v", err)
	}
	if left := stages(t, m, l); len(left) > 0 || l.Compacted() != 0 || d.Offline() != nil {
		t.Fatalf("%v are left, compacted up to %d, offline: %v", left, l.Compacted(), d.Offline())
	}
	if !slices.Equal(keysOf(t, l), records) || l.Size() != size || fmt.Sprint(l.Segments()) != fmt.Sprint(files) {
		t.Fatalf("the log became %v of %d bytes: %v", l.Segments(), l.Size(), keysOf(t, l))
	}
	mustCompact(t, l, time.UnixMilli(testNow))
	if got := keysOf(t, l); len(got) >= len(records) || fmt.Sprint(lastValues(got)) != fmt.Sprint(lastValues(records)) {
		t.Fatalf("compacted afterwards: %v", got)
	}
	_ = d.Close()
}

func freeThrottle() *compact.Throttle {
	throttle := &compact.Throttle{}
	throttle.SetRate(math.MaxFloat64)
	return throttle
}

// TestNewLogIsNotTakenForACompactedOne: a log that is deleted and made again must not inherit that there may be gaps in it, not
// even where the old one's first compaction had not got anywhere.
func TestNewLogIsNotTakenForACompactedOne(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, keyedConfig())
	fillKeys(t, l, 5, 1)
	if err := l.markCompacted(); err != nil {
		t.Fatal(err)
	}
	if to, known := d.points.cleaned[testTopic]; to != 0 || !known {
		t.Fatalf("the line says %d (%v)", to, known)
	}
	remove(d, testTopic)
	l = mustLog(t, d, smallConfig())
	mustAppend(t, l, records(0, 1, 10))
	flush(t, l)
	m = m.Kill()
	abandon(d)
	d = mustOpen(t, testOptions(m))
	if l = mustLog(t, d, smallConfig()); l.cleaned.Load() {
		t.Fatal("the new log is known as one that compaction may have left gaps in")
	}
	_ = d.Close()
}
