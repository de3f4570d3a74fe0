package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// firstManyGroups is the first version of OffsetFetch that asks for several groups.
const firstManyGroups = 8

// The two shapes of OffsetFetch differ only in names, so one is answered by way of the other.

func (s *Shard) offsetFetch(t Token, topics Topics, req *kmsg.OffsetFetchRequest) {
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	if req.Version >= firstManyGroups {
		resp.Groups = make([]kmsg.OffsetFetchResponseGroup, 0, len(req.Groups))
		for i := range req.Groups {
			resp.Groups = append(resp.Groups, s.fetchGroup(topics, &req.Groups[i], req.Version >= firstByTopicID, req.RequireStable))
		}
		s.promise(t, resp)
		return
	}
	one := kmsg.OffsetFetchRequestGroup{Group: req.Group}
	if req.Topics != nil {
		one.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, len(req.Topics))
	}
	for i := range req.Topics {
		one.Topics[i].Topic, one.Topics[i].Partitions = req.Topics[i].Topic, req.Topics[i].Partitions
	}
	got := s.fetchGroup(topics, &one, false, req.RequireStable)
	resp.ErrorCode = got.ErrorCode
	resp.Topics = make([]kmsg.OffsetFetchResponseTopic, len(got.Topics))
	for i := range got.Topics {
		from, to := &got.Topics[i], &resp.Topics[i]
		to.Topic = from.Topic
		to.Partitions = make([]kmsg.OffsetFetchResponseTopicPartition, len(from.Partitions))
		for j, p := range from.Partitions {
			to.Partitions[j] = kmsg.OffsetFetchResponseTopicPartition{
				Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch,
				Metadata: p.Metadata, ErrorCode: p.ErrorCode,
			}
		}
	}
	s.promise(t, resp)
}

func (s *Shard) fetchGroup(topics Topics, req *kmsg.OffsetFetchRequestGroup, byID, requireStable bool) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.OffsetFetchResponseGroup{Group: req.Group}
	g := s.groups[req.Group]
	if req.Topics == nil {
		if g != nil {
			resp.Topics = s.fetchAll(topics, g, byID, requireStable)
		}
		return resp
	}
	resp.Topics = make([]kmsg.OffsetFetchResponseGroupTopic, len(req.Topics))
	for i := range req.Topics {
		rt, out := &req.Topics[i], &resp.Topics[i]
		out.Topic, out.TopicID = rt.Topic, rt.TopicID
		topic := resolve(topics, byID, rt.Topic, rt.TopicID)
		if !byID {
			topic.code = 0 // by name, what was committed for a topic that is gone can be read
		}
		out.Partitions = make([]kmsg.OffsetFetchResponseGroupTopicPartition, len(rt.Partitions))
		for j, p := range rt.Partitions {
			out.Partitions[j] = s.fetchOne(g, topic, p, requireStable)
		}
	}
	return resp
}

func (s *Shard) fetchAll(topics Topics, g *group, byID, requireStable bool) []kmsg.OffsetFetchResponseGroupTopic {
	all := make([]kmsg.OffsetFetchResponseGroupTopic, 0, len(g.topics))
	for _, t := range g.sortedTopics() {
		id, _, ok := topics.Topic(t.name)
		if byID && !ok {
			continue // there is no way to name it
		}
		out := kmsg.OffsetFetchResponseGroupTopic{Topic: t.name, TopicID: id}
		out.Partitions = make([]kmsg.OffsetFetchResponseGroupTopicPartition, 0, len(t.parts))
		for i := range t.parts {
			if t.parts[i].ofOtherTopic(id) {
				continue
			}
			out.Partitions = append(out.Partitions, s.fetchOne(g, named{name: t.name, id: id}, t.parts[i].partition, requireStable))
		}
		if len(out.Partitions) > 0 {
			all = append(all, out)
		}
	}
	return all
}

// noMetadata is shared by all answers without metadata: nobody writes through it.
var noMetadata = new(string)

func (s *Shard) fetchOne(g *group, topic named, partition int32, requireStable bool) kmsg.OffsetFetchResponseGroupTopicPartition {
	p := kmsg.OffsetFetchResponseGroupTopicPartition{
		Partition: partition, Offset: none, LeaderEpoch: noEpoch, Metadata: noMetadata, ErrorCode: topic.code,
	}
	if topic.code != 0 || g == nil {
		return p
	}
	if requireStable && s.isUnstable(g.id, topic.name, partition) {
		p.ErrorCode = kerr.UnstableOffsetCommit.Code
		return p
	}
	c := g.committed(topic.name, partition)
	if c == nil || c.ofOtherTopic(topic.id) {
		return p
	}
	p.Offset, p.LeaderEpoch = c.offset, c.epoch
	if c.metadata != "" {
		metadata := c.metadata
		p.Metadata = &metadata
	}
	return p
}
