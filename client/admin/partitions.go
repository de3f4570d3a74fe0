package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// perLeader is a call about partitions, which their leaders answer.
func perLeader[Response kmsg.Response, Result any](ctx context.Context, a *Admin, what string, partitions []client.TopicPartition,
	request func(context.Context, []client.TopicPartition) kmsg.Request,
	read func(Response, func(client.TopicPartition, Result, error)),
	failed func(client.TopicPartition, error) Result,
) ([]Result, error) {
	return spread[client.TopicPartition, Response, Result]{
		what: what, owners: a.byLeader, request: request, read: read, failed: failed, repeated: again,
		// A topic that is not there is not waited for: whoever mistyped it is told at once.
		awaited: func(err error) bool { return errors.Is(err, client.ErrLeaderNotAvailable) },
	}.run(ctx, a, partitions)
}

// byLeader finds who leads partitions now; unled has those that nobody leads, and why.
func (a *Admin) byLeader(ctx context.Context, partitions []client.TopicPartition) (
	led map[client.Target][]client.TopicPartition, unled map[client.TopicPartition]error, err error,
) {
	var names []string
	for _, tp := range partitions {
		names = append(names, tp.Topic)
	}
	topics, err := a.describeByMetadata(ctx, names)
	if err != nil {
		return nil, nil, err
	}
	led, unled = map[client.Target][]client.TopicPartition{}, map[client.TopicPartition]error{}
	for _, tp := range partitions {
		leader, err := leaderOf(topics[tp.Topic], tp.Partition)
		if err != nil {
			unled[tp] = err
			continue
		}
		led[client.ToBroker(leader)] = append(led[client.ToBroker(leader)], tp)
	}
	return led, unled, nil
}

func leaderOf(t *TopicDescription, partition int32) (int32, error) {
	if t == nil {
		return -1, errLeftOut
	}
	if t.Err != nil {
		return -1, t.Err
	}
	for _, p := range t.Partitions {
		switch {
		case p.Partition != partition:
		case p.Leader < 0:
			return -1, cmp.Or[error](p.Err, client.ErrLeaderNotAvailable)
		default:
			return p.Leader, nil
		}
	}
	return -1, client.ErrUnknownTopicOrPartition
}

// DeletedRecords is what DeleteRecords did to a partition.
type DeletedRecords struct {
	TopicPartition client.TopicPartition
	LowWatermark   int64 // the first offset that is left
	Err            error // ErrOffsetOutOfRange, ErrPolicyViolation, ErrUnknownTopicOrPartition
}

// ToHighWatermark, as an offset given to DeleteRecords, stands for everything committed.
const ToHighWatermark int64 = -1

// DeleteRecords deletes the records before an offset, partition by partition. The results are
// sorted by partition.
func (a *Admin) DeleteRecords(ctx context.Context, before map[client.TopicPartition]int64) ([]DeletedRecords, error) {
	return perLeader(ctx, a, "delete records", slices.SortedFunc(maps.Keys(before), comparePartitions),
		func(ctx context.Context, of []client.TopicPartition) kmsg.Request {
			req := kmsg.NewPtrDeleteRecordsRequest()
			req.TimeoutMillis = millis(ctx)
			eachTopic(of, func(topic string, tps []client.TopicPartition) {
				t := kmsg.NewDeleteRecordsRequestTopic()
				t.Topic = topic
				for _, tp := range tps {
					t.Partitions = append(t.Partitions, kmsg.DeleteRecordsRequestTopicPartition{Partition: tp.Partition, Offset: before[tp]})
				}
				req.Topics = append(req.Topics, t)
			})
			return req
		},
		func(resp *kmsg.DeleteRecordsResponse, give func(client.TopicPartition, DeletedRecords, error)) {
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					tp := client.TopicPartition{Topic: t.Topic, Partition: p.Partition}
					give(tp, DeletedRecords{TopicPartition: tp, LowWatermark: p.LowWatermark}, client.CodeError(p.ErrorCode, nil))
				}
			}
		},
		func(tp client.TopicPartition, err error) DeletedRecords {
			return DeletedRecords{TopicPartition: tp, LowWatermark: -1, Err: err}
		})
}

func comparePartitions(a, b client.TopicPartition) int {
	return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// eachTopic visits partitions, which are sorted, topic by topic.
func eachTopic(partitions []client.TopicPartition, visit func(topic string, of []client.TopicPartition)) {
	for len(partitions) > 0 {
		n := 1
		for n < len(partitions) && partitions[n].Topic == partitions[0].Topic {
			n++
		}
		visit(partitions[0].Topic, partitions[:n])
		partitions = partitions[n:]
	}
}

// numbers are the partitions of one topic without its name.
func numbers(of []client.TopicPartition) []int32 {
	out := make([]int32, len(of))
	for i, tp := range of {
		out[i] = tp.Partition
	}
	return out
}

// OffsetSpec is the offset that ListOffsets is to find.
type OffsetSpec struct{ time int64 }

// What ListOffsets can find. MaxTimestamp is the record with the largest timestamp (KIP-734);
// EarliestLocal, LatestTiered and EarliestPendingUpload, the first not yet in tiered storage, are about
// partitions whose old segments go there (KIP-405, KIP-1005, KIP-1023).
var (
	Latest                = OffsetSpec{-1}
	Earliest              = OffsetSpec{-2}
	MaxTimestamp          = OffsetSpec{-3}
	EarliestLocal         = OffsetSpec{-4}
	LatestTiered          = OffsetSpec{-5}
	EarliestPendingUpload = OffsetSpec{-6}
)

// AtTime finds the first record whose timestamp is t or later.
func AtTime(t time.Time) OffsetSpec { return OffsetSpec{t.UnixMilli()} }

// ListedOffset is an offset that ListOffsets found.
type ListedOffset struct {
	TopicPartition client.TopicPartition
	Offset         int64     // -1: there is no such record
	Timestamp      time.Time // of the record; zero for Earliest and Latest
	LeaderEpoch    int32     // -1 where the broker does not say
	Err            error
}

// ListOffsets finds an offset in each partition. With client.ReadCommitted, Latest is the last
// stable offset. The results are sorted by partition.
func (a *Admin) ListOffsets(ctx context.Context, specs map[client.TopicPartition]OffsetSpec, isolation client.Isolation) ([]ListedOffset, error) {
	return perLeader(ctx, a, "list offsets", slices.SortedFunc(maps.Keys(specs), comparePartitions),
		func(ctx context.Context, of []client.TopicPartition) kmsg.Request {
			req := kmsg.NewPtrListOffsetsRequest()
			req.ReplicaID, req.IsolationLevel, req.TimeoutMillis = -1, int8(isolation), millis(ctx)
			eachTopic(of, func(topic string, tps []client.TopicPartition) {
				t := kmsg.NewListOffsetsRequestTopic()
				t.Topic = topic
				for _, tp := range tps {
					p := kmsg.NewListOffsetsRequestTopicPartition()
					p.Partition, p.CurrentLeaderEpoch, p.Timestamp = tp.Partition, -1, specs[tp].time
					t.Partitions = append(t.Partitions, p)
				}
				req.Topics = append(req.Topics, t)
			})
			return req
		},
		func(resp *kmsg.ListOffsetsResponse, give func(client.TopicPartition, ListedOffset, error)) {
			for _, t := range resp.Topics {
				for _, p := range t.Partitions {
					l := ListedOffset{
						TopicPartition: client.TopicPartition{Topic: t.Topic, Partition: p.Partition},
						Offset:         p.Offset, LeaderEpoch: p.LeaderEpoch,
					}
					if p.Timestamp >= 0 {
						l.Timestamp = time.UnixMilli(p.Timestamp)
					}
					give(l.TopicPartition, l, client.CodeError(p.ErrorCode, nil))
				}
			}
		},
		func(tp client.TopicPartition, err error) ListedOffset {
			return ListedOffset{TopicPartition: tp, Offset: -1, LeaderEpoch: -1, Err: err}
		})
}

// ProducerState is what a partition's leader knows of a producer.
type ProducerState struct {
	ProducerID       int64
	Epoch            int32
	LastSequence     int32
	LastTimestamp    time.Time
	CoordinatorEpoch int32 // -1: none
	// TransactionStart is the first offset of the transaction that is open; -1: none.
	TransactionStart int64
}

// PartitionProducers are the producers of a partition.
type PartitionProducers struct {
	TopicPartition client.TopicPartition
	Producers      []ProducerState
	Err            error
}

// DescribeProducers gives the producers that the leaders of partitions remember, sorted by partition.
func (a *Admin) DescribeProducers(ctx context.Context, of ...client.TopicPartition) ([]PartitionProducers, error) {
	return perLeader(ctx, a, "describe producers", slices.SortedFunc(slices.Values(of), comparePartitions),
		producersRequest, readPartitionProducers, failedProducers)
}

// DescribeProducersOn gives the producers that one broker remembers of partitions, be it their leader or a follower,
// sorted by partition. Where it has no replica Err is ErrNotLeaderOrFollower.
func (a *Admin) DescribeProducersOn(ctx context.Context, node int32, of ...client.TopicPartition) ([]PartitionProducers, error) {
	return decide(ctx, a, fmt.Sprintf("describe producers on broker %d", node), client.ToBroker(node),
		slices.SortedFunc(slices.Values(of), comparePartitions), producersRequest, readPartitionProducers, failedProducers)
}

func producersRequest(_ context.Context, of []client.TopicPartition) kmsg.Request {
	req := kmsg.NewPtrDescribeProducersRequest()
	eachTopic(of, func(topic string, tps []client.TopicPartition) {
		t := kmsg.NewDescribeProducersRequestTopic()
		t.Topic, t.Partitions = topic, numbers(tps)
		req.Topics = append(req.Topics, t)
	})
	return req
}

func readPartitionProducers(resp *kmsg.DescribeProducersResponse, give func(client.TopicPartition, PartitionProducers, error)) {
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			tp := client.TopicPartition{Topic: t.Topic, Partition: p.Partition}
			give(tp, PartitionProducers{TopicPartition: tp, Producers: readProducers(p.ActiveProducers)},
				client.CodeError(p.ErrorCode, p.ErrorMessage))
		}
	}
}

func failedProducers(tp client.TopicPartition, err error) PartitionProducers {
	return PartitionProducers{TopicPartition: tp, Err: err}
}

func readProducers(in []kmsg.DescribeProducersResponseTopicPartitionActiveProducer) []ProducerState {
	var out []ProducerState
	for _, p := range in {
		out = append(out, ProducerState{
			ProducerID: p.ProducerID, Epoch: p.ProducerEpoch, LastSequence: p.LastSequence,
			LastTimestamp: time.UnixMilli(p.LastTimestamp), CoordinatorEpoch: p.CoordinatorEpoch,
			TransactionStart: p.CurrentTxnStartOffset,
		})
	}
	return out
}
