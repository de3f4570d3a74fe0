package membership

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"barnabas/client/internal/assignor"
)

func (m *Machine) joinRequest(reason string) *kmsg.JoinGroupRequest {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Group, req.MemberID, req.InstanceID = m.cfg.Group, m.memberID, m.instance()
	req.SessionTimeoutMillis = int32(m.cfg.SessionTimeout.Milliseconds())
	req.RebalanceTimeoutMillis = int32(m.cfg.MaxPollInterval.Milliseconds())
	req.ProtocolType = assignor.ProtocolType
	if reason != "" {
		req.Reason = &reason
	}
	self := assignor.Member{Topics: m.subscribed, Owned: m.owned, Generation: m.generation, Rack: m.cfg.Rack}
	for _, a := range m.cfg.Assignors {
		was := self
		if !m.cfg.cooperative() {
			// What counts is the generation in which it was owned; none where it was lost.
			was.Generation = m.hadIn
		}
		req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{
			Name: a.Name(), Metadata: assignor.Subscription(a, &was, m.had),
		})
	}
	return req
}

// syncRequest carries a leader's assignment, in the order of the member ids.
func (m *Machine) syncRequest(assignment map[string][]assignor.TopicPartition) *kmsg.SyncGroupRequest {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = m.cfg.Group, m.memberID, m.instance(), m.generation
	protocolType, protocol := assignor.ProtocolType, m.protocol.Name()
	req.ProtocolType, req.Protocol = &protocolType, &protocol
	for id, list := range assignment {
		req.GroupAssignment = append(req.GroupAssignment, kmsg.SyncGroupRequestGroupAssignment{
			MemberID: id, MemberAssignment: assignor.Assignment(list),
		})
	}
	slices.SortFunc(req.GroupAssignment, func(a, b kmsg.SyncGroupRequestGroupAssignment) int {
		if a.MemberID < b.MemberID {
			return -1
		}
		return 1
	})
	return req
}

func (m *Machine) heartbeatRequest() *kmsg.HeartbeatRequest {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.MemberID, req.InstanceID, req.Generation = m.cfg.Group, m.memberID, m.instance(), m.generation
	return req
}

func (m *Machine) leaveRequest(reason string) *kmsg.LeaveGroupRequest {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = m.cfg.Group, m.memberID // MemberID alone up to version 2
	member := kmsg.NewLeaveGroupRequestMember()
	member.MemberID, member.Reason = m.memberID, &reason
	req.Members = append(req.Members, member)
	return req
}
