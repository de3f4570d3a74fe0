package commitlog

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// committedView is what a read_committed reader makes of a log: the last value of every key.
func committedView(t *testing.T, l *Log) map[string]string {
	t.Helper()
	p := l.Progress()
	aborted, err := l.AbortedTransactions(p.Start, p.LastStable)
	if err != nil {
		t.Fatal(err)
	}
	values, skip := map[string]string{}, map[int64]bool{}
	for from := p.Start; from < p.LastStable; {
		r, err := l.Read(from, 1<<20, p.LastStable, true)
		if err != nil {
			t.Fatal(err)
		}
		data, err := r.AppendTo(nil)
		if err != nil {
			t.Fatal(err)
		}
		if r.Next <= from {
			break
		}
		for len(data) > 0 {
			b, rest, err := batch.Next(data)
			if err != nil {
				t.Fatal(err)
			}
			data = rest
			// As clients do it: a transaction is skipped from its first offset on, until its marker.
			for len(aborted) > 0 && aborted[0].First <= b.LastOffset() {
				skip[aborted[0].ProducerID], aborted = true, aborted[1:]
			}
			if b.IsControl() {
				if b.Count() > 0 {
					if c, err := sharedChecker.ParseControl(b); err != nil {
						t.Fatal(err)
					} else if c.Type == batch.AbortMarker {
						delete(skip, b.ProducerID())
					}
				}
				continue
			}
			if b.IsTransactional() && skip[b.ProducerID()] {
				continue
			}
			for rec, err := range sharedChecker.Records(b) {
				if err != nil {
					t.Fatal(err)
				}
				if rec.Value == nil {
					delete(values, string(rec.Key))
				} else {
					values[string(rec.Key)] = string(rec.Value)
				}
			}
		}
		from = r.Next
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return values
}

// TestCompactionOfTransactionsKeepsWhatReadersSee: whatever is committed or aborted, a read_committed reader sees the same last values
// before and after each compaction and restart, open transactions can go on, and markers go once nothing is left that
// they decide about.
func TestCompactionOfTransactionsKeepsWhatReadersSee(t *testing.T) {
	for seed := range uint64(120) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 11))
			clock := newClock()
			m := disk.NewMem()
			cfg := keyedConfig()
			cfg.DeleteRetentionMs = int64(r.IntN(3) * 100)
			open := func() (*Dir, *Log) {
				o := testOptions(m)
				o.Now = clock.now
				d := mustOpen(t, o)
				return d, mustLog(t, d, cfg)
			}
			d, l := open()
			begun, sequence := map[int64]bool{}, map[int64]int32{}
			for round := range 6 {
				writeTransactions(t, r, l, begun, sequence)
				flush(t, l)
				l.AdvanceHighWatermark(l.Progress().End)
				clock.ms.Add(int64(r.IntN(150)))
				want, stable := committedView(t, l), l.Progress().LastStable
				before := sequencesOf(t, l)
				mustCompact(t, l, clock.now())
				if got := committedView(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("round %d: after compaction %v, want %v", round, got, want)
				}
				if r.IntN(2) == 0 {
					m = m.Crash(seed)
					abandon(d)
				} else if err := d.Close(); err != nil {
					t.Fatal(err)
				}
				d, l = open()
				l.AdvanceHighWatermark(l.Progress().End)
				if p := l.Progress(); p.LastStable != stable {
					t.Fatalf("round %d: stable up to %d after a restart, %d before", round, p.LastStable, stable)
				}
				if got := committedView(t, l); fmt.Sprint(got) != fmt.Sprint(want) {
					t.Fatalf("round %d: after a restart %v, want %v", round, got, want)
				}
				if got := sequencesOf(t, l); fmt.Sprint(got) != fmt.Sprint(before) {
					t.Fatalf("round %d: producers %v, before %v", round, got, before)
				}
			}
			_ = d.Close()
		})
	}
}

func writeTransactions(t *testing.T, r *rand.Rand, l *Log, begun map[int64]bool, sequence map[int64]int32) {
	t.Helper()
	for range 10 + r.IntN(40) {
		id := int64(r.IntN(4))
		if begun[id] && r.IntN(3) == 0 {
			mark(t, l, id, r.IntN(2) == 0)
			delete(begun, id)
			continue
		}
		var records []string
		for range 1 + r.IntN(3) {
			record := fmt.Sprint("key-", r.IntN(6))
			if r.IntN(4) > 0 {
				record += fmt.Sprint("=", l.Progress().End, " ", r.IntN(1000))
			}
			records = append(records, record)
		}
		b := keyedBatch(records...)
		if id > 0 { // 0 stands for producers without transactions
			b.SetProducer(id, 0, sequence[id], true)
			sequence[id] += int32(len(records))
			begun[id] = true
		}
		mustAppend(t, l, b)
	}
}

// TestMarkersGoOnceNothingIsLeftOfTheirTransaction: not before, and then as late as a tombstone.
func TestMarkersGoOnceNothingIsLeftOfTheirTransaction(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	cfg := keyedConfig()
	cfg.DeleteRetentionMs = 1000
	l := mustLog(t, d, cfg)
	for id, commit := range map[int64]bool{1: true, 2: false} {
		b := keyedBatch("key-0=of a transaction")
		b.SetProducer(id, 0, 0, true)
		mustAppend(t, l, b)
		mark(t, l, id, commit)
		mustAppend(t, l, transactionalKeyed(id, 1)) // the last batch of each producer, which stays, lies later
		mark(t, l, id, true)
	}
	clock := newClock()
	markers := func() (n int) {
		t.Helper()
		fillKeys(t, l, 20, 3)
		mustCompact(t, l, clock.now())
		for _, k := range keysOf(t, l) {
			if k[:6] == "marker" {
				n++
			}
		}
		return n
	}
	var seen []int
	for range 3 {
		seen = append(seen, markers())
	}
	clock.ms.Add(1001)
	seen = append(seen, markers(), markers())
	// The records go with the first compaction; the second finds nothing of the first two transactions and dates their markers.
	if !slices.Equal(seen, []int{4, 4, 4, 2, 2}) {
		t.Fatalf("markers after each compaction: %v", seen)
	}
	_ = d.Close()
}

func transactionalKeyed(id int64, sequence int32) batch.Batch {
	b := keyedBatch(fmt.Sprintf("own-%d=stays", id))
	b.SetProducer(id, 0, sequence, true)
	return b
}
