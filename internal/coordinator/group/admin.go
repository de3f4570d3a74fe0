package group

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// classicType is what ListGroups calls the groups of this package.
const classicType = "classic"

// firstDescribeNotFound is the first version of DescribeGroups in which a group that does not exist
// is an error; before, it is Dead.
const firstDescribeNotFound = 6

func (s *Shard) describeGroups(t Token, req *kmsg.DescribeGroupsRequest) {
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	resp.Groups = make([]kmsg.DescribeGroupsResponseGroup, len(req.Groups))
	for i, id := range req.Groups {
		out := &resp.Groups[i]
		out.Default()
		out.Group = id
		if g := s.groups[id]; g != nil {
			g.describe(out)
			continue
		}
		out.State = Dead.String()
		if req.Version >= firstDescribeNotFound {
			message := fmt.Sprintf("Group %s not found.", id)
			out.ErrorCode, out.ErrorMessage = kerr.GroupIDNotFound.Code, &message
		}
	}
	s.promise(t, resp)
}

func (g *group) describe(out *kmsg.DescribeGroupsResponseGroup) {
	out.State, out.ProtocolType = g.state.String(), g.protocolType
	if g.state == Stable {
		out.Protocol = g.protocol
	}
	out.Members = make([]kmsg.DescribeGroupsResponseGroupMember, len(g.order))
	for i, m := range g.order {
		to := &out.Members[i]
		to.MemberID, to.InstanceID, to.ClientID, to.ClientHost = m.id, m.instance, m.client.ID, m.client.Host
		to.MemberAssignment, to.ProtocolMetadata = orNone(m.assignment), []byte{}
		if g.state == Stable {
			to.ProtocolMetadata = orNone(m.metadata(g.protocol))
		}
	}
}

func orNone(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

func (s *Shard) listGroups(t Token, req *kmsg.ListGroupsRequest) {
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	wanted := func(filter []string, is string) bool {
		return len(filter) == 0 || slices.ContainsFunc(filter, func(f string) bool {
			return strings.EqualFold(strings.TrimSpace(f), is)
		})
	}
	if wanted(req.TypesFilter, classicType) {
		for _, id := range slices.Sorted(maps.Keys(s.groups)) {
			g := s.groups[id]
			if !wanted(req.StatesFilter, g.state.String()) {
				continue
			}
			resp.Groups = append(resp.Groups, kmsg.ListGroupsResponseGroup{
				Group: id, ProtocolType: g.protocolType, GroupState: g.state.String(), GroupType: classicType,
			})
		}
	}
	s.promise(t, resp)
}

func (s *Shard) deleteGroups(t Token, req *kmsg.DeleteGroupsRequest) {
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	resp.Groups = make([]kmsg.DeleteGroupsResponseGroup, len(req.Groups))
	for i, id := range req.Groups {
		out := &resp.Groups[i]
		out.Group = id
		switch g := s.groups[id]; {
		case g == nil:
			out.ErrorCode = kerr.GroupIDNotFound.Code
		case g.state != Empty:
			out.ErrorCode = kerr.NonEmptyGroup.Code
		case slices.Contains(req.Groups[:i], id): // its records are on the way already
		default:
			s.deleteGroup(g)
		}
	}
	s.promise(t, resp)
}

// deleteGroup writes the tombstones of all that a group has, those of pending transactions' offsets
// too.
func (s *Shard) deleteGroup(g *group) {
	n, nameBytes := g.offsetCount()
	s.w.expect(n+1, nameBytes+len(g.id))
	for _, topic := range g.sortedTopics() {
		for i := range topic.parts {
			s.w.forget(g.id, topic.name, topic.parts[i].partition)
		}
	}
	for _, at := range s.pendingOnly(g) {
		s.w.forget(g.id, at.topic, at.partition)
	}
	s.w.group(g.id, nil)
}

func (s *Shard) offsetDelete(t Token, topics Topics, req *kmsg.OffsetDeleteRequest) {
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	if resp.ErrorCode = s.mayDeleteOffsets(req.Group); resp.ErrorCode != 0 {
		s.answer(t, resp)
		return
	}
	g := s.groups[req.Group]
	resp.Topics = make([]kmsg.OffsetDeleteResponseTopic, len(req.Topics))
	for i := range req.Topics {
		rt, out := &req.Topics[i], &resp.Topics[i]
		out.Topic = rt.Topic
		out.Partitions = make([]kmsg.OffsetDeleteResponseTopicPartition, len(rt.Partitions))
		topic := resolve(topics, false, rt.Topic, [16]byte{})
		for j := range rt.Partitions {
			p, code := rt.Partitions[j].Partition, topic.code
			switch {
			case code == 0 && !topic.has(p):
				code = kerr.UnknownTopicOrPartition.Code
			case code == 0 && g.subscribedTo(rt.Topic):
				code = kerr.GroupSubscribedToTopic.Code
			}
			out.Partitions[j] = kmsg.OffsetDeleteResponseTopicPartition{Partition: p, ErrorCode: code}
			if code == 0 && (g.committed(rt.Topic, p) != nil || s.isUnstable(g.id, rt.Topic, p)) {
				s.w.forget(g.id, rt.Topic, p)
			}
		}
	}
	s.promise(t, resp)
}

func (s *Shard) mayDeleteOffsets(id string) int16 {
	if id == "" {
		return kerr.InvalidGroupID.Code
	}
	switch g := s.groups[id]; {
	case g == nil:
		return kerr.GroupIDNotFound.Code
	case g.state != Empty && g.protocolType != consumerType:
		return kerr.NonEmptyGroup.Code
	}
	return 0
}
