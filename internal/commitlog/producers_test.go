package commitlog

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/segment"
	"barnabas/internal/disk"
)

func appendErr(l *Log, b batch.Batch) (Appended, error) {
	return l.Append(b, AppendOptions{NowMs: testNow})
}

func TestSequencesTakeExactlyTheNextAndAnswerTheLastFiveAgain(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, DefaultConfig())
	var firsts []int64
	for i := range 8 {
		firsts = append(firsts, mustAppend(t, l, produced(5, 1, int32(i*3), i, 3)).First)
	}
	end := l.Progress().End
	for i := range 8 {
		a, err := appendErr(l, produced(5, 1, int32(i*3), i, 3))
		if i < 3 {
			if !errors.Is(err, ErrOutOfOrderSequence) {
				t.Fatalf("batch %d, older than five, again: %v", i, err)
			}
			continue
		}
		if err != nil || !a.Duplicate || a.First != firsts[i] || a.Next != firsts[i]+3 {
			t.Fatalf("batch %d again: %+v, %v; first time at %d", i, a, err, firsts[i])
		}
	}
	for _, b := range []batch.Batch{produced(5, 1, 25, 0, 3), produced(5, 1, 23, 0, 3), produced(5, 1, 21, 0, 2), produced(5, 2, 24, 0, 1)} {
		if _, err := appendErr(l, b); !errors.Is(err, ErrOutOfOrderSequence) {
			t.Fatalf("sequence %d of epoch %d: %v", b.BaseSequence(), b.ProducerEpoch(), err)
		}
	}
	if _, err := appendErr(l, produced(5, 0, 24, 0, 1)); !errors.Is(err, ErrInvalidProducerEpoch) {
		t.Fatalf("old epoch: %v", err)
	}
	if p := l.Progress(); p.End != end {
		t.Fatalf("what was refused has been written: %+v", p)
	}
	mustAppend(t, l, produced(5, 1, 24, 0, 1))
	mustAppend(t, l, produced(5, 2, 0, 0, 1))
	if _, err := appendErr(l, produced(5, 1, 25, 0, 1)); !errors.Is(err, ErrInvalidProducerEpoch) {
		t.Fatalf("epoch that has been replaced: %v", err)
	}
	_ = d.Close()
}

func TestSequencesWrapAround(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, DefaultConfig())
	mustAppend(t, l, produced(5, 0, math.MaxInt32-1, 0, 2))
	mustAppend(t, l, produced(5, 0, 0, 0, 1))
	if a, err := appendErr(l, produced(5, 0, math.MaxInt32-1, 0, 2)); err != nil || !a.Duplicate {
		t.Fatalf("%+v %v", a, err)
	}
	mustAppend(t, l, produced(6, 0, math.MaxInt32, 0, 3)) // wraps inside
	if a, err := appendErr(l, produced(6, 0, math.MaxInt32, 0, 3)); err != nil || !a.Duplicate || a.Next-a.First != 3 {
		t.Fatalf("%+v %v", a, err)
	}
	mustAppend(t, l, produced(6, 0, 2, 0, 1))
	_ = d.Close()
}

// model is a producer by the book: epoch, and the batches as (first, last, offset).
type model struct {
	epoch   int16
	batches [][3]int64
}

// TestProducerStateMatchesAModelThroughRestartsAndCrashes plays random batches, good and bad, and stops by chance, cleanly
// or not. Whatever has been in between, the last five batches of a producer are recognised when they come again.
func TestProducerStateMatchesAModelThroughRestartsAndCrashes(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 3))
		m := disk.NewMem()
		known := map[int64]*model{}
		open := func() (*Dir, *Log) {
			o := testOptions(m)
			o.Now = func() time.Time { return time.UnixMilli(testNow) } // nothing expires
			d := mustOpen(t, o)
			return d, mustLog(t, d, smallConfig())
		}
		d, l := open()
		for step := range 60 {
			id := int64(r.IntN(4))
			p := known[id]
			if p == nil {
				p = &model{epoch: 0}
				known[id] = p
			}
			next := int64(0)
			if n := len(p.batches); n > 0 {
				next = p.batches[n-1][1] + 1
			}
			n := 1 + r.IntN(4)
			what := fmt.Sprintf("seed %d step %d producer %d", seed, step, id)
			switch k := r.IntN(10); {
			case k < 6:
				a, err := appendErr(l, produced(id, p.epoch, int32(next), step, n))
				if err != nil || a.Duplicate {
					t.Fatalf("%s: next sequence %d: %+v %v", what, next, a, err)
				}
				p.batches = append(p.batches, [3]int64{next, next + int64(n) - 1, a.First})
			case k < 8 && len(p.batches) > 0:
				b := p.batches[len(p.batches)-1-r.IntN(min(5, len(p.batches)))]
				a, err := appendErr(l, produced(id, p.epoch, int32(b[0]), step, int(b[1]-b[0]+1)))
				if err != nil || !a.Duplicate || a.First != b[2] {
					t.Fatalf("%s: batch again: %+v %v, want offset %d", what, a, err, b[2])
				}
			case k < 9 && len(p.batches) > 0:
				if _, err := appendErr(l, produced(id, p.epoch, int32(next)+1, step, n)); !errors.Is(err, ErrOutOfOrderSequence) {
					t.Fatalf("%s: a gap: %v", what, err)
				}
			default:
				p.epoch++
				a, err := appendErr(l, produced(id, p.epoch, 0, step, n))
				if err != nil {
					t.Fatalf("%s: new epoch: %v", what, err)
				}
				p.batches = [][3]int64{{0, int64(n) - 1, a.First}}
			}
			if r.IntN(15) == 0 {
				flush(t, l)
				d.keeper.checkpoint()
			}
			if r.IntN(12) > 0 {
				continue
			}
			if r.IntN(2) == 0 {
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			} else if flush(t, l); r.IntN(2) == 0 {
				m = m.Crash(seed)
				abandon(d)
			} else {
				m = m.Kill()
				abandon(d)
			}
			d, l = open()
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestProducersExpireAlsoOnDisk(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	nowMs := atomic.Int64{}
	nowMs.Store(testNow)
	o.Now = func() time.Time { return time.UnixMilli(nowMs.Load()) }
	o.ProducerIDExpiration = time.Hour
	d := mustOpen(t, o)
	l := mustLog(t, d, DefaultConfig())
	mustAppend(t, l, produced(5, 0, 0, 0, 1))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	nowMs.Add(3600_001)
	d = mustOpen(t, o)
	l = mustLog(t, d, DefaultConfig())
	if states, err := l.Producers(); err != nil || len(states) != 0 {
		t.Fatalf("%+v %v", states, err)
	}
	_ = d.Close()
}

func TestProducersAreBoundedOverManyLogs(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	o.MaxProducerIDs = 20
	d := mustOpen(t, o)
	for i := range 50 {
		l, err := d.Log(TopicPartition{"t", int32(i)}, testID, DefaultConfig())
		if err != nil {
			t.Fatal(err)
		}
		mustAppend(t, l, produced(int64(i), 0, 0, i, 1))
	}
	d.keeper.expireProducers()
	if n := d.producerCount.Load(); n > 20 {
		t.Fatalf("%d producers, limit 20", n)
	}
	_ = d.Close()
}

// TestFiveBatchesAreKnownAfterAKill although a producer snapshot, which has room for one, lies between: also where they lie
// in several segments, and among those of others. The sixth is out of order.
// What is known of a producer must not go with the segment that its last batch is in: the power may fail before a snapshot
// that knows it is durable, and then a batch sent again would be written twice.
func TestProducersOutliveTheSegmentsTheyWroteTo(t *testing.T) {
	for seed := range uint64(40) {
		m := disk.NewMem()
		o := testOptions(m)
		o.Now = func() time.Time { return time.UnixMilli(testNow) }
		d := mustOpen(t, o)
		d.noSyncFS.Store(true) // flushing the whole file system would flush more than is asked for
		cfg := smallConfig()
		cfg.SegmentBytes, cfg.FlushBeforeAck = 1200, true
		cfg.FileDeleteDelayMs = 0
		l := mustLog(t, d, cfg)
		mustAppend(t, l, produced(7, 0, 0, 0, 2))
		for i := range 60 {
			mustAppend(t, l, produced(8, 0, int32(i), i, 1))
		}
		flush(t, l)
		l.AdvanceHighWatermark(l.Progress().Flushed)
		segments := len(*l.segments.Load())
		if err := l.AdvanceStart(40); err != nil || len(*l.segments.Load()) == segments {
			t.Fatalf("seed %d: start moved: %v, segments %d, were %d", seed, err, len(*l.segments.Load()), segments)
		}
		if err := l.dir.fs.SyncDir(l.path); err != nil { // the segments are gone whatever the power cut takes
			t.Fatal(err)
		}
		o.FS = m.Crash(seed)
		abandon(d)
		d = mustOpen(t, o)
		l = mustLog(t, d, cfg)
		if found := sequencesOf(t, l); found[7] != 1 || found[8] != 59 {
			t.Fatalf("seed %d: last sequence numbers after the power cut: %v, want 1 of producer 7 and 59 of producer 8", seed, found)
		}
		abandon(d)
	}
}

func TestFiveBatchesAreKnownAfterAKill(t *testing.T) {
	for _, clean := range []bool{false, true} {
		m := disk.NewMem()
		o := testOptions(m)
		o.Now = func() time.Time { return time.UnixMilli(testNow) } // nothing expires
		d := mustOpen(t, o)
		l := mustLog(t, d, smallConfig())
		var firsts []int64
		for i := range 8 {
			firsts = append(firsts, mustAppend(t, l, produced(5, 1, int32(i*3), i, 3)).First)
			for other := range 3 {
				mustAppend(t, l, produced(int64(10+other), 0, int32(i*2), i, 2))
			}
		}
		flush(t, l)
		if clean {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
		} else {
			d.keeper.checkpoint()
			m = m.Kill()
			abandon(d)
		}
		o.FS = m
		d = mustOpen(t, o)
		l = mustLog(t, d, smallConfig())
		if n := len(l.Segments()); n < 2 {
			t.Fatalf("%d segments", n)
		}
		for _, i := range []int{5, 4, 6, 3, 7, 2, 0} {
			a, err := appendErr(l, produced(5, 1, int32(i*3), i, 3))
			if i < 3 {
				if !errors.Is(err, ErrOutOfOrderSequence) {
					t.Fatalf("batch %d, older than five, again: %+v, %v", i, a, err)
				}
				continue
			}
			if err != nil || !a.Duplicate || a.First != firsts[i] || a.Next != firsts[i]+3 {
				t.Fatalf("batch %d again: %+v, %v; first time at %d", i, a, err, firsts[i])
			}
		}
		mustAppend(t, l, produced(5, 1, 24, 0, 1))
		if a, err := appendErr(l, produced(5, 1, 12, 4, 3)); err != nil || !a.Duplicate {
			t.Fatalf("the fifth last again: %+v, %v", a, err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestRecallIsBounded: of a producer that wrote long ago no more than recallBytes of the log are looked through, once.
func TestRecallIsBounded(t *testing.T) {
	m := disk.NewMem()
	o := testOptions(m)
	o.Now = func() time.Time { return time.UnixMilli(testNow) }
	d := mustOpen(t, o)
	cfg := DefaultConfig()
	cfg.TimestampAfterMaxMs = 1 << 60
	l := mustLog(t, d, cfg)
	mustAppend(t, l, produced(5, 1, 0, 0, 1))
	for i := range 40 { // 40 MiB
		mustAppend(t, l, records(i, 1, 1<<20-100))
	}
	mustAppend(t, l, produced(5, 1, 1, 0, 1))
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	d = mustOpen(t, o)
	l = mustLog(t, d, cfg)
	var lowest, reads atomic.Int64
	lowest.Store(1 << 60)
	m.SetFault(func(op disk.Op) error {
		if op.Kind == disk.OpRead && strings.HasSuffix(op.Path, segment.DataSuffix) {
			reads.Add(1)
			lowest.Store(min(lowest.Load(), op.Off))
		}
		return nil
	})
	for again := range 2 {
		if a, err := appendErr(l, produced(5, 1, 0, 0, 1)); !errors.Is(err, ErrOutOfOrderSequence) {
			t.Errorf("time %d: %+v, %v", again, a, err)
		}
		if again == 1 && reads.Load() > 0 {
			t.Errorf("%d reads the second time", reads.Load())
		}
		reads.Store(0)
	}
	if at, most := lowest.Load(), l.Size()-recallBytes; at < most-1<<20 || at > most+1<<20 { // whole batches
		t.Errorf("read from %d on of %d", at, l.Size())
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
