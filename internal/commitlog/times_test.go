package commitlog

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
)

// TestTimesAreFoundAsByGoingThroughAllRecords compares with a walk over every record, for orderly and disorderly times.
func TestTimesAreFoundAsByGoingThroughAllRecords(t *testing.T) {
	for seed := range uint64(120) {
		r := rand.New(rand.NewPCG(seed, 6))
		m := disk.NewMem()
		d := mustOpen(t, testOptions(m))
		cfg := smallConfig()
		if seed%3 == 0 {
			cfg.IndexIntervalBytes = 4096
		}
		l := mustLog(t, d, cfg)
		var times []int64
		ms := testNow
		for range 20 + r.IntN(60) {
			codec := batch.Codec(r.IntN(5))
			b := batch.NewBuilder(batch.BuilderOptions{Codec: codec, Checker: sharedChecker})
			for range 1 + r.IntN(4) {
				if ms += r.Int64N(30); seed%2 == 0 && r.IntN(6) == 0 {
					ms -= r.Int64N(300)
				}
				b.Append(ms, nil, recordValue(1, 60), nil)
				times = append(times, ms)
			}
			made, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			mustAppend(t, l, made)
		}
		if seed%4 == 1 {
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			d = mustOpen(t, testOptions(m))
			l = mustLog(t, d, cfg)
		}
		start := 0
		if seed%5 == 0 {
			start = len(times) / 2
			l.AdvanceHighWatermark(int64(len(times)))
			if err := l.AdvanceStart(int64(start)); err != nil {
				t.Fatal(err)
			}
		}
		largest := slices.Max(times[start:])
		for ms := testNow - 5; ms < largest+10; ms += 1 + r.Int64N(9) {
			want := slices.IndexFunc(times[start:], func(at int64) bool { return at >= ms })
			got, found, err := l.OffsetForTime(ms)
			if err != nil || found != (want >= 0) || (found && (got.Offset != int64(start+want) || got.TimestampMs != times[start+want])) {
				t.Fatalf("seed %d: %d: %+v %v %v, want offset %d", seed, ms, got, found, err, start+want)
			}
		}
		if start == 0 {
			got, found, err := l.MaxTimestamp()
			if err != nil || !found || got.TimestampMs != largest || got.Offset != int64(slices.Index(times, largest)) {
				t.Fatalf("seed %d: %+v %v %v, want %d", seed, got, found, err, largest)
			}
		}
		_ = d.Close()
	}
}

func transactional(id int64, sequence int32, n int) batch.Batch {
	b := batch.NewBuilder(batch.BuilderOptions{})
	for i := range n {
		b.Append(testNow, nil, recordValue(i, 100), nil)
	}
	b.SetProducer(id, 0, sequence, true)
	made, err := b.Build()
	if err != nil {
		panic(err)
	}
	return made
}

func mark(t *testing.T, l *Log, id int64, commit bool) Appended {
	t.Helper()
	b := batch.BuildEndTransaction(batch.EndTransaction{Commit: commit, ProducerID: id, CoordinatorEpoch: 1, TimestampMs: testNow})
	a, err := l.Append(b, AppendOptions{NowMs: testNow, Origin: Coordinator})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestLastStableOffsetWaitsForTheMarkerAndItsCommit(t *testing.T) {
	m := disk.NewMem()
	d := mustOpen(t, testOptions(m))
	l := mustLog(t, d, DefaultConfig())
	stable := func(want int64) {
		t.Helper()
		if p := l.Progress(); p.LastStable != want {
			t.Fatalf("%+v, want last stable %d", p, want)
		}
	}
	mustAppend(t, l, records(0, 2, 20))
	mustAppend(t, l, transactional(1, 0, 2)) // 2, 3
	l.AdvanceHighWatermark(4)
	stable(2)
	mustAppend(t, l, transactional(2, 0, 1)) // 4
	if _, err := appendErr(l, produced(1, 0, 2, 0, 1)); !errors.Is(err, ErrInvalidTransactionState) {
		t.Fatal(err)
	}
	mark(t, l, 1, true) // 5
	l.AdvanceHighWatermark(5)
	stable(2) // the marker is not committed
	l.AdvanceHighWatermark(6)
	stable(4)
	mark(t, l, 2, false) // 6
	mark(t, l, 3, false) // 7: ends nothing
	l.AdvanceHighWatermark(8)
	stable(8)
	b := batch.BuildEndTransaction(batch.EndTransaction{Commit: true, ProducerID: 1, CoordinatorEpoch: 0, TimestampMs: testNow})
	if _, err := l.Append(b, AppendOptions{NowMs: testNow, Origin: Coordinator}); !errors.Is(err, ErrCoordinatorFenced) {
		t.Fatal(err)
	}
	aborted, err := l.AbortedTransactions(0, 8)
	if err != nil || len(aborted) != 1 || aborted[0] != (AbortedTransaction{ProducerID: 2, First: 4, Last: 6}) {
		t.Fatalf("%+v %v", aborted, err)
	}
	if aborted, _ := l.AbortedTransactions(0, 4); len(aborted) != 0 {
		t.Fatalf("%+v", aborted)
	}
	_ = d.Close()
}

// TestTransactionsMatchAModelThroughCrashes: last stable offset and aborted transactions after every restart are those of the
// records that survived.
func TestTransactionsMatchAModelThroughCrashes(t *testing.T) {
	type ended struct {
		AbortedTransaction
		aborted bool
	}
	for seed := range uint64(150) {
		r := rand.New(rand.NewPCG(seed, 7))
		m := disk.NewMem()
		open := func() (*Dir, *Log) {
			o := testOptions(m)
			o.Now = newClock().now
			d := mustOpen(t, o)
			return d, mustLog(t, d, smallConfig())
		}
		d, l := open()
		begun, sequence := map[int64]int64{}, map[int64]int32{}
		var all []ended
		check := func() {
			t.Helper()
			p := l.Progress()
			l.AdvanceHighWatermark(p.End)
			want := p.End
			for _, first := range begun {
				want = min(want, first)
			}
			if p := l.Progress(); p.LastStable != want {
				t.Fatalf("seed %d: %+v, want last stable %d", seed, p, want)
			}
			from := r.Int64N(p.End + 1)
			upTo := from + r.Int64N(p.End-from+1)
			got, err := l.AbortedTransactions(from, upTo)
			if err != nil {
				t.Fatal(err)
			}
			var list []AbortedTransaction
			for _, e := range all {
				if e.aborted && e.Last >= from && e.First < upTo {
					list = append(list, e.AbortedTransaction)
				}
			}
			slices.SortFunc(list, func(a, b AbortedTransaction) int { return int(a.First - b.First) })
			if fmt.Sprint(got) != fmt.Sprint(list) {
				t.Fatalf("seed %d: %d to %d: %v, want %v", seed, from, upTo, got, list)
			}
		}
		for range 5 {
			for range 5 + r.IntN(30) {
				id := int64(r.IntN(4))
				first, open := begun[id]
				if open && r.IntN(3) == 0 {
					commit := r.IntN(2) == 0
					a := mark(t, l, id, commit)
					all = append(all, ended{AbortedTransaction{ProducerID: id, First: first, Last: a.First}, !commit})
					delete(begun, id)
					continue
				}
				n := 1 + r.IntN(3)
				a := mustAppend(t, l, transactional(id, sequence[id], n))
				sequence[id] += int32(n)
				if !open {
					begun[id] = a.First
				}
			}
			check()
			if r.IntN(2) == 0 {
				d.keeper.checkpoint()
			}
			switch r.IntN(3) {
			case 0:
				if err := d.Close(); err != nil {
					t.Fatal(err)
				}
			case 1:
				flush(t, l)
				m = m.Crash(seed)
				abandon(d)
			default:
				m = m.Kill()
				abandon(d)
			}
			d, l = open()
			check()
		}
		_ = d.Close()
	}
}
