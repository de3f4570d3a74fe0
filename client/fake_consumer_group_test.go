package client

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/groupmodel"
)

// fakeConsumerGroup is a group of the consumer protocol: the model of its coordinator, on one node at
// a time, with the offsets that it has committed.
type fakeConsumerGroup struct {
	f       *fakeCluster
	node    int32 // guarded by f.mu, as all below
	model   *groupmodel.Coordinator
	offsets map[groupmodel.Partition]kmsg.OffsetCommitRequestTopicPartition
	strict  bool // as before KIP-1251: commits under an epoch before the last are refused
}

// consumerGroup gives the cluster a coordinator of the consumer protocol on its first node.
func (f *fakeCluster) consumerGroup() *fakeConsumerGroup {
	g := &fakeConsumerGroup{
		f: f, node: 1, model: groupmodel.New(6*time.Second, time.Second), offsets: map[groupmodel.Partition]kmsg.OffsetCommitRequestTopicPartition{},
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.consumerGroup = g
	for key, most := range map[int16]int16{8: 10, 9: 10, 10: 6, 68: 1} {
		f.mu.maxVersion[key] = most
	}
	return g
}

// move makes another node the coordinator.
func (g *fakeConsumerGroup) move(node int32) {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	g.node = node
}

func (g *fakeConsumerGroup) handle(node int32, req kmsg.Request, i interference) kmsg.Response {
	g.f.mu.Lock()
	defer g.f.mu.Unlock()
	if r, ok := req.(*kmsg.FindCoordinatorRequest); ok {
		return (&fakeGroups{node: g.node}).findLocked(r, i)
	}
	code := i.code
	if node != g.node && code == 0 {
		code = int16(ErrNotCoordinator)
	}
	if code != 0 {
		return refusal(req, code)
	}
	topics := map[[16]byte]groupmodel.Topic{}
	changed := len(g.model.Topics) != len(g.f.mu.topics)
	for _, t := range g.f.mu.topics {
		topics[t.id] = groupmodel.Topic{Name: t.name, Partitions: int32(len(t.partitions))}
		changed = changed || topics[t.id] != g.model.Topics[t.id]
	}
	if g.model.Topics = topics; changed {
		g.model.TopicsChanged()
	}
	switch r := req.(type) {
	case *kmsg.ConsumerGroupHeartbeatRequest:
		return g.model.Heartbeat(time.Now(), r)
	case *kmsg.OffsetCommitRequest:
		return g.commit(r)
	default:
		return g.fetch(req.(*kmsg.OffsetFetchRequest))
	}
}

// fence gives what is wrong with a member's epoch.
func (g *fakeConsumerGroup) fence(id string, epoch int32) Error {
	at, member := g.model.Epoch(id)
	switch {
	case !member:
		return ErrUnknownMemberID
	case epoch > at || epoch < at && g.strict:
		return ErrStaleMemberEpoch
	}
	return 0
}

func (g *fakeConsumerGroup) commit(r *kmsg.OffsetCommitRequest) kmsg.Response {
	resp := kmsg.NewPtrOffsetCommitResponse()
	code := g.fence(r.MemberID, r.Generation)
	for _, t := range r.Topics {
		out := kmsg.OffsetCommitResponseTopic{TopicID: t.TopicID}
		for _, p := range t.Partitions {
			part := groupmodel.Partition{Topic: t.TopicID, Number: p.Partition}
			refused := code
			switch known := g.f.find("", t.TopicID); {
			case refused != 0:
			case known == nil || known.id != t.TopicID:
				refused = ErrUnknownTopicID
			case r.Generation != g.epoch(r.MemberID) && !g.model.Assigned(r.MemberID)[part]:
				refused = ErrStaleMemberEpoch
			default:
				g.offsets[part] = p
			}
			out.Partitions = append(out.Partitions, kmsg.OffsetCommitResponseTopicPartition{Partition: p.Partition, ErrorCode: int16(refused)})
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (g *fakeConsumerGroup) epoch(id string) int32 {
	epoch, _ := g.model.Epoch(id)
	return epoch
}

func (g *fakeConsumerGroup) fetch(r *kmsg.OffsetFetchRequest) kmsg.Response {
	resp := kmsg.NewPtrOffsetFetchResponse()
	for _, in := range r.Groups {
		out := kmsg.NewOffsetFetchResponseGroup()
		out.Group = in.Group
		if in.MemberID != nil {
			out.ErrorCode = int16(g.fence(*in.MemberID, in.MemberEpoch))
		}
		for _, t := range in.Topics {
			topic := kmsg.OffsetFetchResponseGroupTopic{TopicID: t.TopicID}
			for _, n := range t.Partitions {
				part := kmsg.NewOffsetFetchResponseGroupTopicPartition()
				part.Partition, part.Offset, part.LeaderEpoch = n, -1, -1
				if p, ok := g.offsets[groupmodel.Partition{Topic: t.TopicID, Number: n}]; ok {
					part.Offset, part.LeaderEpoch, part.Metadata = p.Offset, p.LeaderEpoch, p.Metadata
				}
				topic.Partitions = append(topic.Partitions, part)
			}
			out.Topics = append(out.Topics, topic)
		}
		resp.Groups = append(resp.Groups, out)
	}
	return resp
}

func groupPartition(topic [16]byte, number int32) groupmodel.Partition {
	return groupmodel.Partition{Topic: topic, Number: number}
}
