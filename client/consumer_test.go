package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

func newTestConsumer(t *testing.T, f *fakeCluster, options ...ConsumerOption) (*Client, *Consumer) {
	t.Helper()
	c := f.client()
	k, err := c.NewConsumer(options...)
	if err != nil {
		t.Fatal(err)
	}
	return c, k
}

// poll reads until it has n values of all partitions together; an hour without any is too long.
func poll(t *testing.T, k poller, n int) map[TopicPartition][]string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	got := map[TopicPartition][]string{}
	for count := 0; count < n; {
		records, err := k.Poll(ctx)
		if err != nil {
			t.Fatalf("after %d of %d records: %v", count, n, err)
		}
		for _, r := range records {
			got[r.TopicPartition()] = append(got[r.TopicPartition()], string(r.Value))
		}
		count += len(records)
	}
	return got
}

type poller interface {
	Poll(ctx context.Context) ([]Record, error)
}

func values(from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprintf("value %d", i))
	}
	return out
}

// Whatever happens to requests, and wherever leaders move, each partition's records come once and
// in order.
func TestRecordsAreReadOnceAndInOrder(t *testing.T) {
	for seed := range uint64(30) {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *fakeCluster) { readOnceAndInOrder(t, f, seed) })
		})
	}
}

func readOnceAndInOrder(t *testing.T, f *fakeCluster, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 1))
	const partitions = 5
	f.topic("t", partitions)
	var tps []TopicPartition
	for n := range int32(partitions) {
		tps = append(tps, TopicPartition{"t", n})
	}
	noise := rand.New(rand.NewPCG(seed, 2))
	codes := []Error{ErrNotLeaderOrFollower, ErrUnknownLeaderEpoch, ErrFencedLeaderEpoch, ErrKafkaStorageError, ErrUnknownServerError, ErrOffsetNotAvailable}
	quiet := time.Now().Add(30 * time.Second)
	var started atomic.Bool // the topic has been found
	f.script(func(_ int32, req kmsg.Request) interference {
		f.mu.Lock()
		draw, code := noise.IntN(15), codes[noise.IntN(len(codes))]
		tp, node := tps[noise.IntN(partitions)], int32(1+noise.IntN(3))
		f.mu.Unlock()
		switch {
		case time.Now().After(quiet) || req.Key() == 18 || !started.Load():
		case draw == 0:
			return interference{drop: true}
		case draw == 1:
			return interference{cut: true}
		case draw == 2 && req.Key() != 3:
			return interference{code: int16(code)}
		case draw == 3:
			f.lead(tp, node)
		case draw == 4:
			return interference{delay: 300 * time.Millisecond}
		}
		return interference{}
	})
	c, k := newTestConsumer(t, f, MaxPartitionFetchBytes(200+rng.IntN(2000)), FetchMaxBytes(1000+rng.IntN(5000)), MaxPollRecords(1+rng.IntN(50)))
	defer c.Close()
	defer k.Close()
	if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
		t.Fatalf("seed %d: %v", seed, err)
	}
	started.Store(true)
	want := map[TopicPartition][]string{}
	total := 0
	for range 200 {
		tp := tps[rng.IntN(partitions)]
		v := values(total, total+1+rng.IntN(10))
		f.write(tp, batch.BuilderOptions{Codec: batch.Codec(rng.IntN(5))}, v...)
		want[tp] = append(want[tp], v...)
		total += len(v)
	}
	got := poll(t, k, total)
	for _, tp := range tps {
		if !slices.Equal(got[tp], want[tp]) {
			t.Errorf("seed %d: %v: %s", seed, tp, difference(got[tp], want[tp]))
		}
		if at, known := k.Position(tp); !known || at != int64(len(want[tp])) {
			t.Errorf("seed %d: %v: the position is %d (known: %v), %d were read", seed, tp, at, known, len(want[tp]))
		}
	}
	if pending := k.mu.ahead.Pending(); pending != 0 {
		t.Errorf("seed %d: %d bytes count as waiting for Poll", seed, pending)
	}
}

func TestStartPositions(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		f.write(tp, batch.BuilderOptions{}, values(0, 10)...) // timestamps 1000 to 1009
		topic.partitions[0].start = 2
		for _, c := range []struct {
			at    Position
			first int64
		}{
			{Earliest, 2},
			{AtOffset(7), 7},
			{AtTime(time.UnixMilli(1005)), 5},
			{AtTime(time.UnixMilli(0)), 2},
			{Latest, 10},
			{AtTime(time.UnixMilli(9999)), 10},
			{AtOffset(0), 2},
			{AtOffset(99), 2}, // out of range: reset to the earliest
		} {
			if c.first == 10 {
				continue
			}
			c0, k := newTestConsumer(t, f, AutoOffsetReset(Earliest))
			if err := k.Assign(map[TopicPartition]Position{tp: c.at}); err != nil {
				t.Fatal(err)
			}
			records, err := k.Poll(t.Context())
			if err != nil || max(records[0].Offset, 2) != c.first {
				t.Errorf("from %v: %v, %v", c.at, records, err)
			}
			k.Close()
			_ = c0.Close()
		}
		c0, k := newTestConsumer(t, f)
		defer func() { _ = c0.Close() }()
		defer k.Close()
		for _, at := range []Position{Latest, AtTime(time.UnixMilli(9999))} {
			if err := k.Assign(map[TopicPartition]Position{tp: at}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			if o, known := k.Position(tp); o != topic.partitions[0].next || !known {
				t.Errorf("from %v: the position is %d", at, o)
			}
			f.write(tp, batch.BuilderOptions{}, "new")
			if got := poll(t, k, 1); got[tp][0] != "new" {
				t.Errorf("from %v: read %v", at, got)
			}
		}
		if err := k.Assign(map[TopicPartition]Position{tp: AtOffset(-1)}); err == nil {
			t.Error("a negative offset was accepted")
		}
		if err := k.Seek(TopicPartition{"x", 0}, Earliest); !errors.Is(err, ErrNotAssigned) {
			t.Errorf("seek of what is not assigned: %v", err)
		}
	})
}

// A fetch offset inside a batch brings the whole batch; what lies before is not for Poll.
func TestTrap13OffsetInsideABatch(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		f.write(tp, batch.BuilderOptions{}, values(0, 10)...)
		f.write(tp, batch.BuilderOptions{Codec: batch.Zstd}, values(10, 20)...)
		c, k := newTestConsumer(t, f, MaxPartitionFetchBytes(1))
		defer c.Close()
		defer k.Close()
		for _, from := range []int{4, 15} {
			if err := k.Assign(map[TopicPartition]Position{tp: AtOffset(int64(from))}); err != nil {
				t.Fatal(err)
			}
			if got := poll(t, k, 20-from); !slices.Equal(got[tp], values(from, 20)) {
				t.Errorf("from %d: %s", from, difference(got[tp], values(from, 20)))
			}
		}
	})
}

// A broker may list aborted transactions in any order.
func TestTrap20AbortedTransactionsAreSorted(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		add := func(producer int64, transactional bool, v ...string) {
			b := batch.NewBuilder(batch.BuilderOptions{})
			b.SetProducer(producer, 0, 0, transactional)
			for _, s := range v {
				b.Append(1000, nil, []byte(s), nil)
			}
			built, err := b.Build()
			if err != nil {
				t.Fatal(err)
			}
			f.writeBatch(tp, built)
		}
		end := func(producer int64, commit bool) {
			f.writeBatch(tp, batch.BuildEndTransaction(batch.EndTransaction{Commit: commit, ProducerID: producer}))
		}
		add(1, true, "aborted 1") // 0
		add(2, true, "committed") // 1
		add(-1, false, "plain")   // 2
		end(1, false)             // 3
		add(1, true, "again, committed")
		end(2, true)
		end(1, true)
		add(2, true, "aborted 2") // 7
		end(2, false)
		add(2, false, "not transactional")
		topic.partitions[0].aborted = []kmsg.FetchResponseTopicPartitionAbortedTransaction{
			{ProducerID: 2, FirstOffset: 7}, {ProducerID: 1, FirstOffset: 0},
		}
		for isolation, want := range map[Isolation][]string{
			ReadCommitted:   {"committed", "plain", "again, committed", "not transactional"},
			ReadUncommitted: {"aborted 1", "committed", "plain", "again, committed", "aborted 2", "not transactional"},
		} {
			c, k := newTestConsumer(t, f, IsolationLevel(isolation))
			if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
				t.Fatal(err)
			}
			if got := poll(t, k, len(want)); !slices.Equal(got[tp], want) {
				t.Errorf("isolation %d: %v", isolation, got[tp])
			}
			k.Close()
			c.Close()
		}
	})
}

// A topic that was deleted and made again is another topic: its records are not those that the
// position is about.
func TestTrap26RecreatedTopicIsAnother(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		f.write(tp, batch.BuilderOptions{}, values(0, 3)...)
		c, k := newTestConsumer(t, f)
		defer c.Close()
		defer k.Close()
		if err := k.Assign(map[TopicPartition]Position{tp: Earliest}); err != nil {
			t.Fatal(err)
		}
		poll(t, k, 3)
		f.topic("t", 1)
		f.write(tp, batch.BuilderOptions{}, values(3, 10)...)
		if records, err := k.Poll(t.Context()); !errors.Is(err, ErrTopicRecreated) {
			t.Errorf("%v, %v", records, err)
		}
		if err := k.Seek(tp, Earliest); err != nil {
			t.Fatal(err)
		}
		if got := poll(t, k, 7); got[tp][0] != "value 3" {
			t.Errorf("read %v", got)
		}
	})
}

// Records before a corrupt batch are returned, then its error, once; the others go on.
func TestCorruptBatchStopsItsPartitionOnly(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		topic := f.topic("t", 2)
		bad, good := TopicPartition{"t", 0}, TopicPartition{"t", 1}
		f.write(bad, batch.BuilderOptions{}, values(0, 3)...)
		f.write(bad, batch.BuilderOptions{}, values(3, 6)...)
		f.write(bad, batch.BuilderOptions{}, values(6, 9)...)
		f.write(good, batch.BuilderOptions{}, values(0, 3)...)
		rotten := topic.partitions[0].batches[1]
		rotten[len(rotten)-2] ^= 1
		c, k := newTestConsumer(t, f)
		defer c.Close()
		defer k.Close()
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		got := map[TopicPartition]int{}
		var failure error
		for failure == nil || got[good] < 3 {
			records, err := k.Poll(t.Context())
			if err != nil {
				if failure != nil {
					t.Fatalf("a second error: %v", err)
				}
				failure = err
			}
			for _, r := range records {
				got[r.TopicPartition()]++
			}
		}
		var part *PartitionError
		if !errors.Is(failure, ErrCorruptMessage) || !errors.As(failure, &part) || part.TopicPartition != bad || got[bad] != 3 {
			t.Errorf("read %v, then %v", got, failure)
		}
		if at, _ := k.Position(bad); at != 3 {
			t.Errorf("the position is %d, the corrupt batch begins at 3", at)
		}
		f.write(good, batch.BuilderOptions{}, values(3, 5)...)
		poll(t, k, 2)
		if err := k.Seek(bad, AtOffset(6)); err != nil {
			t.Fatal(err)
		}
		if rest := poll(t, k, 3); !slices.Equal(rest[bad], values(6, 9)) {
			t.Errorf("past the corrupt batch: %v", rest)
		}
	})
}

func TestPausedPartitionsHoldUpNobody(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 2)
		slow, quick := TopicPartition{"t", 0}, TopicPartition{"t", 1}
		c, k := newTestConsumer(t, f)
		defer c.Close()
		defer k.Close()
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		f.write(slow, batch.BuilderOptions{}, values(0, 5)...)
		time.Sleep(time.Second) // fetched ahead of Poll
		k.Pause(slow)
		for i := range 5 {
			f.write(quick, batch.BuilderOptions{}, values(i, i+1)...)
			if got := poll(t, k, 1); got[quick] == nil {
				t.Fatalf("read %v of a paused partition", got)
			}
		}
		k.Resume(slow)
		if got := poll(t, k, 5); !slices.Equal(got[slow], values(0, 5)) {
			t.Errorf("after Resume: %v", got)
		}
	})
}

// What Poll does not take is not fetched without end.
func TestFetchedAheadIsBounded(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 4)
		for n := range int32(4) {
			for range 100 {
				f.write(TopicPartition{"t", n}, batch.BuilderOptions{}, string(make([]byte, 1000)))
			}
		}
		c, k := newTestConsumer(t, f, MaxPartitionFetchBytes(5000), FetchMaxBytes(12_000))
		defer c.Close()
		defer k.Close()
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		k.mu.Lock()
		pending := k.mu.ahead.Pending()
		k.mu.Unlock()
		if pending == 0 || pending > 2*12_000 {
			t.Errorf("%d bytes wait for Poll", pending)
		}
		poll(t, k, 400)
	})
}

func TestPollEndsWithItsContextAndTheConsumer(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		c, k := newTestConsumer(t, f)
		defer c.Close()
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := k.Poll(ctx); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		ended := make(chan error)
		go func() {
			_, err := k.Poll(t.Context())
			ended <- err
		}()
		synctest.Wait()
		if _, err := k.Poll(t.Context()); !errors.Is(err, ErrConcurrentPoll) {
			t.Errorf("two at once: %v", err)
		}
		k.Close()
		if err := <-ended; !errors.Is(err, ErrClosed) {
			t.Errorf("closed: %v", err)
		}
		if err := k.Assign(nil); !errors.Is(err, ErrClosed) {
			t.Errorf("assign after close: %v", err)
		}
	})
}

func TestNoResetReportsOutOfRange(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		tp := TopicPartition{"t", 0}
		f.write(tp, batch.BuilderOptions{}, "v")
		c, k := newTestConsumer(t, f, NoAutoOffsetReset())
		defer c.Close()
		defer k.Close()
		if err := k.Assign(map[TopicPartition]Position{tp: AtOffset(5)}); err != nil {
			t.Fatal(err)
		}
		if _, err := k.Poll(t.Context()); !errors.Is(err, ErrOffsetOutOfRange) {
			t.Errorf("error %v", err)
		}
	})
}

// Old brokers know no topic ids: names go out instead.
func TestBrokersWithoutTopicIDs(t *testing.T) {
	bubble(t, 1, func(t *testing.T, f *fakeCluster) {
		f.mu.maxVersion = map[int16]int16{0: 7, 1: 11, 2: 5, 3: 8, 18: 2, 22: 1}
		topic := f.topic("t", 1)
		topic.id = [16]byte{}
		c, p := newTestProducer(t, f)
		defer c.Close()
		for _, v := range values(0, 3) {
			if _, err := p.SendSync(t.Context(), ProducerRecord{Topic: "t", Value: []byte(v)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := p.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		k, err := c.NewConsumer()
		if err != nil {
			t.Fatal(err)
		}
		defer k.Close()
		if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
			t.Fatal(err)
		}
		if got := poll(t, k, 3); !slices.Equal(got[TopicPartition{"t", 0}], values(0, 3)) {
			t.Errorf("read %v", got)
		}
	})
}
