package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/faketime"
)

// bubble runs a test with a fake cluster and fake time; all that was started has ended after it.
func bubble(t *testing.T, nodes int32, test func(t *testing.T, f *fakeCluster)) {
	t.Helper()
	faketime.Test(t, func(t *testing.T) {
		f := newFake(t, nodes)
		defer f.end()
		test(t, f)
	})
}

func newTestProducer(t *testing.T, f *fakeCluster, options ...ProducerOption) (*Client, *Producer) {
	t.Helper()
	c := f.client()
	p, err := c.NewProducer(options...)
	if err != nil {
		t.Fatal(err)
	}
	return c, p
}

// closeProducer ends a producer that has nothing left to send.
func closeProducer(t *testing.T, p *Producer) {
	t.Helper()
	if err := p.Close(t.Context()); err != nil {
		t.Errorf("close: %v", err)
	}
}

// chaos interferes at random, less and less: from quiet on not at all, so that a run ends.
func chaos(f *fakeCluster, rng *rand.Rand, quiet time.Time, tps []TopicPartition) func(int32, kmsg.Request) interference {
	var mu sync.Mutex
	refusals := []Error{
		ErrNotEnoughReplicas, ErrRequestTimedOut, ErrNotLeaderOrFollower, ErrLeaderNotAvailable, ErrKafkaStorageError,
		ErrUnknownTopicOrPartition,
	}
	return func(_ int32, req kmsg.Request) interference {
		mu.Lock()
		defer mu.Unlock()
		if !time.Now().Before(quiet) {
			return interference{}
		}
		switch req.Key() {
		case 0:
			switch rng.IntN(12) {
			case 0:
				return interference{drop: true}
			case 1:
				return interference{cut: true}
			case 2:
				return interference{code: int16(refusals[rng.IntN(len(refusals))])}
			case 3:
				return interference{after: int16(ErrNotEnoughReplicasAfterAppend)}
			case 4:
				if rng.IntN(8) == 0 {
					return interference{silent: true}
				}
			case 5:
				f.lead(tps[rng.IntN(len(tps))], int32(1+rng.IntN(3)))
			case 6:
				return interference{delay: time.Duration(rng.IntN(int(200 * time.Millisecond)))}
			}
		case 3, 22:
			switch rng.IntN(8) {
			case 0:
				return interference{drop: true}
			case 1:
				return interference{cut: true}
			}
		}
		return interference{}
	}
}

// Whatever happens to requests, an idempotent producer whose records are all acknowledged has
// written each exactly once, in the order of Send, and its callbacks ran in that order with the
// offsets at which the records lie.
func TestRecordsArriveOnceAndInOrder(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) { arriveOnceAndInOrder(t, f, seed) })
		})
	}
}

func arriveOnceAndInOrder(t *testing.T, f *fakeCluster, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	const partitions = 4
	f.topic("t", partitions)
	var tps []TopicPartition
	for n := range int32(partitions) {
		tps = append(tps, TopicPartition{"t", n})
	}
	f.script(chaos(f, rand.New(rand.NewPCG(seed, 2)), time.Now().Add(time.Minute), tps))
	c, p := newTestProducer(t, f, Linger(time.Duration(rng.IntN(10))*time.Millisecond), BatchSize(100+rng.IntN(900)),
		DeliveryTimeout(time.Hour), BufferMemory(20_000), MaxBlock(time.Hour))
	defer c.Close()
	defer closeProducer(t, p)

	sent := make([][]string, partitions)
	var mu sync.Mutex
	acked := make([][]string, partitions)
	offsets := make([][]int64, partitions)
	for i := range 2000 {
		n := int32(rng.IntN(partitions))
		value := fmt.Sprintf("%d", i)
		sent[n] = append(sent[n], value)
		err := p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(n), Value: []byte(value)},
			func(m RecordMetadata, err error) {
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					t.Errorf("seed %d: record %s of partition %d: %v", seed, value, n, err)
				}
				acked[n] = append(acked[n], value)
				offsets[n] = append(offsets[n], m.Offset)
			})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if rng.IntN(50) == 0 {
			time.Sleep(time.Duration(rng.IntN(int(300 * time.Millisecond))))
		}
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	for n := range partitions {
		log := f.values(TopicPartition{"t", int32(n)})
		if !slices.Equal(log, sent[n]) {
			t.Errorf("seed %d: partition %d: %s\n%s", seed, n, difference(log, sent[n]), f.dump(TopicPartition{"t", int32(n)}))
		}
		if !slices.Equal(acked[n], sent[n]) {
			t.Errorf("seed %d: partition %d: callbacks: %s", seed, n, difference(acked[n], sent[n]))
		}
		for i, o := range offsets[n] {
			if o >= 0 && o != int64(i) {
				t.Fatalf("seed %d: partition %d: record %d is at offset %d, its callback said %d\n%s", seed, n, i, i, o,
					f.dump(TopicPartition{"t", int32(n)}))
			}
		}
	}
	if used := p.memory.Used(); used != 0 {
		t.Errorf("seed %d: %d bytes of buffer.memory were not given back", seed, used)
	}
}

// difference says where two lists part.
func difference(got, want []string) string {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			return fmt.Sprintf("%d values, expected %d; from the %dth on %v, expected %v", len(got), len(want), i,
				got[min(i, len(got)):min(i+10, len(got))], want[min(i, len(want)):min(i+10, len(want))])
		}
	}
	return "equal"
}

// With deliveries that time out, every record still has one callback, in order; what was
// acknowledged is in the log once; and what is in the log is there at most once and in order.
func TestGivenUpRecordsLeaveNoTrace(t *testing.T) {
	for seed := range uint64(40) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) { giveUpSome(t, f, seed) })
		})
	}
}

func giveUpSome(t *testing.T, f *fakeCluster, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	f.topic("t", 2)
	tps := []TopicPartition{{"t", 0}, {"t", 1}}
	noise := chaos(f, rand.New(rand.NewPCG(seed, 2)), time.Now().Add(20*time.Second), tps)
	f.script(func(node int32, req kmsg.Request) interference {
		// Now and then a partition cannot be written to for longer than the delivery timeout.
		if req.Key() == 0 && time.Now().Unix()%20 < 4 {
			switch time.Now().Unix() % 3 {
			case 0:
				return interference{cut: true}
			case 1:
				return interference{code: int16(ErrNotEnoughReplicas)}
			default:
				return interference{after: int16(ErrNotEnoughReplicasAfterAppend)}
			}
		}
		return noise(node, req)
	})
	c := f.client(RequestTimeout(time.Second))
	defer c.Close()
	p, err := c.NewProducer(Linger(time.Millisecond), BatchSize(300), DeliveryTimeout(1500*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	defer closeProducer(t, p)
	type result struct {
		value string
		err   error
	}
	var mu sync.Mutex
	results := map[int32][]result{}
	sent := map[int32][]string{}
	for i := range 1500 {
		n := int32(rng.IntN(2))
		value := fmt.Sprintf("%06d", i)
		err := p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(n), Value: []byte(value)},
			func(_ RecordMetadata, err error) {
				mu.Lock()
				defer mu.Unlock()
				results[n] = append(results[n], result{value, err})
			})
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		sent[n] = append(sent[n], value)
		time.Sleep(time.Duration(rng.IntN(int(30 * time.Millisecond))))
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	lost := 0
	for n := range int32(2) {
		log := f.values(TopicPartition{"t", n})
		if !slices.IsSorted(log) || len(slices.Compact(slices.Clone(log))) != len(log) {
			t.Errorf("seed %d: partition %d holds repetitions, or records out of order: %v", seed, n, log)
		}
		if len(results[n]) != len(sent[n]) {
			t.Fatalf("seed %d: partition %d: %d callbacks, %d records", seed, n, len(results[n]), len(sent[n]))
		}
		for i, r := range results[n] {
			if r.value != sent[n][i] {
				t.Fatalf("seed %d: partition %d: callback %d is for %s, record %s", seed, n, i, r.value, sent[n][i])
			}
			if r.err != nil {
				lost++
				continue
			}
			if _, in := slices.BinarySearch(log, r.value); !in {
				t.Errorf("seed %d: partition %d: %s was acknowledged and is not there", seed, n, r.value)
			}
		}
	}
	if lost == 0 && seed == 0 {
		t.Errorf("seed %d: nothing was given up: the test tests nothing", seed)
	}
}

// A leader that knows nothing of a producer takes any sequence: until the first batch is
// acknowledged no second one may leave.
func TestFirstBatchIsAcknowledgedBeforeTheSecondLeaves(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		requests := 0
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() != 0 {
				return interference{}
			}
			requests++
			if requests == 1 {
				return interference{delay: 100 * time.Millisecond, code: int16(ErrNotEnoughReplicas)}
			}
			return interference{}
		})
		sendPaced(t, f, 10, 5*time.Millisecond)
	})
}

// A leader recognises the last five batches: while one that may have been written is sent again,
// nothing new may be written behind it.
func TestNothingNewPassesWhatIsSentAgain(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		requests, of5 := 0, 0
		f.script(func(_ int32, req kmsg.Request) interference {
			r, ok := req.(*kmsg.ProduceRequest)
			if !ok {
				return interference{}
			}
			if requests++; batch.Batch(r.Topics[0].Partitions[0].Records).BaseSequence() != 5 {
				return interference{}
			}
			switch of5++; of5 {
			case 1: // written, but the producer does not learn it; four more are on their way
				return interference{delay: 50 * time.Millisecond, after: int16(ErrNotEnoughReplicasAfterAppend)}
			case 2, 3, 4:
				return interference{delay: 50 * time.Millisecond, code: int16(ErrNotEnoughReplicas)}
			}
			return interference{}
		})
		sendPaced(t, f, 60, 5*time.Millisecond)
	})
}

// sendPaced sends records one by one, each a batch, and compares the log with them.
func sendPaced(t *testing.T, f *fakeCluster, n int, pace time.Duration) {
	t.Helper()
	c, p := newTestProducer(t, f, Linger(0), BatchSize(0))
	defer c.Close()
	for _, v := range values(0, n) {
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte(v)}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(pace)
	}
	if err := p.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	tp := TopicPartition{"t", 0}
	if got := f.values(tp); !slices.Equal(got, values(0, n)) {
		t.Errorf("%s\n%s", difference(got, values(0, n)), f.dump(tp))
	}
}

// A leader that has lost what it knew of the producer refuses its numbers; the partition goes on
// in the next epoch (KIP-360), and nothing is repeated.
func TestNextEpochWhereNumbersCannotContinue(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		c, p := newTestProducer(t, f)
		defer c.Close()
		send := func(v string) {
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte(v)}); err != nil {
				t.Fatal(err)
			}
		}
		send("a")
		send("b")
		f.mu.Lock()
		for _, s := range topic.partitions[0].producers {
			s.last = []batchSpan{{sequence: 700, count: 1}}
		}
		f.mu.Unlock()
		send("c")
		send("d")
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		log := topic.partitions[0].batches
		last := log[len(log)-1]
		if len(log) != 4 || last.ProducerEpoch() != 1 || last.BaseSequence() != 1 || last.ProducerID() != log[0].ProducerID() {
			t.Errorf("%d batches, the last of id %d, epoch %d, sequence %d; the first of id %d",
				len(log), last.ProducerID(), last.ProducerEpoch(), last.BaseSequence(), log[0].ProducerID())
		}
	})
}

// INVALID_PRODUCER_EPOCH says that somebody uses our id in a higher epoch: another id is needed.
func TestNewProducerIDWhereTheEpochIsFenced(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		c, p := newTestProducer(t, f)
		defer c.Close()
		for _, v := range []string{"a", "b"} {
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte(v)}); err != nil {
				t.Fatal(err)
			}
			f.mu.Lock()
			for _, s := range topic.partitions[0].producers {
				s.epoch = 9
			}
			f.mu.Unlock()
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if log := topic.partitions[0].batches; len(log) != 2 || log[0].ProducerID() == log[1].ProducerID() {
			t.Errorf("%d batches, of producers %d and %d", len(log), log[0].ProducerID(), log[len(log)-1].ProducerID())
		}
	})
}

// A batch that the broker finds too large is sent as two, with the same numbers.
func TestTooLargeBatchesAreSplit(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		f.script(func(_ int32, req kmsg.Request) interference {
			if r, ok := req.(*kmsg.ProduceRequest); ok && len(r.Topics[0].Partitions[0].Records) > 400 {
				return interference{code: int16(ErrMessageTooLarge)}
			}
			return interference{}
		})
		c, p := newTestProducer(t, f, BatchSize(10_000))
		defer c.Close()
		var want []string
		failed := 0
		for i := range 100 {
			v := fmt.Sprintf("value %d", i)
			if i == 50 {
				v = string(make([]byte, 500)) // cannot be split
			} else {
				want = append(want, v)
			}
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte(v)}, func(_ RecordMetadata, err error) {
				if err != nil {
					failed++
					if !errors.Is(err, ErrMessageTooLarge) {
						t.Errorf("error %v", err)
					}
				}
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := f.values(TopicPartition{"t", 0}); !slices.Equal(got, want) || failed != 1 {
			t.Errorf("%d failed; the log holds %v", failed, got)
		}
		// Up to the record that was given up, the numbers go on as they were.
		for n := int32(0); n < 50; {
			b := topic.partitions[0].batches[0]
			topic.partitions[0].batches = topic.partitions[0].batches[1:]
			if b.ProducerEpoch() != 0 || b.BaseSequence() != n {
				t.Fatalf("epoch %d, sequence %d after %d records", b.ProducerEpoch(), b.BaseSequence(), n)
			}
			n += b.Count()
		}
	})
}

func TestBufferMemoryBoundsSend(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() == 0 {
				return interference{delay: 10 * time.Second}
			}
			return interference{}
		})
		c := f.client()
		defer c.Close()
		p, err := c.NewProducer(BufferMemory(1000), MaxBlock(3*time.Second))
		if err != nil {
			t.Fatal(err)
		}
		record := ProducerRecord{Topic: "t", Value: make([]byte, 400)}
		for range 2 {
			if err := p.Send(t.Context(), record, nil); err != nil {
				t.Fatal(err)
			}
		}
		start := time.Now()
		if err := p.Send(t.Context(), record, nil); !errors.Is(err, ErrBufferFull) {
			t.Errorf("error %v, expected ErrBufferFull", err)
		}
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("waited %v, max.block.ms is 3s", took)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := p.Send(short, record, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, expected ctx's", err)
		}
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: make([]byte, 2000)}, nil); !errors.Is(err, ErrRecordTooLarge) {
			t.Errorf("error %v, expected ErrRecordTooLarge", err)
		}
		// Once the broker answers there is room again, for those who wait in their order.
		time.Sleep(5 * time.Second)
		if err := p.Send(t.Context(), record, nil); err != nil {
			t.Errorf("after the acknowledgement: %v", err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestMaxBlockZeroNeverWaits(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, p := newTestProducer(t, f, BufferMemory(1000), MaxBlock(0), Linger(time.Hour), DeliveryTimeout(2*time.Hour))
		defer c.Close()
		start := time.Now()
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}, nil); err == nil {
			t.Error("metadata came without waiting")
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("waited %v", took)
		}
		time.Sleep(time.Second) // the metadata that was asked for is there
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: make([]byte, 900)}, nil); err != nil {
			t.Error(err)
		}
		start = time.Now()
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: make([]byte, 900)}, nil); !errors.Is(err, ErrBufferFull) {
			t.Errorf("error %v, expected ErrBufferFull", err)
		}
		if took := time.Since(start); took > 0 {
			t.Errorf("waited %v", took)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestDeliveryTimeoutEndsAllWaiting(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c := f.client(RequestTimeout(30 * time.Second))
		defer c.Close()
		p, err := c.NewProducer(DeliveryTimeout(40 * time.Second))
		if err != nil {
			t.Fatal(err)
		}
		f.script(func(_ int32, req kmsg.Request) interference { return interference{silent: req.Key() == 0} })
		start := time.Now()
		_, err = p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")})
		if !errors.Is(err, ErrDeliveryTimeout) || !errors.Is(err, ErrNetwork) {
			t.Errorf("error %v, expected ErrDeliveryTimeout and the reason of the last attempt", err)
		}
		if took := time.Since(start); took < 40*time.Second || took > 41*time.Second {
			t.Errorf("took %v, delivery.timeout.ms is 40s", took)
		}
		f.script(nil)
		m, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("w")})
		if err != nil || m.Offset != 0 {
			t.Errorf("afterwards: %+v, %v", m, err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseGivesUpAtItsDeadline(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.script(func(_ int32, req kmsg.Request) interference { return interference{silent: req.Key() == 0} })
		c, p := newTestProducer(t, f)
		defer c.Close()
		var outcomes []error
		for range 3 {
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")},
				func(_ RecordMetadata, err error) { outcomes = append(outcomes, err) }); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		start := time.Now()
		if err := p.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(start); took != 2*time.Second {
			t.Errorf("took %v", took)
		}
		if len(outcomes) != 3 || !errors.Is(outcomes[2], ErrClosed) {
			t.Errorf("outcomes %v", outcomes)
		}
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("send after close: %v", err)
		}
	})
}

// A client that is closed under its producer ends it too; the producer's own Close still runs the
// callbacks.
func TestClientClosedBeforeItsProducer(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.script(func(_ int32, req kmsg.Request) interference { return interference{silent: req.Key() == 0} })
		c, p := newTestProducer(t, f)
		var outcome error
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, func(_ RecordMetadata, err error) { outcome = err }); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		c.Close()
		synctest.Wait()
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, nil); !errors.Is(err, ErrClosed) {
			t.Errorf("send: %v", err)
		}
		if err := p.Flush(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("flush: %v", err)
		}
		if err := p.Close(t.Context()); !errors.Is(err, ErrClosed) {
			t.Errorf("close: %v", err)
		}
		if outcome == nil {
			t.Error("the record has no outcome, or a good one")
		}
		if _, err := c.NewProducer(); !errors.Is(err, ErrClosed) {
			t.Errorf("a producer of a closed client: %v", err)
		}
		if _, err := c.NewConsumer(); !errors.Is(err, ErrClosed) {
			t.Errorf("a consumer of a closed client: %v", err)
		}
	})
}

func TestLingerAndFullBatchesWakeTheSender(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, p := newTestProducer(t, f, Linger(50*time.Millisecond), BatchSize(1000))
		defer c.Close()
		if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		for range 3 {
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		sent := f.requests(0)
		last := sent[len(sent)-1]
		if d := last.at.Sub(start); len(sent) != 2 || d < 50*time.Millisecond || d > 51*time.Millisecond {
			t.Errorf("%d requests, the last %v after the batch's first record", len(sent), d)
		}
		if n := batch.Batch(last.req.(*kmsg.ProduceRequest).Topics[0].Partitions[0].Records).Count(); n != 3 {
			t.Errorf("%d records in the batch", n)
		}
		start = time.Now()
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: make([]byte, 990)}, nil); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		sent = f.requests(0)
		if d := sent[len(sent)-1].at.Sub(start); len(sent) != 3 || d > time.Millisecond {
			t.Errorf("%d requests; the full batch came after %v", len(sent), d)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 20)
		f.script(func(_ int32, req kmsg.Request) interference { return interference{silent: req.Key() == 0} })
		c, p := newTestProducer(t, f, Linger(0), MaxInFlight(3))
		defer c.Close()
		for i := range 20 {
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(int32(i)), Value: []byte("v")}, nil); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Second)
		p.mu.Lock()
		s := p.mu.senders[1]
		p.mu.Unlock()
		if n := len(s.slots); n != 3 {
			t.Errorf("%d requests in flight, 3 are allowed", n)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 0)
		defer cancel()
		if err := p.Close(ctx); err == nil {
			t.Error("closed without giving anything up")
		}
	})
}

func TestFlushWaitsForCallbacks(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 3)
		c, p := newTestProducer(t, f, Linger(time.Hour), DeliveryTimeout(2*time.Hour))
		defer c.Close()
		ran := 0
		for range 30 {
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Value: []byte("v")}, func(RecordMetadata, error) {
				time.Sleep(time.Second)
				ran++
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Flush(t.Context()); err != nil || ran != 30 {
			t.Errorf("after Flush %d callbacks had run: %v", ran, err)
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestAcksZeroWaitsForNobody(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, p := newTestProducer(t, f, WithAcks(AcksNone))
		defer c.Close()
		for i := range 10 {
			m, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: fmt.Appendf(nil, "%d", i)})
			if err != nil || m.Offset != -1 {
				t.Errorf("%+v, %v", m, err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		time.Sleep(time.Second)
		if got := f.values(TopicPartition{"t", 0}); len(got) != 10 {
			t.Errorf("the log holds %v", got)
		}
	})
}

func TestInvalidRecordsAreNamed(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		f.script(func(_ int32, req kmsg.Request) interference {
			return interference{edit: func(resp kmsg.Response) {
				r, ok := resp.(*kmsg.ProduceResponse)
				if !ok {
					return
				}
				part := &r.Topics[0].Partitions[0]
				part.ErrorCode, part.ErrorMessage = int16(ErrInvalidRecord), kmsg.StringPtr("one of them")
				part.ErrorRecords = []kmsg.ProduceResponseTopicPartitionErrorRecord{{RelativeOffset: 1, ErrorMessage: kmsg.StringPtr("no key")}}
			}}
		})
		c, p := newTestProducer(t, f)
		defer c.Close()
		var errs []error
		for range 3 {
			if err := p.Send(t.Context(), ProducerRecord{Topic: "t"}, func(_ RecordMetadata, err error) { errs = append(errs, err) }); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		var one, rest *BrokerError
		if !errors.As(errs[1], &one) || one.Message != "no key" || !errors.As(errs[2], &rest) || rest.Message != "one of them" ||
			!errors.Is(errs[0], ErrInvalidRecord) {
			t.Errorf("errors %v", errs)
		}
	})
}

func TestOptionsThatDoNotFitAreRefused(t *testing.T) {
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, options := range map[string][]ProducerOption{
		"acks":                {WithAcks(2)},
		"idempotence, acks":   {Idempotence(true), WithAcks(AcksLeader)},
		"idempotence, flying": {Idempotence(true), MaxInFlight(6)},
		"delivery timeout":    {DeliveryTimeout(30 * time.Second)},
		"linger":              {Linger(-1)},
		"codec":               {Compression(9)},
		"buffer":              {BufferMemory(0)},
	} {
		if p, err := c.NewProducer(options...); err == nil {
			t.Errorf("%s was accepted", name)
			closeProducer(t, p)
		}
	}
	for name, o := range map[string]Option{
		"no brokers": Brokers(), "no port": Brokers("host"), "back-off": RetryBackoff(2, 1), "age": MetadataMaxAge(0),
	} {
		if c, err := New(o); err == nil {
			t.Errorf("%s was accepted", name)
			c.Close()
		}
	}
}
