package client

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/batch"
)

// retriedRequest is a request that the client makes in the course of an operation, and the way in which its
// answer carries an error.
type retriedRequest struct {
	name    string
	key     int16
	put     func(Error) interference
	operate func(t *testing.T, f *fakeCluster) // is to succeed, whatever the error is
	passes  int                                // so many requests of the kind are answered truly first
}

// refusing answers with the error in place of doing anything; afterwards does what is asked and then answers with the error.
func refusing(e Error) interference   { return interference{code: int16(e)} }
func afterwards(e Error) interference { return interference{after: int16(e)} }

// editing puts the error into a true answer, of a request that changes nothing.
func editing[R kmsg.Response](put func(resp R, code int16)) func(Error) interference {
	return func(e Error) interference {
		return interference{edit: func(resp kmsg.Response) { put(resp.(R), int16(e)) }}
	}
}

var retriedRequests = slices.Concat([]retriedRequest{
	{name: "ApiVersions", key: 18, operate: produceOperation, put: editing(func(r *kmsg.ApiVersionsResponse, code int16) { r.ErrorCode = code })},
	{name: "Metadata, as a whole", key: 3, operate: produceOperation, put: editing(func(r *kmsg.MetadataResponse, code int16) {
		*r = kmsg.MetadataResponse{Version: r.Version, ErrorCode: code, ControllerID: -1}
	})},
	{name: "Metadata, a topic", key: 3, operate: produceOperation, put: editing(func(r *kmsg.MetadataResponse, code int16) {
		for i := range r.Topics {
			r.Topics[i].ErrorCode, r.Topics[i].Partitions = code, nil
		}
	})},
	{name: "Metadata, a partition", key: 3, operate: produceOperation, put: editing(func(r *kmsg.MetadataResponse, code int16) {
		for i := range r.Topics {
			for j := range r.Topics[i].Partitions {
				p := &r.Topics[i].Partitions[j]
				if p.ErrorCode = code; code == int16(ErrLeaderNotAvailable) {
					p.Leader = -1
				}
			}
		}
	})},
	{name: "InitProducerId", key: 22, operate: produceOperation, put: refusing},
	{name: "Produce", key: 0, operate: produceOperation, put: refusing, passes: 2},
	{name: "Produce, the first", key: 0, operate: produceOperation, put: refusing},
	{name: "Produce, appended", key: 0, operate: produceOperation, put: afterwards, passes: 2},
	{name: "Produce, the first, appended", key: 0, operate: produceOperation, put: afterwards},
	{name: "Fetch", key: 1, operate: consumeOperation, put: refusing},
	{name: "Fetch, in a session", key: 1, operate: consumeOperation, put: refusing, passes: 2},
	{name: "Fetch, as a whole", key: 1, operate: consumeOperation, passes: 1, put: editing(func(r *kmsg.FetchResponse, code int16) {
		*r = kmsg.FetchResponse{Version: r.Version, ErrorCode: code}
	})},
	{name: "ListOffsets", key: 2, operate: consumeOperation, put: refusing},
	{name: "OffsetForLeaderEpoch", key: 23, operate: consumeOperation, put: refusing},
},
	groupRequests("classic", classicOperation, map[string]int16{
		"FindCoordinator": 10, "JoinGroup": 11, "SyncGroup": 14, "Heartbeat": 12, "LeaveGroup": 13, "OffsetCommit": 8, "OffsetFetch": 9,
	}),
	groupRequests("consumer protocol", consumerOperation, map[string]int16{
		"FindCoordinator": 10, "ConsumerGroupHeartbeat": 68, "OffsetCommit": 8, "OffsetFetch": 9,
	}),
	[]retriedRequest{
		{name: "classic, OffsetFetch, a partition", key: 9, operate: classicOperation, put: editing(refuseFetchedOffsets)},
		{name: "consumer protocol, OffsetFetch, a partition", key: 9, operate: consumerOperation, put: editing(refuseFetchedOffsets)},
		{name: "consumer protocol, a later heartbeat", key: 68, operate: consumerOperation, put: refusing, passes: 3},
	},
	transactionRequests("transaction.version 2", 2, map[string]int16{"FindCoordinator": 10, "InitProducerId": 22, "Produce": 0, "TxnOffsetCommit": 28, "EndTxn": 26}),
	transactionRequests("transaction.version 0", 0, map[string]int16{
		"FindCoordinator": 10, "InitProducerId": 22, "AddPartitionsToTxn": 24, "Produce": 0, "AddOffsetsToTxn": 25, "TxnOffsetCommit": 28, "EndTxn": 26,
	}),
)

func refuseFetchedOffsets(r *kmsg.OffsetFetchResponse, code int16) {
	for i := range r.Groups {
		for j := range r.Groups[i].Topics {
			for n := range r.Groups[i].Topics[j].Partitions {
				p := &r.Groups[i].Topics[j].Partitions[n]
				p.Offset, p.ErrorCode = -1, code
			}
		}
	}
}

func groupRequests(protocol string, operate func(*testing.T, *fakeCluster), keys map[string]int16) (all []retriedRequest) {
	for name, key := range keys {
		all = append(all, retriedRequest{name: protocol + ", " + name, key: key, operate: operate, put: refusing})
	}
	return all
}

func transactionRequests(protocol string, level int16, keys map[string]int16) (all []retriedRequest) {
	operate := func(t *testing.T, f *fakeCluster) { transactionOperation(t, f, level) }
	for name, key := range keys {
		all = append(all, retriedRequest{name: protocol + ", " + name, key: key, operate: operate, put: refusing})
		if key != 10 && key != 22 { // those of the second transaction
			all = append(all, retriedRequest{name: protocol + ", " + name + ", later", key: key, operate: operate, put: refusing, passes: 1})
		}
	}
	return append(all, retriedRequest{name: protocol + ", Produce, appended", key: 0, operate: operate, put: afterwards})
}

// Every error that Kafka calls retriable is answered once to every request that the client makes, and then the truth: the operation
// succeeds, in order, with nothing twice.
func TestEveryRetriableErrorOfEveryRequestOnce(t *testing.T) {
	var codes []Error
	for code := Error(1); code <= ErrShareSessionLimitReached; code++ {
		if code.Retriable() {
			codes = append(codes, code)
		}
	}
	if len(codes) < 30 {
		t.Errorf("only %d errors are retriable: %v", len(codes), codes)
	}
	for _, r := range retriedRequests {
		t.Run(r.name, func(t *testing.T) {
			for _, code := range codes {
				t.Run(code.Name(), func(t *testing.T) { onceRefused(t, r, code) })
			}
		})
	}
}

func onceRefused(t *testing.T, r retriedRequest, code Error) {
	bubble(t, 2, func(t *testing.T, f *fakeCluster) {
		f.topic("t", 1)
		var seen atomic.Int64
		f.script(func(_ int32, req kmsg.Request) interference {
			if req.Key() != r.key || seen.Add(1) != int64(r.passes)+1 {
				return interference{}
			}
			return r.put(code)
		})
		began := time.Now()
		r.operate(t, f)
		if seen.Load() <= int64(r.passes) {
			t.Errorf("the client made %d such requests: the test shows nothing", seen.Load())
		}
		if took := time.Since(began); took > time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

var retriedPartition = TopicPartition{"t", 0}

func produceOperation(t *testing.T, f *fakeCluster) {
	c, p := newTestProducer(t, f, BatchSize(60), Linger(0))
	defer c.Close()
	want := values(0, 30)
	done := make(chan error, len(want))
	for i, v := range want {
		if err := p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(0), Value: []byte(v)}, func(_ RecordMetadata, err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
		if i%10 == 9 {
			synctest.Wait() // so that it takes several requests, the first of which are answered
		}
	}
	closeProducer(t, p)
	for range want {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	if got := f.values(retriedPartition); !slices.Equal(got, want) {
		t.Errorf("%s\n%s", difference(got, want), f.dump(retriedPartition))
	}
}

// consumeOperation reads, on either side of a change of leaders.
func consumeOperation(t *testing.T, f *fakeCluster) {
	f.write(retriedPartition, batch.BuilderOptions{}, values(0, 5)...)
	c, k := newTestConsumer(t, f, NoAutoOffsetReset(), MaxPollRecords(2))
	defer c.Close()
	defer k.Close()
	if err := k.AssignTopic(t.Context(), "t", Earliest); err != nil {
		t.Fatal(err)
	}
	got := poll(t, k, 5)[retriedPartition]
	f.write(retriedPartition, batch.BuilderOptions{}, values(5, 8)...)
	got = append(got, poll(t, k, 3)[retriedPartition]...)
	f.lead(retriedPartition, 2)
	f.write(retriedPartition, batch.BuilderOptions{}, values(8, 12)...)
	got = append(got, poll(t, k, 4)[retriedPartition]...)
	if want := values(0, 12); !slices.Equal(got, want) {
		t.Error(difference(got, want))
	}
}

func classicOperation(t *testing.T, f *fakeCluster) {
	f.groups(quickGroups())
	groupOperation(t, f, SessionTimeout(6*time.Second), HeartbeatInterval(time.Second))
}

func consumerOperation(t *testing.T, f *fakeCluster) {
	f.consumerGroup()
	groupOperation(t, f, GroupProtocol(ConsumerProtocol))
}

// groupOperation has a member read, commit and leave, and another go on where it has.
func groupOperation(t *testing.T, f *fakeCluster, options ...GroupOption) {
	f.write(retriedPartition, batch.BuilderOptions{}, values(0, 10)...)
	var got []string
	for member := range 2 {
		c := f.client()
		g, err := c.NewGroupConsumer("g", append(options, NoAutoCommit(), AutoOffsetReset(Earliest), MaxPollRecords(5),
			OnLost(func(_ context.Context, _ *GroupConsumer, partitions []TopicPartition) {
				t.Errorf("it has lost %v", partitions)
			}))...)
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Subscribe("t"); err != nil {
			t.Fatal(err)
		}
		got = append(got, poll(t, g, 5)[retriedPartition]...)
		if err := g.Commit(t.Context()); err != nil {
			t.Errorf("member %d commits: %v", member, err)
		}
		time.Sleep(5 * time.Second) // heartbeats
		if err := g.Close(t.Context()); err != nil {
			t.Errorf("member %d leaves: %v", member, err)
		}
		c.Close()
	}
	if want := values(0, 10); !slices.Equal(got, want) {
		t.Error(difference(got, want))
	}
}

// transactionOperation commits, aborts and commits.
func transactionOperation(t *testing.T, f *fakeCluster, level int16) {
	x := f.transactions(level)
	c := f.client()
	defer c.Close()
	p, err := c.NewProducer(TransactionalID("x"))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.InitTransactions(t.Context()); err != nil {
		t.Fatalf("init: %v", err)
	}
	for n := range 3 {
		failed := p.Begin()
		for _, v := range values(10*n, 10*n+10) {
			failed = errors.Join(failed, p.Send(t.Context(), ProducerRecord{Topic: "t", Partition: ToPartition(0), Value: []byte(v)}, nil))
		}
		position := map[TopicPartition]OffsetAndMetadata{retriedPartition: {Offset: int64(n)}}
		failed = errors.Join(failed, p.SendOffsets(t.Context(), position, Membership{Group: "g", Generation: -1}))
		if n == 1 {
			failed = errors.Join(failed, p.Flush(t.Context()), p.Abort(t.Context()))
		} else {
			failed = errors.Join(failed, p.Commit(t.Context()))
		}
		if failed != nil {
			t.Fatalf("transaction %d: %v", n, failed)
		}
	}
	closeProducer(t, p)
	got, open := f.committed(retriedPartition)
	if want := append(values(0, 10), values(20, 30)...); !slices.Equal(got, want) || open > 0 {
		t.Errorf("%s, %d batches undecided\n%s", difference(got, want), open, f.dump(retriedPartition))
	}
	if at := x.commits["g"][retriedPartition]; at != 2 {
		t.Errorf("the group is at %d", at)
	}
}
