package api

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/internal/quorum"
)

// DescribeQuorum, key 55, versions 0 to 2 (KIP-595). Version 1 has the times of the voters' last
// fetches (KIP-836), 2 messages, directories and addresses (KIP-853).

// metadataTopic is the one topic that has a quorum; it has one partition.
const metadataTopic = "__cluster_metadata"

// quorumPatience is how long the leader of the quorum may take to say how far the others are.
const quorumPatience = 2 * time.Second

func describeQuorum(ctx context.Context, c *call, q *kmsg.DescribeQuorumRequest) (kmsg.Response, error) {
	res := kmsg.NewPtrDescribeQuorumResponse()
	asking, cancel := context.WithTimeout(ctx, quorumPatience)
	defer cancel()
	status := c.h.o.Quorum.LeaderStatus(asking)
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("describe quorum: %w", err)
	}
	described := false
	for _, t := range q.Topics {
		topic := kmsg.NewDescribeQuorumResponseTopic()
		topic.Topic = t.Topic
		for _, asked := range t.Partitions {
			p := quorumOf(t.Topic, asked.Partition, &status)
			described = described || p.ErrorCode == 0
			topic.Partitions = append(topic.Partitions, p)
		}
		res.Topics = append(res.Topics, topic)
	}
	if !described {
		return res, nil
	}
	for _, v := range status.Voters {
		node := kmsg.NewDescribeQuorumResponseNode()
		node.NodeID, node.Listeners = v.NodeID, c.h.votersListeners(&v)
		res.Nodes = append(res.Nodes, node)
	}
	// Observers that say where they are reached are named as well, which Kafka does not do: whoever gives one of
	// them a vote has to know. One that has just got its vote may still be among them.
	for _, o := range status.Observers {
		if slices.ContainsFunc(res.Nodes, func(n kmsg.DescribeQuorumResponseNode) bool { return n.NodeID == o.NodeID }) {
			continue
		}
		node := kmsg.NewDescribeQuorumResponseNode()
		if node.NodeID, node.Listeners = o.NodeID, c.h.votersListeners(&o); len(node.Listeners) > 0 {
			res.Nodes = append(res.Nodes, node)
		}
	}
	return res, nil
}

// votersListeners are where voters reach a node: as was said when it became one on request, as
// controller.quorum.voters says, or where its broker says that it has a listener for other nodes.
func (h *Handler) votersListeners(voter *quorum.Replica) []kmsg.DescribeQuorumResponseNodeListener {
	all := []kmsg.DescribeQuorumResponseNodeListener{}
	add := func(name, host string, port uint16) {
		l := kmsg.NewDescribeQuorumResponseNodeListener()
		l.Name, l.Host, l.Port = name, host, port
		all = append(all, l)
	}
	for _, l := range voter.Listeners {
		add(l.Name, l.Host, l.Port)
	}
	if len(all) > 0 {
		return all
	}
	settings := h.o.Config()
	for _, v := range settings.Voters() {
		if names := settings.List("controller.listener.names"); v.ID == voter.NodeID && len(names) > 0 {
			add(names[0], v.Host, uint16(v.Port))
		}
	}
	if b, ok := h.o.Images.Image().Broker(voter.NodeID); ok && len(all) == 0 {
		for _, l := range b.Listeners {
			if settings.IsControllerListener(l.Name) {
				add(l.Name, l.Host, l.Port)
			}
		}
	}
	return all
}

func quorumOf(topic string, partition int32, s *quorum.Status) kmsg.DescribeQuorumResponseTopicPartition {
	p := kmsg.NewDescribeQuorumResponseTopicPartition()
	p.Partition = partition
	fail := func(code *kerr.Error, why string) kmsg.DescribeQuorumResponseTopicPartition {
		p.ErrorCode, p.ErrorMessage = code.Code, &why
		return p
	}
	switch {
	case topic != metadataTopic || partition != 0:
		return fail(kerr.UnknownTopicOrPartition, "only "+metadataTopic+"-0 has a quorum")
	case s.Leader < 0:
		return fail(kerr.NotLeaderForPartition, "the quorum has no leader")
	}
	p.LeaderID, p.LeaderEpoch, p.HighWatermark = s.Leader, s.Epoch, s.HighWatermark
	p.CurrentVoters, p.Observers = replicaStates(s.Voters), replicaStates(s.Observers)
	return p
}

func replicaStates(replicas []quorum.Replica) []kmsg.DescribeQuorumResponseTopicPartitionReplicaState {
	all := make([]kmsg.DescribeQuorumResponseTopicPartitionReplicaState, len(replicas))
	for i, r := range replicas {
		all[i] = kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		all[i].ReplicaID, all[i].ReplicaDirectoryID, all[i].LogEndOffset = r.NodeID, r.Directory, r.LogEnd
		all[i].LastFetchTimestamp, all[i].LastCaughtUpTimestamp = millisOrNone(r.LastFetch), millisOrNone(r.LastCaughtUp)
	}
	return all
}

// millisOrNone is -1 for a time that is not known.
func millisOrNone(t time.Time) int64 {
	if t.IsZero() {
		return -1
	}
	return t.UnixMilli()
}
