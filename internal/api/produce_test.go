package api

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
	"barnabas/internal/disk"
	"barnabas/internal/faketime"
	"barnabas/internal/metadata"
	"barnabas/internal/wire"
)

// produceTo makes a produce request for one partition.
func produceTo(version, acks int16, topic string, id metadata.UUID, number int32, data []byte) *kmsg.ProduceRequest {
	q := kmsg.NewPtrProduceRequest()
	q.Version, q.Acks, q.TimeoutMillis = version, acks, 1000
	t := kmsg.NewProduceRequestTopic()
	if version >= 13 {
		t.TopicID = id
	} else {
		t.Topic = topic
	}
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = number, data
	t.Partitions = append(t.Partitions, p)
	q.Topics = append(q.Topics, t)
	return q
}

// produced is what became of the only partition of a request.
func (s *stack) produced(q *kmsg.ProduceRequest) kmsg.ProduceResponseTopicPartition {
	s.t.Helper()
	return ask[*kmsg.ProduceResponse](s, q).Topics[0].Partitions[0]
}

// TestProduceResponseIsWhatKmsgWrites compares the response that is written by hand with kmsg's.
func TestProduceResponseIsWhatKmsgWrites(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 3, "message.timestamp.type=LogAppendTime")
		other := s.createTopic("other", 1)
		for version := int16(3); version <= 13; version++ {
			for _, acks := range []int16{-1, 1} {
				q := produceTo(version, acks, "orders", id, 2, records(2, 10))
				q.Topics[0].Partitions = append(q.Topics[0].Partitions, kmsg.ProduceRequestTopicPartition{Partition: 0, Records: records(3, 10)})
				q.Topics = append(q.Topics, produceTo(version, acks, "other", other, 0, records(1, 1)).Topics...)
				reply, _, err := s.begin(s.peer(), q)
				if err != nil {
					t.Fatal(err)
				}
				body, err := written(s.ctx, reply)
				if err != nil {
					t.Fatal(err)
				}
				res := kmsg.NewPtrProduceResponse()
				res.Version = version
				if err := res.ReadFrom(body); err != nil {
					t.Fatalf("version %d: %v", version, err)
				}
				if again := res.AppendTo(nil); !slices.Equal(again, body) {
					t.Fatalf("version %d: not as kmsg writes it\nours %x\nkmsg %x", version, body, again)
				}
				part := res.Topics[0].Partitions[0]
				if len(res.Topics) != 2 || part.Partition != 2 || part.LogAppendTime != time.Now().UnixMilli() || res.Topics[1].Partitions[0].LogAppendTime != -1 {
					t.Fatalf("version %d: %+v", version, res)
				}
				if version >= 5 && part.LogStartOffset != 0 || part.ErrorCode != 0 {
					t.Fatalf("version %d: %+v", version, part)
				}
			}
		}
	})
}

// TestProduceErrors: what is wrong with a request, at every version, in Kafka's codes.
func TestProduceErrors(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1, "max.message.bytes=1000")
		compacted := s.createTopic("compacted", 1, "cleanup.policy=compact")
		damaged := records(1, 10)
		damaged[len(damaged)-1] ^= 1
		transactional := batch.NewBuilder(batch.BuilderOptions{})
		transactional.SetProducer(1, 0, 0, true)
		keyless := batch.NewBuilder(batch.BuilderOptions{})
		keyless.Append(time.Now().UnixMilli(), []byte("k"), []byte("v"), nil)
		keyless.Append(time.Now().UnixMilli(), nil, []byte("v"), nil)
		noKey, err := keyless.Build()
		if err != nil {
			t.Fatal(err)
		}
		future := batch.NewBuilder(batch.BuilderOptions{})
		future.Append(time.Now().Add(2*time.Hour).UnixMilli(), nil, nil, nil)
		early, err := future.Build()
		if err != nil {
			t.Fatal(err)
		}
		zstd := fill(batch.NewBuilder(batch.BuilderOptions{Codec: batch.Zstd}), 3, 10)
		oldFormat := slices.Clone(records(1, 10))
		oldFormat[16] = 1
		cases := []struct {
			name   string
			topic  string
			number int32
			acks   int16
			data   []byte
			want   *kerr.Error
		}{
			{"no topic", "missing", 0, -1, records(1, 1), kerr.UnknownTopicOrPartition},
			{"no partition", "orders", 1, -1, records(1, 1), kerr.UnknownTopicOrPartition},
			{"no partition, wrong acks", "orders", -1, 7, records(1, 1), kerr.UnknownTopicOrPartition},
			{"acks", "orders", 0, 2, records(1, 1), kerr.InvalidRequiredAcks},
			{"acks", "orders", 0, -2, records(1, 1), kerr.InvalidRequiredAcks},
			{"nothing", "orders", 0, -1, nil, kerr.InvalidRecord},
			{"empty", "orders", 0, -1, []byte{}, kerr.InvalidRecord},
			{"half a batch", "orders", 0, -1, records(1, 1)[:40], kerr.InvalidRecord},
			{"two batches", "orders", 0, -1, append(records(1, 1), records(1, 1)...), kerr.InvalidRecord},
			{"old format", "orders", 0, -1, oldFormat, kerr.InvalidRecord},
			{"checksum", "orders", 0, -1, damaged, kerr.CorruptMessage},
			{"too large", "orders", 0, -1, records(1, 2000), kerr.MessageTooLarge},
			{"transaction", "orders", 0, -1, fill(transactional, 1, 1), kerr.InvalidTxnState},
			{"no key", "compacted", 0, -1, noKey, kerr.InvalidRecord},
			{"from the future", "compacted", 0, -1, early, kerr.InvalidRecord},
		}
		for version := int16(3); version <= 13; version++ {
			ids := map[string]metadata.UUID{"orders": id, "compacted": compacted, "missing": {1}}
			for _, c := range cases {
				expected := c.want
				if version >= 13 && c.topic == "missing" {
					expected = kerr.UnknownTopicID
				}
				got := s.produced(produceTo(version, c.acks, c.topic, ids[c.topic], c.number, slices.Clone(c.data)))
				if got.ErrorCode != expected.Code || got.BaseOffset != -1 || got.LogAppendTime != -1 {
					t.Errorf("version %d, %s: %v %+v, want %v", version, c.name, kerr.ErrorForCode(got.ErrorCode), got, expected)
				}
				if (got.ErrorMessage != nil) != (version >= 8) {
					t.Errorf("version %d, %s: message %s", version, c.name, deref(got.ErrorMessage))
				}
				if c.name == "no key" && version >= 8 && (len(got.ErrorRecords) != 1 || got.ErrorRecords[0].RelativeOffset != 1) {
					t.Errorf("version %d: records at fault: %+v", version, got.ErrorRecords)
				}
			}
			got := s.produced(produceTo(version, -1, "orders", id, 0, slices.Clone(zstd)))
			if wantCode := map[bool]int16{true: 0, false: kerr.UnsupportedCompressionType.Code}[version >= 7]; got.ErrorCode != wantCode {
				t.Errorf("version %d: zstd gets %d", version, got.ErrorCode)
			}
		}
	})
}

// TestProduceAcks: 0 has no reply, and its error ends the connection; 1 does not wait for the disk in
// a durable topic, all does, and gives up at its timeout.
func TestProduceAcks(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		peer := s.peer()
		if reply, ready, err := s.begin(peer, produceTo(12, 0, "orders", id, 0, records(1, 1))); reply != nil || !ready || err != nil {
			t.Fatalf("acks=0: reply %v, ready %v, %v", reply != nil, ready, err)
		}
		if _, _, err := s.begin(peer, produceTo(12, 0, "missing", id, 0, records(1, 1))); err == nil {
			t.Fatal("acks=0 to a topic that is not there keeps its connection")
		}
		s.append("orders", 0, records(1, 1)) // its files exist from here on
		stall := make(chan struct{})
		s.disk.SetFault(stallFlushes(stall))
		reply, ready, err := s.begin(peer, produceTo(12, 1, "orders", id, 0, records(1, 1)))
		if err != nil || !ready {
			t.Fatalf("acks=1 waits for the disk: %v", err)
		}
		if _, err := written(s.ctx, reply); err != nil {
			t.Fatal(err)
		}
		q := produceTo(12, -1, "orders", id, 0, records(1, 1))
		begun := time.Now()
		reply, ready, err = s.begin(peer, q)
		if err != nil || ready {
			t.Fatalf("acks=all does not wait for the disk: %v", err)
		}
		res, err := s.finish(s.ctx, q, reply)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.(*kmsg.ProduceResponse).Topics[0].Partitions[0]; got.ErrorCode != kerr.RequestTimedOut.Code || got.BaseOffset != -1 || time.Since(begun) != time.Second {
			t.Fatalf("after %v: %+v", time.Since(begun), got)
		}
		q.TimeoutMillis = 5000
		refused := kmsg.NewProduceRequestTopicPartition() // one that fails does not answer for the others
		refused.Partition = 7
		q.Topics[0].Partitions = append([]kmsg.ProduceRequestTopicPartition{refused}, q.Topics[0].Partitions...)
		reply, _, err = s.begin(peer, q)
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan kmsg.Response, 1)
		go func() {
			res, err := s.finish(s.ctx, q, reply)
			if err != nil {
				t.Error(err)
			}
			done <- res
		}()
		time.Sleep(time.Second)
		if len(done) > 0 {
			t.Fatal("acknowledged before it was on disk")
		}
		s.disk.SetFault(nil)
		close(stall)
		if got := (<-done).(*kmsg.ProduceResponse).Topics[0].Partitions[1]; got.ErrorCode != 0 || got.BaseOffset != 4 {
			t.Fatalf("%+v", got)
		}
	})
}

// stallFlushes holds every flush until the channel is closed.
func stallFlushes(until chan struct{}) disk.Fault {
	return func(op disk.Op) error {
		if op.Kind == disk.OpSync || op.Kind == disk.OpSyncFS {
			<-until
		}
		return nil
	}
}

// TestProduceSequences follows idempotent producers end to end: the next sequence is taken, a batch
// sent again is answered with its first offset, a gap and an old epoch are refused.
func TestProduceSequences(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		init := kmsg.NewPtrInitProducerIDRequest()
		init.Version, init.ProducerID, init.ProducerEpoch = 4, -1, -1
		got := ask[*kmsg.InitProducerIDResponse](s, init)
		if got.ErrorCode != 0 || got.ProducerEpoch != 0 {
			t.Fatalf("%+v", got)
		}
		pid := got.ProducerID
		send := func(epoch int16, sequence int32, n int) (int16, int64) {
			p := s.produced(produceTo(9, -1, "orders", id, 0, numbered(pid, epoch, sequence, n)))
			return p.ErrorCode, p.BaseOffset
		}
		for _, c := range []struct {
			epoch    int16
			sequence int32
			n        int
			code     int16
			offset   int64
		}{
			{0, 0, 2, 0, 0},
			{0, 2, 3, 0, 2},
			{0, 0, 2, 0, 0},
			{0, 2, 3, 0, 2},
			{0, 5, 1, 0, 5},
			{0, 7, 1, kerr.OutOfOrderSequenceNumber.Code, -1},
			{0, 6, 1, 0, 6},
			{1, 3, 1, kerr.OutOfOrderSequenceNumber.Code, -1},
			{1, 0, 1, 0, 7},
			{0, 7, 1, kerr.InvalidProducerEpoch.Code, -1},
		} {
			if code, offset := send(c.epoch, c.sequence, c.n); code != c.code || offset != c.offset {
				t.Fatalf("epoch %d sequence %d: code %d offset %d, want %d %d", c.epoch, c.sequence, code, offset, c.code, c.offset)
			}
		}
		d := kmsg.NewPtrDescribeProducersRequest()
		d.Topics = []kmsg.DescribeProducersRequestTopic{{Topic: "orders", Partitions: []int32{0}}}
		active := ask[*kmsg.DescribeProducersResponse](s, d).Topics[0].Partitions[0].ActiveProducers
		if len(active) != 1 || active[0].ProducerID != pid || active[0].ProducerEpoch != 1 || active[0].LastSequence != 0 || active[0].CurrentTxnStartOffset != -1 {
			t.Fatalf("%+v", active)
		}
	})
}

// TestTrap19UnknownProducer: a partition takes any first sequence from a producer that it knows
// nothing of, for what it knew may have expired (KIP-360); from then on it holds it to its epoch.
func TestTrap19UnknownProducer(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		if p := s.produced(produceTo(9, -1, "orders", id, 0, numbered(50, 3, 17, 1))); p.ErrorCode != 0 {
			t.Fatalf("%+v", p)
		}
		if p := s.produced(produceTo(9, -1, "orders", id, 0, numbered(50, 2, 18, 1))); p.ErrorCode != kerr.InvalidProducerEpoch.Code {
			t.Fatalf("%+v", p)
		}
	})
}

// TestProduceAllocations guards the path that every batch takes.
func TestProduceAllocations(t *testing.T) {
	s := newStack(t)
	id := s.createTopic("orders", 1, "flush.before.ack=false")
	template := produceTo(12, -1, "orders", id, 0, records(10, 100)).AppendTo(nil)
	peer := s.peer()
	body := make([]byte, len(template))
	var out wire.Out
	once := func() {
		copy(body, template)
		r := &wire.Request{Header: wire.Header{Key: 0, Version: 12}, Body: body}
		reply, _, err := s.handler.Handle(s.ctx, peer, r)
		if err == nil {
			err = reply(s.ctx, &out)
		}
		if err != nil {
			t.Fatal(err)
		}
		out.Reset()
	}
	once()
	if n := testing.AllocsPerRun(200, once); n > 20 {
		t.Fatalf("%v allocations for one batch", n)
	}
}

// TestTruncatedProduceIsAnError: a body that ends early closes the connection, and writes nothing.
func TestTruncatedProduceIsAnError(t *testing.T) {
	faketime.Test(t, func(t *testing.T) {
		s := newStack(t)
		id := s.createTopic("orders", 1)
		for version := int16(3); version <= 13; version++ {
			whole := produceTo(version, -1, "orders", id, 0, records(1, 10)).AppendTo(nil)
			for n := range len(whole) {
				if _, _, err := s.beginRaw(s.peer(), 0, version, slices.Clone(whole[:n])); err == nil {
					t.Fatalf("version %d: %d of %d bytes are taken", version, n, len(whole))
				}
			}
		}
		if end := s.partition("orders", 0).Progress().End; end != 0 {
			t.Fatalf("the log ends at %d", end)
		}
		if _, _, err := s.beginRaw(s.peer(), 0, 2, nil); !errors.Is(err, errUnsupportedVersion) {
			t.Fatal(err)
		}
	})
}
