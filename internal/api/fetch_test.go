package api

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

const maxFetchVersion = 18

// fetchOf makes a consumer's fetch request without a session and without partitions.
func fetchOf(version int16) *kmsg.FetchRequest {
	q := kmsg.NewPtrFetchRequest()
	q.Version, q.ReplicaID, q.MaxBytes, q.MinBytes = version, -1, 50<<20, 1
	q.SessionEpoch = -1
	q.ReplicaState.ID, q.ReplicaState.Epoch = -1, -1
	return q
}

// want adds a partition to a fetch request.
func want(q *kmsg.FetchRequest, topic string, id metadata.UUID, number int32, offset int64) *kmsg.FetchRequestTopicPartition {
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.FetchOffset, p.PartitionMaxBytes = number, offset, 1<<20
	t := kmsg.NewFetchRequestTopic()
	if q.Version >= 13 {
		t.TopicID = id
	} else {
		t.Topic = topic
	}
	t.Partitions = append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
	return &q.Topics[len(q.Topics)-1].Partitions[0]
}

// onePart is the only partition of a response.
func onePart(t testing.TB, res *kmsg.FetchResponse) kmsg.FetchResponseTopicPartition {
	t.Helper()
	if res.ErrorCode != 0 || len(res.Topics) != 1 || len(res.Topics[0].Partitions) != 1 {
		t.Fatalf("not one partition: %+v", res)
	}
	return res.Topics[0].Partitions[0]
}

// offsets are the first and the last offset of each batch in a response's records.
func offsets(t testing.TB, data []byte) (all [][2]int64) {
	t.Helper()
	for len(data) > 0 {
		b, rest, err := batch.Next(data)
		if err != nil {
			t.Fatalf("records of a response: %v", err)
		}
		if err := b.CheckCRC(); err != nil {
			t.Fatal(err)
		}
		all = append(all, [2]int64{b.BaseOffset(), b.LastOffset()})
		data = rest
	}
	return all
}

// TestFetchResponseIsWhatKmsgWrites compares the response that is written by hand with the same one
// written by kmsg, byte for byte, at every version and with every kind of partition in it.
func TestFetchResponseIsWhatKmsgWrites(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 4)
		other := s.createTopic("other", 1)
		s.append("orders", 0, records(3, 10))
		s.append("orders", 0, records(2, 20<<10)) // too large to be copied: goes out as a file's range
		s.append("other", 0, records(1, 10))
		for version := int16(4); version <= maxFetchVersion; version++ {
			for isolation := range int8(2) {
				for seed := range uint64(20) {
					dice := rand.New(rand.NewPCG(seed, uint64(version)))
					q := fetchOf(version)
					q.IsolationLevel = isolation
					if dice.IntN(2) == 0 {
						q.SessionEpoch = 0
					}
					for range dice.IntN(6) {
						p := want(q, "orders", id, int32(dice.IntN(6)), int64(dice.IntN(8)-1))
						p.CurrentLeaderEpoch = int32(dice.IntN(3) - 1)
						p.LastFetchedEpoch = int32(dice.IntN(3) - 1)
						if dice.IntN(3) == 0 {
							want(q, "other", other, 0, 0)
						}
						if dice.IntN(3) == 0 {
							want(q, "no such topic", metadata.UUID{1}, 0, 0)
						}
					}
					compareWithKmsg(t, s, q, fmt.Sprintf("version %d isolation %d seed %d", version, isolation, seed))
				}
			}
		}
	})
}

func compareWithKmsg(t *testing.T, s *stack, q *kmsg.FetchRequest, name string) {
	t.Helper()
	reply, _, err := s.begin(s.peer(), q)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	body, err := written(s.ctx, reply)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	res := kmsg.NewPtrFetchResponse()
	res.Version = q.Version
	if err := res.ReadFrom(body); err != nil {
		t.Fatalf("%s: kmsg cannot read it: %v", name, err)
	}
	if again := res.AppendTo(nil); !slices.Equal(again, body) {
		t.Fatalf("%s: not as kmsg writes it\nours %x\nkmsg %x", name, body, again)
	}
}

// TestFetchOfAnotherLeaderNamesIt: from version 16 on the response says who leads instead, and where
// (KIP-951), in the bytes that kmsg writes.
func TestFetchOfAnotherLeaderNamesIt(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		for version := int16(12); version <= maxFetchVersion; version++ {
			q := fetchOf(version)
			want(q, "orders", id, 0, 0).CurrentLeaderEpoch = 7
			if got := onePart(t, ask[*kmsg.FetchResponse](s, q)); got.ErrorCode != kerr.UnknownLeaderEpoch.Code {
				t.Fatalf("version %d: epoch 7 gets %d", version, got.ErrorCode)
			}
		}
		s.raiseEpoch(id, 0)
		for version := int16(12); version <= maxFetchVersion; version++ {
			q := fetchOf(version)
			want(q, "orders", id, 0, 0).CurrentLeaderEpoch = 0
			compareWithKmsg(t, s, q, fmt.Sprint("version ", version))
			res := ask[*kmsg.FetchResponse](s, q)
			got := onePart(t, res)
			if got.ErrorCode != kerr.FencedLeaderEpoch.Code {
				t.Fatalf("version %d: an old epoch gets %d", version, got.ErrorCode)
			}
			if said := got.CurrentLeader.LeaderID == 1; said != (version >= 16) {
				t.Fatalf("version %d: leader %+v", version, got.CurrentLeader)
			}
			named := got.CurrentLeader.LeaderID == 1 && got.CurrentLeader.LeaderEpoch == 1 &&
				len(res.Brokers) == 1 && res.Brokers[0].Host == "broker.example"
			if named != (version >= 16) {
				t.Fatalf("version %d: leader %+v at %+v", version, got.CurrentLeader, res.Brokers)
			}
		}
	})
}

// TestTrap13OffsetInsideABatch: a fetch of an offset inside a batch gets that whole batch.
func TestTrap13OffsetInsideABatch(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		for range 5 {
			s.append("orders", 0, records(10, 10))
		}
		for version := int16(4); version <= maxFetchVersion; version++ {
			for from := range int64(50) {
				q := fetchOf(version)
				want(q, "orders", id, 0, from)
				got := offsets(t, onePart(t, ask[*kmsg.FetchResponse](s, q)).RecordBatches)
				if len(got) != 5-int(from/10) || got[0] != [2]int64{from / 10 * 10, from/10*10 + 9} || got[len(got)-1][1] != 49 {
					t.Fatalf("version %d from %d: %v", version, from, got)
				}
			}
		}
	})
}

// TestTrap12OneConsistentSnapshot: while records are appended and deleted, high watermark, last
// stable offset and log start of a response fit each other and the records beside them (KAFKA-7104).
func TestTrap12OneConsistentSnapshot(t *testing.T) {
	s := newStack(t)
	id := s.createTopic("orders", 1, "segment.bytes=1048576")
	done := make(chan error, 1)
	stop := make(chan struct{})
	p := s.partition("orders", 0)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			a, err := p.Append(records(3, 100), false, time.Now().UnixMilli())
			if err == nil {
				err = p.AwaitCommitted(s.ctx, a.Next, a.LeaderEpoch)
			}
			if err == nil && n%5 == 0 {
				_, err = p.DeleteRecords(s.ctx, a.First)
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	for n := range 3000 {
		q := fetchOf(int16(11 + n%8))
		want(q, "orders", id, 0, p.Progress().Start)
		got := onePart(t, ask[*kmsg.FetchResponse](s, q))
		if got.ErrorCode == kerr.OffsetOutOfRange.Code {
			continue // deleted in between
		}
		if got.ErrorCode != 0 || got.LogStartOffset > got.LastStableOffset || got.LastStableOffset != got.HighWatermark {
			t.Fatalf("round %d: %+v", n, got)
		}
		for _, o := range offsets(t, got.RecordBatches) {
			if o[1] >= got.HighWatermark {
				t.Fatalf("round %d: batch %v beyond the high watermark %d of the same response", n, o, got.HighWatermark)
			}
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestFetchLimits: a response holds whole batches up to max bytes and partition max bytes, the first
// one even where it is larger than either, and no partition starves.
func TestFetchLimits(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 3)
		one := len(records(1, 1000))
		for number := range int32(3) {
			for range 5 {
				s.append("orders", number, records(1, 1000))
			}
		}
		sizes := func(maxBytes, partitionMax int) (all [3]int) {
			q := fetchOf(12)
			q.MaxBytes = int32(maxBytes)
			for number := range int32(3) {
				want(q, "orders", id, number, 0).PartitionMaxBytes = int32(partitionMax)
			}
			res := ask[*kmsg.FetchResponse](s, q)
			for _, topic := range res.Topics {
				for _, p := range topic.Partitions {
					all[p.Partition] = len(offsets(t, p.RecordBatches))
				}
			}
			return all
		}
		for _, c := range []struct {
			maxBytes, partitionMax int
			want                   [3]int
		}{
			{1 << 20, 1 << 20, [3]int{5, 5, 5}},
			{1, 1 << 20, [3]int{1, 0, 0}},
			{0, 1 << 20, [3]int{1, 0, 0}},
			{1 << 20, 1, [3]int{1, 0, 0}},
			{1 << 20, 2*one + 1, [3]int{2, 2, 2}},
			{3 * one, 1 << 20, [3]int{3, 0, 0}},
			{7 * one, 1 << 20, [3]int{5, 2, 0}},
			{7*one - 1, 1 << 20, [3]int{5, 1, 0}},
			{-1, -1, [3]int{1, 0, 0}},
		} {
			if got := sizes(c.maxBytes, c.partitionMax); got != c.want {
				t.Errorf("max bytes %d, per partition %d: batches %v, want %v", c.maxBytes, c.partitionMax, got, c.want)
			}
		}
	})
}

// TestFetchMaxBytesOfTheBroker: the broker's fetch.max.bytes counts where the client asks for more.
func TestFetchMaxBytesOfTheBroker(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t, "fetch.max.bytes=4096")
		id := s.createTopic("orders", 1)
		for range 10 {
			s.append("orders", 0, records(1, 1000))
		}
		q := fetchOf(12)
		want(q, "orders", id, 0, 0)
		if got := len(offsets(t, onePart(t, ask[*kmsg.FetchResponse](s, q)).RecordBatches)); got != 3 {
			t.Fatalf("%d batches of 1 KiB in at most 4096 bytes", got)
		}
	})
}

// waited runs the reply of a fetch and says how long it took.
func (s *stack) waited(q *kmsg.FetchRequest, meanwhile func()) (*kmsg.FetchResponse, time.Duration, bool) {
	s.t.Helper()
	begun := time.Now()
	reply, ready, err := s.begin(s.peer(), q)
	if err != nil {
		s.t.Fatal(err)
	}
	type result struct {
		res kmsg.Response
		err error
	}
	done := make(chan result, 1)
	go func() {
		res, err := s.finish(s.ctx, q, reply)
		done <- result{res, err}
	}()
	if meanwhile != nil {
		meanwhile()
	}
	r := <-done
	if r.err != nil {
		s.t.Fatal(r.err)
	}
	return r.res.(*kmsg.FetchResponse), time.Since(begun), ready
}

// TestLongPoll: a fetch waits for min bytes, no longer than max wait, and a reply that was promised
// not to wait does not.
func TestLongPoll(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 2)
		size := len(records(1, 1000))
		poll := func(minBytes int) *kmsg.FetchRequest {
			q := fetchOf(17)
			q.MaxWaitMillis, q.MinBytes = 500, int32(minBytes)
			end0, end1 := s.partition("orders", 0).Progress().End, s.partition("orders", 1).Progress().End
			want(q, "orders", id, 0, end0)
			want(q, "orders", id, 1, end1)
			return q
		}
		produce := func(number int32, after time.Duration) func() {
			return func() { time.Sleep(after); s.append("orders", number, records(1, 1000)) }
		}
		for _, c := range []struct {
			name      string
			minBytes  int
			meanwhile func()
			want      time.Duration
			batches   int
		}{
			{"nothing comes", 1, nil, 500 * time.Millisecond, 0},
			{"min bytes 0", 0, nil, 0, 0},
			{"an append", 1, produce(0, 100*time.Millisecond), 100 * time.Millisecond, 1},
			{"an append to the other", 1, produce(1, 200*time.Millisecond), 200 * time.Millisecond, 1},
			{"too little", 2 * size, produce(0, 100*time.Millisecond), 500 * time.Millisecond, 1},
			{"twice in one partition", 2 * size, func() { produce(0, 100*time.Millisecond)(); produce(0, 100*time.Millisecond)() }, 200 * time.Millisecond, 2},
			{"both partitions", 2 * size, func() { produce(0, 100*time.Millisecond)(); produce(1, 100*time.Millisecond)() }, 200 * time.Millisecond, 2},
		} {
			res, took, ready := s.waited(poll(c.minBytes), c.meanwhile)
			batches := 0
			for _, topic := range res.Topics {
				for _, p := range topic.Partitions {
					batches += len(offsets(t, p.RecordBatches))
				}
			}
			if took != c.want || batches != c.batches || ready {
				t.Errorf("%s: took %v with %d batches (ready %v), want %v with %d", c.name, took, batches, ready, c.want, c.batches)
			}
		}
		q := poll(1 << 20)
		q.MaxBytes = int32(2 * size)
		q.Topics[0].Partitions[0].FetchOffset = 0
		q.Topics[1].Partitions[0].FetchOffset = 0
		if res, took, _ := s.waited(q, nil); took != 0 || len(res.Topics[0].Partitions[0].RecordBatches) != 2*size {
			t.Errorf("a response that is full waits for more bytes than it may hold: took %v", took)
		}
		q.MaxBytes = int32(size + size/2) // full, though not to the last byte
		if _, took, _ := s.waited(q, nil); took != 0 {
			t.Errorf("a response without room for the next batch waits for it: took %v", took)
		}
		q = fetchOf(17)
		q.MaxWaitMillis = 500
		want(q, "orders", id, 0, 0)
		if _, took, ready := s.waited(q, nil); took != 0 || !ready {
			t.Errorf("records at hand: took %v, ready %v", took, ready)
		}
		s.wantWatches(0)
	})
}

// TestLongPollEndsWithItsTopic: the deletion of a topic wakes who waits for its records; a partition
// that was never there keeps nobody from waiting for others, nor waiting for it alone.
func TestLongPollEndsWithItsTopic(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		other := s.createTopic("other", 1)
		q := fetchOf(17)
		q.MaxWaitMillis, q.MinBytes = 500, 10
		want(q, "", metadata.UUID{1}, 0, 0)
		if res, took, _ := s.waited(q, nil); took != 0 || onePart(t, res).ErrorCode != kerr.UnknownTopicID.Code {
			t.Fatalf("a missing topic alone: after %v %+v", took, res)
		}
		want(q, "", other, 0, 0)
		if res, took, _ := s.waited(q, nil); took != 500*time.Millisecond || len(res.Topics) != 2 {
			t.Fatalf("a missing topic beside another: after %v %+v", took, res)
		}
		q = fetchOf(17)
		q.MaxWaitMillis = 500
		want(q, "", id, 0, 0)
		want(q, "", other, 0, 0)
		res, took, _ := s.waited(q, func() { time.Sleep(100 * time.Millisecond); s.deleteTopic("orders") })
		if took != 100*time.Millisecond || res.Topics[0].Partitions[0].ErrorCode != kerr.UnknownTopicID.Code {
			t.Fatalf("deleted meanwhile: after %v %+v", took, res)
		}
		s.wantWatches(0)
	})
}

// TestTrap26TopicMadeAgainIsAnother: after a topic was deleted and made again under its name, the old
// id is unknown to fetch and produce, in a session too, and gets none of the new topic's records.
func TestTrap26TopicMadeAgainIsAnother(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		old := s.createTopic("orders", 1)
		s.append("orders", 0, records(3, 10))
		q := fetchOf(17)
		q.SessionEpoch = 0
		want(q, "", old, 0, 0)
		first := ask[*kmsg.FetchResponse](s, q)
		if onePart(t, first).ErrorCode != 0 || first.SessionID == 0 {
			t.Fatalf("%+v", first)
		}
		s.deleteTopic("orders")
		next := s.createTopic("orders", 1)
		if old == next {
			t.Fatal("the new topic has the old one's id")
		}
		s.append("orders", 0, records(2, 10))
		again := fetchOf(17)
		again.SessionID, again.SessionEpoch = first.SessionID, 1
		got := onePart(t, ask[*kmsg.FetchResponse](s, again))
		if got.ErrorCode != kerr.UnknownTopicID.Code || len(got.RecordBatches) > 0 {
			t.Fatalf("the old id in its session: %+v", got)
		}
		p := kmsg.NewPtrProduceRequest()
		p.Version, p.Acks, p.TimeoutMillis = 13, -1, 1000
		p.Topics = []kmsg.ProduceRequestTopic{{TopicID: old, Partitions: []kmsg.ProduceRequestTopicPartition{{Records: records(1, 1)}}}}
		if code := ask[*kmsg.ProduceResponse](s, p).Topics[0].Partitions[0].ErrorCode; code != kerr.UnknownTopicID.Code {
			t.Fatalf("produce to the old id: %d", code)
		}
		if end := s.partition("orders", 0).Progress().End; end != 2 {
			t.Fatalf("the new topic ends at %d", end)
		}
	})
}

// staleImages are metadata that lag behind the replicas.
type staleImages struct{ image *metadata.Image }

func (i staleImages) Image() *metadata.Image { return i.image }

// TestTrap26StaleMetadata: metadata that still has the old topic finds the new one's replica under its
// name, and must not take it for the old one's.
func TestTrap26StaleMetadata(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		old := s.createTopic("orders", 1)
		s.handler.o.Images = staleImages{s.controller.Image()}
		s.deleteTopic("orders")
		s.createTopic("orders", 1)
		s.append("orders", 0, records(2, 10))
		q := fetchOf(17)
		want(q, "", old, 0, 0)
		if got := onePart(t, ask[*kmsg.FetchResponse](s, q)); got.ErrorCode != kerr.UnknownTopicID.Code || len(got.RecordBatches) > 0 {
			t.Errorf("fetch: %+v", got)
		}
		for _, version := range []int16{12, 13} {
			if got := s.produced(produceTo(version, -1, "orders", old, 0, records(1, 1))); got.ErrorCode != kerr.NotLeaderForPartition.Code {
				t.Errorf("produce version %d: %+v", version, got)
			}
		}
		if end := s.partition("orders", 0).Progress().End; end != 2 {
			t.Errorf("the new topic ends at %d", end)
		}
	})
}

// TestFetchGivesBackWhatItRead: wherever a connection ends, no file range stays open and no watch
// stays registered.
func TestFetchGivesBackWhatItRead(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 3)
		s.append("orders", 0, records(1, 100<<10))
		request := func(minBytes int32) *kmsg.FetchRequest {
			q := fetchOf(17)
			q.MaxWaitMillis, q.MinBytes = 1000, minBytes
			for number := range int32(3) {
				want(q, "orders", id, number, 0)
			}
			return q
		}
		// Never answered.
		if _, _, err := s.begin(s.peer(), request(1)); err != nil {
			t.Fatal(err)
		}
		s.wantWatches(0)
		// Ended while it waits with records in hand.
		ctx, cancel := context.WithCancel(s.ctx)
		reply, _, err := s.begin(s.peer(), request(1<<30))
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := written(ctx, reply)
			ended <- err
		}()
		synctest.Wait()
		s.wantWatches(3)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		s.wantWatches(0)
		// Answered, and the answer given up unsent.
		reply, _, err = s.begin(s.peer(), request(1))
		if err != nil {
			t.Fatal(err)
		}
		var out wire.Out
		if err := reply(s.ctx, &out); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		s.wantWatches(0)
		s.deleteTopic("orders")
		time.Sleep(10 * time.Minute) // past file.delete.delay.ms and the closing of idle files
		synctest.Wait()
		if open := s.files.open.Load(); open > 0 {
			t.Fatalf("%d files are open", open)
		}
	})
}

// wantWatches counts what sessions have registered with partitions.
func (s *stack) wantWatches(n int) {
	s.t.Helper()
	got := 0
	for _, p := range s.replicas.Partitions() {
		got += p.Watches()
	}
	if got != n {
		s.t.Fatalf("%d watches, want %d", got, n)
	}
}

// raiseEpoch elects the partition's leader anew.
func (s *stack) raiseEpoch(id metadata.UUID, number int32) {
	s.t.Helper()
	if _, err := s.log.Propose(1, []metadata.Record{
		&metadata.PartitionChangeRecord{TopicId: id.Bytes(), Partition: number, Leader: new(int32(1))},
	}); err != nil {
		s.t.Fatal(err)
	}
	synctest.Wait()
}

// TestWaitingFetchesSayWhatTheyHold: a fetch without a session holds its partitions while it waits; what it
// says of that is not less, and it is answered with what there is when others need the memory.
func TestWaitingFetchesSayWhatTheyHold(t *testing.T) {
	if size := unsafe.Sizeof(kmsg.FetchRequestTopicPartition{}); size > latePartitionBytes {
		t.Errorf("a decoded partition takes %d bytes, not %d", size, latePartitionBytes)
	}
	if size := unsafe.Sizeof(kmsg.FetchRequestTopic{}); size > lateTopicBytes {
		t.Errorf("a decoded topic takes %d bytes, not %d", size, lateTopicBytes)
	}
	if size := unsafe.Sizeof(outcome{}) + 2*unsafe.Sizeof(&outcome{}); size > readPartitionBytes {
		t.Errorf("what is read of a partition takes %d bytes, not %d", size, readPartitionBytes)
	}
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 500)
		for _, version := range []int16{4, 12, 17} {
			q := fetchOf(version)
			q.MaxWaitMillis, q.MinBytes, q.SessionEpoch = 3_600_000, 1, -1
			for number := range int32(500) {
				want(q, "orders", id, number, 0)
			}
			hurried := make(chan struct{})
			out := &wire.Out{}
			out.HurryOn(hurried)
			before := heapBytes()
			req := &wire.Request{Header: wire.Header{Key: 1, Version: version}, Body: q.AppendTo(nil)}
			reply, ready, err := s.handler.Handle(t.Context(), &wire.Peer{}, req)
			if err != nil || ready {
				t.Fatalf("version %d: ready %v, %v", version, ready, err)
			}
			req.Body = nil
			done := make(chan error, 1)
			out.Begin(1, wire.FlexibleResponse(1, version))
			start := time.Now()
			go func() { done <- reply(t.Context(), out) }()
			synctest.Wait()
			if taken := heapBytes() - before; taken > req.HoldsBytes {
				t.Errorf("version %d: %d bytes are held, %d announced", version, taken, req.HoldsBytes)
			}
			time.Sleep(time.Minute)
			close(hurried)
			if err := <-done; err != nil || time.Since(start) != time.Minute {
				t.Errorf("version %d: answered after %v, %v", version, time.Since(start), err)
			}
			out.Reset()
		}
	})
}
