package commitlog

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"barnabas/internal/batch"
	"barnabas/internal/commitlog/compact"
	"barnabas/internal/disk"
)

// kept is a record of a compacted log; dead is a tombstone.
type kept struct {
	offset     int64
	key, value string
	dead       bool
	ms         int64
}

// sequenced is a batch of an idempotent producer.
type sequenced struct {
	end, id int64
	last    int32
}

// keyedModel is what was written to a log, as a plain list and a plain map.
type keyedModel struct {
	t         *testing.T
	written   []kept          // by offset
	gone      map[int64]bool  // seen to be missing once it was certain that they had gone
	dated     map[int64]int64 // tombstone: when a compaction may first have given it its date
	nowMs     atomic.Int64
	retention int64
	attempted int64 // no compaction has looked beyond
	batches   []sequenced
}

func newKeyedModel(t *testing.T) *keyedModel {
	k := &keyedModel{t: t, gone: map[int64]bool{}, dated: map[int64]int64{}}
	k.nowMs.Store(testNow)
	return k
}

func (k *keyedModel) now() time.Time { return time.UnixMilli(k.nowMs.Load()) }

// survivors reads the log through Read and AppendTo, and compares every record with what was written at its offset.
func (k *keyedModel) survivors(l *Log) []kept {
	k.t.Helper()
	var out []kept
	p := l.Progress()
	for from := p.Start; from < p.End; {
		r, err := l.Read(from, 900, p.End, true)
		if err != nil {
			k.t.Fatalf("read %d of %+v: %v", from, p, err)
		}
		if r.Len() == 0 && r.Next == from {
			break // only offsets without records are left
		}
		data, err := r.AppendTo(nil)
		if err != nil || r.Next <= from {
			k.t.Fatalf("read %d of %+v: %d to %d: %v", from, p, r.First, r.Next, err)
		}
		for len(data) > 0 {
			b, rest, err := batch.Next(data)
			if err != nil {
				k.t.Fatal(err)
			}
			for rec, err := range sharedChecker.Records(b) {
				if err != nil {
					k.t.Fatalf("records at %d: %v", b.BaseOffset(), err)
				}
				got := kept{b.OffsetOf(&rec), string(rec.Key), string(rec.Value), rec.Value == nil, b.TimestampOf(&rec)}
				if len(out) > 0 && got.offset <= out[len(out)-1].offset {
					k.t.Fatalf("offset %d after %d", got.offset, out[len(out)-1].offset)
				}
				if got.offset >= int64(len(k.written)) || got != k.written[got.offset] {
					k.t.Fatalf("offset %d holds %+v, written was %+v", got.offset, got, k.written[min(got.offset, int64(len(k.written)-1))])
				}
				out = append(out, got)
			}
			data = rest
		}
		if err := r.Close(); err != nil {
			k.t.Fatal(err)
		}
		from = r.Next
	}
	return slices.DeleteFunc(out, func(s kept) bool { return s.offset < p.Start })
}

// check demands what compaction promises. certain says that no crash can bring back what is missing now.
func (k *keyedModel) check(l *Log, certain bool) {
	k.t.Helper()
	p := l.Progress()
	if at, damaged := l.Damaged(); damaged {
		k.t.Fatalf("damaged from %d on", at)
	}
	found := k.survivors(l)
	there := map[int64]bool{}
	for _, s := range found {
		there[s.offset] = true
		if k.gone[s.offset] {
			k.t.Fatalf("offset %d (%s) is back", s.offset, s.key)
		}
	}
	last := map[string]kept{}
	clean := l.Compacted()
	count := map[string]int{}
	for _, w := range k.written[p.Start:p.End] {
		last[w.key] = w
		if w.offset >= k.attempted && !there[w.offset] {
			k.t.Fatalf("offset %d is missing, compaction never got beyond %d of %+v", w.offset, k.attempted, p)
		}
		if w.offset < clean && there[w.offset] {
			if count[w.key]++; count[w.key] > 1 {
				k.t.Fatalf("key %s has a second record at %d, compacted up to %d", w.key, w.offset, clean)
			}
		}
	}
	for key, w := range last {
		if there[w.offset] || w.offset < p.Start {
			continue
		}
		if !w.dead {
			k.t.Fatalf("key %s lost its last value, at %d", key, w.offset)
		}
		if at, ok := k.dated[w.offset]; !ok || k.nowMs.Load() < at+k.retention {
			k.t.Fatalf("tombstone of %s at %d went before its time: %d, now %d", key, w.offset, at, k.nowMs.Load())
		}
		for _, s := range found {
			if s.key == key && s.offset < w.offset {
				k.t.Fatalf("key %s is back at %d: its tombstone at %d is gone", key, s.offset, w.offset)
			}
		}
	}
	k.checkGaps(l, found)
	if certain {
		for _, w := range k.written[p.Start:p.End] {
			if !there[w.offset] {
				k.gone[w.offset] = true
			}
		}
	}
}

// checkGaps reads from offsets that may be missing: the next one there comes.
func (k *keyedModel) checkGaps(l *Log, found []kept) {
	k.t.Helper()
	p := l.Progress()
	for from := p.Start; from < p.End; from += 7 {
		i, _ := slices.BinarySearchFunc(found, from, func(s kept, from int64) int { return int(s.offset - from) })
		if i == len(found) {
			return
		}
		r, err := l.Read(from, 1, p.End, true)
		if err != nil {
			k.t.Fatalf("read %d: %v", from, err)
		}
		for at := r; at.Next <= found[i].offset; { // empty batches come before
			if err := at.Close(); err != nil {
				k.t.Fatal(err)
			}
			if at, err = l.Read(at.Next, 1, p.End, true); err != nil || at.First > found[i].offset {
				k.t.Fatalf("read on from %d: %d to %d, next record at %d: %v", from, at.First, at.Next, found[i].offset, err)
			}
			r = at
		}
		if r.First > found[i].offset {
			k.t.Fatalf("read %d: begins at %d, there is a record at %d", from, r.First, found[i].offset)
		}
		_ = r.Close()
	}
}

var testCodecs = []batch.Codec{batch.None, batch.None, batch.None, batch.Gzip, batch.Snappy, batch.Lz4, batch.Zstd}

// append writes a batch of records with few keys.
func (k *keyedModel) append(r *rand.Rand, l *Log, keys int, sequences map[int64]int32) {
	k.t.Helper()
	b := batch.NewBuilder(batch.BuilderOptions{Codec: testCodecs[r.IntN(len(testCodecs))], Checker: sharedChecker})
	n := 1 + r.IntN(8)
	var records []kept
	base := l.Progress().End
	for i := range n {
		rec := kept{offset: base + int64(i), key: fmt.Sprint("key-", r.IntN(keys)), ms: k.nowMs.Load() - r.Int64N(5)}
		var value []byte
		if rec.dead = r.IntN(4) == 0; !rec.dead {
			value = recordValue(int(rec.offset), r.IntN(120))
			rec.value = string(value)
		}
		b.Append(rec.ms, []byte(rec.key), value, nil)
		records = append(records, rec)
	}
	if r.IntN(3) == 0 {
		id := r.Int64N(3)
		first, known := sequences[id]
		if !known {
			first = -1
		}
		b.SetProducer(id, 0, first+1, false)
		sequences[id] = first + int32(n)
		k.batches = append(k.batches, sequenced{base + int64(n), id, first + int32(n)})
	}
	made, err := b.Build()
	if err != nil {
		k.t.Fatal(err)
	}
	cfg := l.Config()
	if _, err := l.Append(made, AppendOptions{NowMs: k.nowMs.Load()}); err != nil {
		k.t.Fatalf("append: %v", err)
	}
	for _, rec := range records {
		if cfg.TimestampType == batch.LogAppendTime {
			rec.ms = k.nowMs.Load()
		}
		k.written = append(k.written[:rec.offset], rec)
	}
}

// forget takes back what was written from end on: a crash lost it.
func (k *keyedModel) forget(end int64) {
	k.written = k.written[:end]
	k.attempted = min(k.attempted, end)
	k.batches = slices.DeleteFunc(k.batches, func(b sequenced) bool { return b.end > end })
	for offset := range k.gone {
		if offset >= end {
			delete(k.gone, offset)
		}
	}
	for offset := range k.dated {
		if offset >= end {
			delete(k.dated, offset)
		}
	}
}

// compactedConfig rolls often, and compacts whatever is dirty.
func compactedConfig(r *rand.Rand) Config {
	cfg := smallConfig()
	cfg.Compact, cfg.Delete, cfg.RetentionMs = true, r.IntN(4) == 0, -1
	cfg.SegmentBytes = int32(1400 + r.IntN(3000))
	cfg.MinCleanableRatio, cfg.DeleteRetentionMs = 0, int64(r.IntN(3)*50)
	cfg.FlushBeforeAck = r.IntN(4) > 0
	if r.IntN(4) == 0 {
		cfg.TimestampType = batch.LogAppendTime
	}
	return cfg
}

// compactNow does what a worker would, in the test's goroutine. bytes is the table of keys, if not 0.
func (k *keyedModel) compactNow(l *Log, bytes int64) error {
	k.t.Helper()
	d, err := l.dirt(k.nowMs.Load())
	if err != nil {
		return err
	}
	if d.dirty == 0 {
		return nil
	}
	k.attempted = max(k.attempted, d.upTo)
	for _, w := range k.written[:d.upTo] {
		if _, known := k.dated[w.offset]; w.dead && !known {
			k.dated[w.offset] = k.nowMs.Load()
		}
	}
	o := CleanerOptions{Threads: 1, IOBufferBytes: 8192, Now: k.now}
	o.setDefaults()
	throttle := &compact.Throttle{}
	throttle.SetRate(o.IOBytesPerSecond)
	if bytes == 0 {
		bytes = o.mapFor(d.upTo - d.from)
	}
	_, err = l.compact(context.Background(), d, &o, bytes, throttle)
	return err
}

// touchesCompaction tells the operations on the files that compaction writes and renames.
func touchesCompaction(op disk.Op) bool {
	switch op.Kind {
	case disk.OpRead, disk.OpSize, disk.OpList, disk.OpStat, disk.OpOpen:
		return false
	case disk.OpSyncDir:
		return true
	}
	return strings.Contains(op.Path, ".cleaned") || strings.Contains(op.Path, ".swap") || strings.Contains(op.To, ".deleted") ||
		strings.Contains(op.Path, cleanerFile)
}

// TestCompactionKeepsItsPromisesThroughCrashes runs random histories of a compacted log, with power cuts at any step of a
// compaction, and compares with a plain list of what was written after each.
func TestCompactionKeepsItsPromisesThroughCrashes(t *testing.T) {
	histories := compactionSeeds
	if underRace {
		histories /= 6
	}
	for seed := range histories {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			runCompactionHistory(t, seed)
		})
	}
}

// compactionSeeds is how many histories a run of the tests goes through.
const compactionSeeds = uint64(300)

func runCompactionHistory(t *testing.T, seed uint64) {
	r := rand.New(rand.NewPCG(seed, 77))
	k := newKeyedModel(t)
	m := disk.NewMem()
	cfg := compactedConfig(r)
	k.retention = cfg.DeleteRetentionMs
	keys := 2 + r.IntN(30)
	for round := range uint64(4) {
		o := testOptions(m)
		o.Now = k.now
		d := mustOpen(t, o)
		l := mustLog(t, d, cfg)
		k.recovered(l)
		sequences := sequencesOf(t, l)
		next := k.live(r, m, l, keys, sequences, seed*10+round)
		if next == nil && r.IntN(3) == 0 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			m = m.Kill()
			continue
		}
		durable := l.Progress().Flushed
		if next == nil {
			next = m.Crash(seed*10 + round)
		}
		abandon(d)
		m = next
		m.SetFault(nil)
		o.FS = m
		d = mustOpen(t, o)
		l = mustLog(t, d, cfg)
		if end := l.Progress().End; end < durable {
			t.Fatalf("log ends at %d, %d was durable", end, durable)
		}
		k.recovered(l)
		abandon(d)
		m = m.Kill()
	}
}

// recovered compares the log after a start with what was written.
func (k *keyedModel) recovered(l *Log) {
	k.t.Helper()
	k.forget(l.Progress().End)
	l.AdvanceHighWatermark(l.Progress().End)
	k.check(l, true)
	want := map[int64]int32{}
	for _, b := range k.batches {
		want[b.id] = b.last
	}
	if found := sequencesOf(k.t, l); !maps.Equal(found, want) {
		k.t.Fatalf("producers' last sequence numbers are %v, want %v", found, want)
	}
}

func sequencesOf(t *testing.T, l *Log) map[int64]int32 {
	t.Helper()
	states, err := l.Producers()
	if err != nil {
		t.Fatal(err)
	}
	found := map[int64]int32{}
	for _, s := range states {
		found[s.ID] = s.LastSequence
	}
	return found
}

// live writes, compacts and deletes by chance. It returns the disk after a power cut if there was one.
func (k *keyedModel) live(r *rand.Rand, m *disk.Mem, l *Log, keys int, sequences map[int64]int32, crashSeed uint64) *disk.Mem {
	k.t.Helper()
	for range 1 + r.IntN(60) {
		k.nowMs.Add(r.Int64N(30))
		k.append(r, l, keys, sequences)
		switch r.IntN(14) {
		case 0:
			flush(k.t, l)
			l.AdvanceHighWatermark(l.Progress().Flushed)
		case 1:
			l.dir.keeper.checkpoint()
		case 2:
			flush(k.t, l)
			l.AdvanceHighWatermark(l.Progress().Flushed)
			for range r.IntN(4) { // what a power cut may take, after the log was compacted
				k.append(r, l, keys, sequences)
			}
			if next := k.compactMaybeCrashing(r, m, l, crashSeed); next != nil {
				return next
			}
		case 3:
			if p := l.Progress(); r.IntN(6) == 0 {
				if err := l.AdvanceStart(p.Start + r.Int64N(p.HighWatermark-p.Start+1)); err != nil {
					k.t.Fatal(err)
				}
				if err := l.dir.points.storeStarts(l.dir, l.dir.logs()); err != nil {
					k.t.Fatal(err)
				}
			}
		case 4:
			if p := l.Progress(); r.IntN(6) == 0 { // a follower that gives up what its leader does not have
				to := p.HighWatermark + r.Int64N(p.End-p.HighWatermark+1)
				if err := l.Truncate(to); err != nil {
					k.t.Fatal(err)
				}
				k.forget(l.Progress().End)
				clear(sequences)
				for id, last := range sequencesOf(k.t, l) {
					sequences[id] = last
				}
			}
		}
	}
	return nil
}

// compactMaybeCrashing compacts, and in half of the cases the power goes at some step of it.
func (k *keyedModel) compactMaybeCrashing(r *rand.Rand, m *disk.Mem, l *Log, crashSeed uint64) *disk.Mem {
	k.t.Helper()
	bytes := int64(0)
	if r.IntN(2) == 0 {
		bytes = int64(2+r.IntN(20)) * 16
	}
	if r.IntN(2) == 0 {
		if err := k.compactNow(l, bytes); err != nil {
			k.t.Fatalf("compact: %v", err)
		}
		k.check(l, true)
		return nil
	}
	left := 1 + r.Int64N(40)
	var next *disk.Mem
	kill := r.IntN(4) == 0
	var crashing sync.Mutex // the directory's own goroutines meet the fault too
	m.SetFault(func(op disk.Op) error {
		crashing.Lock()
		defer crashing.Unlock()
		if !touchesCompaction(op) {
			return nil
		}
		if left--; left == 0 && kill {
			next = m.Kill()
		} else if left == 0 {
			next = m.Crash(crashSeed)
		}
		return nil
	})
	err := k.compactNow(l, bytes)
	m.SetFault(nil)
	crashing.Lock()
	defer crashing.Unlock()
	if next != nil {
		return next
	}
	if err != nil && !errors.Is(err, errOvertaken) {
		k.t.Fatalf("compact: %v", err)
	}
	k.check(l, true)
	return nil
}
