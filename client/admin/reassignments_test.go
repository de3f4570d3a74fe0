package admin

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client"
)

func at(topic string, partition int32) client.TopicPartition {
	return client.TopicPartition{Topic: topic, Partition: partition}
}

// TestElectionsAnswerForEachPartition: in the order of the partitions, asked again where the controller moved.
func TestElectionsAnswerForEachPartition(t *testing.T) {
	attempts := 0
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		r, ok := req.(*kmsg.ElectLeadersRequest)
		if !ok {
			return nil
		}
		attempts++
		resp := kmsg.NewPtrElectLeadersResponse()
		if attempts == 1 {
			resp.ErrorCode = int16(client.ErrNotController)
			return resp
		}
		if r.ElectionType != int8(Unclean) || r.Topics == nil && attempts == 2 {
			t.Errorf("%+v", r)
		}
		add := func(topic string, partition int32, code client.Error) {
			p := kmsg.ElectLeadersResponseTopicPartition{Partition: partition, ErrorCode: int16(code), ErrorMessage: kmsg.StringPtr("why")}
			resp.Topics = append(resp.Topics, kmsg.ElectLeadersResponseTopic{Topic: topic, Partitions: []kmsg.ElectLeadersResponseTopicPartition{p}})
		}
		add("b", 1, client.ErrElectionNotNeeded)
		add("a", 0, 0)
		return resp
	}
	serving(t, []int16{43}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.ElectLeaders(ctx, Unclean, at("b", 1), at("a", 3), at("a", 0))
		if err != nil || len(got) != 3 || attempts != 2 {
			t.Fatalf("%+v, %v after %d attempts", got, err, attempts)
		}
		if got[0] != (PartitionResult{TopicPartition: at("a", 0)}) || got[1].TopicPartition != at("a", 3) || !errors.Is(got[1].Err, errLeftOut) ||
			got[2].TopicPartition != at("b", 1) || !errors.Is(got[2].Err, client.ErrElectionNotNeeded) {
			t.Errorf("%+v", got)
		}
		if got, err := a.ElectLeaders(ctx, Unclean); err != nil || len(got) != 2 || got[0].TopicPartition != at("a", 0) {
			t.Errorf("of all: %+v, %v", got, err)
		}
	})
}

// TestReassignments: what is asked arrives as it was meant, a nil list as the wish to stop.
func TestReassignments(t *testing.T) {
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.AlterPartitionAssignmentsRequest:
			resp := kmsg.NewPtrAlterPartitionAssignmentsResponse()
			if r.AllowReplicationFactorChange {
				t.Error("another factor is allowed")
			}
			for _, topic := range r.Topics {
				out := kmsg.NewAlterPartitionAssignmentsResponseTopic()
				out.Topic = topic.Topic
				for _, p := range topic.Partitions {
					a := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
					a.Partition = p.Partition
					if p.Replicas == nil {
						a.ErrorCode = int16(client.ErrNoReassignmentInProgress)
					} else if !reflect.DeepEqual(p.Replicas, []int32{p.Partition, 7}) {
						t.Errorf("%s-%d to %v", topic.Topic, p.Partition, p.Replicas)
					}
					out.Partitions = append(out.Partitions, a)
				}
				resp.Topics = append(resp.Topics, out)
			}
			return resp
		case *kmsg.ListPartitionReassignmentsRequest:
			resp := kmsg.NewPtrListPartitionReassignmentsResponse()
			for _, topic := range []string{"b", "a"} {
				if len(r.Topics) > 0 && r.Topics[0].Topic != topic {
					continue
				}
				p := kmsg.ListPartitionReassignmentsResponseTopicPartition{Partition: 1, Replicas: []int32{3, 1}, AddingReplicas: []int32{3}, RemovingReplicas: []int32{1}}
				resp.Topics = append(resp.Topics, kmsg.ListPartitionReassignmentsResponseTopic{Topic: topic, Partitions: []kmsg.ListPartitionReassignmentsResponseTopicPartition{p}})
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{45, 46}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		got, err := a.AlterPartitionReassignments(ctx, map[client.TopicPartition][]int32{at("b", 0): nil, at("a", 2): {2, 7}, at("a", 1): {1, 7}}, KeepReplicationFactor())
		if err != nil || fmt.Sprint(got[0], got[1]) != fmt.Sprint(PartitionResult{TopicPartition: at("a", 1)}, PartitionResult{TopicPartition: at("a", 2)}) ||
			len(got) != 3 || !errors.Is(got[2].Err, client.ErrNoReassignmentInProgress) {
			t.Errorf("%+v, %v", got, err)
		}
		moves, err := a.ListPartitionReassignments(ctx)
		want := Reassignment{TopicPartition: at("a", 1), Replicas: []int32{3, 1}, Adding: []int32{3}, Removing: []int32{1}}
		if err != nil || len(moves) != 2 || !reflect.DeepEqual(moves[0], want) {
			t.Errorf("%+v, %v", moves, err)
		}
		if moves, err := a.ListPartitionReassignments(ctx, at("b", 1)); err != nil || len(moves) != 1 || moves[0].TopicPartition != at("b", 1) {
			t.Errorf("of one: %+v, %v", moves, err)
		}
	})
}

// TestMembers: the cluster's nodes come and go; what a change of the quorum has no answer to is not asked again.
func TestMembers(t *testing.T) {
	asked := 0
	answers := func(_ int32, req kmsg.Request) kmsg.Response {
		switch r := req.(type) {
		case *kmsg.UnregisterBrokerRequest:
			resp := kmsg.NewPtrUnregisterBrokerResponse()
			if r.BrokerID != 3 {
				resp.ErrorCode, resp.ErrorMessage = int16(client.ErrBrokerIDNotRegistered), kmsg.StringPtr("who?")
			}
			return resp
		case *kmsg.AddRaftVoterRequest:
			asked++
			resp := kmsg.NewPtrAddRaftVoterResponse()
			l := r.Listeners
			switch {
			case len(l) != 1 || l[0].Name != "CONTROLLER" || l[0].Host != "h" || l[0].Port != 9093:
				t.Errorf("%+v", l)
			case r.VoterID == 4:
				resp.ErrorCode = int16(client.ErrRequestTimedOut)
			case r.VoterID == 5 && asked == 2:
				resp.ErrorCode = int16(client.ErrNotLeaderOrFollower)
			case r.VoterDirectoryID != [16]byte{1}:
				resp.ErrorCode = int16(client.ErrDuplicateVoter)
			}
			return resp
		case *kmsg.RemoveRaftVoterRequest:
			resp := kmsg.NewPtrRemoveRaftVoterResponse()
			if r.VoterID != 4 || r.VoterDirectoryID != [16]byte{1} {
				resp.ErrorCode = int16(client.ErrVoterNotFound)
			}
			return resp
		}
		return nil
	}
	serving(t, []int16{64, 80, 81}, answers, func(ctx context.Context, _ *fake, a *Admin) {
		if err := a.UnregisterBroker(ctx, 3); err != nil {
			t.Error(err)
		}
		if err := a.UnregisterBroker(ctx, 9); !errors.Is(err, client.ErrBrokerIDNotRegistered) {
			t.Error(err)
		}
		at := QuorumEndpoint{Listener: "CONTROLLER", Host: "h", Port: 9093}
		for _, c := range []struct {
			voter RaftVoter
			times int
			err   error
		}{{RaftVoter{4, client.UUID{1}}, 1, client.ErrRequestTimedOut}, {RaftVoter{5, client.UUID{1}}, 3, nil}, {RaftVoter{6, client.UUID{2}}, 4, client.ErrDuplicateVoter}} {
			if err := a.AddRaftVoter(ctx, c.voter, at); !errors.Is(err, c.err) || asked != c.times {
				t.Errorf("voter %d: %v after %d requests", c.voter.Node, err, asked)
			}
		}
		if err := a.RemoveRaftVoter(ctx, RaftVoter{4, client.UUID{1}}); err != nil {
			t.Error(err)
		}
		if err := a.RemoveRaftVoter(ctx, RaftVoter{4, client.UUID{2}}); !errors.Is(err, client.ErrVoterNotFound) {
			t.Error(err)
		}
	})
}
