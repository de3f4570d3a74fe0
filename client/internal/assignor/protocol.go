package assignor

import (
	"fmt"
	"iter"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// ProtocolType is what consumers call their protocol.
const ProtocolType = "consumer"

// The versions of subscriptions and assignments: ours, and from which on a subscription tells the
// generation of what is owned (KIP-792). Version 1 brought what is owned (KIP-429), 3 the rack.
const (
	subscriptionVersion = 3
	assignmentVersion   = 3
	firstWithGeneration = 2
)

// byTopic groups partitions, sorted, under their topics, in order.
func byTopic(list []TopicPartition) iter.Seq2[string, []int32] {
	ordered := slices.SortedFunc(slices.Values(list), Compare)
	return func(yield func(string, []int32) bool) {
		for len(ordered) > 0 {
			topic := ordered[0].Topic
			var partitions []int32
			for len(ordered) > 0 && ordered[0].Topic == topic {
				partitions = append(partitions, ordered[0].Partition)
				ordered = ordered[1:]
			}
			if !yield(topic, partitions) {
				return
			}
		}
	}
}

// Subscription is what a member tells the group's leader in the words of one assignor. had is what
// it gave up before joining, for those that remember it themselves; m.Owned is what it keeps.
func Subscription(a Assignor, m *Member, had []TopicPartition) []byte {
	s := kmsg.NewConsumerMemberMetadata()
	s.Version = subscriptionVersion
	s.Topics = slices.Sorted(slices.Values(m.Topics))
	s.UserData = a.UserData(had, m.Generation)
	for topic, partitions := range byTopic(m.Owned) {
		s.OwnedPartitions = append(s.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: topic, Partitions: partitions})
	}
	s.Generation = m.Generation
	if m.Rack != "" {
		s.Rack = &m.Rack
	}
	return s.AppendTo(nil)
}

// ReadSubscription reads what a member told, as the assignor understands it. Versions later than
// ours begin as ours does.
func ReadSubscription(a Assignor, id, instanceID string, subscription []byte) (Member, error) {
	s := kmsg.NewConsumerMemberMetadata()
	if err := s.ReadFrom(subscription); err != nil {
		return Member{}, fmt.Errorf("subscription of member %s: %w", id, err)
	}
	m := Member{ID: id, InstanceID: instanceID, Topics: s.Topics, Generation: s.Generation}
	if s.Rack != nil {
		m.Rack = *s.Rack
	}
	for _, t := range s.OwnedPartitions {
		for _, p := range t.Partitions {
			m.Owned = append(m.Owned, TopicPartition{t.Topic, p})
		}
	}
	a.Ownership(&m, s.Version, s.UserData)
	return m, nil
}

// Assignment is what the leader tells a member.
func Assignment(list []TopicPartition) []byte {
	a := kmsg.NewConsumerMemberAssignment()
	a.Version = assignmentVersion
	for topic, partitions := range byTopic(list) {
		a.Topics = append(a.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: topic, Partitions: partitions})
	}
	return a.AppendTo(nil)
}

// ReadAssignment reads what the leader told, sorted. Nothing at all is an empty assignment.
func ReadAssignment(assignment []byte) ([]TopicPartition, error) {
	if len(assignment) == 0 {
		return nil, nil
	}
	a := kmsg.NewConsumerMemberAssignment()
	if err := a.ReadFrom(assignment); err != nil {
		return nil, fmt.Errorf("assignment: %w", err)
	}
	var list []TopicPartition
	for _, t := range a.Topics {
		for _, p := range t.Partitions {
			list = append(list, TopicPartition{t.Topic, p})
		}
	}
	slices.SortFunc(list, Compare)
	return slices.Compact(list), nil
}
