package accumulator

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"barnabas/client/internal/errcode"
	"barnabas/internal/batch"
	"barnabas/internal/faketime"
)

var errGivenUp = errors.New("given up")

// leader is a partition's leader as the protocol has it: it takes the next sequence of an epoch,
// recognises the last five batches, and begins a higher epoch at 0.
type leader struct {
	known bool
	epoch int16
	last  []span
	log   []string
}

type span struct{ sequence, count int32 }

func (l *leader) take(t *testing.T, b batch.Batch) error {
	t.Helper()
	if !l.known || b.ProducerEpoch() > l.epoch {
		if l.known && b.BaseSequence() != 0 {
			return errcode.OutOfOrderSequenceNumber
		}
		l.known, l.epoch, l.last = true, b.ProducerEpoch(), nil
	}
	if b.ProducerEpoch() < l.epoch {
		return errcode.InvalidProducerEpoch
	}
	own := span{b.BaseSequence(), b.Count()}
	if slices.Contains(l.last, own) {
		return nil // written already
	}
	if n := len(l.last); n > 0 && own.sequence != batch.AddSequence(l.last[n-1].sequence, l.last[n-1].count) {
		return errcode.OutOfOrderSequenceNumber
	}
	if l.last = append(l.last, own); len(l.last) > 5 {
		l.last = l.last[1:]
	}
	for r, err := range batch.NewChecker().Records(b) {
		if err != nil {
			t.Fatalf("a batch that cannot be read: %v", err)
		}
		l.log = append(l.log, string(r.Value))
	}
	return nil
}

// bench is one queue with what stands around it: a sender that is the test itself.
type bench struct {
	acc    *Accumulator[string]
	q      *Queue[string]
	routed atomic.Int64 // how often the queue has something to send and nobody has looked; timers add to it
	ended  []string
	lost   map[string]bool
	failed int
}

func newBench(cfg Config) *bench {
	b := &bench{lost: map[string]bool{}}
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Backoff = func(int) time.Duration { return 10 * time.Millisecond }
	id := int64(7)
	b.acc = New(cfg, Hooks[string]{
		Route:         func(*Queue[string]) { b.routed.Add(1) },
		Identity:      func(_ *Queue[string], notThis int64) (int64, int16, bool) { return id, 0, notThis != id },
		AwaitIdentity: func(*Queue[string]) { panic("BUG: there is a producer id") },
		Ended: func(done *Batch[string]) {
			for _, r := range done.Records {
				b.ended = append(b.ended, r.Done)
				if done.Outcome.Err != nil {
					b.lost[r.Done] = true
				}
			}
			b.acc.Forget(done) // which may be flying still
		},
		Failed:      func(error) { b.failed++ },
		AfterFailed: func() {},
		Closing:     func() bool { return false },
	})
	b.q = b.acc.NewQueue("t", 0)
	return b
}

// Whatever becomes of requests, with retries and deadlines: everything appended ends once and in
// order; what is told to be written is in the log once and in order; and nothing is in it twice.
func TestQueueKeepsOrderWhateverHappens(t *testing.T) {
	for seed := range uint64(400) {
		faketime.Test(t, func(t *testing.T) { orderWhateverHappens(t, seed) })
	}
}

func orderWhateverHappens(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := newBench(Config{
		BatchBytes: 150, Linger: time.Duration(rng.IntN(3)) * time.Millisecond, Idempotent: true,
		DeliveryTimeout: []time.Duration{time.Hour, 60 * time.Millisecond}[seed%2],
	})
	defer b.acc.Stop()
	var at leader
	var sent []string
	var flying []*Batch[string] // on one connection, so the leader sees them in this order
	answer := func(quiet bool) {
		f := flying[0]
		flying = flying[1:]
		if !quiet && rng.IntN(6) == 0 {
			b.q.Resolve(f, Lost(errcode.LeaderNotAvailable), time.Now()) // not written
			return
		}
		err := at.take(t, f.Bytes())
		o := Outcome{BaseOffset: -1, AppendTimeMs: -1, Err: err}
		if err == nil && !quiet && rng.IntN(5) == 0 {
			o.Err = errcode.RequestTimedOut // written, and nobody says so
		}
		b.q.Resolve(f, o, time.Now())
	}
	lose := func() { // the connection breaks: some that were on their way have arrived, in order
		arrived := rng.IntN(len(flying) + 1)
		gone := flying
		flying = nil
		for i, f := range gone {
			if i < arrived {
				_ = at.take(t, f.Bytes())
			}
		}
		for _, f := range gone {
			b.q.Resolve(f, Lost(errcode.Network), time.Now())
		}
	}
	send := func() {
		if b.routed.Load() == 0 || len(flying) == 5 {
			return
		}
		b.routed.Add(-1)
		f, more := b.q.Take(1, math.MaxInt, time.Now())
		if more {
			b.routed.Add(1)
		}
		if f == nil {
			return
		}
		if err := b.acc.Encode(f); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		flying = append(flying, f)
	}
	for i := range 600 {
		switch rng.IntN(8) {
		case 0, 1, 2:
			value := fmt.Sprint(i)
			sent = append(sent, value)
			b.q.Append(&Record[string]{Value: []byte(value), TimestampMs: 1, Done: value}, time.Now())
		case 3, 4:
			send()
		case 5:
			if len(flying) > 0 {
				answer(false)
			}
		case 6:
			if len(flying) > 0 && rng.IntN(4) == 0 {
				lose()
			}
		case 7:
			time.Sleep(time.Duration(rng.IntN(8)) * time.Millisecond)
			synctest.Wait()
			b.q.Expire(errGivenUp, time.Now(), func(*Queue[string]) error { return nil })
		}
	}
	b.q.Flush(time.Now())
	for range 10_000 {
		if b.q.Empty() {
			break
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if send(); len(flying) > 0 {
			answer(true)
		}
		b.q.Expire(errGivenUp, time.Now(), func(*Queue[string]) error { return nil })
	}
	if !slices.Equal(b.ended, sent) {
		t.Fatalf("seed %d: %d of %d records ended, or in another order", seed, len(b.ended), len(sent))
	}
	told := slices.DeleteFunc(slices.Clone(sent), func(v string) bool { return b.lost[v] })
	kept := slices.DeleteFunc(slices.Clone(at.log), func(v string) bool { return b.lost[v] })
	if !slices.Equal(kept, told) {
		t.Errorf("seed %d: told of %d records, the log holds %d of them, or in another order", seed, len(told), len(kept))
	}
	if at := slices.Clone(at.log); len(slices.Compact(slices.Sorted(slices.Values(at)))) != len(at) {
		t.Errorf("seed %d: the log holds repetitions", seed)
	}
	if (b.failed > 0) != (len(b.lost) > 0) || seed%2 == 0 && len(b.lost) > 0 {
		t.Errorf("seed %d: %d failures, %d records lost", seed, b.failed, len(b.lost))
	}
	if b.q.Backlog() != 0 {
		t.Errorf("seed %d: a backlog of %d in an empty queue", seed, b.q.Backlog())
	}
}

// A queue that is being asked by a partitioner says whether a record needs another batch.
func TestRoomInTheOpenBatch(t *testing.T) {
	b := newBench(Config{BatchBytes: 300, Linger: time.Hour, DeliveryTimeout: time.Hour})
	defer b.acc.Stop()
	if b.q.HasRoom(10) {
		t.Error("an empty queue has a batch")
	}
	if got := b.q.Append(&Record[string]{Value: make([]byte, 100)}, time.Now()); got != Open {
		t.Errorf("the first record: %d", got)
	}
	if !b.q.HasRoom(100) || b.q.HasRoom(200) {
		t.Error("a batch of some 170 bytes of 300 has room for 100 and not for 200")
	}
	if got := b.q.Append(&Record[string]{Value: make([]byte, 400)}, time.Now()); got != Full {
		t.Errorf("a record larger than a batch: %d", got)
	}
	if b.q.HasRoom(1) || b.q.Backlog() != 2 {
		t.Errorf("a full batch has room, or a backlog of %d", b.q.Backlog())
	}
	b.acc.Refuse()
	if got := b.q.Append(&Record[string]{}, time.Now()); got != Refused {
		t.Errorf("after Refuse: %d", got)
	}
}
