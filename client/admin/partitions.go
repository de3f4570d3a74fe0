package admin

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// eachLeader asks the leaders of partitions, all at once, and again those whose leader turned out
// to be another, until each partition has an answer that counts. ask is given what one broker
// leads and returns each partition's error; it runs concurrently.
func (a *Admin) eachLeader(ctx context.Context, partitions []client.TopicPartition,
	ask func(ctx context.Context, leader client.Target, of []client.TopicPartition) (map[client.TopicPartition]error, error),
) (map[client.TopicPartition]error, error) {
	final := map[client.TopicPartition]error{}
	open := slices.Clone(partitions)
	err := a.try(ctx, func(ctx context.Context) error {
		led, unled, err := a.byLeader(ctx, open)
		if err != nil {
			return err
		}
		var mu sync.Mutex
		var wg sync.WaitGroup
		open = open[:0]
		for tp, err := range unled {
			final[tp] = err
			// A topic that is not there is not waited for: whoever mistyped it is told at once.
			if errors.Is(err, client.ErrLeaderNotAvailable) {
				open = append(open, tp)
			}
		}
		for leader, of := range led {
			wg.Go(func() {
				errs, err := ask(ctx, client.ToBroker(leader), of)
				mu.Lock()
				defer mu.Unlock()
				for _, tp := range of {
					own, answered := errs[tp]
					switch {
					case err != nil:
						own = err
					case !answered:
						own = errLeftOut
					}
					if final[tp] = own; own != nil && again(own) {
						open = append(open, tp)
					}
				}
			})
		}
		wg.Wait()
		if len(open) > 0 {
			return final[open[0]]
		}
		return nil
	})
	// Out of time with some unanswered: those have their error, the others their answer.
	if err != nil && len(final) == 0 {
		return nil, err
	}
	return final, nil
}

// byLeader finds who leads partitions now; unled has those that nobody leads, and why.
func (a *Admin) byLeader(ctx context.Context, partitions []client.TopicPartition) (
	led map[int32][]client.TopicPartition, unled map[client.TopicPartition]error, err error,
) {
	var names []string
	for _, tp := range partitions {
		names = append(names, tp.Topic)
	}
	topics, err := a.describeByMetadata(ctx, names)
	if err != nil {
		return nil, nil, err
	}
	led, unled = map[int32][]client.TopicPartition{}, map[client.TopicPartition]error{}
	for _, tp := range partitions {
		leader, err := leaderOf(topics[tp.Topic], tp.Partition)
		if err != nil {
			unled[tp] = err
			continue
		}
		led[leader] = append(led[leader], tp)
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
	var mu sync.Mutex
	low := map[client.TopicPartition]int64{}
	partitions := slices.SortedFunc(maps.Keys(before), comparePartitions)
	errs, err := a.eachLeader(ctx, partitions, func(ctx context.Context, leader client.Target, of []client.TopicPartition) (map[client.TopicPartition]error, error) {
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
		resp, err := ask[*kmsg.DeleteRecordsResponse](ctx, a, leader, req)
		if err != nil {
			return nil, err
		}
		errs := map[client.TopicPartition]error{}
		mu.Lock()
		defer mu.Unlock()
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				tp := client.TopicPartition{Topic: t.Topic, Partition: p.Partition}
				errs[tp], low[tp] = client.CodeError(p.ErrorCode, nil), p.LowWatermark
			}
		}
		return errs, nil
	})
	if err != nil {
		return nil, fmt.Errorf("delete records: %w", err)
	}
	out := make([]DeletedRecords, len(partitions))
	for i, tp := range partitions {
		out[i] = DeletedRecords{tp, low[tp], errs[tp]}
		if errs[tp] != nil {
			out[i].LowWatermark = -1
		}
	}
	return out, nil
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

// OffsetSpec is the offset that ListOffsets is to find.
type OffsetSpec struct{ time int64 }

// What ListOffsets can find. MaxTimestamp is the record with the largest timestamp (KIP-734);
// EarliestLocal and LatestTiered are about partitions whose old segments lie in tiered storage
// (KIP-405, KIP-1005).
var (
	Latest        = OffsetSpec{-1}
	Earliest      = OffsetSpec{-2}
	MaxTimestamp  = OffsetSpec{-3}
	EarliestLocal = OffsetSpec{-4}
	LatestTiered  = OffsetSpec{-5}
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
	var mu sync.Mutex
	found := map[client.TopicPartition]ListedOffset{}
	partitions := slices.SortedFunc(maps.Keys(specs), comparePartitions)
	errs, err := a.eachLeader(ctx, partitions, func(ctx context.Context, leader client.Target, of []client.TopicPartition) (map[client.TopicPartition]error, error) {
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
		resp, err := ask[*kmsg.ListOffsetsResponse](ctx, a, leader, req)
		if err != nil {
			return nil, err
		}
		errs := map[client.TopicPartition]error{}
		mu.Lock()
		defer mu.Unlock()
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				tp := client.TopicPartition{Topic: t.Topic, Partition: p.Partition}
				errs[tp] = client.CodeError(p.ErrorCode, nil)
				l := ListedOffset{TopicPartition: tp, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch}
				if p.Timestamp >= 0 {
					l.Timestamp = time.UnixMilli(p.Timestamp)
				}
				found[tp] = l
			}
		}
		return errs, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list offsets: %w", err)
	}
	out := make([]ListedOffset, len(partitions))
	for i, tp := range partitions {
		out[i] = found[tp]
		if err := errs[tp]; err != nil {
			out[i] = ListedOffset{TopicPartition: tp, Offset: -1, LeaderEpoch: -1, Err: err}
		}
	}
	return out, nil
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
	var mu sync.Mutex
	found := map[client.TopicPartition][]ProducerState{}
	partitions := slices.SortedFunc(slices.Values(of), comparePartitions)
	errs, err := a.eachLeader(ctx, partitions, func(ctx context.Context, leader client.Target, of []client.TopicPartition) (map[client.TopicPartition]error, error) {
		req := kmsg.NewPtrDescribeProducersRequest()
		eachTopic(of, func(topic string, tps []client.TopicPartition) {
			t := kmsg.NewDescribeProducersRequestTopic()
			t.Topic = topic
			for _, tp := range tps {
				t.Partitions = append(t.Partitions, tp.Partition)
			}
			req.Topics = append(req.Topics, t)
		})
		resp, err := ask[*kmsg.DescribeProducersResponse](ctx, a, leader, req)
		if err != nil {
			return nil, err
		}
		errs := map[client.TopicPartition]error{}
		mu.Lock()
		defer mu.Unlock()
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				tp := client.TopicPartition{Topic: t.Topic, Partition: p.Partition}
				errs[tp] = client.CodeError(p.ErrorCode, p.ErrorMessage)
				found[tp] = readProducers(p.ActiveProducers)
			}
		}
		return errs, nil
	})
	if err != nil {
		return nil, fmt.Errorf("describe producers: %w", err)
	}
	out := make([]PartitionProducers, len(partitions))
	for i, tp := range partitions {
		out[i] = PartitionProducers{tp, found[tp], errs[tp]}
	}
	return out, nil
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
