package commitlog

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

// counter counts the operations of a disk by kind.
type counter struct {
	mu    sync.Mutex
	count map[disk.Kind]int
}

func counting(m *disk.Mem) *counter {
	c := &counter{count: map[disk.Kind]int{}}
	m.SetFault(func(op disk.Op) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.count[op.Kind]++
		return nil
	})
	return c
}

func (c *counter) of(kinds ...disk.Kind) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range kinds {
		n += c.count[k]
	}
	return n
}

func TestTrap07RecordsAreOnDiskBeforeTheyCountAsFlushed(t *testing.T) {
	for _, durable := range []bool{true, false} {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		cfg := DefaultConfig()
		cfg.FlushBeforeAck = durable
		l := mustLog(t, d, cfg)
		syncs := counting(m)
		for i := range 200 {
			mustAppend(t, l, records(i, 1, 30))
			if durable {
				flush(t, l)
			}
		}
		if n := syncs.of(disk.OpSync, disk.OpSyncFS); durable && n < 200 {
			t.Fatalf("%d flushes for 200 records that were waited for", n)
		} else if !durable && n > 0 {
			t.Fatalf("%d flushes in a page-cache topic", n)
		}
		for seed := range uint64(20) {
			if !durable {
				break
			}
			m = m.Crash(seed)
			abandon(d)
			d = mustOpen(t, testOptions(m))
			l = mustLog(t, d, cfg)
			if end := l.Progress().End; end != 200 {
				t.Fatalf("seed %d: %d of 200 flushed records survived", seed, end)
			}
		}
		abandon(d)
	}
}

// TestTrap08FailedFlushIsNotRetried lets the n-th flush of any kind fail, for every n that there is.
func TestTrap08FailedFlushIsNotRetried(t *testing.T) {
	failed := 0
	for n := range 60 {
		m := disk.NewMem()
		if err := disk.MkdirAllSync(m, "/other"); err != nil {
			t.Fatal(err)
		}
		o := testOptions(m)
		w := newWatcher()
		o.Observer, o.OtherDirs = w, []string{"/other"}
		d := mustOpen(t, o)
		var seen, after atomic.Int64
		var failing atomic.Bool
		var broken disk.Op
		m.SetFault(func(op disk.Op) error {
			if op.Kind != disk.OpSync && op.Kind != disk.OpSyncDir && op.Kind != disk.OpSyncFS {
				return nil
			}
			if strings.HasPrefix(op.Path, "/other") {
				return nil
			}
			if failing.Load() {
				if d.Offline() != nil { // until that is known others may have begun
					after.Add(1)
					if op == broken && op.Kind == disk.OpSync {
						t.Errorf("flush %d of %+v is repeated", n, op)
					}
				}
				return nil
			}
			if seen.Add(1) == int64(n+1) {
				broken = op
				failing.Store(true)
				return errors.New("input/output error")
			}
			return nil
		})
		acknowledged := appendUntilOffline(t, d)
		if !failing.Load() {
			abandon(d)
			continue
		}
		failed++
		<-w.gone
		if after.Load() > syncWorkers+4 { // those were on their way to other files, and two checkpoints being written
			t.Fatalf("flush %d: %d more flushes after one had failed", n, after.Load())
		}
		checkRefusesEverything(t, d)
		m.SetFault(nil)
		if err := d.Close(); !errors.Is(err, ErrOffline) {
			t.Fatalf("flush %d: close says %v", n, err)
		}
		if _, err := OpenDir(context.Background(), o); !errors.Is(err, ErrMarked) {
			t.Fatalf("flush %d: the failed directory was opened again: %v", n, err)
		}
		m = m.Crash(uint64(n)) // what the failed flush dropped is gone for good
		if err := m.Remove(d.markIn("/other")); err != nil {
			t.Fatal(err)
		}
		o.FS = m
		d = mustOpen(t, o)
		for tp, end := range acknowledged {
			l, err := d.Log(tp, testID, smallConfig())
			if err != nil {
				t.Fatal(err)
			}
			if got := l.Progress().End; got < end {
				t.Fatalf("flush %d: %s ends at %d, %d was acknowledged", n, tp, got, end)
			}
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if failed < 20 {
		t.Fatalf("only %d flushes failed", failed)
	}
}

// appendUntilOffline writes to a few logs and to many, and returns what was acknowledged.
func appendUntilOffline(t *testing.T, d *Dir) map[TopicPartition]int64 {
	t.Helper()
	acknowledged := map[TopicPartition]int64{}
	for i := range 24 {
		tp := TopicPartition{"t", int32(i % 12)}
		l, err := d.Log(tp, testID, smallConfig())
		if err != nil {
			return acknowledged
		}
		if _, err := l.Append(records(i, 3, 300), AppendOptions{NowMs: testNow}); err != nil {
			if !errors.Is(err, ErrOffline) {
				t.Fatal(err)
			}
			return acknowledged
		}
		if i%5 == 0 {
			continue
		}
		if err := l.Flush(context.Background()); err != nil {
			if !errors.Is(err, ErrOffline) {
				t.Fatal(err)
			}
			return acknowledged
		}
		acknowledged[tp] = l.Progress().End
		if i%7 == 0 {
			d.keeper.checkpoint()
		}
	}
	return acknowledged
}

func checkRefusesEverything(t *testing.T, d *Dir) {
	t.Helper()
	d.mu.Lock()
	l := d.mu.logs[TopicPartition{"t", 0}]
	d.mu.Unlock()
	_, appendErr := l.Append(records(0, 1, 10), AppendOptions{NowMs: testNow})
	_, readErr := l.Read(0, 100, 1<<60, true)
	_, logErr := d.Log(TopicPartition{"new", 0}, testID, smallConfig())
	_, _, timeErr := l.OffsetForTime(0)
	for i, err := range []error{appendErr, readErr, logErr, timeErr, l.Truncate(0), l.AdvanceStart(1), l.Flush(context.Background())} {
		if !errors.Is(err, ErrOffline) {
			t.Fatalf("operation %d of an offline directory: %v", i, err)
		}
	}
}

// TestTrap09NothingPastADamagedBatchIsServed flips every bit of a byte in turn, below what had been flushed and checked.
func TestTrap09NothingPastADamagedBatchIsServed(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := DefaultConfig()
	cfg.IndexIntervalBytes = 200
	l := mustLog(t, d, cfg)
	var positions []int64
	for i := range 12 {
		positions = append(positions, l.Size())
		mustAppend(t, l, records(i*2, 2, 40))
	}
	flush(t, l)
	path := l.Segments()[0].Path
	size := l.Size()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	for at := int64(0); at < size; at += 7 {
		if err := m.FlipBit(path, at, uint8(at)); err != nil {
			t.Fatal(err)
		}
		first := 0 // the batch that holds the byte
		for first+1 < len(positions) && positions[first+1] <= at {
			first++
		}
		checkDamage(t, m, cfg, int64(first*2), at)
		if err := m.FlipBit(path, at, uint8(at)); err != nil {
			t.Fatal(err)
		}
	}
}

func checkDamage(t *testing.T, m *disk.Mem, cfg Config, damage, at int64) {
	t.Helper()
	o, out := withLog(testOptions(m))
	d := mustOpen(t, o)
	defer func() {
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}()
	l := mustLog(t, d, cfg)
	if end := l.Progress().End; end != 24 {
		t.Fatalf("byte %d: log ends at %d", at, end)
	}
	err := l.Verify(context.Background())
	_, known := l.Damaged()
	if err == nil && !known {
		if !uncovered(at, l) {
			t.Fatalf("byte %d: damage not found", at)
		}
		return
	}
	if err != nil && !errors.Is(err, ErrCorrupt) {
		t.Fatalf("byte %d: verify says %v", at, err)
	}
	where, _ := l.Damaged()
	if where > damage {
		t.Fatalf("byte %d: damaged from %d, should be %d", at, where, damage)
	}
	if !strings.Contains(out.String(), "log is damaged") {
		t.Fatalf("byte %d: no line says so", at)
	}
	for from := int64(0); from < 24; from++ {
		r, err := l.Read(from, 1<<20, 24, true)
		if from >= where {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("byte %d: read from %d, damaged at %d: %v", at, from, where, err)
			}
			continue
		}
		if err != nil || r.Next > where {
			t.Fatalf("byte %d: read from %d to %d, %d bytes, damaged at %d: %v", at, from, r.Next, r.Len(), where, err)
		}
		_ = r.Close()
	}
	if _, err := l.Append(records(0, 1, 10), AppendOptions{NowMs: testNow}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("byte %d: a damaged log takes appends: %v", at, err)
	}
}

// uncovered tells whether a byte lies where no check can see it: the leader epoch of a batch.
func uncovered(at int64, l *Log) bool {
	data, err := disk.ReadFile(l.dir.fs, l.Segments()[0].Path, 1<<30)
	if err != nil {
		return false
	}
	pos := int64(0)
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			return false
		}
		if at >= pos+12 && at < pos+16 {
			return true
		}
		pos, data = pos+int64(len(b)), rest
	}
	return false
}

func TestTrap09ReadingThroughMemoryChecksEveryBatch(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, DefaultConfig())
	for i := range 5 {
		mustAppend(t, l, records(i, 1, 40))
	}
	if err := m.FlipBit(l.Segments()[0].Path, l.Size()-10, 3); err != nil {
		t.Fatal(err)
	}
	r, err := l.Read(0, 1<<20, 5, true)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.AppendTo(nil); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a flipped bit went through: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if r, err = l.Read(0, 1<<20, 5, true); err != nil || r.Next != 4 {
		t.Fatalf("second read goes to %d: %v", r.Next, err)
	}
	_ = r.Close()
	if _, err := l.Read(4, 1<<20, 5, true); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("read at the damage: %v", err)
	}
	if err := l.Truncate(4); err != nil { // repaired from a peer
		t.Fatal(err)
	}
	mustAppend(t, l, records(4, 1, 40))
	if got := readAll(t, l, 100); len(got) != 5 {
		t.Fatalf("%d records after the repair", len(got))
	}
	_ = d.Close()
}

// TestTrap09MissingTailIsDamage: what was known to be durable and is not there any more is no torn tail.
func TestTrap09MissingTailIsDamage(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, DefaultConfig())
	for i := range 5 {
		mustAppend(t, l, records(i, 1, 40))
	}
	path, size := l.Segments()[0].Path, l.Size()
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := m.Open(path, disk.Write)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size-5), f.Close()); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, DefaultConfig())
	if at, damaged := l.Damaged(); !damaged || at != 4 {
		t.Fatalf("damaged %v at %d", damaged, at)
	}
	if _, err := l.Append(records(4, 1, 40), AppendOptions{NowMs: testNow}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("append: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	// The operator's way out: without a recovery point the log is checked from its beginning and cut.
	if err := m.Remove("/data/" + recoveryPointFile); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, testOptions(m))
	l = mustLog(t, d, DefaultConfig())
	if p := l.Progress(); p.End != 4 {
		t.Fatalf("%+v", p)
	}
	mustAppend(t, l, records(4, 1, 40))
	_ = d.Close()
}

// TestTrap11CrashWhileLoadingCountsAsUnclean stops every open at each of its operations in turn.
func TestTrap11CrashWhileLoadingCountsAsUnclean(t *testing.T) {
	for n := 0; ; n++ {
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		l := mustLog(t, d, smallConfig())
		for i := range 20 {
			mustAppend(t, l, records(i, 1, 200))
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
		errStop := errors.New("stopped")
		ops, loading := 0, false
		m.SetFault(func(op disk.Op) error {
			loading = loading || strings.HasSuffix(op.Path, segment.DataSuffix)
			if ops++; ops > n {
				return errStop
			}
			return nil
		})
		d, err := OpenDir(context.Background(), testOptions(m))
		if err == nil {
			m.SetFault(nil)
			_ = d.Close()
			if n < 15 {
				t.Fatalf("opening took %d operations only", n)
			}
			return
		}
		next := m.Crash(uint64(n))
		next.SetFault(nil)
		_, marked := next.Stat("/data/" + cleanFile)
		if loading && marked == nil {
			t.Fatalf("operation %d: loading had begun and the mark of a clean stop is still there", n)
		}
		d = mustOpen(t, testOptions(next))
		if l := mustLog(t, d, smallConfig()); l.Progress().End != 20 {
			t.Fatalf("operation %d: log ends at %d", n, l.Progress().End)
		}
		abandon(d)
	}
}

func TestTrap12ProgressIsOneConsistentView(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				p := l.Progress()
				if p.Start > p.LastStable || p.LastStable > p.HighWatermark || p.HighWatermark > p.End || p.Flushed > p.End {
					t.Errorf("inconsistent: %+v", p)
					return
				}
			}
		})
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 600 {
		mustAppend(t, l, records(i, 1, 100))
		switch p := l.Progress(); r.IntN(6) {
		case 0:
			l.AdvanceHighWatermark(p.End)
		case 1:
			l.AdvanceHighWatermark(p.Flushed)
		case 2:
			if err := l.AdvanceStart(max(p.Start, p.HighWatermark-20)); err != nil {
				t.Fatal(err)
			}
		case 3:
			if err := l.Truncate(max(p.Start, p.End-2)); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(stop)
	wg.Wait()
	_ = d.Close()
}

func TestTrap13AnOffsetInsideABatchGetsTheWholeBatch(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, smallConfig())
	for i := range 30 {
		mustAppend(t, l, records(i*7, 7, 40))
	}
	check := func(l *Log) {
		t.Helper()
		for from := range int64(210) {
			for _, maxBytes := range []int{0, 1, 500, 1 << 20} {
				r, err := l.Read(from, maxBytes, 210, true)
				if err != nil {
					t.Fatal(err)
				}
				data, err := r.AppendTo(nil)
				if err != nil {
					t.Fatal(err)
				}
				b, _, err := batch.Next(data)
				if err != nil || b.BaseOffset() != from/7*7 || r.First != from/7*7 {
					t.Fatalf("from %d, max %d: first batch %d to %d, range says %d (%v)", from, maxBytes, b.BaseOffset(), b.LastOffset(), r.First, err)
				}
				if len(data) > maxBytes && len(data) > len(b) {
					t.Fatalf("from %d: %d bytes for %d, first batch has %d", from, len(data), maxBytes, len(b))
				}
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				if r, err = l.Read(from, maxBytes, 210, false); err != nil || r.Len() > int64(maxBytes) {
					t.Fatalf("from %d: %d bytes for %d without a promise (%v)", from, r.Len(), maxBytes, err)
				}
				_ = r.Close()
			}
			for _, upTo := range []int64{from, from + 1, from/7*7 + 7, from + 20} {
				r, err := l.Read(from, 1<<20, upTo, true)
				if err != nil || r.Next > max(upTo, from) {
					t.Fatalf("from %d up to %d: next is %d (%v)", from, upTo, r.Next, err)
				}
				if upTo >= from/7*7+7 && r.Len() == 0 {
					t.Fatalf("from %d up to %d: nothing", from, upTo)
				}
				_ = r.Close()
			}
		}
	}
	check(l)
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, testOptions(m)) // nothing known by heart
	check(mustLog(t, d, smallConfig()))
	_ = d.Close()
}

// TestTrap19UnknownProducers: without state any sequence is a beginning (KIP-360), but what is known binds, and what may
// be remembered is bounded and ends.
func TestTrap19UnknownProducers(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	o.MaxProducerIDs = 10
	nowMs := atomic.Int64{}
	nowMs.Store(testNow)
	o.Now = func() time.Time { return time.UnixMilli(nowMs.Load()) }
	d := mustOpen(t, o)
	l := mustLog(t, d, DefaultConfig())
	mustAppend(t, l, produced(7, 0, 500, 0, 2)) // its earlier records have expired
	if _, err := l.Append(produced(7, 0, 0, 0, 2), AppendOptions{NowMs: testNow}); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Fatalf("sequence 0 again from a known producer: %v", err)
	}
	mustAppend(t, l, produced(7, 0, 502, 0, 2))
	for id := range int64(100) {
		mustAppend(t, l, produced(100+id, 0, 0, 0, 1))
	}
	states, err := l.Producers()
	if err != nil || len(states) > 10 {
		t.Fatalf("%d producers are remembered, limit 10 (%v)", len(states), err)
	}
	nowMs.Add(25 * 3600_000)
	d.keeper.expireProducers()
	if states, _ = l.Producers(); len(states) != 0 {
		t.Fatalf("%d producers outlived their time", len(states))
	}
	mustAppend(t, l, produced(150, 0, 77, 0, 1))
	_ = d.Close()
}

func ExampleTopicPartition_String() {
	fmt.Println(TopicPartition{"orders", 3})
	// Output: orders-3
}
