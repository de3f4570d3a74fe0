package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// firstOffsetCommitNotFound is the first version of OffsetCommit whose clients know GROUP_ID_NOT_FOUND,
// and firstByTopicID the first of OffsetCommit and of OffsetFetch that names topics by their ids.
const (
	firstOffsetCommitNotFound = 9
	firstByTopicID            = 10
)

// named is a topic of a request as the image knows it.
type named struct {
	name       string
	id         [16]byte
	partitions int32
	code       int16 // why it is not known
}

// has reports whether the topic has the partition.
func (n *named) has(partition int32) bool { return partition >= 0 && partition < n.partitions }

func resolve(topics Topics, byID bool, name string, id [16]byte) named {
	if byID {
		current, known := topics.Name(id)
		if !known {
			return named{id: id, code: kerr.UnknownTopicID.Code}
		}
		name = current
	}
	if id, partitions, ok := topics.Topic(name); ok {
		return named{name: name, id: id, partitions: partitions}
	}
	return named{name: name, code: kerr.UnknownTopicOrPartition.Code}
}

func (s *Shard) offsetCommit(t Token, topics Topics, req *kmsg.OffsetCommitRequest) {
	resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
	known, partitions, stringBytes := make([]named, len(req.Topics)), 0, 0
	anyKnown := false
	for i := range req.Topics {
		rt := &req.Topics[i]
		known[i] = resolve(topics, req.Version >= firstByTopicID, rt.Topic, rt.TopicID)
		anyKnown = anyKnown || known[i].code == 0
		partitions += len(rt.Partitions)
		stringBytes += len(rt.Partitions) * (len(req.Group) + len(known[i].name))
		for j := range rt.Partitions {
			if m := rt.Partitions[j].Metadata; m != nil {
				stringBytes += min(len(*m), s.config.OffsetMetadataMaxBytes*maxBytesPerUnit)
			}
		}
	}
	code := int16(0)
	if anyKnown {
		code = s.mayCommit(req)
	}
	if anyKnown && code == 0 {
		s.w.expect(partitions, stringBytes)
	}
	resp.Topics = make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))
	room := make([]kmsg.OffsetCommitResponseTopicPartition, partitions)
	for i := range req.Topics {
		rt, out := &req.Topics[i], &resp.Topics[i]
		out.Topic, out.TopicID = rt.Topic, rt.TopicID
		out.Partitions, room = room[:len(rt.Partitions):len(rt.Partitions)], room[len(rt.Partitions):]
		why := known[i].code
		if why == 0 {
			why = code
		}
		for j := range rt.Partitions {
			out.Partitions[j].Partition = rt.Partitions[j].Partition
			out.Partitions[j].ErrorCode = why
			if why == 0 {
				out.Partitions[j].ErrorCode = s.commitOne(req, known[i], &rt.Partitions[j])
			}
		}
	}
	if len(s.w.records) == 0 {
		s.answer(t, resp)
		return
	}
	s.promise(t, resp)
}

// mayCommit checks who commits, and keeps the member's session alive as a heartbeat would.
func (s *Shard) mayCommit(req *kmsg.OffsetCommitRequest) int16 {
	g := s.groups[req.Group]
	if g == nil {
		switch {
		case req.Generation < 0:
			return 0 // a consumer without a group, or an administrator: the record makes the group
		case req.Version >= firstOffsetCommitNotFound:
			return kerr.GroupIDNotFound.Code
		}
		return kerr.IllegalGeneration.Code
	}
	if code := g.mayCommit(req.MemberID, req.InstanceID, req.Generation); code != 0 {
		return code
	}
	if m := g.members[req.MemberID]; m != nil && (g.state == Stable || g.state == PreparingRebalance) {
		s.keepAlive(m)
	}
	return 0
}

func (g *group) mayCommit(memberID string, instance *string, generation int32) int16 {
	switch {
	case generation < 0 && g.state == Empty:
		return 0
	case generation >= 0 || memberID != "" || instance != nil:
		if code := g.known(memberID, instance); code != 0 {
			return code
		}
		if generation != g.generation {
			return kerr.IllegalGeneration.Code
		}
	case g.state != Empty:
		return kerr.UnknownMemberID.Code
	}
	if g.state == CompletingRebalance {
		// The member has seen the new generation but not yet what is its own in it.
		return kerr.RebalanceInProgress.Code
	}
	return 0
}

func (s *Shard) commitOne(req *kmsg.OffsetCommitRequest, topic named, p *kmsg.OffsetCommitRequestTopicPartition) int16 {
	c := committed{
		offset: p.Offset, at: s.now.UnixMilli(), expires: never,
		topicID: topic.id, partition: p.Partition, epoch: p.LeaderEpoch,
	}
	if !topic.has(p.Partition) {
		return kerr.UnknownTopicOrPartition.Code
	}
	if p.Metadata != nil {
		if longerThan(*p.Metadata, s.config.OffsetMetadataMaxBytes) {
			return kerr.OffsetMetadataTooLarge.Code
		}
		c.metadata = *p.Metadata
	}
	if req.RetentionTimeMillis >= 0 {
		c.expires = c.at + req.RetentionTimeMillis
	}
	s.w.commit(req.Group, topic.name, c)
	return 0
}

// maxBytesPerUnit is how many bytes of UTF-8 one unit of UTF-16 takes at most.
const maxBytesPerUnit = 3

// longerThan counts as Kafka does: a string's length is its number of UTF-16 units.
func longerThan(s string, units int) bool {
	if len(s) <= units {
		return false
	}
	n := 0
	for _, r := range s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n > units
}
