package commitlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
)

// keyedBatch makes a batch from "key=value" and, for tombstones, "key".
func keyedBatch(records ...string) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for _, r := range records {
		key, value, has := strings.Cut(r, "=")
		if has {
			b.Append(testNow, []byte(key), []byte(value), nil)
		} else {
			b.Append(testNow, []byte(key), nil, nil)
		}
	}
	made, err := b.Build()
	if err != nil {
		panic(err)
	}
	return made
}

// keyedConfig compacts whatever is dirty, in segments of a few batches.
func keyedConfig() Config {
	cfg := smallConfig()
	cfg.Compact, cfg.Delete, cfg.MinCleanableRatio, cfg.SegmentBytes = true, false, 0, 600
	return cfg
}

// fillKeys writes n batches of one record, over few keys, and makes them stable.
func fillKeys(t testing.TB, l *Log, n, keys int) {
	t.Helper()
	for i := range n {
		mustAppend(t, l, keyedBatch(fmt.Sprintf("key-%d=%s", i%keys, recordValue(i, 60))))
	}
	flush(t, l)
	l.AdvanceHighWatermark(l.Progress().End)
}

// compactOnce compacts the log in the test's goroutine.
func compactOnce(t testing.TB, l *Log, now time.Time) error {
	t.Helper()
	c := NewCleaner(CleanerOptions{Now: func() time.Time { return now }})
	defer c.Close()
	d, err := l.dirt(now.UnixMilli())
	if err != nil || d.dirty == 0 {
		return err
	}
	o := CleanerOptions{Threads: 1, Now: func() time.Time { return now }}
	o.setDefaults()
	_, err = l.compact(context.Background(), d, &o, o.mapFor(d.upTo-d.from), &c.throttle)
	return err
}

func mustCompact(t testing.TB, l *Log, now time.Time) {
	t.Helper()
	if err := compactOnce(t, l, now); err != nil {
		t.Fatalf("compact: %v", err)
	}
}

// keysOf reads the log as "key=value@offset" and "key@offset".
func keysOf(t testing.TB, l *Log) (all []string) {
	t.Helper()
	p := l.Progress()
	for from := p.Start; from < p.End; {
		r, err := l.Read(from, 1<<20, p.End, true)
		if err != nil {
			t.Fatalf("read %d of %+v: %v", from, p, err)
		}
		data, err := r.AppendTo(nil)
		if err != nil {
			t.Fatalf("read %d of %+v: %v", from, p, err)
		}
		for len(data) > 0 {
			b, rest, err := batch.Next(data)
			if err != nil {
				t.Fatal(err)
			}
			for rec, err := range sharedChecker.Records(b) {
				switch {
				case err != nil:
					t.Fatal(err)
				case b.IsControl():
					all = append(all, fmt.Sprintf("marker@%d", b.OffsetOf(&rec)))
				case rec.Value == nil:
					all = append(all, fmt.Sprintf("%s@%d", rec.Key, b.OffsetOf(&rec)))
				default:
					all = append(all, fmt.Sprintf("%s=%s@%d", rec.Key, rec.Value, b.OffsetOf(&rec)))
				}
			}
			data = rest
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		from = r.Next
	}
	return all
}

// TestTrap09CompactionStopsAtADamagedBatch: what cannot be believed supersedes nothing, and nothing past it is served.
func TestTrap09CompactionStopsAtADamagedBatch(t *testing.T) {
	for _, where := range []int{0, 1, 2} {
		m := disk.NewMem()
		o, out := withLog(testOptions(m))
		c := NewCleaner(CleanerOptions{Logger: o.Logger})
		defer c.Close()
		o.Cleaner = c
		d := mustOpen(t, o)
		l := mustLog(t, d, keyedConfig())
		fillKeys(t, l, 40, 10)
		bad := l.Segments()[where]
		if err := m.FlipBit(bad.Path, bad.Size/2, 3); err != nil {
			t.Fatal(err)
		}
		before := l.Size()
		if c.next(&CleanerOptions{Threads: 1, LoadFactor: 0.9, IOBufferBytes: 8192, BufferBytes: 1 << 20, Logger: o.Logger, Now: func() time.Time { return time.UnixMilli(testNow) }}) {
			t.Fatalf("segment %d: compacted", where)
		}
		at, damaged := l.Damaged()
		if !damaged || at < bad.Base || at >= bad.Next || l.Size() != before || l.Compacted() != 0 {
			t.Fatalf("segment %d: damaged %v at %d of %d to %d, %d of %d bytes", where, damaged, at, bad.Base, bad.Next, l.Size(), before)
		}
		if _, err := l.Read(at, 100, math.MaxInt64, true); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("segment %d: read from %d: %v", where, at, err)
		}
		if !strings.Contains(out.String(), "log cannot be compacted") || !strings.Contains(out.String(), "log is damaged") {
			t.Fatalf("segment %d: no line says so: %s", where, out)
		}
		if l2, _ := c.choose(time.UnixMilli(testNow)); l2 != nil {
			t.Fatalf("segment %d: it is tried again", where)
		}
		for _, e := range mustList(t, m, l.path) {
			if strings.HasSuffix(e, segment.CleanedSuffix) {
				t.Fatalf("segment %d: %s is left", where, e)
			}
		}
		_ = d.Close()
	}
}

func mustList(t testing.TB, m *disk.Mem, dir string) (names []string) {
	t.Helper()
	entries, err := m.List(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name)
	}
	return names
}

// TestTrap08FailedFlushOfACompactedSegmentIsNotRetried: nobody knows what is on the disk then.
func TestTrap08FailedFlushOfACompactedSegmentIsNotRetried(t *testing.T) {
	for _, what := range []string{".log.cleaned", ".index.cleaned", "/orders-3"} {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, keyedConfig())
		fillKeys(t, l, 40, 10)
		var failed atomic.Int64
		m.SetFault(func(op disk.Op) error {
			if (op.Kind == disk.OpSync || op.Kind == disk.OpSyncDir) && strings.HasSuffix(op.Path, what) {
				failed.Add(1)
				return syscall.EIO
			}
			return nil
		})
		if err := compactOnce(t, l, time.UnixMilli(testNow)); !errors.Is(err, ErrOffline) {
			t.Fatalf("%s: %v", what, err)
		}
		if failed.Load() != 1 || d.Offline() == nil {
			t.Fatalf("%s: flushed %d times, offline: %v", what, failed.Load(), d.Offline())
		}
		m.SetFault(nil)
		_ = d.Close()
	}
}

// TestTrap15AnOpenTransactionIsNotCompacted: neither its records nor what they might supersede.
func TestTrap15AnOpenTransactionIsNotCompacted(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, keyedConfig())
	fillKeys(t, l, 20, 2)
	b := keyedBatch("key-0=open")
	b.SetProducer(9, 0, 0, true)
	first := mustAppend(t, l, b).First
	fillKeys(t, l, 40, 2)
	mustCompact(t, l, time.UnixMilli(testNow))
	if to := l.Compacted(); to == 0 || to > first {
		t.Fatalf("compacted up to %d, the transaction begins at %d", to, first)
	}
	mark(t, l, 9, true)
	fillKeys(t, l, 10, 2)
	mustCompact(t, l, time.UnixMilli(testNow))
	if l.Compacted() <= first {
		t.Fatalf("compacted up to %d after the transaction has ended", l.Compacted())
	}
	_ = d.Close()
}

// TestTrap21TombstonesStayUntilEveryReplicaHasPassedThem: their time alone does not let them go.
func TestTrap21TombstonesStayUntilEveryReplicaHasPassedThem(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := keyedConfig()
	cfg.DeleteRetentionMs = 1000
	l := mustLog(t, d, cfg)
	mustAppend(t, l, keyedBatch("a=1", "b=1"))
	mustAppend(t, l, keyedBatch("a", "b"))
	l.RetainTombstonesFrom(3) // a replica has got the tombstone of a, not yet that of b
	tombstones := func(now int64) string {
		t.Helper()
		fillKeys(t, l, 20, 2)
		mustCompact(t, l, time.UnixMilli(now))
		var found []string
		for _, k := range keysOf(t, l) {
			if strings.HasPrefix(k, "a") || strings.HasPrefix(k, "b") {
				found = append(found, k)
			}
		}
		return strings.Join(found, " ")
	}
	for _, step := range []struct {
		ms   int64
		want string
	}{{0, "a@2 b@3"}, {999, "a@2 b@3"}, {1000, "b@3"}, {5000, "b@3"}} {
		if got := tombstones(testNow + step.ms); got != step.want {
			t.Fatalf("after %d ms: %q, want %q", step.ms, got, step.want)
		}
	}
	l.RetainTombstonesFrom(math.MaxInt64)
	if got := tombstones(testNow + 6000); got != "" {
		t.Fatalf("once every replica has it: %q", got)
	}
	_ = d.Close()
}

// TestCutLogIsCompactedAgain: what is written where compacted records were is dirty, after a crash too.
func TestCutLogIsCompactedAgain(t *testing.T) {
	for name, cut := range map[string]func(*Log) error{
		"truncate": func(l *Log) error { return l.Truncate(10) },
		"restart":  func(l *Log) error { return l.Restart(10) },
	} {
		t.Run(name, func(t *testing.T) {
			m := disk.NewMem()
			d := mustOpen(t, testOptions(m))
			l := mustLog(t, d, keyedConfig())
			fillKeys(t, l, 60, 5)
			mustCompact(t, l, time.UnixMilli(testNow))
			if l.Compacted() < 30 {
				t.Fatalf("compacted up to %d", l.Compacted())
			}
			if err := cut(l); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if l.Compacted() > 10 || l.Progress().End > 10 {
					t.Fatalf("compacted up to %d of %+v", l.Compacted(), l.Progress())
				}
				m = m.Crash(1)
				abandon(d)
				d = mustOpen(t, testOptions(m))
				l = mustLog(t, d, keyedConfig())
			}
			fillKeys(t, l, 60, 5)
			mustCompact(t, l, time.UnixMilli(testNow))
			if n := len(keysOf(t, l)); n > 20 {
				t.Fatalf("%d records are left", n)
			}
			_ = d.Close()
		})
	}
}

// TestRecordsWithoutKeysFromBeforeAreDropped: a topic that was not compacted may have them. New ones are refused.
func TestRecordsWithoutKeysFromBeforeAreDropped(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := keyedConfig()
	cfg.Compact = false
	l := mustLog(t, d, cfg)
	mustAppend(t, l, keyedBatch("a=1"))
	for i := range 10 {
		mustAppend(t, l, produced(5, 0, int32(i), i, 1))
	}
	l.Reconfigure(keyedConfig())
	var refused *batch.InvalidRecordsError
	if _, err := appendErr(l, produced(5, 0, 10, 0, 1)); !errors.As(err, &refused) {
		t.Fatalf("a record without a key: %v", err)
	}
	fillKeys(t, l, 20, 3)
	mustCompact(t, l, time.UnixMilli(testNow))
	for _, k := range keysOf(t, l) {
		if strings.HasPrefix(k, "=") {
			t.Fatalf("%s is left", k)
		}
	}
	if got := sequencesOf(&testing.T{}, l); got[5] != 9 {
		t.Fatalf("producers: %v", got)
	}
	m = m.Crash(3)
	abandon(d)
	o := testOptions(m)
	o.Now = newClock().now
	d = mustOpen(t, o)
	if states, err := mustLog(t, d, keyedConfig()).Producers(); err != nil || len(states) != 1 || states[0].LastSequence != 9 {
		t.Fatalf("producers after a crash: %+v, %v", states, err)
	}
	_ = d.Close()
}

// TestAFullDiskPutsCompactionOff: nothing is lost, nothing is left behind, and there is another try.
func TestAFullDiskPutsCompactionOff(t *testing.T) {
	for limit := int64(1); limit < 30; limit++ {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, keyedConfig())
		fillKeys(t, l, 60, 6)
		want := lastValues(keysOf(t, l))
		var left atomic.Int64
		left.Store(limit)
		m.SetFault(func(op disk.Op) error {
			switch op.Kind {
			case disk.OpWrite, disk.OpRename, disk.OpPreallocate:
				if touchesCompaction(op) && left.Add(-1) < 0 {
					return &fs.PathError{Op: "write", Path: op.Path, Err: syscall.ENOSPC}
				}
			case disk.OpOpen:
				if touchesCompaction(op) && left.Add(-1) < 0 {
					return &fs.PathError{Op: "open", Path: op.Path, Err: syscall.ENOSPC}
				}
			}
			return nil
		})
		err := compactOnce(t, l, time.UnixMilli(testNow))
		if err != nil && !errors.Is(err, ErrNoSpace) && d.Offline() == nil {
			t.Fatalf("after %d: %v", limit, err)
		}
		if d.Offline() != nil { // only once the exchange had begun: a start finishes it
			m.SetFault(nil)
			_ = d.Close()
			m = m.Kill()
			d = mustOpen(t, testOptions(m))
			l = mustLog(t, d, keyedConfig())
			l.AdvanceHighWatermark(l.Progress().End)
		}
		m.SetFault(nil)
		if got := lastValues(keysOf(t, l)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("after %d: %v, want %v", limit, got, want)
		}
		mustCompact(t, l, time.UnixMilli(testNow))
		if got := lastValues(keysOf(t, l)); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("after %d and space: %v, want %v", limit, got, want)
		}
		_ = d.Close()
	}
}

// lastValues are what a table of the keys says in the end.
func lastValues(records []string) map[string]string {
	values := map[string]string{}
	for _, r := range records {
		key, value, has := strings.Cut(r, "=")
		if !has {
			key, _, _ = strings.Cut(r, "@")
			delete(values, key)
			continue
		}
		values[key], _, _ = strings.Cut(value, "@")
	}
	return values
}

// TestReadersKeepWhatTheyHoldAndFindTheRest: ranges taken before an exchange stay good, and reads beside it never fail.
func TestReadersKeepWhatTheyHoldAndFindTheRest(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	d := mustOpen(t, o)
	cfg := keyedConfig()
	cfg.FileDeleteDelayMs = 0
	l := mustLog(t, d, cfg)
	fillKeys(t, l, 100, 10)
	var held []Range
	for from := int64(0); from < 60; from++ {
		r, err := l.Read(from, 200, 60, true)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, r)
	}
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for n := range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p := l.Progress()
				for from := int64(n); from < p.End; {
					r, err := l.Read(from, 300, p.End, true)
					if err != nil {
						t.Errorf("read %d of %+v: %v", from, p, err)
						return
					}
					if _, err := r.AppendTo(nil); err != nil {
						t.Errorf("read %d of %+v: %v", from, p, err)
						return
					}
					_ = r.Close()
					if r.Next <= from { // the next batch now begins beyond the end as it was
						break
					}
					from = r.Next
				}
			}
		})
	}
	for range 15 {
		mustCompact(t, l, time.UnixMilli(testNow))
		fillKeys(t, l, 20, 10)
	}
	close(stop)
	readers.Wait()
	d.keeper.remove(d.keeper.graves.TakeAll())
	for from, r := range held {
		data, err := r.AppendTo(nil)
		if err != nil || len(data) == 0 {
			t.Fatalf("range from %d: %d bytes, %v", from, len(data), err)
		}
		_ = r.Close()
	}
	_ = d.Close()
}

// TestAFollowerTakesWhatCompactionHasLeft: batches that begin beyond the end, but not before it, and not in other logs.
func TestAFollowerTakesWhatCompactionHasLeft(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, keyedConfig())
	for _, base := range []int64{0, 5, 6, 40} {
		b := keyedBatch("a=1")
		b.Assign(base, 1)
		if err := l.AppendAt(b); err != nil || l.Progress().End != base+1 {
			t.Fatalf("%d: %v %+v", base, err, l.Progress())
		}
	}
	b := keyedBatch("a=1")
	b.Assign(39, 1)
	if err := l.AppendAt(b); !errors.Is(err, ErrOutOfRange) {
		t.Fatal(err)
	}
	flush(t, l)
	if got := strings.Join(keysOf(t, l), " "); got != "a=1@0 a=1@5 a=1@6 a=1@40" {
		t.Fatal(got)
	}
	other, err := d.Log(TopicPartition{"plain", 0}, [16]byte{7}, smallConfig())
	if err != nil {
		t.Fatal(err)
	}
	b.Assign(1, 1)
	if err := other.AppendAt(b); !errors.Is(err, ErrOutOfRange) {
		t.Fatal(err)
	}
	_ = d.Close()
}

// TestTheCleanerWorksAndEnds: workers compact what is due, the dirtiest first, leave what is not, and end with the directory, or with
// the log that is removed under them.
func TestTheCleanerWorksAndEnds(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		m := disk.NewMem()
		c := NewCleaner(CleanerOptions{Threads: 2, Backoff: time.Minute})
		o := testOptions(m)
		o.Cleaner = c
		d := mustOpen(t, o)
		cfg := keyedConfig()
		cfg.MinCleanableRatio = 0.5
		var logs []*Log
		for i := range int32(5) {
			l, err := d.Log(TopicPartition{"t", i}, [16]byte{byte(i + 1)}, cfg)
			if err != nil {
				t.Fatal(err)
			}
			fillKeys(t, l, 60, 6)
			logs = append(logs, l)
		}
		time.Sleep(2 * time.Minute)
		for _, l := range logs {
			last, ok := l.LastCompaction()
			if !ok || l.Compacted() < 40 || last.RecordsKept > 6 {
				t.Fatalf("%s: compacted up to %d of %d, %+v", l.ID(), l.Compacted(), l.Progress().End, last)
			}
		}
		before := logs[0].Compacted()
		fillKeys(t, logs[0], 1, 1) // not dirty enough
		time.Sleep(5 * time.Minute)
		if logs[0].Compacted() != before || c.Stats().Runs.Load() != 5 || c.Stats().Failures.Load() != 0 {
			t.Fatalf("%d compactions, up to %d", c.Stats().Runs.Load(), logs[0].Compacted())
		}
		// A log that is removed while its compaction waits for the disk's rate.
		c.Reconfigure(CleanerOptions{Threads: 1, Backoff: time.Second, IOBytesPerSecond: 1})
		for range 20 {
			fillKeys(t, logs[1], 60, 60)
		}
		time.Sleep(time.Minute)
		remove(d, logs[1].ID())
		if n := len(c.mu.busy); n != 0 {
			t.Fatalf("%d compactions go on", n)
		}
		for range 20 {
			fillKeys(t, logs[2], 60, 60)
		}
		time.Sleep(time.Minute)
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		c.Close()
	})
}

// TestCompactionLags: records are left alone for min.compaction.lag.ms, and wait no longer than max.compaction.lag.ms, in a log that
// nobody writes to either.
func TestCompactionLags(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := keyedConfig()
	cfg.MinCleanableRatio, cfg.MinCompactionLagMs, cfg.MaxCompactionLagMs = 1, 1000, 5000
	l := mustLog(t, d, cfg)
	fillKeys(t, l, 30, 3)
	fresh := l.active().Base
	if found, err := l.dirt(testNow + 999); err != nil || found.upTo != 0 || found.due(&cfg) {
		t.Fatalf("before its time: %+v, %v", found, err)
	}
	if found, err := l.dirt(testNow + 1000); err != nil || found.upTo != fresh || found.due(&cfg) {
		t.Fatalf("after the least lag: %+v, %v", found, err)
	}
	if found, err := l.dirt(testNow + 5000); err != nil || found.due(&cfg) || l.active().Base != fresh {
		t.Fatalf("at the largest lag: %+v, %v", found, err)
	}
	found, err := l.dirt(testNow + 5001)
	if err != nil || l.active().Base != 30 {
		t.Fatalf("after the largest lag the active segment begins at %d: %+v, %v", l.active().Base, found, err)
	}
	flush(t, l)
	if found, err = l.dirt(testNow + 5001); err != nil || !found.due(&cfg) || found.upTo != 30 {
		t.Fatalf("after the largest lag: %+v, %v", found, err)
	}
	mustCompact(t, l, time.UnixMilli(testNow+5001))
	if found, err = l.dirt(testNow + 50000); err != nil || found.due(&cfg) || len(keysOf(t, l)) != 3 {
		t.Fatalf("afterwards: %+v, %v, %v", found, err, keysOf(t, l))
	}
	_ = d.Close()
}

// TestAPlaceInASegmentThatIsGoneIsForgotten: a reader that stops in a segment while that is replaced leaves its place behind.
func TestAPlaceInASegmentThatIsGoneIsForgotten(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, keyedConfig())
	fillKeys(t, l, 60, 6)
	old := (*l.segments.Load())[0]
	mustCompact(t, l, time.UnixMilli(testNow))
	l.remember(spot{1, old, 100})
	if r, err := l.Read(1, 100, 60, true); err != nil || r.Len() == 0 {
		t.Fatalf("%d bytes, %v", r.Len(), err)
	} else {
		_ = r.Close()
	}
	_ = d.Close()
}
