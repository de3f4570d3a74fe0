package admin

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

// ElectionType is a kind of election that ElectLeaders holds.
type ElectionType int8

// Kafka's kinds of elections.
const (
	// Preferred gives a partition its preferred leader, the first of its replicas.
	Preferred ElectionType = 0
	// Unclean gives a partition without a leader any replica that lives, even one that lacks records that were
	// acknowledged: those are lost.
	Unclean ElectionType = 1
)

// ElectLeaders holds elections in partitions, all of the cluster's if none is named (KIP-183, KIP-460). Of those not named
// the results have only the ones that needed an election. They are sorted by partition; an Err is ErrElectionNotNeeded,
// ErrPreferredLeaderNotAvailable, ErrEligibleLeadersNotAvailable or ErrUnknownTopicOrPartition, among others.
func (a *Admin) ElectLeaders(ctx context.Context, kind ElectionType, of ...client.TopicPartition) ([]PartitionResult, error) {
	req := kmsg.NewPtrElectLeadersRequest()
	req.ElectionType = int8(kind)
	asked := slices.SortedFunc(slices.Values(of), comparePartitions)
	eachTopic(asked, func(topic string, tps []client.TopicPartition) {
		t := kmsg.NewElectLeadersRequestTopic()
		t.Topic, t.Partitions = topic, numbers(tps)
		req.Topics = append(req.Topics, t)
	})
	var errs map[client.TopicPartition]error
	err := a.try(ctx, func(ctx context.Context) error {
		req.TimeoutMillis = millis(ctx)
		errs = map[client.TopicPartition]error{}
		resp, err := askController[*kmsg.ElectLeadersResponse](ctx, a, req)
		if err != nil {
			return err
		}
		if err := client.CodeError(resp.ErrorCode, nil); err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				err := client.CodeError(p.ErrorCode, p.ErrorMessage)
				if errors.Is(err, client.ErrNotController) {
					return err
				}
				errs[client.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("elect leaders: %w", err)
	}
	if len(of) == 0 {
		asked = slices.SortedFunc(maps.Keys(errs), comparePartitions)
	}
	return partitionResults(asked, errs), nil
}

// ReassignOption says how AlterPartitionReassignments goes about it.
type ReassignOption func(*kmsg.AlterPartitionAssignmentsRequest)

// KeepReplicationFactor refuses, with ErrInvalidReplicationFactor, what gives a partition more or fewer replicas (KIP-860).
// Brokers before Kafka 4.1 do not know of it and allow both.
func KeepReplicationFactor() ReassignOption {
	return func(r *kmsg.AlterPartitionAssignmentsRequest) { r.AllowReplicationFactorChange = false }
}

// AlterPartitionReassignments begins to move partitions to other brokers, the first of which is to lead, or stops that
// where the list of brokers is nil (KIP-455). It does not wait for the move: ListPartitionReassignments shows what is
// under way. The results are sorted by partition; an Err is ErrInvalidReplicaAssignment, ErrNoReassignmentInProgress or
// ErrUnknownTopicOrPartition, among others.
func (a *Admin) AlterPartitionReassignments(ctx context.Context, to map[client.TopicPartition][]int32, options ...ReassignOption) ([]PartitionResult, error) {
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	for _, o := range options {
		o(req)
	}
	asked := slices.SortedFunc(maps.Keys(to), comparePartitions)
	eachTopic(asked, func(topic string, tps []client.TopicPartition) {
		t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		t.Topic = topic
		for _, tp := range tps {
			p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
			p.Partition, p.Replicas = tp.Partition, to[tp]
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	})
	var errs map[client.TopicPartition]error
	err := a.try(ctx, func(ctx context.Context) error {
		req.TimeoutMillis = millis(ctx)
		errs = map[client.TopicPartition]error{}
		resp, err := askController[*kmsg.AlterPartitionAssignmentsResponse](ctx, a, req)
		if err != nil {
			return err
		}
		if err := client.CodeError(resp.ErrorCode, resp.ErrorMessage); err != nil {
			return err
		}
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				errs[client.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = client.CodeError(p.ErrorCode, p.ErrorMessage)
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("alter partition reassignments: %w", err)
	}
	return partitionResults(asked, errs), nil
}

// Reassignment is a move of a partition that is under way.
type Reassignment struct {
	TopicPartition client.TopicPartition
	Replicas       []int32 // all that it has now, in the order in which they are to be preferred
	Adding         []int32 // of Replicas: those that are not in sync yet, or were not when the move began
	Removing       []int32 // of Replicas: those that go at its end
}

// ListPartitionReassignments gives the moves that are under way, of some partitions or, if none is named, of all, sorted by
// partition.
func (a *Admin) ListPartitionReassignments(ctx context.Context, of ...client.TopicPartition) ([]Reassignment, error) {
	req := kmsg.NewPtrListPartitionReassignmentsRequest()
	eachTopic(slices.SortedFunc(slices.Values(of), comparePartitions), func(topic string, tps []client.TopicPartition) {
		t := kmsg.NewListPartitionReassignmentsRequestTopic()
		t.Topic, t.Partitions = topic, numbers(tps)
		req.Topics = append(req.Topics, t)
	})
	var out []Reassignment
	err := a.try(ctx, func(ctx context.Context) error {
		req.TimeoutMillis = millis(ctx)
		resp, err := askController[*kmsg.ListPartitionReassignmentsResponse](ctx, a, req)
		if err != nil {
			return err
		}
		if err := client.CodeError(resp.ErrorCode, resp.ErrorMessage); err != nil {
			return err
		}
		out = nil
		for _, t := range resp.Topics {
			for _, p := range t.Partitions {
				tp := client.TopicPartition{Topic: t.Topic, Partition: p.Partition}
				out = append(out, Reassignment{tp, p.Replicas, p.AddingReplicas, p.RemovingReplicas})
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list partition reassignments: %w", err)
	}
	slices.SortFunc(out, func(a, b Reassignment) int { return comparePartitions(a.TopicPartition, b.TopicPartition) })
	return out, nil
}
